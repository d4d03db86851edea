"""What only local processes can show: how a child starts and ends, and what it costs."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path

import pytest
import uvloop

from autostart.errors import StartFailed
from autostart.runtimes import procfs
from autostart.runtimes.base import Exited
from autostart.runtimes.process import ProcessRuntime
from tests.contract.workbenches import (
    DEADLINE_SECONDS,
    HOST,
    is_there,
    next_change,
    no_change,
    pid_of,
    until,
    written,
)

pytestmark = pytest.mark.parametrize("bench", ["process"], indirect=True)

# A program that lets a test see how it was started, and goes on until it is stopped.
REPORT = "(env; pwd; readlink /proc/self/fd/0) > draft; mv draft report; sleep 600"


# How a child is started.


async def test_a_child_gets_its_folder_its_environment_and_the_marker(bench, runtime):
    """Folder and environment are the service's, {port} and {python} are filled in everywhere."""
    service = bench.shell(
        HOST, REPORT, environment={"KEY": "value", "PORT": "{port}", "PYTHON": "{python}"}
    )

    endpoint = await runtime.start(service)

    lines = (await written(bench.folder / "report")).splitlines()
    assert lines[-2:] == [str(bench.folder), "/dev/null"]
    assert {"KEY=value", f"PORT={endpoint.port}", f"PYTHON={sys.executable}"} <= set(lines)
    assert f"AUTOSTART_RUN={endpoint.port} {HOST} {bench.state}" in lines
    assert f"PATH={os.environ['PATH']}" in lines


async def test_a_child_does_not_read_what_we_read(bench, runtime):
    """Its standard input is /dev/null, whatever ours is."""
    ours = os.dup(0)
    source, sink = os.pipe()
    os.dup2(source, 0)
    try:
        endpoint = await runtime.start(bench.shell(HOST, "sleep 600"))
        assert Path(f"/proc/{pid_of(endpoint)}/fd/0").readlink() == Path("/dev/null")
    finally:
        os.dup2(ours, 0)
        for descriptor in (ours, source, sink):
            os.close(descriptor)


async def test_what_systemd_says_to_us_does_not_reach_a_child(bench):
    """A child would answer in our name otherwise."""
    ours = {"PATH": os.environ["PATH"], "NOTIFY_SOCKET": "/run/x", "LISTEN_FDS": "1"}
    runtime = ProcessRuntime(bench.state, environment=ours)
    runtime.declare([bench.service(HOST)])

    await runtime.start(bench.shell(HOST, REPORT))

    assert not re.search("NOTIFY_SOCKET|LISTEN_FDS", await written(bench.folder / "report"))
    await runtime.close()


async def test_a_child_leads_a_session_of_its_own(bench, runtime):
    """A Ctrl-C at our terminal does not reach it."""
    endpoint = await runtime.start(bench.service(HOST))

    assert os.getsid(pid_of(endpoint)) == pid_of(endpoint) != os.getsid(0)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"command": ("no-such-program",)}, "command no-such-program is not found"),
        ({"command": ("/etc/passwd",)}, "command /etc/passwd is not executable"),
        ({"command": ("./text",)}, r"command \./text cannot be run: Exec format error"),
        ({"directory": Path("/no/such/folder")}, "directory /no/such/folder does not exist"),
    ],
)
async def test_a_start_that_cannot_work_says_why(bench, runtime, keys, message):
    """The message names the command or the folder, and what is wrong with it."""
    (bench.folder / "text").write_text("neither a script nor a program\n")
    (bench.folder / "text").chmod(0o755)

    with pytest.raises(StartFailed, match=f"^{message}$"):
        await runtime.start(replace(bench.service(HOST), **keys))

    assert bench.carriers() == []


async def test_a_start_without_a_place_for_output_says_why(bench, runtime):
    """The message names the file that cannot be written."""
    bench.state.mkdir()
    (bench.state / "output").write_text("a file where a folder should be")

    with pytest.raises(StartFailed, match=rf"{bench.state}/output"):
        await runtime.start(bench.service(HOST))

    assert [finding.works for finding in await runtime.diagnose()] == [True, True, False]


# How a run ends.


@pytest.mark.parametrize(
    ("script", "reason"), [("exit 3", "exit code 3"), ("kill -KILL $$", "killed by SIGKILL")]
)
async def test_an_exit_is_reported_with_its_reason(bench, runtime, script, reason):
    """An exit code, or the name of the signal."""
    endpoint = await runtime.start(bench.shell(HOST, script))

    assert await next_change(runtime) == Exited(HOST, endpoint.run, reason)


async def test_an_ended_child_is_reaped(bench, runtime):
    """No zombie stays behind, with or without a listener."""
    endpoint = await runtime.start(bench.shell(HOST, "exit 0"))

    await until(lambda: procfs.read_stat(pid_of(endpoint)) is None)


async def test_a_start_sees_an_exit_that_the_loop_has_not_seen(bench, runtime):
    """A run that ended this very moment is not handed out."""
    service = bench.service(HOST)
    first = await runtime.start(service)
    os.kill(pid_of(first), signal.SIGKILL)
    while bench.is_there(first):
        time.sleep(0.001)

    second = await runtime.start(service)

    assert second.run != first.run
    assert await next_change(runtime) == Exited(HOST, first.run, "killed by SIGKILL")


async def test_stop_asks_first(bench, runtime):
    """A service that ends when asked does so in its own way."""
    script = "trap 'echo tidy > report; exit 0' TERM; echo here; while :; do sleep 0.02; done"
    service = bench.shell(HOST, script)
    await runtime.start(service)
    await until(lambda: (bench.state / "output" / f"{HOST}.log").read_text() == "here\n")

    await runtime.stop(service)

    assert (bench.folder / "report").read_text() == "tidy\n"
    assert (await next_change(runtime)).reason == "exit code 0"


async def test_stop_reaches_the_children_of_a_shell(bench, runtime):
    """`sh -c` ends at once and leaves its child: the child may still finish within stop_timeout."""
    finish = "trap 'sleep 0.3; echo finished > report; exit 0' TERM"
    service = bench.shell(HOST, f"({finish}; echo here; while :; do sleep 0.02; done) & wait")
    await runtime.start(service)
    await until(lambda: (bench.state / "output" / f"{HOST}.log").read_text() == "here\n")

    await runtime.stop(service)

    assert (bench.folder / "report").read_text() == "finished\n"
    assert bench.carriers() == []


async def test_each_process_of_a_run_is_asked_once(bench, runtime):
    """A second SIGTERM means "at once" to many; those that left the group get theirs too."""
    ask = "trap 'echo {0} asked >> asked; sleep 0.2; exit' TERM; touch {0}"
    script = f"{ask}; while :; do sleep 0.02; done"
    near, far = script.format("near"), script.format("far")
    service = bench.shell(HOST, f'({near}) & setsid sh -c "{far}" & wait')
    await runtime.start(service)
    await until(lambda: (bench.folder / "near").exists() and (bench.folder / "far").exists())

    await runtime.stop(service)

    assert sorted((bench.folder / "asked").read_text().splitlines()) == ["far asked", "near asked"]


@pytest.mark.parametrize("how", ["stopped", "killed"])
async def test_nothing_of_a_run_is_left(bench, runtime, how):
    """Children, and those that left the session, end with the run, however it ends."""
    service = bench.shell(
        HOST,
        "sleep 600 & setsid sleep 600 & sh -c 'trap : TERM; sleep 600; sleep 600' &"
        " echo $$ > report; wait",
        stop_timeout_seconds=0.3,
    )
    endpoint = await runtime.start(service)
    await written(bench.folder / "report")
    await until(lambda: len(bench.carriers()) >= 4)

    if how == "stopped":
        await runtime.stop(service)
    else:
        await bench.end(endpoint)

    assert (await next_change(runtime)).run == endpoint.run
    assert bench.carriers() == []


async def test_children_left_by_a_dead_leader_are_not_a_run(bench, runtime):
    """What a leader left behind while we were away is cleared away by the next start."""
    service = bench.shell(HOST, "sleep 600 & echo $! > report; wait")
    endpoint = await runtime.start(service)
    left = int(await written(bench.folder / "report"))
    await runtime.close()
    await bench.end(endpoint)
    later = bench.runtime()
    later.declare([service])

    assert await later.running() == {}
    assert is_there(left)
    await later.start(bench.service(HOST))
    assert not is_there(left)
    await later.close()


# What it costs.


async def test_no_file_descriptor_is_leaked(bench, runtime):
    """A hundred starts, stops and failures leave as many files open as before."""

    async def once() -> None:
        await runtime.start(bench.shell(HOST, "sleep 600"))
        await runtime.stop(bench.service(HOST))
        with pytest.raises(StartFailed):
            await runtime.start(replace(bench.service(HOST), command=("no-such-program",)))

    await once()
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(100):
        await once()

    assert len(list(Path("/proc/self/fd").iterdir())) == before


async def test_a_look_at_300_processes_is_quick(bench):
    """Below 50 ms, for it happens at every start."""
    with contextlib.ExitStack() as stack:
        for _ in range(300):
            child = stack.enter_context(subprocess.Popen(["sleep", "600"]))
            stack.callback(child.kill)
        best = min(_seconds(bench.carriers) for _ in range(5))

    assert best < 0.050


def _seconds(function) -> float:
    began = time.perf_counter()
    function()
    return time.perf_counter() - began


# Output.


async def test_a_large_output_is_rotated_at_the_next_start(bench, runtime):
    """One old file is kept, and a follower sees the new one."""
    log = bench.state / "output" / f"{HOST}.log"
    log.parent.mkdir(parents=True)
    log.write_bytes(b"old\n" * (3 * 1024 * 1024))
    service = bench.shell(HOST, "echo new; sleep 600")
    async with aclosing(runtime.logs(service, 1, follow=True)) as lines:
        assert await anext(lines) == "old"

        await runtime.start(service)

        assert await asyncio.wait_for(anext(lines), DEADLINE_SECONDS) == "new"
    assert log.with_name(f"{HOST}.log.old").stat().st_size == 12 * 1024 * 1024
    assert log.read_text() == "new\n"


async def test_stop_of_a_run_that_has_just_ended_returns(bench, runtime):
    """A stop that meets an exit on its way has nothing left to do."""
    for _ in range(10):
        service = bench.shell(HOST, "exit 0")
        endpoint = await runtime.start(service)
        await runtime.stop(service)
        assert (await next_change(runtime)).run == endpoint.run
    assert await no_change(runtime)


def test_everything_works_under_uvloop(bench):
    """The production loop sees exits as the standard one does."""
    service = bench.service(HOST)

    async def story() -> None:
        runtime = bench.runtime()
        runtime.declare([service])
        first = await runtime.start(service)
        await bench.settled(service, first)
        os.kill(pid_of(first), signal.SIGKILL)
        assert await next_change(runtime) == Exited(HOST, first.run, "killed by SIGKILL")
        second = await runtime.start(service)
        await bench.settled(service, second)
        await runtime.stop(service)
        assert await next_change(runtime) == Exited(HOST, second.run, "exit code 0")
        await runtime.close()

    uvloop.run(story())
