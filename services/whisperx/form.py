"""The fields that this service takes beside OpenAI's: speakers, alignment, and older names."""

import base64
import binascii
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, ClassVar, Literal

from pydantic import AliasChoices, BeforeValidator, Field

from services.transcription.answers import ANONYMOUS
from services.transcription.fields import (
    UNSUPPORTED,
    UNSUPPORTED_SAMPLING,
    Unsupported,
    from_json,
    invalid,
)
from services.transcription.form import (
    PROMPT_CHARACTERS_MAX,
    SpeechForm,
    TranscriptionForm,
    TranslationForm,
)
from services.transcription.formats import ALL_FORMATS, ResponseFormat
from services.transcription.request import KnownSpeaker, SpeakerTuning, TranscriptionRequest

_SPEAKERS_MAX = 50
# OpenAI's own limit.
_KNOWN_MAX = 4
# It is repeated with every word.
_NAME_CHARACTERS_MAX = 100
# Half a minute, 16 kHz and 16 bits, in base64.
REFERENCE_BYTES_MAX = 1_500_000

_TEMPERATURE: float = Field(
    default=0, ge=0, le=1, description="0: whisperX decodes by beam search."
)
_VAD_FILTER: bool | None = Field(default=None, description="It is always on: `false` is refused.")
_COUNT = Field(default=None, ge=1, le=_SPEAKERS_MAX)
_SPEAKER_FORMATS = ("diarized_json", "rttm")

# What whisperX has not, beyond the sampling: it decodes windows side by side, by beam search.
_UNSUPPORTED = {
    **UNSUPPORTED_SAMPLING,
    "include": Unsupported(
        frozenset(), "whisperX tells no log probabilities; services/faster_whisper does"
    ),
    "temperature": Unsupported(
        frozenset({"0", "0.0"}), "whisperX decodes by beam search; services/faster_whisper samples"
    ),
    "vad_filter": Unsupported(
        frozenset({"true", "1"}),
        "whisperX cuts recordings where nobody speaks; services/faster_whisper can do without",
    ),
}


def _parse_items(value: object) -> list[str]:
    """Give the items of a list as they are: a name, and a data URL, may hold commas."""
    items: list[str] = []
    for text in map(str, value if isinstance(value, list) else [value]):
        listed = from_json(text) if text.lstrip().startswith("[") else None
        items += [str(item) for item in listed] if isinstance(listed, list) else [text]
    return [item.strip() for item in items if item.strip()]


class SpeakersForm(SpeechForm):
    """The fields of POST /v1/audio/diarization, and part of those of the others."""

    unsupported = UNSUPPORTED_SAMPLING
    lists = (*SpeechForm.lists, "known_speaker_names", "known_speaker_references")

    num_speakers: int | None = _COUNT
    min_speakers: int | None = _COUNT
    max_speakers: int | None = _COUNT
    known_speaker_names: Annotated[list[str], BeforeValidator(_parse_items)] = Field(
        default=[],
        alias="known_speaker_names[]",
        max_length=_KNOWN_MAX,
        description="Names for the voices of `known_speaker_references[]`.",
    )
    known_speaker_references: Annotated[list[str], BeforeValidator(_parse_items)] = Field(
        default=[],
        alias="known_speaker_references[]",
        max_length=_KNOWN_MAX,
        description="A recording of each known voice alone, 2 to 10 s, as a data: URL.",
    )

    def tuning(self) -> SpeakerTuning:
        """Give what is known about the speakers, or refuse what cannot be."""
        least, most = self.min_speakers or 1, self.max_speakers or _SPEAKERS_MAX
        if least > most:
            raise invalid("min_speakers", least, f"max_speakers is {most}")
        if self.num_speakers is not None and not least <= self.num_speakers <= most:
            raise invalid(
                "num_speakers", self.num_speakers, f"it is not between {least} and {most}"
            )
        names, references = self.known_speaker_names, self.known_speaker_references
        if len(names) != len(references):
            allowed = f"there are {len(references)} known_speaker_references[]"
            raise invalid("known_speaker_names", names, allowed)
        if len(set(names)) < len(names):
            raise invalid("known_speaker_names", names, "each name once")
        for name in names:
            if len(name) > _NAME_CHARACTERS_MAX:
                allowed = f"at most {_NAME_CHARACTERS_MAX} characters are taken"
                raise invalid("known_speaker_names", name, allowed)
            if ANONYMOUS.fullmatch(name):
                raise invalid("known_speaker_names", name, "those without a name are called so")
        return SpeakerTuning(
            count=self.num_speakers,
            count_min=self.min_speakers,
            count_max=self.max_speakers,
            known=tuple(
                KnownSpeaker(name, _read_data_url(url))
                for name, url in zip(names, references, strict=True)
            ),
        )


def _read_data_url(url: str) -> bytes:
    head, comma, data = url.partition(",")
    if not (head.lower().startswith("data:") and head.lower().endswith(";base64") and comma):
        raise invalid("known_speaker_references", url, "use data:audio/wav;base64,…")
    try:
        return base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError):
        raise invalid("known_speaker_references", url, "its base64 is damaged") from None


class DiarizationForm(SpeakersForm):
    """The fields of POST /v1/audio/diarization."""

    model: str = Field(default="", description="The pipeline. Default: as configured.")
    response_format: Literal["json", "rttm"] = "json"


class WhisperxForm(SpeakersForm, TranscriptionForm):
    """The fields of POST /v1/audio/transcriptions on this service."""

    unsupported = _UNSUPPORTED
    formats: ClassVar[Sequence[ResponseFormat]] = ALL_FORMATS
    streamed_formats: ClassVar[Sequence[ResponseFormat]] = ("json", "text", "diarized_json")

    temperature: float = _TEMPERATURE
    vad_filter: bool | None = _VAD_FILTER
    diarize: bool | None = Field(
        default=None,
        validation_alias=AliasChoices("diarize", "enable_diarization"),
        description="Tell who speaks (`enable_diarization` is taken, too). What needs speakers"
        " implies it: `diarized_json`, `rttm`, `num_speakers`, known voices.",
    )
    align: bool = Field(
        default=True, description="Find the times of words by the sound; `false` is faster."
    )

    def request(self) -> TranscriptionRequest:
        """Give what is asked for, or refuse what cannot be had together."""
        tuning = self.tuning()
        implied = self.response_format in _SPEAKER_FORMATS or tuning != SpeakerTuning()
        wanted = implied if self.diarize is None else self.diarize
        if self.response_format in _SPEAKER_FORMATS and not wanted:
            raise invalid(
                "diarize", "false", f"response_format={self.response_format} tells who speaks"
            )
        return replace(super().request(), align=self.align, speakers=tuning if wanted else None)


class WhisperxTranslationForm(TranslationForm):
    """The fields of POST /v1/audio/translations on this service."""

    temperature: float = _TEMPERATURE
    vad_filter: bool | None = _VAD_FILTER

    unsupported: ClassVar[dict[str, Unsupported]] = {
        **TranslationForm.unsupported,
        **_UNSUPPORTED,
        **{
            name: Unsupported(frozenset({"false"}), "POST /v1/audio/transcriptions takes it")
            for name in UNSUPPORTED.keys() - UNSUPPORTED_SAMPLING.keys()
        },
    }


class OlderForm(WhisperxForm):
    """The fields of POST /transcribe: those of three older services, and all of the above."""

    model: str = Field(default="", description="A size (`base`). Default: as configured.")
    prompt: str | None = Field(
        default=None,
        max_length=PROMPT_CHARACTERS_MAX,
        validation_alias=AliasChoices("prompt", "initial_prompt"),
        description="Text that precedes the recording; `initial_prompt` is taken, too.",
    )
    words: bool = Field(default=False, description="Add the words, with times and speakers.")
    stream: bool = Field(
        default=False, description="Answer by server-sent events: the phase and the per cent."
    )

    def request(self) -> TranscriptionRequest:
        """Give what is asked for, or refuse what cannot be had together."""
        asked = super().request()
        return replace(asked, words=self.words or asked.words)
