"""Which starts are kept, with what, and for how long."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from autostart.lifecycle import Phase, State
from autostart.telemetry.starts import Start, Starts, parse_start
from tests.unit.telemetry_transitions import (
    ADOPTED,
    CLEANING,
    HOST,
    LOADING,
    NOON,
    READY,
    START,
    STARTING,
    STOPPED,
    transition,
)

WEEK = timedelta(days=7)
PHASES = {"queued": 0.0, "preparing": 0.0, "starting": 1.0, "loading": 3.0}
KEPT = Start(HOST, NOON, "request GET /", "ready", 4.0, PHASES)


def starts(*kept: Start, entries_max: int = 100) -> Starts:
    return Starts(kept, age_max=WEEK, entries_max=entries_max)


def at(days: float, host: str = HOST) -> Start:
    """Return a start so many days after the first."""
    return replace(KEPT, host=host, at=NOON + timedelta(days=days))


def test_a_start_that_became_ready_is_kept_with_its_phases() -> None:
    """When and why it was asked for, how it ended, and the seconds of each phase."""
    kept = starts()
    kept.take(replace(transition(STOPPED, STARTING), cause="request GET /"))
    kept.take(transition(STARTING, LOADING, 1))

    assert kept.take(transition(LOADING, READY, 4)) == KEPT
    assert kept.of(HOST, NOON) == [KEPT]


def test_a_start_that_failed_is_kept_with_the_code() -> None:
    """The phase in which it failed lasted until then."""
    kept = starts()
    kept.take(transition(STOPPED, STARTING))
    kept.take(transition(STARTING, LOADING, 1))
    ended = kept.take(transition(LOADING, CLEANING, 2))

    assert ended is not None
    assert (ended.outcome, ended.cause, ended.seconds) == ("start-failed", "test", 2.0)
    assert ended.phases == {**PHASES, "loading": 1.0}


def test_a_start_counts_from_when_it_was_asked_for() -> None:
    """Queueing and preparing are phases of it, and its date is that of the request."""
    milestones = {Phase.QUEUED: START, Phase.PREPARING: START + 2, Phase.STARTING: START + 7}
    before = replace(LOADING, milestones={**milestones, Phase.LOADING: START + 8})
    ended = starts().take(transition(before, READY, 10))

    assert ended is not None
    assert ended.at == NOON
    assert ended.phases == {"queued": 2.0, "preparing": 5.0, "starting": 1.0, "loading": 2.0}


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (ADOPTED, READY),  # found, not started
        (READY, replace(ADOPTED, attempt=1)),  # probed again
        (STARTING, LOADING),
        (READY, replace(STOPPED, attempt=1)),
    ],
)
def test_what_is_no_end_of_a_start_is_not_kept(before: object, after: object) -> None:
    """Adopted runs, and all that happens before and after a start, leave the list alone."""
    kept = starts()

    assert kept.take(transition(before, after)) is None  # type: ignore[arg-type]  # parametrized
    assert len(kept) == 0


def test_the_cause_of_another_attempt_is_not_taken() -> None:
    """What began an attempt that was never reported to have ended says nothing about the next."""
    kept = starts()
    kept.take(transition(STOPPED, STARTING))
    ended = kept.take(transition(replace(LOADING, attempt=2), replace(READY, attempt=2)))

    assert ended is not None
    assert ended.cause == ""


def test_an_operators_stop_ends_a_start() -> None:
    """A start that was stopped before it was ready has neither worked nor failed."""
    ended = starts().take(transition(LOADING, replace(STOPPED, state=State.STOPPED)))

    assert ended is not None
    assert ended.outcome == "stopped"


def test_starts_older_than_a_week_are_dropped() -> None:
    """So many days, counted back from now."""
    kept = starts(at(0), at(1), at(8, "b.localhost"))

    assert kept.forget_before(NOON + timedelta(days=7.5)) == 1
    assert list(kept) == [at(1), at(8, "b.localhost")]


def test_a_service_that_fails_over_and_over_displaces_only_itself() -> None:
    """Over the limit the oldest start of the service that has the most is dropped."""
    kept = starts(at(0, "b.localhost"), at(1), at(2), at(3), entries_max=3)

    assert list(kept) == [at(0, "b.localhost"), at(2), at(3)]
    assert len(kept) == 3


def test_only_starts_since_a_date_are_returned() -> None:
    """Oldest first; a host that never started has none."""
    kept = starts(at(0), at(1), at(2))

    assert kept.of(HOST, NOON + timedelta(days=1)) == [at(1), at(2)]
    assert kept.of("b.localhost", NOON) == []


def test_a_line_is_read_as_it_was_written() -> None:
    """A file of lines outlives autostart; dates are UTC."""
    paris = "2026-01-05T13:00:00+01:00"
    elsewhere = json.dumps([HOST, paris, "request GET /", "ready", 4.0, [0, 0, 1, 3]])

    assert parse_start(KEPT.line().encode()) == KEPT
    assert parse_start(elsewhere.encode()) == KEPT
    assert parse_start(elsewhere.encode()).at.tzinfo is UTC


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"{}",
        b"7",
        b"\xff",
        b"[" * 100_000,
        KEPT.line().encode()[:-9],
        KEPT.line().replace("+00:00", "").encode(),
        KEPT.line().replace("4.0", "-1").encode(),
        KEPT.line().replace("4.0", "NaN").encode(),
        KEPT.line().replace('"ready"', "7").encode(),
        KEPT.line().replace("[0.0, ", "[").encode(),
        KEPT.line().replace("2026-01-05", "2026-13-05").encode(),
        json.dumps([HOST, str(datetime.max), "", "ready", 1e999, [0] * 4]).encode(),
    ],
)
def test_a_line_that_is_none_of_ours_is_refused(line: bytes) -> None:
    """With an error that whoever reads the file expects, whatever stands there."""
    with pytest.raises((ValueError, TypeError, RecursionError, OverflowError)):
        parse_start(line)
