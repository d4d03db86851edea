"""The line of jobs under way: one after the other, given up when nobody wants them, and never lost.

Where a connection matters the service is a process of its own.
"""

import asyncio
import random
import resource
import socket
import statistics
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from services.transcription.languages import LANGUAGES
from services.transcription.worker import Worker
from services.voxtral.handler import Handler
from services.voxtral.jobs import JobRequest, Policy
from services.voxtral.queue import Queue
from services.voxtral.settings import Settings
from services.voxtral.store import Counts, Store
from tests.services.sites import response, run_site
from tests.services.sounds import RECORDING, long_recording
from tests.services.speech_server import SpeechServer, wait_for
from tests.services.test_voxtral_contract import (
    PING,
    scripted,
    status_of,
    submit,
    until,
    until_begun,
)
from tests.services.voxtral_app import SPOKEN, Script, base64_of, client_of, run_voxtral, spoken

__all__ = ["scripted"]  # a fixture

ENDED = {"COMPLETED", "FAILED", "CANCELLED", "TIMED_OUT"}


def queue_of(client: httpx.AsyncClient) -> Queue:
    """Give the line of a service in this process."""
    transport = client._transport
    assert isinstance(transport, httpx.ASGITransport)
    queue = transport.app.state.queue
    assert isinstance(queue, Queue)
    return queue


async def is_busy(client: httpx.AsyncClient) -> bool:
    return bool((await client.get("/busy")).json()["busy"])


async def until_idle(client: httpx.AsyncClient) -> None:
    async with asyncio.timeout(20):
        while await is_busy(client):
            await asyncio.sleep(0.01)


# In turn


async def test_jobs_are_done_one_after_the_other(scripted):
    """In the order of their acceptance, each with the whole model."""
    client, script = scripted
    codes = ["fr", "en", "de", "it", "es"]
    script.tell(fr="wait")
    jobs = [await submit(client, spoken(language=code)) for code in codes]
    await until_begun(script)
    stands = [(await status_of(client, job))["status"] for job in jobs]
    script.release()
    for job in jobs:
        await until(client, job, "COMPLETED")

    assert ["IN_PROGRESS"] + ["IN_QUEUE"] * 4 == stands
    assert ["load", *codes] == script.begun


async def test_the_service_is_busy_while_a_job_waits_or_runs(scripted):
    """From its acceptance to its end, so that it is not stopped in between."""
    client, script = scripted
    idle = await is_busy(client)
    script.tell(load="wait", any="wait")
    job = await submit(client)
    waiting = await is_busy(client)
    script.tell(load="write")
    await until_begun(script)
    running = await is_busy(client)
    script.release()
    await until(client, job, "COMPLETED")

    assert (False, True, True) == (idle, waiting, running)
    await until_idle(client)


@pytest.mark.parametrize("how", ["cancel", "purge", "ttl", "fail"])
async def test_the_service_is_idle_when_nothing_is_left(scripted, how):
    """However that came."""
    client, script = scripted
    script.tell(load="fail" if how == "fail" else "wait")
    job = await submit(client)
    match how:
        case "cancel":
            await client.post(f"/cancel/{job}")
        case "purge":
            await client.post("/purge-queue")
        case "ttl":
            await client.get(f"/status/{job}?ttl=1")

    await until_idle(client)


async def test_a_retry_counts_as_work(scripted):
    """It is in the line again."""
    client, script = scripted
    script.tell(any="fail")
    job = await submit(client)
    await until(client, job, "FAILED")
    await until_idle(client)
    script.tell(any="wait")
    await client.post(f"/retry/{job}")

    assert await is_busy(client)


class Overtaken(Store):
    """A store whose first purge comes back from the disk after all that came later."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self.slow: threading.Thread | None = None
        self.purged = threading.Event()
        self.go_on = threading.Event()
        super().__init__(*arguments, **options)

    def purge(self, now: float) -> int:
        self.slow = threading.current_thread()
        return super().purge(now)

    def counts(self) -> Counts:
        found = super().counts()
        if threading.current_thread() is self.slow:
            self.slow = None
            self.purged.set()
            self.go_on.wait(20)
        return found


async def test_old_figures_do_not_replace_new_ones(tmp_path):
    """However late they come: a service that seems idle may be stopped."""
    store = Overtaken(tmp_path / "state", waiting_max=10, now=time.time())
    settings = Settings()
    worker: Worker[Any] = Worker(
        lambda: None, warm_up=lambda _engine: None, waiting_max=0, on_failure=lambda: None
    )
    queue = Queue(settings, store, Handler(settings, worker))
    purge = asyncio.create_task(queue.purge())
    await asyncio.to_thread(store.purged.wait, 20)
    await queue.submit(JobRequest.parse(spoken()), synchronous=False)
    store.go_on.set()
    await purge
    busy = queue.busy
    store.close()

    assert busy


# Given up


async def cancel(client: httpx.AsyncClient, job: str) -> dict[str, Any]:
    return dict((await client.post(f"/cancel/{job}")).json())


async def test_a_running_job_is_given_up_within_a_second(scripted):
    """The worker is free for the next one, and nothing comes of the first any more."""
    client, script = scripted
    script.tell(fr="wait")
    job = await submit(client, spoken(language="fr"))
    other = await submit(client, spoken(language="en"))
    await until_begun(script)
    began = time.monotonic()
    answer = await cancel(client, job)
    await until(client, other, "COMPLETED")
    seconds = time.monotonic() - began

    assert {"id": job, "status": "CANCELLED"} == answer
    assert seconds < 1.0
    assert "CANCELLED" == (await status_of(client, job))["status"]
    assert "output" not in await status_of(client, job)


async def test_a_waiting_job_is_never_begun(scripted):
    """The running one does not notice."""
    client, script = scripted
    script.tell(fr="wait")
    running = await submit(client, spoken(language="fr"))
    await until_begun(script)
    waiting = await submit(client, spoken(language="en"))
    await cancel(client, waiting)
    script.release()
    await until(client, running, "COMPLETED")
    await until_idle(client)

    assert ["load", "fr"] == script.begun


async def test_a_job_is_cancelled_while_the_model_loads(scripted):
    """Nobody waits for the load any more, so it is given up, too; the next job begins another."""
    client, script = scripted
    script.tell(load="wait")
    job = await submit(client)
    async with asyncio.timeout(20):
        while not script.begun:
            await asyncio.sleep(0.01)
    answer = await cancel(client, job)
    await until_idle(client)
    other = await submit(client)
    async with asyncio.timeout(2):
        while len(script.begun) < 2:
            await asyncio.sleep(0.01)
    script.release()
    await until(client, other, "COMPLETED")

    assert "CANCELLED" == answer["status"]
    assert ["load", "load", "any"] == script.begun


async def test_a_job_is_cancelled_twice_as_well_as_once(scripted):
    """A client may have missed the answer."""
    client, script = scripted
    script.tell(any="wait")
    job = await submit(client)
    await until_begun(script)

    assert await cancel(client, job) == await cancel(client, job)
    assert 0 == (await client.get("/health")).json()["jobs"]["failed"]


async def test_a_finished_job_stays_finished(scripted):
    """Who cancels it is told so."""
    client, _ = scripted
    before = (await client.post("/runsync", json=spoken())).json()
    answer = await cancel(client, before["id"])

    assert "COMPLETED" == answer["status"]
    assert before == await status_of(client, before["id"])


async def test_who_waits_for_a_job_learns_that_it_was_cancelled(scripted):
    """At once, not when the wait is over."""
    client, script = scripted
    script.tell(any="wait")
    waiting = asyncio.ensure_future(client.post("/runsync?wait=30000", json=spoken()))
    await until_begun(script)
    running = queue_of(client)._running
    assert running is not None
    await cancel(client, running.job.id)
    answer = (await asyncio.wait_for(waiting, 5)).json()

    assert (running.job.id, "CANCELLED") == (answer["id"], answer["status"])


async def test_a_job_is_cancelled_while_its_recording_is_fetched(tmp_path):
    """However slowly that comes; the connection is closed."""

    async def nothing(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
        await writer.drain()

    async with (
        run_site({"/a.wav": nothing}) as site,
        client_of(tmp_path, allow_private_urls=True) as (client, _),
    ):
        url = f"http://127.0.0.1:{site.port}/a.wav"
        job = await submit(client, {"input": {"audio_url": url}})
        async with asyncio.timeout(20):
            while not site.requests:
                await asyncio.sleep(0.01)
        await cancel(client, job)
        await asyncio.wait_for(site.left.wait(), 2)
        await until(client, await submit(client), "COMPLETED")


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"audio_url": "http://127.0.0.1:9/a.wav"}, "audio_url: '127.0.0.1' has no public address"),
        ({"audio_base64": "####"}, "audio_base64: is not base64"),
        ({"audio_base64": base64_of(b"no audio at all" * 100)}, "audio_base64: is not audio"),
        ({"audio_base64": base64_of(long_recording(61))}, "longer than the 60 s that are allowed"),
    ],
)
async def test_a_recording_that_cannot_work_is_told_before_any_model_is_loaded(
    tmp_path, given, told
):
    """That would take minutes; it is named as it was sent."""
    async with client_of(tmp_path, max_audio_seconds=60) as (client, script):
        job = await submit(client, {"input": given})
        failed = await until(client, job, "FAILED")

        assert told in failed["error"]
        assert [] == script.begun


async def test_a_file_that_cannot_work_is_told_before_its_turn(tmp_path):
    """Whatever is before it."""
    async with client_of(tmp_path, max_audio_seconds=60) as (client, script):
        script.tell(load="wait")
        await submit(client)
        files = {"file": ("a.wav", long_recording(61))}
        refused = await client.post("/transcribe", files=files)
        script.release()

    assert (400, "audio_too_long") == (refused.status_code, refused.json()["error"]["code"])
    assert "(MAX_DURATION_S)" in refused.json()["detail"]


async def test_what_comes_after_the_time_limit_is_too_late(scripted):
    """A job that was timed out and waits again is not failed by what it did before."""
    client, script = scripted
    script.tell(fr="wait, deaf", en="wait")
    policy = Policy.model_construct(execution_timeout=200, ttl=60_000)
    request = JobRequest.model_construct(
        input=spoken(language="fr")["input"], webhook=None, policy=policy
    )
    job = (await queue_of(client).submit(request, synchronous=False)).id
    await submit(client, spoken(language="en"))
    await until(client, job, "TIMED_OUT")
    again = (await client.post(f"/retry/{job}")).json()["status"]
    script.tell(fr="fail")
    await until_begun(script, 2)
    stands = (await status_of(client, job))["status"]
    script.release()

    assert ("IN_QUEUE", "IN_QUEUE") == (again, stands)
    await until(client, job, "COMPLETED")


# All at once


async def test_nothing_is_lost_in_a_crowd(tmp_path):
    """Fifty jobs, cancels, purges and retries at the same time: each ends once, the sums agree."""
    seed = random.randrange(1 << 32)
    print(f"seed={seed}")
    dice = random.Random(seed)
    async with client_of(tmp_path) as (client, script):
        # One of the first is at work all the while.
        script.tell(any="wait")
        submitted: dict[str, str] = {}  # their languages

        async def one(code: str) -> None:
            submitted[await submit(client, spoken(language=code))] = code
            if dice.random() < 0.2:
                submitted[(await client.post("/runsync", json=PING)).json()["id"]] = "ping"

        async def disturb() -> None:
            await asyncio.sleep(dice.random() * 0.3)
            if submitted:
                job = dice.choice(list(submitted))
                path = dice.choice([f"/cancel/{job}", f"/status/{job}", f"/stream/{job}"])
                assert (await client.post(path)).status_code in {200, 404}

        async def purge() -> None:
            await asyncio.sleep(dice.random() * 0.3)
            assert (await client.post("/purge-queue")).status_code == 200

        codes = [code for code in sorted(LANGUAGES) if len(code) == 2 and code != "jw"][:50]
        await asyncio.gather(
            *(one(code) for code in codes), *(disturb() for _ in range(60)), purge(), purge()
        )
        script.release()
        stands = [await until(client, job, *ENDED) for job in submitted]
        jobs = (await client.get("/health")).json()["jobs"]
        await until_idle(client)

    done = [each for each in stands if each["status"] == "COMPLETED"]
    worked = [submitted[each["id"]] for each in done if submitted[each["id"]] != "ping"]
    begun = Counter(script.begun)
    assert 50 <= len(submitted) == len(stands)
    assert {"COMPLETED", "CANCELLED"} >= {each["status"] for each in stands}
    assert (len(done), 0, 0, 0) == tuple(
        jobs[name] for name in ("completed", "failed", "inProgress", "inQueue")
    )
    assert [] == [code for code in worked if begun[code] != 1]
    assert [] == [code for code in codes if begun[code] > 1]


# With connections


@pytest.fixture(scope="module")
def running(tmp_path_factory) -> Iterator[tuple[SpeechServer, Script]]:
    """A service in a process of its own."""
    folder = tmp_path_factory.mktemp("queue")
    with run_voxtral(folder, {"ALLOW_PRIVATE_URLS": "1", "LOG_LEVEL": "debug"}) as both:
        yield both


def post_json(server: SpeechServer, path: str, content: bytes) -> httpx.Response:
    headers = {"content-type": "application/json"}
    return httpx.post(server.url + path, content=content, headers=headers, timeout=60)


@pytest.mark.parametrize(
    "body",
    [
        b'{"input": {"ping": true, "audio_base64": "' + b"UklG" * 5_000_000 + b'"}}',
        b'{"input": {"task": "' + b"\\u00e9" * 3_000_000 + b'"}}',
        b'{"input": {"ping": true, "a": [' + b"1," * 9_000_000 + b"1]}}",
        b'{"input": {"ping": true, "a": [' + b"[]," * 6_000_000 + b"1]}}",
        b'{"input": {"ping": true, "a": ' + b"[" * 10_000_000 + b"]" * 9_000_000 + b"}}",
    ],
    ids=["recording", "wrong task", "numbers", "lists", "depth"],
)
def test_large_bodies_do_not_keep_others_waiting(running, body):
    """/health answers as quickly as ever while four of 20 MB arrive: others look at it."""
    server, _ = running
    seconds: list[float] = []
    with ThreadPoolExecutor(4) as threads, httpx.Client() as client:
        sent = [threads.submit(post_json, server, "/runsync", body) for _ in range(4)]
        while not all(each.done() for each in sent):
            began = time.monotonic()
            assert client.get(server.url + "/health", timeout=10).status_code == 200
            seconds.append(time.monotonic() - began)

    assert {each.result().status_code for each in sent} <= {200, 400}
    print(f"median={statistics.median(seconds):.3f} max={max(seconds):.3f} n={len(seconds)}")
    # Each of the four would keep somebody waiting; a busy machine stalls once.
    assert sorted(seconds)[-2] < 0.5


def post_file(server: SpeechServer, file: bytes = RECORDING, **fields: str) -> httpx.Response:
    files = {"file": ("réunion.wav", file)}
    return httpx.post(server.url + "/transcribe", files=files, data=fields, timeout=60)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"task": "transcribe", "language": "fr", "summary": "false", "sentiment": ""},
        {"task": "", "language": "", "summary": "", "max_new_tokens": "", "num_speakers": ""},
        {"min_speakers": "1", "max_speakers": "2"},
        {"speakers_min": "1", "speakers_max": "2"},
        {"max_new_tokens": "100", "num_speakers": "2", "invented": "1"},
    ],
    ids=str,
)
def test_a_file_is_answered_at_once(running, fields):
    """Whatever is left out or empty means nothing, and both spellings of speakers are known."""
    server, _ = running
    answer = post_file(server, **fields)

    assert 200 == answer.status_code, answer.text
    assert f"{SPOKEN} 0" == answer.json()["transcript"]
    assert None is answer.json()["summary"]


def test_a_file_is_summed_up(running):
    """As a job would be."""
    server, _ = running
    answer = post_file(server, task="summary", sentiment="yes").json()

    assert ("summary", "satisfait") == (answer["task"], answer["sentiment"]["satisfaction_client"])
    assert answer["summary"]


@pytest.mark.parametrize(
    ("file", "fields", "status", "param"),
    [
        (b"", {}, 415, "file"),
        (b"RIFF", {}, 415, "file"),
        (b"<html>" * 100, {}, 415, "file"),
        (RECORDING, {"task": "translate"}, 400, "task"),
        (RECORDING, {"summary": "perhaps"}, 400, "summary"),
        (RECORDING, {"language": "klingon"}, 400, "language"),
        (RECORDING, {"max_new_tokens": "many"}, 400, "max_new_tokens"),
        (RECORDING, {"speakers_min": "0"}, 400, "speakers_min"),
        (
            RECORDING,
            {"task": "transcribe_diarized", "min_speakers": "3", "max_speakers": "2"},
            400,
            "min_speakers",
        ),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_form_that_cannot_work_is_refused_by_its_field(running, file, fields, status, param):
    """The recording's is `file`, whatever jobs call it."""
    server, _ = running
    answer = post_file(server, file, **fields)
    error = answer.json()["error"]

    assert (status, param) == (answer.status_code, error["param"]), error
    assert error["message"].startswith(f"{param}: ")


@pytest.mark.parametrize(
    ("options", "status", "param"),
    [
        ({"data": {"task": "transcribe"}}, 415, None),
        ({"files": {"audio": ("a.wav", RECORDING)}}, 400, "file"),
        ({"files": {"file": (None, "text")}}, 400, "file"),
        ({"json": PING}, 415, None),
        ({}, 415, None),
    ],
    ids=["no upload", "another name", "no file", "JSON", "nothing"],
)
def test_what_is_no_upload_is_refused(running, options, status, param):
    """The field that is missing is named."""
    server, _ = running
    answer = httpx.post(server.url + "/transcribe", timeout=30, **options)

    assert (status, param) == (answer.status_code, answer.json()["error"]["param"])


def test_a_client_that_leaves_gives_its_work_up(running):
    """Nothing is kept of it, and the worker is free for the next within a second."""
    server, script = running
    script.tell(fr="wait")
    begun = len(script.begun)
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(
            server.url + "/transcribe",
            files={"file": ("a.wav", RECORDING)},
            data={"language": "fr"},
            timeout=httpx.Timeout(30, read=1.0),
        )
    began = time.monotonic()
    server.await_busy(False, 5.0)
    seconds = time.monotonic() - began
    script.release()

    assert seconds < 1.0
    assert "fr" in script.begun[begun:]
    assert [] == server.open_uploads()
    assert 200 == post_file(server).status_code


def test_files_and_jobs_have_their_turns(running):
    """The model does one thing at a time."""
    server, script = running
    large = long_recording(60.0)  # what is smaller is in no file
    script.tell(fr="wait")
    before = len(script.begun)
    with ThreadPoolExecutor() as threads:
        first = threads.submit(post_file, server, language="fr")
        wait_for(lambda: len(script.begun) > before, 20.0, "the first")
        others = [
            threads.submit(post_file, server, large, language="en"),
            threads.submit(httpx.post, server.url + "/runsync", json=spoken(language="de")),
        ]
        server.await_upload(len(large))
        waiting = [each.done() for each in others]
        script.release()
        answers = [each.result() for each in (first, *others)]

    assert [False, False] == waiting
    assert [200, 200, 200] == [answer.status_code for answer in answers]
    assert {"fr", "en", "de"} == set(script.begun[before:])


def test_a_disk_without_room_for_a_recording_is_told(running):
    """The job has failed, in words for people; it is no bug, so there is no traceback."""
    server, _ = running
    recording = long_recording(60.0)

    async def fetch() -> dict[str, Any]:
        async with (
            run_site({"/a.wav": response(recording)}) as site,
            httpx.AsyncClient(timeout=30) as client,
        ):
            url = f"http://127.0.0.1:{site.port}/a.wav"
            body = {"input": {"audio_url": url}}
            return dict((await client.post(server.url + "/runsync", json=body)).json())

    # Of one file; the jobs and the log are smaller.
    what = resource.RLIMIT_FSIZE
    _, hard = resource.prlimit(server.process.pid, what)
    resource.prlimit(server.process.pid, what, (1_500_000, hard))
    failed = asyncio.run(fetch())
    resource.prlimit(server.process.pid, what, (hard, hard))
    done = asyncio.run(fetch())

    assert ("FAILED", "COMPLETED") == (failed["status"], done["status"])
    assert "the recording could not be kept for the work: File too large" == failed["error"]


def test_a_body_that_stops_arriving_is_given_up(running):
    """Its connection is closed in the end; others do not notice."""
    server, _ = running
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as half:
        half.sendall(
            b"POST /run HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
            b'Content-Length: 1000\r\n\r\n{"input": '
        )
        assert 200 == httpx.post(server.url + "/runsync", json=PING).status_code
    server.await_busy(False)


def test_no_log_line_tells_what_was_said(running):
    """Nor where a recording is, whatever the level: neither words, nor tokens, nor base64."""
    server, _ = running
    secret = {"audio_url": "http://user:hunter2@127.0.0.1:1/a.wav?token=t0ken"}
    bodies = [
        spoken(summary=True, sentiment=True),
        {"input": secret, "webhook": "http://127.0.0.1:1/hook?key=wh00k"},
        {"input": {"audio_base64": "c2VjcmV0", "task": "t4sk"}, "s3Config": {"accessSecret": "s3"}},
    ]
    for body in bodies:
        httpx.post(server.url + "/runsync", json=body, timeout=30)
    httpx.get(server.url + "/status/absent?token=t0ken")
    wait_for(lambda: "webhook of job" in server.log.read_text(), 20.0, "the webhook")
    log = server.log.read_text()

    for word in ("confidentiel", "hunter2", "t0ken", "wh00k", "c2VjcmV0", "t4sk", "UklGR"):
        assert word not in log, word
    assert "Traceback" not in log
