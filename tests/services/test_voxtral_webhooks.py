"""Results are posted where their clients want them: until they are taken, but not for ever."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import pytest
from aiohttp import web

from services.voxtral.database import StoreFailed
from services.voxtral.jobs import Ending, Job, Status
from services.voxtral.settings import Settings
from services.voxtral.store import Store
from services.voxtral.webhooks import AGAIN_SECONDS, ATTEMPTS_MAX, Webhooks
from tests.services.speech_server import SpeechServer
from tests.services.test_voxtral_contract import PING, status_of, submit, until, until_begun
from tests.services.test_voxtral_endings import kill
from tests.services.test_voxtral_queue import until_idle
from tests.services.test_voxtral_store import submit as keep
from tests.services.voxtral_app import client_of, run_voxtral, spoken

COMPLETED = Ending(Status.COMPLETED, output={"transcript": "bonjour"})


@dataclass
class Receiver:
    """Where results are posted: what came, and what is answered."""

    url: str = ""
    posts: list[dict[str, Any]] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    answers: list[int] = field(default_factory=list)  # then 200
    headers: dict[str, str] = field(default_factory=dict)  # of the answers
    opened: asyncio.Event = field(default_factory=asyncio.Event)  # clear: /slow is not answered

    async def receive(self, request: web.Request) -> web.Response:
        self.posts.append(await request.json())
        self.paths.append(request.path)
        assert request.content_type == "application/json"
        if request.path == "/slow":
            await self.opened.wait()
        status = self.answers.pop(0) if self.answers else 200
        return web.Response(status=status, headers=self.headers)

    async def until(self, count: int) -> None:
        """Wait until so many came."""
        async with asyncio.timeout(20):
            while len(self.posts) < count:
                await asyncio.sleep(0.01)


@asynccontextmanager
async def run_receiver() -> AsyncIterator[Receiver]:
    receiver = Receiver()
    app = web.Application()
    app.router.add_post("/{path:.*}", receiver.receive)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    receiver.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield receiver
    finally:
        receiver.opened.set()
        await runner.cleanup()


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    """Where results are posted."""
    async with run_receiver() as running:
        yield running


@pytest.fixture
async def client(tmp_path) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a service that may post to this machine."""
    async with client_of(tmp_path, allow_private_urls=True) as (client, _):
        yield client


def told(job: Job) -> dict[str, object]:
    """Stand for the body of /status."""
    return {"id": job.id, "status": job.status}


@asynccontextmanager
async def posting(store: Store, *, allow_private: bool = True) -> AsyncIterator[Webhooks]:
    """Post what is due, with no more than a moment between two attempts."""
    webhooks = Webhooks(store, Settings(allow_private_urls=allow_private), told, again_seconds=0.05)
    task = asyncio.ensure_future(webhooks.run())
    yield webhooks
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


@asynccontextmanager
async def open_store(folder: Path, kind: type[Store] = Store) -> AsyncIterator[Store]:
    store = kind(folder / "state", waiting_max=100, now=time.time())
    yield store
    store.close()


async def until_posted(store: Store) -> None:
    """Wait until nothing is to be posted any more."""
    async with asyncio.timeout(20):
        while store.counts().webhooks:
            await asyncio.sleep(0.01)


def finished(store: Store, url: str, ending: Ending = COMPLETED) -> str:
    """Keep a job that has ended, and is to be told."""
    return keep(store, now=time.time(), webhook=url, ending=ending)


# What is posted


@pytest.mark.parametrize(
    ("path", "body"),
    [("/run", spoken()), ("/runsync", PING), ("/run", {"input": {}})],
    ids=["completed", "ping", "failed"],
)
async def test_the_body_is_that_of_status(client, receiver, path, body):
    """Once, whatever the result is; then the service is idle."""
    accepted = await client.post(path, json={**body, "webhook": f"{receiver.url}/done?key=1"})
    await receiver.until(1)
    await until_idle(client)

    assert [await status_of(client, accepted.json()["id"])] == receiver.posts
    assert receiver.posts[0]["status"] in {"COMPLETED", "FAILED"}


async def test_a_job_that_was_timed_out_is_told(receiver, tmp_path):
    """As any other that ended by itself."""
    async with open_store(tmp_path) as store, posting(store):
        job = finished(store, receiver.url, Ending(Status.TIMED_OUT, error="too long"))
        await receiver.until(1)

    assert [{"id": job, "status": "TIMED_OUT"}] == receiver.posts


async def test_the_service_is_busy_until_the_result_was_posted(client, receiver):
    """It must not be stopped before that."""
    await submit(client, {**PING, "webhook": f"{receiver.url}/slow"})
    await receiver.until(1)
    during = (await client.get("/busy")).json()["busy"]
    receiver.opened.set()
    await until_idle(client)

    assert during


async def test_nobody_is_told_of_a_job_that_was_cancelled(receiver, tmp_path):
    """Whether it ran or waited, and whether it was cancelled alone or purged."""
    async with client_of(tmp_path, allow_private_urls=True) as (client, script):
        script.tell(any="wait")
        body = {**spoken(), "webhook": receiver.url}
        running, waiting, _ = [await submit(client, body) for _ in range(3)]
        await until_begun(script)
        for job in (running, waiting):
            await client.post(f"/cancel/{job}")
        await client.post("/purge-queue")
        marker = await submit(client, {**PING, "webhook": receiver.url})
        await receiver.until(1)
        await until_idle(client)

    assert [marker] == [post["id"] for post in receiver.posts]


async def test_each_of_many_results_is_posted_once(receiver, tmp_path):
    """More than are posted at the same time."""
    async with open_store(tmp_path) as store, posting(store):
        jobs = [finished(store, receiver.url) for _ in range(50)]
        await until_posted(store)

    assert sorted(jobs) == sorted(post["id"] for post in receiver.posts)


# What is not taken


@pytest.mark.parametrize("status", [201, 204, 302, 400, 404, 500, 503])
async def test_what_is_not_taken_is_posted_twice_more(receiver, tmp_path, status):
    """Only a 200 takes it; then the service has done what it can."""
    receiver.answers = [status] * 100
    async with open_store(tmp_path) as store, posting(store):
        finished(store, receiver.url)
        await until_posted(store)

    assert 3 == len(receiver.posts) == ATTEMPTS_MAX


async def test_what_is_taken_is_not_posted_again(receiver, tmp_path):
    """However many attempts it took."""
    receiver.answers = [500]
    async with open_store(tmp_path) as store, posting(store):
        finished(store, receiver.url)
        await until_posted(store)

    assert 2 == len(receiver.posts)


async def test_ten_seconds_pass_between_two_attempts(client, receiver):
    """The service is busy all the while."""
    receiver.answers = [500]
    began = time.time()
    job = await submit(client, {**PING, "webhook": receiver.url})
    await receiver.until(1)
    store: Store = client._transport.app.state.queue._store

    def due(seconds: float) -> list[tuple[str, int]]:
        found = store.due_webhooks(began + seconds, 8)
        return [(webhook.job.id, webhook.attempts) for webhook in found]

    async with asyncio.timeout(5):
        while due(9.9):
            await asyncio.sleep(0.01)

    assert 10.0 == AGAIN_SECONDS
    assert [(job, 1)] == due(15)
    assert (await client.get("/busy")).json()["busy"]


@pytest.mark.parametrize(
    "url",
    ["http://127.0.0.1:1/", "http://absent.invalid/", "https://127.0.0.1:{port}/"],
    ids=["nobody listens", "no such host", "no TLS"],
)
async def test_a_host_that_is_not_there_is_tried_as_often(receiver, tmp_path, url):
    """And does not end what posts: the next result is told."""
    async with open_store(tmp_path) as store, posting(store):
        finished(store, url.format(port=receiver.url.rpartition(":")[2]))
        await until_posted(store)
        job = finished(store, receiver.url)
        await until_posted(store)

    assert [job] == [post["id"] for post in receiver.posts]


async def test_a_slow_host_does_not_keep_the_results_of_others(receiver, tmp_path):
    """They are posted beside one another."""
    async with open_store(tmp_path) as store, posting(store) as webhooks:
        for _ in range(3):
            finished(store, f"{receiver.url}/slow")
        await receiver.until(3)
        job = finished(store, f"{receiver.url}/quick")
        webhooks.wake()
        async with asyncio.timeout(2):
            await receiver.until(4)
        receiver.opened.set()
        await until_posted(store)

    assert ["/slow"] * 3 + ["/quick"] == receiver.paths
    assert job == receiver.posts[3]["id"]


async def test_a_redirect_is_not_followed(receiver, tmp_path):
    """It could lead anywhere; to the host it is a failure like others."""
    receiver.answers = [302, 307, 308]
    receiver.headers = {"Location": f"{receiver.url}/elsewhere"}
    async with open_store(tmp_path) as store, posting(store):
        finished(store, f"{receiver.url}/here")
        await until_posted(store)

    assert ["/here"] * 3 == receiver.paths


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "2130706433", "[::ffff:127.0.0.1]"])
async def test_private_addresses_are_not_posted_to(receiver, tmp_path, host):
    """Unless the operator allows it: who sends a job could reach what only the service can."""
    url = f"http://{host}:{receiver.url.rpartition(':')[2]}/"
    async with open_store(tmp_path) as store, posting(store, allow_private=False):
        finished(store, url)
        await until_posted(store)

    assert [] == receiver.posts


# The end of the process, and of the disk


async def test_a_result_is_posted_after_a_restart(receiver, tmp_path):
    """Where the process was killed while it posted, or before it could."""

    def begin(server: SpeechServer) -> str:
        body = {**PING, "webhook": f"{receiver.url}/slow"}
        return str(httpx.post(server.url + "/run", json=body).json()["id"])

    with run_voxtral(tmp_path, {"ALLOW_PRIVATE_URLS": "1"}) as (server, _):
        job = await asyncio.to_thread(begin, server)
        await receiver.until(1)
        kill(server)
    receiver.opened.set()
    with run_voxtral(tmp_path, {"ALLOW_PRIVATE_URLS": "1"}) as (server, _):
        await receiver.until(2)
        await asyncio.to_thread(server.await_busy, False)

    assert [job, job] == [post["id"] for post in receiver.posts]


async def test_attempts_are_counted_across_a_restart(receiver, tmp_path):
    """Three are three."""
    receiver.answers = [500] * 100
    async with open_store(tmp_path) as store:
        job = finished(store, receiver.url)
        async with posting(store):
            await receiver.until(1)
            async with asyncio.timeout(5):
                while not store.due_webhooks(time.time() + 60, 8)[0].attempts:
                    await asyncio.sleep(0.001)
    async with open_store(tmp_path) as store, posting(store):
        await until_posted(store)

    assert [job] * 3 == [post["id"] for post in receiver.posts]


class Forgetful(Store):
    """A store on a disk that is full whenever a post is to be noted."""

    def webhook_posted(self, job: Job, *, due_at: float | None) -> None:
        raise StoreFailed("jobs cannot be kept: full", code="store_failed")


async def test_what_cannot_be_noted_is_not_posted_all_the_time(receiver, tmp_path):
    """It would be to a client as if it were attacked."""
    async with open_store(tmp_path, Forgetful) as store:
        webhooks = Webhooks(store, Settings(allow_private_urls=True), told, again_seconds=0.3)
        finished(store, receiver.url)
        task = asyncio.ensure_future(webhooks.run())
        times = []
        for count in (1, 2, 3):
            webhooks.wake()
            await receiver.until(count)
            times.append(time.monotonic())
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task

    assert min(later - sooner for sooner, later in pairwise(times)) >= 0.25


async def test_a_retried_job_is_told_again(receiver, tmp_path):
    """Its second result is as new as the first."""
    async with client_of(tmp_path, allow_private_urls=True) as (client, script):
        script.tell(any="fail")
        job = await submit(client, {**spoken(), "webhook": receiver.url})
        await receiver.until(1)
        script.release()
        await client.post(f"/retry/{job}")
        await until(client, job, "COMPLETED")
        await receiver.until(2)

    assert ["FAILED", "COMPLETED"] == [post["status"] for post in receiver.posts]


@pytest.mark.parametrize(
    "render", [lambda job: {"id": float("nan")}, lambda job: {"id": {1, 2}}], ids=["NaN", "a bug"]
)
async def test_a_bug_in_one_result_does_not_keep_the_others(
    receiver, tmp_path, render: Callable[[Job], dict[str, object]]
):
    """It is logged, and the next one is posted."""
    bad: list[str] = []

    def render_one(job: Job) -> dict[str, object]:
        return render(job) if job.id in bad else told(job)

    async with open_store(tmp_path) as store:
        settings = Settings(allow_private_urls=True)
        webhooks = Webhooks(store, settings, render_one, again_seconds=0.01)
        bad.append(finished(store, receiver.url))
        good = finished(store, receiver.url)
        task = asyncio.ensure_future(webhooks.run())
        await until_posted(store)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task

    assert good in [post["id"] for post in receiver.posts]
    assert json.dumps(receiver.posts)
