"""When runs are asked what they use, and what an engine that does not answer costs."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from structlog.testing import capture_logs

from autostart import errors
from autostart.app.sampling import (
    ASKED_AT_ONCE,
    FRESH_SECONDS,
    ROUND_SECONDS,
    SAMPLE_SECONDS,
    SETTLED_SECONDS,
    Sampling,
)
from autostart.config import ServiceConfig
from autostart.lifecycle import Service, State
from autostart.runtimes.base import Usage
from autostart.schedule import idle_due_seconds
from autostart.telemetry import Days, Transition
from tests.unit.supervisor_stage import StageClock
from tests.unit.virtual_time import on_virtual_time

HUNG, GONE, REFUSING, BROKEN = "hung", "gone", "refusing", "broken"


class Engine:
    """A runtime of which only `usage` is asked; some hosts make it misbehave."""

    def __init__(self, name: str, **trouble: str) -> None:
        self.name = name
        self.trouble = trouble
        self.asked: Counter[str] = Counter()
        self.at_once = self.at_once_most = 0

    async def usage(self, service: ServiceConfig) -> Usage | None:
        self.asked[service.host] += 1
        self.at_once += 1
        self.at_once_most = max(self.at_once, self.at_once_most)
        try:
            await asyncio.sleep(0.01)
            match self.trouble.get(service.host, self.trouble.get("all")):
                case "hung":
                    await asyncio.sleep(3_600)
                case "gone":
                    raise errors.EngineUnreachable("the engine does not answer")
                case "refusing":
                    raise errors.AutostartError("no")
                case "broken":
                    raise ZeroDivisionError
                case "asleep":
                    return None
        finally:
            self.at_once -= 1
        return Usage(memory_bytes=len(service.host), cpu_seconds=0.5)


def up(host: str, **config: Any) -> Service:
    return Service(ServiceConfig(host, **config), state=State.READY, since=1_000.0)


class Stage:
    """Services on engines: those whose host begins with "d" on docker, the others as processes."""

    def __init__(self, *services: Service, **trouble: str) -> None:
        self.fleet = {service.config.host: service for service in services}
        self.docker = Engine("docker", **trouble)
        self.process = Engine("process")
        self.clock = StageClock()
        self.days = Days(None, self.clock.now())
        self.sampling = Sampling(
            snapshot=lambda: self.fleet,
            runtime_of=self._runtime_of,
            clock=self.clock,
            days=self.days,
        )

    def _runtime_of(self, service: ServiceConfig) -> Any:
        return self.docker if service.host.startswith("d") else self.process

    async def memory(self) -> dict[str, int | None]:
        samples = await self.sampling.samples()
        return {host: sample.memory_bytes for host, sample in samples.items()}

    def become(self, host: str, state: State) -> None:
        before, after = self.fleet[host], replace(self.fleet[host], state=state)
        self.fleet[host] = after
        self.sampling.record(Transition(host, before, after, "test", self.clock.now()))


async def elapsed(seconds: Callable[[], Any]) -> float:
    began = asyncio.get_running_loop().time()
    await seconds()
    return asyncio.get_running_loop().time() - began


@on_virtual_time
async def test_what_runs_is_asked_and_what_sleeps_is_not() -> None:
    """In the order of the map, with the figures of the engine."""
    asleep = replace(up("asleep"), state=State.STOPPED)
    stage = Stage(up("dd"), asleep, up("p"))

    assert await stage.memory() == {"dd": 2, "p": 1}
    assert set(stage.docker.asked + stage.process.asked) == {"dd", "p"}


@on_virtual_time
async def test_two_questions_in_a_moment_are_asked_once() -> None:
    """At the same time, or within FRESH_SECONDS, the engine is asked once for all who want to know.

    Whoever asked first may leave: the others get their answer.
    """
    stage = Stage(up("p"))
    first = asyncio.ensure_future(stage.memory())
    second = asyncio.ensure_future(stage.memory())
    await asyncio.sleep(0.001)
    first.cancel()
    told = await second
    await asyncio.sleep(FRESH_SECONDS / 2)
    await stage.memory()
    fresh = stage.process.asked["p"]
    await asyncio.sleep(FRESH_SECONDS)
    await stage.memory()

    assert told == {"p": 1}
    assert (fresh, stage.process.asked["p"]) == (1, 2)


@on_virtual_time
async def test_a_hung_engine_hides_nobody_elses_figures() -> None:
    """All wait for one deadline together; what did not answer is null."""
    stage = Stage(up("d1"), up("p"), up("d2"), all=HUNG)

    assert await elapsed(stage.memory) < ROUND_SECONDS + 0.1
    assert await stage.memory() == {"d1": None, "p": 1, "d2": None}


@on_virtual_time
async def test_one_hung_service_hides_nobody_elses_figures() -> None:
    """The other questions to its engine go on beside it."""
    stage = Stage(up("d1"), up("d2"), up("d3"), d1=HUNG)

    assert await stage.memory() == {"d1": None, "d2": 2, "d3": 2}


@on_virtual_time
async def test_an_engine_that_is_away_is_not_asked_for_each_service() -> None:
    """After the first refusal the rest of its services are null at once."""
    services = [up(f"d{number}") for number in range(100)]
    stage = Stage(*services, up("p"), all=GONE)
    memory = await stage.memory()

    assert memory.pop("p") == 1
    assert set(memory.values()) == {None}
    assert stage.docker.asked.total() <= ASKED_AT_ONCE


@on_virtual_time
async def test_a_service_of_its_own_trouble_is_null_alone() -> None:
    """A refusal, no run any more, or a bug of ours: the others are told; a bug is logged."""
    stage = Stage(up("d1"), up("d2"), up("d3"), up("d4"), d1=REFUSING, d2=BROKEN, d3="asleep")
    with capture_logs() as logs:
        memory = await stage.memory()

    assert memory == {"d1": None, "d2": None, "d3": None, "d4": 2}
    assert [line["event"] for line in logs] == ["bug"]


@on_virtual_time
async def test_few_questions_are_under_way_at_once() -> None:
    """Starts and probes go through the same threads of the engine."""
    stage = Stage(*(up(f"d{number}") for number in range(20)))
    memory = await stage.memory()

    assert len(memory) == 20
    assert stage.docker.at_once_most == ASKED_AT_ONCE


@on_virtual_time
async def test_a_run_is_sampled_once_a_minute() -> None:
    """And the days learn what it usually takes, and how long it was awake."""
    stage = Stage(up("p"))
    stage.sampling.start()
    await asyncio.sleep(10 * SAMPLE_SECONDS + 1)
    await stage.sampling.close()

    assert stage.process.asked["p"] == 10
    assert stage.days.usages.usual_memory_bytes("p") == 1
    assert round(stage.days.sleep.awake_seconds["p"]) == 10 * SAMPLE_SECONDS


@on_virtual_time
async def test_a_short_run_is_sampled_too() -> None:
    """A moment after it became ready, unless it has gone by then; no other is asked then."""
    stage = Stage(up("p"), up("q"), up("r"))
    stage.sampling.start()
    stage.become("p", State.READY)
    stage.become("q", State.READY)
    await asyncio.sleep(SETTLED_SECONDS / 2)
    stage.become("q", State.STOPPED)
    await asyncio.sleep(SETTLED_SECONDS)
    await stage.sampling.close()

    assert stage.process.asked == {"p": 1}


@on_virtual_time
async def test_a_run_that_begins_delays_nobody_elses_sample() -> None:
    """Where one service starts twice a minute, one that runs all day is sampled all the same."""
    stage = Stage(up("p"), up("q"))
    stage.sampling.start()
    for _ in range(20):
        stage.become("q", State.STOPPED)
        stage.become("q", State.READY)
        await asyncio.sleep(SAMPLE_SECONDS / 2)
    await asyncio.sleep(1)
    await stage.sampling.close()

    assert stage.process.asked["p"] == 10


@on_virtual_time
async def test_a_bug_does_not_end_the_account() -> None:
    """It is logged, and the next round is asked."""
    stage = Stage(up("p"))
    look = stage.days.pass_to
    broken = [True]

    def fail_once(*arguments: Any) -> None:
        if broken:
            broken.pop()
            raise ZeroDivisionError
        look(*arguments)

    stage.days.pass_to = fail_once  # type: ignore[method-assign]  # the bug
    stage.sampling.start()
    with capture_logs() as logs:
        await asyncio.sleep(2 * SAMPLE_SECONDS + 1)
    await stage.sampling.close()

    assert [line["event"] for line in logs] == ["bug"]
    assert round(stage.days.sleep.awake_seconds["p"]) == 2 * SAMPLE_SECONDS


@on_virtual_time
async def test_no_sample_is_a_use_of_the_service() -> None:
    """Its idle date stays where it was: nothing was asked of the service itself."""
    stage = Stage(up("p", idle_seconds=3_600.0))
    due = idle_due_seconds(stage.fleet["p"], stage.clock.now())
    stage.sampling.start()
    await asyncio.sleep(SAMPLE_SECONDS + 1)
    await stage.memory()
    await stage.sampling.close()
    assert due is not None
    left = idle_due_seconds(stage.fleet["p"], stage.clock.now())

    assert left is not None
    assert round(due - left) == SAMPLE_SECONDS + 1


@on_virtual_time
async def test_closing_ends_a_round_under_way() -> None:
    """An engine that hangs does not keep autostart from ending; a second close does nothing."""
    stage = Stage(up("d1"), all=HUNG)
    stage.sampling.start()
    asking = asyncio.ensure_future(stage.memory())
    await asyncio.sleep(0.1)
    took = await elapsed(stage.sampling.close)
    await stage.sampling.close()
    asking.cancel()

    assert took < 0.1
