"""services/voxtral in a container, started and stopped by autostart's docker runtime.

All tests have one container, whose jobs are on its volume. Each finds it as the last one left it:
stopped, on its way there, or running.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from services.voxtral.pieces import PIECE_SECONDS_MAX
from tests.clients.speech_daemon import SpeechDaemon, run_daemon
from tests.containers import docker, inspect, project_name, remove_projects, require_engine
from tests.daemon import HOST, ROOT, free_port
from tests.services.speech_server import wait_for
from tests.speech.test_voxtral_image import IMAGE, image
from tests.speech.voxtral_service import LONG_SECONDS, SHORT_INPUT, long_input

__all__ = ["image"]

SERVICE = ROOT / "services/voxtral"
SAMPLE = json.loads((SERVICE / "sample_transcribe.json").read_text())
KILLED = 137  # by SIGKILL: it did not heed SIGTERM
IDLE_SECONDS = 1.0
# A start of the container, and half an hour of speech on a busy machine.
SECONDS_MAX = 90.0
MODEL = "/mine/voxtral"


class Container:
    """The service behind autostart."""

    def __init__(self, daemon: SpeechDaemon, name: str) -> None:
        self._daemon = daemon
        self.name = name

    def ask(self, method: str, path: str, **options: Any) -> dict[str, Any]:
        """Send a request by way of autostart, which starts the container for it."""
        url = f"{self._daemon.door(HOST)}/v2/voxtral/{path}"
        answer = httpx.request(method, url, timeout=SECONDS_MAX, **options)
        assert 200 == answer.status_code, answer.text
        return dict(answer.json())

    def run(self, given: dict[str, Any]) -> str:
        """Have a job accepted; give its id."""
        return str(self.ask("POST", "run", json={"input": given})["id"])

    def status(self, job: str) -> dict[str, Any]:
        """Give where a job stands."""
        return self.ask("GET", f"status/{job}")

    def await_status(self, job: str, *expected: str) -> dict[str, Any]:
        """Wait until a job stands there."""
        told: dict[str, Any] = {}

        def holds() -> bool:
            told.update(self.status(job))
            return told["status"] in expected

        wait_for(holds, SECONDS_MAX, f"{job}: {expected}")
        return told

    def await_state(self, state: str) -> None:
        """Wait until autostart shows it so."""
        asyncio.run(self._daemon.daemon.wait_for_state(state, seconds=SECONDS_MAX))

    def starts(self) -> int:
        """How often autostart started it."""
        return self._daemon.daemon.starts()

    def exit_status(self) -> int:
        """How the container ended."""
        return int(inspect(self.name)["State"]["ExitCode"])


@pytest.fixture(scope="module")
def project(
    tmp_path_factory: pytest.TempPathFactory, image: str, voxtral_model: Path
) -> Iterator[Path]:
    """The service's own project under another name, with the tiny model mounted."""
    require_engine()
    for path in (voxtral_model, *voxtral_model.iterdir()):
        path.chmod(0o755)  # it is another user who reads them
    folder = tmp_path_factory.mktemp("compose") / "voxtral"
    folder.mkdir()
    described = yaml.safe_load((SERVICE / "compose.yaml").read_text())
    described["name"] = project_name()
    described["services"]["voxtral"] |= {
        "image": IMAGE,
        "ports": [f"127.0.0.1:{free_port()}:8000"],
        "volumes": [*described["services"]["voxtral"]["volumes"], f"{voxtral_model}:{MODEL}:ro"],
    }
    del described["services"]["voxtral"]["build"]  # tested as it is by the image
    (folder / "compose.yaml").write_text(yaml.safe_dump(described))
    (folder / ".env").write_text(f"VOXTRAL_MODEL={MODEL}\nHF_HUB_OFFLINE=1\n")
    yield folder
    docker("compose", "--project-directory", str(folder), "down", "--volumes")
    remove_projects(under=folder.parent)


@pytest.fixture(scope="module")
def container(tmp_path_factory: pytest.TempPathFactory, project: Path) -> Iterator[Container]:
    """The service behind autostart, stopped at first."""
    described = yaml.safe_load((project / "compose.yaml").read_text())
    (published,) = described["services"]["voxtral"]["ports"]
    entry = {
        "compose": str(project),
        "containers": ["voxtral"],
        "port": int(published.split(":")[1]),
        "listen": f"127.0.0.1:{free_port()}",
        "ready": "/ready",
        "busy": "/busy",
        "idle": f"{IDLE_SECONDS:g}s",
    }
    with run_daemon(tmp_path_factory.mktemp("autostart"), {HOST: entry}) as daemon:
        yield Container(daemon, f"{described['name']}-voxtral-1")


@pytest.mark.timeout(900)  # the image is built first
def test_calls_start_a_stopped_container(container: Container, spoken: str) -> None:
    """A ping, and a job that is waited for, as the older guides have them."""
    container.await_state("stopped")
    pong = container.ask("POST", "runsync", json={"input": {"ping": True}})
    told = container.ask("POST", "runsync", json=SAMPLE)

    assert ("COMPLETED", True) == (pong["status"], pong["output"]["pong"])
    assert ("COMPLETED", spoken) == (told["status"], told["output"]["transcript"])
    assert 1 == container.starts()


def test_a_job_outlives_its_request(container: Container, spoken: str) -> None:
    """Nobody is connected, and the container is stopped only when the job is done."""
    job = container.run(long_input())
    container.await_state("stopped")
    ended = container.exit_status()
    told = container.status(job)

    assert KILLED != ended
    assert "COMPLETED" == told["status"]  # at once: it was done before the stop
    assert told["executionTime"] > 2 * 1000 * IDLE_SECONDS
    assert LONG_SECONDS / PIECE_SECONDS_MAX <= told["output"]["transcript"].count(spoken)


def test_a_job_that_comes_as_the_container_stops_is_done(container: Container, spoken: str) -> None:
    """It is held until the next start; what was kept before is there as well."""
    before = container.run(SHORT_INPUT)
    container.await_status(before, "COMPLETED")
    container.await_state("stopping")
    starts = container.starts()
    job = container.run(SHORT_INPUT)
    told = container.await_status(job, "COMPLETED", "FAILED")

    assert starts + 1 == container.starts()
    assert "COMPLETED" == told["status"], told
    assert spoken == told["output"]["transcript"]
    assert told["output"]["segments"] == container.status(before)["output"]["segments"]


def test_a_job_survives_kill_and_sigterm(container: Container) -> None:
    """The next request starts the container, the job is done, and streamed without a seam."""
    job = container.run(long_input())
    chunks: list[dict[str, Any]] = []

    def stream() -> int:
        """Poll for the passages that are new; give how many those are."""
        told = container.ask("GET", f"stream/{job}")["stream"]
        chunks.extend(each["output"] for each in told)
        return len(told)

    wait_for(stream, SECONDS_MAX, "the first passages")
    docker("kill", container.name)
    after_kill = container.status(job)["status"]
    stream()  # some were heard before, and not told
    container.await_status(job, "IN_PROGRESS")
    docker("stop", container.name)
    heeded = container.exit_status()
    told = container.await_status(job, "COMPLETED", "FAILED")
    while stream():
        pass

    assert after_kill in ("IN_QUEUE", "IN_PROGRESS")
    assert KILLED != heeded
    assert "COMPLETED" == told["status"], told
    assert told["output"]["segments"] == chunks
