"""services/voxtral under the `runpod` package's own worker SDK, unmodified, beside its HTTP routes.

Both ways lead to one handler: they owe the same answers to the same inputs.
"""

import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load_file, save_file

from services.voxtral.answers import Answer
from tests.services.speech_server import (
    ROOT,
    STOP_SECONDS_MAX,
    SpeechServer,
    SpeechService,
)
from tests.speech.runpod_broker import Broker, run_broker
from tests.speech.voices import SENTENCES, converse_in_sentences
from tests.speech.voxtral_service import (
    LONG_SECONDS,
    SHORT_INPUT,
    ask,
    in_base64,
    long_input,
    voxtral_service,
)

PING = {"ping": True}
EVERYTHING = {"task": "transcribe_diarized", "summary": True, "sentiment": True, "language": "en"}

Told = dict[str, Any]  # `output`, or `error` for people
Entry = Callable[[dict[str, Any]], Told]


@contextmanager
def run_worker(
    service: SpeechService, broker: Broker, folder: Path
) -> Iterator[subprocess.Popen[bytes]]:
    """Run the service as the platform does, until the block ends."""
    base = {"PATH": os.environ["PATH"], "TMPDIR": str(folder), "HOME": str(folder)}
    with (folder / "worker.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, *service.arguments],
            cwd=ROOT,
            env=base | service.environment | broker.environment(),
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    watch = threading.Thread(target=lambda: (process.wait(), broker.worker_ended()))
    watch.start()
    try:
        yield process
    finally:
        broker.close()  # the SDK ends once its polls have
        process.terminate()
        try:
            process.wait(STOP_SECONDS_MAX)
        finally:
            process.kill()
            watch.join()
    assert broker.complaints == []


@pytest.fixture(scope="module")
def worker_folder(tmp_path_factory) -> Path:
    """Where the worker's log is."""
    return tmp_path_factory.mktemp("worker")


@pytest.fixture(scope="module")
def broker(worker_folder, voxtral_model, diarizer) -> Iterator[Broker]:
    """A broker with a worker, which each test leaves without a job."""
    service = voxtral_service(voxtral_model, diarizer)
    with run_broker() as running, run_worker(service, running, worker_folder):
        yield running


@pytest.fixture
def by_runpod(broker: Broker) -> Entry:
    return lambda given: broker.await_result(broker.submit(given))


@pytest.fixture
def by_http(voxtral: SpeechServer) -> Entry:
    def run(given: dict[str, Any]) -> Told:
        told = ask(voxtral, "POST", "runsync", json={"input": given})
        return {name: told[name] for name in ("output", "error") if name in told}

    return run


# The first thing of all


def test_a_ping_loads_no_model(broker, by_runpod):
    """Nor do polls that bring no job; RunPod sees that the worker lives."""
    broker.refusals += [204, 400, 429]
    output = by_runpod(PING)["output"]

    assert (output["pong"], output["model_resident"]) == (True, False)
    assert not broker.refusals
    broker.await_ping(lambda query: query["runpod_version"] != "")


# One contract, two entries


@pytest.fixture(params=["by_http", "by_runpod"])
def entry(request) -> Entry:
    """Each way to ask."""
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="module")
def recording() -> str:
    """Two voices that take turns."""
    return in_base64(converse_in_sentences(sentences=SENTENCES[:4]).to_wav())


def test_a_ping_is_answered(entry):
    """By both in the same words."""
    output = entry(PING)["output"]

    assert set(output) == {"pong", "model", "model_resident"}
    assert output["pong"] is True


def test_the_words_come(entry, spoken):
    """With the keys of both older workers; what was not asked for is null."""
    told = entry(SHORT_INPUT)
    output = told["output"]

    assert set(told) == {"output"}
    assert set(output) == set(Answer.model_fields)
    assert output["transcript"] == spoken
    assert output["segments"] == output["transcriptions"]
    assert (output["summary"], output["sentiment"], output["warnings"]) == (None, None, [])


BAD = {
    "nothing": ({}, "input: give the recording"),
    "no base64": ({"audio_base64": "?"}, "audio_base64: "),
    "no audio": ({"audio_base64": in_base64(b"%PDF-1.7 and so on")}, "audio_base64: "),
    "no such task": ({**SHORT_INPUT, "task": "sing"}, "task: "),
    "no such language": ({**SHORT_INPUT, "language": "Klingon"}, "language: "),
    "nobody answers": ({"audio_url": "http://127.0.0.1:9/a.wav"}, "audio_url: "),
    "another scheme": ({"audio_url": "file:///etc/passwd"}, "audio_url: "),
}


@pytest.mark.parametrize(("given", "reason"), BAD.values(), ids=BAD)
def test_bad_input_is_an_error_for_people(entry, given, reason):
    """A line that names the field, in place of an output; no traceback."""
    told = entry(given)

    assert set(told) == {"error"}
    assert told["error"].startswith(reason)
    assert "Traceback" not in told["error"]


@pytest.mark.parametrize(
    "fields", [{}, {"task": "summary"}, EVERYTHING], ids=["words", "summary", "everything"]
)
def test_both_answer_alike(by_http, by_runpod, recording, fields):
    """The same output, but for the seconds that it took."""
    answers = [ask_for({"audio_base64": recording, **fields}) for ask_for in (by_http, by_runpod)]
    by_one, by_other = (
        told["output"] | {"processing_time": 0 < told["output"]["processing_time"]}
        for told in answers
    )

    assert by_one == by_other
    assert by_one["transcript"]


# While a job runs


def test_progress_comes_before_the_result(broker):
    """As updates of a job that goes on, each with how far it is."""
    job = broker.submit(long_input())
    result = broker.await_result(job)
    *updates, last = broker.told(job)
    told = [update.body["output"] for update in updates]

    assert told
    assert all(update.body.keys() == {"status", "output"} for update in updates)
    assert all(update.is_update for update in updates)
    assert all(set(each) == {"phase", "percent"} for each in told)
    assert {each["phase"] for each in told} <= {"load", "transcribe"}
    assert last.body is result
    assert result["output"]["duration"] == pytest.approx(LONG_SECONDS, abs=1)


def test_a_quick_job_tells_no_progress(broker):
    """What is told beside the result might come after it."""
    job = broker.submit(SHORT_INPUT)
    result = broker.await_result(job)
    after = broker.submit(PING)
    broker.await_result(after)

    assert [post.body for post in broker.told(job)] == [result]


def test_a_stopped_job_is_given_up_and_the_next_one_taken(broker, worker_folder, spoken):
    """It is never done, and nothing is told of it any more."""
    seconds = LONG_SECONDS - 60  # which no other test has
    job = broker.submit(long_input(seconds))
    broker.await_update(job)
    broker.stop(job)
    result = broker.await_result(broker.submit(SHORT_INPUT))

    assert result["output"]["transcript"] == spoken
    assert all(post.is_update for post in broker.told(job))
    assert f"audio_seconds={seconds}" not in (worker_folder / "worker.log").read_text()


def test_what_was_said_is_not_logged(worker_folder, by_runpod, spoken):
    """Nor what was sent: by default the SDK logs results."""
    by_runpod(SHORT_INPUT)
    logged = (worker_folder / "worker.log").read_text()

    assert "done task=transcribe" in logged
    assert spoken not in logged
    assert SHORT_INPUT["audio_base64"][:100] not in logged


# How a worker ends


def test_sigterm_finishes_the_running_job(tmp_path, voxtral_model, diarizer, spoken):
    """Its result is posted, no other job is taken, and the process ends well."""
    with run_broker() as broker:
        service = voxtral_service(voxtral_model, diarizer)
        with run_worker(service, broker, tmp_path) as process:
            job = broker.submit(long_input(600))
            broker.await_update(job)
            process.terminate()
            result = broker.await_result(job)
            left = broker.submit(SHORT_INPUT)
            broker.close()
            status = process.wait(STOP_SECONDS_MAX)

    assert result["output"]["transcript"].startswith(spoken)
    assert status == 0
    assert broker.told(left) == []


@pytest.fixture
def huge_model(tmp_path: Path, voxtral_model: Path) -> Path:
    """The tiny model, with layers of more weights than any machine's memory holds.

    Those are not in its file, so the library makes them.
    """
    folder = tmp_path / "huge"
    shutil.copytree(voxtral_model, folder)
    described = json.loads((folder / "config.json").read_text())
    described["text_config"]["intermediate_size"] = 10**12
    (folder / "config.json").write_text(json.dumps(described))
    weights = load_file(folder / "model.safetensors")
    kept = {name: each for name, each in weights.items() if ".mlp." not in name}
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def test_out_of_memory_ends_the_worker(tmp_path, huge_model, diarizer):
    """The job fails with a reason, and RunPod is asked for another worker: never tried for ever."""
    with run_broker() as broker:
        with run_worker(voxtral_service(huge_model, diarizer), broker, tmp_path):
            result = broker.await_result(broker.submit(SHORT_INPUT))

    assert result["stopPod"] is True
    assert result["error"].startswith("out of memory: ")
    assert str(tmp_path) not in result["error"]
