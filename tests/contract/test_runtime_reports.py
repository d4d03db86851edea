"""Every runtime keeps the contract of autostart/runtimes/base.py: what it reports."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import pytest

from autostart.config import ServiceConfig
from autostart.errors import EngineUnreachable
from autostart.runtimes.base import Change, Exited, Found, Lost, Runtime
from tests.contract.workbenches import DEADLINE_SECONDS, ENGINES, HOST, next_change, no_change


async def lines_of(runtime: Runtime, service: ServiceConfig, lines: int) -> list[str]:
    return [line async for line in runtime.logs(service, lines, follow=False)]


# the end of a run


async def test_a_run_that_ends_is_reported_once(bench, runtime):
    """Its end is reported with its identity and a reason, once."""
    endpoint = await runtime.start(bench.service(HOST))

    await bench.end(endpoint)
    change = await next_change(runtime)

    assert isinstance(change, Exited)
    assert (change.host, change.run) == (HOST, endpoint.run)
    assert change.reason
    assert await no_change(runtime)
    assert await runtime.running() == {}


async def test_a_service_starts_again_after_its_run_ended(bench, runtime):
    """A new run can be asked for before anybody has heard of the end of the old one."""
    service = bench.service(HOST)
    first = await runtime.start(service)
    await bench.end(first)

    second = await runtime.start(service)

    change = await next_change(runtime)
    assert isinstance(change, Exited)
    assert change.run == first.run
    assert await runtime.running() == {HOST: second}
    assert await no_change(runtime)


async def test_no_change_is_lost_with_its_consumer(bench, runtime):
    """What happens while nobody listens is told to the next who does."""
    endpoint = await runtime.start(bench.service(HOST))
    first_consumer = asyncio.ensure_future(next_change(runtime))
    await asyncio.sleep(0.01)
    first_consumer.cancel()
    await asyncio.gather(first_consumer, return_exceptions=True)

    await bench.end(endpoint)

    change = await next_change(runtime)
    assert isinstance(change, Exited)
    assert change.run == endpoint.run


async def test_no_change_is_lost_in_the_hands_of_its_consumer(bench, make):
    """Wherever a cancellation meets a consumer, the change is told to it or to the next."""
    for steps in range(12):
        runtime = make()
        endpoint = await runtime.start(bench.service(HOST))
        await bench.end(endpoint)
        await asyncio.sleep(0.01)
        consumer = asyncio.ensure_future(next_change(runtime))
        for _ in range(steps):
            await asyncio.sleep(0)
        consumer.cancel()
        (told,) = await asyncio.gather(consumer, return_exceptions=True)

        change = await next_change(runtime) if isinstance(told, asyncio.CancelledError) else told
        assert change.run == endpoint.run
        await runtime.close()


async def test_a_closed_runtime_can_be_closed_again(bench, make):
    """Closing twice is closing."""
    first = make()
    await first.start(bench.service(HOST))

    await first.close()
    await first.close()


async def test_changes_end_with_the_runtime(runtime):
    """Who waits for changes is let go when the runtime closes."""

    async def listen() -> list[Change]:
        return [change async for change in runtime.changes()]

    listening = asyncio.ensure_future(listen())
    await asyncio.sleep(0.01)
    await runtime.close()

    assert await asyncio.wait_for(listening, DEADLINE_SECONDS) == []


# the engine, for runtimes that need one


@pytest.mark.parametrize("bench", ENGINES, indirect=True)
async def test_a_silent_engine_is_an_error_with_a_name(bench, runtime):
    """Without its engine a runtime says so, in reports and in answers."""
    await bench.lose_engine()

    assert isinstance(await next_change(runtime), Lost)
    for ask in (
        runtime.start(bench.service(HOST)),
        runtime.stop(bench.service(HOST)),
        runtime.running(),
    ):
        with pytest.raises(EngineUnreachable):
            await ask


@pytest.mark.parametrize("bench", ENGINES, indirect=True)
async def test_what_was_missed_follows_when_the_engine_is_back(bench, runtime):
    """A run that ended while nobody could see is reported after Found."""
    endpoint = await runtime.start(bench.service(HOST))
    await bench.lose_engine()
    lost = await next_change(runtime)
    await bench.end(endpoint)
    await bench.find_engine()

    assert isinstance(lost, Lost)
    assert isinstance(await next_change(runtime), Found)
    change = await next_change(runtime)
    assert isinstance(change, Exited)
    assert change.run == endpoint.run


# logs


async def test_logs_are_the_last_lines(bench, runtime):
    """As many lines as asked for, the last ones, without line ends."""
    service = bench.service(HOST)
    endpoint = await runtime.start(service)
    await bench.settled(service, endpoint)
    for line in ("one", "two", "three"):
        await bench.write(service, endpoint, line)

    assert await lines_of(runtime, service, 2) == ["two", "three"]
    assert (await lines_of(runtime, service, 1000))[-3:] == ["one", "two", "three"]
    assert await lines_of(runtime, service, 0) == []


async def test_logs_follow_what_is_written(bench, runtime):
    """With follow, new lines come as they are written."""
    service = bench.service(HOST)
    endpoint = await runtime.start(service)
    await bench.settled(service, endpoint)
    await bench.write(service, endpoint, "before")

    async with asyncio.timeout(DEADLINE_SECONDS):
        async with aclosing(runtime.logs(service, 1, follow=True)) as lines:
            assert await anext(lines) == "before"
            await bench.write(service, endpoint, "after")
            assert await anext(lines) == "after"


async def test_a_service_that_never_ran_has_no_logs(bench, runtime):
    """No run, no line, no error."""
    assert await lines_of(runtime, bench.service(HOST), 10) == []


async def test_logs_outlive_their_run(bench, runtime):
    """Why it ended is read after it ended."""
    service = bench.service(HOST)
    endpoint = await runtime.start(service)
    await bench.settled(service, endpoint)
    await bench.write(service, endpoint, "last words")
    await runtime.stop(service)

    assert await lines_of(runtime, service, 1) == ["last words"]


# usage, diagnose


async def test_usage_is_that_of_the_run(bench, runtime):
    """A run uses memory; without a run there is nothing to tell."""
    service = bench.service(HOST)
    before = await runtime.usage(service)
    endpoint = await runtime.start(service)
    await bench.settled(service, endpoint)

    usage = await runtime.usage(service)

    assert before is None
    assert usage is not None
    assert usage.memory_bytes > 100_000
    assert 0 <= usage.cpu_seconds < 60
    await runtime.stop(service)
    assert await runtime.usage(service) is None


async def test_diagnose_finds_this_machine_able(runtime):
    """Where this suite passes, the doctor has no complaint."""
    findings = await runtime.diagnose()

    assert findings
    assert [finding for finding in findings if not finding.works] == []
