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
# What a compose key ends with that names a file.
FILES = (".yaml", ".yml")


class Inventory:
    """Looks at the engine for the declared services."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.declared: dict[str, ServiceConfig] = {}
        # By host, as far as the files were read: compose's project name, and what `up` makes.
        self.names: dict[str, str] = {}
        self.plain: dict[str, frozenset[str] | None] = {}
        self._folders: dict[str, Path] = {}

    def declare(self, services: Sequence[ServiceConfig]) -> None:
        """Replace the services."""
        self.declared = {service.host: service for service in services}
        for known in (self.names, self.plain):
            for host in known.keys() - self.declared.keys():
                del known[host]
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
        return self.mine(service, await self.project_of(service, everything))

    def mine(self, service: ServiceConfig, project: Sequence[Container]) -> list[Container]:
        """Return those of the project's containers that the service needs."""
        names = service.containers or self.plain.get(service.host)
        mine = needed(project, names)
        # What an earlier version of the files left up is the service's until it is stopped.
        return mine + [
            one for one in project if one.publishes(service.port) and one.is_up and one not in mine
        ]

    async def project_of(
        self, service: ServiceConfig, everything: Sequence[Container] | None = None
    ) -> list[Container]:
        """Return the containers of the whole project."""
        name = self.names.get(service.host)
        if everything is None:
            everything = await self._engine.containers(name)
        folder = folder_of(service)
        inside = [one for one in everything if resolve(one.folder) == folder]
        if name is None:
            # The files cannot be read now. Others in this folder may be another project's.
            publisher = main(inside, service.port)
            name = None if publisher is None else publisher.project
        return [one for one in inside if one.project == name]

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
    """Return the project's folder, links followed; also one that is not there now."""
    compose = service.compose
    assert compose is not None, f"{service.host} has no compose"
    is_file = compose.is_file() or (compose.suffix in FILES and not compose.is_dir())
    return resolve(compose.parent if is_file else compose)


@lru_cache(maxsize=1024)
def resolve(path: Path) -> Path:
    """Follow links: who types another way to a folder means the same project."""
    return path.resolve()
