"""The state folder: where it is, and that one autostart at a time has it."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from autostart import errors


def state_folder() -> Path:
    """Return where state lives: AUTOSTART_STATE, else XDG_STATE_HOME, else /var/lib as root."""
    if named := os.environ.get("AUTOSTART_STATE"):
        return Path(named)
    if home := os.environ.get("XDG_STATE_HOME"):
        return Path(home) / "autostart"
    if os.geteuid() == 0:
        return Path("/var/lib/autostart")
    return Path.home() / ".local/state/autostart"


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the state folder: two autostarts on one would start everything twice."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = (folder / "lock").open("a+")
    except OSError as error:
        text = f"the state folder {folder} cannot be used: {error.strerror}"
        raise errors.StateUnusable(text) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            holder = lock.read().strip() or "unknown"
            text = f"autostart (pid {holder}) serves already with the state folder {folder}"
            raise errors.AlreadyServing(text) from None
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield
