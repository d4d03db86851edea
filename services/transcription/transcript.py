"""What an engine makes of a recording, and how far it has come with it."""

from dataclasses import dataclass
from typing import Literal

Phase = Literal["load", "transcribe", "align", "diarize", "understand"]


@dataclass(frozen=True)
class Word:
    """One word, with the punctuation that touches it; times in seconds from the beginning."""

    text: str  # with the space before it, where the language has spaces
    start_seconds: float
    end_seconds: float
    probability: float | None  # 0..1, the mean over its tokens; None: the times are guessed
    speaker: str | None = None  # None: not asked for, or not known


@dataclass(frozen=True)
class Segment:
    """What was said in one go; times in seconds from the beginning of the recording.

    The figures beside the text are Whisper's own, under the names that its users know.
    """

    start_seconds: float
    end_seconds: float
    text: str  # as the model wrote it: it begins with the space that separates it from the last
    seek: int  # where the model's window began, in hundredths of a second
    tokens: tuple[int, ...]
    temperature: float
    avg_logprob: float
    compression_ratio: float
    no_speech_prob: float
    words: tuple[Word, ...] | None  # None: they were not asked for, or have no times
    speaker: str | None = None


@dataclass(frozen=True)
class Turn:
    """A passage where one person speaks, in seconds from the beginning; turns may overlap."""

    speaker: str
    start_seconds: float
    end_seconds: float


@dataclass(frozen=True)
class Warned:
    """What was asked for and could not be had, for people and (`code`) for programs."""

    code: str
    message: str


@dataclass(frozen=True)
class Transcript:
    """The words of one recording."""

    segments: tuple[Segment, ...]
    language: str | None  # Whisper's code, given or detected; None: nobody spoke
    duration_seconds: float  # of the recording as it was sent, silence included
    turns: tuple[Turn, ...] | None = None  # None: not asked for, or not to be had
    warnings: tuple[Warned, ...] = ()

    @property
    def text(self) -> str:
        """All of it, on one line as far as the model wrote no line end."""
        return "".join(segment.text for segment in self.segments).strip()

    @property
    def words(self) -> tuple[Word, ...]:
        """The words of all segments; none if they were not asked for."""
        return tuple(word for segment in self.segments for word in segment.words or ())


@dataclass(frozen=True)
class Progress:
    """How much of a phase is done, in per cent."""

    phase: Phase
    percent: float


class Deltas:
    """Cuts a growing transcript into pieces which, joined, are its `text`."""

    def __init__(self) -> None:
        self._withheld = ""
        self._began = False

    def next(self, segment: Segment) -> str:
        """Give what a segment adds; "" if it adds nothing to be seen yet."""
        written = self._withheld + segment.text
        if not self._began:
            written = written.lstrip()
        seen = written.rstrip()
        # Spaces at the end belong to the text only if something follows.
        self._withheld = written[len(seen) :]
        self._began = self._began or bool(seen)
        return seen
