"""What the fields of a transcription request mean: OpenAI's, and those that similar servers added.

The models below are both the parser and the description in /openapi.json. What cannot be had is
refused by name (`fields`): to ignore it would be to answer another question than was asked.
Fields that nobody has heard of are ignored, as OpenAI's own clients send some.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from typing import Annotated, Any, ClassVar, Literal, Self, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
)

from services.transcription.fields import (
    UNSUPPORTED,
    UNSUPPORTED_IN_TRANSLATIONS,
    Unsupported,
    collect,
    invalid,
    read_object,
    refusal_of,
    split_list,
)
from services.transcription.formats import FORMATS, ResponseFormat, parse_format
from services.transcription.languages import parse_language
from services.transcription.request import (
    TEMPERATURE_LADDER,
    Task,
    TranscriptionRequest,
    VadTuning,
)

# Whisper's window: no piece of speech is given to it in more.
_SPEECH_SECONDS_MAX = 30.0
# The engine takes a number of tokens; to count those of a megabyte would take it seconds.
_HOTWORDS_CHARACTERS_MAX = 2000
PROMPT_CHARACTERS_MAX = 64 * 1024
# Silero's own default, on both sides of a piece.
_DEFAULT_PAD_MS = 400

FILE_SCHEMA = {
    "type": "string",
    "format": "binary",
    "description": "The recording, in any format that FFmpeg reads: flac, m4a, mp3, mp4, ogg, "
    "wav, webm and many more. `audio/pcm` is 16-bit samples, 16 kHz, mono.",
}

Number = TypeVar("Number", int, float)


# What the detector does anyway.
_EXAMPLES = {
    "vad_threshold": 0.5,
    "vad_neg_threshold": 0.35,
    "vad_min_speech_duration_ms": 0,
    "vad_max_speech_duration_s": 30,
    "vad_min_silence_duration_ms": 2000,
    "vad_speech_pad_ms": 400,
    "vad_filter": True,
}


class ChunkingStrategy(BaseModel):
    """OpenAI's way to tune the detection of speech."""

    model_config = ConfigDict(extra="forbid")

    type: Literal["server_vad"]
    prefix_padding_ms: int | None = Field(default=None, ge=0, le=5000)
    silence_duration_ms: int | None = Field(default=None, ge=0, le=60_000)
    threshold: float | None = Field(default=None, ge=0, le=1)


def _parse_granularities(value: object) -> list[str]:
    names = split_list(value)
    for name in names:
        if name not in ("segment", "word"):
            raise invalid("timestamp_granularities", name, "use one of: segment, word")
    return names or ["segment"]


def _parse_include(value: object) -> list[str]:
    names = split_list(value)
    for name in names:
        if name != "logprobs":
            raise invalid("include", name, "use: logprobs")
    return names


def _parse_languages(value: object) -> list[str]:
    codes = (parse_language(name, field="languages") for name in split_list(value))
    return list(dict.fromkeys(code for code in codes if code is not None))


def _parse_chunking(value: object) -> object:
    described = read_object(value)
    if described == "auto":
        return None
    if not isinstance(described, dict):
        raise invalid("chunking_strategy", value, 'use: auto, or {"type": "server_vad"}')
    return described


class SpeechForm(BaseModel):
    """How to find speech: the fields of POST /v1/audio/speech/timestamps, and of the others."""

    model_config = ConfigDict(extra="ignore", populate_by_name=True)
    unsupported: ClassVar[dict[str, Unsupported]] = {}
    lists: ClassVar[Collection[str]] = (
        "include",
        "keywords",
        "languages",
        "timestamp_granularities",
    )
    objects: ClassVar[Collection[str]] = ("chunking_strategy",)

    vad_threshold: float | None = Field(default=None, ge=0, le=1)
    vad_neg_threshold: float | None = Field(default=None, ge=0, le=1)
    vad_min_speech_duration_ms: int | None = Field(default=None, ge=0, le=60_000)
    vad_max_speech_duration_s: float | None = Field(default=None, ge=1, le=_SPEECH_SECONDS_MAX)
    vad_min_silence_duration_ms: int | None = Field(default=None, ge=0, le=60_000)
    vad_speech_pad_ms: int | None = Field(default=None, ge=0, le=5000)

    @classmethod
    def parse(cls, fields: Iterable[tuple[str, str]]) -> Self:
        """Read the fields as they were sent, or refuse the first that is wrong."""
        try:
            return cls.model_validate(
                collect(fields, lists=cls.lists, objects=cls.objects, unsupported=cls.unsupported)
            )
        except ValidationError as error:
            raise refusal_of(error) from error

    @classmethod
    def schema_of_form(cls) -> dict[str, Any]:
        """Give the OpenAPI description of the form, its file included."""
        schema = cls.model_json_schema()
        properties = schema["properties"]
        # Sent as text: a form has no objects, and says "nothing" by leaving a field out.
        schema.pop("$defs", None)
        for name, described in properties.items():
            if "anyOf" in described:
                kind = described.pop("anyOf")[0]
                described.pop("default")
                described.update({"type": "string"} if name in cls.objects else kind)
                # Swagger fills in what it makes up ("string", 0) where there is no example.
                described.setdefault("example", _EXAMPLES.get(name, ""))
        for name in list(properties):
            known = cls.unsupported.get(name.removesuffix("[]"))
            if known is not None and not known.harmless:
                properties.pop(name)
        tuning = {name: properties.pop(name) for name in list(properties) if name[:4] == "vad_"}
        schema["properties"] = {"file": FILE_SCHEMA, **properties, **tuning}
        schema["required"] = ["file", *schema.get("required", [])]
        return schema

    def vad(self, chunking: ChunkingStrategy | None = None) -> VadTuning:
        """Join both ways of tuning; the one that names the detector's own values wins."""
        chunking = chunking or ChunkingStrategy(type="server_vad")
        tuning = VadTuning(
            threshold=_first(self.vad_threshold, chunking.threshold),
            neg_threshold=self.vad_neg_threshold,
            min_speech_duration_ms=self.vad_min_speech_duration_ms,
            max_speech_duration_s=self.vad_max_speech_duration_s,
            min_silence_duration_ms=_first(
                self.vad_min_silence_duration_ms, chunking.silence_duration_ms
            ),
            speech_pad_ms=_first(self.vad_speech_pad_ms, chunking.prefix_padding_ms),
        )
        # The padding is taken from the longest piece; something of it must be left.
        longest_seconds = tuning.max_speech_duration_s or _SPEECH_SECONDS_MAX
        pad_ms = _DEFAULT_PAD_MS if tuning.speech_pad_ms is None else tuning.speech_pad_ms
        if pad_ms * 2 >= longest_seconds * 1000:
            raise invalid(
                "vad_speech_pad_ms",
                pad_ms,
                f"twice of it must be less than vad_max_speech_duration_s ({longest_seconds:g} s)",
            )
        return tuning


class TranslationForm(SpeechForm):
    """The fields of POST /v1/audio/translations, which /v1/audio/transcriptions takes too."""

    unsupported = UNSUPPORTED_IN_TRANSLATIONS
    formats: ClassVar[Sequence[ResponseFormat]] = FORMATS

    model: str = Field(
        min_length=1,
        description="As in `GET /v1/models`, or `whisper-1`.",
        json_schema_extra={"example": "whisper-1"},
    )
    prompt: str | None = Field(
        default=None,
        max_length=PROMPT_CHARACTERS_MAX,
        description="Text that precedes the recording: names, spelling, style.",
    )
    hotwords: str | None = Field(default=None, description="Words that are likely to be said.")
    response_format: ResponseFormat = "json"
    temperature: float = Field(
        default=0,
        ge=0,
        le=1,
        description="0 begins at 0 and climbs while the result looks wrong.",
    )
    language: Annotated[str | None, BeforeValidator(parse_language)] = Field(
        default=None,
        description="A code or an English name (`fr`, `french`). Empty: detect it.",
    )
    languages: Annotated[list[str], BeforeValidator(_parse_languages)] = Field(
        default=[], alias="languages[]", description="The language is one of these."
    )
    keywords: Annotated[list[str], BeforeValidator(split_list)] = Field(
        default=[], alias="keywords[]", description="Words that are likely to be said."
    )
    chunking_strategy: Annotated[ChunkingStrategy | None, BeforeValidator(_parse_chunking)] = Field(
        default=None,
        description='`auto`, or `{"type": "server_vad", "threshold": 0.5, '
        '"prefix_padding_ms": 300, "silence_duration_ms": 200}`.',
    )
    without_timestamps: bool = Field(
        default=False, description="The model writes no times; those of its windows are given."
    )
    vad_filter: bool | None = Field(
        default=None, description="Leave out passages without speech. Default: as configured."
    )

    @field_validator("response_format", mode="before")
    @classmethod
    def _parse_format(cls, value: object) -> ResponseFormat:
        return parse_format(value, cls.formats)

    @classmethod
    def schema_of_form(cls) -> dict[str, Any]:
        """Give the OpenAPI description of the form, its file included."""
        schema = super().schema_of_form()
        schema["properties"]["response_format"]["enum"] = list(cls.formats)
        return schema

    def request(self) -> TranscriptionRequest:
        """Give what is asked for."""
        ladder = TEMPERATURE_LADDER if self.temperature == 0 else (self.temperature,)
        only = self.languages[0] if len(self.languages) == 1 else None
        language = self.language or only
        hotwords = ", ".join([*([self.hotwords] if self.hotwords else []), *self.keywords])
        if len(hotwords) > _HOTWORDS_CHARACTERS_MAX:
            allowed = f"at most {_HOTWORDS_CHARACTERS_MAX} characters are taken"
            raise invalid("hotwords", hotwords, f"{allowed}, not {len(hotwords)}")
        return TranscriptionRequest(
            model=self.model,
            task="translate",
            language=language,
            languages=() if language else tuple(self.languages),
            prompt=self.prompt,
            hotwords=hotwords or None,
            temperatures=ladder,
            response_format=self.response_format,
            without_timestamps=self.without_timestamps,
            vad=replace(self.vad(self.chunking_strategy), enabled=self.vad_filter),
        )


class TranscriptionForm(TranslationForm):
    """The fields of POST /v1/audio/transcriptions."""

    unsupported = UNSUPPORTED
    streamed_formats: ClassVar[Sequence[ResponseFormat]] = ("json", "text")

    task: Task = Field(default="transcribe", description="`translate`: into English.")
    timestamp_granularities: Annotated[
        list[Literal["word", "segment"]], BeforeValidator(_parse_granularities)
    ] = Field(
        default=["segment"],
        alias="timestamp_granularities[]",
        description="`word` adds the times of words; it needs `response_format=verbose_json`.",
    )
    include: Annotated[list[Literal["logprobs"]], BeforeValidator(_parse_include)] = Field(
        default=[],
        alias="include[]",
        description="`logprobs`: the log probability of each word, with `response_format=json`.",
    )
    stream: bool = Field(
        default=False,
        description="Answer by server-sent events as the words are found; `json` and `text` only.",
    )

    def request(self) -> TranscriptionRequest:
        """Give what is asked for, or refuse what cannot be had together."""
        base = super().request()
        words = "word" in self.timestamp_granularities
        if words and self.response_format != "verbose_json":
            raise invalid(
                "timestamp_granularities", "word", "it needs response_format=verbose_json"
            )
        if self.stream and self.response_format not in self.streamed_formats:
            raise invalid(
                "stream",
                "true",
                f"it needs response_format={' or '.join(self.streamed_formats)}, "
                f"not {self.response_format}",
            )
        return replace(
            base,
            task=self.task,
            words=words,
            logprobs="logprobs" in self.include and self.response_format == "json",
            stream=self.stream,
        )


def _first(*values: Number | None) -> Number | None:
    return next((value for value in values if value is not None), None)
