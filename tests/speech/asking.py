"""How the tests ask services/whisperx, and read what it streams."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx

from tests.services.speech_server import SpeechServer

SECONDS_MAX = 60


def ask(
    server: SpeechServer, recording: bytes, path: str = "/transcribe", **fields: Any
) -> httpx.Response:
    """Send a recording with form fields; a list is sent as a field for each item."""
    files = {"file": ("recording.wav", recording)}
    return httpx.post(server.url + path, files=files, data=fields, timeout=SECONDS_MAX)


def transcribe(server: SpeechServer, recording: bytes, **fields: Any) -> dict[str, Any]:
    """Return what POST /transcribe makes of a recording, once it is an answer."""
    response = ask(server, recording, **fields)
    assert response.status_code == 200, response.text
    return response.json()


def without_times_of_work(body: dict[str, Any]) -> dict[str, Any]:
    """What two answers to the same question have in common."""
    return {name: value for name, value in body.items() if name not in ("processing_time", "type")}


def read_events(response: httpx.Response) -> Iterator[dict[str, Any]]:
    """Give the events of a stream as they come."""
    for line in response.iter_lines():
        if line.startswith("data: "):
            yield json.loads(line.removeprefix("data: "))


@contextmanager
def ask_for_stream(
    server: SpeechServer, recording: bytes, path: str = "/transcribe", **fields: Any
) -> Iterator[Iterator[dict[str, Any]]]:
    """Give the events of one request; who leaves the block early is a client that has gone."""
    with httpx.stream(
        "POST",
        server.url + path,
        files={"file": ("recording.wav", recording)},
        data=fields | {"stream": "true"},
        timeout=SECONDS_MAX,
    ) as response:
        assert response.status_code == 200, response.read()
        yield read_events(response)


def await_phase(events: Iterator[dict[str, Any]], phase: str) -> None:
    """Wait until a job has done a part of a phase, and not all of it."""
    deadline = time.monotonic() + SECONDS_MAX
    for event in events:
        assert time.monotonic() < deadline, f"no {phase} within {SECONDS_MAX} s"
        if event.get("phase") == phase and 0 < event["percent"] < 100:
            return
    raise AssertionError(f"the work ended without a part of {phase}")
