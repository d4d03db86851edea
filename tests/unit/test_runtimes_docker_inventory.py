"""Which containers are a service's, as far as labels and files tell."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from autostart.config import ServiceConfig
from autostart.runtimes.docker.container import FOLDER, Container, Published
from autostart.runtimes.docker.inventory import Inventory, folder_of
from tests.unit.test_runtimes_docker_container import container


class FakeEngine:
    """Knows containers."""

    def __init__(self, *containers: Container) -> None:
        self.there = containers

    async def containers(self, project: str | None = None) -> Sequence[Container]:
        return [one for one in self.there if project in (None, one.project)]


def inventory(service: ServiceConfig, *containers: Container) -> Inventory:
    found = Inventory(FakeEngine(*containers))  # type: ignore[arg-type]  # as much as it needs
    found.declare([service])
    return found


def service(compose: Path | str) -> ServiceConfig:
    return ServiceConfig("a.localhost", compose=Path(compose), port=8001)


ON_PORT = (Published("127.0.0.1", 8001),)


@pytest.mark.parametrize("name", ["compose.yaml", "docker-compose.yml"])
@pytest.mark.parametrize("exists", [True, False])
def test_a_folder_is_known_before_it_exists(tmp_path: Path, name: str, exists: bool) -> None:
    """A disk that is not mounted yet, or not any more, changes nothing about whose is what."""
    folder = tmp_path / "whisper"
    if exists:
        folder.mkdir()
        (folder / name).touch()

    assert folder_of(service(folder)) == folder
    assert folder_of(service(folder / name)) == folder
    assert inventory(service(folder)).hosts_of({FOLDER: str(folder)}) == ["a.localhost"]


def test_a_folder_may_be_called_like_a_file(tmp_path: Path) -> None:
    """What is there counts more than its name."""
    folder = tmp_path / "site.yaml"
    folder.mkdir()

    assert folder_of(service(folder)) == folder


async def test_without_a_name_the_port_tells_the_project() -> None:
    """Of two projects in a folder, ours is that of the container on the service's port."""
    web = container("web", published=ON_PORT)
    db = container("db")
    other = container("db", id="other-id", project="q")
    found = inventory(service("/srv/p"), web, db, other)

    assert await found.project_of(service("/srv/p")) == [web, db]
    assert await inventory(service("/srv/p"), db, other).project_of(service("/srv/p")) == []


async def test_what_up_does_not_make_is_not_needed() -> None:
    """Once the files were read; what is up on the port counts until it is stopped."""
    web = container("web", published=ON_PORT, depends_on={"db": "service_started"})
    former = container("former", published=ON_PORT)
    tool, db = container("tool"), container("db")
    found = inventory(service("/srv/p"), web, former, tool, db)
    unread = await found.of(service("/srv/p"))
    found.plain["a.localhost"] = frozenset({"web"})
    read = await found.of(service("/srv/p"))
    running = container("former", published=ON_PORT, status="running")
    found = inventory(service("/srv/p"), web, running, tool, db)
    found.plain["a.localhost"] = frozenset({"web"})

    assert unread == [web, former, tool, db]
    assert read == [web, db]
    assert await found.of(service("/srv/p")) == [web, db, running]
