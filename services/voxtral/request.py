"""What a client asks for: `input` of a job, or the fields of a form; both in the same words."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self

from pydantic import AliasChoices, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from services.transcription.errors import ApiError, InvalidRequest
from services.transcription.fields import invalid, refusal_of
from services.transcription.languages import parse_language
from services.transcription.request import SpeakerTuning
from services.voxtral.addresses import URL_CHARACTERS_MAX

Task = Literal["transcribe", "summary", "transcribe_diarized"]

TOKENS_MAX = 8192
# Codes of Whisper's that mistral-common 1.13 does not know: it takes those of two letters (ISO
# 639-1), and Javanese is "jv" there.
OTHERS_LANGUAGES = frozenset({"haw", "jw", "yue"})
_SPEAKERS_MAX = 50


@dataclass(frozen=True)
class Wanted:
    """What is to be made of a recording."""

    task: Task = "transcribe"
    language: str | None = None  # None: the model finds out
    summary: bool = False
    sentiment: bool = False
    max_new_tokens: int | None = None  # None: as the operator says
    speakers: SpeakerTuning | None = None  # None: not asked for


def _nothing_for_empty(value: object) -> object:
    # Older clients send "" for what they leave out.
    return None if value == "" else value


_Speakers = Annotated[
    Annotated[int, Field(ge=1, le=_SPEAKERS_MAX)] | None, BeforeValidator(_nothing_for_empty)
]


class Fields(BaseModel):
    """What a job and a form both may say."""

    # What is not known is left alone: clients of two older workers send fields of their own.
    model_config = ConfigDict(extra="ignore", populate_by_name=True)

    task: Annotated[Task, BeforeValidator(lambda value: value or "transcribe")] = Field(
        default="transcribe",
        description="`transcribe_diarized` tells speakers apart; `summary` adds a summary.",
    )
    language: str | None = Field(
        default=None,
        max_length=100,
        description="Of the recording: a code (`fr`) or an English name. Default: the model hears.",
    )
    summary: Annotated[bool | None, BeforeValidator(_nothing_for_empty)] = Field(
        default=None, description="Add a summary, in the recording's language."
    )
    sentiment: Annotated[bool | None, BeforeValidator(_nothing_for_empty)] = Field(
        default=None, description="Add how the customer feels."
    )
    max_new_tokens: Annotated[
        Annotated[int, Field(ge=1, le=TOKENS_MAX)] | None, BeforeValidator(_nothing_for_empty)
    ] = Field(
        default=None,
        description="The longest summary, in tokens; a piece of transcript may have as many.",
    )
    num_speakers: _Speakers = Field(default=None, description="How many people speak.")
    min_speakers: _Speakers = Field(
        default=None,
        validation_alias=AliasChoices("min_speakers", "speakers_min"),
        description="How many people speak at least.",
    )
    max_speakers: _Speakers = Field(
        default=None,
        validation_alias=AliasChoices("max_speakers", "speakers_max"),
        description="How many people speak at most.",
    )

    @classmethod
    def parse(cls, given: Mapping[str, Any]) -> Self:
        """Read the fields; raises InvalidRequest for the first that is wrong."""
        try:
            return cls.model_validate(given)
        except ValidationError as error:
            raise refusal_of(error) from error

    def wanted(self, *, with_summary_default: bool) -> Wanted:
        """Give what is wanted; raises InvalidRequest for what cannot be."""
        told = self.task == "transcribe_diarized"
        summary = self.summary
        if summary is None:
            summary = told and with_summary_default
        return Wanted(
            task=self.task,
            language=_language(self.language),
            summary=summary or self.task == "summary",
            sentiment=self.sentiment or False,
            max_new_tokens=self.max_new_tokens,
            speakers=self._tuning() if told else None,
        )

    def _tuning(self) -> SpeakerTuning:
        least, most = self.min_speakers or 1, self.max_speakers or _SPEAKERS_MAX
        if least > most:
            raise invalid("min_speakers", least, f"max_speakers is {most}")
        if self.num_speakers is not None and not least <= self.num_speakers <= most:
            raise invalid("num_speakers", self.num_speakers, f"it is not {least} to {most}")
        return SpeakerTuning(
            count=self.num_speakers, count_min=self.min_speakers, count_max=self.max_speakers
        )


def _language(written: str | None) -> str | None:
    code = parse_language(written) if written else None
    if code in OTHERS_LANGUAGES:
        raise invalid("language", written, "Voxtral does not know it; leave it out to detect it")
    return code


class JobInput(Fields):
    """`input` of a job."""

    ping: bool = Field(default=False, description="Answer at once; no model is loaded.")
    audio_url: Annotated[
        Annotated[str, Field(max_length=URL_CHARACTERS_MAX)] | None,
        BeforeValidator(_nothing_for_empty),
    ] = Field(default=None, description="Where the recording is: http or https.")
    audio_base64: Annotated[str | None, BeforeValidator(_nothing_for_empty)] = Field(
        default=None, description="The recording itself, in base64; a data: URL is taken, too."
    )


def parse_input(given: object) -> JobInput:
    """Read `input` of a job; raises InvalidRequest, which names what is wrong."""
    if not isinstance(given, dict):
        raise InvalidRequest(
            "input: is required, as a JSON object", param="input", code="invalid_value"
        )
    read = JobInput.parse(given)
    if read.ping:
        return read
    if (read.audio_url is None) == (read.audio_base64 is None):
        raise InvalidRequest(
            "input: give the recording as audio_url or as audio_base64, one of them",
            param="audio_url",
            code="missing_required_parameter" if read.audio_url is None else "invalid_value",
        )
    return read


def named(error: ApiError, field: str) -> ApiError:
    """Give a refusal of a recording under the name that it was sent by."""
    if error.param != "file" or field == "file":
        return error
    message = f"{field}: {error.message.removeprefix('file: ')}"
    return type(error)(
        message,
        code=error.code,
        param=field,
        retry_after_seconds=error.retry_after_seconds,
    )
