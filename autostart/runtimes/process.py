"""The process runtime: services that are a command on this machine.

A run is one child in its own session, with a marker in its environment and its output in a file.
Nothing about it is written down: `running` looks for markers (see procfs), so a run outlives us and
is found again. Its end comes from a pidfd, which also works for runs that an earlier autostart
started. The end of the child is the end of the run: whatever it leaves behind is killed.

A call for one host waits for the one before it; hosts do not wait for each other.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections import defaultdict, deque
from collections.abc import AsyncGenerator, Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryFile
from typing import ParamSpec, TypeVar

from autostart.config import ServiceConfig
from autostart.errors import AutostartError, EngineUnreachable, PortTaken, StartFailed, StopFailed
from autostart.lifecycle import Endpoint
from autostart.runtimes import child, procfs
from autostart.runtimes import port as ports
from autostart.runtimes.base import Appeared, Change, Device, Diagnosis, Doubt, Exited, Usage
from autostart.runtimes.output import limit_output, read_lines

P = ParamSpec("P")
T = TypeVar("T")

# SIGKILL takes effect in milliseconds, unless the process is stuck in the kernel (state D).
KILL_SECONDS_MAX = 5.0
# A look at 300 processes takes 2 ms; one that takes this long hangs in the kernel.
THREAD_SECONDS_MAX = 10.0
# How often the outputs of runs that never stop are looked at, to keep them small.
LIMIT_SECONDS = 60.0
# How often we look whether the rest of a run has ended too, after its leader ended on our request.
REST_POLL_SECONDS = 0.05
# A process that starts others while it is being killed needs another round.
KILL_ROUNDS_MAX = 3

# What systemd says to us, not to our children (sd_notify(3), sd_listen_fds(3)).
OURS_ALONE = (
    "NOTIFY_SOCKET",
    "WATCHDOG_PID",
    "WATCHDOG_USEC",
    "LISTEN_PID",
    "LISTEN_FDS",
    "LISTEN_FDNAMES",
)


@dataclass
class _Run:
    """A run that is watched; `end` becomes the reason once it has ended."""

    host: str
    endpoint: Endpoint
    leader: procfs.Stat
    pidfd: int
    may_move: bool  # on a chosen port, and not moved yet
    end: asyncio.Future[str] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )


class ProcessRuntime:
    """Starts local processes that inherit `environment` (ours) but for `hidden` names."""

    name = "process"

    def __init__(
        self,
        state_folder: Path,
        *,
        environment: Mapping[str, str] | None = None,
        hidden: Collection[str] = (),
    ) -> None:
        self._state_folder = state_folder.resolve()
        self._outputs = self._state_folder / "output"
        self._environment = dict(os.environ if environment is None else environment)
        self._hidden = hidden
        self._declared: dict[str, ServiceConfig] = {}
        self._runs: dict[str, _Run] = {}
        self._turns: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        # Holds each run that ended until `changes` has told: one entry for one start at most.
        self._ended: deque[_Run] = deque()
        self._news = asyncio.Event()
        self._closed = False
        # Its own: a process that cannot be looked at must not block everybody's threads.
        self._threads = ThreadPoolExecutor(max_workers=2, thread_name_prefix="process-runtime")

    def declare(self, services: Sequence[ServiceConfig]) -> None:
        self._declared = {service.host: service for service in services}

    async def needs_preparation(self, service: ServiceConfig) -> bool:  # noqa: ARG002 - Protocol
        return False

    async def prepare(self, service: ServiceConfig, progress: Callable[[str], None]) -> None:
        """Return at once: a command needs no preparation."""

    async def start(self, service: ServiceConfig) -> Endpoint:
        host = service.host
        assert host in self._declared, f"{host} is not declared"
        async with self._turns[host]:
            try:
                run = await self._find(host)
            except StopFailed as error:
                raise StartFailed(f"an earlier run is in the way: {error.message}") from error
            if run is None:
                port = await self._free_port(service)
                run = self._launch(service, port, may_move=service.port == 0)
            # Nothing is awaited after the launch: a cancellation comes before it, or too late.
            return run.endpoint

    async def stop(self, service: ServiceConfig) -> None:
        host = service.host
        assert host in self._declared, f"{host} is not declared"
        async with self._turns[host]:
            run = await self._find(host)
            if run is not None:
                await self._end(run, service.stop_timeout_seconds)
                await self._clear(host)
            self._runs.pop(host, None)

    async def running(self) -> dict[str, Endpoint]:
        for carrier in await self._look():
            self._adopt(carrier)
        alive = {host: self._alive(host) for host in self._declared}
        return {host: run.endpoint for host, run in alive.items() if run is not None}

    async def changes(self) -> AsyncGenerator[Change]:
        while not self._closed:
            if not self._ended:
                self._news.clear()
                try:
                    async with asyncio.timeout(LIMIT_SECONDS):
                        await self._news.wait()
                except TimeoutError:
                    await self._limit_outputs()
                continue
            # Taken out only when it can be told: a consumer that is cancelled here loses nothing.
            change = await self._conclude(self._ended[0])
            self._ended.popleft()
            if change.host in self._declared:
                yield change

    def logs(self, service: ServiceConfig, lines: int, *, follow: bool) -> AsyncGenerator[str]:
        return read_lines(self._output(service.host), lines, follow=follow)

    async def usage(self, service: ServiceConfig) -> Usage | None:
        run = self._alive(service.host)
        if run is None:
            return None
        session = await self._in_thread(procfs.session, run.leader.pid)
        return Usage(
            memory_bytes=sum(process.memory_bytes for process in session),
            cpu_seconds=sum(process.cpu_seconds for process in session),
        )

    async def wait_until_healthy(self, service: ServiceConfig, endpoint: Endpoint) -> None:
        raise AssertionError(f"{service.host}: no engine has a verdict on {endpoint.run}")

    def device(self, service: ServiceConfig) -> Device | None:  # noqa: ARG002 - the Protocol's
        return None

    async def examine(self, service: ServiceConfig) -> list[Doubt]:
        assert service.command is not None, f"{service.host} has no command"
        return child.examine(service.command[0], service.directory, self._inherited())

    async def diagnose(self) -> list[Diagnosis]:
        return [
            Diagnosis.of(
                "process exits are seen (pidfd)", procfs.try_pidfd, hint="needs Linux 5.4 or newer"
            ),
            Diagnosis.of("processes are seen (/proc)", procfs.try_proc, hint="mount /proc"),
            Diagnosis.of(
                f"{self._outputs} can be written",
                self._try_output,
                hint="make it writable, or set AUTOSTART_STATE to another folder",
            ),
        ]

    async def close(self) -> None:
        self._closed = True
        self._news.set()
        for run in self._runs.values():
            if not run.end.done():
                self._unwatch(run)
        self._runs.clear()
        self._threads.shutdown(wait=False)

    # Finding what is there.

    def _alive(self, host: str) -> _Run | None:
        run = self._runs.get(host)
        if run is None or run.end.done():
            return None
        if child.has_ended(run.pidfd):
            self._on_end(run)  # the loop would have come to it next
            return None
        return run

    async def _find(self, host: str) -> _Run | None:
        """Return the run of this host; without one, nothing of an earlier one is left either."""
        if run := self._alive(host):
            return run
        carriers = await self._look(host)
        for carrier in carriers:
            if run := self._adopt(carrier):
                return run
        if carriers:
            await self._clear(host)  # only a leader is a run; these lost theirs while we were away
        return None

    async def _look(self, host: str | None = None) -> list[procfs.Carrier]:
        carriers = await self._in_thread(procfs.carriers, self._state_folder, self._outputs)
        return [carrier for carrier in carriers if host in (None, carrier.host)]

    def _adopt(self, carrier: procfs.Carrier) -> _Run | None:
        """Watch the run that this process leads, unless its host has one already."""
        host = carrier.host
        if host in self._runs:
            # One that ended keeps its place until it is cleared away: what it left behind is not
            # a run. Of two runs, which should not exist, the oldest comes first and stays.
            return self._alive(host)
        service = self._declared.get(host)
        if service is None or not carrier.stat.leads_session:
            return None
        port = carrier.port or service.port
        if port == 0:
            return None  # hides its marker and its port was chosen: nobody knows where it answers
        pidfd = procfs.open_pidfd(carrier.stat)
        if pidfd is None:
            return None
        return self._watch(host, port, carrier.stat, pidfd, may_move=False)

    async def _in_thread(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(THREAD_SECONDS_MAX):
                return await loop.run_in_executor(self._threads, partial(function, *args, **kwargs))
        except TimeoutError as error:
            raise EngineUnreachable(f"/proc was silent for {THREAD_SECONDS_MAX:.0f} s") from error

    # Starting.

    async def _free_port(self, service: ServiceConfig) -> int:
        if service.port == 0:
            return self._choose_port()
        if not ports.is_free(service.port):
            holder = await self._in_thread(ports.holder, service.port)
            raise PortTaken(f"port {service.port} is taken by {holder}")
        return service.port

    def _choose_port(self) -> int:
        return ports.choose(
            excluding={service.port for service in self._declared.values()}
            | {run.endpoint.port for run in self._runs.values()}
        )

    def _launch(self, service: ServiceConfig, port: int, *, may_move: bool) -> _Run:
        """Start the child and watch it.

        In the loop: Popen holds the GIL until the child has its program, so a thread would free
        nobody. Measured on two busy cores, medians of 30: sleep 0.4 ms, Python 1 to 5 ms.
        """
        host = service.host
        assert service.command is not None, f"{host} has no command"
        marker = procfs.Marker(str(self._state_folder), host, port)
        leader, pidfd = child.launch(
            [child.fill(argument, port) for argument in service.command],
            directory=service.directory,
            environment={
                **self._inherited(),
                **{name: child.fill(value, port) for name, value in service.environment.items()},
                procfs.VARIABLE: marker.value,
            },
            output=self._output(host),
        )
        return self._watch(host, port, leader, pidfd, may_move=may_move)

    async def _limit_outputs(self) -> None:
        for host in list(self._runs):
            # A full disk is the service's to report, and what hangs is asked again in a minute.
            with contextlib.suppress(OSError, EngineUnreachable):
                await self._in_thread(limit_output, self._output(host))

    def _inherited(self) -> dict[str, str]:
        return {k: v for k, v in self._environment.items() if k not in (*OURS_ALONE, *self._hidden)}

    def _output(self, host: str) -> Path:
        return self._outputs / f"{host}.log"

    # Watching.

    def _watch(
        self, host: str, port: int, leader: procfs.Stat, pidfd: int, *, may_move: bool
    ) -> _Run:
        endpoint = Endpoint(ports.LOOPBACK, port, f"{leader.pid}.{leader.start_ticks}")
        run = _Run(host, endpoint, leader, pidfd, may_move)
        self._runs[host] = run
        asyncio.get_running_loop().add_reader(pidfd, self._on_end, run)
        return run

    def _unwatch(self, run: _Run) -> None:
        run.end.get_loop().remove_reader(run.pidfd)
        os.close(run.pidfd)

    def _on_end(self, run: _Run) -> None:
        reason = child.reap(run.pidfd)
        self._unwatch(run)
        run.end.set_result(reason)
        self._ended.append(run)
        self._news.set()

    async def _conclude(self, run: _Run) -> Appeared | Exited:
        """Clear up after a run that ended, and say what became of it."""
        host = run.host
        exited = Exited(host, run.endpoint.run, run.end.result())
        if self._runs.get(host) is not run:
            return exited  # stopped, or started again, meanwhile
        async with self._turns[host]:
            if self._runs.get(host) is not run:
                return exited
            try:
                await self._clear(host)
                if moved := self._move(run):
                    return Appeared(host, moved.endpoint)
            except AutostartError as error:
                exited = replace(exited, reason=f"{exited.reason}; then {error.message}")
            del self._runs[host]
            return exited

    def _move(self, run: _Run) -> _Run | None:
        """Start a run again that ended because somebody was faster on its chosen port."""
        service = self._declared.get(run.host)
        if service is None or not run.may_move or ports.is_free(run.endpoint.port):
            return None
        return self._launch(service, self._choose_port(), may_move=False)

    # Ending.

    async def _end(self, run: _Run, timeout_seconds: float) -> None:
        """End the run; its end is reported by `changes` as any other."""
        deadline = run.end.get_loop().time() + timeout_seconds
        try:
            child.signal_group(run.leader, signal.SIGTERM)
            await asyncio.wait([run.end], timeout=timeout_seconds)
            if run.end.done():
                await self._await_rest(run, deadline)
                return
            child.signal_group(run.leader, signal.SIGKILL)
        except PermissionError as error:
            raise StopFailed(f"{run.host}: may not signal pid {run.leader.pid}") from error
        await asyncio.wait([run.end], timeout=KILL_SECONDS_MAX)
        if not run.end.done():
            raise _still_there(run.host, [run.leader])

    async def _await_rest(self, run: _Run, deadline: float) -> None:
        """Let the leader's children finish what they do: `sh -c` ends before what it started."""
        asked = False
        while rest := [carrier.stat for carrier in await self._look(run.host)]:
            if not asked:
                # Those of the leader's group were asked with it; twice means "at once" to many.
                procfs.terminate(stat for stat in rest if stat.group != run.leader.pid)
                asked = True
            if run.end.get_loop().time() >= deadline:
                return
            await asyncio.sleep(REST_POLL_SECONDS)

    async def _clear(self, host: str) -> None:
        """Kill what is left of a run whose leader has ended."""
        left: list[procfs.Stat] = []
        for _ in range(KILL_ROUNDS_MAX):
            left = [carrier.stat for carrier in await self._look(host)]
            if not left:
                return
            left = await self._in_thread(procfs.kill, left, KILL_SECONDS_MAX)
        if left:
            raise _still_there(host, left)

    def _try_output(self) -> None:
        self._outputs.mkdir(parents=True, exist_ok=True, mode=0o700)
        with TemporaryFile(dir=self._outputs):
            pass


def _still_there(host: str, processes: Sequence[procfs.Stat]) -> StopFailed:
    pids = ", ".join(f"pid {process.pid}" for process in processes)
    return StopFailed(f"{host}: {pids} still there {KILL_SECONDS_MAX:.0f} s after SIGKILL")
