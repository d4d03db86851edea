"""What else is in a project's folder: other services, other versions, other projects."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import aiohttp
import yaml

from tests.containers import (
    docker,
    inspect,
    name_of,
    plain_container,
    project_name,
    remove_projects,
    write_compose,
)
from tests.daemon import HOST, Daemon, free_port, running
from tests.docker.test_projects import ask, entry, stopped

OTHER = "other.localhost"
LATER_FAILING = {"entrypoint": ["python3", "-c", "import time; time.sleep(3); raise SystemExit(1)"]}
DONE = "service_completed_successfully"
UP = "service_started"
DB_AND_JOB = {"db": {"condition": UP}, "job": {"condition": DONE}}


def up(project: str) -> set[str]:
    """Return the compose services of a project that run."""
    ours = f"label=com.docker.compose.project={project}"
    label = '{{.Label "com.docker.compose.service"}}'
    return set(docker("ps", "--filter", ours, "--format", label).split())


def two_on_one_database(folder: Path, needed_by_two: dict[str, Any]) -> dict[str, Any]:
    """Write a project of two services, the first of which cannot start; return the map's part."""
    ports = [free_port(), free_port()]
    services = {
        "one": plain_container(ports[0], depends_on=DB_AND_JOB),
        "two": plain_container(ports[1], depends_on=needed_by_two),
        "db": plain_container(None),
        "job": plain_container(None, **LATER_FAILING),
    }
    write_compose(folder, services)
    return {
        HOST: entry(folder, ports[0], containers=["one"]),
        OTHER: entry(folder, ports[1], containers=["two"]),
    }


async def test_a_failed_start_takes_nothing_from_others(
    tmp_path: Path, client: aiohttp.ClientSession
) -> None:
    """The database that it began is another's by then, and goes down with that one."""
    folder = tmp_path / "both"
    declared = two_on_one_database(folder, {"db": {"condition": UP}})
    async with running(tmp_path, declared) as daemon:
        failing = asyncio.create_task(ask(client, daemon))
        while "db" not in up(name_of(folder)):
            await asyncio.sleep(0.05)
        served, _ = await ask(client, daemon, host=OTHER)
        failed, _ = await failing
        left = up(name_of(folder))
        await stopped(daemon, OTHER)

    assert (200, 503) == (served, failed)
    assert ({"two", "db"}, set()) == (left, up(name_of(folder)))


async def test_two_starts_that_fail_leave_nothing(
    tmp_path: Path, client: aiohttp.ClientSession
) -> None:
    """Neither leaves the database to the other."""
    folder = tmp_path / "both"
    declared = two_on_one_database(folder, DB_AND_JOB)
    async with running(tmp_path, declared) as daemon:
        answers = await asyncio.gather(ask(client, daemon), ask(client, daemon, host=OTHER))
        await daemon.wait_for_state("failed")
        await daemon.wait_for_state("failed", OTHER)

    assert [503, 503] == [status for status, _ in answers]
    assert set() == up(name_of(folder))


async def test_what_a_plain_up_does_not_make_is_not_started(
    tmp_path: Path, client: aiohttp.ClientSession
) -> None:
    """A tool behind a profile, that somebody has made once, is nobody's to run."""
    folder, port = tmp_path / "plain", free_port()
    services = {
        "web": plain_container(port),
        "wipe": plain_container(None, profiles=["tools"]),
    }
    write_compose(folder, services)
    compose = ("compose", "--project-directory", str(folder))
    docker(*compose, "--profile", "tools", "up", "--no-start")
    async with running(tmp_path, {HOST: entry(folder, port)}) as daemon:
        status, _ = await ask(client, daemon)
        started = up(name_of(folder))
        await stopped(daemon)
        docker("start", f"{name_of(folder)}-wipe-1")
        await ask(client, daemon)
        await stopped(daemon)
        left = up(name_of(folder))

    assert (200, {"web"}) == (status, started)
    assert {"wipe"} == left


async def test_a_renamed_container_is_replaced(
    tmp_path: Path, client: aiohttp.ClientSession
) -> None:
    """Its former self serves until it is stopped, also under a new autostart; then the new one."""
    folder, port = tmp_path / "plain", free_port()
    write_compose(folder, {"web": plain_container(port)})
    daemon = Daemon(tmp_path, {HOST: entry(folder, port)})
    try:
        await daemon.start()
        answers = [await ask(client, daemon)]
        write_compose(folder, {"app": plain_container(port)})
        daemon.terminate()
        await daemon.start()
        await daemon.wait_for_state("ready")
        answers.append(await ask(client, daemon))
        before = up(name_of(folder))
        await stopped(daemon)
        between = up(name_of(folder))
        answers.append(await ask(client, daemon))
        after = up(name_of(folder))
        await stopped(daemon)
    finally:
        daemon.clean_up()

    assert [200, 200, 200] == [status for status, _ in answers]
    assert ({"web"}, set(), {"app"}) == (before, between, after)


async def test_another_project_in_the_folder_is_not_touched(
    tmp_path: Path, client: aiohttp.ClientSession
) -> None:
    """Also while our own file is being edited, so that its name cannot be read."""
    folder, port = tmp_path / "plain", free_port()
    write_compose(folder, {"web": plain_container(port)})
    other = {"name": project_name(), "services": {"db": plain_container(None)}}
    (folder / "other.yaml").write_text(yaml.safe_dump(other))
    docker("compose", "--file", str(folder / "other.yaml"), "up", "--detach")
    mine = name_of(folder)
    daemon = Daemon(tmp_path, {HOST: entry(folder, port)})
    try:
        await daemon.start()
        status, _ = await ask(client, daemon)
        daemon.terminate()
        (folder / "compose.yaml").write_text("services: {web: [")
        await daemon.start()
        await daemon.wait_for_state("ready")
        await stopped(daemon)
    finally:
        daemon.clean_up()
        left = up(mine), up(str(other["name"]))
        remove_projects(under=tmp_path)

    assert 200 == status
    assert (set(), {"db"}) == left


async def test_what_was_in_use_at_an_edit_follows_it_later(
    tmp_path: Path, client: aiohttp.ClientSession
) -> None:
    """A database that was up when its file was edited is made anew once it is down."""
    folder, port = tmp_path / "plain", free_port()

    def write(version: str) -> None:
        environment: Mapping[str, str] = {"VERSION": version}
        db = plain_container(None, environment=environment)
        write_compose(folder, {"web": plain_container(port, depends_on=["db"]), "db": db})

    def version() -> str:
        (found,) = [
            pair.partition("=")[2]
            for pair in inspect(f"{name_of(folder)}-db-1")["Config"]["Env"]
            if pair.startswith("VERSION=")
        ]
        return found

    write("1")
    async with running(tmp_path, {HOST: entry(folder, port)}) as daemon:
        await ask(client, daemon)
        docker("kill", f"{name_of(folder)}-web-1")
        await daemon.wait_for_state("stopped")
        write("2")
        await daemon.run_cli("start", HOST)
        versions = [version()]
        await stopped(daemon)
        await ask(client, daemon)
        versions.append(version())

    assert ["1", "2"] == versions


async def test_compose_file_is_relative_to_the_project(
    tmp_path: Path, client: aiohttp.ClientSession
) -> None:
    """As an operator would find it in that folder, wherever autostart was started."""
    folder, port = tmp_path / "plain", free_port()
    write_compose(folder, {"web": plain_container(port)})
    (folder / "compose.yaml").rename(folder / "mine.yaml")
    (folder / ".env").write_text("COMPOSE_FILE=mine.yaml\n")
    assert Path.cwd() != folder
    async with running(tmp_path, {HOST: entry(folder, port)}) as daemon:
        status, answer = await ask(client, daemon)

    assert 200 == status, answer


async def test_a_folder_that_comes_later(tmp_path: Path, client: aiohttp.ClientSession) -> None:
    """A disk that was mounted after autostart began is watched as any other."""
    folder, later, port = tmp_path / "plain", tmp_path / "later", free_port()
    write_compose(later, {"web": plain_container(port)})
    async with running(tmp_path, {HOST: entry(folder, port)}) as daemon:
        refused, _ = await ask(client, daemon)
        later.rename(folder)
        status, text = await daemon.run_cli("start", HOST)
        docker("kill", f"{name_of(folder)}-web-1")
        await daemon.wait_for_state("failed", seconds=2)  # it failed before, and ended again

    assert (503, 0) == (refused, status), text
