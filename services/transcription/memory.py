"""What glibc keeps of the memory that libraries have given back; others have no word for it.

Of two models of 400 MB, 690 MB stayed behind after both were gone, and 240 MB of each load
(measured with CTranslate2 4.8 on glibc 2.36). And a few bytes that live longer keep whole
megabytes of the heap from being used again: to tell the speakers of half an hour apart took 4.9 GB
so, and 1.4 GB where the free pages between them are given back on the way (pyannote.audio 4.0.7).
"""

import ctypes

_C = ctypes.CDLL(None)
# From glibc's malloc.h; see mallopt(3).
_M_ARENA_MAX = -8


def use_one_heap() -> None:
    """Let threads share the main thread's heap; to be called before they begin.

    A heap of its own gives pages back after every step, and asks for them at the next: so a
    recording of five minutes took 8.8 s instead of 8.0 s in a worker's thread (torch 2.13).
    """
    if mallopt := getattr(_C, "mallopt", None):
        mallopt(_M_ARENA_MAX, 1)


def give_back() -> None:
    """Return to the system all pages that are free: a few milliseconds."""
    if trim := getattr(_C, "malloc_trim", None):
        trim(0)
