"""autostart/portal/refresh.py: when a document is read, and what comes of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Executor, Future
from contextlib import asynccontextmanager
from typing import Any

from structlog.testing import capture_logs

from autostart.admission import Admission
from autostart.config import ServiceConfig
from autostart.errors import DocsUnknown
from autostart.lifecycle import Endpoint
from autostart.portal.refresh import AGAIN_SECONDS, READS_MAX, Refresh
from autostart.probe import DocsUnreadable
from tests.unit.virtual_time import on_virtual_time

ENDPOINT = Endpoint("127.0.0.1", 8001, "run-1")
SERVICE = ServiceConfig(host="a.test", docs="/openapi.json")


class AtOnce(Executor):
    """Does what it is given in the thread of who gives it."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        done: Future[Any] = Future()
        try:
            done.set_result(fn(*args, **kwargs))
        except DocsUnreadable as error:
            done.set_exception(error)
        return done


class World:
    """One service: whether it is ready, what it answers after how long, what was asked of it."""

    def __init__(self) -> None:
        self.is_ready = True
        self.seconds = 0.5
        self.answer: bytes | DocsUnreadable = b"{}"
        self.leases: list[tuple[str, Admission, str]] = []
        self.reads: list[tuple[str, str]] = []
        self.held = 0
        self.held_most = 0
        self.taken: list[bytes] = []
        self.refresh = Refresh(
            lease=self.lease,
            read=self.read,
            take=lambda service, body: self.taken.append(body),
            threads=AtOnce(),
        )

    @property
    def endpoint(self) -> Endpoint:
        return ENDPOINT

    @asynccontextmanager
    async def lease(self, host: str, admission: Admission, about: str) -> AsyncIterator[World]:
        self.leases.append((host, admission, about))
        if not self.is_ready:
            assert admission.otherwise is not None
            raise admission.otherwise
        self.held += 1
        self.held_most = max(self.held_most, self.held)
        try:
            yield self
        finally:
            self.held -= 1

    async def read(self, endpoint: Endpoint, service: ServiceConfig, host: str) -> bytes:
        assert endpoint == ENDPOINT
        self.reads.append((service.host, host))
        await asyncio.sleep(self.seconds)
        if isinstance(self.answer, DocsUnreadable):
            raise self.answer
        return self.answer


@on_virtual_time
async def test_a_ready_service_is_read_through_a_lease() -> None:
    """The lease neither wakes nor waits nor counts, is held while we read, and then released."""
    world = World()

    world.refresh.begin(SERVICE)
    await asyncio.sleep(0.25)
    held = world.held
    await asyncio.sleep(1)

    assert (1, 0) == (held, world.held)
    assert [b"{}"] == world.taken
    unknown = DocsUnknown("a.test is not ready")
    asks_nothing = Admission(may_wake=False, may_wait=False, counts=False, otherwise=unknown)
    assert [("a.test", asks_nothing, "GET /openapi.json")] == world.leases


@on_virtual_time
async def test_a_stopped_service_is_left_alone() -> None:
    """Its lease is refused, nothing is read, nothing is complained about; and it may be asked
    again at once.
    """
    world = World()
    world.is_ready = False

    with capture_logs() as logged:
        for _ in range(2):
            world.refresh.begin_if_due(SERVICE)
            await asyncio.sleep(1)

    assert ([], [], 2) == (world.reads, logged, len(world.leases))


@on_virtual_time
async def test_readers_cause_one_question_a_minute() -> None:
    """However many read the docs."""
    world = World()

    for _ in range(100):
        world.refresh.begin_if_due(SERVICE)
        await asyncio.sleep(AGAIN_SECONDS / 50)

    assert 2 == len(world.reads)


@on_virtual_time
async def test_a_new_run_is_read_instead_of_the_former() -> None:
    """What the former was asked is given up, and its lease released."""
    world = World()
    world.refresh.begin(SERVICE)
    await asyncio.sleep(0.25)

    world.refresh.begin(SERVICE)
    await asyncio.sleep(2)

    assert (2, 1, 0) == (len(world.reads), len(world.taken), world.held)


@on_virtual_time
async def test_a_broken_document_is_complained_about_once() -> None:
    """Not at every start; and again when something else is wrong, or it was right meanwhile."""
    world = World()
    answers = [
        DocsUnreadable("/openapi.json answered 500"),
        DocsUnreadable("/openapi.json answered 500"),
        DocsUnreadable("/openapi.json answered 404"),
        b"{}",
        DocsUnreadable("/openapi.json answered 404"),
    ]

    with capture_logs() as logged:
        for answer in answers:
            world.answer = answer
            world.refresh.begin(SERVICE)
            await asyncio.sleep(1)

    assert ["500", "404", "404"] == [line["reason"].split()[-1] for line in logged]
    assert {"docs-unreadable"} == {line["event"] for line in logged}
    assert [b"{}"] == world.taken


@on_virtual_time
async def test_few_documents_are_read_at_once() -> None:
    """A hundred services that become ready together do not hold a hundred documents in memory."""
    world = World()

    for number in range(100):
        world.refresh.begin(ServiceConfig(host=f"{number}.test", docs="/openapi.json"))
    await asyncio.sleep(100)

    assert (100, READS_MAX) == (len(world.taken), world.held_most)


@on_virtual_time
async def test_nothing_goes_on_after_the_end() -> None:
    """Neither after close, nor for a service that is no longer declared."""
    world = World()
    other = ServiceConfig(host="*.b.test", docs="/openapi.json")
    world.refresh.begin(SERVICE)
    world.refresh.begin(other, delay_seconds=1)
    await asyncio.sleep(0.25)

    world.refresh.forget("a.test")
    await asyncio.sleep(1)
    assert [("a.test", "a.test"), ("*.b.test", "autostart.b.test")] == world.reads
    await world.refresh.close()
    await asyncio.sleep(5)

    assert ([], 0) == (world.taken, world.held)


@on_virtual_time
async def test_the_host_is_written_as_in_a_header() -> None:
    """An address of IPv6 stands in brackets there."""
    world = World()
    world.refresh.begin(ServiceConfig(host="::1", docs="/openapi.json"))
    await asyncio.sleep(1)

    assert [("::1", "[::1]")] == world.reads
