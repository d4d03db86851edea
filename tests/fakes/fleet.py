"""A fleet on the fake runtime, with everything that an operator sees of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from aiohttp.test_utils import TestClient, TestServer

from autostart.admin import make_admin
from autostart.admission import Admission
from autostart.app.failure_logs import FailureLogs
from autostart.app.sampling import Sampling
from autostart.config import ServiceConfig
from autostart.lifecycle import Endpoint, State
from autostart.schedule import Now
from autostart.supervisor import Granted, Supervisor
from autostart.telemetry import Days, History, Metrics
from tests.fakes.runtime import FakeRuntime

WORKING = Admission(may_wake=True, may_wait=True, counts=True)
# Turns of the loop after which something that needs no time will not happen any more.
TURNS_MAX = 1_000


class SetClock:
    """A clock that moves only when told."""

    def __init__(self) -> None:
        self._now = Now(1_000.0, datetime(2026, 1, 5, 12, tzinfo=UTC))

    def now(self) -> Now:
        return self._now

    def advance(self, seconds: float) -> None:
        self._now = Now(self._now.monotonic + seconds, self._now.wall + timedelta(seconds=seconds))


class ReadyProbe:
    """Every run is ready at once and never busy."""

    async def wait_until_ready(self, endpoint: Endpoint, service: ServiceConfig) -> None:
        return

    async def ask_busy(self, endpoint: Endpoint, service: ServiceConfig) -> bool | None:
        return False


async def takes_nothing() -> list[str]:
    """Reload a map in which nothing has changed."""
    return []


@dataclass
class Fleet:
    """The parts, and what tests do with them."""

    supervisor: Supervisor
    runtime: FakeRuntime
    clock: SetClock
    history: History
    metrics: Metrics
    client: TestClient[Any, Any]
    days: Days
    _requests: list[asyncio.Task[None]] = field(default_factory=list)

    async def until(self, happened: Callable[[], bool]) -> None:
        """Let the loop turn until it is so."""
        for _ in range(TURNS_MAX):
            if happened():
                return
            await asyncio.sleep(0)
        raise AssertionError(self.supervisor.snapshot())

    async def reach(self, host: str, state: State) -> None:
        await self.until(lambda: self.supervisor.snapshot()[host].state is state)

    async def start(self, host: str) -> None:
        await self.client.post(f"/api/services/{host}/start")
        await self.reach(host, State.READY)

    @asynccontextmanager
    async def request(self, host: str, about: str = "GET /") -> AsyncIterator[Granted]:
        async with self.supervisor.lease(host, WORKING, about) as granted:
            yield granted

    async def wait(self, host: str, about: str = "GET /") -> None:
        """Begin a request that is held until the service is ready, and ends then."""

        async def wait() -> None:
            async with self.request(host, about):
                pass

        self._requests.append(asyncio.get_running_loop().create_task(wait()))
        await self.until(lambda: bool(self.supervisor.snapshot()[host].waiting))

    async def close(self) -> None:
        for request in self._requests:
            request.cancel()
        await asyncio.gather(*self._requests, return_exceptions=True)
        await self.supervisor.close()
        await self.runtime.close()
        self.history.close()


@asynccontextmanager
async def operated(
    *services: ServiceConfig,
    reload: Callable[[], Awaitable[list[str]]] = takes_nothing,
    token: str | None = None,
    heartbeat_seconds: float = 15.0,
    clock: SetClock | None = None,
) -> AsyncIterator[Fleet]:
    """Run the services and their admin listener for the length of the block."""
    clock, runtime, history = clock or SetClock(), FakeRuntime(), History(None)
    supervisor = Supervisor(
        services,
        runtime_of=lambda _: runtime,
        runtimes=[runtime],
        probe=ReadyProbe(),
        clock=clock,
        set_alarm=lambda _: None,
    )
    days = Days(None, clock.now())
    sampling = Sampling(
        snapshot=supervisor.snapshot, runtime_of=lambda _: runtime, clock=clock, days=days
    )
    failure_logs = FailureLogs(lambda _: runtime, supervisor.watchers)
    metrics = Metrics(supervisor.snapshot, clock, days)
    supervisor.observers += [history.record, days.record, metrics.record, failure_logs.record]
    supervisor.progress_observers.append(history.pass_on)
    await supervisor.adopt()
    application = make_admin(
        supervisor=supervisor,
        history=history,
        metrics=metrics,
        runtime_of=lambda _: runtime,
        reload=reload,
        clock=clock,
        token=token,
        days=days,
        usages=sampling.samples,
        failure_log=failure_logs.of,
        heartbeat_seconds=heartbeat_seconds,
    )
    async with TestClient(TestServer(application)) as client:
        fleet = Fleet(supervisor, runtime, clock, history, metrics, client, days)
        try:
            yield fleet
        finally:
            await sampling.close()
            await failure_logs.close()
            await fleet.close()
