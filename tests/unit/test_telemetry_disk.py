"""Files of the state folder: what is read, what is written, and what goes wrong."""

from __future__ import annotations

import stat
import threading
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from autostart.telemetry import disk
from autostart.telemetry.disk import Disk


def text(content: bytes) -> str:
    return content.decode()


def test_what_was_written_is_read_by_the_next_one(tmp_path: Path) -> None:
    """Replaced and appended in the order in which it was asked."""
    first = Disk(tmp_path)
    first.replace("a.json", lambda: "old\n")
    first.replace("a.json", lambda: "1\n")
    first.append("a.json", lambda: "2\n")
    first.close()

    assert Disk(tmp_path).read("a.json", text, "") == "1\n2\n"
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def test_files_are_for_nobody_else(tmp_path: Path) -> None:
    """Paths of requests stand in there."""
    kept = Disk(tmp_path)
    kept.append("a.jsonl", lambda: "1\n")
    kept.close()

    assert stat.S_IMODE((tmp_path / "a.jsonl").stat().st_mode) == 0o600


def test_without_a_folder_nothing_is_read_or_kept() -> None:
    """For who wants no state."""
    kept = Disk(None)
    kept.replace("a.json", lambda: pytest.fail("not asked"))
    kept.close()

    assert kept.read("a.json", text, "nothing") == "nothing"


def test_a_file_that_is_not_there_is_no_news(tmp_path: Path) -> None:
    """Every state folder is new once."""
    with capture_logs() as logs:
        read = Disk(tmp_path).read("a.json", text, "nothing")

    assert (read, logs) == ("nothing", [])


def test_a_file_that_cannot_be_read_costs_what_it_held(tmp_path: Path) -> None:
    """One warning, named after the file, and what there is without it."""
    (tmp_path / "a.json").write_bytes(b"\xff")
    (tmp_path / "b.json").mkdir()
    with capture_logs() as logs:
        read = [Disk(tmp_path).read(name, text, "nothing") for name in ("a.json", "b.json")]

    assert read == ["nothing", "nothing"]
    assert [line["event"] for line in logs] == ["a-unreadable", "b-unreadable"]


def test_of_a_huge_file_the_end_is_read(tmp_path: Path) -> None:
    """Whoever wrote it: memory has a bound."""
    (tmp_path / "a.jsonl").write_bytes(b"0" * disk.READ_BYTES_MAX + b"end")
    read = Disk(tmp_path).read("a.jsonl", text, "")

    assert (len(read), read[-3:]) == (disk.READ_BYTES_MAX, "end")


def test_a_folder_that_cannot_be_written_is_told_once(tmp_path: Path) -> None:
    """Not with every start; and again once it had worked meanwhile."""
    folder = tmp_path / "missing"
    kept = Disk(folder)
    written = threading.Event()

    def told() -> str:
        written.set()
        return "1\n"

    with capture_logs() as logs:
        for _ in range(3):
            kept.append("a.jsonl", told)
        kept.close()

    assert written.is_set()
    assert [line["event"] for line in logs] == ["a-unsaved"]


def test_a_disk_that_hangs_is_waited_for_by_few_writes(tmp_path: Path) -> None:
    """What comes after so many is not kept, and nobody waits to say it."""
    kept = Disk(tmp_path)
    hanging = threading.Event()

    def hang() -> str:
        hanging.wait(10)
        return "0"

    kept.append("a.jsonl", hang)
    for _ in range(disk.WAITING_MAX + 100):
        kept.append("a.jsonl", lambda: "1")
    hanging.set()
    kept.close()

    assert len((tmp_path / "a.jsonl").read_text()) == disk.WAITING_MAX
