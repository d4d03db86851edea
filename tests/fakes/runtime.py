"""A runtime without processes or engine, held to the same contract as the real ones.

`FakeMachine` is what outlives a runtime: its runs, its output, strangers on ports, whether the
engine answers. A second `FakeRuntime` on the same machine is autostart after a restart.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass, field

from autostart.config import ServiceConfig
from autostart.errors import AutostartError, EngineUnreachable, PortTaken
from autostart.lifecycle import Endpoint
from autostart.runtimes.base import (
    Appeared,
    Change,
    Device,
    Diagnosis,
    Doubt,
    Exited,
    Found,
    Lost,
    Usage,
)

FIRST_CHOSEN_PORT = 20_000


@dataclass
class FakeMachine:
    """What is there whether or not a runtime looks."""

    runs: dict[str, Endpoint] = field(default_factory=dict)
    strangers: dict[int, str] = field(default_factory=dict)  # port -> holder, "pid 7 (nginx)"
    output: defaultdict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    unprepared: set[str] = field(default_factory=set)
    devices: dict[str, Device] = field(default_factory=dict)
    engine_answers: bool = True
    started: int = 0  # runs so far, over all hosts
    _watching: list[FakeRuntime] = field(default_factory=list)
    _missed: list[Change] = field(default_factory=list)
    _wrote: asyncio.Condition = field(default_factory=asyncio.Condition)

    def begin(self, host: str, port: int = 0) -> Endpoint:
        """Bring a run up, as a runtime does and as an operator may."""
        self.started += 1
        endpoint = Endpoint(
            "127.0.0.1", port or FIRST_CHOSEN_PORT + self.started, f"run-{self.started}"
        )
        self.runs[host] = endpoint
        return endpoint

    def end(self, host: str, reason: str = "exit code 1") -> None:
        """End a run behind everybody's back."""
        self._tell(Exited(host, self.runs.pop(host).run, reason))

    def appear(self, host: str, port: int = 0) -> Endpoint:
        """Bring a run up that no runtime was asked for."""
        endpoint = self.begin(host, port)
        self._tell(Appeared(host, endpoint))
        return endpoint

    def lose(self, reason: str = "the engine does not answer") -> None:
        self._tell(Lost(reason))
        self.engine_answers = False

    def find(self) -> None:
        self.engine_answers = True
        missed, self._missed = self._missed, []
        for change in (Found(), *missed):
            self._tell(change)

    async def write(self, host: str, line: str) -> None:
        """Have the run write a line."""
        async with self._wrote:
            self.output[host].append(line)
            self._wrote.notify_all()

    async def wait_for_output(self, host: str, lines_seen: int) -> None:
        async with self._wrote:
            await self._wrote.wait_for(lambda: len(self.output[host]) > lines_seen)

    def watch(self, runtime: FakeRuntime) -> None:
        self._watching.append(runtime)

    def unwatch(self, runtime: FakeRuntime) -> None:
        self._watching.remove(runtime)

    def _tell(self, change: Change) -> None:
        if not self.engine_answers:
            self._missed.append(change)
            return
        for runtime in self._watching:
            runtime.notice(change)


class FakeRuntime:
    """Does at once what it is asked, unless a test holds it or lets it fail.

    `calls` lists (verb, host) in order, verbs "prepare", "start", "stop". A call waits while its
    verb's gate is closed: `hold("start")`, later `let_go("start")`. `fail("start", host, error)`
    lets the next call raise; `usage` can fail too.
    """

    name = "fake"

    def __init__(self, machine: FakeMachine | None = None) -> None:
        self.machine = machine or FakeMachine()
        self.machine.watch(self)
        self.calls: list[tuple[str, str]] = []
        self._declared: dict[str, ServiceConfig] = {}
        self._gates: dict[str, asyncio.Event] = {}
        self._failures: defaultdict[tuple[str, str], list[AutostartError]] = defaultdict(list)
        self._turns: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._changes: list[Change] = []
        self._news = asyncio.Event()
        self._closed = False

    # What a test does with it.

    def hold(self, verb: str) -> None:
        self._gates[verb] = asyncio.Event()

    def let_go(self, verb: str) -> None:
        self._gates.pop(verb).set()

    def fail(self, verb: str, host: str, error: AutostartError) -> None:
        self._failures[verb, host].append(error)

    def notice(self, change: Change) -> None:
        self._changes.append(change)
        self._news.set()

    # The contract.

    def declare(self, services: Sequence[ServiceConfig]) -> None:
        self._declared = {service.host: service for service in services}

    async def needs_preparation(self, service: ServiceConfig) -> bool:
        return service.host in self.machine.unprepared

    async def prepare(self, service: ServiceConfig, progress: Callable[[str], None]) -> None:
        await self._called("prepare", service)
        if service.host in self.machine.unprepared:
            progress(f"building {service.host}")
            self.machine.unprepared.remove(service.host)

    async def start(self, service: ServiceConfig) -> Endpoint:
        async with self._turns[service.host]:
            await self._called("start", service)
            if service.host in self.machine.runs:
                return self.machine.runs[service.host]
            if service.port in self.machine.strangers:
                holder = self.machine.strangers[service.port]
                raise PortTaken(f"port {service.port} is taken by {holder}")
            return self.machine.begin(service.host, service.port)

    async def stop(self, service: ServiceConfig) -> None:
        async with self._turns[service.host]:
            await self._called("stop", service)
            if service.host in self.machine.runs:
                self.machine.end(service.host, "killed by SIGTERM")

    async def wait_until_healthy(self, service: ServiceConfig, endpoint: Endpoint) -> None:
        await self._called("health", service)

    def device(self, service: ServiceConfig) -> Device | None:
        return self.machine.devices.get(service.host)

    async def examine(self, service: ServiceConfig) -> list[Doubt]:
        return []

    async def running(self) -> dict[str, Endpoint]:
        self._ask_engine()
        return {host: run for host, run in self.machine.runs.items() if host in self._declared}

    async def changes(self) -> AsyncGenerator[Change]:
        while not self._closed:
            if not self._changes:
                self._news.clear()
                await self._news.wait()
                continue
            change = self._changes.pop(0)
            if isinstance(change, Lost | Found) or change.host in self._declared:
                yield change

    async def logs(
        self, service: ServiceConfig, lines: int, *, follow: bool
    ) -> AsyncGenerator[str]:
        written = self.machine.output[service.host]
        seen = max(0, len(written) - lines)
        while True:
            while seen < len(written):
                seen += 1
                yield written[seen - 1]
            if not follow:
                return
            await self.machine.wait_for_output(service.host, seen)

    async def usage(self, service: ServiceConfig) -> Usage | None:
        if failures := self._failures["usage", service.host]:
            raise failures.pop(0)
        if service.host not in self.machine.runs:
            return None
        return Usage(memory_bytes=1_000_000, cpu_seconds=0.5)

    async def diagnose(self) -> list[Diagnosis]:
        return [Diagnosis("engine answers", works=self.machine.engine_answers, detail="")]

    async def close(self) -> None:
        if not self._closed:
            self.machine.unwatch(self)
        self._closed = True
        self._news.set()

    async def _called(self, verb: str, service: ServiceConfig) -> None:
        assert service.host in self._declared, f"{service.host} is not declared"
        self.calls.append((verb, service.host))
        self._ask_engine()
        if gate := self._gates.get(verb):
            await gate.wait()
        if failures := self._failures[verb, service.host]:
            raise failures.pop(0)

    def _ask_engine(self) -> None:
        if not self.machine.engine_answers:
            raise EngineUnreachable("the engine does not answer")
