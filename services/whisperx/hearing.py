"""One Whisper model in memory, run by whisperX: many windows at once, cut where nobody speaks."""

import contextlib
import io
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from faster_whisper.vad import get_speech_timestamps
from numpy.typing import NDArray
from whisperx import asr, vads
from whisperx.diarize import Segment as Speech

from services.faster_whisper.abilities import Abilities
from services.faster_whisper.settings import ModelSettings
from services.faster_whisper.speech import spoken, vad_options
from services.transcription.audio import SAMPLE_RATE, split_at_pauses
from services.transcription.request import TranscriptionRequest, VadTuning
from services.whisperx.alignment import Passage

Samples = NDArray[np.float32]

# CTranslate2's own default, which it also takes where there are fewer cores: twice as slow there.
_THREADS_MAX = 4
_GPU_BATCH_SIZE = 16  # whisperX's own, for a large model on 8 GB
CPU_BATCH_SIZE = 4  # memory grows with it, speed hardly
_WINDOW_SECONDS = 30
# The detector wants at least one of its frames; so short a sound holds no word.
_SHORTEST_SECONDS = 0.1
# Languages that are written without spaces: the text of a window begins with none.
_WITHOUT_SPACES = frozenset({"ja", "zh", "yue", "th", "lo", "my", "km", "bo"})


class Hearing:
    """A resident model; belongs to one thread. `detector` finds speech, and is shared."""

    def __init__(
        self, folder: Path, settings: ModelSettings, *, device: str, detector: vads.Vad
    ) -> None:
        # It tells on stdout that it takes the detector that it is given.
        with contextlib.redirect_stdout(io.StringIO()):
            self._pipe = asr.load_model(
                str(folder),
                device,
                device_index=settings.device_index,
                compute_type=settings.compute_type,
                vad_model=detector,
                local_files_only=True,
                threads=settings.cpu_threads or default_threads(),
            )
        self._detector = detector
        self._options = self._pipe.options
        own_size = _GPU_BATCH_SIZE if device == "cuda" else CPU_BATCH_SIZE
        self._batch_size = settings.batch_size or own_size
        self.abilities = Abilities(self._pipe.model)

    def hear(
        self,
        samples: NDArray[np.int16],
        request: TranscriptionRequest,
        *,
        advance: Callable[[float], None],
        found: Callable[[Passage], None],
    ) -> tuple[list[Passage], str | None]:
        """Give what is said in int16 [samples], mono, 16 kHz, and in which language.

        `advance` is told the per cent that are done, and may raise to give up; `found` is told
        each passage, some minutes of them together, for so whisperX gives them. The language is
        None where nobody speaks.
        """
        self.abilities.check(request)
        self._pipe.options = replace(
            self._options, initial_prompt=request.prompt, hotwords=request.hotwords
        )
        tuned = request.vad != VadTuning()
        self._pipe.vad_model = _Silero(request.vad) if tuned else self._detector
        language = request.language
        passages: list[Passage] = []
        for offset, stretch in split_at_pauses(samples):
            part = _Part(advance, 100.0 * offset / len(samples), len(stretch) / len(samples))
            part(0.0)
            chosen = language or self.detect_language(stretch, request)[0]
            told = self._transcribe(stretch, request, chosen, part)
            for window in told:
                if passage := self._passage(window, offset, len(stretch), chosen):
                    # Detected once, as Whisper does, but in the first stretch where someone speaks.
                    language = chosen
                    passages.append(passage)
                    found(passage)
        advance(100.0)
        return passages, language

    def detect_language(self, samples: Samples, request: TranscriptionRequest) -> tuple[str, float]:
        """Give the likeliest language of what is said, and how likely it is (0..1).

        Where nobody speaks, none is likely: that is 0.
        """
        heard = spoken(samples, request.vad)
        told = self.abilities.probabilities(heard if len(heard) else samples)
        allowed = request.languages or tuple(told)
        chosen = max(allowed, key=lambda code: told.get(code, 0.0))
        return chosen, told.get(chosen, 0.0) if len(heard) else 0.0

    def _transcribe(
        self,
        samples: Samples,
        request: TranscriptionRequest,
        language: str,
        advance: Callable[[float], None],
    ) -> list[dict[str, Any]]:
        if len(samples) < _SHORTEST_SECONDS * SAMPLE_RATE:
            return []
        # A job that was given up leaves its own language behind.
        self._pipe.tokenizer = None
        told: list[dict[str, Any]] = self._pipe.transcribe(
            samples,
            batch_size=self._batch_size,
            language=language,
            task=request.task,
            chunk_size=int(request.vad.max_speech_duration_s or _WINDOW_SECONDS),
            progress_callback=advance,
        )["segments"]
        return told

    def _passage(
        self, window: dict[str, Any], offset: int, length: int, language: str
    ) -> Passage | None:
        text = " ".join(str(window["text"]).split())
        if not text:
            return None
        begin, end = offset / SAMPLE_RATE, (offset + length) / SAMPLE_RATE
        tokens = self._pipe.model.hf_tokenizer.encode(text, add_special_tokens=False).ids
        logprob = float(window["avg_logprob"])
        return Passage(
            start_seconds=round(min(begin + float(window["start"]), end), 3),
            end_seconds=round(min(begin + float(window["end"]), end), 3),
            text=text if language in _WITHOUT_SPACES else f" {text}",
            tokens=tuple(tokens),
            avg_logprob=logprob if np.isfinite(logprob) else 0.0,
        )


def default_threads() -> int:
    """Give how many threads a model gets unless the operator says so."""
    return min(_THREADS_MAX, os.cpu_count() or 1)


@dataclass(frozen=True)
class _Part:
    """Tells the per cent of a stretch as those of the recording."""

    advance: Callable[[float], None]
    before: float
    share: float

    def __call__(self, percent: float) -> None:
        self.advance(self.before + percent * self.share)


class _Silero(vads.Vad):
    """Silero's detector, as the request tunes it, in the place of whisperX's own."""

    def __init__(self, tuning: VadTuning) -> None:
        super().__init__(0.5)  # not used
        options = vad_options(tuning)
        options.max_speech_duration_s = min(options.max_speech_duration_s, _WINDOW_SECONDS)
        self._options = options

    @staticmethod
    def preprocess_audio(audio: Samples) -> Samples:
        """Give what `__call__` is called with, as "waveform"."""
        return audio

    def __call__(self, heard: dict[str, Any]) -> list[Speech]:
        """Give the passages where somebody speaks."""
        return [
            Speech(piece["start"] / SAMPLE_RATE, piece["end"] / SAMPLE_RATE, "UNKNOWN")
            for piece in get_speech_timestamps(heard["waveform"], self._options)
        ]

    @staticmethod
    def merge_chunks(
        segments: list[Speech], chunk_size: int, onset: float, offset: float
    ) -> list[dict[str, Any]]:
        """Join neighbours as far as a window holds them."""
        if not segments:
            return []
        merged: list[dict[str, Any]] = vads.Vad.merge_chunks(segments, chunk_size, onset, offset)
        return merged
