"""What a healthy kernel does not show: processes that do not die, /proc that hangs, no descriptors.

The only tests of the runtime that patch: nobody can ask a kernel for these on purpose.
"""

from __future__ import annotations

import asyncio
import errno
import os
import threading

import pytest

from autostart.errors import EngineUnreachable, StartFailed, StopFailed
from autostart.runtimes import child, output, process, procfs
from autostart.runtimes.base import Exited
from tests.contract.workbenches import HOST, is_there, next_change, pid_of, until

pytestmark = pytest.mark.parametrize("bench", ["process"], indirect=True)


async def test_a_run_that_does_not_die_is_a_failed_stop(bench, runtime, monkeypatch):
    """Still there after SIGKILL: StopFailed names its pid; it runs, and can be stopped later."""
    service = bench.service(HOST, stop_timeout_seconds=0.05)
    endpoint = await runtime.start(service)
    with monkeypatch.context() as stuck:
        stuck.setattr(process, "KILL_SECONDS_MAX", 0.05)
        stuck.setattr(child, "signal_group", lambda leader, number: None)

        with pytest.raises(StopFailed, match=f"{HOST}: pid {pid_of(endpoint)} still there"):
            await runtime.stop(service)

    assert await runtime.running() == {HOST: endpoint}
    await runtime.stop(service)
    assert not bench.is_there(endpoint)


async def test_a_run_that_may_not_be_signalled_is_a_failed_stop(bench, runtime, monkeypatch):
    """A service that changed its user cannot be stopped by us, and the operator is told so."""

    def refuse(group: int, number: int) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    endpoint = await runtime.start(bench.service(HOST))
    monkeypatch.setattr(os, "killpg", refuse)

    with pytest.raises(StopFailed, match=f"{HOST}: may not signal pid {pid_of(endpoint)}"):
        await runtime.stop(bench.service(HOST))


async def test_a_remainder_that_does_not_die_fails_the_start(bench, runtime, monkeypatch):
    """What an earlier run left holds the port or the memory: the start says what is in the way."""
    service = bench.shell(HOST, "sleep 600 & echo here; wait")
    endpoint = await runtime.start(service)
    await until(lambda: len(bench.carriers()) == 2)
    left = bench.carriers()[1].stat
    await bench.end(endpoint)
    with monkeypatch.context() as stuck:
        stuck.setattr(procfs, "kill", lambda processes, within_seconds: processes)

        expected = f"an earlier run is in the way: {HOST}: pid {left.pid} still there"
        with pytest.raises(StartFailed, match=expected):
            await runtime.start(service)
        change = await next_change(runtime)
        assert isinstance(change, Exited)
        assert change.reason.startswith("killed by SIGKILL; then ")

    assert await runtime.start(service)
    assert not is_there(left.pid)


async def test_a_proc_that_hangs_is_an_error_with_a_name(bench, runtime, monkeypatch):
    """A read of /proc can block on another's memory: each call ends all the same."""
    over = threading.Event()
    monkeypatch.setattr(process, "THREAD_SECONDS_MAX", 0.05)
    monkeypatch.setattr(procfs, "carriers", lambda *folders: over.wait() and [])
    try:
        for ask in (runtime.running(), runtime.start(bench.service(HOST))):
            with pytest.raises(EngineUnreachable, match=r"^/proc was silent"):
                await ask
    finally:
        over.set()


async def test_a_start_without_descriptors_leaves_no_child(bench, runtime, monkeypatch):
    """A child that cannot be watched is not kept."""

    def refuse(pid: int) -> int:
        raise OSError(errno.EMFILE, "Too many open files")

    with monkeypatch.context() as exhausted:
        exhausted.setattr(os, "pidfd_open", refuse)
        with pytest.raises(StartFailed, match="cannot be run: Too many open files"):
            await runtime.start(bench.service(HOST))
        assert (await runtime.diagnose())[0].works is False

    assert bench.carriers() == []
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


async def test_the_output_of_a_run_that_never_stops_stays_small(bench, runtime, monkeypatch):
    """While somebody listens for changes, a file that grew too large is emptied under its run."""
    monkeypatch.setattr(process, "LIMIT_SECONDS", 0.02)
    monkeypatch.setattr(output, "FILE_BYTES_MAX", 1000)
    log = bench.state / "output" / f"{HOST}.log"
    old = log.with_name(f"{log.name}.old")
    service = bench.shell(HOST, "while :; do echo a line of thirty characters....; done")
    await runtime.start(service)
    consumer = asyncio.ensure_future(next_change(runtime))

    await until(old.exists)

    consumer.cancel()
    await runtime.stop(service)
    assert old.stat().st_size > 1000
