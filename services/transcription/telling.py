"""What a stream says of its work, in the words of one API."""

from collections.abc import Sequence
from typing import Protocol

from services.transcription.answers import delta_event, diarized_segments, done_event
from services.transcription.request import TranscriptionRequest
from services.transcription.transcript import Deltas, Progress, Segment, Transcript


class Telling(Protocol):
    """Words for what happens; one for each stream. None says nothing."""

    def progress(self, progress: Progress) -> str | None:
        """Give an event, as JSON, for a part of the work that is done."""
        ...

    def segment(self, segment: Segment) -> str | None:
        """Give an event, as JSON, for a segment whose text is certain."""
        ...

    def done(self, transcript: Transcript, seconds: float) -> Sequence[str]:
        """Give the last events, as JSON; `seconds` is how long the work took.

        Called in a thread: those of hours take a tenth of a second.
        """
        ...


class OpenAiTelling:
    """OpenAI's events; it has none for progress."""

    def __init__(self, request: TranscriptionRequest) -> None:
        self._logprobs = request.logprobs
        self._diarized = request.response_format == "diarized_json"
        self._deltas = Deltas()

    def progress(self, progress: Progress) -> None:
        """Say nothing: clients would not know what it is."""

    def segment(self, segment: Segment) -> str | None:
        """Give what the segment adds to the text."""
        delta = self._deltas.next(segment)
        if not delta:
            return None
        event = delta_event(delta, segment, logprobs=self._logprobs)
        return event.model_dump_json(exclude_none=True)

    def done(self, transcript: Transcript, seconds: float) -> list[str]:  # noqa: ARG002 -- OpenAI has no word for it
        """Give the segments with their speakers, if asked for, and the whole text."""
        segments = diarized_segments(transcript) if self._diarized else []
        done = done_event(transcript, logprobs=self._logprobs)
        return [
            *(segment.model_dump_json() for segment in segments),
            done.model_dump_json(exclude_none=True),
        ]
