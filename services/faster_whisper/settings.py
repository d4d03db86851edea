"""What an operator can set on this service: the names that fedirz/faster-whisper-server knew."""

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt

from services.transcription.models import ServedModel
from services.transcription.settings import ServiceSettings

# Where the plain sizes ("small") live on the Hugging Face Hub.
HUB_PREFIX = "Systran/faster-whisper-"


class WhisperSettings(BaseModel):
    """The model and how to run it; `model` is WHISPER__MODEL, and so on."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    # A folder in CTranslate2's format, a size ("small", "large-v3") or a name on the Hub.
    model: str = Field(default="small", min_length=1)
    # What clients may call it too; a folder is otherwise known by its own name.
    alias: str | None = None
    inference_device: Literal["auto", "cpu", "cuda"] = "auto"
    device_index: NonNegativeInt = 0
    # CTranslate2's names (int8, float16, ...); "default" keeps what the model was saved in.
    compute_type: str = "default"
    # 0: one per core, 4 at most.
    cpu_threads: NonNegativeInt = 0


class Settings(ServiceSettings):
    """All settings of this service."""

    whisper: WhisperSettings = Field(default_factory=WhisperSettings)


def is_folder(model: str) -> bool:
    """Tell a folder from a name: it exists, or could only be a path."""
    return Path(model).is_dir() or model.startswith(("/", ".", "~")) or model.count("/") > 1


def served_model(whisper: WhisperSettings) -> ServedModel:
    """Give the names by which clients can ask for the model."""
    model = whisper.model
    names = [model]
    if is_folder(model):
        # The folder's name comes first: clients need not learn where the operator keeps it.
        names.insert(0, Path(model).resolve().name)
    elif "/" not in model:
        names.append(HUB_PREFIX + model)
    elif model.startswith(HUB_PREFIX):
        names.append(model.removeprefix(HUB_PREFIX))
    if whisper.alias:
        names.insert(0, whisper.alias)
    return ServedModel(id=names[0], aliases=tuple(names[1:]))
