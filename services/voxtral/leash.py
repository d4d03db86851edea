"""Runs a program for as long as the process that started it lives, and no longer.

`python leash.py SECONDS PROGRAM [ARGUMENT ...]`, with a pipe as its input. When the pipe ends, its
owner has closed it or is dead, by whatever signal: then the program is asked to end, and killed
after so many seconds. What it started is killed when it has ended. The leash itself ends last, and
as the program did. PR_SET_PDEATHSIG would not do: that fires when the thread ends which started
the program, and reaches one process, but it is vLLM's children that hold the GPU.

Run by its path, with the standard library alone. Linux only.
"""

import ctypes
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from types import FrameType

_KILLED = 128  # as a shell tells: 137 is SIGKILL
_PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h


def main(term_seconds: float, command: Sequence[str]) -> int:
    """Run a program; gives its exit status, as a shell does."""
    # What the program leaves behind becomes ours, so that its end can be awaited.
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    # A group of its own, so that all of it can be killed, and Ctrl-C reaches none of it.
    program = subprocess.Popen(  # noqa: S603 -- our caller's own command
        command, stdin=subprocess.DEVNULL, start_new_session=True
    )

    def pass_on(number: int, _frame: FrameType | None) -> None:
        with suppress(ProcessLookupError):
            os.kill(program.pid, number)

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, pass_on)
    ended = threading.Event()
    watched = (program.pid, ended, term_seconds)
    threading.Thread(target=_watch, args=watched, daemon=True).start()
    # It is not reaped yet: until then no other process can have its number, or its group's.
    os.waitid(os.P_PID, program.pid, os.WEXITED | os.WNOWAIT)
    ended.set()
    os.killpg(program.pid, signal.SIGKILL)
    status = program.wait()
    with suppress(ChildProcessError):  # there are no more
        while True:
            os.waitpid(-program.pid, 0)
    return status if status >= 0 else _KILLED - status


def _watch(program: int, ended: threading.Event, term_seconds: float) -> None:
    while os.read(sys.stdin.fileno(), 1):
        pass
    with suppress(ProcessLookupError):  # it has ended by itself
        # Not to its group: vLLM takes it for a crash if its engine ends before it.
        os.kill(program, signal.SIGTERM)
        if not ended.wait(term_seconds):
            os.killpg(program, signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1]), sys.argv[2:]))
