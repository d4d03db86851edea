"""autostart/runtimes/procfs.py: reading /proc. Signals and pidfds: contract/test_process_*."""

from __future__ import annotations

from pathlib import Path

import pytest

from autostart.runtimes.procfs import (
    BLOCK_BYTES,
    PAGE_BYTES,
    TICKS_PER_SECOND,
    Marker,
    carriers,
    parse_marker,
    parse_stat,
    read_stat,
    session,
)

STATE = Path("/var/lib/autostart")
OUTPUT = STATE / "output"


def stat_line(
    pid: int, *, name: str = "python", state: str = "S", leader: int = 0, ticks: int = 100
) -> str:
    """A line in the layout of proc_pid_stat(5)."""
    return (
        f"{pid} ({name}) {state} 1 {leader or pid} {leader or pid} 0 -1 4194560 1519 900 0 0 "
        f"{2 * TICKS_PER_SECOND} {TICKS_PER_SECOND} {TICKS_PER_SECOND} 0 20 0 1 0 {ticks} "
        "24829952 1000 18446744073709551615 1 1 0 0 0 0 0 16781312 2 0 0 0 17 1 0 0 0 0 0\n"
    )


@pytest.mark.parametrize("name", ["python", "a b", "(sd-pam)", "x) S 1 (y"])
def test_a_stat_line_is_read_whatever_the_program_is_called(name):
    """A program's name may hold blanks and parentheses, and shifts no field."""
    stat = parse_stat(stat_line(42, name=name, leader=40, ticks=123))

    assert (stat.pid, stat.state, stat.group, stat.session) == (42, "S", 40, 40)
    assert (stat.start_ticks, stat.cpu_seconds) == (123, 4.0)
    assert stat.memory_bytes == 1000 * PAGE_BYTES
    assert stat.leads_session is False


@pytest.mark.parametrize(
    ("state", "alive"), [("R", True), ("D", True), ("T", True), ("Z", False), ("X", False)]
)
def test_what_has_exited_is_not_alive(state, alive):
    """A zombie is listed and does not live; what sleeps or is stopped lives."""
    assert parse_stat(stat_line(42, state=state)).alive is alive


@pytest.mark.parametrize(
    "marker",
    [
        Marker(str(STATE), "whisper.example.com", 8001),
        Marker("/a folder: with everything = in it", "*.example.com", 0),
        Marker("/caf\udce9", "::1", 65535),
    ],
)
def test_a_marker_is_found_in_an_environment(marker):
    """What a child was given is read back, wherever it stands."""
    own = f"AUTOSTART_RUN={marker.value}".encode(errors="surrogateescape")

    for entries in ([own], [b"PATH=/bin", own, b"HOME=/"], [b"X=AUTOSTART_RUN=1 h /x", own]):
        assert parse_marker(b"\0".join(entries) + b"\0") == marker


@pytest.mark.parametrize(
    "environment",
    [
        b"",
        b"PATH=/bin\0",
        b"AUTOSTART_RUN=\0",
        b"AUTOSTART_RUN=x y z\0",
        b"X=AUTOSTART_RUN=1 h /x\0",
        b"nginx: master process\0\0\0\0\0",
    ],
)
def test_other_environments_have_no_marker(environment):
    """Not ours, emptied, overwritten by a title, or set by hand to nonsense."""
    assert parse_marker(environment) is None


def process(proc: Path, stat: str, *, environment: bytes = b"", output: str = "/dev/null") -> None:
    folder = proc / stat.partition(" ")[0]
    (folder / "fd").mkdir(parents=True)
    (folder / "stat").write_text(stat)
    (folder / "environ").write_bytes(environment)
    (folder / "fd" / "1").symlink_to(output)


def marked(host: str, port: int, state: Path = STATE) -> bytes:
    return f"PATH=/bin\0AUTOSTART_RUN={Marker(str(state), host, port).value}\0".encode()


def found(proc: Path) -> list[tuple[int, str, int | None]]:
    return [(c.stat.pid, c.host, c.port) for c in carriers(STATE, OUTPUT, str(proc))]


def test_carriers_are_what_carries_our_marker(tmp_path):
    """Of all processes, those with the marker of this state folder, whoever leads them."""
    process(tmp_path, stat_line(1))
    process(tmp_path, stat_line(7), environment=marked("a", 8001))
    process(tmp_path, stat_line(8, leader=7), environment=marked("a", 8001))
    process(tmp_path, stat_line(9), environment=marked("a", 8001, Path("/other")))
    (tmp_path / "self").mkdir()
    (tmp_path / "10").mkdir()  # gone while we look

    assert found(tmp_path) == [(7, "a", 8001), (8, "a", 8001)]


def test_the_oldest_carrier_comes_first(tmp_path):
    """Pids wrap around; start ticks do not."""
    process(tmp_path, stat_line(30_000, ticks=5), environment=marked("a", 1))
    process(tmp_path, stat_line(20, ticks=9), environment=marked("a", 2))

    assert found(tmp_path) == [(30_000, "a", 1), (20, "a", 2)]


def test_a_dead_carrier_is_none(tmp_path):
    """A zombie whose environment could still be read does not run."""
    process(tmp_path, stat_line(7, state="Z"), environment=marked("a", 8001))

    assert found(tmp_path) == []


@pytest.mark.parametrize("removed", ["", " (deleted)"])
def test_a_carrier_without_marker_is_known_by_its_output(tmp_path, removed):
    """It writes to our file, even if somebody removed that; its port is not known from it."""
    process(
        tmp_path, stat_line(7), environment=b"nginx: master\0", output=f"{OUTPUT}/a.log{removed}"
    )

    assert found(tmp_path) == [(7, "a", None)]


def test_the_marker_comes_before_the_output(tmp_path):
    """An autostart that is itself a service of ours has children of its own, which write there."""
    inner = marked("inner", 9, Path("/inner"))
    process(tmp_path, stat_line(7), environment=inner, output=f"{OUTPUT}/a.log")

    assert found(tmp_path) == []


def test_a_large_environment_is_read_to_its_end(tmp_path):
    """The marker may stand behind megabytes."""
    filler = b"X=" + b"x" * (3 * BLOCK_BYTES) + b"\0"
    process(tmp_path, stat_line(7), environment=filler + marked("a", 8001))

    assert found(tmp_path) == [(7, "a", 8001)]


def test_a_session_is_its_leader_and_all_that_came_of_it(tmp_path):
    """Usage counts the children too."""
    for stat in (stat_line(7), stat_line(8, leader=7), stat_line(9)):
        process(tmp_path, stat)

    assert sorted(stat.pid for stat in session(7, str(tmp_path))) == [7, 8]


def test_a_process_that_is_gone_has_no_stat(tmp_path):
    """Nobody is there: None, no error."""
    assert read_stat(7, str(tmp_path)) is None
