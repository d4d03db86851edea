"""By which names clients may ask for the one model that a service has."""

import time
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from services.transcription.errors import InvalidRequest, ModelNotFound

# OpenAI's own names, which clients have built in: all mean the model that is there.
OPENAI_NAMES = ("whisper-1", "gpt-*transcribe*")


@dataclass(frozen=True)
class ServedModel:
    """The model that a service serves, as clients see it."""

    id: str
    aliases: tuple[str, ...] = ()
    owner: str = "local"
    # Seconds since 1970, asked for by OpenAI's shape: when this process took up the model.
    created: int = field(default_factory=lambda: int(time.time()))

    def check(self, name: str | None) -> None:
        """Refuse a request for any other model."""
        if not name:
            raise InvalidRequest(
                f"model: is required, use {self.id!r}",
                param="model",
                code="missing_required_parameter",
            )
        if not self.answers_to(name):
            raise ModelNotFound(
                f"the model {name!r} is not here; available: {', '.join(self.names)}",
                param="model",
                code="model_not_found",
            )

    @property
    def names(self) -> tuple[str, ...]:
        """All names that work, the patterns of OpenAI's names last."""
        return tuple(dict.fromkeys((self.id, *self.aliases, *OPENAI_NAMES)))

    def answers_to(self, name: str) -> bool:
        """Tell whether a name means this model."""
        return name in (self.id, *self.aliases) or any(
            fnmatchcase(name, pattern) for pattern in OPENAI_NAMES
        )

    def describe(self) -> dict[str, object]:
        """Give the entry of GET /v1/models."""
        return {
            "id": self.id,
            "object": "model",
            "created": self.created,
            "owned_by": self.owner,
        }
