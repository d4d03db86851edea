"""Which models a service has, and by which names clients may ask for them."""

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from services.transcription.errors import InvalidRequest, ModelNotFound

# OpenAI's own names, which clients have built in: all mean the default model.
OPENAI_NAMES = ("whisper-1", "gpt-*transcribe*")

_NAMES_SHOWN_MAX = 20


@dataclass(frozen=True)
class ServedModel:
    """A model that a service serves, as clients see it."""

    id: str
    aliases: tuple[str, ...] = ()
    owner: str = "local"
    # Seconds since 1970, asked for by OpenAI's shape: when this process took up the model.
    created: int = field(default_factory=lambda: int(time.time()))

    @property
    def names(self) -> tuple[str, ...]:
        """The names that mean this model and no other."""
        return (self.id, *self.aliases)


@dataclass(frozen=True)
class Catalogue:
    """The default model, and what else is here at the moment.

    `find_others` looks for models on the disk. `may_fetch` tells whether clients may have a model
    of that name downloaded; `fetch_module` is the Python module that downloads it, by name.
    `fetches_unasked`: a request that needs such a model is enough.
    """

    default: ServedModel
    find_others: Callable[[], Sequence[ServedModel]] = tuple
    may_fetch: Callable[[str], bool] = lambda _name: False
    fetch_module: str = ""
    fetches_unasked: bool = False

    def models(self) -> list[ServedModel]:
        """Give all models, the default one first."""
        found = {self.default.id: self.default}
        for model in self.find_others():
            if not set(model.names) & set(self.default.names):
                found.setdefault(model.id, model)
        return list(found.values())

    def find(self, name: str) -> ServedModel:
        """Give the model of that name; raises ModelNotFound, InvalidRequest for an empty name.

        Reads the disk unless the name means the default model.
        """
        if not name.strip():
            raise InvalidRequest(
                f"model: is required, use {self.default.id!r}",
                param="model",
                code="missing_required_parameter",
            )
        if name in self.default.names or any(
            fnmatchcase(name, pattern) for pattern in OPENAI_NAMES
        ):
            return self.default
        models = self.models()
        for model in models:
            if name in model.names:
                return model
        raise ModelNotFound(self._not_here(name, models), param="model", code="model_not_found")

    def fetch_command(self, name: str) -> list[str]:
        """Give the command that downloads a model."""
        return [sys.executable, "-m", self.fetch_module, "--", name]

    def _not_here(self, name: str, models: list[ServedModel]) -> str:
        names = [known for model in models for known in model.names]
        listed = ", ".join([*names[:_NAMES_SHOWN_MAX], *OPENAI_NAMES])
        message = f"the model {name[:100]!r} is not here; available: {listed}"
        if self.may_fetch(name):
            message += f". POST /v1/models/{name} downloads it"
        return message
