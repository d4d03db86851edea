"""Ups and downs in order, what is given up half-way, and what others use meanwhile."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from autostart.errors import EngineUnreachable, StartFailed
from autostart.runtimes.docker.container import HEALTHY, Container
from autostart.runtimes.docker.engine import EngineRefused
from autostart.runtimes.docker.stack import LEVELS_SECONDS, IsShared, Stack
from tests.unit.test_runtimes_docker_container import container
from tests.unit.virtual_time import on_virtual_time


class FakeEngine:
    """Containers that start at once and end `obeys` seconds after they were asked."""

    def __init__(self, *containers: Container, obeys: float = 0.0) -> None:
        self.there = {one.id: one for one in containers}
        self.obeys = obeys
        self.log: list[tuple[str, str, float]] = []  # what, whom, when
        self.refuses = ""  # a container that it shows once and never again
        self.shown = 0

    def note(self, what: str, container_id: str) -> None:
        now = asyncio.get_running_loop().time()
        self.log.append((what, container_id.removesuffix("-id"), now))

    async def inspect(self, container_id: str) -> Container:
        if container_id == self.refuses:
            self.shown += 1
            if self.shown > 1:
                raise EngineRefused("500 from the engine")
        return self.there[container_id]

    async def start(self, container_id: str) -> None:
        self.note("start", container_id)
        self.there[container_id] = replace(self.there[container_id], status="running")

    async def stop(self, container_id: str, seconds: float) -> None:
        self.note(f"stop {seconds:g}", container_id)
        await asyncio.sleep(min(self.obeys, seconds))
        self.note("ended", container_id)
        self.there[container_id] = replace(self.there[container_id], status="exited")

    def up(self) -> set[str]:
        return {one.service for one in self.there.values() if one.is_running}

    def whats(self) -> list[tuple[str, str]]:
        return [(what, whom) for what, whom, _ in self.log]


WEB = container("web", depends_on={"api": "service_started"})
API = container("api", depends_on={"db": "service_started"})
DB = container("db")
CHAIN = [WEB, API, DB]


def stack(engine: FakeEngine) -> Stack:
    return Stack(engine)  # type: ignore[arg-type]  # as much of an engine as it needs


async def nobody() -> IsShared:
    return lambda _: False


def used(*services: str) -> IsShared:
    return lambda one: one.service in services


@on_virtual_time
async def test_a_chain_goes_up_and_down_in_order() -> None:
    """What is needed first comes first, and goes last."""
    engine = FakeEngine(*CHAIN)
    one = stack(engine)
    await one.up(CHAIN, WEB, 10.0, nobody)
    await one.down(list(engine.there.values()), 10.0, nobody)

    order = ["db", "api", "web", "web", "web", "api", "api", "db", "db"]
    assert order == [whom for _, whom in engine.whats()]


@on_virtual_time
async def test_a_chain_that_does_not_obey_ends_in_time() -> None:
    """Each is given its time; all of it fits into what the runtime may take."""
    chain = [replace(one, status="running") for one in CHAIN]
    engine = FakeEngine(*chain, obeys=1000.0)
    await stack(engine).down(chain, 10.0, nobody)

    asked = [what for what, _ in engine.whats() if what != "ended"]
    assert ["stop 10", "stop 10", "stop 1"] == asked
    assert asyncio.get_running_loop().time() - engine.log[0][2] <= 10.0 + LEVELS_SECONDS + 1.0
    assert set() == engine.up()


@on_virtual_time
async def test_a_stop_goes_on_without_who_asked_for_it() -> None:
    """A start that follows waits until the container has ended, and starts it again."""
    running = replace(DB, status="running")
    engine = FakeEngine(running, obeys=5.0)
    one = stack(engine)
    stopping = asyncio.ensure_future(one.down([running], 10.0, nobody))
    await asyncio.sleep(1.0)
    stopping.cancel()
    await asyncio.gather(stopping, return_exceptions=True)
    await one.up([running], running, 10.0, nobody)

    assert [("stop 10", "db"), ("ended", "db"), ("start", "db")] == engine.whats()


@on_virtual_time
async def test_two_who_stop_a_container_stop_it_once() -> None:
    """The second waits for what the first has begun."""
    running = replace(DB, status="running")
    engine = FakeEngine(running, obeys=5.0)
    one = stack(engine)
    await asyncio.gather(*(one.down([running], 10.0, nobody) for _ in range(3)))

    assert [("stop 10", "db"), ("ended", "db")] == engine.whats()


FAILING = container("web", depends_on={"db": "service_started", "job": HEALTHY})
JOB = container("job", health="unhealthy")


@on_virtual_time
async def test_what_was_begun_is_stopped_when_a_start_fails() -> None:
    """All or nothing."""
    engine = FakeEngine(FAILING, DB, JOB)
    with pytest.raises(StartFailed, match="job-1 is unhealthy"):
        await stack(engine).up([FAILING, DB, JOB], FAILING, 10.0, nobody)

    assert set() == engine.up()


@on_virtual_time
async def test_one_that_cannot_be_stopped_keeps_no_other_up() -> None:
    """A refusal of the engine ends neither the giving up nor the reason for it."""
    engine = FakeEngine(FAILING, DB, JOB)
    engine.refuses = JOB.id
    with pytest.raises(StartFailed, match="job-1 is unhealthy"):
        await stack(engine).up([FAILING, DB, JOB], FAILING, 10.0, nobody)

    assert {"job"} == engine.up()


@on_virtual_time
async def test_what_others_use_by_then_is_left_to_them() -> None:
    """A failed start takes nothing away from a service that came to use it meanwhile."""
    engine = FakeEngine(FAILING, DB, JOB)

    async def sharing() -> IsShared:
        return used("db")

    with pytest.raises(StartFailed):
        await stack(engine).up([FAILING, DB, JOB], FAILING, 10.0, sharing)

    assert {"db"} == engine.up()


@on_virtual_time
async def test_the_last_of_two_that_fail_leaves_nothing() -> None:
    """What the first left for the second, which failed too, is the second's to stop."""
    engine = FakeEngine(FAILING, DB, JOB)
    one, both = stack(engine), [FAILING, DB, JOB]

    async def sharing() -> IsShared:
        return used("db")

    with pytest.raises(StartFailed):
        await one.up(both, FAILING, 10.0, sharing)
    between = engine.up()
    with pytest.raises(StartFailed):
        await one.up([FAILING, engine.there[DB.id], JOB], FAILING, 10.0, nobody)

    assert ({"db"}, set()) == (between, engine.up())


@on_virtual_time
async def test_what_nobody_can_tell_is_left_up() -> None:
    """An engine that does not say who uses it is not asked to stop it either."""
    engine = FakeEngine(FAILING, DB, JOB)

    async def sharing() -> IsShared:
        raise EngineUnreachable("silent")

    with pytest.raises(StartFailed):
        await stack(engine).up([FAILING, DB, JOB], FAILING, 10.0, sharing)

    assert {"db", "job"} == engine.up()
