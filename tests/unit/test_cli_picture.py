"""What stands on a terminal: fitted, coloured, and readable without its colours."""

from __future__ import annotations

from typing import Any

import pytest
from rich.text import Text

from autostart.cli.picture import Size, bar, picture, progress_line, scene, summary
from autostart.cli.table import status_table

FAILURE = {"code": "start-failed", "message": "exit\ncode 3 " + "and so on" * 20}
DEVICE = {"kind": "cpu", "reason": "no GPU: nvidia-smi is not installed"}


def shown(host: str = "whisper.example.com", **more: Any) -> dict[str, Any]:
    nothing = dict.fromkeys(
        (
            *("phase", "failure", "closed_by", "device", "progress", "preparation"),
            *("idle_due_seconds", "kept_until", "retry_in_seconds", "usual_start_seconds"),
        )
    )
    known = {"host": host, "state": "stopped", "since_seconds": 5.0, "attempt": 0}
    return {**known, "leases": [], "waiting": [], **nothing, **more}


FLEET = [
    shown(state="ready", leases=[1], device=DEVICE, attempt=3),
    shown(
        "b.example.com", state="starting", phase="loading", since_seconds=3, usual_start_seconds=12
    ),
    shown("c.example.com", state="failed", failure=FAILURE, retry_in_seconds=9.0),
    shown("d.example.com", closed_by="held"),
]


def styles(text: Text, word: str) -> list[str]:
    """Return the styles of the first place where a word stands."""
    start = text.plain.index(word)
    return [str(span.style) for span in text.spans if span.start <= start < span.end]


def test_wide_enough_it_says_what_the_table_says() -> None:
    """Without its colours, and but for the bar, the picture is the text that a pipe gets."""
    lines = picture(FLEET, Size(500)).plain.splitlines()
    told = [line.rstrip() for line in lines if "of usually" not in line]

    assert status_table(FLEET, width=500).splitlines() == told


@pytest.mark.parametrize(
    ("word", "style"),
    [("ready", "green"), ("loading", "yellow"), ("failed", "bold red"), ("stopped", "dim")],
)
def test_each_state_has_a_word_and_a_colour(word: str, style: str) -> None:
    """The colour repeats what the word says."""
    assert styles(picture(FLEET, Size(100)), word) == [style]


@pytest.mark.parametrize("width", [20, 40, 60, 80, 120])
def test_no_line_is_wider_than_the_terminal(width: int) -> None:
    """Columns are left out, then hosts are cut, then notes; the state always stands there."""
    lines = picture(FLEET, Size(width)).plain.splitlines()

    assert [line for line in lines if len(line) > width] == []
    assert all(any(state in line for line in lines) for state in ("ready", "failed", "stopped"))


def test_what_matters_least_is_left_out_first() -> None:
    """On a phone's width the host, the state and the idle countdown are left."""
    assert picture(FLEET, Size(40)).plain.split("\n")[0].split() == ["HOST", "STATE", "IDLE", "IN"]


def test_a_start_is_measured_against_the_usual_one() -> None:
    """What was learned from earlier starts makes a bar."""
    line = picture(FLEET, Size(100)).plain.splitlines()[4]

    assert line == "    ━━━━━─────────────── 3s of usually 12s"


@pytest.mark.parametrize(
    ("fraction", "drawn"), [(0.0, "----"), (0.5, "##--"), (1.0, "####"), (7.0, "####")]
)
def test_a_bar_is_never_longer_than_itself(fraction: float, drawn: str) -> None:
    """A start that takes longer than usual has a full bar."""
    assert bar(fraction, is_ascii=True, characters=4).plain == drawn


def test_a_hundred_services_fit_a_terminal() -> None:
    """Those that are stopped give way first, and the rest is counted."""
    fleet = [shown(f"s{number}.example.com") for number in range(98)]
    fleet += [shown("up.example.com", state="ready"), shown("no.example.com", state="failed")]
    lines = picture(fleet, Size(80, 24)).plain.splitlines()

    assert len(lines) == 24
    assert [line.split()[0] for line in lines[-3:]] == ["up.example.com", "no.example.com", "and"]
    assert lines[-1] == "and 78 services: 78 stopped"


def test_where_room_is_short_devices_are_not_told() -> None:
    """What seldom changes makes room for another service."""
    fleet = [shown(f"s{number}.example.com", device=DEVICE) for number in range(10)]
    lines = picture(fleet, Size(80, 12)).plain.splitlines()

    assert len(lines) == 11
    assert [line for line in lines if "device" in line] == []


def test_a_fleet_is_counted_by_state() -> None:
    """What failed is counted first."""
    assert summary(FLEET).plain == "4 services: 1 failed, 1 ready, 1 starting, 1 stopped"
    assert summary(FLEET[:1]).plain == "1 service: 1 ready"
    assert summary([]).plain == "0 services"


def test_an_empty_fleet_is_said() -> None:
    """An empty picture would look like a failure."""
    assert picture([], Size(80, 24)).plain == "no service is declared"


def test_a_daemon_that_is_away_is_told() -> None:
    """What is shown then is from before, and looks so."""
    drawn = scene(FLEET, Size(80, 24), lost="no autostart serves on x, for 3s", date="12:00")

    assert drawn.plain.startswith("no autostart serves on x, for 3s; this is from before\n\nHOST")
    assert styles(drawn, "ready") == ["dim"]


def test_a_scene_fills_the_terminal_at_most() -> None:
    """The head counts too."""
    fleet = [shown(f"s{number}.example.com") for number in range(50)]

    assert len(scene(fleet, Size(80, 24), lost=None, date="12:00").plain.splitlines()) == 24


@pytest.mark.parametrize(
    ("service", "said"),
    [
        (
            shown(state="starting", phase="loading", since_seconds=6.0, usual_start_seconds=12.0),
            "/ whisper.example.com  loading  ##########---------- 6s of usually 12s",
        ),
        (
            shown(state="starting", phase="loading", since_seconds=6.0),
            "/ whisper.example.com  loading  1m00s",
        ),
        (
            shown(preparation={"running": True}, progress="Pulling\n3 of 7"),
            "/ whisper.example.com  preparing  1m00s  Pulling 3 of 7",
        ),
        (
            shown(state="stopping", phase="draining", leases=[1, 2]),
            "/ whisper.example.com  draining  1m00s  used by 2 requests",
        ),
    ],
)
def test_what_takes_long_is_one_line(service: dict[str, Any], said: str) -> None:
    """Phase, time, and what is known more."""
    assert progress_line(service, 60.1, is_ascii=True).plain == said
