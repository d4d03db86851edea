"""services/voxtral as the tests run it: a tiny scripted model, a real diarizer, and its jobs."""

import base64
from functools import cache
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from tests.services.sounds import RECORDING, SAMPLE_RATE, encode, recording_samples
from tests.services.speech_server import SpeechServer, SpeechService, wait_for

# As long as it may be in a job of 10 MiB.
LONG_SECONDS = 1800


def voxtral_service(model: Path, diarizer: Path) -> SpeechService:
    """The service with these folders; recordings may come from this machine."""
    return SpeechService(
        name="voxtral",
        app="services.voxtral.main:create_app",
        program=("-m", "services.voxtral"),
        environment={
            "VOXTRAL_MODEL": str(model),
            "VOXTRAL_DEVICE": "cpu",
            "DIAR_MODEL": str(diarizer),
            "ALLOW_PRIVATE_URLS": "1",
            # Half of a small machine is left to the test itself.
            "OMP_NUM_THREADS": "1",
            "HF_HUB_OFFLINE": "1",
            "TRANSFORMERS_OFFLINE": "1",
        },
    )


def in_base64(recording: bytes) -> str:
    """The recording as a job holds it."""
    return base64.b64encode(recording).decode()


SHORT_INPUT = {"audio_base64": in_base64(RECORDING), "task": "transcribe"}


@cache
def long_input(seconds: int = LONG_SECONDS) -> dict[str, Any]:
    """A recording that keeps the tiny model at work, for a second to each four minutes of it."""
    samples = np.resize(recording_samples(), seconds * SAMPLE_RATE)
    recording = encode(samples, "wav", "adpcm_ima_wav", rate=8_000)
    return {"audio_base64": in_base64(recording), "task": "transcribe"}


def ask(server: SpeechServer, method: str, path: str, **options: Any) -> dict[str, Any]:
    """Call a route of the contract, and give its answer, which is none of refusal."""
    response = httpx.request(method, f"{server.url}/v2/voxtral/{path}", timeout=60, **options)
    assert response.status_code == 200, response.text
    return dict(response.json())


def submit(server: SpeechServer, **given: Any) -> str:
    """Have a job accepted; give its id."""
    return str(ask(server, "POST", "run", json={"input": given})["id"])


def status_of(server: SpeechServer, job: str) -> dict[str, Any]:
    """Give where a job stands."""
    return ask(server, "GET", f"status/{job}")


def await_status(server: SpeechServer, job: str, *expected: str, seconds_max: float = 60) -> None:
    """Wait until a job stands there."""
    wait_for(
        lambda: status_of(server, job)["status"] in expected, seconds_max, f"{job}: {expected}"
    )
