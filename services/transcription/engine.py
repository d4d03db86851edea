"""What a service's models owe to the shared code."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from services.transcription.audio import Recording
from services.transcription.request import TranscriptionRequest, VadTuning
from services.transcription.transcript import Progress, Segment, Transcript
from services.transcription.worker import Cancellation

Report = Callable[[Segment | Progress], None]


@dataclass(frozen=True)
class Span:
    """A passage where somebody speaks, in seconds from the beginning."""

    start_seconds: float
    end_seconds: float


class Models(Protocol):
    """What a worker's thread owns. All methods but `resident` are called in that thread."""

    def warm_up(self) -> None:
        """Do what would make the first request slower than the next; called once, when ready."""

    def resident(self) -> Sequence[str]:
        """Give the ids of the models in memory, the longest unused first; from any thread."""
        ...


class Engine(Models, Protocol):
    """Models that clients ask for by name."""

    def transcribe(
        self,
        recording: Recording,
        request: TranscriptionRequest,
        cancellation: Cancellation,
        report: Report,
    ) -> Transcript:
        """Give the words of an uploaded file; `request.model` is the id of a model that is here.

        Calls `cancellation.check()` while decoding and at least once per segment, and `report`
        with every segment as soon as its text is certain, in order, and with its progress where
        it works in phases. Raises InvalidRequest when the file
        or the request cannot work, EngineError when the model fails. `recording` stays open until
        this returns.
        """
        ...

    def find_speech(
        self, recording: Recording, tuning: VadTuning, cancellation: Cancellation
    ) -> Sequence[Span]:
        """Give the passages where somebody speaks; raises as `transcribe` does."""
        ...

    def load(self, model: str) -> bool:
        """Make a model resident, at the cost of others; False if it was."""
        ...

    def unload(self, model: str) -> bool:
        """Remove a model from memory; False if it was not there."""
        ...
