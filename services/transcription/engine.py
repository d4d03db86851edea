"""What a service's model owes to the shared code."""

from typing import BinaryIO, Protocol

from services.transcription.form import TranscriptionRequest
from services.transcription.transcript import Transcript
from services.transcription.worker import Cancellation


class Engine(Protocol):
    """A loaded model; all methods are called in the worker's thread, one at a time."""

    def warm_up(self) -> None:
        """Do what would make the first request slower than the next; called once, when ready."""

    def transcribe(
        self, recording: BinaryIO, request: TranscriptionRequest, cancellation: Cancellation
    ) -> Transcript:
        """Give the words of an uploaded file.

        Calls `cancellation.check()` while decoding and at least once per segment. Raises
        InvalidRequest when the file or the request cannot work, EngineError when the model
        fails. `recording` is seekable, and stays open until this returns.
        """
        ...
