"""A terminal with a program in it: what a person would see, type and do."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

# CSI and OSC sequences, and single escapes: how a program moves, colours and clears.
CONTROL = re.compile(r"\x1b(\[[0-9;?]*[A-Za-z]|\][^\x07]*\x07|[=>78()][A-Z0-9]?)|\r")
ALTERNATE_ON, ALTERNATE_OFF = "\x1b[?1049h", "\x1b[?1049l"
CURSOR_OFF, CURSOR_ON = "\x1b[?25l", "\x1b[?25h"


class Terminal:
    """One program on one pseudo-terminal. `raw` is everything that it wrote, in order."""

    def __init__(self, process: subprocess.Popen[bytes], fd: int) -> None:
        self.process = process
        self.raw = ""
        self._fd = fd

    def type(self, text: str) -> None:
        os.write(self._fd, text.encode())

    def interrupt(self) -> None:
        """Press Ctrl-C."""
        self.type("\x03")

    def resize(self, columns: int, lines: int) -> None:
        _set_size(self._fd, columns, lines)

    def text(self, since: int = 0) -> str:
        """Return what was written since then, without what moves and colours."""
        return CONTROL.sub("", self.raw[since:])

    def wait_for(self, *words: str, since: int = 0, seconds: float = 20) -> str:
        """Return the text once each of the words was written since then."""
        deadline = time.monotonic() + seconds
        while not all(word in self.text(since) for word in words):
            assert time.monotonic() < deadline, f"no {words} in {self.text(since)!r}"
            self._read(0.1)
        return self.text(since)

    def wait(self, seconds: float = 20) -> int:
        """Return the exit status once it has ended and all is read."""
        deadline = time.monotonic() + seconds
        while self.process.poll() is None:
            assert time.monotonic() < deadline, self.raw[-2000:]
            self._read(0.05)
        while self._read(0.05):
            pass
        return self.process.wait()

    def _read(self, seconds: float) -> bool:
        if not select.select([self._fd], [], [], seconds)[0]:
            return False
        with contextlib.suppress(OSError):  # the program has closed its side
            read = os.read(self._fd, 65_536)
            self.raw += read.decode("utf-8", "replace")
            return bool(read)
        return False


@contextlib.contextmanager
def terminal(
    command: Sequence[str],
    environment: Mapping[str, str],
    *,
    columns: int = 100,
    lines: int = 30,
    folder: Path | None = None,
) -> Iterator[Terminal]:
    """Run a program in a terminal for the length of the block."""
    ours, its = pty.openpty()
    _set_size(ours, columns, lines)
    # TERM as most have it; nothing of the one that runs the tests.
    known = {"TERM": "xterm-256color", "PATH": os.environ["PATH"], "LANG": "C.UTF-8"}
    process = subprocess.Popen(
        # Its own session there, so that Ctrl-C is a signal; which a shell has what it starts in the
        # background ignore, and the tests may be.
        ["env", "--default-signal=INT", "setsid", "--ctty", *command],
        stdin=its,
        stdout=its,
        stderr=its,
        cwd=folder,
        env={**known, **environment},
    )
    os.close(its)
    try:
        yield Terminal(process, ours)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(10)
        os.close(ours)


def _set_size(fd: int, columns: int, lines: int) -> None:
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
