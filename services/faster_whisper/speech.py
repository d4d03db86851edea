"""Where somebody speaks, by Silero's detector, which comes with faster-whisper."""

from collections.abc import Callable
from dataclasses import fields

import numpy as np
from faster_whisper.vad import VadOptions, get_speech_timestamps
from numpy.typing import NDArray

from services.transcription.audio import SAMPLE_RATE, split_at_pauses
from services.transcription.engine import Span
from services.transcription.request import VadTuning


def vad_options(tuning: VadTuning) -> VadOptions:
    """Give the detector's options; what was not asked for is the library's default."""
    asked = {field.name: getattr(tuning, field.name) for field in fields(VadOptions)}
    return VadOptions(**{name: value for name, value in asked.items() if value is not None})


def spoken(samples: NDArray[np.float32], tuning: VadTuning) -> NDArray[np.float32]:
    """Give what is left of float32 [samples] without the passages where nobody speaks."""
    found = get_speech_timestamps(samples, vad_options(tuning))
    pieces = [samples[piece["start"] : piece["end"]] for piece in found]
    return np.concatenate(pieces) if pieces else samples[:0]


def find_speech(
    samples: NDArray[np.int16], tuning: VadTuning, check: Callable[[], None]
) -> list[Span]:
    """Give the passages of int16 [samples] where somebody speaks; `check` may raise to give up."""
    spans: list[Span] = []
    for offset, stretch in split_at_pauses(samples):
        check()
        for found in get_speech_timestamps(stretch, vad_options(tuning)):
            start, end = (offset + found[edge] for edge in ("start", "end"))
            spans.append(Span(start / SAMPLE_RATE, end / SAMPLE_RATE))
    return spans
