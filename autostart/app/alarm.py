"""The alarm clock: wakes the supervisor at the date that it asked for, and decides nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, timedelta

from apscheduler.schedulers.asyncio import AsyncIOScheduler
from apscheduler.triggers.date import DateTrigger

from autostart.supervisor import Clock

# How often the wall clock is compared with the monotonic one, and which step is noticed.
# APScheduler computes with wall time: after a step back it would sleep for as long as the step.
STEP_CHECK_SECONDS = 10.0
STEP_MIN_SECONDS = 1.0


class Alarm:
    """One alarm at a time, at a monotonic date; rings also when the wall clock was set."""

    def __init__(self, clock: Clock, *, step_check_seconds: float = STEP_CHECK_SECONDS) -> None:
        self._scheduler = AsyncIOScheduler(timezone=UTC)
        self._clock = clock
        self._step_check_seconds = step_check_seconds
        self._ring: Callable[[], None] | None = None
        self._offset = self._wall_offset()
        self._heartbeat: asyncio.TimerHandle | None = None

    def start(self, ring: Callable[[], None]) -> None:
        """Ring with `ring` from now on; called with the loop running."""
        self._ring = ring
        self._scheduler.start()
        self._beat()

    def set(self, monotonic_date: float) -> None:
        """Ring at that date instead of the one set before."""
        now = self._clock.now()
        ahead = timedelta(seconds=max(0.0, monotonic_date - now.monotonic))
        self._scheduler.add_job(
            self._wake,
            DateTrigger(now.wall + ahead, timezone=UTC),
            id="look",
            replace_existing=True,
            # APScheduler drops a job that is a second late unless told otherwise: a loop that was
            # blocked for five seconds would end all idling.
            misfire_grace_time=None,
            coalesce=True,
        )

    def close(self) -> None:
        """Never ring again."""
        if self._heartbeat is not None:
            self._heartbeat.cancel()
        if self._scheduler.running:
            self._scheduler.shutdown(wait=False)

    # A coroutine, for APScheduler runs plain functions in a thread.
    async def _wake(self) -> None:
        if self._ring is not None:
            self._ring()

    def _beat(self) -> None:
        loop = asyncio.get_running_loop()
        self._heartbeat = loop.call_later(self._step_check_seconds, self._beat)
        former, self._offset = self._offset, self._wall_offset()
        if abs(self._offset - former) > STEP_MIN_SECONDS and self._ring is not None:
            self._ring()

    def _wall_offset(self) -> float:
        now = self._clock.now()
        return now.wall.timestamp() - now.monotonic
