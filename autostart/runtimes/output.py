"""What a run writes: one append-only file per service, and how to read its end.

A file and not a pipe: a child that writes into our pipe dies of SIGPIPE when we are killed, and
nobody has to be there to read. Knows files, and no process.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncGenerator
from io import FileIO
from pathlib import Path

FILE_BYTES_MAX = 10 * 1024 * 1024  # a larger file becomes .old; with it, at most twice this is kept
BLOCK_BYTES = 64 * 1024
LINE_BYTES_MAX = 64 * 1024  # a longer line is cut into several
POLL_SECONDS = 0.2  # as tail -F without inotify; a person reads this


def open_output(path: Path) -> int:
    """Return a file descriptor that appends to the file; the caller closes it. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    if _is_full(path):
        path.replace(_old(path))
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)


def limit_output(path: Path) -> None:
    """Empty a file that has grown too large while a run writes to it. Raises OSError.

    What is written between the copy and the cut is lost, as with logrotate's copytruncate.
    """
    if _is_full(path):
        shutil.copyfile(path, _old(path))
        os.truncate(path, 0)


def _is_full(path: Path) -> bool:
    try:
        return path.stat().st_size > FILE_BYTES_MAX
    except FileNotFoundError:
        return False


def _old(path: Path) -> Path:
    return path.with_name(f"{path.name}.old")


async def read_lines(path: Path, lines: int, *, follow: bool) -> AsyncGenerator[str]:
    """Yield the last lines of the file without line ends; with `follow`, then new ones.

    Follows the path, not the file: goes on after the file was replaced or emptied, and waits for
    one that is not there yet. An unfinished last line is yielded once it is finished, or at
    once without `follow`.
    """
    # Reads in the loop: a block of a file that was just written takes microseconds.
    file = _open(path)
    rest = b""
    try:
        if file is not None:
            file.seek(_start_of_last(file, lines))
        while True:
            # Asked before reading: what was written before the file was replaced is not lost.
            replaced = follow and _is_replaced(file, path)
            block = b"" if file is None else _read(file)
            *complete, rest = (rest + block).split(b"\n")
            for line in complete:
                yield _text(line)
            if len(rest) > LINE_BYTES_MAX or (rest and not block and not follow):
                yield _text(rest)
                rest = b""
            if block:
                await asyncio.sleep(0)
            elif not follow:
                return
            elif replaced:
                _close(file)
                file = _open(path)
            else:
                await asyncio.sleep(POLL_SECONDS)
    finally:
        _close(file)


def _open(path: Path) -> FileIO | None:
    try:
        return FileIO(path)
    except FileNotFoundError:
        return None


def _close(file: FileIO | None) -> None:
    if file is not None:
        file.close()


def _is_replaced(file: FileIO | None, path: Path) -> bool:
    try:
        now = path.stat()
    except FileNotFoundError:
        return False  # a run goes on writing to a file that was removed
    return file is None or not os.path.samestat(now, os.fstat(file.fileno()))


def _read(file: FileIO) -> bytes:
    if os.fstat(file.fileno()).st_size < file.tell():
        file.seek(0)  # emptied by somebody
    return file.read(BLOCK_BYTES)


def _start_of_last(file: FileIO, lines: int) -> int:
    """Return the offset where the last `lines` lines begin."""
    if lines <= 0:
        return file.seek(0, os.SEEK_END)
    position = file.seek(0, os.SEEK_END)
    # The line end that closes the file closes the last line, it does not begin another.
    end = position - 1
    breaks = 0
    while position > 0:
        start = max(0, position - BLOCK_BYTES)
        file.seek(start)
        block = file.read(position - start)
        at = len(block)
        while (at := block.rfind(b"\n", 0, at)) >= 0:
            breaks += start + at != end
            if breaks == lines:
                return start + at + 1
        position = start
    return 0


def _text(line: bytes) -> str:
    return line.decode(errors="replace").removesuffix("\r")
