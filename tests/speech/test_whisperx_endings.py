"""How work ends in services/whisperx: finished at SIGTERM, given up by who asked, out of memory."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import numpy as np
import pytest
import torch

from services.whisperx import alignment
from tests.services.sounds import RECORDING, WORDS, encode, long_recording, recording_samples
from tests.services.speech_server import STOP_SECONDS_MAX, SpeechServer, run_server
from tests.speech.inside import client_of, code, transcribe
from tests.speech.service import WHISPERX, with_diarizer

# Of three and a half seconds that would be left, where this was measured.
LEFT_SECONDS_MAX = 2.0
LONG = {"diarize": "true", "words": "true", **WHISPERX.long_fields}


# By signals and clients


@pytest.fixture
def stoppable(tmp_path, diarizer) -> Iterator[SpeechServer]:
    with run_server(with_diarizer(diarizer), tmp_path) as running:
        yield running


@contextmanager
def streaming(server: SpeechServer, seconds: float) -> Iterator[Iterator[dict]]:
    """Ask for everything about a long recording; gives the events as they come."""
    with httpx.stream(
        "POST",
        server.url + "/transcribe",
        files={"file": ("long.wav", long_recording(seconds))},
        data=LONG | {"stream": "true"},
        timeout=60,
    ) as response:
        lines = response.iter_lines()
        yield (json.loads(line.removeprefix("data: ")) for line in lines if line[:5] == "data:")


def until_phase(events: Iterator[dict], phase: str) -> None:
    """Read as far as a phase has begun."""
    for event in events:
        if event.get("phase") == phase:
            return
    raise AssertionError(f"the stream ended before {phase}")


def test_who_leaves_gives_the_work_up_and_sigterm_does_not(stoppable):
    """In the last phase, which cannot be cut in pieces of our own; what waits is done as well."""
    seconds = WHISPERX.long_seconds
    with streaming(stoppable, seconds) as events:
        until_phase(events, "diarize")
        assert stoppable.is_busy()
    stoppable.await_busy(False, LEFT_SECONDS_MAX)

    with streaming(stoppable, WHISPERX.shorter_seconds) as events:
        until_phase(events, "transcribe")
        stoppable.terminate()
        *_, last = events
    stoppable.process.wait(STOP_SECONDS_MAX)

    assert last["type"] == "done"
    assert last["warnings"] == []
    assert last["transcript"].startswith(WORDS)
    assert all(segment["words"] and segment["speaker"] for segment in last["segments"])
    assert last["duration"] == WHISPERX.shorter_seconds


# Out of memory

ERRORS = [
    pytest.param(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate"), id="of a GPU"),
    pytest.param(MemoryError(), id="of the machine"),
    pytest.param(RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"), id="another failure"),
]


def failing(error: Exception) -> Callable[..., None]:
    def fail(*_: object, **__: object) -> None:
        raise error

    return fail


def expect_the_inside_is_not_told(response: httpx.Response) -> None:
    assert "CUDA" not in response.text
    assert "CUDNN" not in response.text


@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize(
    ("place", "warning"),
    [
        ("services.whisperx.aligners.Aligners.load", "no_aligner"),
        ("services.whisperx.engine.align", "alignment_failed"),
        ("services.whisperx.engine.Diarizer", "speakers_unavailable"),
        ("services.diarization.diarizer.Diarizer.diarize", "speakers_failed"),
    ],
)
async def test_a_failure_after_the_words_keeps_the_words(
    tmp_path, diarizer, monkeypatch, place, warning, error
):
    """Loading an aligner or a pipeline, and working with it; the next request has everything."""
    async with client_of(tmp_path, DIAR_MODEL=str(diarizer)) as client:
        with monkeypatch.context() as patch:
            patch.setattr(place, failing(error))
            response = await transcribe(client, diarize="true", words="true")
        after = (await transcribe(client, diarize="true", words="true")).json()
    body = response.json()

    assert (response.status_code, body["transcript"]) == (200, WORDS)
    without_words = warning in {"no_aligner", "alignment_failed"}
    assert [each["code"] for each in body["warnings"]] == [
        warning,
        *(["speakers_by_passage"] if without_words else []),
    ]
    expect_the_inside_is_not_told(response)
    assert all(bool(segment["words"]) != without_words for segment in body["segments"])
    assert {segment["speaker"] for segment in body["segments"]} == (
        {"SPEAKER_00"} if without_words else {None}
    )
    assert after["warnings"] == []
    assert all(segment["words"] and segment["speaker"] for segment in after["segments"])


async def test_passages_that_were_aligned_before_keep_their_times(tmp_path, monkeypatch):
    """Memory ends half way: what was found until then is worth telling."""
    done = []

    def align(*arguments):
        if done:
            raise torch.OutOfMemoryError("CUDA out of memory")
        done.append(alignment.align(*arguments))
        return done[0]

    monkeypatch.setattr("services.whisperx.engine.align", align)
    thrice = encode(np.tile(recording_samples(), 3), "wav", "pcm_s16le")
    async with client_of(tmp_path) as client:
        body = (await transcribe(client, thrice, words="true", **WHISPERX.long_fields)).json()
    aligned = [bool(segment["words"]) for segment in body["segments"]]

    assert body["transcript"].startswith(WORDS)
    assert len(body["transcript"].split()) >= 2 * len(WORDS.split())
    assert [each["code"] for each in body["warnings"]] == ["alignment_failed"]
    assert aligned[0]
    assert not aligned[-1]


@pytest.mark.parametrize("error", ERRORS)
async def test_without_words_there_is_nothing_to_keep(tmp_path, monkeypatch, error):
    """The model itself failed: 500, and trying again is in vain."""
    async with client_of(tmp_path) as client:
        with monkeypatch.context() as patch:
            patch.setattr("services.whisperx.hearing.Hearing._transcribe", failing(error))
            response = await transcribe(client)
        after = await transcribe(client)

    told = "engine_failed" if "CUDNN" in str(error) else "out_of_memory"
    assert code(response) == (500, told)
    assert response.headers["x-should-retry"] == "false"
    expect_the_inside_is_not_told(response)
    assert after.json()["transcript"] == WORDS


async def test_speakers_alone_that_cannot_be_told_are_a_refusal(tmp_path, diarizer, monkeypatch):
    """Nothing is left without them."""
    own = {"DIAR_MODEL": str(diarizer)}
    async with client_of(tmp_path, **own) as client:
        monkeypatch.setattr(
            "services.diarization.diarizer.Diarizer.diarize", failing(MemoryError())
        )
        response = await client.post("/v1/audio/diarization", files={"file": ("a.wav", RECORDING)})

    assert code(response) == (503, "speakers_unavailable")
    assert "out of memory" in response.json()["detail"]
    assert response.headers["x-should-retry"] == "false"


async def test_a_recording_too_long_for_speakers_keeps_its_words(tmp_path: Path, diarizer: Path):
    """The operator's limit: memory grows with the square of the length."""
    own = {"DIAR_MODEL": str(diarizer), "DIAR_MAX_SECONDS": "3"}
    async with client_of(tmp_path, **own) as client:
        body = (await transcribe(client, diarize="true")).json()

    [warning] = body["warnings"]
    assert body["transcript"] == WORDS
    assert warning["code"] == "speakers_unavailable"
    assert "longer than 3 s (DIAR_MAX_SECONDS)" in warning["message"]
