"""Pulls and builds that an operator asked for: one per service, not cancelled by who asked."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import structlog

from autostart.admin.answers import failure_answer
from autostart.errors import AutostartError

log = structlog.get_logger("autostart")


class Preparations:
    """Runs `prepare` per host and remembers how the last one ended; tells when one changed."""

    def __init__(
        self, prepare: Callable[[str], Awaitable[None]], changed: Callable[[str], None]
    ) -> None:
        self._prepare = prepare
        self._changed = changed
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._failures: dict[str, AutostartError] = {}

    def begin(self, host: str) -> None:
        """Begin, or join the one under way."""
        task = self._tasks.get(host)
        if task is not None and not task.done():
            return
        self._failures.pop(host, None)
        # Not a start: nothing in the lifecycle waits for it. Named and kept, as in the supervisor.
        loop = asyncio.get_running_loop()
        task = loop.create_task(self._watched(host), name=f"prepare {host}")
        task.add_done_callback(lambda _: self._changed(host))
        self._tasks[host] = task
        self._changed(host)

    def answer(self, host: str) -> dict[str, Any] | None:
        """Return how the last one stands; None if nobody asked for one."""
        task = self._tasks.get(host)
        if task is None:
            return None
        failure = failure_answer(self._failures.get(host), host)
        return {"running": not task.done(), "failure": failure}

    async def close(self) -> None:
        """End what is under way; what was pulled or built stays."""
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    async def _watched(self, host: str) -> None:
        try:
            await self._prepare(host)
        except AutostartError as error:
            log.warning(
                "prepare-failed", service=host, failure=error.for_operator, detail=error.detail
            )
            self._failures[host] = error
        except Exception:  # nobody awaits this task: a bug has to be told here
            log.exception("bug", service=host)
            self._failures[host] = AutostartError("a bug in autostart, see its log")
