"""services/whisperx in this process: its libraries are imported once for many apps.

It knows how a service finds its environment. What needs a process of its own (signals, clients
that leave) runs in one: tests/services/speech_server.py.
"""

import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from huggingface_hub import constants

from services.whisperx.main import create_app
from services.whisperx.settings import Settings
from tests.services.sounds import RECORDING
from tests.speech.service import WHISPERX

# Beside WHISPERX.environment, where a test has a stand-in for the Hub.
ONLINE = {"HF_HUB_OFFLINE": "0", "TRANSFORMERS_OFFLINE": "0"}
_OURS = ("HF_", "HUGGINGFACE_", "TRANSFORMERS_", "WHISPER", "DIAR_", "ALIGN_", "MAX_")


@contextmanager
def environment_of(home: Path, variables: dict[str, str]) -> Iterator[None]:
    """Give this process, and those that it starts, the environment of a service."""
    offline = variables.get("HF_HUB_OFFLINE") == "1"
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith(_OURS)]:
            patch.delenv(name)
        patch.setenv("HOME", str(home))
        for name, value in variables.items():
            patch.setenv(name, value)
        # Read when the Hub's client was imported.
        patch.setattr(constants, "HF_HUB_OFFLINE", offline)
        patch.setattr(constants, "HF_HUB_CACHE", str(home / ".cache/huggingface/hub"))
        yield


@asynccontextmanager
async def client_of(home: Path, **variables: str) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the service, which has that environment beside its usual one."""
    with environment_of(home, WHISPERX.environment | variables):
        app = create_app(Settings.from_environment())
        transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=transport, base_url="http://service", timeout=60) as client,
        ):
            yield client


async def transcribe(
    client: httpx.AsyncClient, recording: bytes = RECORDING, **fields: Any
) -> httpx.Response:
    """Send a recording to POST /transcribe."""
    return await client.post("/transcribe", files={"file": ("a.wav", recording)}, data=fields)


def code(response: httpx.Response) -> tuple[int, str]:
    """Give status and code of a refusal."""
    return response.status_code, response.json()["error"]["code"]
