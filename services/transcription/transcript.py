"""What an engine makes of a recording."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Word:
    """One word, with the punctuation that touches it; times in seconds from the beginning."""

    text: str
    start_seconds: float
    end_seconds: float
    probability: float  # 0..1, the mean over its tokens


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
    words: tuple[Word, ...] | None  # None: they were not asked for


@dataclass(frozen=True)
class Transcript:
    """The words of one recording."""

    segments: tuple[Segment, ...]
    language: str | None  # Whisper's code, given or detected; None: nobody spoke
    duration_seconds: float  # of the recording as it was sent, silence included

    @property
    def text(self) -> str:
        """All of it, on one line as far as the model wrote no line end."""
        return "".join(segment.text for segment in self.segments).strip()

    @property
    def words(self) -> tuple[Word, ...]:
        """The words of all segments; none if they were not asked for."""
        return tuple(word for segment in self.segments for word in segment.words or ())


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
