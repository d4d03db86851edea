"""Many jobs, one pipeline that is not thread-safe: each gets its own answer, whatever others ask.

whisperX keeps a tokenizer, options and a detector of the last job in its pipeline.
"""

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from functools import cache
from typing import Any

import httpx
import pytest

from tests.contract.test_transcription_api import refusal
from tests.services.sounds import FRENCH_RECORDING, FRENCH_WORDS, RECORDING, WORDS, long_recording
from tests.services.speech_server import SpeechServer, wait_for
from tests.speech.asking import (
    ask,
    ask_for_stream,
    await_phase,
    transcribe,
    without_times_of_work,
)
from tests.speech.voices import PAIRS, converse_in_digits

WAITING_MAX = 8  # of the fixture `server`

Job = tuple[bytes, dict[str, str]]


@cache
def jobs() -> dict[str, Job]:
    """Four, each in another way; what one leaves behind would be seen in the next."""
    meeting = converse_in_digits(turns=4).to_wav()
    other = converse_in_digits(PAIRS[1], turns=4, digits_each=5, seed=1).to_wav()
    return {
        "speakers": (meeting, {"diarize": "true", "words": "true"}),
        "french": (FRENCH_RECORDING, {"language": "fr", "vad_threshold": "0.6"}),
        "prompt": (other, {"prompt": "one two"}),
        "translation": (FRENCH_RECORDING, {"task": "translate"}),
    }


@pytest.fixture(scope="module")
def alone(server) -> dict[str, dict[str, Any]]:
    """What each is answered when there is no other."""
    return {
        name: without_times_of_work(transcribe(server, recording, **fields))
        for name, (recording, fields) in jobs().items()
    }


async def transcribe_together(
    server: SpeechServer, names: list[str]
) -> list[tuple[str, dict[str, Any]]]:
    """Ask for all at once; give the answers by name."""
    async with httpx.AsyncClient(timeout=60) as client:

        async def post(name: str) -> tuple[str, dict[str, Any]]:
            recording, fields = jobs()[name]
            files = {"file": ("recording.wav", recording)}
            response = await client.post(server.url + "/transcribe", files=files, data=fields)
            assert response.status_code == 200, response.text
            return name, without_times_of_work(response.json())

        return await asyncio.gather(*map(post, names))


async def test_four_at_once_are_answered_as_if_alone(server, alone):
    """In either order, twice: every language, prompt and recording keeps its own answer."""
    names = list(jobs())
    answers = await transcribe_together(server, [*names, *reversed(names)])

    assert [name for name, _ in answers] == [*names, *reversed(names)]
    for name, answer in answers:
        assert answer == alone[name], name


def test_the_four_are_different(server, alone):
    """Or their being mixed up would not be seen; the prompt alone changes what is heard."""
    recording, _ = jobs()["prompt"]
    transcripts = [answer["transcript"] for answer in alone.values()]

    assert len(set(transcripts)) == len(transcripts)
    assert transcribe(server, recording)["transcript"] != alone["prompt"]["transcript"]


@pytest.mark.parametrize(
    ("phase", "seconds", "fields"),
    [
        ("transcribe", 150, {"language": "fr", "prompt": "un deux"}),
        ("align", 90, {}),
        ("diarize", 30, {"diarize": "true", "num_speakers": "1"}),
    ],
)
def test_a_job_that_was_given_up_leaves_nothing_behind(server, phase, seconds, fields):
    """A client leaves in the midst of a phase: its place is free, and the next is heard right."""
    with ask_for_stream(server, long_recording(seconds), **fields) as events:
        await_phase(events, phase)
        assert server.is_busy()
    server.await_busy(False, seconds_max=5)

    told = transcribe(server, RECORDING)
    assert (told["transcript"], told["language"]) == (WORDS, "en")
    assert transcribe(server, FRENCH_RECORDING)["transcript"] == FRENCH_WORDS


def test_busy_is_told_while_it_works_and_not_after(server):
    """From the first phase to the end of the answer."""
    assert not server.is_busy()
    with ask_for_stream(server, long_recording(30)) as events:
        busy = {next(events)["phase"]: server.is_busy()}
        *_, done = events

    assert busy == {"load": True}
    assert done["type"] == "done"
    server.await_busy(False)


# A full line


@pytest.fixture
def full(server) -> Iterator[SpeechServer]:
    """The service while every place is held by an upload that does not end."""
    address = httpx.URL(server.url)
    head = (
        f"POST /transcribe HTTP/1.1\r\nHost: {address.netloc.decode()}\r\n"
        "Content-Type: multipart/form-data; boundary=b\r\nContent-Length: 1000\r\n\r\n--b\r\n"
    )
    places = 1 + WAITING_MAX
    with contextlib.ExitStack() as held:
        for _ in range(places):
            upload = held.enter_context(socket.create_connection((address.host, address.port)))
            upload.sendall(head.encode())
        wait_for(lambda: places_taken(server) == places, 10, "the line to be full")
        yield server
    server.await_busy(False)


def places_taken(server: SpeechServer) -> int:
    text = httpx.get(server.url + "/metrics").text
    line = next(line for line in text.splitlines() if line.startswith("speech_queue_places_taken "))
    return int(float(line.split()[1]))


@pytest.mark.parametrize(
    "path",
    [
        "/transcribe",
        "/asr",
        "/detect-language",
        "/v1/audio/diarization",
        "/v1/audio/transcriptions",
    ],
)
def test_a_full_line_says_when_to_come_again(full, path):
    """By whatever API: 429, a time, and no word against another try."""
    response = ask(full, RECORDING, path)

    assert response.status_code == 429
    assert response.json()["error"]["code"] == "queue_full"
    assert 1 <= int(response.headers["retry-after"]) <= 120
    assert "x-should-retry" not in response.headers


# What it can do


def test_status_tells_what_is_in_memory(server):
    """The device, the models, the aligners, and whether speakers can be told apart."""
    transcribe(server, RECORDING)
    told = httpx.get(server.url + "/status").json()

    assert (told["status"], told["device"], told["default_model"]) == ("ready", "cpu", "base")
    assert (told["models"], told["aligners"]) == (["base"], ["en"])
    assert told["diarization"] | {"model": ""} == {"available": True, "model": "", "reason": None}


def test_an_unknown_pipeline_is_not_found(server):
    """The one that is there is named."""
    pipeline = httpx.get(server.url + "/status").json()["diarization"]["model"]
    response = ask(server, RECORDING, "/v1/audio/diarization", model="absent")

    assert response.status_code == 404
    assert pipeline in refusal(response)["message"]
    assert ask(server, RECORDING, "/v1/audio/diarization", model=pipeline).status_code == 200
