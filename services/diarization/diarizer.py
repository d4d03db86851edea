"""A pyannote pipeline in memory.

To be imported in the worker's thread: torch and what is on top of it take seconds to import.
"""

import logging
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

# torchcodec is not here, and not needed: it is samples that the pipeline is given.
with warnings.catch_warnings(action="ignore"):
    from pyannote.audio import Pipeline
    from pyannote.audio.pipelines.speaker_diarization import DiarizeOutput
from pyannote.core import Annotation

from services.transcription.audio import SAMPLE_RATE
from services.transcription.memory import give_back
from services.transcription.request import SpeakerTuning
from services.transcription.transcript import Turn

# Tells of every old checkpoint that it reads, and sets its own level when it is imported.
logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)

Voice = NDArray[np.float64]
Samples = NDArray[np.int16]

# The steps of the pipeline that take time, and where they are on the way.
_STEPS = {"segmentation": (0.0, 30.0), "embeddings": (30.0, 95.0)}
# Of the heap; see `memory`.
_CALLS_BETWEEN_TRIMS = 32
# The segmentation model wants more than one of its frames; less is no speech anyway.
_SHORTEST_SECONDS = 0.2


@dataclass(frozen=True)
class Diarization:
    """Who speaks when."""

    turns: tuple[Turn, ...]  # as they are: two may speak at once
    exclusive: tuple[Turn, ...]  # the loudest voice alone: to be joined with words
    voices: dict[str, Voice]  # by speaker
    counted: bool = True  # False: as many speakers as asked for could not be told apart


class Diarizer:
    """Tells speakers apart; belongs to one thread."""

    def __init__(self, config: dict[str, Any], *, device: str, batch_size: int) -> None:
        with warnings.catch_warnings(action="ignore"):
            pipeline = Pipeline.from_pretrained(config)
        assert pipeline is not None, config
        pipeline.segmentation_batch_size = batch_size
        pipeline.embedding_batch_size = batch_size
        self._pipeline = pipeline.to(torch.device(device))

    def diarize(
        self,
        samples: Samples,
        tuning: SpeakerTuning,
        *,
        check: Callable[[], None],
        report: Callable[[float], None],
    ) -> Diarization:
        """Give who speaks in int16 [samples], mono, 16 kHz.

        `check` may raise to give up; `report` is told the per cent that are done.
        """
        if len(samples) < _SHORTEST_SECONDS * SAMPLE_RATE:
            return Diarization((), (), {})
        watch = _Watch(check, report)
        counts = {
            "num_speakers": tuning.count,
            "min_speakers": tuning.count_min,
            "max_speakers": tuning.count_max,
        }
        try:
            output = self._apply(samples, watch, counts)
            counted = True
        except (ValueError, IndexError):
            # There are fewer pieces of speech than speakers asked for: the clustering cannot.
            if not any(counts.values()):
                raise
            output = self._apply(samples, watch, {})
            counted = False
        report(100.0)
        found = _diarization(output, len(samples) / SAMPLE_RATE)
        # Nor does the clustering complain where it has pieces enough, and finds fewer voices.
        voices = len({turn.speaker for turn in found.turns})
        counted = counted and voices >= (tuning.count or tuning.count_min or 0)
        return replace(found, counted=counted)

    def voice(self, samples: Samples, *, check: Callable[[], None]) -> Voice | None:
        """Give the voice of one person alone; None if nobody speaks."""
        alone = SpeakerTuning(count=1)
        found = self.diarize(samples, alone, check=check, report=lambda _percent: None)
        return next(iter(found.voices.values()), None)

    def _apply(
        self, samples: Samples, watch: "_Watch", counts: dict[str, int | None]
    ) -> DiarizeOutput:
        waveform = torch.from_numpy(samples.astype(np.float32) / np.float32(32768.0))[None]
        heard = {"waveform": waveform, "sample_rate": SAMPLE_RATE}
        with warnings.catch_warnings(action="ignore"), torch.inference_mode():
            output = self._pipeline(heard, hook=watch, **counts)
        assert isinstance(output, DiarizeOutput), output  # `legacy` would give less
        return output


class _Watch:
    """What the pipeline calls after each batch of work."""

    def __init__(self, check: Callable[[], None], report: Callable[[float], None]) -> None:
        self._check = check
        self._report = report
        self._calls = 0

    def __call__(
        self,
        step: str,
        _artifact: object,
        file: object = None,  # noqa: ARG002 -- the pipeline passes it by name
        total: int | None = None,
        completed: int | None = None,
    ) -> None:
        self._check()
        self._calls += 1
        if self._calls % _CALLS_BETWEEN_TRIMS == 0:
            give_back()
        if step in _STEPS and total and completed is not None:
            begin, end = _STEPS[step]
            self._report(begin + (end - begin) * min(completed / total, 1.0))


def _diarization(output: DiarizeOutput, seconds: float) -> Diarization:
    turns = _turns(output.speaker_diarization, seconds)
    # Numbered as they come in: pyannote's own order is that of its clusters.
    order = dict.fromkeys(turn.speaker for turn in turns)
    exclusive = _turns(output.exclusive_speaker_diarization, seconds)
    order |= dict.fromkeys(turn.speaker for turn in exclusive)
    names = {label: f"SPEAKER_{number:02d}" for number, label in enumerate(order)}
    vectors = output.speaker_embeddings
    labels = output.speaker_diarization.labels()
    voices = {} if vectors is None else dict(zip(map(str, labels), vectors, strict=True))
    return Diarization(
        turns=_renamed(turns, names),
        exclusive=_renamed(exclusive, names),
        voices={
            names[label]: voice
            for label, voice in voices.items()
            if label in names and np.isfinite(voice).all()
        },
    )


def _turns(annotation: Annotation, seconds: float) -> list[Turn]:
    """Give the turns within the recording: the last window of the pipeline is longer than it."""
    found = [
        Turn(str(label), round(max(segment.start, 0.0), 3), round(min(segment.end, seconds), 3))
        for segment, _, label in annotation.itertracks(yield_label=True)
        if segment.start < seconds
    ]
    return sorted(found, key=lambda turn: (turn.start_seconds, turn.end_seconds))


def _renamed(turns: list[Turn], names: dict[str, str]) -> tuple[Turn, ...]:
    return tuple(Turn(names[turn.speaker], turn.start_seconds, turn.end_seconds) for turn in turns)
