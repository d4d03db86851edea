"""What an operator can set on this service: the names that fedirz/faster-whisper-server knew."""

from typing import Literal

from pydantic import BaseModel, ByteSize, ConfigDict, Field, NonNegativeInt

from services.transcription.settings import ServiceSettings


class ModelSettings(BaseModel):
    """The models and how to run them; `model` is WHISPER__MODEL, and so on."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    # The default model, loaded at the start: a folder in CTranslate2's format, a size ("small",
    # "large-v3") or a name on the Hub.
    model: str = Field(default="small", min_length=1)
    # What clients may call it too; a folder is otherwise known by its own name.
    alias: str | None = None
    # A folder whose folders are more models, known by their path in it.
    folder: str | None = None
    # For the models in memory, as estimated from their files; a larger one is alone.
    memory: ByteSize = Field(default=ByteSize(4_000_000_000), gt=0)
    # What clients may have downloaded by POST /v1/models: the sizes that the library knows, any
    # name on the Hub, or nothing.
    fetch: Literal["known", "any", "none"] = "known"
    inference_device: Literal["auto", "cpu", "cuda"] = "auto"
    device_index: NonNegativeInt = 0
    # CTranslate2's names (int8, float16, ...); "default" keeps what the model was saved in.
    compute_type: str = "default"
    # 0: one per core, 4 at most.
    cpu_threads: NonNegativeInt = 0
    # How many windows of a long recording are worked on at once; 0: 8 on a GPU, 1 on a CPU, where
    # memory doubles for it (3.6 GB instead of 1.5 GB for `small`, by the library's own figures).
    batch_size: NonNegativeInt = 0


class WhisperSettings(ModelSettings):
    """What this service has beyond them."""

    # Leave out passages without speech, unless the request says otherwise.
    vad_filter: bool = True


class Settings(ServiceSettings):
    """All settings of this service."""

    whisper: WhisperSettings = Field(default_factory=WhisperSettings)
