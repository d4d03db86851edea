"""Runs a speech service as operators do: a uvicorn process, here with a tiny real model."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx

ROOT = Path(__file__).parents[2]
DIGITS = ROOT / "services/faster_whisper/digits"

START_SECONDS_MAX = 60  # seconds where the machine is idle and warm, but CI is neither
STOP_SECONDS_MAX = 30


@dataclass(frozen=True)
class SpeechService:
    """What the tests must know of a service."""

    name: str
    app: str
    environment: dict[str, str] = field(default_factory=dict)
    # What Python runs where it is not uvicorn; uvicorn's options may follow.
    program: tuple[str, ...] = ()
    # What OpenAI's API has, and not every engine: "temperature", "logprobs".
    abilities: frozenset[str] = frozenset()
    # Of a recording that keeps the tiny model at work for several seconds, and a shorter one.
    long_seconds: float = 420.0
    shorter_seconds: float = 120.0
    # The fields with which the tiny model hears a long recording as well as a short one.
    long_fields: dict[str, str] = field(default_factory=dict)

    @property
    def arguments(self) -> tuple[str, ...]:
        """Python's arguments; options of uvicorn may follow."""
        return self.program or ("-m", "uvicorn", self.app)


FASTER_WHISPER = SpeechService(
    name="faster_whisper",
    app="services.faster_whisper.main:app",
    environment={
        "WHISPER__MODEL": str(DIGITS / "model"),
        "WHISPER__INFERENCE_DEVICE": "cpu",
        # Half of a small machine is left to the test itself.
        "WHISPER__CPU_THREADS": "1",
    },
    abilities=frozenset({"logprobs", "temperature"}),
)


@dataclass(frozen=True)
class SpeechServer:
    """A running service."""

    service: SpeechService
    process: subprocess.Popen[bytes]
    url: str
    temporary: Path  # its $TMPDIR
    log: Path

    @property
    def transcriptions(self) -> str:
        return self.url + "/v1/audio/transcriptions"

    def open_uploads(self) -> list[int]:
        """Give the sizes of the temporary files that it holds; they have no names to be listed."""
        found = []
        for descriptor in Path(f"/proc/{self.process.pid}/fd").iterdir():
            try:
                target = str(descriptor.readlink())
                size = descriptor.stat().st_size
            except FileNotFoundError:
                continue
            if target.startswith(str(self.temporary)):
                found.append(size)
        return found

    def files_left(self) -> list[Path]:
        """Give what is in its temporary folder; libraries leave folders and empty files."""
        files = (path for path in self.temporary.rglob("*") if path.is_file())
        return [path for path in files if path.stat().st_size]

    def await_upload(self, size: int) -> None:
        """Wait until it has received a recording of this size: then it is in the line."""
        received = f"{size} bytes to be received"
        wait_for(lambda: max(self.open_uploads(), default=0) >= size, 20.0, received)

    def is_busy(self) -> bool:
        return httpx.get(self.url + "/busy").json()["busy"]

    def await_ready(self) -> None:
        wait_for(lambda: httpx.get(self.url + "/ready").is_success, START_SECONDS_MAX, "/ready")

    def await_busy(self, expected: bool, seconds_max: float = 20.0) -> None:
        wait_for(lambda: self.is_busy() == expected, seconds_max, f"busy to be {expected}")

    def terminate(self) -> None:
        self.process.send_signal(signal.SIGTERM)


def wait_for(condition, seconds_max: float, what: str) -> None:
    """Poll until a condition holds; another process has no other way to tell."""
    deadline = time.monotonic() + seconds_max
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds_max} s for {what}"
        time.sleep(0.01)


@contextmanager
def run_server(
    service: SpeechService,
    folder: Path,
    environment: dict[str, str] | None = None,
    *,
    until_ready: bool = True,
) -> Iterator[SpeechServer]:
    """Run a service until the block ends; its files go into `folder`.

    The block begins once it is ready or, where that is not wanted, once it takes connections.
    """
    temporary = folder / "temporary"
    temporary.mkdir()
    log = folder / "server.log"
    variables = {"PATH": os.environ["PATH"], "TMPDIR": str(temporary), "HOME": str(folder)}
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, *service.arguments, "--port", "0"],
            cwd=ROOT,
            env=variables | service.environment | (environment or {}),
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        url = _await_url(process, log)
        server = SpeechServer(service, process=process, url=url, temporary=temporary, log=log)
        if until_ready:
            server.await_ready()
        yield server
    finally:
        process.terminate()
        try:
            process.wait(STOP_SECONDS_MAX)
        finally:
            process.kill()
            process.wait()


def _await_url(process: subprocess.Popen[bytes], log: Path) -> str:
    def find() -> str | None:
        found = re.search(r"running on (http://\S+)", log.read_text())
        return found and found[1]

    wait_for(lambda: find() or process.poll() is not None, START_SECONDS_MAX, "the server's port")
    url = find()
    assert url is not None, log.read_text()
    return url
