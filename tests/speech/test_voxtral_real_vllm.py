"""A real vLLM, started as the service starts it, takes what we ask, and answers as we read it."""

import json
import os
import re
import shutil
import socket
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest

from services.transcription.errors import EngineError, InvalidRequest
from services.transcription.worker import Cancellation, Cancelled
from services.voxtral.answers import Sentiment
from services.voxtral.model import Samples, Written
from services.voxtral.on_vllm import Loader, OnVllm
from services.voxtral.settings import Settings
from tests.speech.mistral_maker import make_mistral

pytestmark = [
    pytest.mark.skipif(
        shutil.which("vllm") is None, reason="no program vllm on PATH (pip install vllm[audio])"
    ),
    pytest.mark.timeout(600),  # it takes a minute to start on a CPU
]

HEARD = Written("bonjour ceci est un essai", complete=True)
# For a build of vLLM for CPUs, on a small machine.
SMALL = {
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "OMP_NUM_THREADS": "1",
    "HF_HUB_OFFLINE": "1",
}
SCHEMA = Sentiment.model_json_schema()


@pytest.fixture(scope="module")
def model(voxtral_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OnVllm]:
    folder = tmp_path_factory.mktemp("vllm") / "tiny"
    make_mistral(voxtral_model, folder)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    settings = Settings(
        voxtral_engine="vllm",
        voxtral_model=str(folder),
        vllm_port=port,
        vllm_start_seconds=500,
        vllm_args="--max-model-len 4096 --enforce-eager --gpu-memory-utilization 0.3",
    )
    loader = Loader(settings, os.environ | SMALL)
    try:
        loaded = loader(lambda: None)
    finally:
        loader.close()
    yield loaded
    loaded.close()
    with socket.socket() as client:
        assert client.connect_ex(("127.0.0.1", port)) != 0, "it still listens"


def noise(seconds: float) -> Samples:
    return np.random.default_rng(7).integers(-3000, 3000, round(seconds * 16000), np.int16)


def transcribe(
    model: OnVllm,
    pieces: list[Samples],
    *,
    language: str | None = None,
    tokens_max: int = 100,
    cancellation: Cancellation | None = None,
) -> list[tuple[int, Written]]:
    reported: list[tuple[int, Written]] = []

    def report(number: int, written: Written) -> None:
        reported.append((number, written))
        if cancellation is not None:
            cancellation.cancel()

    model.transcribe(
        pieces,
        language=language,
        tokens_max=tokens_max,
        check=(cancellation or Cancellation()).check,
        report=report,
    )
    return reported


def chat(model: OnVllm, **others: object) -> Written:
    wanted: dict[str, object] = {"tokens_max": 300, "schema": None, "again": False}
    return model.chat("Comment va le client ?", check=lambda: None, **(wanted | others))


def metric(model: OnVllm, name: str) -> float:
    with urllib.request.urlopen(f"{model.device}/metrics") as answer:
        text = answer.read().decode()
    found = re.findall(rf"^vllm:{name}(?:{{.*}}|) (\S+)$", text, re.MULTILINE)
    assert found, name
    return sum(map(float, found))


def test_pieces_are_heard(model):
    """Of any length, more than fit at once, in order."""
    pieces = [noise(seconds) for seconds in (0.1, 1, 5, 30, 1, 1, 1, 1, 1, 1)]

    assert transcribe(model, pieces) == [(number, HEARD) for number in range(10)]


@pytest.mark.parametrize("language", ["fr", "eu"])
def test_a_language_may_be_given(model, language):
    """Of those that it was made for, and others."""
    assert transcribe(model, [noise(1)], language=language) == [(0, HEARD)]


def test_an_unknown_language_is_refused(model):
    """In vLLM's words."""
    with pytest.raises(InvalidRequest, match="Unsupported language: 'xx'"):
        transcribe(model, [noise(1)], language="xx")


@pytest.mark.parametrize(
    ("tokens_max", "written"), [(5, False), (6, True), (2, False)], ids=["end cut", "whole", "cut"]
)
def test_a_text_that_was_cut_off_is_told(model, tokens_max, written):
    """Its end counts as a token."""
    heard = " ".join(HEARD.text.split()[:tokens_max])

    assert transcribe(model, [noise(1)], tokens_max=tokens_max) == [
        (0, Written(heard, complete=written))
    ]


@pytest.mark.parametrize("again", [False, True])
def test_a_schema_is_enforced(model, again):
    """So that the answer can be read."""
    written = chat(model, schema=SCHEMA, again=again)

    assert written.complete
    assert Sentiment.model_validate(json.loads(written.text))


def test_a_prompt_is_answered(model):
    """And a long answer cut off."""
    assert chat(model).complete
    assert not chat(model, tokens_max=1).complete


def test_a_prompt_that_is_too_long_is_refused(model):
    """In vLLM's words."""
    with pytest.raises(InvalidRequest, match="the model refuses"):
        model.chat("x" * 5000, tokens_max=9, schema=None, again=False, check=lambda: None)


def test_what_is_given_up_is_generated_no_further(model):
    """Those at work are aborted, those that wait are never sent."""
    before = metric(model, "request_success_total")
    cancellation = Cancellation()
    with pytest.raises(Cancelled):
        transcribe(model, [noise(30)] * 100, cancellation=cancellation)
    told = transcribe(model, [noise(1)])

    assert told == [(0, HEARD)]
    assert metric(model, "num_requests_running") == 0
    assert metric(model, "num_requests_waiting") == 0
    assert metric(model, "request_success_total") - before < 50


def test_a_dead_engine_is_noticed(model):
    """The job fails, and the model is to be loaded anew; the last test, for it is none any more."""
    before = model.alive
    processes = psutil.Process(model._server._process.pid).children(recursive=True)
    engines = [each for each in processes if "EngineCore" in " ".join(each.cmdline())]
    engines[0].kill()
    with pytest.raises(EngineError, match="see the service's log") as failed:
        transcribe(model, [noise(30)] * 100)

    assert before
    assert failed.value.code == "engine_failed"
    assert not model.alive
