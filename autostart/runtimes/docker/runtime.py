"""The docker runtime: services that are containers of a compose project.

What exists is started and stopped by the Engine API. Compose is asked only when something has to
be created, or when the files say that it may have to be: then it decides, not we. Nothing about a
run is written down: compose's own labels tell which containers are a service's, so runs are found
again after `kill -9`. A container without them, or of another folder, is nobody's to us.

A call for one host waits for the one before it; hosts do not wait for each other, but for a
container that they share.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections import defaultdict
from collections.abc import AsyncGenerator, Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing

import structlog

from autostart.config import ServiceConfig
from autostart.errors import (
    AutostartError,
    EngineUnreachable,
    PortTaken,
    StartFailed,
    StopFailed,
)
from autostart.lifecycle import Endpoint
from autostart.runtimes import port as ports
from autostart.runtimes.base import Change, Device, Diagnosis, Doubt, Usage
from autostart.runtimes.docker import examination
from autostart.runtimes.docker.compose import Compose
from autostart.runtimes.docker.container import Container, main
from autostart.runtimes.docker.creation import Creation
from autostart.runtimes.docker.device import Machine
from autostart.runtimes.docker.discovery import draft_map
from autostart.runtimes.docker.engine import ContainerGone, Engine
from autostart.runtimes.docker.inventory import Inventory
from autostart.runtimes.docker.log import read_log
from autostart.runtimes.docker.project import Project, Projects
from autostart.runtimes.docker.stack import IsShared, Stack
from autostart.runtimes.docker.watch import Watch

log = structlog.get_logger("autostart")

# The engine lets go of a container's port a moment after the container ended.
PORT_FREE_SECONDS = 1.0
PORT_AGAIN_SECONDS = 0.02
# What the engine says when somebody was faster: its own book of ports, or the kernel.
PORT_TAKEN = ("port is already allocated", "address already in use")


class DockerRuntime:
    """Starts containers on the engine that the `docker` command would use."""

    name = "docker"

    def __init__(
        self, *, environment: Mapping[str, str] | None = None, hidden: Collection[str] = ()
    ) -> None:
        environment = dict(os.environ if environment is None else environment)
        self._engine = Engine(environment)
        self._compose = Compose(environment, hidden=hidden, docker_host=self._engine.address)
        self._inventory = Inventory(self._engine)
        self._creation = Creation(
            self._engine, self._compose, Projects(environment), self._inventory
        )
        self._machine = Machine(self._engine)
        self._stack = Stack(self._engine)
        self._watch = Watch(
            self._engine,
            look=self._inventory.publishers,
            hosts_of=self._inventory.hosts_of,
            connected=self._machine.ask_soon,
        )
        self._turns: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._starting: set[str] = set()
        self._ports = ThreadPoolExecutor(max_workers=1, thread_name_prefix="docker-ports")

    def declare(self, services: Sequence[ServiceConfig]) -> None:
        self._inventory.declare(services)
        self._watch.declare({service.host: service.port for service in services})
        self._machine.ask_soon()

    # Bringing up and taking down.

    async def needs_preparation(self, service: ServiceConfig) -> bool:
        mine = await self._inventory.of(service)
        if _is_up(main(mine, service.port)):
            return False
        return await self._creation.lacks_images(service, await self._project(service), mine)

    async def prepare(self, service: ServiceConfig, progress: Callable[[str], None]) -> None:
        async with self._turns[service.host]:
            mine = await self._inventory.of(service)
            if not _is_up(main(mine, service.port)):
                project = await self._project(service)
                await self._creation.ensure(service, project, mine, progress)

    async def start(self, service: ServiceConfig) -> Endpoint:
        host = service.host
        assert host in self._inventory.declared, f"{host} is not declared"
        async with self._turns[host]:
            with self._watch.working_on(host):
                self._starting.add(host)
                try:
                    return await self._start(service)
                finally:
                    self._starting.discard(host)

    async def wait_until_healthy(self, service: ServiceConfig, endpoint: Endpoint) -> None:
        found = main(await self._inventory.of(service), service.port)
        if found is None or not endpoint.run.startswith(found.run):
            raise StartFailed(f"{service.host}: its container was removed or restarted meanwhile")
        await self._stack.wait_until_healthy(found)

    async def stop(self, service: ServiceConfig) -> None:
        host = service.host
        assert host in self._inventory.declared, f"{host} is not declared"
        async with self._turns[host]:
            with self._watch.working_on(host):
                mine = await self._inventory.of(service)
                try:
                    await self._stack.down(
                        mine, service.stop_timeout_seconds, lambda: self._sharing(service)
                    )
                finally:
                    left = main(await self._inventory.of(service), service.port)
                    self._watch.saw(host, left, ours=True)
                if left is not None and left.is_running:
                    raise StopFailed(f"container {left.name} still runs")

    async def _start(self, service: ServiceConfig) -> Endpoint:
        mine = await self._inventory.of(service)
        publisher = main(mine, service.port)
        if publisher is None or not publisher.is_running:
            mine = await self._creation.ensure(
                service, await self._project(service), mine, _log_progress(service.host)
            )
            publisher = main(mine, service.port)
            if publisher is None:
                raise StartFailed(_unpublished(service, mine))
            if not publisher.is_paused:
                await self._await_free_port(service.port)
            publisher = await self._up(service, mine, publisher)
        endpoint = self._watch.saw(service.host, publisher, ours=True)
        if endpoint is None:
            raise StartFailed(f"{service.host} ended: {publisher.end}")
        return endpoint

    async def _up(
        self, service: ServiceConfig, mine: Sequence[Container], publisher: Container
    ) -> Container:
        async def sharing() -> IsShared:
            # It is given up: what others that are given up use with it is used by nobody.
            self._starting.discard(service.host)
            return await self._sharing(service)

        try:
            return await self._stack.up(mine, publisher, service.stop_timeout_seconds, sharing)
        except StartFailed as error:
            if any(text in error.private for text in PORT_TAKEN):
                raise PortTaken(await self._holder(service.port)) from error
            raise

    async def _project(self, service: ServiceConfig) -> Project:
        """Read what the files say, for the device that is there. Raises StartFailed."""
        device = await self._machine.of(service)
        gpu = device.kind == "gpu" and service.gpu_compose is not None
        return await self._creation.read(service, gpu=gpu)

    async def _await_free_port(self, port: int) -> None:
        deadline = time.monotonic() + PORT_FREE_SECONDS
        while not ports.is_free(port):
            if time.monotonic() >= deadline:
                raise PortTaken(await self._holder(port))
            await asyncio.sleep(PORT_AGAIN_SECONDS)

    async def _holder(self, port: int) -> str:
        loop = asyncio.get_running_loop()
        holder = await loop.run_in_executor(self._ports, ports.holder, port)
        name = await self._engine.publisher(port)
        return f"port {port} is taken by {holder}" + (f", container {name}" if name else "")

    async def _sharing(self, service: ServiceConfig) -> IsShared:
        """Return whether another service of the project uses a container now."""
        neighbours = self._inventory.neighbours(service)
        everything = await self._inventory.project_of(service) if neighbours else []
        uses: dict[str, set[str] | None] = {}
        for other in neighbours:
            mine = self._inventory.mine(other, everything)
            # One that is not created yet may come to use any of them.
            exists = main(mine, other.port) is not None
            uses[other.host] = {one.id for one in mine} if exists else None

        def is_shared(container: Container) -> bool:
            return any(
                ids is None or container.id in ids
                for host, ids in uses.items()
                if host in self._starting or self._watch.runs(host)
            )

        return is_shared

    # What is there.

    async def running(self) -> dict[str, Endpoint]:
        await self._creation.learn_names()
        found = {}
        publishers = await self._inventory.publishers(self._inventory.declared.keys())
        for host, publisher in publishers.items():
            if endpoint := self._watch.saw(host, publisher, ours=True):
                found[host] = endpoint
        return found

    async def changes(self) -> AsyncGenerator[Change]:
        asking = asyncio.ensure_future(
            self._machine.keep_asking(lambda: list(self._inventory.declared.values()))
        )
        try:
            async with aclosing(self._watch.changes()) as changes:
                async for change in changes:
                    yield change
        finally:
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)

    async def logs(
        self, service: ServiceConfig, lines: int, *, follow: bool
    ) -> AsyncGenerator[str]:
        reading = read_log(self._engine, lambda: self._inventory.of(service), lines, follow=follow)
        async with aclosing(reading):
            async for line in reading:
                yield line

    async def usage(self, service: ServiceConfig) -> Usage | None:
        up = [one for one in await self._inventory.of(service) if one.is_running]
        if main(up, service.port) is None:
            return None
        try:
            used = await asyncio.gather(*(self._engine.usage(one.id) for one in up))
        except ContainerGone:
            return None
        return Usage(
            memory_bytes=sum(each.memory_bytes for each in used),
            cpu_seconds=sum(each.cpu_seconds for each in used),
        )

    def device(self, service: ServiceConfig) -> Device | None:
        return self._machine.known(service)

    async def examine(self, service: ServiceConfig) -> list[Doubt]:
        doubts: list[Doubt] = []
        try:
            project = await self._project(service)
            model = await self._compose.model(project, service)
            doubts += examination.examine(service, project, model)
            for name, image in model.images(service.containers).items():
                if await self._engine.image_id(image) is None:
                    doubts.append(examination.missing_image(name, image, model))
        except EngineUnreachable:
            pass  # `diagnose` tells
        except AutostartError as error:
            doubts.append(Doubt(error.for_operator, fatal=True))
        return doubts

    async def diagnose(self) -> list[Diagnosis]:
        engine = await self._diagnose_engine()
        findings = [engine, await self._diagnose_compose()]
        if engine.works:
            machine = await self._machine.ask()
            subject = f"containers get a {machine.kind.upper()}"
            findings.append(Diagnosis(subject, works=True, detail=machine.reason))
        return findings

    async def _diagnose_engine(self) -> Diagnosis:
        subject = f"the engine at {self._engine.address or 'its default socket'} answers"
        try:
            info = await self._engine.info()
        except AutostartError as error:
            hint = "start Docker; may this user open its socket? is DOCKER_HOST right?"
            return Diagnosis(subject, works=False, detail=error.for_operator, hint=hint)
        return Diagnosis(subject, works=True, detail=str(info.get("ServerVersion", "")))

    async def _diagnose_compose(self) -> Diagnosis:
        try:
            return Diagnosis("compose answers", works=True, detail=await self._compose.version())
        except AutostartError as error:
            hint = "install Docker's compose plugin"
            return Diagnosis("compose answers", works=False, detail=error.for_operator, hint=hint)

    async def discover(self) -> str:
        """Return a draft of a map from the projects that the engine knows."""
        return draft_map(await self._engine.containers())

    async def close(self) -> None:
        self._watch.close()
        self._stack.close()
        self._creation.close()
        self._engine.close()
        self._ports.shutdown(wait=False, cancel_futures=True)


def _is_up(publisher: Container | None) -> bool:
    return publisher is not None and publisher.is_running


def _unpublished(service: ServiceConfig, mine: Sequence[Container]) -> str:
    found = [f"{each} ({one.service})" for one in mine for each in one.published]
    return (
        f"port {service.port} is published by no container of {service.compose}; "
        f"published: {', '.join(found) or 'nothing'}"
    )


def _log_progress(host: str) -> Callable[[str], None]:
    return lambda line: log.debug("creating", service=host, progress=line)
