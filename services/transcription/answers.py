"""The JSON bodies that carry a transcript: what OpenAI's clients read, and /openapi.json describes.

To make those of four hours takes a tenth of a second: not to be done in the event loop.
"""

import math
import re
from itertools import count
from typing import Literal

from pydantic import BaseModel, Field

from services.transcription.request import Task
from services.transcription.transcript import Segment, Transcript, Warned, Word

# ISO 639-2: undetermined. Where nobody speaks there is no language, and OpenAI's clients want one.
UNDETERMINED = "und"

# Where OpenAI's clients want a speaker, and there is none to be told.
UNKNOWN_SPEAKER = "unknown"
# A speaker without a name, as pyannote numbers them.
ANONYMOUS = re.compile(r"SPEAKER_\d+")

# Whisper's encoder gives 50 vectors a second: the tokens that a sound is to it.
_AUDIO_TOKENS_PER_SECOND = 50


class DurationUsage(BaseModel):
    """What the request cost, in seconds of sound, rounded up as OpenAI does."""

    type: Literal["duration"] = "duration"
    seconds: int


class AudioTokens(BaseModel):
    """Of what the input consisted."""

    audio_tokens: int
    text_tokens: int = 0


class TokenUsage(BaseModel):
    """What the request cost, in tokens: OpenAI's streams count so."""

    type: Literal["tokens"] = "tokens"
    input_tokens: int
    input_token_details: AudioTokens
    output_tokens: int
    total_tokens: int


class Logprob(BaseModel):
    """How sure the model is of a word: the smallest unit that this engine tells."""

    token: str
    bytes: list[int]
    logprob: float


class WarningBody(BaseModel):
    """What was asked for and could not be had; the answer is otherwise complete."""

    code: str = Field(examples=["speakers_unavailable"])
    message: str


class DetectedLanguage(BaseModel):
    """A language of the recording."""

    code: str


class TranscriptionBody(BaseModel):
    """`response_format=json`."""

    text: str = Field(examples=["three one four one five nine"])
    languages: list[DetectedLanguage]
    logprobs: list[Logprob] | None = None
    usage: DurationUsage
    warnings: list[WarningBody] | None = Field(default=None, description="Only if there are any.")


class WordBody(BaseModel):
    """A word and its times, in seconds."""

    word: str
    start: float
    end: float


class SegmentBody(BaseModel):
    """A segment, its times in seconds, and Whisper's figures for it."""

    id: int
    seek: int
    start: float
    end: float
    text: str
    tokens: list[int]
    temperature: float
    avg_logprob: float
    compression_ratio: float
    no_speech_prob: float


class VerboseTranscriptionBody(BaseModel):
    """`response_format=verbose_json`."""

    task: Task
    language: str = Field(description="Whisper's code; `und` where nobody speaks.", examples=["en"])
    duration: float
    text: str
    segments: list[SegmentBody]
    words: list[WordBody] | None = Field(default=None, description="Only if asked for.")
    usage: DurationUsage
    warnings: list[WarningBody] | None = Field(default=None, description="Only if there are any.")


class DiarizedSegmentBody(BaseModel):
    """What one person said in one go, times in seconds."""

    type: Literal["transcript.text.segment"] = "transcript.text.segment"
    id: str = Field(examples=["seg_001"])
    start: float
    end: float
    text: str
    speaker: str = Field(description="A, B, … or a known name; `unknown` where nobody can tell.")


class DiarizedTranscriptionBody(BaseModel):
    """`response_format=diarized_json`."""

    task: Task
    duration: float
    text: str
    segments: list[DiarizedSegmentBody]
    usage: DurationUsage
    warnings: list[WarningBody] | None = Field(default=None, description="Only if there are any.")


class DeltaEvent(BaseModel):
    """A piece of the text, as soon as it is found."""

    type: Literal["transcript.text.delta"] = "transcript.text.delta"
    delta: str
    logprobs: list[Logprob] | None = None


class DoneEvent(BaseModel):
    """The whole text; the last event."""

    type: Literal["transcript.text.done"] = "transcript.text.done"
    text: str
    languages: list[DetectedLanguage]
    logprobs: list[Logprob] | None = None
    usage: TokenUsage
    warnings: list[WarningBody] | None = Field(default=None, description="Only if there are any.")


def transcription_body(transcript: Transcript, *, logprobs: bool) -> TranscriptionBody:
    """Give the plain answer."""
    return TranscriptionBody(
        text=transcript.text,
        languages=_languages(transcript),
        logprobs=_logprobs(transcript.words) if logprobs else None,
        usage=_duration(transcript),
        warnings=warning_bodies(transcript.warnings) or None,
    )


def verbose_body(transcript: Transcript, *, task: Task, words: bool) -> VerboseTranscriptionBody:
    """Give the answer with times; a translation is English, as OpenAI says it."""
    language = "english" if task == "translate" else transcript.language
    return VerboseTranscriptionBody(
        task=task,
        language=language or UNDETERMINED,
        duration=round(transcript.duration_seconds, 3),
        text=transcript.text,
        segments=[_segment(number, item) for number, item in enumerate(transcript.segments)],
        words=[_word(word) for word in transcript.words] if words else None,
        usage=_duration(transcript),
        warnings=warning_bodies(transcript.warnings) or None,
    )


def diarized_body(transcript: Transcript, *, task: Task) -> DiarizedTranscriptionBody:
    """Give the answer that tells who speaks, in OpenAI's words."""
    return DiarizedTranscriptionBody(
        task=task,
        duration=round(transcript.duration_seconds, 3),
        text=transcript.text,
        segments=diarized_segments(transcript),
        usage=_duration(transcript),
        warnings=warning_bodies(transcript.warnings) or None,
    )


def diarized_segments(transcript: Transcript) -> list[DiarizedSegmentBody]:
    """Give the segments with their speakers, called A, B, … unless they are known by name."""
    speakers = dict.fromkeys(segment.speaker for segment in transcript.segments if segment.speaker)
    anonymous = [speaker for speaker in speakers if ANONYMOUS.fullmatch(speaker)]
    # A client may know somebody by the name of "A".
    free = (letter for letter in map(_letters, count()) if letter not in speakers)
    letters = dict(zip(anonymous, free, strict=False))
    return [
        DiarizedSegmentBody(
            id=f"seg_{number:03d}",
            start=segment.start_seconds,
            end=segment.end_seconds,
            text=segment.text.strip(),
            speaker=letters.get(segment.speaker or "", segment.speaker or UNKNOWN_SPEAKER),
        )
        for number, segment in enumerate(transcript.segments, start=1)
    ]


def warning_bodies(warnings: tuple[Warned, ...]) -> list[WarningBody]:
    """Give the warnings as they are sent."""
    return [WarningBody(code=warned.code, message=warned.message) for warned in warnings]


def delta_event(delta: str, segment: Segment, *, logprobs: bool) -> DeltaEvent:
    """Give the event of a segment."""
    return DeltaEvent(delta=delta, logprobs=_logprobs(segment.words or ()) if logprobs else None)


def done_event(transcript: Transcript, *, logprobs: bool) -> DoneEvent:
    """Give the last event."""
    heard = math.ceil(transcript.duration_seconds * _AUDIO_TOKENS_PER_SECOND)
    written = sum(len(segment.tokens) for segment in transcript.segments)
    return DoneEvent(
        text=transcript.text,
        languages=_languages(transcript),
        logprobs=_logprobs(transcript.words) if logprobs else None,
        usage=TokenUsage(
            input_tokens=heard,
            input_token_details=AudioTokens(audio_tokens=heard),
            output_tokens=written,
            total_tokens=heard + written,
        ),
        warnings=warning_bodies(transcript.warnings) or None,
    )


def _letters(number: int) -> str:
    """Give A to Z, then AA, AB, …"""
    letters = ""
    number += 1
    while number:
        number, digit = divmod(number - 1, 26)
        letters = chr(ord("A") + digit) + letters
    return letters


def _languages(transcript: Transcript) -> list[DetectedLanguage]:
    return [DetectedLanguage(code=transcript.language)] if transcript.language else []


def _duration(transcript: Transcript) -> DurationUsage:
    return DurationUsage(seconds=math.ceil(transcript.duration_seconds))


def _logprobs(words: tuple[Word, ...]) -> list[Logprob]:
    # No float holds the logarithm of 0, and JSON no infinity.
    smallest = 1e-10
    return [
        Logprob(
            token=word.text,
            bytes=list(word.text.encode()),
            logprob=math.log(max(word.probability, smallest)),
        )
        for word in words
        if word.probability is not None
    ]


def _word(word: Word) -> WordBody:
    return WordBody(word=word.text.strip(), start=word.start_seconds, end=word.end_seconds)


def _segment(number: int, segment: Segment) -> SegmentBody:
    return SegmentBody(
        id=number,
        seek=segment.seek,
        start=segment.start_seconds,
        end=segment.end_seconds,
        text=segment.text,
        tokens=list(segment.tokens),
        temperature=segment.temperature,
        avg_logprob=segment.avg_logprob,
        compression_ratio=segment.compression_ratio,
        no_speech_prob=segment.no_speech_prob,
    )
