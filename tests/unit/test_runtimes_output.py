"""autostart/runtimes/output.py: a file that is appended to, kept small, read from its end."""

from __future__ import annotations

import asyncio
import os
from contextlib import aclosing
from pathlib import Path

import pytest

from autostart.runtimes.output import (
    BLOCK_BYTES,
    FILE_BYTES_MAX,
    LINE_BYTES_MAX,
    limit_output,
    open_output,
    read_lines,
)

DEADLINE_SECONDS = 10.0
LONG = "x" * BLOCK_BYTES


async def last(path: Path, lines: int) -> list[str]:
    return [line async for line in read_lines(path, lines, follow=False)]


def append(path: Path, content: str) -> None:
    descriptor = open_output(path)
    os.write(descriptor, content.encode())
    os.close(descriptor)


@pytest.mark.parametrize(
    ("content", "lines", "expected"),
    [
        ("", 5, []),
        ("one\n", 5, ["one"]),
        ("one\ntwo\nthree\n", 2, ["two", "three"]),
        ("one\ntwo\nthree\n", 3, ["one", "two", "three"]),
        ("one\ntwo\nthree\n", 0, []),
        ("one\ntwo\nunfini", 2, ["two", "unfini"]),
        ("one\n\n\n", 2, ["", ""]),
        ("\n", 1, [""]),
        ("one\r\ntwo\r\n", 2, ["one", "two"]),
        (f"one\n{LONG[:-1]}\nthree\n", 2, [LONG[:-1], "three"]),
        (f"one\n{LONG[:-5]}\nthree\n", 3, ["one", LONG[:-5], "three"]),
        ("".join(f"{n}\n" for n in range(50_000)), 3, ["49997", "49998", "49999"]),
    ],
)
async def test_the_last_lines_are_read(tmp_path, content, lines, expected):
    """As many as asked for, wherever the blocks that are read are cut."""
    append(tmp_path / "a.log", content)

    assert await last(tmp_path / "a.log", lines) == expected


async def test_a_file_that_is_not_there_has_no_lines(tmp_path):
    """A service that never ran."""
    assert await last(tmp_path / "a.log", 5) == []


async def test_bytes_that_are_no_text_are_shown(tmp_path):
    """Whatever a service writes, its log can be read."""
    (tmp_path / "a.log").write_bytes(b"caf\xe9\n")

    assert await last(tmp_path / "a.log", 1) == ["caf\N{REPLACEMENT CHARACTER}"]


async def test_an_endless_line_is_cut(tmp_path):
    """A progress bar of megabytes costs no more memory than a long line."""
    (tmp_path / "a.log").write_bytes(b"x" * (10 * LINE_BYTES_MAX))

    lines = await last(tmp_path / "a.log", 1)

    assert sum(map(len, lines)) == 10 * LINE_BYTES_MAX
    assert max(map(len, lines)) <= LINE_BYTES_MAX + BLOCK_BYTES


def test_output_is_appended_and_private(tmp_path):
    """Each run continues the file; only we and root may read what services say."""
    path = tmp_path / "output" / "a.log"

    append(path, "first\n")
    append(path, "second\n")

    assert path.read_text() == "first\nsecond\n"
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700


def test_a_large_file_becomes_the_old_one_at_the_next_start(tmp_path):
    """One old file is kept; the one before it is given up."""
    path = tmp_path / "a.log"
    (tmp_path / "a.log.old").write_text("oldest")
    path.write_bytes(b"x" * (FILE_BYTES_MAX + 1))

    append(path, "new\n")

    assert path.read_text() == "new\n"
    assert (tmp_path / "a.log.old").stat().st_size == FILE_BYTES_MAX + 1


def test_a_file_is_emptied_under_a_run_that_goes_on_writing(tmp_path):
    """The run's next line is the first of the emptied file: it appends, without a hole."""
    path = tmp_path / "a.log"
    descriptor = open_output(path)
    os.write(descriptor, b"x" * (FILE_BYTES_MAX + 1))

    limit_output(path)
    os.write(descriptor, b"after\n")
    os.close(descriptor)

    assert path.read_text() == "after\n"
    assert (tmp_path / "a.log.old").stat().st_size == FILE_BYTES_MAX + 1


def test_a_small_file_is_left_alone(tmp_path):
    """Nothing is cut that is not too large, and a missing file is none."""
    path = tmp_path / "a.log"
    path.write_bytes(b"x" * FILE_BYTES_MAX)

    limit_output(path)
    limit_output(tmp_path / "missing.log")

    assert path.stat().st_size == FILE_BYTES_MAX


def empty(path: Path) -> None:
    os.truncate(path, 0)


def replace(path: Path) -> None:
    path.rename(f"{path}.old")


@pytest.mark.parametrize("before", [lambda path: None, empty, replace], ids=["on", "empty", "new"])
async def test_followed_lines_come_as_they_are_written(tmp_path, before):
    """On and on, after the file was emptied, and after it was replaced by another."""
    path = tmp_path / "a.log"
    append(path, "a longer first line\n")
    async with asyncio.timeout(DEADLINE_SECONDS), aclosing(read_lines(path, 1, follow=True)) as log:
        assert await anext(log) == "a longer first line"
        before(path)
        append(path, "second\n")
        assert await anext(log) == "second"


async def test_a_followed_file_may_come_later(tmp_path):
    """Who follows a service before its first start sees its first line."""
    path = tmp_path / "a.log"
    async with asyncio.timeout(DEADLINE_SECONDS), aclosing(read_lines(path, 9, follow=True)) as log:
        first = asyncio.ensure_future(anext(log))
        await asyncio.sleep(0)
        append(path, "first\n")
        assert await first == "first"


async def test_an_unfinished_line_is_followed_to_its_end(tmp_path):
    """Half a line is not shown as one."""
    path = tmp_path / "a.log"
    append(path, "half")
    async with asyncio.timeout(DEADLINE_SECONDS), aclosing(read_lines(path, 9, follow=True)) as log:
        whole = asyncio.ensure_future(anext(log))
        await asyncio.sleep(0)
        append(path, " a line\n")
        assert await whole == "half a line"
