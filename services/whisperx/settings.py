"""What an operator can set on this service: the names of services/faster_whisper, and its own."""

from typing import Self

from pydantic import Field, model_validator

from services.diarization.settings import DiarizationSettings
from services.faster_whisper.settings import ModelSettings

_DEFAULT_MODEL = "base"


class Settings(DiarizationSettings):
    """All settings of this service."""

    whisper: ModelSettings = Field(default_factory=ModelSettings)
    # The model of requests that name none; WHISPER__MODEL says the same.
    whisperx_default_model: str = ""
    # A folder of aligners, one folder for each language ("fr"), in transformers' format. They are
    # preferred to those that whisperX would download.
    align_folder: str = ""

    @model_validator(mode="after")
    def _take_default_model(self) -> Self:
        own = self.whisper.model if "model" in self.whisper.model_fields_set else _DEFAULT_MODEL
        model = self.whisperx_default_model or own
        # Frozen, but not yet anybody's.
        object.__setattr__(self, "whisper", self.whisper.model_copy(update={"model": model}))
        return self
