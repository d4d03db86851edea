"""The JSON bodies of this service: one answer serves the clients of three older services."""

from pydantic import BaseModel, Field

from services.transcription.answers import UNDETERMINED, WarningBody, warning_bodies
from services.transcription.events import Result
from services.transcription.request import TranscriptionRequest
from services.transcription.transcript import Segment, Transcript, Turn, Word


class SpokenWord(BaseModel):
    """A word; times in seconds."""

    word: str
    start: float
    end: float
    score: float | None = Field(description="How sure the time is, 0 to 1; null: it is guessed.")
    speaker: str | None


class SpokenSegment(BaseModel):
    """What one person said in one go; times in seconds."""

    id: int
    start: float
    end: float
    text: str
    speaker: str | None = Field(description="Null where it was not asked for, or is not known.")
    words: list[SpokenWord] | None = Field(default=None, description="Only if asked for.")


class SpeakerTurn(BaseModel):
    """A passage where one person speaks, in seconds; two may speak at once."""

    speaker: str = Field(examples=["SPEAKER_00"])
    start: float
    end: float


class SuperBody(BaseModel):
    """All that is known of a recording."""

    transcript: str
    language: str = Field(description="Whisper's code; `und` where nobody speaks.", examples=["fr"])
    duration: float
    segments: list[SpokenSegment]
    speakers: list[SpeakerTurn]
    model_used: str = Field(examples=["whisper-base"])
    processing_time: float = Field(description="Seconds of work, the wait before it left out.")
    warnings: list[WarningBody] = Field(description="What was asked for and could not be had.")


class ProgressEvent(BaseModel):
    """How much of a phase is done."""

    type: str = "progress"
    phase: str
    percent: float


class DoneEvent(SuperBody):
    """The last event: the whole answer."""

    type: str = "done"


class DiarizedPassage(BaseModel):
    """A passage where one person speaks, in seconds; two may speak at once."""

    start: float
    end: float
    speaker: str


class DiarizationBody(BaseModel):
    """Who speaks when."""

    duration: float
    segments: list[DiarizedPassage]
    warnings: list[WarningBody] | None = Field(default=None, description="Only if there are any.")


class SpeakersStatus(BaseModel):
    """Whether speakers can be told apart."""

    available: bool
    model: str
    reason: str | None = Field(description="Why not, or what comes before it.")


class StatusBody(BaseModel):
    """What the service can do now."""

    status: str = Field(description="loading, ready, or failed")
    device: str | None = Field(description="cuda, mps or cpu; null while it is not known yet.")
    default_model: str
    models: list[str] = Field(description="In memory, the longest unused first.")
    aligners: list[str] = Field(description="The languages whose aligners are in memory.")
    diarization: SpeakersStatus


class DetectedBody(BaseModel):
    """The language of a recording, as whisper-asr-webservice tells it."""

    detected_language: str
    language_code: str
    confidence: float


class AsrSegment(BaseModel):
    """A segment as whisperX writes it."""

    start: float
    end: float
    text: str
    speaker: str | None = None
    words: list[SpokenWord] | None = None


class AsrBody(BaseModel):
    """`output=json` of whisper-asr-webservice."""

    text: str
    language: str
    segments: list[AsrSegment]


def super_body(result: Result, request: TranscriptionRequest, model: str) -> SuperBody:
    """Give the answer for everybody; `model` is what the client calls it."""
    transcript = result.transcript
    return SuperBody(
        transcript=transcript.text,
        language=transcript.language or UNDETERMINED,
        duration=round(transcript.duration_seconds, 3),
        segments=[
            _segment(number, segment, words=request.words)
            for number, segment in enumerate(transcript.segments)
        ],
        speakers=[
            SpeakerTurn(speaker=turn.speaker, start=turn.start_seconds, end=turn.end_seconds)
            for turn in transcript.turns or ()
        ],
        model_used=f"whisper-{model}",
        processing_time=round(result.seconds, 3),
        warnings=warning_bodies(transcript.warnings),
    )


def diarization_body(transcript: Transcript, turns: tuple[Turn, ...]) -> DiarizationBody:
    """Give who speaks when."""
    return DiarizationBody(
        duration=round(transcript.duration_seconds, 3),
        segments=[
            DiarizedPassage(start=turn.start_seconds, end=turn.end_seconds, speaker=turn.speaker)
            for turn in turns
        ],
        warnings=warning_bodies(transcript.warnings) or None,
    )


def asr_body(transcript: Transcript, *, words: bool) -> AsrBody:
    """Give the answer of whisper-asr-webservice."""
    return AsrBody(
        text=transcript.text,
        language=transcript.language or UNDETERMINED,
        segments=[
            AsrSegment(
                start=segment.start_seconds,
                end=segment.end_seconds,
                text=segment.text.strip(),
                speaker=segment.speaker,
                words=_words(segment) if words else None,
            )
            for segment in transcript.segments
        ],
    )


def _segment(number: int, segment: Segment, *, words: bool) -> SpokenSegment:
    return SpokenSegment(
        id=number,
        start=segment.start_seconds,
        end=segment.end_seconds,
        text=segment.text.strip(),
        speaker=segment.speaker,
        words=_words(segment) if words else None,
    )


def _words(segment: Segment) -> list[SpokenWord]:
    return [_word(word) for word in segment.words or ()]


def _word(word: Word) -> SpokenWord:
    return SpokenWord(
        word=word.text.strip(),
        start=word.start_seconds,
        end=word.end_seconds,
        score=word.probability and round(word.probability, 3),
        speaker=word.speaker,
    )
