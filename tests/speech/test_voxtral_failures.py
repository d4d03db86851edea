"""What goes wrong in the engine of services/voxtral: models that fail, clients that leave."""

import time
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch

from services.transcription.errors import EngineError, FetchFailed
from services.transcription.worker import Cancellation, Cancelled
from services.voxtral.model import Written
from services.voxtral.on_transformers import OnTransformers
from tests.services.sounds import RECORDING, SAMPLE_RATE, recording_samples
from tests.speech.voxtral_bench import WORDS, Listening, bench_of, refused, wav
from tests.speech.voxtral_maker import make_voxtral


@pytest.fixture(scope="module")
def loaded(voxtral_model) -> OnTransformers:
    return OnTransformers(voxtral_model, device="cpu", batch_size=2)


# Failures


class Failing(Listening):
    """A model whose work fails."""

    error: Exception

    def transcribe(self, pieces: Any, **options: Any) -> None:
        raise self.error

    def chat(self, prompt: str, **options: Any) -> Written:
        raise self.error


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"), "out_of_memory"),
        (MemoryError(), "out_of_memory"),
        (RuntimeError("shape mismatch"), "engine_failed"),
        (OSError("connection lost"), "engine_failed"),
        (EngineError("vLLM ended", code="vllm"), "vllm"),
    ],
)
def test_a_failure_is_told_in_words_for_clients(loaded, error, code):
    """One that can be told apart from others; it is the end of the job."""
    model = Failing(loaded)
    model.error = error
    told = refused(bench_of(model), RECORDING)

    assert isinstance(told, EngineError)
    assert told.code == code


def test_memory_that_suffices_for_one_piece_suffices(voxtral_model, monkeypatch):
    """Batches become smaller by themselves, and no piece is lost or doubled."""
    model = OnTransformers(voxtral_model, device="cpu", batch_size=8)
    generate = model._model.generate

    def limited(**options):
        if len(options["input_ids"]) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return generate(**options)

    monkeypatch.setattr(model._model, "generate", limited)
    bench = bench_of(Listening(model))
    answer = bench.work(wav(np.resize(recording_samples(), 100 * SAMPLE_RATE)))

    assert len(answer.segments) == len(bench.model.pieces) > 3
    assert answer.segments == bench.segments
    assert all(one.end <= other.start for one, other in pairwise(answer.segments))


class LateCancellation(Cancellation):
    """Gives up after so many checks, and keeps when."""

    def __init__(self, in_prompt: int) -> None:
        super().__init__()
        self.left = in_prompt
        self.at: float | None = None
        self.thread: int | None = None

    def check(self) -> None:
        self.left -= 1
        if self.left == 0:
            self.at = time.monotonic()
            self.cancel()
        super().check()


def test_a_job_that_is_given_up_ends_in_the_middle_of_a_sentence(tmp_path):
    """Within a second, of a sentence that would take the model many."""
    make_voxtral(tmp_path, heard=(" la",), endless=True)
    bench = bench_of(Listening(OnTransformers(tmp_path, device="cpu")))
    counting = LateCancellation(in_prompt=10**9)
    bench.work(RECORDING, counting, max_new_tokens=100)
    checks = 10**9 - counting.left
    # As many again, and then some of the tokens of what is far too long.
    late = LateCancellation(in_prompt=checks + 200)
    with pytest.raises(Cancelled):
        bench.work(RECORDING, late, max_new_tokens=8192)
    assert late.at is not None

    assert time.monotonic() - late.at < 1
    assert bench.work(RECORDING, max_new_tokens=300).transcript.startswith("la la")


# The model's life


def test_a_model_is_loaded_once_and_let_go(loaded):
    """And told of, under the operator's name for it."""
    model = Listening(loaded)
    bench = bench_of(model)
    assert bench.engine.resident() == []
    bench.engine.warm_up()
    assert bench.engine.resident() == []
    bench.engine.load(lambda: None)
    bench.engine.load(lambda: None)
    bench.work(RECORDING)

    assert bench.engine.resident() == ["ada/tiny"]
    assert bench.loads == [("ada/tiny", None)]
    bench.engine.unload()
    bench.engine.unload()
    assert (bench.engine.resident(), model.closed) == ([], 1)
    bench.work(RECORDING)
    assert bench.loads == [("ada/tiny", None)] * 2
    bench.engine.close()
    assert model.closed == 2


@pytest.mark.parametrize(
    ("error", "kind", "code"),
    [
        (OSError("no such file"), EngineError, "load_failed"),
        (ValueError("wrong config"), EngineError, "load_failed"),
        (torch.OutOfMemoryError("CUDA out of memory"), EngineError, "out_of_memory"),
        (FetchFailed("not on the Hub", code="fetch_failed"), FetchFailed, "fetch_failed"),
    ],
)
def test_a_model_that_cannot_be_loaded_is_tried_again(loaded, error, kind, code):
    """By the next job; this one is told why."""
    errors = [error]

    def make_model(_check):
        if errors:
            raise errors.pop()
        return Listening(loaded)

    bench = bench_of(Listening(loaded), make_model)
    with pytest.raises(kind) as caught:
        bench.engine.load(lambda: None)

    assert caught.value.code == code
    assert bench.loads == [("ada/tiny", error)]
    assert bench.engine.resident() == []
    assert bench.work(RECORDING).transcript == WORDS


def test_who_gives_up_during_the_load_gives_up(loaded):
    """It is no failure of the model."""

    def make_model(check):
        check()
        raise AssertionError("it goes no further")

    bench = bench_of(Listening(loaded), make_model)
    cancellation = Cancellation()
    cancellation.cancel()
    with pytest.raises(Cancelled):
        bench.engine.load(cancellation.check)

    assert bench.loads == []


def test_a_model_that_has_died_is_loaded_anew(loaded):
    """As a server may, while this process lives."""
    models = [Listening(loaded), Listening(loaded)]
    left = list(models)
    bench = bench_of(models[0], lambda _check: left.pop(0))
    bench.work(RECORDING)
    models[0].alive = False

    assert bench.work(RECORDING).transcript == WORDS
    assert [len(model.pieces) for model in models] == [1, 1]
    assert models[0].closed == 1
