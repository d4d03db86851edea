"""Compose projects of the plain service, as tests use them, and whether an engine is there at all.

A test that needs an engine is skipped where none answers, with the reason; that skip is a failure
with AUTOSTART_REQUIRE_DOCKER=1, as in CI.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import subprocess
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

TESTS = Path(__file__).resolve().parent
SOURCES = ("plain_service.py", "plain_request.py", "plain_websocket.py", "images/plain/Dockerfile")
# Every project of the tests is named so, and nothing else is.
PREFIX = "autostart-test-"
INSIDE = 8000  # where the service listens in its container


def docker(*arguments: str, host: str | None = None, seconds: float = 120) -> str:
    """Run the docker command; return what it prints, fail with what it says."""
    done = subprocess.run(
        ["docker", *arguments],
        env={**os.environ, **({"DOCKER_HOST": host} if host else {})},
        check=False,
        capture_output=True,
        text=True,
        timeout=seconds,
    )
    assert done.returncode == 0, f"docker {' '.join(arguments)}: {done.stderr}{done.stdout}"
    return done.stdout.strip()


@cache
def missing() -> str | None:
    """Say what is missing for tests with containers, None if nothing is."""
    for what, command in {
        "no engine answers to docker info": ("info",),
        "docker has no compose plugin": ("compose", "version"),
    }.items():
        try:
            docker(*command, seconds=10)
        except FileNotFoundError:
            return "there is no docker command"
        except (AssertionError, subprocess.TimeoutExpired):
            return what
    return None


def require_engine() -> None:
    """Skip the calling test where there is no engine; fail where there must be one."""
    skip_or_fail(missing())


def skip_or_fail(reason: str | None) -> None:
    """Skip for this reason, or fail where nothing may be missing."""
    if reason is None:
        return
    if os.environ.get("AUTOSTART_REQUIRE_DOCKER") == "1":
        pytest.fail(f"{reason}, and AUTOSTART_REQUIRE_DOCKER is 1")
    pytest.skip(reason)


@cache
def plain_image(host: str | None = None) -> str:
    """Return the name of the plain service's image, built if it is not there."""
    content = b"".join((TESTS / source).read_bytes() for source in SOURCES)
    name = f"autostart-plain:{hashlib.sha256(content).hexdigest()[:12]}"
    if not docker("images", "--quiet", name):
        command = ("build", "--quiet", "--network", "host", "--tag", name)
        docker(*command, "--file", str(TESTS / SOURCES[-1]), str(TESTS), seconds=600)
    return name


def project_name() -> str:
    """Return a name that no other project has."""
    return f"{PREFIX}{uuid.uuid4().hex[:10]}"


def plain_container(port: int | None, *options: str, **keys: Any) -> dict[str, Any]:
    """Return the compose entry of a plain service, published on a port of loopback."""
    listen = ["--port", str(INSIDE), "--address", "0.0.0.0"]
    ports = {"ports": [f"127.0.0.1:{port}:{INSIDE}"]} if port else {}
    known = {"image": plain_image(), "init": True, "command": [*listen, *options], **ports}
    return {**known, **keys}


def write_compose(folder: Path, services: Mapping[str, Any], **top: Any) -> str:
    """Write a project's compose file; return the project's name, kept if it has one."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "compose.yaml"
    known = yaml.safe_load(path.read_text())["name"] if path.exists() else project_name()
    path.write_text(yaml.safe_dump({"name": known, **top, "services": dict(services)}))
    return str(known)


def contained(
    folder: Path, port: int, *options: str, container: Mapping[str, Any] | None = None, **keys: Any
) -> dict[str, Any]:
    """Write a project with one plain service; return its entry for the map."""
    name = options[options.index("--name") + 1] if "--name" in options else folder.name
    entry = plain_container(port, "--name", name, *options, **(container or {}))
    write_compose(folder, {"web": entry})
    return {"compose": str(folder), "port": port, "ready": "/ready", "stop_timeout": "5s", **keys}


def name_of(folder: Path) -> str:
    """Return the name of the project in a folder."""
    return str(yaml.safe_load((folder / "compose.yaml").read_text())["name"])


def journal_folder(tmp_path: Path) -> Path:
    """Return a folder that the service in its container, who is nobody here, may write to."""
    folder = tmp_path / "journal"
    folder.mkdir()
    folder.chmod(0o777)
    return folder


def remove_projects(*, host: str | None = None, under: Path | None = None) -> None:
    """Remove every container and network of the tests' projects, or of those in a folder."""
    label = "label=com.docker.compose.project"
    kept = [
        json.loads(line)
        for line in docker(
            "ps", "--all", "--filter", label, "--format", "{{json .}}", host=host
        ).splitlines()
    ]
    projects = set()
    for each in kept:
        labels = dict(pair.partition("=")[::2] for pair in each["Labels"].split(","))
        inside = under is None or labels.get(
            "com.docker.compose.project.working_dir", ""
        ).startswith(str(under))
        if labels.get("com.docker.compose.project", "").startswith(PREFIX) and inside:
            docker("rm", "--force", "--volumes", each["ID"], host=host)
            projects.add(labels["com.docker.compose.project"])
    networks = docker("network", "ls", "--format", "{{.Name}}", host=host).splitlines()
    for network in networks:
        if any(network.startswith(project) for project in projects):
            docker("network", "rm", network, host=host)


def inspect(name: str, *, host: str | None = None) -> dict[str, Any]:
    """Return what the engine says of a container."""
    return dict(json.loads(docker("inspect", name, host=host))[0])


class Events:
    """What `docker events` says of containers while a block runs."""

    def __init__(self) -> None:
        self.lines: list[dict[str, Any]] = []

    def counts(self, project: str, service: str | None = None) -> Counter[str]:
        """Return how often each thing happened to a project's containers."""
        counted: Counter[str] = Counter()
        for line in self.lines:
            attributes = line["Actor"]["Attributes"]
            mine = attributes.get("com.docker.compose.project") == project
            if mine and service in (None, attributes.get("com.docker.compose.service")):
                counted[line["Action"].partition(":")[0]] += 1
        return counted


@contextlib.asynccontextmanager
async def recorded_events(host: str | None = None) -> AsyncIterator[Events]:
    """Record the engine's events for the length of the block; a moment later all are there."""
    events = Events()
    process = await asyncio.create_subprocess_exec(
        *("docker", "events", "--filter", "type=container", "--format", "{{json .}}"),
        env={**os.environ, **({"DOCKER_HOST": host} if host else {})},
        stdout=asyncio.subprocess.PIPE,
    )

    async def read() -> None:
        assert process.stdout is not None
        async for line in process.stdout:
            events.lines.append(json.loads(line))

    reading = asyncio.ensure_future(read())
    await asyncio.sleep(0.3)  # the command says nothing when it has begun to listen
    try:
        yield events
    finally:
        process.terminate()
        await process.wait()
        await reading
