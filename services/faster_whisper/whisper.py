"""One Whisper model in memory, run by the real faster-whisper.

A recording is worked on in stretches of minutes, each by one of two ways of the library:

- one window after another, each reading on from the words before it (the default on a CPU);
- several windows at once, cut where nobody speaks: faster on a GPU, for twice the memory. A window
  whose text looks wrong is then heard again in the first way, for the second has no ladder of
  temperatures.
"""

import math
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path

import faster_whisper
import numpy as np
from faster_whisper import transcribe as library
from faster_whisper.vad import get_speech_timestamps
from numpy.typing import NDArray

from services.faster_whisper.abilities import Abilities
from services.faster_whisper.settings import WhisperSettings
from services.faster_whisper.speech import vad_options
from services.transcription.audio import SAMPLE_RATE, split_at_pauses
from services.transcription.request import TranscriptionRequest
from services.transcription.transcript import Segment, Transcript, Word

Samples = NDArray[np.float32]

# CTranslate2's own default, which it also takes where there are fewer cores: twice as slow there.
_THREADS_MAX = 4
_GPU_BATCH_SIZE = 8  # the library's own
# Below it, there is too little to be done at once.
_BATCH_FROM_SECONDS = 60
_WINDOW_SECONDS = 30.0
# The library's own: short enough that there are pauses to cut windows in.
_WINDOW_SILENCE_MS = 160

# What the library takes for a wrong text: it repeats itself, or is improbable.
_COMPRESSION_RATIO_MAX = 2.4
_LOGPROB_MIN = -1.0
_NO_SPEECH_MAX = 0.6
# faster-whisper's own prompt_reset_on_temperature.
_GUESSING_TEMPERATURE = 0.5

# Half of Whisper's context; the library keeps the last of them.
_PROMPT_TOKENS = 224
_FRAMES_PER_SECOND = 100  # of `seek`
# Two digits are what Whisper's own times have, and what SRT cannot show as nothing.
_SHORTEST_SECONDS = 0.01


class Whisper:
    """A resident model; belongs to one thread."""

    def __init__(self, folder: Path, settings: WhisperSettings) -> None:
        self._model = faster_whisper.WhisperModel(
            str(folder),
            device=settings.inference_device,
            device_index=settings.device_index,
            compute_type=settings.compute_type,
            cpu_threads=settings.cpu_threads or min(_THREADS_MAX, os.cpu_count() or 1),
            local_files_only=True,
        )
        on_gpu = self._model.model.device == "cuda"
        self._batch_size = settings.batch_size or (_GPU_BATCH_SIZE if on_gpu else 1)
        self._vad_filter = settings.vad_filter
        self._abilities = Abilities(self._model)

    def transcribe(
        self,
        samples: NDArray[np.int16],
        request: TranscriptionRequest,
        check: Callable[[], None],
        report: Callable[[Segment], None],
    ) -> Transcript:
        """Give the words of int16 [samples], mono, 16 kHz; `check` may raise to give up."""
        self._abilities.check(request)
        batched = (
            self._batch_size > 1
            and self._filters(request)
            and len(samples) > _BATCH_FROM_SECONDS * SAMPLE_RATE
        )
        hear = self._hear_batched if batched else self._hear
        segments: list[Segment] = []
        language = request.language
        context: str | list[int] | None = request.prompt
        for offset, stretch in split_at_pauses(samples):
            check()
            written: list[int] | None = None
            for heard in hear(_Task(stretch, request, language, context)):
                check()
                # Detected once, as Whisper does, but in the first stretch where someone speaks.
                language = heard.language
                segment = _segment(heard.segment, offset, stretch)
                segments.append(segment)
                report(segment)
                # The model reads on from what it wrote, unless it had to guess: within a stretch
                # the library sees to that.
                guessed = segment.temperature > _GUESSING_TEMPERATURE
                kept = [] if guessed else [*(written or []), *segment.tokens]
                written = kept[-_PROMPT_TOKENS:]
            if not batched and written is not None:
                context = written
        return Transcript(
            segments=tuple(segments),
            language=language,
            duration_seconds=len(samples) / SAMPLE_RATE,
        )

    def _hear(self, task: "_Task") -> Iterator["_Heard"]:
        """Work on one window after another."""
        language = task.language or self._abilities.choose_language(task.samples, task.request)
        segments, info = self._model.transcribe(
            task.samples,
            language=language,
            temperature=task.request.temperatures,
            vad_filter=self._filters(task.request),
            vad_parameters=vad_options(task.request.vad),
            **_options(task),
        )
        for segment in segments:  # the model computes here
            yield _Heard(segment, info.language)

    def _hear_batched(self, task: "_Task") -> Iterator["_Heard"]:
        """Work on several windows at once."""
        clips = _windows(task)
        if not clips:
            return
        ladder = task.request.temperatures
        segments, info = faster_whisper.BatchedInferencePipeline(self._model).transcribe(
            task.samples,
            language=task.language or self._abilities.choose_language(task.samples, task.request),
            temperature=ladder[0],
            clip_timestamps=[{"start": start, "end": end} for start, end in clips],
            batch_size=self._batch_size,
            **_options(task),
        )
        by_window = groupby(segments, key=lambda segment: segment.seek)
        for (start, end), (_, group) in zip(clips, by_window, strict=True):
            found = list(group)
            if len(ladder) > 1 and _looks_wrong(found):
                found = self._hear_again(task, start, end, info.language)
            for segment in found:
                if _is_said(segment):
                    yield _Heard(_clipped(segment, start, end), info.language)

    def _hear_again(
        self, task: "_Task", start: float, end: float, language: str
    ) -> list[library.Segment]:
        clip = task.samples[int(start * SAMPLE_RATE) : int(end * SAMPLE_RATE)]
        segments, _ = self._model.transcribe(
            clip,
            language=language,
            temperature=task.request.temperatures[1:],
            vad_filter=False,
            **_options(task),
        )
        return [_moved(segment, start) for segment in segments]

    def _filters(self, request: TranscriptionRequest) -> bool:
        asked = request.vad.enabled
        # Whisper invents words where nobody speaks.
        return self._vad_filter if asked is None else asked


@dataclass(frozen=True)
class _Task:
    """One stretch to be heard."""

    samples: Samples
    request: TranscriptionRequest
    language: str | None
    context: str | list[int] | None  # what was said before, as text or tokens


@dataclass(frozen=True)
class _Heard:
    segment: library.Segment  # its times are those of the stretch
    language: str


def _options(task: _Task) -> dict[str, object]:
    """Give what both ways of the library take."""
    request = task.request
    return {
        "task": request.task,
        "initial_prompt": task.context,
        "hotwords": request.hotwords,
        "word_timestamps": request.words or request.logprobs,
        "without_timestamps": request.without_timestamps,
    }


def _windows(task: _Task) -> list[tuple[float, float]]:
    """Give the passages with speech, in seconds, joined as far as a window holds them."""
    options = vad_options(task.request.vad)
    options.max_speech_duration_s = min(options.max_speech_duration_s, _WINDOW_SECONDS)
    if task.request.vad.min_silence_duration_ms is None:
        options.min_silence_duration_ms = _WINDOW_SILENCE_MS
    windows: list[tuple[float, float]] = []
    for found in get_speech_timestamps(task.samples, options):
        start, end = found["start"] / SAMPLE_RATE, found["end"] / SAMPLE_RATE
        if windows and end - windows[-1][0] <= _WINDOW_SECONDS:
            start = windows.pop()[0]
        windows.append((start, end))
    return windows


def _looks_wrong(window: list[library.Segment]) -> bool:
    """Judge the text of one window as the library does before it climbs its ladder."""
    improbable = any(segment.avg_logprob < _LOGPROB_MIN for segment in window)
    if improbable and any(segment.no_speech_prob > _NO_SPEECH_MAX for segment in window):
        return False  # nobody speaks
    ratio: float = library.get_compression_ratio("".join(item.text for item in window).strip())
    return improbable or ratio > _COMPRESSION_RATIO_MAX


def _is_said(segment: library.Segment) -> bool:
    """Tell a segment from what the library's first way leaves out by itself."""
    improbable = segment.avg_logprob < _LOGPROB_MIN
    if improbable and segment.no_speech_prob > _NO_SPEECH_MAX:
        return False
    return bool(segment.text.strip() and segment.start < segment.end)


def _moved(segment: library.Segment, seconds: float) -> library.Segment:
    words = segment.words and [
        replace(word, start=word.start + seconds, end=word.end + seconds) for word in segment.words
    ]
    return replace(
        segment,
        seek=segment.seek + round(seconds * _FRAMES_PER_SECOND),
        start=segment.start + seconds,
        end=segment.end + seconds,
        words=words,
    )


def _clipped(segment: library.Segment, start: float, end: float) -> library.Segment:
    """Keep a segment within its window: the model's own is longer, and the next begins there."""

    def clip(seconds: float) -> float:
        return min(max(seconds, start), end)

    words = segment.words and [
        replace(word, start=clip(word.start), end=clip(word.end)) for word in segment.words
    ]
    return replace(segment, start=clip(segment.start), end=clip(segment.end), words=words)


def _segment(segment: library.Segment, offset: int, stretch: Samples) -> Segment:
    """Give a segment in our words, its times moved by `offset` [samples] into the recording.

    The model's window is longer than the last stretch, and so may its times be.
    """
    begin, end = offset / SAMPLE_RATE, (offset + len(stretch)) / SAMPLE_RATE

    def moved(start: float, stop: float) -> tuple[float, float]:
        first = max(min(begin + start, end - _SHORTEST_SECONDS), begin)
        last = max(min(begin + stop, end), first + _SHORTEST_SECONDS)
        return round(first, 3), round(last, 3)

    start, stop = moved(segment.start, segment.end)
    words = None
    if segment.words is not None:
        words = tuple(
            Word(word.word, *moved(word.start, word.end), probability=_finite(word.probability))
            for word in segment.words
        )
    return Segment(
        start_seconds=start,
        end_seconds=stop,
        text=segment.text,
        seek=segment.seek + round(begin * _FRAMES_PER_SECOND),
        tokens=tuple(segment.tokens),
        temperature=segment.temperature,
        avg_logprob=_finite(segment.avg_logprob),
        compression_ratio=_finite(segment.compression_ratio),
        no_speech_prob=_finite(segment.no_speech_prob),
        words=words,
    )


def _finite(value: float) -> float:
    # JSON has no NaN, and a score may be one where a weight overflowed.
    return float(value) if math.isfinite(value) else 0.0
