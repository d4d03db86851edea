"""What a client wants done with its recording, however it said so."""

from dataclasses import dataclass
from typing import Literal

from services.transcription.formats import ResponseFormat

# OpenAI's temperature 0 means: begin here, and climb while the result looks wrong.
TEMPERATURE_LADDER = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)

Task = Literal["transcribe", "translate"]


@dataclass(frozen=True)
class VadTuning:
    """How speech is found (Silero VAD); None leaves it to the engine.

    `chunking_strategy` of OpenAI says the same in other words.
    """

    enabled: bool | None = None
    threshold: float | None = None  # of the probability that a frame is speech
    neg_threshold: float | None = None  # below it, speech has ended
    min_speech_duration_ms: int | None = None
    max_speech_duration_s: float | None = None
    min_silence_duration_ms: int | None = None
    speech_pad_ms: int | None = None


@dataclass(frozen=True)
class KnownSpeaker:
    """A person to be recognised."""

    name: str
    recording: bytes  # of this voice alone, in any format that FFmpeg reads


@dataclass(frozen=True)
class SpeakerTuning:
    """What is known about who speaks; None leaves it to the engine."""

    count: int | None = None
    count_min: int | None = None
    count_max: int | None = None
    known: tuple[KnownSpeaker, ...] = ()


@dataclass(frozen=True)
class TranscriptionRequest:
    """What a client wants done with its recording."""

    model: str
    task: Task = "transcribe"
    language: str | None = None  # None: detect it
    languages: tuple[str, ...] = ()  # if not empty, it is one of these
    prompt: str | None = None
    hotwords: str | None = None
    temperatures: tuple[float, ...] = TEMPERATURE_LADDER  # tried in this order
    response_format: ResponseFormat = "json"
    words: bool = False  # each with its times
    logprobs: bool = False
    stream: bool = False
    without_timestamps: bool = False
    align: bool = True  # where the engine can: times by the sound, not by the model's guess
    speakers: SpeakerTuning | None = None  # None: not asked for
    vad: VadTuning = VadTuning()
