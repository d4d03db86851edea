"""Which containers are which service's: by compose's labels, and by nothing else.

A container belongs to a service if it is of the project that the service's compose key names: the
same folder, links followed, and the same project name as far as it is known. A container's name,
image or port make it nobody's.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import lru_cache
from pathlib import Path

from autostart.config import ServiceConfig
from autostart.runtimes.docker.container import FOLDER, Container, main, needed
from autostart.runtimes.docker.engine import Engine

# Beyond so many, one list of everything is cheaper than a list each.
ONE_BY_ONE_MAX = 3


class Inventory:
    """Looks at the engine for the declared services."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.declared: dict[str, ServiceConfig] = {}
        self.names: dict[str, str] = {}  # compose's project names, by host, as far as known
        self._folders: dict[str, Path] = {}

    def declare(self, services: Sequence[ServiceConfig]) -> None:
        """Replace the services."""
        self.declared = {service.host: service for service in services}
        self.names = {host: name for host, name in self.names.items() if host in self.declared}
        self._folders = {service.host: folder_of(service) for service in services}

    async def publishers(self, hosts: Collection[str]) -> dict[str, Container | None]:
        """Return the container that publishes each service's port, None where none does."""
        everything = None
        if len(hosts) > ONE_BY_ONE_MAX:
            everything = await self._engine.containers()
        found: dict[str, Container | None] = {}
        for host in hosts:
            if service := self.declared.get(host):
                found[host] = main(await self.of(service, everything), service.port)
        return found

    async def of(
        self, service: ServiceConfig, everything: Sequence[Container] | None = None
    ) -> list[Container]:
        """Return the containers that the service needs, as far as they exist."""
        return needed(await self.project_of(service, everything), service.containers)

    async def project_of(
        self, service: ServiceConfig, everything: Sequence[Container] | None = None
    ) -> list[Container]:
        """Return the containers of the whole project."""
        name = self.names.get(service.host)
        if everything is None:
            everything = await self._engine.containers(name)
        folder = folder_of(service)
        return [
            one
            for one in everything
            if resolve(one.folder) == folder and name in (None, one.project)
        ]

    async def foreign(self, service: ServiceConfig) -> Container | None:
        """Return a container that has the project's name and belongs to another folder."""
        folder = folder_of(service)
        for one in await self._engine.containers(self.names[service.host]):
            if resolve(one.folder) != folder:
                return one
        return None

    def hosts_of(self, labels: Mapping[str, str]) -> list[str]:
        """Return the services that an event with these labels may be about."""
        if FOLDER not in labels:
            return []
        folder = resolve(Path(labels[FOLDER]))
        return [host for host, its in self._folders.items() if its == folder]

    def neighbours(self, service: ServiceConfig) -> list[ServiceConfig]:
        """Return the other services of the same folder."""
        folder = folder_of(service)
        return [
            other
            for host, other in self.declared.items()
            if host != service.host and self._folders[host] == folder
        ]


def folder_of(service: ServiceConfig) -> Path:
    """Return the project's folder, links followed."""
    assert service.compose is not None, f"{service.host} has no compose"
    return resolve(service.compose if service.compose.is_dir() else service.compose.parent)


@lru_cache(maxsize=1024)
def resolve(path: Path) -> Path:
    """Follow links: who types another way to a folder means the same project."""
    return path.resolve()
