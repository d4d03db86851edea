"""The image of services/faster_whisper, and the main job through it."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml

from tests.containers import docker, inspect, project_name, recorded_events
from tests.daemon import HOST, ROOT, free_port, running

SERVICE = ROOT / "services/faster_whisper"
IMAGE = "autostart-test/faster-whisper"
# What an operator would write to .env: the tiny model, which is in the image.
SETTINGS = {
    "WHISPER__MODEL": "services/faster_whisper/digits/model",
    "WHISPER__ALIAS": "digits",
    "HF_HUB_OFFLINE": "1",
}
RECORDING = SERVICE / "digits/recording.wav"
WORDS = RECORDING.with_suffix(".txt").read_text().strip()
KILLED = 137  # by SIGKILL: it did not heed SIGTERM


@pytest.fixture(scope="module")
def image() -> str:
    """The image, built from this checkout."""
    dockerfile = str(SERVICE / "Dockerfile")
    command = ("build", "--quiet", "--network", "host", "--tag", IMAGE, "--file", dockerfile)
    docker(*command, str(ROOT), seconds=900)
    return IMAGE


@pytest.fixture
def offline(image: str) -> Iterator[str]:
    """A container of the image that reaches no network, with the tiny model; its id."""
    settings = [word for pair in SETTINGS.items() for word in ("--env", "=".join(pair))]
    command = ("run", "--detach", "--init", "--network", "none", "--cap-drop", "ALL")
    container = docker(*command, *settings, image)
    yield container
    docker("rm", "--force", "--volumes", container)


def write_project(folder: Path, image: str) -> int:
    """Write the service's own project under a name and port of its own; return the port."""
    folder.mkdir()
    project = yaml.safe_load((SERVICE / "compose.yaml").read_text())
    port = free_port()
    entry = project["services"]["faster-whisper"]
    assert ["127.0.0.1:8001:8000"] == entry["ports"]
    entry |= {"image": image, "ports": [f"127.0.0.1:{port}:8000"]}
    del entry["build"]  # tested as it is by the image
    (folder / "compose.yaml").write_text(yaml.safe_dump({**project, "name": project_name()}))
    settings = "\n".join("=".join(pair) for pair in SETTINGS.items())
    (folder / ".env").write_text(f"{settings}\n")
    return port


async def transcribe(client: aiohttp.ClientSession, url: str) -> tuple[int, str]:
    """Send the recording as OpenAI's clients do; return status and text."""
    form = aiohttp.FormData()
    form.add_field("file", RECORDING.read_bytes(), filename="recording.wav")
    form.add_field("model", "digits")
    form.add_field("response_format", "text")
    headers = {"Host": HOST}
    async with client.post(url + "/v1/audio/transcriptions", data=form, headers=headers) as answer:
        return answer.status, (await answer.text()).strip()


@pytest.mark.timeout(900)  # the image is built first
async def test_a_recording_through_a_stopped_container(
    tmp_path: Path, client: aiohttp.ClientSession, image: str
) -> None:
    """The main job: held while the container starts, heard, then stopped for lack of use."""
    folder = tmp_path / "whisper"
    port = write_project(folder, image)
    entry = {"compose": str(folder), "port": port, "ready": "/ready", "busy": "/busy", "idle": "1s"}
    async with recorded_events() as events, running(tmp_path, {HOST: entry}) as daemon:
        answers = [await transcribe(client, daemon.url)]
        await daemon.wait_for_state("stopped")
        answers.append(await transcribe(client, daemon.url))
        await daemon.wait_for_state("stopped")
        await asyncio.sleep(0.2)
    name = yaml.safe_load((folder / "compose.yaml").read_text())["name"]
    left = inspect(f"{name}-faster-whisper-1")
    docker("compose", "--project-name", name, "down", "--volumes")

    assert [(200, WORDS)] * 2 == answers
    counts = events.counts(name)
    assert (1, 2, 2) == (counts["create"], counts["start"], counts["die"])
    assert KILLED != left["State"]["ExitCode"]
    assert {"127.0.0.1"} == {
        each["HostIp"] for bound in left["HostConfig"]["PortBindings"].values() for each in bound
    }


async def test_it_needs_no_network_and_no_rights(offline: str) -> None:
    """With its model in place it works without a network, as a user who may write to /models."""
    script = """
import os, time, urllib.request
deadline = time.monotonic() + 60
while True:
    try:
        print(urllib.request.urlopen("http://127.0.0.1:8000/ready").status)
        break
    except OSError:
        assert time.monotonic() < deadline
        time.sleep(0.1)
"""
    assert "200" == docker("exec", offline, "python3", "-c", script)
    assert "10001" == docker("exec", offline, "id", "-u")
    writable = "for path in /models /app /opt/venv /; do test -w $path && echo $path; done; true"
    assert "/models" == docker("exec", offline, "sh", "-c", writable)


async def test_it_ends_when_asked(offline: str) -> None:
    """SIGTERM is enough, also while the model loads."""
    docker("stop", "--time", "20", offline)
    state = inspect(offline)["State"]
    assert "exited" == state["Status"]
    assert KILLED != state["ExitCode"], docker("logs", offline)


async def test_only_the_services_are_in_the_image(image: str) -> None:
    """No test, no example, no setting of this machine."""
    listed = docker("run", "--rm", image, "find", "/app", "-maxdepth", "2").splitlines()
    assert {
        "/app",
        "/app/services",
        *(f"/app/services/{name}" for name in ("__init__.py", "faster_whisper", "transcription")),
    } == set(listed)


async def test_no_password_is_sent_to_a_build(tmp_path: Path) -> None:
    """The .env beside a compose file stays out of every image, and out of the build's context."""
    context = tmp_path / "context"
    for name in ("services/faster_whisper/.env", "services/.env.local", "services/kept.py"):
        (context / name).parent.mkdir(parents=True, exist_ok=True)
        (context / name).write_text("HF_TOKEN=sesame")
    (context / ".dockerignore").write_text((ROOT / ".dockerignore").read_text())
    (tmp_path / "Dockerfile").write_text("FROM scratch\nCOPY . /\n")
    sent = tmp_path / "sent"
    options = ("--file", str(tmp_path / "Dockerfile"), "--output", str(sent))
    docker("build", *options, str(context))

    assert {"services/kept.py"} == {
        str(path.relative_to(sent)) for path in sent.rglob("*") if path.is_file()
    }


def composed(*files: str) -> dict[str, Any]:
    """Return what `docker compose config` makes of files of the service."""
    options = [word for file in files for word in ("--file", str(SERVICE / file))]
    done = docker("compose", *options, "config", "--format", "json")
    return dict(json.loads(done)["services"]["faster-whisper"])


async def test_the_files_are_valid_for_cpu_and_gpu() -> None:
    """Compose accepts both; the GPU's adds a device, its own image, and changes nothing else."""
    cpu, gpu = composed("compose.yaml"), composed("compose.yaml", "compose.gpu.yaml")

    assert ("autostart/faster-whisper", "cpu") == (
        cpu["image"],
        cpu["environment"]["WHISPER__INFERENCE_DEVICE"],
    )
    assert ("autostart/faster-whisper:cuda", "cuda") == (
        gpu["image"],
        gpu["environment"]["WHISPER__INFERENCE_DEVICE"],
    )
    assert {"DEVICE": "cuda"} == gpu["build"]["args"]
    (device,) = gpu["deploy"]["resources"]["reservations"]["devices"]
    assert ("nvidia", ["gpu"]) == (device["driver"], device["capabilities"])
    changed = {"image", "environment", "build", "deploy"}
    assert {key: cpu[key] for key in cpu.keys() - changed} == {
        key: gpu[key] for key in gpu.keys() - changed
    }


async def test_every_pin_is_that_of_the_project() -> None:
    """The image holds the versions that the project is tested with."""

    def pins(path: Path) -> set[str]:
        lines = path.read_text().splitlines()
        pinned = (line.partition(";")[0].strip() for line in lines if "==" in line)
        return {pin.lower().replace("_", "-") for pin in pinned}

    assert pins(SERVICE / "requirements.txt") <= pins(ROOT / "requirements.lock")


async def test_a_bad_setting_is_named(image: str) -> None:
    """A wrong variable ends the container with one line that says what is allowed."""
    done = subprocess.run(
        ["docker", "run", "--rm", "--env", "WHISPER__INFERENCE_DEVICE=tpu", image],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode not in {0, KILLED}
    assert "WHISPER__INFERENCE_DEVICE: 'tpu' is not allowed" in done.stderr
    assert "Traceback" not in done.stderr
