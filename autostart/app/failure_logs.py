"""The last lines that a service wrote before its start failed or its run died; for operators only.

Read off the path of requests, when it happens: the output goes on with the next run.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Collection
from contextlib import aclosing

import structlog

from autostart import errors
from autostart.config import ServiceConfig
from autostart.lifecycle import Phase, Service, State
from autostart.runtimes.base import Runtime
from autostart.telemetry import Transition

log = structlog.get_logger("autostart")

LINES_MAX = 20
# A longer line is cut: 20 of them are shown on one page.
LINE_CHARACTERS_MAX = 1_000
READ_SECONDS = 5.0


class FailureLogs:
    """The lines that belong to the present failure of each service."""

    def __init__(
        self,
        runtime_of: Callable[[ServiceConfig], Runtime],
        watchers: list[Callable[[str], None]],
    ) -> None:
        self._runtime_of = runtime_of
        self._watchers = watchers  # told when lines have come
        self._lines: dict[str, tuple[errors.Refusal, list[str]]] = {}
        self._reading: dict[str, asyncio.Task[None]] = {}

    def record(self, transition: Transition) -> None:
        """Read the output if this transition brought a failure of a run."""
        host, before, after = transition.host, transition.before, transition.after
        failure = after.failure
        if failure is None:
            self._lines.pop(host, None)
        if failure is None or failure is before.failure or not _has_run(before, failure):
            return
        former = self._reading.pop(host, None)
        if former is not None:
            former.cancel()
        reading = self._read(before.config, failure)
        loop = asyncio.get_running_loop()
        self._reading[host] = loop.create_task(reading, name=f"failure log {host}")

    def keep(self, hosts: Collection[str]) -> None:
        """Forget the services that the map no longer has."""
        for host in (self._lines.keys() | self._reading.keys()) - set(hosts):
            self._lines.pop(host, None)
            if (reading := self._reading.pop(host, None)) is not None:
                reading.cancel()

    def of(self, service: Service) -> list[str] | None:
        """Return the lines that belong to the failure that a service shows; None for none."""
        failure, lines = self._lines.get(service.config.host, (None, None))
        return lines if failure is not None and failure is service.failure else None

    async def close(self) -> None:
        """Read no more."""
        for task in self._reading.values():
            task.cancel()
        await asyncio.gather(*self._reading.values(), return_exceptions=True)

    async def _read(self, config: ServiceConfig, failure: errors.Refusal) -> None:
        last: deque[str] = deque(maxlen=LINES_MAX)
        try:
            async with asyncio.timeout(READ_SECONDS):
                output = self._runtime_of(config).logs(config, LINES_MAX, follow=False)
                async with aclosing(output):
                    async for line in output:
                        last.append(line[:LINE_CHARACTERS_MAX])
        except (errors.AutostartError, TimeoutError) as error:
            log.debug("failure-log-unread", service=config.host, reason=str(error))
            return
        except Exception:  # nobody awaits this task: a bug has to be told here
            log.exception("bug", service=config.host)
            return
        if last:
            self._lines[config.host] = failure, list(last)
            for watch in self._watchers:
                watch(config.host)


def _has_run(before: Service, failure: errors.Refusal) -> bool:
    """Whether there may be output of the run that failed."""
    if isinstance(failure, errors.EngineUnreachable | errors.PortTaken):
        return False
    if before.state is State.STARTING:
        return before.phase in (Phase.STARTING, Phase.LOADING)
    return before.endpoint is not None
