"""The only writer of state: it feeds events to the lifecycle and does what comes out.

One inbox. `post` is synchronous and runs the whole step, so nothing is awaited between reading a
service and writing it back; an event posted from within a step waits its turn. Every command that
takes time runs as a named task whose result is the next event. A start belongs to the service,
not to the request that asked first: it goes on when that request leaves.

Others post events, take leases, or read `snapshot` to show it. They never read it to decide.
"""

from __future__ import annotations

import asyncio
import itertools
import math
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager

import structlog

from autostart import errors, lifecycle, schedule
from autostart.admission import Admission
from autostart.config import ServiceConfig
from autostart.lifecycle import Endpoint, Event, Lease, Service, State, Waited
from autostart.runtimes.base import Runtime
from autostart.schedule import Now
from autostart.supervisor.cause import cause_of
from autostart.supervisor.clock import Clock
from autostart.supervisor.execution import Execution, Probe
from autostart.supervisor.orders import Orders
from autostart.telemetry import Transition

log = structlog.get_logger("autostart")


class Granted:
    """A granted lease, in the hands of the request that asked for it."""

    __slots__ = ("_report_answer", "endpoint", "waited")

    def __init__(
        self, endpoint: Endpoint, waited: Waited | None, report_answer: Callable[[], None]
    ) -> None:
        self.endpoint = endpoint
        self.waited = waited
        self._report_answer = report_answer

    def mark_answered(self, status: int) -> None:  # noqa: ARG002 - whatever it is, the run works
        """Say that the service has begun to answer: it proves the run, however that ends."""
        self._report_answer()


class Supervisor:
    """Runs the fleet. Made, then `adopt`ed, then used; all calls from one event loop."""

    def __init__(
        self,
        services: Sequence[ServiceConfig],
        *,
        runtime_of: Callable[[ServiceConfig], Runtime],
        runtimes: Sequence[Runtime],
        probe: Probe,
        clock: Clock,
        set_alarm: Callable[[float], None],
        usual_start_seconds: Mapping[str, float] | None = None,
        orders: Orders | None = None,
    ) -> None:
        learned = usual_start_seconds or {}
        now = clock.now()
        self._orders = orders or Orders(None)
        self._fleet = {
            config.host: self._orders.restore(
                Service(
                    config,
                    since=now.monotonic,
                    usual_start_seconds=learned.get(config.host),
                ),
                now,
            )
            for config in services
        }
        self._orders.forget_all_but(self._fleet)
        self._runtime_of = runtime_of
        self._runtimes = runtimes
        self._clock = clock
        self._set_alarm = set_alarm
        self._alarm_at = math.inf
        self._inbox: deque[tuple[str, Event]] = deque()
        self._stepping = False
        self._look_again = False
        self._declare_again = False
        self._numbers = itertools.count(1)
        self._replies: dict[int, asyncio.Future[Granted | None]] = {}
        self._execution = Execution(
            post=self.post,
            config_of=lambda host: self._fleet[host].config,
            runtime_of=runtime_of,
            probe=probe,
            clock=clock,
        )
        self.observers: list[Callable[[Transition], None]] = []
        # Told of every change of a service, also of those that each request brings: to be cheap.
        self.watchers: list[Callable[[str], None]] = []
        self.progress_observers.append(lambda host, *_: self._touch(host))
        self._declare()

    # For requests.

    @asynccontextmanager
    async def lease(self, host: str, admission: Admission, about: str) -> AsyncIterator[Granted]:
        """Hold the service ready for the length of the block, waking it if need be.

        Raises the Refusal that says why not. Its deadline comes from the lifecycle.
        """
        key = next(self._numbers)
        reply = self._expect_reply(key)
        lease = Lease(
            id=key,
            about=about,
            requested_at=self._clock.now().monotonic,
            may_wake=admission.may_wake,
            may_wait=admission.may_wait,
            counts=admission.counts,
            otherwise=admission.otherwise,
        )
        try:
            self.post(host, lifecycle.LeaseRequested(lease))
            granted = await reply
            assert granted is not None, lease
            yield granted
        finally:
            self._replies.pop(key, None)
            self.post(host, lifecycle.LeaseReleased(key))

    def report_lost(self, host: str, endpoint: Endpoint) -> None:
        """Say that a ready run refused a connection."""
        self.post(host, lifecycle.Lost(endpoint.run))

    # For operators.

    async def ask(self, host: str, event: Callable[[int], Event]) -> None:
        """Post an operator's event, made from its ticket; raise what it is refused with."""
        ticket = next(self._numbers)
        reply = self._expect_reply(ticket)
        try:
            self.post(host, event(ticket))
            await reply
        finally:
            self._replies.pop(ticket, None)

    def snapshot(self) -> dict[str, Service]:
        """Return the fleet as it stands, to be shown."""
        return dict(self._fleet)

    def reconfigure(self, services: Sequence[ServiceConfig]) -> None:
        """Take a new map: limits at once, commands at the next start, removed ones once idle."""
        declared = {config.host: config for config in services}
        now = self._clock.now().monotonic
        for host, service in self._fleet.items():
            if service.is_running:  # an adopted run was started from the map that found it
                self._execution.started_from.setdefault(host, service.config)
            known = declared.get(host)
            event = lifecycle.Removed() if known is None else lifecycle.Reconfigured(known)
            self._inbox.append((host, event))
        new = [host for host in declared if host not in self._fleet]
        self._fleet.update({host: Service(declared[host], since=now) for host in new})
        self._declare_again = True
        self.look()
        for host in new:
            self._touch(host)
        for runtime in self._runtimes if new else ():
            self._execution.find(runtime, new)

    async def prepare(self, host: str) -> None:
        """Pull, build and create ahead of the first request."""
        if host not in self._fleet:
            raise errors.UnknownService(f"no service {host!r} in the map")
        await self._execution.prepare(self._fleet[host].config)

    @property
    def progress(self) -> Mapping[str, str]:
        """The last line of each pull or build under way, by host."""
        return self._execution.progress

    @property
    def progress_observers(self) -> list[Callable[[str, str | None, Now], None]]:
        """Who is told of such a line now and then, and of None at the end."""
        return self._execution.progress_observers

    @property
    def lost(self) -> Mapping[str, str]:
        """The runtimes that do not see their runs now, and why."""
        return self._execution.lost

    # For the composition root.

    async def adopt(self) -> None:
        """Take over what runs already, and listen to the runtimes from now on."""
        for runtime in self._runtimes:
            await self._execution.find_runs(runtime, self._fleet.keys())
            self._execution.listen(runtime)
        self.look()

    def look(self) -> None:
        """See what is due: for the alarm clock, and after a step of the wall clock."""
        self._look_again = True
        self._alarm_at = math.inf
        self._run_inbox()

    def begin_shutdown(self) -> None:
        """Refuse whoever waits or would have to; leases may end; services stay up."""
        for host in list(self._fleet):
            self.post(host, lifecycle.ShutdownBegan())

    async def close(self) -> None:
        """End every task. Services stay up."""
        await self._execution.close()

    # The step.

    def post(self, host: str, event: Event) -> None:
        """Put an event into the inbox and work it off; never re-entered, never awaits."""
        self._inbox.append((host, event))
        self._run_inbox()

    def _run_inbox(self) -> None:
        if self._stepping:
            return
        self._stepping = True
        try:
            while self._inbox or self._look_again:
                if self._inbox:
                    self._step(*self._inbox.popleft())
                else:
                    self._plan()
        finally:
            self._stepping = False

    def _step(self, host: str, event: Event) -> None:
        before = self._fleet.get(host)
        if before is None:
            self._refuse_unknown(host, event)
            return
        now = self._clock.now()
        after, commands = lifecycle.transition(before, event, now.monotonic)
        self._fleet[host] = after
        if after.closed_by is not before.closed_by or after.kept_until != before.kept_until:
            self._orders.record(after, now)
        if before.is_running and not after.is_running:
            self._forget_run(host)
        for command in commands:
            self._do(host, command)
        if _moves_only_its_own_date(before, after, event):
            date = schedule.next_date(after)
            if date < self._alarm_at:
                self._ring_at(date)
        else:
            self._look_again = True
        if isinstance(after.closed_by, errors.UnknownHost) and not _has_a_run(after):
            del self._fleet[host]
            self._declare_again = True
        if after.state is not before.state or after.phase is not before.phase:
            self._tell(Transition(host, before, after, cause_of(event), now))
        if after is not before:
            self._touch(host)

    def _touch(self, host: str) -> None:
        for watch in self.watchers:
            watch(host)

    def _forget_run(self, host: str) -> None:
        """What runs next is from the map as it is now, also if it appears by itself."""
        config = self._fleet[host].config
        if self._execution.started_from.pop(host, config) != config:
            self._declare()

    def _plan(self) -> None:
        if self._declare_again:
            self._declare()
        self._look_again = False
        plan = schedule.plan(self._fleet, self._clock.now())
        self._inbox.extend(plan.decisions)
        if plan.look_again_at != self._alarm_at:
            self._ring_at(plan.look_again_at)

    def _ring_at(self, date: float) -> None:
        self._alarm_at = date
        if date < math.inf:
            self._set_alarm(date)

    def _refuse_unknown(self, host: str, event: Event) -> None:
        match event:
            case lifecycle.LeaseRequested(lease):
                self._reply(lease.id, errors.UnknownHost(f"no service has the host {host!r}"))
            case (
                lifecycle.StartRequested(ticket)
                | lifecycle.StopRequested(ticket)
                | lifecycle.RestartRequested(ticket)
                | lifecycle.Kept(ticket)
            ):
                self._reply(ticket, errors.UnknownService(f"no service {host!r} in the map"))

    def _tell(self, change: Transition) -> None:
        before, after = change.before, change.after
        fields = {
            "service": change.host,
            "from": change.source,
            "to": change.target,
            "cause": change.cause,
            "attempt": after.attempt,
            "seconds": round(change.at.monotonic - before.since, 3),
        }
        if after.failure is not None and after.failure is not before.failure:
            fields["failure"] = after.failure.for_operator
            if after.failure.detail:
                fields["detail"] = after.failure.detail
            log.warning(after.state.value, **fields)
        elif change.is_change_of_state:
            log.info(after.state.value, **fields)
        else:
            log.debug(after.state.value, **fields)
        for observer in self.observers:
            try:
                observer(change)
            except Exception:  # a bug in what only watches must not fail a start, or a request
                log.exception("bug", service=change.host, observer=repr(observer))

    # Commands.

    def _do(self, host: str, command: lifecycle.Command) -> None:
        match command:
            case lifecycle.Grant(key, endpoint, waited):
                answered = lifecycle.Answered(key)
                self._reply(key, Granted(endpoint, waited, lambda: self.post(host, answered)))
            case lifecycle.Accept(key):
                self._reply(key, None)
            case lifecycle.Refuse(key, error):
                self._reply(key, error)
            case lifecycle.Start():
                config = self._fleet[host].config
                if self._execution.started_from.get(host, config) != config:
                    self._execution.started_from[host] = config
                    self._declare()  # the run from the former map has ended
                self._execution.do(host, command)
            case _:
                self._execution.do(host, command)

    # Replies.

    def _expect_reply(self, key: int) -> asyncio.Future[Granted | None]:
        reply: asyncio.Future[Granted | None] = asyncio.get_running_loop().create_future()
        self._replies[key] = reply
        return reply

    def _reply(self, key: int, answer: Granted | errors.AutostartError | None) -> None:
        reply = self._replies.pop(key, None)
        if reply is None or reply.done():
            return  # its client has left; the release follows
        if isinstance(answer, errors.AutostartError):
            reply.set_exception(answer)
        else:
            reply.set_result(answer)

    def _declare(self) -> None:
        """Tell each runtime what is its own: what runs as it was started, the rest as mapped."""
        self._declare_again = False
        for runtime in self._runtimes:
            declared: dict[str, ServiceConfig] = {}
            for host, service in self._fleet.items():
                configs = [service.config]
                if service.is_running:
                    configs.append(self._execution.started_from.get(host, service.config))
                mine = [config for config in configs if self._runtime_of(config) is runtime]
                if mine:
                    declared[host] = mine[-1]
            runtime.declare(list(declared.values()))


def _moves_only_its_own_date(before: Service, after: Service, event: Event) -> bool:
    """Whether the event can have changed no date but the service's own: nearly every request."""
    if not isinstance(
        event, lifecycle.LeaseRequested | lifecycle.LeaseReleased | lifecycle.Answered
    ):
        return False
    if after.state is not before.state or after.phase is not before.phase:
        return False
    # Another of its exclusive name may wait for the last lease to end.
    return after.config.exclusive is None or bool(after.leases) == bool(before.leases)


def _has_a_run(service: Service) -> bool:
    return service.state not in (State.STOPPED, State.FAILED)
