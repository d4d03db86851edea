"""Compose projects: what an edit, an override, dependencies and somebody's hand do."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml

from tests.containers import (
    contained,
    docker,
    inspect,
    name_of,
    plain_container,
    recorded_events,
    remove_projects,
    write_compose,
)
from tests.daemon import HOST, Daemon, free_port, running

OTHER = "other.localhost"
NEVER = {"test": ["CMD", "false"], "interval": "200ms", "retries": 1}


async def ask(
    client: aiohttp.ClientSession, daemon: Daemon, path: str = "/", host: str = HOST
) -> tuple[int, Any]:
    """Return status and answer."""
    async with client.get(daemon.url + path, headers={"Host": host}) as response:
        text = await response.text()
        is_json = response.content_type == "application/json"
        return response.status, await response.json() if is_json else text


def compose_calls(daemon: Daemon) -> int:
    return sum(entry["event"] == "compose" for entry in daemon.log())


async def stopped(daemon: Daemon, host: str = HOST) -> None:
    status, text = await daemon.run_cli("stop", host)
    assert status == 0, text


def entry(folder: Path, port: int, **keys: Any) -> dict[str, Any]:
    return {"compose": str(folder), "port": port, "ready": "/ready", "stop_timeout": "5s", **keys}


async def test_an_edit_takes_effect_at_the_next_start(
    tmp_path: Path, client: aiohttp.ClientSession
) -> None:
    """The run stays as it was, the next one is what the file says; without an edit, no call."""
    folder, port = tmp_path / "plain", free_port()
    async with running(tmp_path, {HOST: contained(folder, port, "--name", "one")}) as daemon:
        _, first = await ask(client, daemon)
        contained(folder, port, "--name", "two")
        _, meanwhile = await ask(client, daemon)
        await stopped(daemon)
        _, second = await ask(client, daemon)
        calls = compose_calls(daemon)
        for _ in range(3):
            await stopped(daemon)
            await ask(client, daemon)
        after = compose_calls(daemon)

    words = [text.split()[0] for text in (first, meanwhile, second)]
    assert ["one", "one", "two"] == words
    assert (2, 2) == (calls, after)


async def test_a_touched_file_costs_one_call(tmp_path: Path, client: aiohttp.ClientSession) -> None:
    """A newer date without a change: compose is asked once, and recreates nothing."""
    folder = tmp_path / "plain"
    async with running(tmp_path, {HOST: contained(folder, free_port())}) as daemon:
        await ask(client, daemon)
        before = inspect(f"{name_of(folder)}-web-1")["Id"]
        calls = []
        (folder / "compose.yaml").touch()
        for _ in range(3):
            await stopped(daemon)
            await ask(client, daemon)
            calls.append(compose_calls(daemon))
        after = inspect(f"{name_of(folder)}-web-1")["Id"]

    assert [2, 2, 2] == calls
    assert before == after


async def test_an_unedited_project_costs_no_call_after_a_restart(
    tmp_path: Path, client: aiohttp.ClientSession
) -> None:
    """A new autostart needs no memory: containers are newer than their files."""
    daemon = Daemon(tmp_path, {HOST: contained(tmp_path / "plain", free_port())})
    try:
        await daemon.start()
        await ask(client, daemon)
        await stopped(daemon)
        daemon.terminate()
        daemon.log_path.unlink()
        await daemon.start()
        status, _ = await ask(client, daemon)
        calls = compose_calls(daemon)
    finally:
        daemon.clean_up()

    assert (200, 0) == (status, calls)


@pytest.mark.parametrize("written", ["override", ".env", "env_file"])
async def test_every_file_of_a_project_counts(
    tmp_path: Path, client: aiohttp.ClientSession, written: str
) -> None:
    """An override that comes, an edited .env or env_file: in effect at the next start."""
    folder, port = tmp_path / "plain", free_port()
    web = plain_container(port)
    web["command"] += ["--name", "${NAME:-first}"]
    (folder).mkdir()
    (folder / "web.env").write_text("GREETING=first\n")
    web["env_file"] = ["web.env"]
    write_compose(folder, {"web": web})
    async with running(tmp_path, {HOST: entry(folder, port)}) as daemon:
        _, before = await ask(client, daemon)
        await stopped(daemon)
        if written == "override":
            command = [*web["command"][:-1], "second"]
            override = {"services": {"web": {"command": command}}}
            (folder / "compose.override.yaml").write_text(yaml.safe_dump(override))
        elif written == ".env":
            (folder / ".env").write_text("NAME=second\n")
        else:
            (folder / "web.env").write_text("GREETING=second\n")
        _, after = await ask(client, daemon)
        environment = inspect(f"{name_of(folder)}-web-1")["Config"]["Env"]

    changed = after.split()[0] if written != "env_file" else environment[0].partition("=")[2]
    assert ("first", "second") == (before.split()[0], changed)


async def test_what_compose_up_made_is_taken_as_it_is(
    tmp_path: Path, client: aiohttp.ClientSession
) -> None:
    """Containers made by hand, from a folder with an override, are started and not recreated."""
    folder, port = tmp_path / "plain", free_port()
    service = contained(folder, port)
    override = {"services": {"web": {"environment": {"BY": "hand"}}}}
    (folder / "docker-compose.override.yml").write_text(yaml.safe_dump(override))
    docker("compose", "--project-directory", str(folder), "create")
    before = inspect(f"{name_of(folder)}-web-1")["Id"]
    async with running(tmp_path, {HOST: service}) as daemon:
        status, _ = await ask(client, daemon)
        calls = compose_calls(daemon)

    assert (200, 0) == (status, calls)
    assert before == inspect(f"{name_of(folder)}-web-1")["Id"]


async def test_dependencies_start_first_and_stop_last(
    tmp_path: Path, client: aiohttp.ClientSession
) -> None:
    """A healthy database and a finished job come before the service; it stops before them."""
    folder, port = tmp_path / "plain", free_port()
    checked = {"test": ["CMD", "true"], "interval": "300ms"}
    conditions = {
        "db": {"condition": "service_healthy"},
        "job": {"condition": "service_completed_successfully"},
    }
    job = plain_container(None, entrypoint=["python3", "-c", "import time; time.sleep(0.3)"])
    services = {
        "web": plain_container(port, depends_on=conditions),
        "db": plain_container(None, healthcheck=checked),
        "job": {**job, "command": []},
        "tool": plain_container(None, profiles=["tools"]),
    }
    write_compose(folder, services)
    async with recorded_events() as events:
        async with running(tmp_path, {HOST: entry(folder, port, idle="1s")}) as daemon:
            for _ in range(2):
                await ask(client, daemon)
                await daemon.wait_for_state("stopped")
        await asyncio.sleep(0.2)
        project = name_of(folder)
        happened = [
            (line["Action"], attributes["com.docker.compose.service"])
            for line in events.lines
            if (attributes := line["Actor"]["Attributes"]).get("com.docker.compose.project")
            == project
            and line["Action"] in {"start", "die"}
        ]

    assert 2 * 6 == len(happened)
    for run in (happened[:6], happened[6:]):
        assert {("start", "db"), ("start", "job")} == set(run[:2])
        assert [("die", "job"), ("start", "web"), ("die", "web"), ("die", "db")] == run[2:]


@pytest.mark.parametrize(
    ("database", "reason"),
    [
        (
            {"healthcheck": {"test": ["CMD", "false"], "interval": "200ms", "retries": 1}},
            "unhealthy",
        ),
        ({}, "has no healthcheck"),
        (
            {
                "entrypoint": ["python3", "-c", "raise SystemExit(3)"],
                "healthcheck": {"test": ["CMD", "true"], "interval": "1m"},
            },
            "exit code 3",
        ),
    ],
)
async def test_a_dependency_that_fails_is_named(
    tmp_path: Path, client: aiohttp.ClientSession, database: dict[str, Any], reason: str
) -> None:
    """The client hears which container failed and how; nothing half-started is left."""
    folder, port = tmp_path / "plain", free_port()
    condition = {"db": {"condition": "service_healthy"}}
    services = {
        "web": plain_container(port, depends_on=condition),
        "db": plain_container(None, **database),
    }
    write_compose(folder, services)
    async with running(tmp_path, {HOST: entry(folder, port)}) as daemon:
        status, refusal = await ask(client, daemon)
        await daemon.wait_for_state("failed")
        left = docker("ps", "--quiet", "--filter", f"name={name_of(folder)}")

    assert (503, "start-failed") == (status, refusal["error"]["code"])
    assert f"{name_of(folder)}-db-1" in refusal["detail"]
    assert reason in refusal["detail"]
    assert "" == left


async def test_two_services_share_a_dependency(
    tmp_path: Path, client: aiohttp.ClientSession
) -> None:
    """Two hosts of one project: the database goes down with its last user, not before."""
    folder, ports = tmp_path / "both", [free_port(), free_port()]
    services = {
        "one": plain_container(ports[0], depends_on=["db"]),
        "two": plain_container(ports[1], depends_on=["db"]),
        "db": plain_container(None),
    }
    write_compose(folder, services)
    declared = {
        HOST: entry(folder, ports[0], containers=["one"]),
        OTHER: entry(folder, ports[1], containers=["two"]),
    }

    def up() -> set[str]:
        label = '{{.Label "com.docker.compose.service"}}'
        shown = docker("ps", "--filter", f"name={name_of(folder)}", "--format", label)
        return set(shown.split())

    async with running(tmp_path, declared) as daemon:
        await ask(client, daemon)
        only_one = up()
        await ask(client, daemon, host=OTHER)
        both = up()
        await stopped(daemon)
        without_one = up()
        await stopped(daemon, OTHER)

    assert {"one", "db"} == only_one
    assert {"one", "two", "db"} == both
    assert ({"two", "db"}, set()) == (without_one, up())


async def test_containers_picks_and_activates_profiles(
    tmp_path: Path, client: aiohttp.ClientSession
) -> None:
    """Only the named compose service is made, also one behind a profile."""
    folder, port = tmp_path / "plain", free_port()
    services = {
        "web": plain_container(port, profiles=["gpu"]),
        "more": plain_container(None),
    }
    write_compose(folder, services)
    async with running(tmp_path, {HOST: entry(folder, port, containers=["web"])}) as daemon:
        status, _ = await ask(client, daemon)
        made = docker(
            "ps", "--all", "--filter", f"name={name_of(folder)}", "--format", "{{.Names}}"
        )

    assert (200, f"{name_of(folder)}-web-1") == (status, made)


async def test_the_engines_verdict_on_health_is_followed(
    tmp_path: Path, client: aiohttp.ClientSession
) -> None:
    """ready: container-health waits for healthy, and fails with unhealthy."""
    check = "import urllib.request as u; u.urlopen('http://127.0.0.1:8000/ready')"
    healthcheck = {"test": ["CMD", "python3", "-c", check], "interval": "300ms", "retries": 100}
    folder, port = tmp_path / "plain", free_port()
    write_compose(
        folder, {"web": plain_container(port, "--ready-after", "1.5", healthcheck=healthcheck)}
    )
    sick = tmp_path / "sick"
    sick_port = free_port()
    write_compose(sick, {"web": plain_container(sick_port, healthcheck=NEVER)})
    services = {
        HOST: entry(folder, port, ready="container-health"),
        OTHER: entry(sick, sick_port, ready="container-health"),
    }
    async with running(tmp_path, services) as daemon:
        began = time.monotonic()
        status, _ = await ask(client, daemon)
        seconds = time.monotonic() - began
        refused, refusal = await ask(client, daemon, host=OTHER)

    assert 200 == status
    assert seconds > 1.5
    assert (503, True) == (refused, "unhealthy" in refusal["detail"])


@pytest.mark.parametrize(
    ("by_hand", "state"),
    [
        (("stop", "--time", "0"), "stopped"),
        (("kill",), "stopped"),
        (("rm", "--force"), "stopped"),
        (("pause",), "stopped"),
        (("restart", "--time", "0"), "ready"),
    ],
)
async def test_what_somebody_does_by_hand_is_known_within_a_second(
    tmp_path: Path, client: aiohttp.ClientSession, by_hand: tuple[str, ...], state: str
) -> None:
    """The state is true within a second, and the next request is served."""
    folder = tmp_path / "plain"
    async with running(tmp_path, {HOST: contained(folder, free_port(), idle="60s")}) as daemon:
        await ask(client, daemon)
        run = (await daemon.states())[HOST]["endpoint"]["run"]
        await asyncio.to_thread(docker, *by_hand, f"{name_of(folder)}-web-1")
        await daemon.wait_for_state(state, seconds=1)
        endpoint = (await daemon.states())[HOST]["endpoint"]
        status, _ = await ask(client, daemon)
        failures = (await daemon.states())[HOST]["failures"]

    assert endpoint is None or endpoint["run"] != run
    assert (200, 0) == (status, failures)


async def test_what_compose_does_by_hand_is_known_too(
    tmp_path: Path, client: aiohttp.ClientSession
) -> None:
    """compose down, then up: stopped, then adopted, then idle."""
    folder = tmp_path / "plain"
    directory = ("compose", "--project-directory", str(folder))
    async with running(tmp_path, {HOST: contained(folder, free_port(), idle="2s")}) as daemon:
        await ask(client, daemon)
        await asyncio.to_thread(docker, *directory, "down", "--timeout", "0")
        await daemon.wait_for_state("stopped", seconds=1)
        await asyncio.to_thread(docker, *directory, "up", "--detach")
        await daemon.wait_for_state("ready", seconds=2)
        await daemon.wait_for_state("stopped", seconds=10)
        left = docker("ps", "--quiet", "--filter", f"name={name_of(folder)}")

    assert "" == left


async def test_what_was_unpaused_by_hand_is_ready_again(
    tmp_path: Path, client: aiohttp.ClientSession
) -> None:
    """A pause ends the run for us; unpausing brings it back under another identity."""
    folder = tmp_path / "plain"
    async with running(tmp_path, {HOST: contained(folder, free_port(), idle="60s")}) as daemon:
        container = f"{name_of(folder)}-web-1"
        await ask(client, daemon)
        for _ in range(2):
            await asyncio.to_thread(docker, "pause", container)
            await daemon.wait_for_state("stopped", seconds=1)
            await asyncio.to_thread(docker, "unpause", container)
            await daemon.wait_for_state("ready", seconds=2)
            status, _ = await ask(client, daemon)

    assert 200 == status


async def test_a_strangers_container_is_never_touched(
    tmp_path: Path, client: aiohttp.ClientSession
) -> None:
    """The port of a stranger gives port-taken, its name an error: it runs on in both cases."""
    stranger, folder, named = tmp_path / "stranger", tmp_path / "plain", tmp_path / "named"
    port = free_port()
    contained(stranger, port)
    docker("compose", "--project-directory", str(stranger), "up", "--detach")
    container = f"{name_of(stranger)}-web-1"
    other_port = free_port()
    services = {
        HOST: contained(folder, port),
        OTHER: contained(named, other_port, container={"container_name": container}),
    }
    async with recorded_events() as events, running(tmp_path, services) as daemon:
        taken = await ask(client, daemon)
        conflict = await ask(client, daemon, host=OTHER)
        failure = (await daemon.states())[OTHER]["failure"]["message"]
        await asyncio.sleep(0.2)
        touched = events.counts(name_of(stranger))

    assert (503, "port-taken") == (taken[0], taken[1]["error"]["code"])
    assert f"container {container}" in taken[1]["detail"]
    assert (503, "start-failed") == (conflict[0], conflict[1]["error"]["code"])
    assert container in failure
    assert {} == dict(touched)


async def test_a_project_name_of_another_folder_is_refused(
    tmp_path: Path, client: aiohttp.ClientSession
) -> None:
    """Two folders with one project name: compose would take the other's containers for its own."""
    theirs, ours = tmp_path / "theirs", tmp_path / "ours"
    contained(theirs, free_port())
    docker("compose", "--project-directory", str(theirs), "up", "--detach")
    port = free_port()
    write_compose(ours, {"web": plain_container(port)})
    document = yaml.safe_load((ours / "compose.yaml").read_text())
    (ours / "compose.yaml").write_text(yaml.safe_dump({**document, "name": name_of(theirs)}))
    async with recorded_events() as events:
        async with running(tmp_path, {HOST: entry(ours, port)}) as daemon:
            status, refusal = await ask(client, daemon)
        await asyncio.sleep(0.2)
        touched = events.counts(name_of(theirs))

    assert (503, "start-failed") == (status, refusal["error"]["code"])
    assert str(theirs) in refusal["detail"]
    assert {} == dict(touched)


async def test_a_symbolic_link_leads_to_the_same_project(
    tmp_path: Path, client: aiohttp.ClientSession
) -> None:
    """Who made the containers by another way to the folder made the same containers."""
    folder, link = tmp_path / "plain", tmp_path / "link"
    service = contained(folder, free_port())
    link.symlink_to(folder)
    docker("compose", "--project-directory", str(link), "up", "--detach")
    async with running(tmp_path, {HOST: service}) as daemon:
        await daemon.wait_for_state("ready", seconds=5)
        status, _ = await ask(client, daemon)

    assert 200 == status
    remove_projects(under=link)


async def test_a_port_that_no_container_publishes_is_told(
    tmp_path: Path, client: aiohttp.ClientSession
) -> None:
    """The refusal names what is published; nothing is started."""
    folder, port, published = tmp_path / "plain", free_port(), free_port()
    contained(folder, published)
    async with recorded_events() as events:
        async with running(tmp_path, {HOST: entry(folder, port)}) as daemon:
            status, refusal = await ask(client, daemon)
            check, text = await daemon.run_cli("check")
        counts = events.counts(name_of(folder))

    assert (503, "start-failed") == (status, refusal["error"]["code"])
    assert f"port {port} is published by no container" in refusal["detail"]
    assert f"127.0.0.1:{published} (web)" in refusal["detail"]
    assert (2, True) == (check, f"127.0.0.1:{published} (web)" in text)
    assert 0 == counts["start"]


async def test_logs_and_usage_of_a_container(tmp_path: Path, client: aiohttp.ClientSession) -> None:
    """autostart logs shows the container's lines, also after its end, and follows the next run."""
    folder = tmp_path / "plain"
    async with running(tmp_path, {HOST: contained(folder, free_port())}) as daemon:
        await ask(client, daemon, "/print?line=hello")
        following = await asyncio.create_subprocess_exec(
            *daemon.command,
            *("logs", HOST, "--follow"),
            stdout=asyncio.subprocess.PIPE,
            env={**os.environ, "AUTOSTART_STATE": str(daemon.state)},
        )
        assert following.stdout is not None
        async with asyncio.timeout(30):
            while b"hello" not in await following.stdout.readline():
                pass
            await stopped(daemon)
            await ask(client, daemon, "/print?line=again")
            while b"again" not in await following.stdout.readline():
                pass
        following.terminate()
        await following.wait()
        await stopped(daemon)
        status, text = await daemon.run_cli("logs", HOST, "--lines", "1")

    assert (0, "again\n") == (status, text)
