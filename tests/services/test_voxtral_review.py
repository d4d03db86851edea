"""What a reader of services/voxtral found out by using it: turns, small recordings, full memory."""

import asyncio
import json
import socket
import sqlite3
import threading
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, closing
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from services.transcription.errors import QueueFull
from services.transcription.job import Job
from services.transcription.uploads import Bodies
from services.transcription.worker import Cancellation, Cancelled
from services.voxtral.jobs import Ending, JobRequest, Status, accept
from services.voxtral.settings import Settings
from services.voxtral.store import Store
from services.voxtral.understanding import understand
from tests.services.sounds import RECORDING, encode, recording_samples
from tests.services.test_voxtral_contract import (
    PING,
    scripted,
    status_of,
    submit,
    until,
    until_begun,
)
from tests.services.test_voxtral_understanding import TRANSCRIPT, Fake
from tests.services.voxtral_app import base64_of, spoken

__all__ = ["scripted"]  # a fixture


# The model's time


async def test_a_job_is_not_timed_out_by_what_came_after_it(scripted):
    """Its time is the model's for it: a file that was posted later does not use that up."""
    client, script = scripted
    wanting = count_turns(client)
    script.tell(fr="wait", en="wait")

    async def post(language: str) -> httpx.Response:
        files = {"file": ("a.wav", RECORDING)}
        return await client.post("/transcribe", files=files, data={"language": language})

    first = asyncio.create_task(post("fr"))
    await until_begun(script)
    job = await submit(client, spoken(language="de") | {"policy": {"executionTimeout": 5000}})
    await until_many(wanting, 2)
    later = asyncio.create_task(post("en"))
    await until_many(wanting, 3)
    script.tell(fr="write", en="wait")
    await first
    ended = await until(client, job, "COMPLETED", "TIMED_OUT")
    script.release()

    assert "COMPLETED" == ended["status"]
    assert 200 == (await later).status_code
    assert ["load", "fr", "de", "en"] == script.begun


async def test_a_file_that_nobody_waits_for_gives_up_its_turn(scripted):
    """Whoever has left keeps nobody from the model."""
    client, script = scripted
    handler = app_of(client).state.handler
    gone = asyncio.Event()
    script.tell(fr="wait")
    job = await submit(client, spoken(language="fr"))
    await until_begun(script)

    async def wait() -> None:
        async with handler.turn(gone):
            raise AssertionError("the job has the turn")

    waiting = asyncio.create_task(wait())
    gone.set()
    with pytest.raises(Cancelled):
        await waiting
    script.release()
    done = await until(client, job, "COMPLETED")
    async with asyncio.timeout(20), handler.turn(asyncio.Event()):
        pass

    assert "COMPLETED" == done["status"]


async def test_what_others_do_with_the_model_is_no_attempt_at_a_job(scripted, tmp_path):
    """Three files that end the process must not fail the job that waits behind them."""
    client, script = scripted
    wanting = count_turns(client)
    script.tell(fr="wait")
    files = {"file": ("a.wav", RECORDING)}
    posted = asyncio.create_task(client.post("/transcribe", files=files, data={"language": "fr"}))
    await until_begun(script)
    job = await submit(client, spoken(language="de"))
    await until_many(wanting, 2)
    with closing(sqlite3.connect(tmp_path / "state" / "jobs.sqlite")) as database:
        attempts = database.execute("SELECT attempts FROM jobs WHERE id = ?", (job,)).fetchall()
    script.release()
    await posted
    done = await until(client, job, "COMPLETED", "FAILED")

    assert [(0,)] == attempts
    assert "COMPLETED" == done["status"]


def app_of(client: httpx.AsyncClient) -> FastAPI:
    transport = client._transport
    assert isinstance(transport, httpx.ASGITransport)
    assert isinstance(transport.app, FastAPI)
    return transport.app


def count_turns(client: httpx.AsyncClient) -> list[None]:
    """Give a list that grows with each wish to have the model."""
    handler = app_of(client).state.handler
    turn, wishes = handler.turn, list[None]()

    def counted(gone: asyncio.Event) -> AbstractAsyncContextManager[None]:
        wishes.append(None)
        wished: AbstractAsyncContextManager[None] = turn(gone)
        return wished

    handler.turn = counted
    return wishes


async def until_many(seen: list[None], count: int) -> None:
    async with asyncio.timeout(20):
        while len(seen) < count:
            await asyncio.sleep(0.01)


# Small recordings


@pytest.mark.parametrize("count", [1, 4, 7])
async def test_a_recording_of_no_length_has_no_words(scripted, count):
    """A few samples are a recording, too: its length, rounded, is zero."""
    client, _ = scripted
    recording = base64_of(encode(recording_samples()[:count], "wav", "pcm_s16le"))
    job = await submit(client, {"input": {"audio_base64": recording}})
    ended = await until(client, job, "COMPLETED", "FAILED")

    assert "COMPLETED" == ended["status"], ended
    assert ["no_speech"] == [told["code"] for told in ended["output"]["warnings"]]


# Names that nobody answers for


async def test_names_that_take_long_keep_nobody_waiting(scripted, monkeypatch):
    """The system may look for a name for half a minute; meanwhile all others are served."""
    client, _ = scripted
    asked, answered = list[str](), threading.Event()
    look_up = socket.getaddrinfo

    def slow(host: str, *more: Any, **named: Any) -> Any:
        if not host.endswith(".invalid"):
            return look_up(host, *more, **named)
        asked.append(host)
        answered.wait(30)
        raise socket.gaierror(socket.EAI_AGAIN, "nobody knows")

    monkeypatch.setattr(socket, "getaddrinfo", slow)
    try:
        for number in range(40):
            body = {"input": {"ping": True}, "webhook": f"http://{number}.invalid/"}
            job = await submit(client, body)
        async with asyncio.timeout(10):
            while not asked:
                await asyncio.sleep(0.01)
        async with asyncio.timeout(10):
            statuses = [await status_of(client, job) for _ in range(100)]
    finally:
        answered.set()

    assert {"COMPLETED"} == {status["status"] for status in statuses}


# Full memory


async def test_bodies_that_are_still_arriving_do_not_fill_the_memory(scripted):
    """So many large ones at once have room; a small one always has, and so has the next in time."""
    client, _ = scripted
    app_of(client).state.bodies = Bodies(1_000_000)
    large = json.dumps(PING | {"more": "A" * 900_000}).encode()
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def slow() -> AsyncIterator[bytes]:
        yield large[:800_000]
        begun.set()
        await go_on.wait()
        yield large[800_000:]

    async def post(body: bytes | AsyncIterator[bytes]) -> httpx.Response:
        return await client.post("/run", content=body, headers={"Content-Type": "application/json"})

    first = asyncio.create_task(post(slow()))
    await begun.wait()
    second, small = await post(large), await post(json.dumps(PING).encode())
    go_on.set()
    done = await first
    again = await post(large)

    assert [429, 200, 200, 200] == [each.status_code for each in (second, small, done, again)]
    assert "queue_full" == second.json()["error"]["code"]
    assert "10" == second.headers["Retry-After"]


# Webhooks


HOOK = "https://example.com/hook"
FAILED = Ending(Status.FAILED, error="no words")


def accept_failed(store: Store, now: float) -> str:
    """Have a job accepted that has failed already, and whose client wants to be told."""
    request = JobRequest.parse({"input": {}, "webhook": HOOK})
    job = accept(request, synchronous=False, now=now, seconds_max=600.0)
    store.add(job, FAILED)
    return job.id


def test_results_to_be_posted_have_a_limit(tmp_path):
    """Pings and jobs that fail at once need no place in the line, but their clients wait, too."""
    now = 1_000_000.0
    with closing(Store(tmp_path, waiting_max=3, now=now)) as store:
        jobs = [accept_failed(store, now) for _ in range(3)]
        with pytest.raises(QueueFull, match="to be posted"):
            accept_failed(store, now)
        first = store.get(jobs[0], now)
        assert first is not None
        store.webhook_posted(first, due_at=None)
        accept_failed(store, now)

        assert 3 == store.counts().webhooks


# Opinions


def test_an_opinion_that_was_cut_off_is_told_as_such():
    """It is the request's own max_new_tokens that leaves no room for one."""
    job = Job(Cancellation(), lambda _progress: None)
    model = Fake(lambda _question: '{"sentiment": "pos', complete=False)
    understood = understand(
        job, model, TRANSCRIPT, language="fr", summary=False, sentiment=True, tokens_max=5
    )

    assert understood.sentiment is None
    assert ["sentiment_unavailable"] == [told.code for told in job.warnings]
    assert "cut off at 5 tokens (max_new_tokens)" in job.warnings[0].message


# Settings


@pytest.mark.parametrize("name", ["MAX_DURATION_S", "URL_SECONDS", "EXECUTION_TIMEOUT_S"])
@pytest.mark.parametrize("value", ["inf", "nan"])
def test_a_limit_is_a_number(monkeypatch, name, value):
    """Told at the start: with an endless recording each job would fail."""
    monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit, match=f"{name}: '{value}' is not allowed"):
        Settings.from_environment()
