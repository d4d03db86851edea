"""What an operator can set on this service: the names of two older workers, and its own."""

import os
from pathlib import Path
from typing import Literal

from pydantic import AliasChoices, Field, NonNegativeInt, PositiveFloat, PositiveInt

from services.diarization.settings import DiarizationSettings

MINI = "mistralai/Voxtral-Mini-3B-2507"


def _default_state() -> Path:
    home = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local/state"
    return Path(home) / "voxtral"


class Settings(DiarizationSettings):
    """All settings of this service."""

    # A folder in transformers' format, or a name on the Hub.
    voxtral_model: str = Field(
        default=MINI, min_length=1, validation_alias=AliasChoices("voxtral_model", "model_id")
    )
    voxtral_engine: Literal["transformers", "vllm"] = "transformers"
    voxtral_device: Literal["auto", "cpu", "cuda"] = "auto"
    # Pieces of half a minute that are worked on at once; 0: 8 on a GPU, 1 on a CPU.
    voxtral_batch_size: NonNegativeInt = 0
    # The jobs, their recordings and their results; one process at a time.
    voxtral_state: Path = Field(default_factory=_default_state)

    # Longer recordings are refused; this is MAX_AUDIO_SECONDS of the other services.
    max_audio_seconds: PositiveFloat = Field(
        default=9000.0, validation_alias=AliasChoices("max_duration_s", "max_audio_seconds")
    )
    # The longest summary and opinion; half a minute of words may have at least as many.
    max_new_tokens: PositiveInt = 512
    # Whether task transcribe_diarized comes with a summary where the request does not say.
    with_summary_default: bool = False

    # vLLM elsewhere: the address of its API, without /v1. Empty: it is started here.
    vllm_url: str = ""
    vllm_port: PositiveInt = Field(default=8000, le=65535)
    # More of its flags, as in a shell: "--tensor-parallel-size 2".
    vllm_args: str = ""
    # From its start to its first answer; the first one downloads the model.
    vllm_start_seconds: PositiveFloat = 1800.0

    # Recordings by URL: may the address be private, and how long may the download take.
    allow_private_urls: bool = False
    url_seconds: PositiveFloat = 600.0

    # Jobs that wait; more are refused.
    max_queue: PositiveInt = 100
    # The longest a job may run where its policy does not say; RunPod's default.
    execution_timeout_s: PositiveFloat = Field(default=600.0, ge=5, le=7 * 86400)
    # The name in /v2/NAME/…; empty: any.
    runpod_endpoint_id: str = ""
    runpod_debug: bool = False
    # Tells this worker from others, in answers.
    runpod_pod_id: str = "local"
