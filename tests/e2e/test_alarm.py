"""The alarm clock on a real loop with APScheduler: it rings late rather than never."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

from autostart.app.alarm import Alarm
from autostart.schedule import Now


class SettableClock:
    """This machine's clocks, with a wall clock that a test can set."""

    def __init__(self) -> None:
        self.wall_ahead = timedelta()

    def now(self) -> Now:
        return Now(time.monotonic(), datetime.now(UTC) + self.wall_ahead)


@asynccontextmanager
async def ringing(clock: SettableClock) -> AsyncIterator[tuple[Alarm, asyncio.Event]]:
    """Give an alarm, and the event that its ringing sets."""
    rang = asyncio.Event()
    alarm = Alarm(clock, step_check_seconds=0.1)
    alarm.start(rang.set)
    try:
        yield alarm, rang
    finally:
        alarm.close()


async def seconds_until(rang: asyncio.Event, limit: float) -> float:
    began = time.monotonic()
    await asyncio.wait_for(rang.wait(), limit)
    return time.monotonic() - began


async def test_it_rings_at_its_date() -> None:
    """An alarm 300 ms ahead rings then, within a tenth of a second."""
    async with ringing(SettableClock()) as (alarm, rang):
        alarm.set(time.monotonic() + 0.3)

        assert 0.29 < await seconds_until(rang, 2) < 0.45


async def test_a_later_date_replaces_an_earlier_one() -> None:
    """Only the date set last rings."""
    async with ringing(SettableClock()) as (alarm, rang):
        alarm.set(time.monotonic() + 0.1)
        alarm.set(time.monotonic() + 0.5)

        assert 0.49 < await seconds_until(rang, 2)


async def test_a_date_in_the_past_rings_at_once() -> None:
    """A due date that has passed while nobody looked is not dropped."""
    async with ringing(SettableClock()) as (alarm, rang):
        alarm.set(time.monotonic() - 3600)

        assert await seconds_until(rang, 2) < 0.2


async def test_a_blocked_loop_delays_but_does_not_drop_it() -> None:
    """A loop that is blocked for 5 s over the date rings as soon as it runs again."""
    async with ringing(SettableClock()) as (alarm, rang):
        alarm.set(time.monotonic() + 1)
        await asyncio.sleep(0)
        time.sleep(5)

        assert await seconds_until(rang, 2) < 0.5


async def test_a_wall_clock_set_back_is_noticed() -> None:
    """After a step of an hour back, APScheduler would sleep an hour: the step itself rings."""
    await _assert_step_rings(lambda clock: setattr(clock, "wall_ahead", timedelta(hours=-1)))


async def test_a_wall_clock_set_forward_is_noticed() -> None:
    """A step of an hour forward rings too: a warm window may have opened."""
    await _assert_step_rings(lambda clock: setattr(clock, "wall_ahead", timedelta(hours=1)))


async def _assert_step_rings(step: Callable[[SettableClock], None]) -> None:
    clock = SettableClock()
    async with ringing(clock) as (alarm, rang):
        alarm.set(time.monotonic() + 3600)
        await asyncio.sleep(0.15)
        assert not rang.is_set()
        step(clock)

        assert await seconds_until(rang, 2) < 0.5
