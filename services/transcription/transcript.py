"""What an engine makes of a recording."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Transcript:
    """The words of one recording."""

    text: str
    language: str  # Whisper's code, given or detected
    duration_seconds: float  # of the recording as it was sent, silence included
