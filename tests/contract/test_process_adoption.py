"""What only local processes can show: which processes are a run of ours, and which are not."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import uvloop

from autostart.lifecycle import Endpoint
from autostart.runtimes import procfs
from autostart.runtimes.base import Exited
from autostart.runtimes.process import ProcessRuntime
from tests.contract.workbenches import (
    HOST,
    PLAIN_SERVICE,
    is_there,
    next_change,
    pid_of,
    until,
)

pytestmark = pytest.mark.parametrize("bench", ["process"], indirect=True)

# What is found again.


def test_runs_survive_kill_9_of_autostart(bench):
    """A killed autostart stops nothing: the run answers, can still write, and is found again."""
    service = bench.service(HOST)
    first = f"""
import asyncio
from pathlib import Path
from autostart.runtimes.process import ProcessRuntime
from tests.contract.workbenches import ProcessWorkbench
async def main():
    bench = ProcessWorkbench(Path({str(bench.folder)!r}))
    runtime = bench.runtime()
    runtime.declare([bench.service({HOST!r})])
    endpoint = await runtime.start(bench.service({HOST!r}))
    await bench.settled(bench.service({HOST!r}), endpoint)
    print(endpoint, flush=True)
    await asyncio.sleep(600)
asyncio.run(main())
"""
    with subprocess.Popen(
        [sys.executable, "-c", first], stdout=subprocess.PIPE, text=True, cwd=Path.cwd()
    ) as autostart:
        assert autostart.stdout is not None
        endpoint = eval(autostart.stdout.readline(), {"Endpoint": Endpoint})
        autostart.kill()

    async def second() -> None:
        runtime = bench.runtime()
        runtime.declare([service])
        assert await runtime.running() == {HOST: endpoint}
        await bench.write(service, endpoint, "still here")
        lines = [line async for line in runtime.logs(service, 1, follow=False)]
        assert lines == ["still here"]
        await runtime.stop(service)
        # Not our child: init has reaped it and knows how it ended.
        assert await next_change(runtime) == Exited(HOST, endpoint.run, "exited")
        await runtime.close()

    uvloop.run(second())


async def test_what_a_run_left_behind_is_not_a_run(bench, runtime):
    """A daemon that outlives its leader carries the marker, and is cleared away, not adopted."""
    service = bench.shell(HOST, "setsid sleep 600 & wait")
    endpoint = await runtime.start(service)
    await until(lambda: sum(c.stat.leads_session for c in bench.carriers()) == 2)
    await bench.end(endpoint)
    await until(lambda: not is_there(pid_of(endpoint)))

    assert await runtime.running() == {}
    assert await next_change(runtime) == Exited(HOST, endpoint.run, "killed by SIGKILL")
    assert bench.carriers() == []


async def test_a_recycled_pid_is_not_a_run(bench, runtime):
    """The same pid with other start ticks is somebody else."""
    endpoint = await runtime.start(bench.service(HOST))
    stat = procfs.read_stat(pid_of(endpoint))
    assert stat is not None

    earlier = replace(stat, start_ticks=stat.start_ticks - 1)

    assert procfs.open_pidfd(earlier) is None
    assert procfs.kill([earlier], 1.0) == []
    assert is_there(stat.pid)


async def test_a_zombie_is_not_a_run(bench, runtime):
    """A child that has exited and was not reaped yet does not run."""
    endpoint = await runtime.start(bench.service(HOST))
    await runtime.close()
    await bench.end(endpoint)
    stat = procfs.read_stat(pid_of(endpoint))
    later = bench.runtime()
    later.declare([bench.service(HOST)])

    assert stat is not None
    assert not stat.alive
    assert await later.running() == {}
    await later.close()


async def test_runs_of_another_state_folder_are_not_ours(bench, runtime, tmp_path):
    """Two autostarts on one machine do not see each other's runs."""
    await runtime.start(bench.service(HOST))
    other = ProcessRuntime(tmp_path / "other")
    other.declare([bench.service(HOST)])

    assert await other.running() == {}
    await other.stop(bench.service(HOST))
    assert HOST in await runtime.running()
    await other.close()


async def test_of_two_runs_the_oldest_is_found(bench):
    """Two runs of one service should not exist; if they do, the first is kept."""
    marker = procfs.Marker(str(bench.state), HOST, 20_001)
    environment = {**os.environ, procfs.VARIABLE: marker.value}
    runtime = bench.runtime()
    runtime.declare([bench.service(HOST)])
    with contextlib.ExitStack() as stack:
        pids = []
        for _ in range(2):
            child = subprocess.Popen(["sleep", "600"], env=environment, start_new_session=True)
            stack.enter_context(child)
            stack.callback(child.kill)
            pids.append(child.pid)
            await asyncio.sleep(0.05)  # one clock tick is 10 ms

        found = await runtime.running()

        assert pid_of(found[HOST]) == pids[0]
        assert found[HOST].port == 20_001
        await runtime.close()


async def test_a_run_that_hides_its_environment_is_known_by_its_output(bench, runtime):
    """Programs that show a title overwrite their environment; their output is still our file."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    script = (
        f"import os, sys; os.execve(sys.executable, "
        f"['python', {str(PLAIN_SERVICE)!r}, '--port', '{port}'], {{}})"
    )
    service = bench.service(HOST, port=port, command=("{python}", "-c", script))
    endpoint = await runtime.start(service)
    await bench.settled(service, endpoint)
    assert procfs.VARIABLE.encode() not in Path(f"/proc/{pid_of(endpoint)}/environ").read_bytes()
    await runtime.close()
    later = bench.runtime()
    later.declare([service])

    assert await later.running() == {HOST: endpoint}
    await later.stop(service)
    assert not is_there(pid_of(endpoint))
    await later.close()
