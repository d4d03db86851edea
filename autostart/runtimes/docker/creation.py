"""Whether a service's containers are what its files say, and making them so.

First files' dates against the containers' own, which costs nothing; only then is compose asked,
and it decides. What was asked once is not asked again until a file, an image or a container is
another: an unedited project costs no call.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from autostart.config import ServiceConfig
from autostart.errors import AutostartError, StartFailed
from autostart.runtimes.docker.compose import Compose
from autostart.runtimes.docker.container import Container
from autostart.runtimes.docker.engine import Engine
from autostart.runtimes.docker.inventory import Inventory, folder_of, resolve
from autostart.runtimes.docker.project import Project, Projects, changed_since, signature

# Files of a project are a few kilobytes; who is silent for so long is a network disk that is away.
FILES_SECONDS = 5.0

Progress = Callable[[str], None]


class Creation:
    """Makes containers, by compose."""

    def __init__(
        self, engine: Engine, compose: Compose, projects: Projects, inventory: Inventory
    ) -> None:
        self._engine = engine
        self._compose = compose
        self._projects = projects
        self._inventory = inventory
        # What compose was asked about, by host, and the runs that it was not to touch.
        self._settled: dict[str, tuple[Hashable, frozenset[str]]] = {}
        self._turns: defaultdict[Path, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._files = ThreadPoolExecutor(max_workers=2, thread_name_prefix="compose-files")

    async def read(self, service: ServiceConfig, *, gpu: bool) -> Project:
        """Read the project, and learn its name. Raises StartFailed."""
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(FILES_SECONDS):
                project = await loop.run_in_executor(
                    self._files, lambda: self._projects.read(service, gpu=gpu)
                )
        except TimeoutError as error:
            text = f"{service.compose} could not be read within {FILES_SECONDS:.0f} s"
            raise StartFailed(text) from error
        names = self._inventory.names
        self._inventory.plain[service.host] = project.services if project.is_complete else None
        if project.name is not None:
            names[service.host] = project.name
        elif service.host not in names:
            names[service.host] = (await self._compose.model(project, service)).name
        return project

    async def learn_names(self) -> None:
        """Read every project's name that can be read: what is broken is told at a start."""
        for host, service in self._inventory.declared.items():
            if host not in self._inventory.names:
                try:
                    await self.read(service, gpu=False)
                except AutostartError:
                    continue

    async def lacks_images(
        self, service: ServiceConfig, project: Project, mine: Sequence[Container]
    ) -> bool:
        """Say whether making the containers means to pull or build first."""
        if await self._is_current(service, project, mine):
            return False
        model = await self._compose.model(project, service)
        images = set(model.images(None).values())
        return None in await asyncio.gather(*map(self._engine.image_id, images))

    async def ensure(
        self,
        service: ServiceConfig,
        project: Project,
        mine: Sequence[Container],
        progress: Progress,
    ) -> list[Container]:
        """Have the containers be what the files say; return them.

        Raises StartFailed, EngineUnreachable.
        """
        if await self._is_current(service, project, mine):
            return list(mine)
        async with self._turns[folder_of(service)]:
            if foreign := await self._inventory.foreign(service):
                # Compose takes every container with the project's name for its own.
                raise StartFailed(
                    f"the compose project name {foreign.project!r} of {service.compose} is taken "
                    f"by containers of {foreign.folder}; give one of them another top-level name"
                )
            await self._create(service, project, mine, progress)
        untouched = frozenset(one.run for one in mine if one.is_up)
        mine = await self._inventory.of(service)
        question = _question(project, mine, await self._images(mine))
        self._settled[service.host] = (question, untouched)
        return mine

    def close(self) -> None:
        """Let go of the threads."""
        self._files.shutdown(wait=False, cancel_futures=True)

    async def _create(
        self,
        service: ServiceConfig,
        project: Project,
        mine: Sequence[Container],
        progress: Progress,
    ) -> None:
        up = {one.service for one in mine if one.is_up}
        if not up:
            await self._compose.create(project, progress, service.containers)
            return
        # Shared with a service that is in use: what has changed of those waits for their own end.
        wanted = set(service.containers or project.services) - up
        if wanted:
            await self._compose.create(project, progress, wanted, "--no-deps")
        await self._compose.create(project, progress, service.containers, "--no-recreate")

    async def _is_current(
        self, service: ServiceConfig, project: Project, mine: Sequence[Container]
    ) -> bool:
        images = await self._images(mine)
        question, untouched = self._settled.get(service.host, (None, frozenset()))
        # What was up was left as it is. Once it is not, it may have to become what the files say.
        if question == _question(project, mine, images) and untouched <= {
            one.run for one in mine if one.is_up
        }:
            return True
        expected = set(service.containers or project.services)
        if not mine or not expected <= {one.service for one in mine}:
            return False
        files = {resolve(file) for file in project.files}
        if any({resolve(file) for file in one.files} != files for one in mine):
            return False
        if changed_since(project, min(one.created for one in mine)):
            return False
        return all(images[one.image] in (None, one.image_id) for one in mine)

    async def _images(self, mine: Sequence[Container]) -> dict[str, str | None]:
        """Return what the images' names stand for now."""
        names = list({one.image for one in mine})
        ids = await asyncio.gather(*map(self._engine.image_id, names))
        return dict(zip(names, ids, strict=True))


def _question(
    project: Project, mine: Sequence[Container], images: dict[str, str | None]
) -> Hashable:
    """Return what has to be the same for compose to give the same answer."""
    return (
        signature(project),
        frozenset((one.id, one.image, images[one.image]) for one in mine),
    )
