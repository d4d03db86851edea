"""A world for the lifecycle: it does what commands say, late and sometimes badly, and keeps watch.

It knows what the lifecycle cannot know: which run is alive, which client streams from which run,
which background job runs. With that it checks after every step what must hold in any order of
events. Random, but only by the generator that it is given.
"""

from __future__ import annotations

import heapq
import itertools
import math
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from random import Random

from autostart import errors
from autostart.config import ServiceConfig
from autostart.lifecycle import (
    Accept,
    Adopted,
    Answered,
    AskBusy,
    BusyAnswered,
    Command,
    Endpoint,
    Event,
    Exited,
    Grant,
    Kept,
    LeaseReleased,
    LeaseRequested,
    Phase,
    Probe,
    ProbeSucceeded,
    Progressed,
    Refuse,
    RestartRequested,
    Service,
    Start,
    Started,
    StartFailed,
    StartRequested,
    State,
    Stop,
    StopDue,
    StopFailed,
    Stopped,
    StopRequested,
    transition,
)
from autostart.lifecycle.service import BUSY_SILENCE_MAX_SECONDS
from autostart.schedule import Now, plan

WALL = datetime(2026, 1, 1, tzinfo=UTC)
# Around the timeouts of the samples, and zero, so that things also happen at the same moment.
DELAYS = (0.0, 0.0, 0.5, 3.0, 10.0, 31.0)
PLANS_MAX = 20
HOLD_SECONDS_MAX = 60.0
PHASES = {
    State.STOPPED: {None},
    State.STARTING: {Phase.QUEUED, Phase.PREPARING, Phase.STARTING, Phase.LOADING},
    State.READY: {None},
    State.STOPPING: {Phase.DRAINING, Phase.STOPPING, Phase.CLEANING},
    State.FAILED: {None},
}
# Where somebody may wait, and where a run is known.
WAITING_PHASES = {Phase.QUEUED, Phase.STARTING, Phase.LOADING, Phase.DRAINING, Phase.STOPPING}
# What must be under way, by phase; DRAINING waits for leases, jobs and answers instead.
UNDER_WAY = {
    Phase.PREPARING: Start,
    Phase.STARTING: Start,
    Phase.LOADING: Probe,
    Phase.STOPPING: Stop,
    Phase.CLEANING: Stop,
}


@dataclass
class Client:
    """One request, as its client knows it."""

    host: str
    counts: bool
    run: str | None = None  # since it was granted


@dataclass
class Machine:
    """What is really there of one service."""

    run: Endpoint | None = None
    job_until: float = -math.inf
    work: Start | Probe | None = None
    stop: Stop | None = None
    asked: list[AskBusy] = field(default_factory=list)


class World:
    """A fleet, its machines and its clients. `deliver` is the only way in."""

    def __init__(self, random: Random, configs: list[ServiceConfig]) -> None:
        self.random = random
        self.now = 1000.0
        self.fleet = {config.host: Service(config, since=self.now) for config in configs}
        self.machines = {config.host: Machine() for config in configs}
        self.clients: dict[int, Client] = {}
        self.tickets: set[int] = set()
        self.numbers = itertools.count(1)
        self.look_again_at = math.inf
        self.is_kind = False  # from when on nothing fails
        self.told: list[tuple[object, ...]] = []  # for whoever has to read a failure
        self._order = itertools.count()
        self._agenda: list[tuple[float, int, str, Event, Command | None]] = []

    # Time.

    def later(
        self, host: str, event: Event, *, delay: float | None = None, done: Command | None = None
    ) -> None:
        """Let the event happen later; `done` is the command that it completes."""
        if delay is None:
            delay = self.random.choice(DELAYS)
        heapq.heappush(self._agenda, (self.now + delay, next(self._order), host, event, done))

    def advance(self) -> bool:
        """Go to the next date and let happen what happens then; False if nothing ever will."""
        event_at = self._agenda[0][0] if self._agenda else math.inf
        if min(event_at, self.look_again_at) == math.inf:
            return False
        if self.look_again_at <= event_at:
            self.now = max(self.now, self.look_again_at)
            self._plan()
            return True
        date, _, host, event, done = heapq.heappop(self._agenda)
        self.now = max(self.now, date)
        if isinstance(event, LeaseReleased):
            if event.id in self.clients:
                self.release(event.id, answered=self.random.random() < 0.7)
        elif isinstance(event, Adopted) and event.endpoint != self.machines[host].run:
            pass  # a runtime reports in order: nobody hears of a run after its successor
        elif done is None or self._complete(host, done, event):
            self.deliver(host, event)
        return True

    # The step.

    def deliver(self, host: str, event: Event) -> None:
        """Let the lifecycle have an event, do what it wants, and see what is due."""
        self._step(host, event)
        self._plan()

    def _step(self, host: str, event: Event) -> bool:
        before = self.fleet.get(host)
        if before is None:
            self._miss(event)
            return False
        after, commands = transition(before, event, self.now)
        self.told.append((self.now, event, after, *commands))
        self.fleet[host] = after
        for command in commands:
            self._do(before, event, command)
        self._check(before, after)
        if isinstance(after.closed_by, errors.UnknownHost) and after.state in (
            State.STOPPED,
            State.FAILED,
        ):
            del self.fleet[host]
        return after != before or bool(commands)

    def _plan(self) -> None:
        for _ in range(PLANS_MAX):
            now = Now(self.now, WALL)
            planned = plan(self.fleet, now)
            if len(self.told) % 8 == 0:
                assert planned == plan(self.fleet, now), "planning changed the plan"
            self.look_again_at = planned.look_again_at
            if not planned.decisions:
                assert planned.look_again_at > self.now
                return
            moved = [self._step(host, event) for host, event in planned.decisions]
            assert any(moved), ("a plan that nobody follows is made for ever", planned)
        raise AssertionError(("always something due", planned))

    def _miss(self, event: Event) -> None:
        """Do what the supervisor does for a host that is in no map."""
        if isinstance(event, LeaseRequested):
            del self.clients[event.lease.id]
        elif isinstance(event, LeaseReleased):
            self.clients.pop(event.id, None)
        elif isinstance(event, StartRequested | StopRequested | RestartRequested | Kept):
            self.tickets.remove(event.ticket)

    # Commands.

    def _do(self, before: Service, event: Event, command: Command) -> None:
        host = before.config.host
        match command:
            case Grant(number, endpoint):
                client = self.clients[number]
                assert client.run is None, "granted twice"
                client.run = endpoint.run
                self.later(host, LeaseReleased(number))
            case Refuse(number) | Accept(number):
                if number in self.tickets:
                    self.tickets.remove(number)
                else:
                    assert self.clients.pop(number).run is None, "refused after the grant"
            case Start():
                self._start(host, command)
            case Probe():
                self._probe(host, command)
            case Stop():
                self._stop(before, event, command)
            case AskBusy():
                self._ask_busy(host, command)

    def _start(self, host: str, command: Start) -> None:
        machine, random = self.machines[host], self.random
        assert not isinstance(machine.work, Start), "two starts"
        assert machine.stop is None, "a start during a stop"
        others = [
            other
            for other in self.fleet.values()
            if other.config.exclusive is not None
            and other.config.exclusive == self.fleet[host].config.exclusive
            and other.config.host != host
            and other.is_running
        ]
        assert not others, "a start in another's place"
        machine.work = command
        if random.random() < 0.2:
            self.later(host, Progressed(command.attempt, Phase.PREPARING), delay=0.0, done=command)
            self.later(host, Progressed(command.attempt, Phase.STARTING), delay=2.0, done=command)
        error = random.choice(
            [
                errors.StartFailed(f"{host} ended: exit code 3"),
                errors.PortTaken("port 8001 is taken by pid 7 (nginx)"),
                errors.EngineUnreachable("the engine does not answer"),
            ]
        )
        fails = not self.is_kind and random.random() < 0.25
        endpoint = Endpoint("127.0.0.1", 8001, f"run-{next(self.numbers)}")
        ending = (
            StartFailed(command.attempt, error) if fails else Started(command.attempt, endpoint)
        )
        self.later(host, ending, delay=random.choice((2.0, 3.0, 12.0)), done=command)

    def _probe(self, host: str, command: Probe) -> None:
        machine, attempt = self.machines[host], command.attempt
        assert machine.stop is None, "a probe during a stop"
        machine.work = command
        if self.is_kind or self.random.random() < 0.75:
            self.later(host, ProbeSucceeded(attempt), done=command)
        else:
            late = errors.StartTimeout(f"{host} was not ready within start_timeout")
            delay = max(0.0, command.deadline - self.now)
            self.later(host, StartFailed(attempt, late), delay=delay, done=command)

    def _stop(self, before: Service, event: Event, command: Stop) -> None:
        host = before.config.host
        machine = self.machines[host]
        assert machine.stop is None, "two stops"
        self._check_stop(before, event)
        machine.work, machine.stop = None, command
        if self.is_kind or self.random.random() < 0.8:
            self.later(host, Stopped(command.attempt), done=command)
        else:
            self.later(host, StopFailed(command.attempt, "device busy"), done=command)

    def _check_stop(self, before: Service, event: Event) -> None:
        """Nothing that works for somebody is stopped, unless an operator says so twice."""
        if isinstance(event, StopRequested | RestartRequested) and event.force:
            return
        machine = self.machines[before.config.host]
        run = machine.run.run if machine.run is not None else "none"
        cut = [client for client in self.clients.values() if client.run == run]
        assert not cut, "a stop under a lease"
        was_ready = before.state is State.READY or before.phase is Phase.DRAINING
        if not was_ready or isinstance(event, Exited):
            return
        since = before.busy_silent_since
        gave_up = since is not None and self.now - since >= BUSY_SILENCE_MAX_SECONDS
        if before.config.busy is not None and not gave_up:
            assert machine.job_until <= self.now, "a stop under a background job"
        if isinstance(event, StopDue | BusyAnswered) and before.state is State.READY:
            removed = isinstance(before.closed_by, errors.UnknownHost)
            assert removed or before.kept_until <= self.now, "a stop of what is kept"

    def _ask_busy(self, host: str, command: AskBusy) -> None:
        machine = self.machines[host]
        machine.asked.append(command)
        # What it says was true when it was asked, and may be old when it is heard.
        busy = None if not self.is_kind and self.random.random() < 0.15 else False
        if machine.job_until > self.now:
            busy = True
        answer = BusyAnswered(command.attempt, command.asked_at, command.cause, busy)
        self.later(host, answer, delay=self.random.choice((0.0, 0.1, 2.0)), done=command)
        self.now = math.nextafter(self.now, math.inf)  # no two questions are asked at one time

    # What becomes of them.

    def _complete(self, host: str, command: Command, event: Event) -> bool:
        """Let the command end in the world; False if it was cancelled before."""
        machine = self.machines[host]
        if isinstance(command, AskBusy):
            machine.asked.remove(command)
            return True
        if command is not machine.work and command is not machine.stop:
            return False
        match event:
            case Progressed():
                return True
            case Started(attempt, endpoint):
                machine.work = None
                if machine.run is not None:  # it runs already: a start is idempotent
                    self.deliver(host, Started(attempt, machine.run))
                    return False
                self.appear(host, endpoint)
            case StartFailed(_, errors.EngineUnreachable()) if isinstance(command, Start):
                machine.work = None
                if machine.run is None and self.random.random() < 0.5:
                    self.appear(host, Endpoint("127.0.0.1", 8001, f"run-{next(self.numbers)}"))
                    assert machine.run is not None
                    self.later(host, Adopted(machine.run))
            case Stopped():
                machine.stop = None
                self.end(host, "killed by SIGTERM")
            case StopFailed():
                machine.stop = None
                if self.random.random() < 0.2:
                    self.end(host, "killed by SIGTERM")
            case _:
                machine.work = None
        return True

    def appear(self, host: str, run: Endpoint) -> None:
        """Let a run be there."""
        self.machines[host].run = run
        self.machines[host].job_until = -math.inf

    def end(self, host: str, reason: str) -> None:
        """Let the run end, which is reported sooner or later."""
        machine = self.machines[host]
        if machine.run is not None:
            self.later(host, Exited(machine.run.run, reason))
            machine.run, machine.job_until = None, -math.inf

    def release(self, number: int, *, answered: bool) -> None:
        """Let a client go; its request may have begun a background job."""
        if answered:
            self.deliver(self.clients[number].host, Answered(number))
        client = self.clients.pop(number)
        machine = self.machines[client.host]
        served = machine.run is not None and client.run == machine.run.run
        if served and client.counts and not self.is_kind and self.random.random() < 0.3:
            machine.job_until = self.now + self.random.choice((5.0, 40.0, 400.0))
        self.deliver(client.host, LeaseReleased(number))

    # What must hold.

    def _check(self, before: Service, service: Service) -> None:
        host, state, phase = service.config.host, service.state, service.phase
        machine = self.machines[host]
        assert phase in PHASES[state], "a phase of another state"
        if state is State.READY or phase in (Phase.LOADING, Phase.DRAINING):
            assert service.endpoint is not None, "no endpoint"
        if state in (State.STOPPED, State.FAILED) or phase in (Phase.QUEUED, Phase.STARTING):
            assert service.endpoint is None, "an endpoint without a run"
        assert not service.waiting or phase in WAITING_PHASES, "waits where nothing will come"
        for lease in service.waiting.values():
            patience = self.now + HOLD_SECONDS_MAX
            assert lease.deadline <= patience or phase is Phase.STOPPING, "waits for ever"
        assert service.attempt >= before.attempt, "an attempt came back"
        clients = {number: c.run for number, c in self.clients.items() if c.host == host}
        assert set(service.leases) == {number for number, run in clients.items() if run}, clients
        assert set(service.waiting) == {n for n, run in clients.items() if not run}, clients
        awaited = UNDER_WAY.get(phase) if phase is not None else None
        if awaited is not None:
            under_way = machine.stop if awaited is Stop else machine.work
            assert isinstance(under_way, awaited), f"{phase} waits for what nobody does"
            assert service.attempt == under_way.attempt, "another attempt is under way"
        if service.busy_asked_at is not None and (state is State.READY or phase is Phase.DRAINING):
            asked_at = [ask.asked_at for ask in machine.asked if ask.attempt == service.attempt]
            assert service.busy_asked_at in asked_at, "waits for an answer to no question"
        if phase is Phase.DRAINING:
            waits = service.leases or service.busy_asked_at or service.busy_again_at
            assert waits, "drains, and nothing ends it"


def sample_config(random: Random, host: str) -> ServiceConfig:
    """Return a declaration as an operator might write it, with short times."""
    return ServiceConfig(
        host=host,
        command=("serve",),
        idle_seconds=random.choice((5.0, 40.0, 40.0, None)),
        busy=random.choice((None, "/busy")),
        start_timeout_seconds=20.0,
        hold_timeout_seconds=random.choice((0.0, 5.0, 20.0, HOLD_SECONDS_MAX)),
        max_waiting=random.choice((1, 2, 100)),
        exclusive=random.choice((None, "gpu0", "gpu0")),
    )


def other_config(random: Random, config: ServiceConfig) -> ServiceConfig:
    """Return what the next map might say about the same service."""
    return replace(sample_config(random, config.host), port=random.choice((0, 8001)))
