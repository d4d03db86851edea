"""What the contract suite needs of each runtime's world: services to start, strangers, mishaps.

A new runtime joins the suite by a workbench here and its name in WORKBENCHES.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import (
    AbstractAsyncContextManager,
    AbstractContextManager,
    aclosing,
    asynccontextmanager,
)
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Protocol

import httpx

from autostart.config import ServiceConfig
from autostart.errors import StartFailed
from autostart.lifecycle import Endpoint
from autostart.probe import wait_until_ready
from autostart.runtimes import procfs
from autostart.runtimes.base import Change, Runtime
from autostart.runtimes.docker import DockerRuntime
from autostart.runtimes.process import ProcessRuntime
from tests.containers import (
    contained,
    docker,
    inspect,
    plain_container,
    remove_projects,
    require_engine,
    write_compose,
)
from tests.daemon import free_port
from tests.fakes.runtime import FakeMachine, FakeRuntime
from tests.private_engine import PrivateEngine, private_engine

PLAIN_SERVICE = Path(__file__).parents[1] / "plain_service.py"
ANSWERS_SECONDS = 10.0

HOST = "a.example.com"
OTHER = "b.example.com"
DEADLINE_SECONDS = 20.0


class Workbench(Protocol):
    """One machine with one kind of runtime."""

    def runtime(self) -> Runtime:
        """Return a new runtime, as after a restart of autostart with the same state folder."""

    def service(self, host: str, **keys: Any) -> ServiceConfig:
        """Return a service that this runtime can start."""

    def stubborn(self, service: ServiceConfig) -> ServiceConfig:
        """Return it so that it does not stop when it is asked to."""

    def breaking(self, runtime: Runtime, service: ServiceConfig) -> ServiceConfig:
        """Return it so that its start fails."""

    def stranger(self) -> AbstractContextManager[int]:
        """Let a program that nobody declared listen on a port."""

    async def settled(self, service: ServiceConfig, endpoint: Endpoint) -> None:
        """Return when the run's program has done with starting."""

    def is_there(self, endpoint: Endpoint) -> bool:
        """Say whether the run's program exists, without asking a runtime."""

    async def end(self, endpoint: Endpoint) -> None:
        """End the run behind the runtime's back."""

    async def write(self, service: ServiceConfig, endpoint: Endpoint, line: str) -> None:
        """Have the run write a line to its output."""


class EngineWorkbench(Workbench, Protocol):
    """A machine whose runtime needs an engine."""

    async def lose_engine(self) -> None:
        """Let the engine stop answering; runs stay as they are."""

    async def find_engine(self) -> None:
        """Let the engine answer again."""


@asynccontextmanager
async def fake_workbench(folder: Path) -> AsyncIterator[Workbench]:
    yield FakeWorkbench()


class FakeWorkbench:
    def __init__(self) -> None:
        self.machine = FakeMachine()

    def runtime(self) -> FakeRuntime:
        return FakeRuntime(self.machine)

    def service(self, host: str, **keys: Any) -> ServiceConfig:
        return ServiceConfig(host=host, **{"name": host, "command": ("fake",), **keys})

    def stubborn(self, service: ServiceConfig) -> ServiceConfig:
        return service

    def breaking(self, runtime: Runtime, service: ServiceConfig) -> ServiceConfig:
        assert isinstance(runtime, FakeRuntime)
        runtime.fail("start", service.host, StartFailed("broken"))
        return service

    @contextlib.contextmanager
    def stranger(self) -> Iterator[int]:
        self.machine.strangers[8001] = "pid 7 (nginx)"
        yield 8001
        del self.machine.strangers[8001]

    async def settled(self, service: ServiceConfig, endpoint: Endpoint) -> None:
        pass

    def is_there(self, endpoint: Endpoint) -> bool:
        return endpoint in self.machine.runs.values()

    async def end(self, endpoint: Endpoint) -> None:
        self.machine.end(next(h for h, run in self.machine.runs.items() if run == endpoint))

    async def write(self, service: ServiceConfig, endpoint: Endpoint, line: str) -> None:
        await self.machine.write(service.host, line)

    async def lose_engine(self) -> None:
        self.machine.lose()

    async def find_engine(self) -> None:
        self.machine.find()


class OnThisMachine:
    """What is the same wherever runs are real."""

    @contextlib.contextmanager
    def stranger(self) -> Iterator[int]:
        with socket.create_server(("127.0.0.1", 0)) as server:
            yield server.getsockname()[1]

    async def settled(self, service: ServiceConfig, endpoint: Endpoint) -> None:
        async with asyncio.timeout(ANSWERS_SECONDS):
            await wait_until_ready(endpoint, service)


@asynccontextmanager
async def process_workbench(folder: Path) -> AsyncIterator[Workbench]:
    bench = ProcessWorkbench(folder)
    try:
        yield bench
    finally:
        bench.clean_up()


class ProcessWorkbench(OnThisMachine):
    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def state(self) -> Path:
        return self.folder / "state"

    def runtime(self) -> ProcessRuntime:
        return ProcessRuntime(self.state)

    def service(self, host: str, *options: str, **keys: Any) -> ServiceConfig:
        command = ("{python}", str(PLAIN_SERVICE), "--port", "{port}", "--name", host, *options)
        given = {"name": host, "command": command, "directory": self.folder, "ready": "/ready"}
        return ServiceConfig(host=host, **{**given, "stop_timeout_seconds": 5.0, **keys})

    def shell(self, host: str, script: str, **keys: Any) -> ServiceConfig:
        """Return a service that is a shell script."""
        return self.service(host, command=("sh", "-c", script), **keys)

    def stubborn(self, service: ServiceConfig) -> ServiceConfig:
        assert service.command is not None
        return replace(service, command=(*service.command, "--ignore-sigterm"))

    def breaking(self, runtime: Runtime, service: ServiceConfig) -> ServiceConfig:
        return replace(service, command=("no-such-program",))

    def is_there(self, endpoint: Endpoint) -> bool:
        pid, _, ticks = endpoint.run.partition(".")
        stat = procfs.read_stat(int(pid))
        return stat is not None and stat.alive and stat.start_ticks == int(ticks)

    async def end(self, endpoint: Endpoint) -> None:
        os.kill(int(endpoint.run.partition(".")[0]), signal.SIGKILL)
        while self.is_there(endpoint):
            await asyncio.sleep(0.002)

    async def write(self, service: ServiceConfig, endpoint: Endpoint, line: str) -> None:
        url = f"http://{endpoint.address}:{endpoint.port}/print"
        async with httpx.AsyncClient(trust_env=False) as client:
            (await client.get(url, params={"line": line})).raise_for_status()

    def carriers(self) -> list[procfs.Carrier]:
        """Return what is there of any run of this machine."""
        return procfs.carriers(self.state.resolve(), self.state.resolve() / "output")

    def clean_up(self) -> None:
        left = procfs.kill((carrier.stat for carrier in self.carriers()), 5.0)
        assert left == []
        with contextlib.suppress(ChildProcessError):  # raised when no child is left
            while os.waitpid(-1, os.WNOHANG) != (0, 0):
                pass


@asynccontextmanager
async def docker_workbench(folder: Path) -> AsyncIterator[Workbench]:
    require_engine()
    try:
        yield DockerWorkbench(folder)
    finally:
        remove_projects(under=folder)


class DockerWorkbench(OnThisMachine):
    def __init__(self, folder: Path, host: str | None = None) -> None:
        self.folder = folder
        self.host = host
        self.ports: dict[str, int] = {}

    def runtime(self) -> DockerRuntime:
        named = {"DOCKER_HOST": self.host} if self.host else {}
        return DockerRuntime(environment={**os.environ, **named})

    def service(self, host: str, *options: str, **keys: Any) -> ServiceConfig:
        port = keys.get("port") or self.ports.setdefault(host, free_port())
        folder = self.folder / host
        contained(folder, port, "--name", host, *options)
        given = {"name": host, "compose": folder, "ready": "/ready", "port": port}
        return ServiceConfig(host=host, **{**given, "stop_timeout_seconds": 5.0, **keys})

    def stubborn(self, service: ServiceConfig) -> ServiceConfig:
        contained(self.folder / service.host, service.port, "--ignore-sigterm")
        return service

    def breaking(self, runtime: Runtime, service: ServiceConfig) -> ServiceConfig:
        broken = self.folder / "broken"
        entry = plain_container(service.port, entrypoint=["/no/such/program"])
        write_compose(broken, {"web": entry})
        return replace(service, compose=broken)

    def is_there(self, endpoint: Endpoint) -> bool:
        container, _, started_at = endpoint.run.partition(".")
        state = inspect(container, host=self.host)["State"]
        return bool(state["Running"]) and state["StartedAt"] == started_at

    async def end(self, endpoint: Endpoint) -> None:
        docker("kill", endpoint.run.partition(".")[0], host=self.host)
        while self.is_there(endpoint):
            await asyncio.sleep(0.002)

    async def write(self, service: ServiceConfig, endpoint: Endpoint, line: str) -> None:
        url = f"http://{endpoint.address}:{endpoint.port}/print"
        async with httpx.AsyncClient(trust_env=False) as client:
            (await client.get(url, params={"line": line})).raise_for_status()


@asynccontextmanager
async def private_docker_workbench(folder: Path) -> AsyncIterator[Workbench]:
    """An engine of the test's own, which may be hung."""
    # Sockets have short paths, and the test's folder has a long one.
    with TemporaryDirectory(prefix="engine") as short, private_engine(Path(short)) as engine:
        engine.load_plain_image()
        yield PrivateDockerWorkbench(folder, engine)


class PrivateDockerWorkbench(DockerWorkbench):
    def __init__(self, folder: Path, engine: PrivateEngine) -> None:
        super().__init__(folder, engine.host)
        self.engine = engine

    async def lose_engine(self) -> None:
        self.engine.freeze()

    async def find_engine(self) -> None:
        self.engine.thaw()

    async def end(self, endpoint: Endpoint) -> None:
        """Kill the run's processes: the engine may not listen."""
        container = endpoint.run.partition(".")[0]
        for pid in [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]:
            with contextlib.suppress(OSError):
                if f"/{container}" in Path(f"/proc/{pid}/cgroup").read_text():
                    os.kill(pid, signal.SIGKILL)


WORKBENCHES: dict[str, Callable[[Path], AbstractAsyncContextManager[Workbench]]] = {
    "fake": fake_workbench,
    "process": process_workbench,
    "docker": docker_workbench,
}

# Those whose engine may be lost; a private one is made for each test, so only those get one.
ENGINES = {"fake": fake_workbench, "private-docker": private_docker_workbench}


async def next_change(runtime: Runtime) -> Change:
    async with asyncio.timeout(DEADLINE_SECONDS), aclosing(runtime.changes()) as changes:
        return await anext(changes)


async def no_change(runtime: Runtime) -> bool:
    """Say that nothing is reported for as long as a report would take."""
    try:
        async with asyncio.timeout(0.2), aclosing(runtime.changes()) as changes:
            await anext(changes)
    except TimeoutError:
        return True
    return False


def pid_of(endpoint: Endpoint) -> int:
    return int(endpoint.run.partition(".")[0])


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(DEADLINE_SECONDS):
        while not condition():
            await asyncio.sleep(0.005)


async def written(path: Path) -> str:
    """Return what a service writes to a file, once it is a whole line."""
    await until(lambda: path.exists() and path.read_text().endswith("\n"))
    return path.read_text()


def is_there(pid: int) -> bool:
    stat = procfs.read_stat(pid)
    return stat is not None and stat.alive
