"""Files of the state folder: read at the beginning, then written by one thread of their own.

What stands in them is a convenience: a file that cannot be used costs what it held and one line in
the log, never a start. Nothing is synced: after a power cut an old or empty file will do.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import structlog

T = TypeVar("T")

log = structlog.get_logger("autostart")

# What is read of a file, from its end: several times what any of them holds.
READ_BYTES_MAX = 4 * 1024 * 1024
# Writes that wait for a disk that hangs; what comes after them is not kept.
WAITING_MAX = 1_000


class Disk:
    """One folder. `folder` None reads nothing and keeps nothing."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        # One thread, so that a later write never overtakes an earlier one.
        self._writer = ThreadPoolExecutor(max_workers=1, thread_name_prefix="history")
        self._room = threading.BoundedSemaphore(WAITING_MAX)
        self._unsaved: set[str] = set()  # files whose failure was told

    def read(self, name: str, parse: Callable[[bytes], T], nothing: T) -> T:
        """Return what `parse` makes of a file; `nothing` if it is not there, or is of no use.

        `parse` may raise what reading foreign data raises.
        """
        if self._folder is None:
            return nothing
        path = self._folder / name
        try:
            return parse(_read_end(path))
        except FileNotFoundError:
            return nothing  # the first start with this state folder
        except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            log.warning(f"{path.stem}-unreadable", path=str(path), error=str(error))
            return nothing

    def replace(self, name: str, text: Callable[[], str]) -> None:
        """Replace a file at once with what `text` returns in the writing thread."""
        self._submit(name, _replace, text)

    def append(self, name: str, text: Callable[[], str]) -> None:
        """Append to a file what `text` returns in the writing thread."""
        self._submit(name, _append, text)

    def close(self) -> None:
        """Wait until all is written."""
        self._writer.shutdown(wait=True)

    def _submit(
        self, name: str, write: Callable[[Path, str], None], text: Callable[[], str]
    ) -> None:
        if self._folder is None or not self._room.acquire(blocking=False):
            return
        path = self._folder / name

        def work() -> None:
            try:
                write(path, text())
                self._unsaved.discard(name)
            except OSError as error:
                if name not in self._unsaved:  # told once, not with every start
                    self._unsaved.add(name)
                    log.warning(f"{path.stem}-unsaved", path=str(path), error=str(error))
            finally:
                self._room.release()

        self._writer.submit(work)


def _read_end(path: Path) -> bytes:
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - READ_BYTES_MAX))
        return file.read(READ_BYTES_MAX)


def _replace(path: Path, text: str) -> None:
    scratch = path.with_name(f"{path.name}.new")
    scratch.unlink(missing_ok=True)
    _write(scratch, os.O_EXCL, text)
    scratch.replace(path)


def _append(path: Path, text: str) -> None:
    _write(path, os.O_APPEND, text)


def _write(path: Path, flags: int, text: str) -> None:
    # What was asked of services stands in there: for nobody else.
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | flags, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(text.encode("utf-8", "replace"))
