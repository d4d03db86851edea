"""Processes as /proc shows them, and the marker that says which of them are ours.

Every process that a run consists of carries the marker in its environment, so nothing needs to be
written down: after `kill -9` of autostart the runs are found by looking. A program that overwrites
its environment to show a title (nginx, setproctitle) is known by its output, which is our file.

Everything here blocks: about 6 µs for each process of the machine, measured with 300.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

VARIABLE = "AUTOSTART_RUN"

TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")

BLOCK_BYTES = 32 * 1024  # holds nearly every environment; larger blocks cost more than they save

DEAD_STATES = "ZXx"  # proc_pid_stat(5): zombie and dead


@dataclass(frozen=True)
class Stat:
    """What /proc/PID/stat says; (pid, start_ticks) is a process's identity until the next boot."""

    pid: int
    state: str
    group: int
    session: int
    cpu_seconds: float
    start_ticks: int
    memory_bytes: int

    @property
    def alive(self) -> bool:
        """False for what has exited, even if its parent has not looked yet."""
        return self.state not in DEAD_STATES

    @property
    def leads_session(self) -> bool:
        """True for the process that we started; its children are in its session."""
        return self.pid == self.session


@dataclass(frozen=True)
class Marker:
    """What a run's processes carry in their environment."""

    state_folder: str
    host: str
    port: int

    @property
    def value(self) -> str:
        """The environment variable's text; the folder comes last, it may hold blanks."""
        return f"{self.port} {self.host} {self.state_folder}"


@dataclass(frozen=True)
class Carrier:
    """A living process of a run; `port` is None where only its output tells whose it is."""

    stat: Stat
    host: str
    port: int | None


def parse_stat(text: str) -> Stat:
    """Read the text of /proc/PID/stat; field numbers as in proc_pid_stat(5)."""
    # The name (field 2) is in parentheses and may hold blanks and parentheses itself.
    before, _, after = text.rpartition(")")
    fields = ["", before.partition(" ")[0], "", *after.split()]
    return Stat(
        pid=int(fields[1]),
        state=fields[3],
        group=int(fields[5]),
        session=int(fields[6]),
        # Own and waited-for children's, in user and in kernel mode.
        cpu_seconds=sum(int(ticks) for ticks in fields[14:18]) / TICKS_PER_SECOND,
        start_ticks=int(fields[22]),
        memory_bytes=int(fields[24]) * PAGE_BYTES,
    )


def parse_marker(environment: bytes) -> Marker | None:
    """Find the marker in the bytes of /proc/PID/environ."""
    prefix = f"{VARIABLE}=".encode()
    if prefix not in environment:  # nearly every process: one search instead of a split
        return None
    for entry in environment.split(b"\0"):
        if entry.startswith(prefix):
            port, _, rest = os.fsdecode(entry.removeprefix(prefix)).partition(" ")
            host, _, state_folder = rest.partition(" ")
            return Marker(state_folder, host, int(port)) if port.isdigit() else None
    return None


def read_stat(pid: int, proc: str = "/proc") -> Stat | None:
    """Return what /proc says of a process, None when there is none."""
    try:
        return parse_stat(os.fsdecode(_read(f"{proc}/{pid}/stat")))
    except (FileNotFoundError, ProcessLookupError):
        return None


def carriers(state_folder: Path, output_folder: Path, proc: str = "/proc") -> list[Carrier]:
    """Return every living process that carries a marker of this state folder, oldest first."""
    found = []
    for pid in _pids(proc):
        try:
            marker = parse_marker(_read(f"{proc}/{pid}/environ"))
            output = None if marker else Path(os.readlink(f"{proc}/{pid}/fd/1"))  # noqa: PTH115 - half the time
        except OSError:
            continue  # gone meanwhile, exited, or another user's
        if marker is not None and marker.state_folder == str(state_folder):
            host, port = marker.host, marker.port
        elif output is not None and output.parent == output_folder:
            host, port = output.name.removesuffix(" (deleted)").removesuffix(".log"), None
        else:
            continue
        stat = read_stat(pid, proc)
        if stat is not None and stat.alive:
            found.append(Carrier(stat, host, port))
    return sorted(found, key=lambda carrier: (carrier.stat.start_ticks, carrier.stat.pid))


def session(leader: int, proc: str = "/proc") -> list[Stat]:
    """Return every process of the session."""
    stats = (read_stat(pid, proc) for pid in _pids(proc))
    return [stat for stat in stats if stat is not None and stat.session == leader]


def terminate(processes: Iterable[Stat]) -> None:
    """Ask these very processes to end."""
    for process in processes:
        pidfd = open_pidfd(process)
        if pidfd is not None:
            _send(pidfd, signal.SIGTERM)
            os.close(pidfd)


def kill(processes: Iterable[Stat], within_seconds: float) -> list[Stat]:
    """Kill these very processes and wait until they are gone; return those that are still there."""
    left = {}
    exits = select.poll()
    for process in processes:
        pidfd = open_pidfd(process)
        if pidfd is not None:
            left[pidfd] = process
            exits.register(pidfd, select.POLLIN)
            _send(pidfd, signal.SIGKILL)
    deadline = time.monotonic() + within_seconds
    while left and (remaining := deadline - time.monotonic()) > 0:
        for pidfd, _ in exits.poll(remaining * 1000):
            exits.unregister(pidfd)
            os.close(pidfd)
            del left[pidfd]
    for pidfd in left:
        os.close(pidfd)
    return list(left.values())


def open_pidfd(process: Stat) -> int | None:
    """Return a pidfd of this very process, None when it is gone; the caller closes it."""
    try:
        pidfd = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return None
    now = read_stat(process.pid)
    # Asked after opening: if the start ticks agree now, the descriptor is not a recycled pid's.
    if now is None or not now.alive or now.start_ticks != process.start_ticks:
        os.close(pidfd)
        return None
    return pidfd


def try_pidfd() -> None:
    """Raise OSError where this kernel has no pidfd."""
    os.close(os.pidfd_open(os.getpid()))


def try_proc() -> None:
    """Raise OSError where /proc does not show processes."""
    if read_stat(os.getpid()) is None:
        raise FileNotFoundError("/proc does not show this process")


def _send(pidfd: int, number: signal.Signals) -> None:
    # Gone is what we want; and who may not be signalled is seen to be still there.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        signal.pidfd_send_signal(pidfd, number)


def _pids(proc: str) -> Iterator[int]:
    return (int(name) for name in os.listdir(proc) if name.isdigit())  # noqa: PTH208 - half the time


def _read(path: str) -> bytes:
    # Four system calls instead of the eight of open(): this runs for every process there is.
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        content = block = os.read(descriptor, BLOCK_BYTES)
        while len(block) == BLOCK_BYTES:
            block = os.read(descriptor, BLOCK_BYTES)
            content += block
        return content
    finally:
        os.close(descriptor)
