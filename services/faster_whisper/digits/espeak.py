"""espeak-ng's library: text to samples, with the time at which each word begins.

It knows the C interface (speak_lib.h); it does not know digits.

The library is called in-process because its command line does not tell when a word begins.
Version 1.51 crashes on rare combinations of voice and pitch, so whoever speaks does so inside
call_in_children: a crash costs one job, not the run.
"""

import ctypes
import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

Samples = npt.NDArray[np.float32]  # [samples], mono, -1 to 1, 16 kHz unless said otherwise
Result = TypeVar("Result")

JOB_SECONDS_MAX = 120.0  # measured: a job takes about a second


@dataclass(frozen=True)
class Voice:
    """How one speaker sounds, in espeak-ng's terms; warp shifts pitch and pace together."""

    language: str
    name: str  # accent+variant, "en-us+f3"
    words_per_minute: int = 160
    pitch: int = 50  # 0 to 99
    pitch_range: int = 50  # 0 to 99
    word_gap: int = 0  # units of 10 ms
    warp: float = 1.0


class _Event(ctypes.Structure):
    """espeak_EVENT."""

    _fields_ = (
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_milliseconds", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", ctypes.c_char * 8),
    )


_OnSpeech = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event)
)


class Espeak:
    """espeak-ng in this process; the library is global, so make one per process."""

    # Numbers of speak_lib.h.
    _SYNCHRONOUS = 2
    _FROM_CHARACTER = 1
    _UTF8 = 1
    _EVENTS_END = 0
    _EVENT_WORD = 1
    _RATE = 1
    _PITCH = 3
    _RANGE = 4
    _WORD_GAP = 7

    def __init__(self) -> None:
        """Start the library; OSError when espeak-ng is not installed."""
        self._library = ctypes.CDLL("libespeak-ng.so.1")
        self._library.espeak_Info.restype = ctypes.c_char_p
        self._chunks: list[bytes] = []
        self._word_seconds: dict[int, float] = {}
        self._callback = _OnSpeech(self._take)  # kept here: the library holds no reference
        buffer_milliseconds = 500
        self.samples_per_second: int = self._library.espeak_Initialize(
            self._SYNCHRONOUS, buffer_milliseconds, None, 0
        )
        assert self.samples_per_second > 0, self.samples_per_second
        self._library.espeak_SetSynthCallback(self._callback)

    def say(self, text: str, voice: Voice) -> tuple[Samples, dict[int, float]]:
        """Samples at samples_per_second, and each word's start in seconds by its character.

        Characters count from 1. LookupError when the voice is not installed.
        """
        self._chunks.clear()
        self._word_seconds.clear()
        if self._library.espeak_SetVoiceByName(voice.name.encode()) != 0:
            raise LookupError(f"espeak-ng has no voice {voice.name}")
        for parameter, value in (
            (self._RATE, voice.words_per_minute),
            (self._PITCH, voice.pitch),
            (self._RANGE, voice.pitch_range),
            (self._WORD_GAP, voice.word_gap),
        ):
            self._library.espeak_SetParameter(parameter, value, 0)
        letters = text.encode() + b"\0"
        size = ctypes.c_size_t(len(letters))
        start, unit, end = 0, self._FROM_CHARACTER, 0
        self._library.espeak_Synth(letters, size, start, unit, end, self._UTF8, None, None)
        self._library.espeak_Synchronize()
        spoken = np.frombuffer(b"".join(self._chunks), dtype=np.int16)
        samples = spoken.astype(np.float32) / np.float32(32768)
        return samples, dict(self._word_seconds)

    def list_variants(self) -> list[str]:
        """The installed voice variants, by name."""
        folder = ctypes.c_char_p()
        self._library.espeak_Info(ctypes.byref(folder))
        assert folder.value is not None
        return sorted(path.name for path in Path(folder.value.decode(), "voices", "!v").iterdir())

    def _take(self, audio: Any, count: int, events: Any) -> int:  # noqa: ANN401 - C pointers
        if count > 0 and audio:
            self._chunks.append(ctypes.string_at(audio, count * 2))
        for event in self._list(events):
            if event.type == self._EVENT_WORD and event.length > 0:
                # espeak-ng may report a word again; its first report is where it begins.
                seconds = event.audio_milliseconds / 1000
                self._word_seconds.setdefault(event.text_position, seconds)
        return 0

    def _list(self, events: Any) -> Iterator[_Event]:  # noqa: ANN401 - a C array
        index = 0
        while events[index].type != self._EVENTS_END:
            yield events[index]
            index += 1


def call_in_children(
    function: Callable[..., Result], jobs: Sequence[tuple[object, ...]], at_once: int = 2
) -> list[Result | None]:
    """What the function returned for each job, called in a child each; None where that died."""
    results: list[Result | None] = []
    for first in range(0, len(jobs), at_once):
        started = [_start(function, job) for job in jobs[first : first + at_once]]
        results += [_receive(child, results_end) for child, results_end in started]
    return results


def _start(
    function: Callable[..., object], job: tuple[object, ...]
) -> tuple[multiprocessing.process.BaseProcess, Connection]:
    # Forked, because a fresh interpreter would spend longer on imports than on speech.
    context = multiprocessing.get_context("fork")
    receiving, sending = context.Pipe(duplex=False)
    child = context.Process(target=_send, args=(sending, function, job), daemon=True)
    child.start()
    sending.close()  # the child's copy is then the last: its death ends the pipe
    return child, receiving


def _send(sending: Connection, function: Callable[..., object], job: tuple[object, ...]) -> None:
    sending.send(function(*job))


def _receive(child: multiprocessing.process.BaseProcess, receiving: Connection) -> Any:  # noqa: ANN401 - any Result
    try:
        return receiving.recv() if receiving.poll(JOB_SECONDS_MAX) else None
    except EOFError:  # the child died without an answer
        return None
    finally:
        receiving.close()
        child.kill()  # a child that answered is done; one that hangs ends here
        child.join()
