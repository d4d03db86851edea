"""Voxtral by vLLM, over HTTP: what is asked, what is made of the answers, what goes wrong."""

import socket
import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest
from yarl import URL

from services.transcription.errors import EngineError, InvalidRequest
from services.transcription.worker import Cancellation, Cancelled
from services.voxtral import vllm_http
from services.voxtral.model import Model, Samples, Written
from services.voxtral.on_vllm import Loader, OnVllm
from services.voxtral.settings import Settings
from services.voxtral.vllm_http import Vllm
from tests.services.vllm_stub import (
    AUDIO_SECONDS_MAX,
    MODEL,
    OUT_OF_MEMORY,
    SECONDS_MAX,
    StubVllm,
)

SCHEMA = {
    "type": "object",
    "properties": {"score": {"type": "number"}, "sentiment": {"enum": ["neutre", "positif"]}},
    "required": ["score", "sentiment"],
}


@pytest.fixture
def stub() -> Iterator[StubVllm]:
    with StubVllm().running() as running:
        yield running


def settings(stub: StubVllm, **others: object) -> Settings:
    return Settings(voxtral_engine="vllm", vllm_url=stub.url, **others)


def load(stub: StubVllm, **others: object) -> OnVllm:
    return Loader(settings(stub, **others), {})(never)


def never() -> None:
    """Give nothing up."""


def piece(number: int) -> Samples:
    """Give what the stub hears as "piece NUMBER"."""
    return np.full(1600, number, np.int16)


def transcribe(model: Model, count: int = 1, **others: object) -> list[tuple[int, Written]]:
    reported: list[tuple[int, Written]] = []
    wanted: dict[str, object] = {"language": None, "tokens_max": 100, "check": never}
    model.transcribe(
        [piece(number) for number in range(count)],
        report=lambda number, written: reported.append((number, written)),
        **(wanted | others),
    )
    return reported


def chat(model: Model, **others: object) -> Written:
    wanted: dict[str, object] = {"tokens_max": 50, "schema": None, "again": False, "check": never}
    return model.chat("Résume.", **(wanted | others))


# What is asked


def test_a_piece_is_sent_as_a_small_recording(stub):
    """Nothing else is asked than what vLLM knows, and chance has no part in it."""
    transcribe(load(stub), language="fr", tokens_max=42)

    assert stub.state.asked == [
        {
            "model": MODEL,
            "file": "audio.wav",
            "language": "fr",
            "response_format": "json",
            "stream": "true",
            "temperature": "0",
            "max_completion_tokens": "42",
        }
    ]


def test_no_language_is_left_out(stub):
    """Then the model hears which it is."""
    transcribe(load(stub))

    assert "language" not in stub.state.asked[0]


def test_a_prompt_is_sent_as_a_conversation(stub):
    """The first answer is the likeliest."""
    chat(load(stub))

    assert stub.state.asked == [
        {
            "model": MODEL,
            "messages": [{"role": "user", "content": "Résume."}],
            "max_tokens": 50,
            "temperature": 0,
        }
    ]


def test_another_answer_is_asked_for_with_chance(stub):
    """Else it would be the same again."""
    chat(load(stub), again=True)

    asked = stub.state.asked[0]
    assert (asked["temperature"], asked["top_p"]) == (0.2, 0.95)


def test_a_schema_is_enforced(stub):
    """The answer conforms to it, whatever the model would have written."""
    written = chat(load(stub), schema=SCHEMA)

    assert written == Written('{"score": 0.5, "sentiment": "neutre"}', complete=True)
    assert stub.state.asked[0]["response_format"]["json_schema"]["strict"] is True


@pytest.mark.parametrize(
    ("served", "wanted", "name"),
    [
        pytest.param(MODEL, MODEL, MODEL, id="its own"),
        pytest.param("voxtral", MODEL, "voxtral", id="another"),
    ],
)
def test_the_model_has_the_name_that_the_server_gives_it(served, wanted, name):
    """Who runs the server may have named it."""
    with StubVllm(name=served).running() as stub:
        transcribe(load(stub, voxtral_model=wanted))

        assert stub.state.asked[0]["model"] == name


def test_a_server_that_lists_no_models_is_asked_for_ours(stub):
    """A proxy before it may pass on nothing but what it was told to."""
    stub.state.plan.append("status 404")
    transcribe(load(stub))

    assert stub.state.asked[0]["model"] == MODEL


@pytest.mark.parametrize("end", ["", "/", "/v1", "/v1/"])
def test_the_address_may_be_that_of_the_api(stub, end):
    """OpenAI's clients want it with /v1."""
    model = Loader(Settings(vllm_url=stub.url + end), {})(never)

    assert transcribe(model) == [(0, Written("piece 0", complete=True))]


def test_a_password_in_the_address_is_shown_to_nobody(stub):
    """The address is shown as the model's device."""
    with_password = stub.url.replace("http://", "http://me:sesame@")

    assert load(stub).device == stub.url
    assert Loader(Settings(vllm_url=with_password), {})(never).device == stub.url


def test_the_longest_recording_is_a_bug(stub):
    """Pieces are of half a minute: what vLLM would refuse is not made."""
    model = load(stub)
    long = np.zeros(AUDIO_SECONDS_MAX * 16000 + 1, np.int16)
    with pytest.raises(AssertionError):
        model.transcribe([long], language=None, tokens_max=9, check=never, report=print)

    assert stub.state.asked == []


# What is made of the answers


def test_pieces_are_written_down(stub):
    """Each with its own number."""
    assert transcribe(load(stub), 3) == [
        (number, Written(f"piece {number}", complete=True)) for number in range(3)
    ]


def test_no_pieces_are_no_work(stub):
    """A silent recording has none."""
    assert transcribe(load(stub), 0) == []
    assert stub.state.asked == []


@pytest.mark.parametrize(
    ("says", "tokens_max", "written"),
    [
        pytest.param("un deux trois", 3, Written("un deux trois", complete=True), id="just fits"),
        pytest.param("un deux trois", 2, Written("un deux", complete=False), id="cut off"),
        pytest.param("", 2, Written("", complete=True), id="nothing"),
        pytest.param("à l\u2028été\r\n", 9, Written("à l été", complete=True), id="odd letters"),
    ],
)
def test_a_text_that_was_cut_off_is_told(stub, says, tokens_max, written):
    """By the server, not by counting."""
    stub.state.says = says
    model = load(stub)

    assert transcribe(model, tokens_max=tokens_max) == [(0, written)]
    assert chat(model, tokens_max=tokens_max).complete == written.complete


def test_pieces_are_reported_in_order(stub):
    """A later one that is ready sooner waits; an earlier one does not."""
    stub.state.held = {"piece 1"}
    model = load(stub)
    reported: list[int] = []
    first = threading.Event()

    def report(number: int, _written: Written) -> None:
        reported.append(number)
        first.set()

    working = threading.Thread(
        target=model.transcribe,
        args=[[piece(0), piece(1), piece(2)]],
        kwargs={"language": None, "tokens_max": 9, "check": never, "report": report},
    )
    working.start()
    stub.until(lambda state: {"piece 0", "piece 2"} <= set(state.answered))
    assert first.wait(SECONDS_MAX)
    before = list(reported)
    stub.release()
    working.join(SECONDS_MAX)

    assert before == [0]
    assert reported == [0, 1, 2]


@pytest.mark.parametrize(("asked", "at_once"), [(0, 8), (3, 3), (1, 1)])
def test_no_more_pieces_than_wanted_are_worked_on_at_once(stub, asked, at_once):
    """VOXTRAL_BATCH_SIZE says how many."""
    stub.state.held = {"all"}
    model = load(stub, voxtral_batch_size=asked)
    working = threading.Thread(target=transcribe, args=[model, 12])
    working.start()
    stub.until(lambda state: state.at_once == at_once)
    stub.release()
    working.join(SECONDS_MAX)

    assert stub.state.most_at_once == at_once
    assert len(stub.state.answered) == 12


# Giving up


@pytest.mark.parametrize("work", [transcribe, chat])
def test_work_that_is_given_up_ends_soon_there_too(stub, work):
    """The connection is closed, and vLLM generates no more."""
    stub.state.held = {"all"}
    model = load(stub)
    cancellation = Cancellation()
    given_up = threading.Thread(
        target=lambda: (
            stub.until(lambda state: state.at_once > 0),
            cancellation.cancel(),
        )
    )
    given_up.start()
    began = time.monotonic()
    with pytest.raises(Cancelled):
        work(model, check=cancellation.check)
    seconds = time.monotonic() - began
    given_up.join(SECONDS_MAX)
    stub.until(lambda state: state.at_once == 0)

    assert len(stub.state.aborted) == 1
    assert seconds < 1


def test_all_pieces_are_given_up(stub):
    """Those that wait are never sent, and nothing is reported."""
    stub.state.held = {"all"}
    model = load(stub, voxtral_batch_size=3)
    cancellation = Cancellation()

    def check() -> None:
        if stub.state.at_once == 3:
            cancellation.cancel()
        cancellation.check()

    with pytest.raises(Cancelled):
        transcribe(model, 9, check=check)
    stub.until(lambda state: state.at_once == 0)

    assert len(stub.state.aborted) == 3
    assert len(stub.state.asked) == 3


def test_work_that_is_given_up_before_it_begins_is_not_begun(stub):
    """Nothing is sent."""
    model = load(stub)
    cancellation = Cancellation()
    cancellation.cancel()
    with pytest.raises(Cancelled):
        chat(model, check=cancellation.check)

    assert stub.state.asked == []


# What goes wrong


def test_an_unknown_language_is_the_clients_fault(stub):
    """The client is told in vLLM's words, in one line."""
    with pytest.raises(
        InvalidRequest, match=r"Unsupported language: 'xx'\. Must be one"
    ) as refused:
        transcribe(load(stub), language="xx")

    assert "\n" not in refused.value.message
    assert len(refused.value.message) < 400


def test_a_refusal_after_the_answer_began_is_the_clients_fault(stub):
    """A stream's status is sent before its model has read the prompt."""
    model = load(stub)
    stub.state.plan.append("fails while answering 400 the prompt is too long")
    with pytest.raises(InvalidRequest, match="the model refuses: the prompt is too long"):
        transcribe(model)


@pytest.mark.parametrize(
    ("trouble", "told"),
    [
        pytest.param("Internal server error", "vLLM failed", id="a failure"),
        pytest.param("status 502", "vLLM failed", id="a proxy's failure"),
        pytest.param("status 404", "vLLM failed", id="no such route"),
        pytest.param("breaks", "vLLM does not answer", id="no answer"),
        pytest.param("breaks while answering", "vLLM does not answer", id="half an answer"),
        pytest.param("fails while answering 500 Oh", "vLLM failed", id="a failure in a stream"),
        pytest.param("says ", "vLLM failed", id="an empty answer"),
        pytest.param("says {", "vLLM failed", id="no JSON"),
        pytest.param("says []", "vLLM failed", id="another JSON"),
        pytest.param("says data: {\n\n", "vLLM failed", id="no JSON in a stream"),
        pytest.param("says data: [DONE]\n\n", "vLLM failed", id="an end without a reason"),
        pytest.param("floods", "vLLM failed", id="an endless answer"),
    ],
)
@pytest.mark.parametrize("work", [transcribe, chat])
def test_a_failure_is_told_and_nothing_is_done_twice(
    stub, monkeypatch, caplog, work, trouble, told
):
    """The client learns what it may, the log has the rest, and the request was sent once."""
    monkeypatch.setattr(vllm_http, "ANSWER_BYTES_MAX", 4 * 1024 * 1024)
    model = load(stub)
    stub.state.plan.append(trouble)
    with pytest.raises(EngineError) as failed:
        work(model)

    assert failed.value.code == "engine_failed"
    assert failed.value.message == f"{told}, see the service's log"
    assert "vllm failed exit_status=None reason=" in caplog.text
    assert len(stub.state.asked) == 1


def test_a_redirect_is_not_followed(stub):
    """Recordings go where the operator said, and nowhere else."""
    model = load(stub)
    stub.state.plan.append("redirects")
    with pytest.raises(EngineError, match="vLLM failed"):
        transcribe(model)

    assert stub.state.paths == ["/v1/models", "/v1/audio/transcriptions"]


def test_out_of_memory_is_told_as_such(stub):
    """It is terminal: the same recording would be too long again."""
    model = load(stub)
    stub.state.plan.append(OUT_OF_MEMORY)
    with pytest.raises(EngineError, match="out of memory") as failed:
        transcribe(model)

    assert failed.value.code == "out_of_memory"
    assert "GPU 0" not in failed.value.message


def test_one_piece_that_fails_gives_up_the_others(stub):
    """Their texts would be thrown away."""
    stub.state.held = {"all"}
    model = load(stub, voxtral_batch_size=3)
    stub.state.plan.extend([None, None, "Oh"])
    with pytest.raises(EngineError):
        transcribe(model, 9)
    stub.until(lambda state: state.at_once == 0)

    assert len(stub.state.aborted) == 2
    assert len(stub.state.asked) == 3


def test_the_next_request_after_a_failure_is_answered(stub):
    """A server elsewhere is not ours to start anew."""
    model = load(stub)
    stub.state.plan.append("breaks")
    with pytest.raises(EngineError):
        transcribe(model)

    assert model.alive
    assert transcribe(model) == [(0, Written("piece 0", complete=True))]


def test_a_server_that_falls_silent_is_not_waited_for_for_ever(stub):
    """The deadline is of each request."""
    model = OnVllm(Vllm(URL(stub.url), answer_seconds_max=0.3), MODEL, settings(stub))
    stub.state.plan.append("falls silent")
    with pytest.raises(EngineError, match="vLLM failed"):
        transcribe(model)


def test_a_server_that_has_gone_is_a_failure(stub):
    """Nobody listens where it was."""
    with StubVllm().running() as gone:
        model = load(gone)
    with pytest.raises(EngineError, match="vLLM does not answer, see the service's log") as failed:
        transcribe(model)

    assert failed.value.code == "engine_failed"


# Loading


def test_a_server_elsewhere_that_nobody_runs_cannot_be_loaded(caplog):
    """The client is not told where it was looked for; the log says it."""
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with pytest.raises(EngineError) as failed:
        Loader(Settings(vllm_url=f"http://me:sesame@127.0.0.1:{port}"), {})(never)

    assert failed.value.code == "load_failed"
    assert failed.value.message == "the vLLM of VLLM_URL fails, see the service's log"
    assert f"url=http://127.0.0.1:{port}" in caplog.text
    assert "sesame" not in caplog.text


def test_a_server_elsewhere_that_wants_a_key_cannot_be_loaded(caplog):
    """The log says so."""
    with StubVllm(key="sesame").running() as stub, pytest.raises(EngineError):
        load(stub)

    assert "status 401" in caplog.text


@pytest.mark.parametrize("url", ["vllm:8000", "ftp://vllm", "http://", "http://[::1", "8000"])
def test_what_is_no_address_is_told(url):
    """By the name of the setting."""
    with pytest.raises(EngineError, match="VLLM_URL"):
        Loader(Settings(vllm_url=url), {})(never)


def test_loading_may_be_given_up():
    """By the job that wanted it."""
    cancellation = Cancellation()
    cancellation.cancel()
    with pytest.raises(Cancelled):
        Loader(Settings(vllm_url="http://127.0.0.1:9"), {})(cancellation.check)
