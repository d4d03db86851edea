"""autostart/supervisor: starts and stops that fail, hang, cross, or meet a bug; nobody hangs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from autostart import errors
from autostart.config import ServiceConfig
from autostart.lifecycle import (
    Endpoint,
    Exited,
    RestartRequested,
    StartRequested,
    StopRequested,
)
from autostart.probe import BusyUnknown
from autostart.runtimes.base import STOP_GRACE_SECONDS, Change
from autostart.supervisor.execution import LOOK_SECONDS
from tests.fakes.runtime import FakeMachine, FakeRuntime
from tests.unit.supervisor_stage import HOST, WHISPER, Stage, changed, now, settle
from tests.unit.virtual_time import STARTED_AT, on_virtual_time

NEVER = changed(idle_seconds=None)


class HangingRuntime(FakeRuntime):
    """Ignores cancellation of `verb` for `hangs_seconds`: what no runtime should do."""

    def __init__(self, verb: str, hangs_seconds: float) -> None:
        super().__init__()
        self._verb = verb
        self._hangs_seconds = hangs_seconds

    async def _called(self, verb: str, service: ServiceConfig) -> None:
        await super()._called(verb, service)
        if verb == self._verb:
            until = now() + self._hangs_seconds
            while now() < until:
                try:
                    await asyncio.sleep(until - now())
                except asyncio.CancelledError:
                    continue


# Starts that fail.


@on_virtual_time
async def test_run_that_exits_while_starting_refuses_at_once() -> None:
    """Who waits does not wait for the timeout of a run that is dead."""
    async with Stage() as stage:
        stage.probe.ready_after_seconds = 29.0
        client = stage.request()
        await settle()
        stage.machine.end(HOST, "exit code 3")
        refusal = await client.refusal()

        assert isinstance(refusal, errors.StartFailed)
        assert "exit code 3" in refusal.message
        assert STARTED_AT + 0.1 > now()


@on_virtual_time
async def test_end_of_a_run_that_is_heard_before_its_start_fails_it() -> None:
    """The runtime tells of the end while its start still returns."""
    async with Stage() as stage:
        stage.probe.ready_after_seconds = 29.0
        stage.runtime.hold("start")
        client = stage.request()
        await settle()
        stage.supervisor.post(HOST, Exited("run-1", "exit code 3"))
        stage.runtime.let_go("start")
        refusal = await client.refusal()

        assert isinstance(refusal, errors.StartFailed)
        assert STARTED_AT + 0.1 > now()


@on_virtual_time
async def test_run_that_is_never_ready_is_stopped_and_backed_off_from() -> None:
    """At start_timeout who waits gets a 504, the run is stopped, the next waits five seconds."""
    async with Stage(changed(hold_timeout_seconds=100.0)) as stage:
        stage.probe.ready_after_seconds = 1000.0
        refusal = await stage.request().refusal()
        failed_at = now()

        assert isinstance(refusal, errors.StartTimeout)
        assert pytest.approx(STARTED_AT + 30.0, abs=0.01) == failed_at
        await settle()
        assert ("failed", {}) == (stage.place(), stage.machine.runs)
        early = await stage.request().refusal()
        assert isinstance(early, errors.BackingOff)
        assert early.retry_after_seconds == pytest.approx(5.0, abs=0.01)
        stage.probe.ready_after_seconds = 0.0
        await asyncio.sleep(5.0)
        await stage.ready()


@on_virtual_time
async def test_start_and_probe_share_the_start_timeout() -> None:
    """What the runtime took is no longer there for the probe."""
    async with Stage(changed(hold_timeout_seconds=100.0)) as stage:
        stage.runtime.hold("start")
        stage.probe.ready_after_seconds = 1000.0
        client = stage.request()
        await asyncio.sleep(20.0)
        stage.runtime.let_go("start")
        await client.refusal()

        assert pytest.approx(STARTED_AT + 30.0, abs=0.01) == now()


@on_virtual_time
async def test_start_that_hangs_is_cancelled_at_the_timeout() -> None:
    """A runtime that does not return in time has failed to start."""
    async with Stage(changed(hold_timeout_seconds=100.0)) as stage:
        stage.runtime.hold("start")
        refusal = await stage.request().refusal()

        assert isinstance(refusal, errors.StartTimeout)
        assert pytest.approx(STARTED_AT + 30.0, abs=0.01) == now()


@pytest.mark.parametrize(
    "error",
    [
        errors.StartFailed("no such program"),
        errors.PortTaken("port 8001 is taken by pid 7 (nginx)"),
        errors.EngineUnreachable("the engine does not answer"),
    ],
    ids=lambda error: error.code,
)
@on_virtual_time
async def test_error_of_the_runtime_reaches_everybody_who_waits(error: errors.Refusal) -> None:
    """Each gets it as its own, with when to come back."""
    async with Stage() as stage:
        stage.runtime.fail("start", HOST, error)
        stage.runtime.hold("start")
        clients = [stage.request() for _ in range(3)]
        await settle()
        stage.runtime.let_go("start")
        refusals = [await client.refusal() for client in clients]

        for refusal in refusals:
            assert isinstance(refusal, type(error))
            assert (error.message, 5.0) == (refusal.message, refusal.retry_after_seconds)
        assert 3 == len({id(refusal) for refusal in refusals})


@on_virtual_time
async def test_engine_that_is_away_is_not_hammered() -> None:
    """What is always wanted is tried every five seconds, and comes up when the engine is back."""
    async with Stage(NEVER) as stage:
        stage.machine.lose()
        stage.machine.runs.clear()
        stage.supervisor.post(HOST, Exited(stage.service().endpoint.run, "engine died"))
        await asyncio.sleep(60.0)
        calls = stage.calls("start")
        assert 10 <= calls <= 15
        stage.machine.find()
        await asyncio.sleep(6.0)

        assert "ready" == stage.place()


@on_virtual_time
async def test_never_idle_service_backs_off() -> None:
    """5, 10, 20 … seconds between starts that fail: not a busy loop."""
    async with Stage(NEVER) as stage:
        for _ in range(50):
            stage.runtime.fail("start", HOST, errors.StartFailed("no"))
        stage.machine.end(HOST)
        await asyncio.sleep(75.1)

        # Once before the run ended unproven, and 5, 15, 35 and 75 s after.
        assert 5 == stage.calls("start")


# Preparing.


@on_virtual_time
async def test_pull_or_build_is_not_waited_for() -> None:
    """Who asks meanwhile is told to come back; the start goes on and becomes ready."""
    async with Stage() as stage:
        stage.machine.unprepared.add(HOST)
        stage.runtime.hold("prepare")
        first, second = stage.request(), stage.request()

        assert isinstance(await first.refusal(), errors.Preparing)
        assert isinstance(await second.refusal(), errors.Preparing)
        await asyncio.sleep(600.0)
        assert "preparing" == stage.place()
        stage.runtime.let_go("prepare")
        await settle()
        assert "ready" == stage.place()


@on_virtual_time
async def test_preparation_has_a_deadline() -> None:
    """create_timeout, then it has failed."""
    async with Stage(changed(create_timeout_seconds=1800.0)) as stage:
        stage.machine.unprepared.add(HOST)
        stage.runtime.hold("prepare")
        await stage.request().refusal()
        await asyncio.sleep(1799.0)
        assert "preparing" == stage.place()
        await asyncio.sleep(2.0)

        assert "failed" == stage.place()
        assert isinstance(stage.service().failure, errors.StartFailed)


@on_virtual_time
async def test_operator_prepares_ahead() -> None:
    """The next start finds nothing to prepare, and its requests are held."""
    async with Stage() as stage:
        stage.machine.unprepared.add(HOST)
        await stage.supervisor.prepare(HOST)
        await stage.ready()

        assert [("prepare", HOST), ("start", HOST)] == stage.runtime.calls
        assert {} == stage.supervisor.progress


@on_virtual_time
async def test_progress_of_a_preparation_is_shown() -> None:
    """The last line, by host, while it goes on."""
    async with Stage() as stage:

        async def build(service: ServiceConfig, progress: Any) -> None:
            progress("step 1 of 2")
            await asyncio.sleep(1.0)

        stage.runtime.prepare = build  # type: ignore[method-assign]  # a fake of a fake
        preparing = asyncio.get_running_loop().create_task(stage.supervisor.prepare(HOST))
        await settle()

        assert {HOST: "step 1 of 2"} == stage.supervisor.progress
        await preparing
        assert {} == stage.supervisor.progress


# Stops.


@on_virtual_time
async def test_forced_stop_cancels_the_start() -> None:
    """The start has ended before the stop begins; who waited is told that an operator did it."""
    async with Stage() as stage:
        stage.runtime.hold("start")
        client = stage.request()
        await settle()
        await stage.ask(StopRequested, force=True)

        assert isinstance(await client.refusal(), errors.Held)
        await settle()
        assert ("stopped", {}) == (stage.place(), stage.machine.runs)
        assert [("start", HOST), ("stop", HOST)] == stage.runtime.calls


@on_virtual_time
async def test_request_after_a_cancelled_start_starts_again() -> None:
    """A stop that was not a hold keeps nobody out."""
    async with Stage() as stage:
        stage.runtime.hold("start")
        client = stage.request()
        await settle()
        await stage.ask(StopRequested, force=True)
        again = stage.request()
        stage.runtime.let_go("start")
        await again.is_granted()
        await again.finish()
        await client.refusal()

        assert "ready" == stage.place()


@on_virtual_time
async def test_start_that_ignores_its_cancellation_does_not_hold_the_stop_for_ever() -> None:
    """The stop goes on without it after its own time."""
    runtime = HangingRuntime("start", 1000.0)
    async with Stage(runtime=runtime) as stage:
        client = stage.request()
        await settle()
        began = now()
        runtime._turns.clear()
        await stage.ask(StopRequested, force=True)
        runtime._turns.clear()  # this fake's own lock is not what is tried here
        await client.refusal()
        while stage.place() != "stopped":
            await asyncio.sleep(1.0)

        assert now() - began <= 10.0 + STOP_GRACE_SECONDS + 2.0
        await asyncio.sleep(1000.0)


@on_virtual_time
async def test_stop_that_hangs_is_looked_after() -> None:
    """Beyond its time we look: it still runs, so it is ready, and who waits is served by it."""
    async with Stage(changed(idle_seconds=5.0)) as stage:
        await stage.ready()
        stage.runtime.hold("stop")
        await asyncio.sleep(5.1)
        began = now()
        client = stage.request()
        await client.is_granted()

        assert now() - began <= 10.0 + STOP_GRACE_SECONDS + 0.1
        assert 1 == stage.calls("start")
        await client.finish()


@on_virtual_time
async def test_stop_that_raised_and_worked_is_a_stop() -> None:
    """We look before we believe the error."""
    async with Stage(changed(idle_seconds=5.0)) as stage:
        await stage.ready()
        stage.runtime.fail("stop", HOST, errors.StopFailed("device busy"))
        await asyncio.sleep(4.9)
        stage.machine.runs.clear()
        await asyncio.sleep(0.2)

        assert "stopped" == stage.place()


@on_virtual_time
async def test_stop_that_failed_is_tried_again_after_five_seconds() -> None:
    """Then after ten, until it works."""
    async with Stage(changed(idle_seconds=60.0)) as stage:
        await stage.ready()
        for _ in range(2):
            stage.runtime.fail("stop", HOST, errors.StopFailed("device busy"))
        await asyncio.sleep(60.1)
        assert ("ready", 1) == (stage.place(), stage.calls("stop"))
        await asyncio.sleep(5.0)
        assert ("ready", 2) == (stage.place(), stage.calls("stop"))
        await asyncio.sleep(10.0)
        assert ("stopped", 3) == (stage.place(), stage.calls("stop"))


@on_virtual_time
async def test_request_that_waits_for_a_stop_that_fails_is_not_forgotten() -> None:
    """A restart of what was never ready, and nobody can say whether it is gone: a refusal."""
    async with Stage() as stage:
        stage.runtime.hold("start")
        first = stage.request()
        await settle()
        await stage.ask(RestartRequested)
        second = stage.request()
        stage.machine.lose()
        await settle()

        assert isinstance(await first.refusal(), errors.StartFailed)
        assert isinstance(await second.refusal(), errors.StartFailed)
        assert "failed" == stage.place()


# Busy.

WITH_JOBS = changed(busy="/busy", idle_seconds=60.0)


@on_virtual_time
async def test_job_keeps_the_service_up() -> None:
    """Asked when its idle date is due and every 30 s from then, stopped an idle time after."""
    async with Stage(WITH_JOBS) as stage:
        stage.probe.busy = True
        await stage.ready()
        await asyncio.sleep(200.0)
        assert "ready" == stage.place()
        asked = [round(at - STARTED_AT) for at in stage.probe.asked_busy]
        assert [60, 90, 120, 150, 180] == asked
        stage.probe.busy = False
        await asyncio.sleep(60.0)

        assert "stopped" == stage.place()


@pytest.mark.parametrize("silence", [BusyUnknown("silent"), None], ids=repr)
@on_virtual_time
async def test_silence_is_no_answer_for_five_minutes(silence: Any) -> None:
    """Then it is stopped, whatever kept it from answering."""
    async with Stage(WITH_JOBS) as stage:
        stage.probe.busy = silence
        await stage.ready()
        await asyncio.sleep(60.0 + 299.0)
        assert "ready" == stage.place()
        await asyncio.sleep(32.0)
        assert "stopped" == stage.place()


# Bugs.


@on_virtual_time
async def test_bug_in_a_start_refuses_who_waits() -> None:
    """An error that no runtime may raise is logged, and is a failed start for who waits."""
    async with Stage() as stage:
        stage.runtime.fail("start", HOST, RuntimeError("bug"))  # type: ignore[arg-type]  # the point
        stage.runtime.hold("start")
        clients = [stage.request() for _ in range(3)]
        await settle()
        stage.runtime.let_go("start")

        for client in clients:
            assert isinstance(await client.refusal(), errors.StartFailed)
        await settle()
        assert "failed" == stage.place()


@on_virtual_time
async def test_bug_in_a_preparation_fails_the_start() -> None:
    """It does not stay in preparing for ever."""
    async with Stage() as stage:
        stage.machine.unprepared.add(HOST)
        stage.runtime.fail("prepare", HOST, RuntimeError("bug"))  # type: ignore[arg-type]  # the point
        await stage.request().refusal()
        await settle()

        assert "failed" == stage.place()


@on_virtual_time
async def test_bug_in_a_probe_refuses_who_waits() -> None:
    """A probe that breaks is a run that is not ready."""
    async with Stage() as stage:
        stage.probe.ready_after_seconds = RuntimeError("bug")

        assert isinstance(await stage.request().refusal(), errors.StartFailed)


@on_virtual_time
async def test_bug_in_a_question_is_no_answer() -> None:
    """It is asked again, and stopped when it says that it is free."""
    async with Stage(WITH_JOBS) as stage:
        stage.probe.busy = RuntimeError("bug")
        await stage.ready()
        await asyncio.sleep(60.1)
        stage.probe.busy = False
        assert "ready" == stage.place()
        await asyncio.sleep(30.0)
        assert "stopped" == stage.place()


@on_virtual_time
async def test_bug_in_a_stop_is_a_failed_stop() -> None:
    """It is ready again, tried again, and who waited meanwhile is served."""
    async with Stage(changed(idle_seconds=60.0)) as stage:
        await stage.ready()
        stage.runtime.fail("stop", HOST, RuntimeError("bug"))  # type: ignore[arg-type]  # the point
        await asyncio.sleep(60.1)
        assert "ready" == stage.place()
        await asyncio.sleep(5.0)
        assert "stopped" == stage.place()


class DeafRuntime(FakeRuntime):
    """Its `changes` breaks at first."""

    breaks = 2

    async def changes(self) -> AsyncIterator[Change]:  # type: ignore[override]  # a generator is one
        if self.breaks:
            self.breaks -= 1
            raise RuntimeError("bug")
        async for change in super().changes():
            yield change


@on_virtual_time
async def test_bug_in_what_we_listen_to_does_not_make_us_deaf() -> None:
    """We listen again, and hear of the next exit."""
    async with Stage(runtime=DeafRuntime()) as stage:
        await stage.ready()
        await asyncio.sleep(5.0)
        stage.machine.end(HOST, "exit code 3")
        await settle()

        assert "stopped" != stage.place() or stage.service().failure is not None
        assert {} == stage.machine.runs
        assert stage.service().endpoint is None


# Adopting.


@on_virtual_time
async def test_what_runs_already_is_adopted_after_a_probe() -> None:
    """A restart of autostart starts nothing and stops nothing; a request waits for the probe."""
    machine = FakeMachine()
    running = machine.begin(HOST)
    async with Stage(runtime=FakeRuntime(machine)) as stage:
        assert ("ready", running) == (stage.place(), stage.service().endpoint)
        assert running == await stage.ready()
        await asyncio.sleep(60.1)

        assert [("stop", HOST)] == stage.runtime.calls


@on_virtual_time
async def test_end_of_an_adopted_run_is_heard() -> None:
    """It is watched like any other."""
    machine = FakeMachine()
    machine.begin(HOST)
    async with Stage(runtime=FakeRuntime(machine)) as stage:
        await asyncio.sleep(20.0)
        machine.end(HOST)
        await settle()

        assert "stopped" == stage.place()


@on_virtual_time
async def test_engine_that_is_away_at_first_is_adopted_from_later() -> None:
    """autostart comes up without it, refuses meanwhile, and hears of what runs."""
    machine = FakeMachine()
    machine.engine_answers = False
    async with Stage(runtime=FakeRuntime(machine)) as stage:
        refusal = await stage.request().refusal()
        assert isinstance(refusal, errors.EngineUnreachable)
        appeared = machine.appear(HOST)
        machine.find()
        await settle()

        assert ("ready", appeared) == (stage.place(), stage.service().endpoint)


class SilentRuntime(FakeRuntime):
    """Its `running` never returns."""

    async def running(self) -> dict[str, Endpoint]:
        await asyncio.sleep(10_000.0)
        return {}


@on_virtual_time
async def test_engine_that_hangs_does_not_keep_us_from_starting() -> None:
    """A look at what runs has a deadline."""
    async with Stage(runtime=SilentRuntime()):
        assert pytest.approx(STARTED_AT + LOOK_SECONDS, abs=0.01) == now()


@on_virtual_time
async def test_run_that_appears_by_itself_is_adopted_and_idles() -> None:
    """docker start by hand: it is used, and stopped when idle from now."""
    async with Stage() as stage:
        stage.machine.appear(HOST)
        await settle()
        assert "ready" == stage.place()
        await asyncio.sleep(60.1)
        assert "stopped" == stage.place()


# Operators.


@on_virtual_time
async def test_operator_is_told_what_is_refused() -> None:
    """A plain stop with leases names them and changes nothing."""
    async with Stage() as stage:
        client = stage.request()
        await client.is_granted()
        with pytest.raises(errors.ServiceLeased, match="GET /"):
            await stage.ask(StopRequested)

        assert "ready" == stage.place()
        await client.finish()


@pytest.mark.parametrize("event", [StartRequested, StopRequested, RestartRequested])
@on_virtual_time
async def test_operator_is_told_of_an_unknown_service(event: type[Any]) -> None:
    """A typing error in a host is answered, not ignored."""
    async with Stage() as stage:
        with pytest.raises(errors.UnknownService, match="nobody"):
            await stage.ask(event, host="nobody.example.com")
        with pytest.raises(errors.UnknownService, match="nobody"):
            await stage.supervisor.prepare("nobody.example.com")


@on_virtual_time
async def test_hold_keeps_out_until_start() -> None:
    """Held: requests are refused; started: they are served."""
    async with Stage() as stage:
        await stage.ready()
        await stage.ask(StopRequested, hold=True)
        await settle()
        assert isinstance(await stage.request().refusal(), errors.Held)
        await stage.ask(StartRequested)
        await stage.ready()

        assert ["start", "stop", "start"] == [verb for verb, _ in stage.runtime.calls]


# The end.


@on_virtual_time
async def test_shutdown_refuses_who_waits_and_leaves_services_up() -> None:
    """Who streams may end; who would wait gets 503, a ready service still answers; none stops."""
    other = changed(host="other.example.com")
    async with Stage(WHISPER, other) as stage:
        streaming = stage.request()
        await streaming.is_granted()
        stage.probe.ready_after_seconds = 5.0
        waiting = stage.request(other.host)
        await settle()
        stage.supervisor.begin_shutdown()

        assert isinstance(await waiting.refusal(), errors.ShuttingDown)
        assert isinstance(await stage.request(other.host).refusal(), errors.ShuttingDown)
        last = stage.request()
        await last.is_granted()
        await last.finish()
        await streaming.finish()
        await asyncio.sleep(3600.0)
        assert 0 == stage.calls("stop")
        assert HOST in stage.machine.runs


@on_virtual_time
async def test_close_ends_what_is_under_way() -> None:
    """A start, a probe, a stop and a question: no task is left, nothing is half-started."""
    services = [changed(host=f"{verb}.example.com", port=0) for verb in ("start", "probe", "stop")]
    async with Stage(*services) as stage:
        await stage.ready("stop.example.com")
        stage.probe.ready_after_seconds = 1000.0
        clients = [stage.request("probe.example.com")]
        await settle()
        stage.runtime.hold("start")
        stage.runtime.hold("stop")
        clients.append(stage.request("start.example.com"))
        await stage.ask(StopRequested, host="stop.example.com")
        await settle()
        stage.supervisor.begin_shutdown()
        for client in clients:
            assert isinstance(await client.refusal(), errors.ShuttingDown)
        # The stage asserts, when it is left, that no task is.


@on_virtual_time
async def test_lease_that_ends_after_the_close_begins_nothing() -> None:
    """The last request of a draining service may end when nobody can stop it any more."""
    async with Stage() as stage:
        client = stage.request()
        await client.is_granted()
        await stage.ask(StopRequested, drain=True)
        await stage.supervisor.close()
        await client.finish()

        assert 0 == stage.calls("stop")


@on_virtual_time
async def test_a_runtime_that_sees_nothing_is_named_until_it_sees_again() -> None:
    """With the reason; for those who show it."""
    async with Stage() as stage:
        await stage.ready()
        stage.runtime.machine.lose("the engine does not answer")
        await settle()
        away = dict(stage.supervisor.lost)
        stage.runtime.machine.find()
        await settle()

        assert {"fake": "the engine does not answer"} == away
        assert {} == stage.supervisor.lost
