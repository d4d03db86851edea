"""The real library and a tiny real model: what no other service has."""

import io
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import numpy as np
import pytest

from services.faster_whisper.engine import WhisperEngine, _failure
from services.faster_whisper.library import Library
from services.faster_whisper.settings import WhisperSettings
from services.transcription.audio import Recording
from services.transcription.errors import EngineError, InvalidRequest
from services.transcription.form import TranscriptionRequest, VadTuning
from services.transcription.worker import Cancellation, Cancelled
from tests.services.sounds import (
    FRENCH_RECORDING,
    RECORDING,
    SAMPLE_RATE,
    WORDS,
    encode,
    recording_samples,
)
from tests.services.speech_server import DIGITS, FASTER_WHISPER, run_server


def engine_of(**settings) -> WhisperEngine:
    known = {"model": str(DIGITS / "model"), "inference_device": "cpu"}
    whisper = WhisperSettings(**known | settings)
    return WhisperEngine(whisper, Library(whisper), audio_seconds_max=1000)


@pytest.fixture(scope="module")
def engine() -> WhisperEngine:
    return engine_of()


@pytest.fixture(scope="module")
def batched() -> WhisperEngine:
    """Works on several windows of a long recording at once, as a GPU does by default."""
    return engine_of(batch_size=4)


def transcribe(engine: WhisperEngine, recording: bytes, report=lambda _: None, **changes):
    request = TranscriptionRequest(**{"model": "model"} | changes)
    return engine.transcribe(Recording(io.BytesIO(recording)), request, Cancellation(), report)


def test_the_words_language_and_length_are_told(engine):
    """Of the recording as it was sent."""
    transcript = transcribe(engine, RECORDING)

    assert (transcript.text, transcript.language) == (WORDS, "en")
    assert transcript.duration_seconds == len(recording_samples()) / SAMPLE_RATE


def test_a_given_language_is_not_detected(engine):
    """The client knows better."""
    assert transcribe(engine, FRENCH_RECORDING, language="en").language == "en"


def test_a_language_that_the_model_lacks_is_refused(engine):
    """The list is that of this model, not that of all of Whisper."""
    with pytest.raises(InvalidRequest, match=r"'de' is not known.*: en \(english\), fr \(french\)"):
        transcribe(engine, RECORDING, language="de")


def test_words_on_both_sides_of_a_cut_are_heard(engine):
    """A long recording is worked on in stretches; none of its words is lost or doubled."""
    silence = np.zeros(299 * SAMPLE_RATE, dtype=np.int16)
    samples = np.concatenate([recording_samples(), silence, recording_samples(), silence[:640_000]])
    transcript = transcribe(engine, encode(samples, "flac", "flac"))

    assert transcript.text == f"{WORDS} {WORDS}"


def test_the_language_is_that_of_the_first_words(engine):
    """Silence at the beginning has no language, whatever the model guesses."""
    samples = recording_samples()
    silence = np.zeros(340 * SAMPLE_RATE, dtype=np.int16)
    transcript = transcribe(engine, encode(np.concatenate([silence, samples]), "flac", "flac"))

    assert (transcript.text, transcript.language) == (WORDS, "en")


def test_a_cancelled_job_ends_before_the_words(engine):
    """Whether it was cancelled while decoding or before."""
    cancellation = Cancellation()
    cancellation.cancel()

    with pytest.raises(Cancelled):
        engine.transcribe(
            Recording(io.BytesIO(RECORDING)),
            TranscriptionRequest(model="model"),
            cancellation,
            lambda _: None,
        )


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (RuntimeError("CUDA failed with error out of memory"), "out_of_memory"),
        (MemoryError(), "out_of_memory"),
        (RuntimeError("cuBLAS failed with status CUBLAS_STATUS_EXECUTION_FAILED"), "engine_failed"),
    ],
)
def test_a_failure_of_the_model_is_final(error, code):
    """Retries would fail alike, so the client is told not to; the inside stays in the log."""
    failure = _failure(error)

    assert (failure.code, failure.status, failure.worth_retrying) == (code, 500, False)
    assert "CUBLAS" not in failure.message


# Without a network


@contextmanager
def watched_hub() -> Iterator[tuple[str, socket.socket]]:
    """An address for the Hub where nobody answers, but calls are noticed."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", listener


def cache_model(home: Path, name: str) -> None:
    """Put the tiny model where the Hub's client would have put it."""
    cached = home / ".cache/huggingface/hub" / f"models--{name.replace('/', '--')}"
    shutil.copytree(DIGITS / "model", cached / "snapshots/abc")
    (cached / "refs").mkdir()
    (cached / "refs/main").write_text("abc")


@pytest.mark.parametrize("where", ["folder", "cache"])
def test_a_model_that_is_here_needs_no_network(tmp_path, where):
    """Neither a local folder nor a name that was fetched before makes a call."""
    cache_model(tmp_path, "somebody/whisper")
    model = {"folder": str(DIGITS / "model"), "cache": "somebody/whisper"}[where]
    with watched_hub() as (address, listener):
        environment = {"WHISPER__MODEL": model, "HF_ENDPOINT": address}
        with run_server(FASTER_WHISPER, tmp_path, environment) as server:
            answer = httpx.post(
                server.transcriptions,
                files={"file": ("a.wav", RECORDING)},
                data={"model": "whisper-1"},
                timeout=60,
            )

        assert answer.json()["text"] == WORDS
        with pytest.raises(BlockingIOError):
            listener.accept()
