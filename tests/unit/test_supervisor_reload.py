"""autostart/supervisor: a map that is read again while services are in use."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from autostart import errors
from autostart.config import ServiceConfig
from autostart.lifecycle import RestartRequested, StopRequested
from tests.fakes.runtime import FakeMachine, FakeRuntime
from tests.unit.supervisor_stage import HOST, WHISPER, Stage, changed, now, settle
from tests.unit.virtual_time import on_virtual_time

OTHER = changed(host="other.example.com", port=8002)
MOVED = changed(port=9001)
IN_COMPOSE = replace(WHISPER, command=None, compose=Path("compose.yaml"))


class RecordingRuntime(FakeRuntime):
    """Remembers with which declaration each verb came."""

    def __init__(self, machine: FakeMachine | None = None) -> None:
        super().__init__(machine)
        self.given: list[tuple[str, ServiceConfig]] = []

    async def _called(self, verb: str, service: ServiceConfig) -> None:
        self.given.append((verb, service))
        await super()._called(verb, service)

    def declared(self, host: str = HOST) -> ServiceConfig | None:
        return self._declared.get(host)


# Changed.


@on_virtual_time
async def test_limits_apply_at_once() -> None:
    """A shorter idle time counts from the last use, not from the reload."""
    async with Stage() as stage:
        await stage.ready()
        await asyncio.sleep(10.0)
        stage.reload(changed(idle_seconds=5.0))
        await settle()

        assert "stopped" == stage.place()


@on_virtual_time
async def test_idle_never_applies_at_once() -> None:
    """What is now always wanted is started by the reload."""
    async with Stage() as stage:
        stage.reload(changed(idle_seconds=None))
        await settle()

        assert "ready" == stage.place()


@on_virtual_time
async def test_changed_command_takes_effect_at_the_next_start() -> None:
    """The present run keeps its leases and takes new requests; the next one is from the new map."""
    runtime = RecordingRuntime()
    async with Stage(runtime=runtime) as stage:
        client = stage.request()
        endpoint = await client.is_granted()
        stage.reload(MOVED)
        assert endpoint == await stage.ready()
        await client.finish()
        await asyncio.sleep(60.1)
        await stage.ready()

        assert [("start", WHISPER), ("stop", WHISPER), ("start", MOVED)] == runtime.given


@on_virtual_time
async def test_restart_forces_the_new_declaration() -> None:
    """restart HOST stops by the old declaration and starts by the new one."""
    runtime = RecordingRuntime()
    async with Stage(runtime=runtime) as stage:
        await stage.ready()
        stage.reload(MOVED)
        await stage.ask(RestartRequested)
        await settle()

        assert [("start", WHISPER), ("stop", WHISPER), ("start", MOVED)] == runtime.given
        assert MOVED == runtime.declared()


@on_virtual_time
async def test_adopted_run_is_stopped_by_the_map_that_found_it() -> None:
    """What was there before us has no start of ours to remember; the reload remembers for it."""
    machine = FakeMachine()
    machine.begin(HOST)
    runtime = RecordingRuntime(machine)
    async with Stage(runtime=runtime) as stage:
        stage.reload(MOVED)
        await asyncio.sleep(60.1)

        assert [("stop", WHISPER)] == runtime.given


@on_virtual_time
async def test_run_that_appears_after_the_reload_is_of_the_new_map() -> None:
    """What an earlier run was started from is forgotten with that run."""
    runtime = RecordingRuntime()
    async with Stage(runtime=runtime) as stage:
        await stage.ready()
        await asyncio.sleep(60.1)
        stage.reload(MOVED)
        stage.machine.appear(HOST)
        await asyncio.sleep(60.1)

        assert [("start", WHISPER), ("stop", WHISPER), ("stop", MOVED)] == runtime.given


@on_virtual_time
async def test_declaration_is_renewed_when_the_old_run_ends() -> None:
    """A run that appears then is found where the new map says."""
    runtime = RecordingRuntime()
    async with Stage(runtime=runtime) as stage:
        await stage.ready()
        stage.reload(MOVED)
        assert WHISPER == runtime.declared()
        await asyncio.sleep(60.1)

        assert MOVED == runtime.declared()


@on_virtual_time
async def test_service_may_move_to_another_runtime() -> None:
    """The run is stopped where it runs, and the next one started where the map says now."""
    runtime, other = RecordingRuntime(), RecordingRuntime()
    other.name = "other"
    other.machine.started = 100  # runs of one service never share their identity
    async with Stage(runtime=runtime, other_runtime=other) as stage:
        client = stage.request()
        await client.is_granted()
        stage.reload(IN_COMPOSE)
        await stage.supervisor.prepare(HOST)
        await client.finish()
        await asyncio.sleep(60.1)
        await stage.ready()

        assert [("start", WHISPER), ("stop", WHISPER)] == runtime.given
        assert [("prepare", IN_COMPOSE), ("start", IN_COMPOSE)] == other.given
        assert (None, IN_COMPOSE) == (runtime.declared(), other.declared())


@on_virtual_time
async def test_exclusive_name_that_left_the_map_holds_nobody_in_the_queue() -> None:
    """A service that queued for a place has one of its own now."""
    first = changed(host="first.example.com", exclusive="gpu0")
    second = changed(host="second.example.com", exclusive="gpu0")
    async with Stage(first, second) as stage:
        using = stage.request(first.host)
        await using.is_granted()
        wanting = stage.request(second.host)
        await settle()
        assert "queued" == stage.place(second.host)
        stage.reload(first, changed(second, exclusive=None))
        await wanting.is_granted()

        await using.finish()
        await wanting.finish()


@on_virtual_time
async def test_reload_that_changes_nothing_changes_nothing() -> None:
    """Nobody is woken, stopped, refused or held."""
    async with Stage(WHISPER, OTHER) as stage:
        client = stage.request()
        await client.is_granted()
        before = stage.supervisor.snapshot()
        stage.reload(WHISPER, OTHER)
        await settle()

        assert before == stage.supervisor.snapshot()
        await client.finish()


# Removed.


@on_virtual_time
async def test_removed_service_finishes_its_leases_and_is_stopped() -> None:
    """New requests find no such host; the old ones end; then it is stopped and forgotten."""
    runtime = RecordingRuntime()
    async with Stage(WHISPER, OTHER, runtime=runtime) as stage:
        client = stage.request()
        await client.is_granted()
        stage.reload(OTHER)

        assert isinstance(await stage.request().refusal(), errors.UnknownHost)
        await asyncio.sleep(600.0)
        assert "ready" == stage.place()
        await client.finish()
        await settle()
        assert [OTHER.host] == list(stage.supervisor.snapshot())
        assert {} == stage.machine.runs
        assert None is runtime.declared()


@on_virtual_time
async def test_removed_service_that_is_stopped_is_forgotten_at_once() -> None:
    """There is nothing to wait for."""
    async with Stage(WHISPER, OTHER) as stage:
        stage.reload(OTHER)

        assert [OTHER.host] == list(stage.supervisor.snapshot())
        with pytest.raises(errors.UnknownService):
            await stage.ask(StopRequested)


@on_virtual_time
async def test_removed_service_serves_who_waits_for_its_start() -> None:
    """Held requests were accepted: they are served, then it is stopped."""
    async with Stage() as stage:
        stage.probe.ready_after_seconds = 3.0
        client = stage.request()
        await settle()
        stage.reload()
        await client.is_granted()
        await client.finish()
        await settle()

        assert ({}, {}) == (stage.supervisor.snapshot(), stage.machine.runs)


@on_virtual_time
async def test_request_that_waits_for_a_stop_of_what_is_removed_is_refused() -> None:
    """No start will follow: it is told so as soon as the stop has ended."""
    async with Stage(changed(idle_seconds=5.0)) as stage:
        await stage.ready()
        stage.runtime.hold("stop")
        await asyncio.sleep(5.1)
        client = stage.request()
        await settle()
        stage.reload()
        stage.runtime.let_go("stop")

        assert isinstance(await client.refusal(), errors.UnknownHost)
        assert {} == stage.supervisor.snapshot()


@on_virtual_time
async def test_removed_service_with_a_job_is_stopped_after_it() -> None:
    """busy counts for what left the map as well; it is asked every 30 s, not all the time."""
    async with Stage(changed(busy="/busy")) as stage:
        stage.probe.busy = True
        await stage.ready()
        stage.reload()
        await asyncio.sleep(100.0)
        assert 4 == len(stage.probe.asked_busy)
        stage.probe.busy = False
        await asyncio.sleep(30.0)

        assert {} == stage.supervisor.snapshot()


@on_virtual_time
async def test_service_that_comes_back_while_it_runs_goes_on() -> None:
    """Removed and added again before it stopped: same run, same leases."""
    async with Stage() as stage:
        client = stage.request()
        endpoint = await client.is_granted()
        stage.reload()
        await asyncio.sleep(10.0)
        stage.reload(WHISPER)

        assert endpoint == await stage.ready()
        await client.finish()
        assert ("ready", 1) == (stage.place(), stage.calls("start"))


@on_virtual_time
async def test_service_that_comes_back_after_it_stopped_is_new() -> None:
    """It starts like any other."""
    async with Stage() as stage:
        await stage.ready()
        stage.reload()
        await settle()
        stage.reload(WHISPER)
        await stage.ready()

        assert 2 == stage.calls("start")


@on_virtual_time
async def test_late_release_of_a_forgotten_service_does_not_touch_its_successor() -> None:
    """The client of a run that crashed lets go after the host was removed and added again."""
    async with Stage() as stage:
        client = stage.request()
        await client.is_granted()
        stage.machine.end(HOST)
        await settle()
        stage.reload()
        await settle()
        stage.reload(WHISPER)
        other = stage.request()
        await other.is_granted()
        await client.finish()

        assert 1 == len(stage.service().leases)
        await other.finish()


# Added.


@on_virtual_time
async def test_added_service_is_served() -> None:
    """A request for it is one of the new map."""
    async with Stage() as stage:
        assert isinstance(await stage.request(OTHER.host).refusal(), errors.UnknownHost)
        stage.reload(WHISPER, OTHER)
        await stage.ready(OTHER.host)

        assert "ready" == stage.place(OTHER.host)


@on_virtual_time
async def test_added_service_that_is_always_wanted_is_declared_before_it_is_started() -> None:
    """A runtime starts only what it was told of."""
    async with Stage() as stage:
        stage.reload(WHISPER, changed(OTHER, idle_seconds=None))
        await settle()

        assert "ready" == stage.place(OTHER.host)


@on_virtual_time
async def test_added_service_that_runs_already_is_adopted() -> None:
    """It is found by looking, used, and stopped when idle like any other."""
    async with Stage() as stage:
        running = stage.machine.begin(OTHER.host)
        stage.reload(WHISPER, OTHER)
        await settle()

        assert ("ready", running) == (stage.place(OTHER.host), stage.service(OTHER.host).endpoint)
        await asyncio.sleep(60.1)
        assert "stopped" == stage.place(OTHER.host)


@on_virtual_time
async def test_reload_during_a_herd_loses_nobody() -> None:
    """Requests before, between and after two reloads are all served by one start."""
    async with Stage(changed(max_waiting=300)) as stage:
        stage.probe.ready_after_seconds = 3.0
        clients = [stage.request() for _ in range(50)]
        await settle()
        stage.reload(changed(max_waiting=300, idle_seconds=5.0))
        clients += [stage.request() for _ in range(50)]
        await settle()
        stage.reload(changed(max_waiting=300, idle_seconds=7.0), OTHER)
        clients += [stage.request() for _ in range(50)]
        for client in clients:
            await client.is_granted()
            await client.finish()

        assert 1 == stage.calls("start")
        assert pytest.approx(now() + 7.0) == stage.service().idle_due()


@on_virtual_time
async def test_watchers_are_told_what_came_into_the_map_and_what_left_it() -> None:
    """Each by its host; whether it is there still is seen by who looks."""
    async with Stage() as stage:
        touched: list[str] = []
        stage.supervisor.watchers.append(touched.append)
        stage.reload(OTHER)
        await settle()

        assert {HOST, OTHER.host} == set(touched)
        assert [OTHER.host] == list(stage.supervisor.snapshot())
