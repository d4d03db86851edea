"""Keeps the docs cache fresh: reads a service's document whenever it happens to be ready.

It asks by a lease that neither wakes nor waits nor counts: the run is not stopped while it is read,
and its idle date stays where it was. Nobody asks first whether the service is ready; a lease of one
that is not is refused, and that is all.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor
from contextlib import AbstractAsyncContextManager
from typing import Protocol

import structlog

from autostart.admission import Admission
from autostart.config import ServiceConfig
from autostart.errors import DocsUnknown, Refusal
from autostart.lifecycle import Endpoint
from autostart.portal.document import Origin, exact_host
from autostart.probe import DocsUnreadable

log = structlog.get_logger("autostart")

# After a start the requests that waited for it come first: making a document may take a framework a
# tenth of a second of the very core that they need.
SETTLE_SECONDS = 1.0
# How often the docs of one service that is read all the time are asked for again.
AGAIN_SECONDS = 60.0
# Read at once, of all services: a document may have megabytes.
READS_MAX = 4


class Granted(Protocol):
    """What a granted lease gives."""

    @property
    def endpoint(self) -> Endpoint:
        """Where the run answers."""


Lease = Callable[[str, Admission, str], AbstractAsyncContextManager[Granted]]
Read = Callable[[Endpoint, ServiceConfig, str], Awaitable[bytes]]


class Refresh:
    """At most one task for each service. `take` gets what was read; it may refuse it."""

    def __init__(
        self,
        *,
        lease: Lease,
        read: Read,
        take: Callable[[ServiceConfig, bytes], None],
        threads: Executor,
    ) -> None:
        self._lease = lease
        self._read = read
        self._take = take
        self._threads = threads
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._asked_at: dict[str, float] = {}
        self._complaints: dict[str, str] = {}
        self._places = asyncio.Semaphore(READS_MAX)

    def begin(self, service: ServiceConfig, *, delay_seconds: float = 0.0) -> None:
        """Read the document of a run that has just become ready; an earlier reading ends."""
        loop = asyncio.get_running_loop()
        if (former := self._tasks.pop(service.host, None)) is not None:
            former.cancel()
        self._asked_at[service.host] = loop.time()
        reading = self._refresh(service, delay_seconds)
        task = loop.create_task(reading, name=f"docs {service.host}")
        self._tasks[service.host] = task
        task.add_done_callback(lambda ended: self._forget(service.host, ended))

    def begin_if_due(self, service: ServiceConfig) -> None:
        """Read it because somebody reads the docs, if that was not done a moment ago."""
        now = asyncio.get_running_loop().time()
        asked_at = self._asked_at.get(service.host)
        if service.host not in self._tasks and (
            asked_at is None or now >= asked_at + AGAIN_SECONDS
        ):
            self.begin(service)

    def forget(self, host: str) -> None:
        """End the reading of a service that is no longer declared."""
        if (task := self._tasks.pop(host, None)) is not None:
            task.cancel()
        self._asked_at.pop(host, None)
        self._complaints.pop(host, None)

    async def close(self) -> None:
        """End every reading."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _refresh(self, service: ServiceConfig, delay_seconds: float) -> None:
        await asyncio.sleep(delay_seconds)
        try:
            async with self._places:
                body = await self._ask(service)
            loop = asyncio.get_running_loop()
            await loop.run_in_executor(self._threads, self._take, service, body)
        except Refusal:
            # Not ready any more. It is not for its docs that a service is woken.
            self._asked_at.pop(service.host, None)
        except DocsUnreadable as error:
            self._complain(service.host, error.message)
        else:
            self._complaints.pop(service.host, None)

    async def _ask(self, service: ServiceConfig) -> bytes:
        unknown = DocsUnknown(f"{service.host} is not ready")
        admission = Admission(may_wake=False, may_wait=False, counts=False, otherwise=unknown)
        named = Origin("http").authority(exact_host(service))
        async with self._lease(service.host, admission, f"GET {service.docs}") as granted:
            return await self._read(granted.endpoint, service, named)

    def _complain(self, host: str, reason: str) -> None:
        """Say it once, not at every start."""
        if self._complaints.get(host) != reason:
            self._complaints[host] = reason
            log.warning("docs-unreadable", service=host, reason=reason)

    def _forget(self, host: str, ended: asyncio.Task[None]) -> None:
        if self._tasks.get(host) is ended:
            del self._tasks[host]
        if not ended.cancelled() and (error := ended.exception()) is not None:
            log.error("bug", task=ended.get_name(), exc_info=error)
