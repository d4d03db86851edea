"""What an operator can set on every speech service, by environment variables."""

import re
from typing import Annotated, Literal, Self, TypeVar

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ByteSize,
    Field,
    NonNegativeInt,
    PositiveFloat,
    SecretStr,
    ValidationError,
)
from pydantic_settings import BaseSettings, SettingsConfigDict

# Variables whose values are shown to nobody.
_SECRETS = frozenset({"API_KEY", "HF_TOKEN", "HUGGINGFACE_TOKEN"})

# What a browser sends as Origin: no path, no slash at the end.
_ORIGIN = re.compile(r"https?://[A-Za-z0-9.\-\[\]:]+")

S = TypeVar("S", bound="ServiceSettings")

LogLevel = Annotated[
    Literal["debug", "info", "warning", "error", "critical"],
    BeforeValidator(lambda value: value.lower() if isinstance(value, str) else value),
]


def _check_keys(written: SecretStr) -> SecretStr:
    text = written.get_secret_value()
    # What is meant to close the service must not leave it open, and no two clients send other
    # letters alike.
    if text and (not text.replace(",", " ").split() or not text.isascii()):
        raise ValueError("keys of ASCII characters, separated by commas or spaces")
    return written


def _check_origins(written: str) -> str:
    for origin in written.replace(",", " ").split():
        if origin != "*" and not _ORIGIN.fullmatch(origin):
            raise ValueError(f"{origin!r} is no origin such as https://portal.example.com")
    return written


class ServiceSettings(BaseSettings):
    """Limits and logging; each field is the environment variable of the same name."""

    model_config = SettingsConfigDict(
        env_nested_delimiter="__",
        env_ignore_empty=True,  # compose files write `NAME=${NAME:-}`
        extra="forbid",
        frozen=True,
        allow_inf_nan=False,  # a limit is a limit, and samples are counted by whole numbers
    )

    # The size of one recording: "500MB", "1GiB" or bytes. 500 MB is 4.3 h of 16 kHz WAV.
    max_upload: ByteSize = Field(default=ByteSize(500_000_000), gt=0)
    # The length of one recording: 4 h, 460 MB of memory in its turn.
    max_audio_seconds: PositiveFloat = 4 * 3600.0
    # Requests beside the running one, uploads included: at most 17 * max_upload of temporary disk.
    max_waiting: NonNegativeInt = 16
    # The longest silence while a request is received.
    request_timeout_seconds: PositiveFloat = 60.0
    # Keys that clients must send as `Authorization: Bearer`, separated by commas or spaces.
    api_key: Annotated[SecretStr, AfterValidator(_check_keys)] = SecretStr("")
    # Pages that may use the service from a browser, separated by commas or spaces: "*" is any.
    allow_origins: Annotated[str, AfterValidator(_check_origins)] = ""
    log_level: LogLevel = "info"

    @property
    def origins(self) -> list[str]:
        """The pages of `allow_origins`."""
        return self.allow_origins.replace(",", " ").split()

    @classmethod
    def from_environment(cls) -> Self:
        """Read the environment.

        Raises SystemExit with one line per bad variable: no traceback helps an operator here.
        """
        try:
            return cls()
        except ValidationError as error:
            raise SystemExit("\n".join(_problems(error))) from None


def _problems(error: ValidationError) -> list[str]:
    problems = []
    for problem in error.errors(include_url=False, include_context=False):
        name = "__".join(str(part) for part in problem["loc"]).upper()
        shown = "its value" if name in _SECRETS else repr(problem["input"])
        problems.append(f"{name}: {shown} is not allowed: {problem['msg']}")
    return problems
