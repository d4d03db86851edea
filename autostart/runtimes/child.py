"""One child: how it is started, signalled and reaped. Knows no service, no marker and no loop."""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from autostart.errors import StartFailed
from autostart.runtimes import procfs
from autostart.runtimes.base import IN_CONTAINER_VARIABLE, Doubt
from autostart.runtimes.output import open_output


def launch(
    command: Sequence[str], *, directory: Path, environment: Mapping[str, str], output: Path
) -> tuple[procfs.Stat, int]:
    """Start a child in its own session; return it and a pidfd that the caller closes.

    Raises StartFailed, and then there is no child. Blocks until the child has its program; in a
    thread it would block no less, because Popen holds the GIL meanwhile.
    """
    try:
        pid, pidfd = _popen(command, directory, environment, output)
    except OSError as error:
        raise StartFailed(_explain(error, command[0], directory)) from error
    stat = procfs.read_stat(pid)
    assert stat is not None, f"pid {pid} is gone before we waited for it"
    return stat, pidfd


def _popen(
    command: Sequence[str], directory: Path, environment: Mapping[str, str], output: Path
) -> tuple[int, int]:
    appended = open_output(output)
    try:
        child = subprocess.Popen(  # noqa: S603 - the command is the operator's
            command,
            cwd=directory,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=appended,
            stderr=appended,
            start_new_session=True,
        )
    finally:
        os.close(appended)
    # We wait for it by its pidfd. Popen, which would complain that nobody asks it, is told so.
    child.returncode = 0
    try:
        return child.pid, os.pidfd_open(child.pid)
    except OSError:  # no file descriptor left
        os.killpg(child.pid, signal.SIGKILL)
        os.waitpid(child.pid, 0)
        raise


def _explain(error: OSError, program: str, directory: Path) -> str:
    if not directory.is_dir():
        return f"directory {directory} does not exist"
    if error.filename not in (None, program):
        return str(error)  # about another file than the program: the output's
    if isinstance(error, FileNotFoundError):
        return f"command {program} is not found"
    if isinstance(error, PermissionError):
        return f"command {program} is not executable"
    return f"command {program} cannot be run: {error.strerror}"


def fill(text: str, port: int) -> str:
    """Fill in what a command of the map may leave to us."""
    return text.replace("{python}", sys.executable).replace("{port}", str(port))


def examine(program: str, directory: Path, environment: Mapping[str, str]) -> list[Doubt]:
    """Return what is wrong or doubtful about a launch."""
    problem = _missing(program, directory, environment)
    doubts = [Doubt(problem, fatal=True)] if problem else []
    if environment.get(IN_CONTAINER_VARIABLE):
        doubts.append(Doubt("autostart is in a container: a command ends with it", fatal=False))
    return doubts


def _missing(program: str, directory: Path, environment: Mapping[str, str]) -> str | None:
    """Say what a launch would not find."""
    if not directory.is_dir():
        return f"directory {directory} does not exist"
    # As Popen looks for it: a path is seen from the directory, a name on the child's PATH.
    program = fill(program, 0)
    where = str(directory / program) if "/" in program else program
    if shutil.which(where, path=environment.get("PATH")) is None:
        return f"command {program} is not found, or not executable"
    return None


def signal_group(leader: procfs.Stat, number: signal.Signals) -> None:
    """Signal the leader's process group if this very leader is still there.

    Raises PermissionError.
    """
    now = procfs.read_stat(leader.pid)
    # Without its leader the group's number may be somebody else's.
    if now is not None and now.start_ticks == leader.start_ticks:
        with contextlib.suppress(ProcessLookupError):  # it ended just now
            os.killpg(leader.pid, number)


def has_ended(pidfd: int) -> bool:
    """Say, without waiting, whether the process has ended."""
    ends = select.poll()
    ends.register(pidfd, select.POLLIN)
    return bool(ends.poll(0))


def reap(pidfd: int) -> str:
    """Take an ended process off the kernel's list; return how it ended, for people."""
    try:
        result = os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOHANG)
    except ChildProcessError:
        result = None
    if result is None:
        return "exited"  # an earlier autostart's child: init has reaped it
    if result.si_code == os.CLD_EXITED:
        return f"exit code {result.si_status}"
    return f"killed by {signal.Signals(result.si_status).name}"
