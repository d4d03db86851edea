"""services/whisperx in a container, started by autostart's docker runtime."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml

from tests.client import client
from tests.containers import (
    docker,
    inspect,
    project_name,
    recorded_events,
    remove_projects,
    require_engine,
)
from tests.daemon import HOST, ROOT, free_port, running
from tests.services.sounds import RECORDING, WORDS
from tests.services.speech_server import DIGITS
from tests.speech.service import ALIGNERS
from tests.speech.test_whisperx_image import IMAGE, image

__all__ = ["client", "image"]

SERVICE = ROOT / "services/whisperx"
KILLED = 137  # by SIGKILL: it did not heed SIGTERM
SETTINGS = {
    "WHISPERX_DEFAULT_MODEL": "/mine/base",
    "WHISPER__ALIAS": "base",
    "ALIGN_FOLDER": "/mine/aligners",
    "HF_HUB_OFFLINE": "1",
}


@pytest.fixture
def project(tmp_path: Path, image: str) -> Iterator[Path]:
    """The service's own project under another name, with the tiny models mounted."""
    require_engine()
    folder = tmp_path / "whisperx"
    folder.mkdir()
    described = yaml.safe_load((SERVICE / "compose.yaml").read_text())
    for entry in described["services"].values():
        entry |= {"image": IMAGE, "ports": [f"127.0.0.1:{free_port()}:8000"]}
        entry["volumes"] = [
            "models:/models",
            f"{DIGITS}/model:/mine/base:ro",
            f"{ALIGNERS}:/mine/aligners:ro",
        ]
        del entry["build"]  # tested as it is by the image
    text = yaml.safe_dump({**described, "name": project_name()})
    (folder / "compose.yaml").write_text(text)
    lines = "\n".join("=".join(pair) for pair in SETTINGS.items())
    (folder / ".env").write_text(f"{lines}\n")
    yield folder
    docker("compose", "--project-directory", str(folder), "--profile", "*", "down", "--volumes")
    remove_projects(under=tmp_path)


def described(folder: Path) -> dict[str, Any]:
    """Give what the project's file says."""
    return dict(yaml.safe_load((folder / "compose.yaml").read_text()))


def port_of(folder: Path, service: str) -> int:
    """Give the port that a container publishes."""
    (published,) = described(folder)["services"][service]["ports"]
    return int(published.split(":")[1])


async def transcribe(client: aiohttp.ClientSession, url: str) -> dict[str, Any]:
    """Send the recording as the older services' clients do."""
    form = aiohttp.FormData()
    form.add_field("file", RECORDING, filename="recording.wav")
    form.add_field("model", "base")
    form.add_field("diarize", "true")
    async with client.post(url + "/transcribe", data=form, headers={"Host": HOST}) as answer:
        assert 200 == answer.status, await answer.text()
        return dict(await answer.json())


@pytest.mark.timeout(900)  # the image is built first
@pytest.mark.parametrize("service", ["whisperx", "transcription-pytorch", "chatserver"])
async def test_a_recording_through_a_stopped_container(
    tmp_path: Path, client: aiohttp.ClientSession, project: Path, service: str
) -> None:
    """Held while the container starts, heard, then stopped for lack of use; no other is started."""
    entry = {
        "compose": str(project),
        "containers": [service],
        "port": port_of(project, service),
        "ready": "/ready",
        "busy": "/busy",
        "idle": "1s",
    }
    name = described(project)["name"]
    async with recorded_events() as events, running(tmp_path, {HOST: entry}) as daemon:
        answer = await transcribe(client, daemon.url)
        await daemon.wait_for_state("stopped")
        await asyncio.sleep(0.2)
    left = inspect(f"{name}-{service}-1")

    assert WORDS == answer["transcript"]
    assert "whisper-base" == answer["model_used"]
    (warning,) = answer["warnings"]
    assert "speakers_unavailable" == warning["code"]
    assert [None] == list({segment["speaker"] for segment in answer["segments"]})
    counts = events.counts(name)
    assert (1, 1, 1) == (counts["create"], counts["start"], counts["die"])
    assert KILLED != left["State"]["ExitCode"]
    assert {"127.0.0.1"} == {
        each["HostIp"] for bound in left["HostConfig"]["PortBindings"].values() for each in bound
    }
