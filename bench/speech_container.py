"""`python -m bench.speech_container`: the cold start of services/whisperx's container, by phases.

From the engine's `start` to the first answer (container), to the libraries (import), to the model
(model), to the words of a recording of 3 s. The tiny models are mounted, so the libraries are what
takes time. It wants the image: `docker compose build` in services/whisperx.
"""

import re
import statistics
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager

import httpx

from tests.containers import docker
from tests.daemon import free_port
from tests.services.sounds import RECORDING, WORDS
from tests.services.speech_server import DIGITS
from tests.speech.service import ALIGNERS

IMAGE = "autostart/whisperx"
ROUNDS = 5
DEADLINE_SECONDS = 120.0
MOUNTS = {f"{DIGITS}/model": "/mine/base", str(ALIGNERS): "/mine/aligners"}
SETTINGS = {"WHISPERX_DEFAULT_MODEL": "/mine/base", "ALIGN_FOLDER": "/mine/aligners"}


def report() -> None:
    """Start it again and again, and print the medians."""
    port = free_port()
    with _container(port) as container:
        rounds = [_start(container, port) for _ in range(ROUNDS)]
        docker("start", container)
        _await(f"http://127.0.0.1:{port}/ready", time.perf_counter())
        memory = docker("stats", "--no-stream", "--format", "{{.MemUsage}}", container)
    names = ("first answer", "imported", "ready", "words")
    medians = [statistics.median(column) for column in zip(*rounds, strict=True)]
    told = ", ".join(
        f"{name} {seconds:.2f} s" for name, seconds in zip(names, medians, strict=True)
    )
    print(f"services/whisperx in a container, medians of {ROUNDS} starts: {told}")
    print(f"memory when ready: {memory}")


def _start(container: str, port: int) -> list[float]:
    url = f"http://127.0.0.1:{port}"
    began = time.perf_counter()
    docker("start", container)
    answered = _await(url + "/health", began)
    ready = _await(url + "/ready", began)
    logs = subprocess.run(["docker", "logs", container], check=True, capture_output=True, text=True)
    found = re.findall(r"imported seconds=([\d.]+)", logs.stderr)
    files = {"file": ("recording.wav", RECORDING)}
    answer = httpx.post(url + "/transcribe", files=files, timeout=DEADLINE_SECONDS)
    assert answer.json()["transcript"] == WORDS, answer.text
    words = time.perf_counter() - began
    docker("stop", container)
    return [answered, answered + float(found[-1]), ready, words]


def _await(url: str, began: float) -> float:
    while True:
        seconds = time.perf_counter() - began
        assert seconds < DEADLINE_SECONDS, url
        try:
            if httpx.get(url).is_success:
                return seconds
        except httpx.TransportError:
            pass
        time.sleep(0.01)


@contextmanager
def _container(port: int) -> Iterator[str]:
    mounts = [word for pair in MOUNTS.items() for word in ("--volume", ":".join(pair) + ":ro")]
    settings = [word for pair in SETTINGS.items() for word in ("--env", "=".join(pair))]
    published = ("--publish", f"127.0.0.1:{port}:8000")
    container = docker("create", "--init", *published, *mounts, *settings, IMAGE)
    try:
        yield container
    finally:
        docker("rm", "--force", "--volumes", container)


if __name__ == "__main__":
    report()
