"""Every runtime keeps the contract of autostart/runtimes/base.py, clause by clause: what it does.

What it reports is in test_runtime_reports.py.
"""

from __future__ import annotations

import asyncio

import pytest

from autostart.errors import PortTaken, StartFailed
from autostart.lifecycle import Endpoint
from autostart.runtimes.base import Exited, Runtime
from tests.contract.workbenches import (
    DEADLINE_SECONDS,
    HOST,
    OTHER,
    Workbench,
    next_change,
    no_change,
)


async def started(bench: Workbench, runtime: Runtime) -> Endpoint:
    """Start HOST and wait until its program has begun, as it has long before we can restart."""
    endpoint = await runtime.start(bench.service(HOST))
    await bench.settled(bench.service(HOST), endpoint)
    return endpoint


# declare


async def test_undeclared_runs_are_left_alone_and_not_reported(bench, runtime):
    """A run whose service is no longer declared stays, and is neither listed nor reported."""
    endpoint = await runtime.start(bench.service(HOST))

    runtime.declare([bench.service(OTHER)])

    assert await runtime.running() == {}
    assert bench.is_there(endpoint)
    await bench.end(endpoint)
    assert await no_change(runtime)


async def test_a_service_declared_again_is_seen_again(bench, runtime):
    """What runs is found when its service comes back into the map."""
    endpoint = await runtime.start(bench.service(HOST))
    runtime.declare([])

    runtime.declare([bench.service(HOST)])

    assert await runtime.running() == {HOST: endpoint}


async def test_only_declared_services_are_started_or_stopped(bench, runtime):
    """To start or stop what is not declared is a bug of the caller."""
    for verb in (runtime.start, runtime.stop):
        with pytest.raises(AssertionError, match=r"c\.example\.com is not declared"):
            await verb(bench.service("c.example.com"))


# prepare


async def test_nothing_needs_preparation_after_prepare(bench, runtime):
    """After prepare there is nothing left to prepare, and a second one does nothing."""
    service = bench.service(HOST)
    lines: list[str] = []

    await runtime.prepare(service, lines.append)
    told = len(lines)
    await runtime.prepare(service, lines.append)

    assert await runtime.needs_preparation(service) is False
    assert len(lines) == told


# start


async def test_start_brings_up_a_run(bench, runtime):
    """Stopped: a new run, at an endpoint on this machine."""
    service = bench.service(HOST)

    endpoint = await runtime.start(service)

    await bench.settled(service, endpoint)
    assert bench.is_there(endpoint)
    assert endpoint.port > 0
    assert await runtime.running() == {HOST: endpoint}


async def test_start_of_a_running_service_returns_its_run(bench, runtime):
    """Running: the endpoint of that run, no second one."""
    service = bench.service(HOST)
    first = await runtime.start(service)

    assert await runtime.start(service) == first


async def test_concurrent_starts_bring_up_one_run(bench, runtime):
    """However many ask at once, there is one run."""
    service = bench.service(HOST)

    endpoints = await asyncio.gather(*(runtime.start(service) for _ in range(10)))

    assert len(set(endpoints)) == 1


async def test_services_start_side_by_side(bench, runtime):
    """Two services have two runs on two ports."""
    first, second = await asyncio.gather(
        runtime.start(bench.service(HOST)), runtime.start(bench.service(OTHER))
    )

    assert await runtime.running() == {HOST: first, OTHER: second}
    assert first.port != second.port
    assert first.run != second.run


async def test_a_declared_port_is_the_runs_port(bench, runtime):
    """The endpoint of a service with a port is at that port."""
    with bench.stranger() as port:
        pass

    service = bench.service(HOST, port=port)
    runtime.declare([service])

    endpoint = await runtime.start(service)

    assert endpoint.port == port


async def test_a_port_held_by_a_stranger_is_named(bench, runtime):
    """Another's program on the port: PortTaken names it, and nothing is started."""
    with bench.stranger() as port:
        service = bench.service(HOST, port=port)
        runtime.declare([service])
        with pytest.raises(PortTaken, match=rf"port {port} is taken by pid \d+ \(.+\)"):
            await runtime.start(service)

        assert await runtime.running() == {}
        assert await no_change(runtime)


async def test_a_port_that_became_free_is_used(bench, runtime):
    """The refusal ends with its cause."""
    with bench.stranger() as port:
        service = bench.service(HOST, port=port)
        runtime.declare([service])
        with pytest.raises(PortTaken):
            await runtime.start(service)

    endpoint = await runtime.start(service)

    await bench.settled(service, endpoint)
    assert endpoint.port == port


async def test_a_failed_start_leaves_nothing(bench, runtime):
    """A start that fails says why, leaves no run and reports none; the next one may work."""
    service = bench.service(HOST)
    with pytest.raises(StartFailed):
        await runtime.start(bench.breaking(runtime, service))

    assert await runtime.running() == {}
    assert await no_change(runtime)
    assert bench.is_there(await runtime.start(service))


async def test_a_cancelled_start_leaves_nothing(bench, make):
    """Wherever a cancellation meets a start: no run without an endpoint for the caller."""
    service = bench.service(HOST)
    for steps in range(12):
        runtime = make()
        start = asyncio.ensure_future(runtime.start(service))
        for _ in range(steps):
            await asyncio.sleep(0)
        start.cancel()
        (endpoint,) = await asyncio.gather(start, return_exceptions=True)

        if isinstance(endpoint, asyncio.CancelledError):
            expected = {}
        else:
            await bench.settled(service, endpoint)
            expected = {HOST: endpoint}
        assert await make().running() == expected
        await runtime.stop(service)


async def test_two_runs_never_share_their_identity(bench, runtime):
    """A service that is started again has a new run."""
    service = bench.service(HOST)
    first = await runtime.start(service)
    await runtime.stop(service)

    second = await runtime.start(service)

    assert first.run != second.run


# stop


async def test_stop_ends_the_run(bench, runtime):
    """Running: it is gone when stop returns, and its end is reported as any other."""
    service = bench.service(HOST)
    endpoint = await runtime.start(service)

    await runtime.stop(service)

    assert not bench.is_there(endpoint)
    assert await runtime.running() == {}
    change = await next_change(runtime)
    assert isinstance(change, Exited)
    assert change.run == endpoint.run


async def test_stop_of_a_stopped_service_returns(bench, runtime):
    """Stopped, or never started: nothing to do."""
    service = bench.service(HOST)

    await runtime.stop(service)
    await runtime.start(service)
    await runtime.stop(service)
    await runtime.stop(service)

    assert await runtime.running() == {}


async def test_stop_forces_what_does_not_stop(bench, runtime):
    """Who ignores the question is ended after stop_timeout."""
    service = bench.stubborn(bench.service(HOST, stop_timeout_seconds=0.3))
    endpoint = await runtime.start(service)
    await bench.settled(service, endpoint)

    async with asyncio.timeout(DEADLINE_SECONDS):
        await runtime.stop(service)

    assert not bench.is_there(endpoint)


async def test_stop_leaves_other_services_alone(bench, runtime):
    """A stop ends one service's run and no other."""
    await runtime.start(bench.service(HOST))
    other = await runtime.start(bench.service(OTHER))

    await runtime.stop(bench.service(HOST))

    assert await runtime.running() == {OTHER: other}
    assert bench.is_there(other)


async def test_a_start_during_a_stop_brings_up_a_new_run(bench, runtime):
    """A start that comes while a stop is under way waits for it and starts anew."""
    service = bench.service(HOST)
    first = await runtime.start(service)
    await bench.settled(service, first)

    _, second = await asyncio.gather(runtime.stop(service), runtime.start(service))

    assert second.run != first.run
    assert await runtime.running() == {HOST: second}
    assert not bench.is_there(first)


# running, and what a restart of autostart finds


async def test_nothing_runs_on_a_new_machine(runtime):
    """Without runs, running is empty."""
    assert await runtime.running() == {}


async def test_a_new_runtime_finds_the_runs_of_the_last(bench, make):
    """A run started by an earlier autostart is found, with the same endpoint and identity."""
    endpoint = await started(bench, make())

    assert await make().running() == {HOST: endpoint}


async def test_runs_stay_when_a_runtime_closes(bench, make):
    """Closing lets go of watches, not of runs."""
    first = make()
    endpoint = await started(bench, first)

    await first.close()

    assert bench.is_there(endpoint)
    assert await make().running() == {HOST: endpoint}


async def test_start_returns_the_run_of_an_earlier_autostart(bench, make):
    """Even who never asked what runs does not start it twice."""
    endpoint = await started(bench, make())

    assert await make().start(bench.service(HOST)) == endpoint


async def test_stop_ends_the_run_of_an_earlier_autostart(bench, make):
    """Even who never asked what runs can stop it."""
    endpoint = await started(bench, make())

    await make().stop(bench.service(HOST))

    assert not bench.is_there(endpoint)


async def test_the_end_of_a_found_run_is_reported(bench, make):
    """A run that was found is watched like one that was started."""
    first = make()
    endpoint = await started(bench, first)
    await first.close()
    second = make()
    await second.running()

    await bench.end(endpoint)

    change = await next_change(second)
    assert isinstance(change, Exited)
    assert (change.host, change.run) == (HOST, endpoint.run)
