"""What is kept of the last days over restarts."""

from __future__ import annotations

import json
from datetime import date, timedelta
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from autostart.schedule import Now
from autostart.telemetry import Days, Sample
from autostart.telemetry.days import DAYS_FILE, SAVE_SECONDS, STARTS_FILE
from autostart.telemetry.sleep import Day
from autostart.telemetry.starts import STARTS_MAX
from tests.unit.telemetry_transitions import (
    HOST,
    LOADING,
    NOON,
    READY,
    START,
    STARTING,
    STOPPED,
    transition,
)

TODAY = date(2026, 1, 5)
BEGIN = Now(START, NOON)


def later(seconds: float) -> Now:
    return Now(START + seconds, NOON + timedelta(seconds=seconds))


def lived(folder: Path | None) -> Days:
    """Return the days of a service that slept for 10 s, started in 4 and was up for 6."""
    days = Days(folder, BEGIN)
    days.record(transition(STOPPED, STARTING, 10))
    days.record(transition(STARTING, LOADING, 11))
    days.record(transition(LOADING, READY, 14))
    days.take(HOST, Sample(later(15), 1_000_000, 0.5))
    return days


def test_the_last_days_outlive_autostart(tmp_path: Path) -> None:
    """Starts, sleep and what a run takes are there in the next one."""
    days = lived(tmp_path)
    days.close(later(20), {HOST: READY})
    again = Days(tmp_path, later(30))

    assert list(again.starts) == list(days.starts)
    assert again.sleep.days(HOST, TODAY, 1) == [(TODAY, Day(10.0, 10.0))]
    assert again.usages.usual_memory_bytes(HOST) == 1_000_000


def test_a_kill_loses_no_start(tmp_path: Path) -> None:
    """Each is written when it ends; the account of sleep is at most minutes old."""
    days = lived(tmp_path)
    days.pass_to(later(SAVE_SECONDS + 1), {HOST: READY})
    days._disk.close()  # nothing is saved at the end of a kill
    again = Days(tmp_path, later(SAVE_SECONDS + 2))

    assert len(again.starts) == 1
    assert again.sleep.days(HOST, TODAY, 1) == [(TODAY, Day(10.0, SAVE_SECONDS - 9))]


def test_a_time_in_which_autostart_did_not_run_is_neither(tmp_path: Path) -> None:
    """Between two processes nothing is counted: nobody knows what ran."""
    lived(tmp_path).close(later(20), {HOST: READY})
    again = Days(tmp_path, later(3_600))
    back = type(STOPPED)(STOPPED.config, since=START + 3_600)
    again.pass_to(later(3_605), {HOST: back})

    assert again.sleep.days(HOST, TODAY, 1) == [(TODAY, Day(15.0, 10.0))]


def test_old_starts_are_not_taken_over(tmp_path: Path) -> None:
    """What is older than a week leaves the file when the next autostart begins."""
    lived(tmp_path).close(later(20), {})
    week = timedelta(days=8).total_seconds()
    again = Days(tmp_path, later(week))
    again.close(later(week), {})

    assert len(again.starts) == 0
    assert (tmp_path / STARTS_FILE).read_text() == ""


def test_a_line_that_was_cut_costs_itself(tmp_path: Path) -> None:
    """The file is written anew, so that the next start does not stand in the same line."""
    lived(tmp_path).close(later(20), {})
    path = tmp_path / STARTS_FILE
    whole = path.read_text()
    path.write_text(whole + whole[:30])
    with capture_logs() as logs:
        again = Days(tmp_path, later(30))
    again.close(later(30), {})

    assert len(again.starts) == 1
    assert path.read_text() == whole
    assert [(line["event"], line["lines"]) for line in logs] == [("starts-unreadable", 1)]


@pytest.mark.parametrize("name", [STARTS_FILE, DAYS_FILE])
@pytest.mark.parametrize(
    "content", [b"\xff\xfe", b"[", b"7", b"null", b'{"sleep": 7, "usual_memory_bytes": {}}']
)
def test_a_file_that_is_of_no_use_costs_one_warning(
    tmp_path: Path, name: str, content: bytes
) -> None:
    """autostart begins without it, and keeps what comes."""
    (tmp_path / name).write_bytes(content)
    with capture_logs() as logs:
        days = lived(tmp_path)
        days.close(later(20), {})
    again = Days(tmp_path, later(30))

    assert [line["event"] for line in logs] == [f"{Path(name).stem}-unreadable"]
    assert len(again.starts) == 1
    assert again.usages.usual_memory_bytes(HOST) == 1_000_000


def test_the_file_of_starts_does_not_grow_for_ever(tmp_path: Path) -> None:
    """After as many starts as are kept it is written anew."""
    days = Days(tmp_path, BEGIN)
    for _ in range(STARTS_MAX + 10):
        days.record(transition(STOPPED, STARTING))
        days.record(transition(LOADING, READY, 4))
        if days._appended % 100 == 0:
            days._disk._writer.submit(lambda: None).result()  # or the disk would be full of waiting
    days.close(BEGIN, {})
    lines = (tmp_path / STARTS_FILE).read_text().splitlines()

    assert len(days.starts) == STARTS_MAX
    assert len(lines) == STARTS_MAX + 10
    assert len(Days(tmp_path, BEGIN).starts) == STARTS_MAX


def test_the_account_of_sleep_is_written_now_and_then(tmp_path: Path) -> None:
    """Not with every look: a page may look every second."""
    days = Days(tmp_path, BEGIN)
    days.pass_to(later(1), {HOST: STOPPED})
    days._disk._writer.submit(lambda: None).result()
    early = (tmp_path / DAYS_FILE).exists()
    days.pass_to(later(SAVE_SECONDS), {HOST: STOPPED})
    days._disk._writer.submit(lambda: None).result()

    assert not early
    assert json.loads((tmp_path / DAYS_FILE).read_text())["sleep"] == {
        "2026-01-05": {HOST: [SAVE_SECONDS, 0.0]}
    }


def test_a_sample_goes_with_its_run() -> None:
    """The next run is not shown with what the one before it used; what is usual stays."""
    days = lived(None)
    days.record(transition(READY, STOPPED, 20))

    assert days.usages.last == {}
    assert days.usages.usual_memory_bytes(HOST) == 1_000_000


def test_without_a_folder_all_is_kept_in_memory() -> None:
    """For who wants no state."""
    days = lived(None)
    days.close(later(20), {HOST: READY})

    assert len(days.starts) == 1
