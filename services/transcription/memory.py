"""What glibc keeps of the memory that libraries have given back; others have no words for it.

What it has got back of a model, it keeps for itself unless it is told otherwise: of two models of
400 MB, 690 MB stayed behind after both were gone, and 240 MB of each load (measured with
CTranslate2 4.8 on glibc 2.36).

It also learns to take larger and larger blocks from the heap, where a few bytes that live longer
keep whole megabytes from being used again: to tell the speakers of half an hour apart took 4.9 GB
so, and 0.9 GB where large blocks have pages of their own (pyannote.audio 4.0.7, torch 2.13).
"""

import ctypes

_C = ctypes.CDLL(None)
# From glibc's malloc.h; see mallopt(3). To set it ends the learning.
_M_MMAP_THRESHOLD = -3
_LARGE_BYTES = 1_000_000


def give_back() -> None:
    """Return to the system what the heap has free."""
    if trim := getattr(_C, "malloc_trim", None):
        trim(0)


def keep_large_blocks_apart() -> None:
    """Give each large block pages of its own from now on: they go when it goes."""
    if mallopt := getattr(_C, "mallopt", None):
        mallopt(_M_MMAP_THRESHOLD, _LARGE_BYTES)
