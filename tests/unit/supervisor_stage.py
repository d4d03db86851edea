"""A supervisor on a stage: fake runtime, fake probe, virtual time, and clients that lease.

    async with Stage(WHISPER) as stage:
        client = stage.request()
        await client.is_granted()

When the stage is left, everything must be gone: tasks, replies, leases of clients that left.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, Self

from autostart.admission import Admission
from autostart.config import ServiceConfig
from autostart.lifecycle import Endpoint, Event, Service
from autostart.runtimes.base import Runtime
from autostart.schedule import Now
from autostart.supervisor import Granted, Orders, Supervisor
from tests.fakes.runtime import FakeRuntime
from tests.unit.virtual_time import STARTED_AT

WALL = datetime(2026, 6, 15, 6, 0, tzinfo=UTC)  # a Monday, when the clock shows STARTED_AT
HOST = "whisper.example.com"
WHISPER = ServiceConfig(
    host=HOST,
    command=("serve",),
    port=8001,
    idle_seconds=60.0,
    start_timeout_seconds=30.0,
    hold_timeout_seconds=20.0,
    stop_timeout_seconds=10.0,
)
ORDINARY = Admission(may_wake=True, may_wait=True, counts=True)
PAGE = Admission(may_wake=True, may_wait=False, counts=True)


class StageClock:
    """Shows the loop's time on both clocks; `wall_step` sets the wall clock."""

    def __init__(self) -> None:
        self.wall_step = timedelta()

    def now(self) -> Now:
        seconds = asyncio.get_running_loop().time()
        wall = WALL + timedelta(seconds=seconds - STARTED_AT) + self.wall_step
        return Now(seconds, wall)


class StageProbe:
    """Finds every run ready after `ready_after_seconds`, and busy as `busy` says.

    An exception in place of either is raised.
    """

    def __init__(self) -> None:
        self.ready_after_seconds: float | Exception = 0.0
        self.busy: bool | Exception | None = False
        self.asked_busy: list[float] = []
        self.probed: list[Endpoint] = []

    async def wait_until_ready(self, endpoint: Endpoint, service: ServiceConfig) -> None:
        self.probed.append(endpoint)
        if isinstance(self.ready_after_seconds, Exception):
            raise self.ready_after_seconds
        await asyncio.sleep(self.ready_after_seconds)

    async def ask_busy(self, endpoint: Endpoint, service: ServiceConfig) -> bool | None:
        self.asked_busy.append(asyncio.get_running_loop().time())
        if isinstance(self.busy, Exception):
            raise self.busy
        return self.busy


class StageAlarm:
    """One alarm at a time, `late_seconds` late; `dates` are all that were set."""

    def __init__(self) -> None:
        self.dates: list[float] = []
        self.late_seconds = 0.0
        self.ring: Callable[[], None] = lambda: None
        self._handle: asyncio.TimerHandle | None = None

    def set(self, date: float) -> None:
        self.dates.append(date)
        self.cancel()
        loop = asyncio.get_running_loop()
        self._handle = loop.call_at(date + self.late_seconds, self._ring)

    def cancel(self) -> None:
        if self._handle is not None:
            self._handle.cancel()

    def _ring(self) -> None:
        self.ring()


class Client:
    """A request: it leases, and holds its lease until told to finish."""

    def __init__(self, supervisor: Supervisor, host: str, admission: Admission) -> None:
        self.granted: Granted | None = None
        self._finish = asyncio.Event()
        self._begun = asyncio.Event()
        self.answers = True
        lease = self._lease(supervisor, host, admission)
        self._task = asyncio.get_running_loop().create_task(lease, name="client")

    async def _lease(self, supervisor: Supervisor, host: str, admission: Admission) -> None:
        try:
            async with supervisor.lease(host, admission, "GET /") as granted:
                self.granted = granted
                self._begun.set()
                await self._finish.wait()
                if self.answers:
                    granted.mark_answered(200)
        finally:
            self._begun.set()

    async def is_granted(self) -> Endpoint:
        """Wait until it is granted; raise what it is refused with."""
        await self._begun.wait()
        if self.granted is None:
            await self._task
        assert self.granted is not None
        return self.granted.endpoint

    async def outcome(self) -> BaseException | None:
        """Wait until it is answered; return what it is refused with, None if it is granted."""
        await self._begun.wait()
        return None if self.granted is not None else await self.refusal()

    async def refusal(self) -> BaseException | None:
        """Wait for the end; return what it was refused with, None if it was granted."""
        await asyncio.wait([self._task])
        return self._task.exception()

    async def finish(self, *, answered: bool = True) -> None:
        self.answers = answered
        self._finish.set()
        await self._task

    async def leave(self) -> None:
        """Go away, as a client whose connection broke."""
        self._task.cancel()
        await asyncio.wait([self._task])

    @property
    def is_waiting(self) -> bool:
        return not self._begun.is_set()


class Stage:
    """A supervisor with everything that it is given."""

    def __init__(
        self,
        *services: ServiceConfig,
        runtime: FakeRuntime | None = None,
        other_runtime: FakeRuntime | None = None,
        orders: Orders | None = None,
        clock: StageClock | None = None,
    ) -> None:
        self.services = services or (WHISPER,)
        self.runtime = runtime or FakeRuntime()
        self.other_runtime = other_runtime  # of services with `compose`
        self.machine = self.runtime.machine
        self.probe = StageProbe()
        self.clock = clock or StageClock()
        self.orders = orders
        self.alarm = StageAlarm()
        self.supervisor = self.make_supervisor()

    def make_supervisor(self) -> Supervisor:
        runtimes: list[Runtime] = [self.runtime]
        if self.other_runtime is not None:
            runtimes.append(self.other_runtime)
        supervisor = Supervisor(
            self.services,
            runtime_of=lambda service: runtimes[service.compose is not None],
            runtimes=runtimes,
            probe=self.probe,
            clock=self.clock,
            set_alarm=self.alarm.set,
            orders=self.orders,
        )
        self.alarm.ring = supervisor.look
        return supervisor

    async def __aenter__(self) -> Self:
        await self.supervisor.adopt()
        await settle()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.alarm.cancel()
        await self.supervisor.close()
        if kind is None:
            await settle()
            left = asyncio.all_tasks() - {asyncio.current_task()}
            assert not left, f"tasks are left: {left}"
            assert not self.supervisor._replies, "replies are left"

    def request(self, host: str = HOST, admission: Admission = ORDINARY) -> Client:
        return Client(self.supervisor, host, admission)

    async def ready(self, host: str = HOST) -> Endpoint:
        """Bring the service up by a request that ends at once."""
        client = self.request(host)
        endpoint = await client.is_granted()
        await client.finish()
        return endpoint

    def service(self, host: str = HOST) -> Service:
        return self.supervisor.snapshot()[host]

    def place(self, host: str = HOST) -> str:
        """Where it stands: its phase, else its state."""
        service = self.service(host)
        return str(service.phase or service.state)

    def calls(self, verb: str, host: str = HOST) -> int:
        return self.runtime.calls.count((verb, host))

    async def ask(self, event: type[Any], host: str = HOST, **options: Any) -> None:
        """Give an operator's command."""
        make: Callable[[int], Event] = lambda ticket: event(ticket, **options)  # noqa: E731 - typed
        await self.supervisor.ask(host, make)

    def reload(self, *services: ServiceConfig) -> None:
        self.supervisor.reconfigure(services)


async def settle() -> None:
    """Let everything happen that needs no time."""
    await asyncio.sleep(0.0001)


def now() -> float:
    return asyncio.get_running_loop().time()


def changed(service: ServiceConfig = WHISPER, **changes: Any) -> ServiceConfig:
    return replace(service, **changes)


def hosts(services: Sequence[ServiceConfig]) -> list[str]:
    return [service.host for service in services]
