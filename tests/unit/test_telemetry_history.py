"""What is kept of transitions for people, and what is learned from them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from autostart.lifecycle import State
from autostart.telemetry import LEARNED_FILE, History
from tests.unit.telemetry_transitions import (
    ADOPTED,
    CLEANING,
    HOST,
    LOADING,
    READY,
    STARTING,
    STOPPED,
    transition,
)


def test_a_history_keeps_the_last_transitions() -> None:
    """It is bounded: the oldest go first."""
    history = History(None, entries_max=2)
    for seconds in (1, 2, 3):
        history.record(transition(STOPPED, STARTING, seconds))

    assert [entry.fields["at"] for entry in history.after(0)] == [
        "2026-01-05T12:00:02.000+00:00",
        "2026-01-05T12:00:03.000+00:00",
    ]


def test_ids_grow_whatever_the_wall_clock_does() -> None:
    """Two transitions of one millisecond, or a clock set back, never share or shrink an id."""
    history = History(None)
    for seconds in (1.0, 1.0, -3600.0, 2.0):
        history.record(transition(STOPPED, STARTING, seconds))
    ids = [entry.id for entry in history.after(0)]

    assert ids == sorted(set(ids))
    assert history.after(ids[1])[0].id == ids[2]


def test_an_entry_has_the_fields_of_the_log() -> None:
    """What is shown later is what was logged then."""
    history = History(None)
    history.record(transition(LOADING, CLEANING, 4))

    assert history.after(0)[0].fields == {
        "at": "2026-01-05T12:00:04.000+00:00",
        "service": HOST,
        "from": "starting",
        "to": "stopping",
        "state": "stopping",
        "phase": "cleaning",
        "cause": "test",
        "attempt": 1,
        "seconds": 4.0,
        "failure": {
            "code": "start-failed",
            "message": "exit code 3",
            "hint": f"autostart logs {HOST}",
        },
    }


def test_a_failure_is_told_once() -> None:
    """The transitions after the one that brought it do not repeat it."""
    history = History(None)
    history.record(transition(CLEANING, replace(CLEANING, state=State.FAILED, phase=None)))

    assert history.after(0)[0].fields["failure"] is None


def test_observers_are_told_each_entry() -> None:
    """Whoever follows gets the entry that is kept; one may leave while it is told."""
    history = History(None)
    told: list[Any] = []

    def once(entry: Any) -> None:
        told.append(entry)
        history.observers.remove(once)

    history.observers += [once, told.append]
    history.record(transition(STOPPED, STARTING))

    assert told == [history.after(0)[0]] * 2


def test_start_times_are_learned_across_restarts(tmp_path: Path) -> None:
    """What a ready service usually takes is known to the next autostart."""
    history = History(tmp_path)
    history.record(transition(LOADING, READY, 4))
    history.close()

    assert History(tmp_path).usual_start_seconds() == {HOST: 4.0}
    assert [path.name for path in tmp_path.iterdir()] == [LEARNED_FILE]


def test_a_later_start_replaces_what_was_learned(tmp_path: Path) -> None:
    """The newest value is the one on disk."""
    history = History(tmp_path)
    for seconds in (4.0, 3.0, 2.5):
        history.record(transition(LOADING, replace(READY, usual_start_seconds=seconds)))
    history.close()

    assert History(tmp_path).usual_start_seconds() == {HOST: 2.5}


def test_an_adopted_run_teaches_nothing(tmp_path: Path) -> None:
    """Without a start there is nothing to save."""
    history = History(tmp_path)
    history.record(transition(ADOPTED, replace(READY, usual_start_seconds=None)))
    history.close()

    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "7", '{"usual_start_seconds": 7}', '{"usual_start_seconds": {"a": "x"}}'],
)
def test_a_broken_file_costs_only_what_was_learned(tmp_path: Path, text: str) -> None:
    """It is told in the log, and autostart begins without."""
    (tmp_path / LEARNED_FILE).write_text(text)
    with capture_logs() as logs:
        history = History(tmp_path)

    assert history.usual_start_seconds() == {}
    assert [line["event"] for line in logs] == ["learned-unreadable"]


def test_impossible_times_are_not_learned(tmp_path: Path) -> None:
    """A time that is negative or no number would spoil every Retry-After."""
    text = json.dumps({"usual_start_seconds": {"a": -1, "b": float("nan"), "c": 2}})
    (tmp_path / LEARNED_FILE).write_text(text)

    assert History(tmp_path).usual_start_seconds() == {"c": 2.0}


def test_a_folder_that_cannot_be_written_is_told_in_the_log(tmp_path: Path) -> None:
    """Learning is a convenience: that it fails stops nothing."""
    history = History(tmp_path / "missing")
    with capture_logs() as logs:
        history.record(transition(LOADING, READY, 4))
        history.close()

    assert [line["event"] for line in logs] == ["learned-unsaved"]
