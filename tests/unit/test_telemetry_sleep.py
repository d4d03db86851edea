"""How time asleep and awake is counted, in all and by day."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone

import pytest

from autostart.schedule import Now
from autostart.telemetry.sleep import DAYS_MAX, Day, Sleep
from tests.unit.telemetry_transitions import HOST, NOON, READY, START, STOPPED

TODAY = date(2026, 1, 5)
HOUR = 3600.0


def later(seconds: float) -> Now:
    return Now(START + seconds, NOON + timedelta(seconds=seconds))


def test_time_counts_for_what_the_service_was() -> None:
    """Up to each look, once, however often anybody looks."""
    sleep = Sleep()
    sleep.pass_to(later(10), HOST, STOPPED)
    sleep.pass_to(later(10), HOST, STOPPED)
    sleep.pass_to(later(15), HOST, READY)

    assert (sleep.asleep_seconds, sleep.awake_seconds) == ({HOST: 10.0}, {HOST: 5.0})
    assert sleep.days(HOST, TODAY, 1) == [(TODAY, Day(10.0, 5.0))]


def test_a_night_belongs_to_two_days() -> None:
    """What lies across midnight, UTC, is split there."""
    sleep = Sleep()
    sleep.pass_to(later(14 * HOUR), HOST, STOPPED)

    assert sleep.days(HOST, TODAY + timedelta(days=1), 2) == [
        (TODAY, Day(12 * HOUR, 0.0)),
        (TODAY + timedelta(days=1), Day(2 * HOUR, 0.0)),
    ]


def test_a_long_silence_is_counted_by_day_as_far_as_days_are_kept() -> None:
    """Nobody looked for a month: the last week is right, and so is the sum."""
    sleep = Sleep()
    sleep.pass_to(later(30 * 24 * HOUR), HOST, STOPPED)
    last = TODAY + timedelta(days=30)
    days = [day.asleep_seconds for _, day in sleep.days(HOST, last, DAYS_MAX)]

    assert days == pytest.approx([24 * HOUR] * 6 + [12 * HOUR])
    assert sleep.asleep_seconds == {HOST: 30 * 24 * HOUR}


def test_days_are_those_of_utc_wherever_the_clock_is() -> None:
    """A wall clock with another offset changes no date."""
    tokyo = NOON.astimezone(timezone(timedelta(hours=9))) + timedelta(hours=11)
    sleep = Sleep()
    sleep.pass_to(Now(START + HOUR, tokyo), HOST, STOPPED)

    assert sleep.days(HOST, TODAY, 1) == [(TODAY, Day(HOUR, 0.0))]


def test_a_wall_clock_set_back_takes_nothing_away() -> None:
    """How long it was is told by the monotonic clock; only which day it was by the other."""
    sleep = Sleep()
    sleep.pass_to(later(HOUR), HOST, STOPPED)
    sleep.pass_to(Now(START + 2 * HOUR, NOON - timedelta(days=1)), HOST, STOPPED)

    assert sleep.days(HOST, TODAY, 2) == [
        (TODAY - timedelta(days=1), Day(HOUR, 0.0)),
        (TODAY, Day(HOUR, 0.0)),
    ]


def test_a_time_out_of_the_map_is_neither() -> None:
    """A service that was removed and has come back begins anew."""
    sleep = Sleep()
    sleep.pass_to(later(10), HOST, STOPPED)
    back = type(STOPPED)(STOPPED.config, since=START + 100)
    sleep.pass_to(later(105), HOST, back)

    assert sleep.asleep_seconds == {HOST: 15.0}


def test_what_was_kept_is_gone_on_with() -> None:
    """A new process adds to the day of the one before it; its own totals begin with nothing."""
    former = Sleep()
    former.pass_to(later(10), HOST, STOPPED)
    sleep = Sleep(former.to_json())
    sleep.pass_to(later(5), HOST, STOPPED)

    assert sleep.days(HOST, TODAY, 1) == [(TODAY, Day(15.0, 0.0))]
    assert sleep.asleep_seconds == {HOST: 5.0}


def test_days_too_long_ago_or_to_come_are_dropped() -> None:
    """A week is kept; a date in the future is the work of a wrong clock."""
    written = {
        (TODAY + timedelta(days=offset)).isoformat(): {HOST: [1.0, 0.0]}
        for offset in (-7, -6, 0, 1, 400)
    }
    sleep = Sleep(written)
    sleep.forget_before(TODAY)

    assert list(sleep.to_json()) == ["2025-12-30", "2026-01-05", "2026-01-06"]


@pytest.mark.parametrize(
    "kept",
    [
        {"today": {}},
        {"2026-01-05": []},
        {"2026-01-05": {HOST: 7}},
        {"2026-01-05": {HOST: [1.0]}},
        {"2026-01-05": {HOST: [1.0, -1.0]}},
        {"2026-01-05": {HOST: [1.0, float("nan")]}},
    ],
)
def test_what_is_no_account_of_days_is_refused(kept: dict[str, object]) -> None:
    """With an error that whoever reads the file expects."""
    with pytest.raises((ValueError, TypeError, AttributeError)):
        Sleep(kept)


def test_a_day_without_an_account_is_empty() -> None:
    """Every day is there, oldest first, so that a chart has no gaps."""
    assert [day for day, _ in Sleep().days(HOST, datetime(2026, 1, 2, tzinfo=UTC).date(), 3)] == [
        date(2025, 12, 31),
        date(2026, 1, 1),
        date(2026, 1, 2),
    ]
