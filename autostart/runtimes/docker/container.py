"""Containers as the engine shows them, and the order in which they depend on one another. Pure.

Everything is read from one `inspect` document: compose leaves its own account of the project in
labels, so nothing has to be remembered, and no file has to be read to stop what runs.
"""

from __future__ import annotations

import signal
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

# Compose's labels, docker/compose pkg/api/labels.go.
PROJECT = "com.docker.compose.project"
SERVICE = "com.docker.compose.service"
FOLDER = "com.docker.compose.project.working_dir"
FILES = "com.docker.compose.project.config_files"
DEPENDS_ON = "com.docker.compose.depends_on"
IMAGE = "com.docker.compose.image"
ONE_OFF = "com.docker.compose.oneoff"  # of `docker compose run`: never ours

# Of depends_on in a compose file.
HEALTHY = "service_healthy"
COMPLETED = "service_completed_successfully"

# Addresses on the host that 127.0.0.1 reaches; empty means every interface.
REACHED = ("", "127.0.0.1", "0.0.0.0", "::")  # noqa: S104 - compared, not bound

# How a shell tells of death by a signal: 128 + its number.
SIGNALLED = 128


@dataclass(frozen=True)
class Published:
    """A port of the container on the host; an empty address means every interface."""

    address: str
    port: int

    def __str__(self) -> str:
        return f"{self.address or '0.0.0.0'}:{self.port}"  # noqa: S104 - shown, not bound


@dataclass(frozen=True)
class Container:
    """One container of a compose project, at the moment it was looked at."""

    id: str
    name: str
    project: str
    service: str  # compose's word: the key in the file
    folder: Path
    files: tuple[Path, ...]
    image: str  # as the file names it
    image_id: str  # what that was when the container was created
    created: float  # epoch seconds
    depends_on: Mapping[str, str]  # compose service -> condition
    published: tuple[Published, ...]
    status: str  # created, running, paused, restarting, exited, removing, dead
    started_at: str  # as the engine writes it: a container keeps its id across starts
    exit_code: int
    error: str
    out_of_memory: bool
    health: str | None  # starting, healthy, unhealthy; None without a healthcheck

    @property
    def is_running(self) -> bool:
        return self.status == "running"

    @property
    def is_paused(self) -> bool:
        return self.status == "paused"

    @property
    def is_up(self) -> bool:
        """Whether it has processes."""
        return self.is_running or self.is_paused

    @property
    def run(self) -> str:
        """The identity of its present run."""
        return f"{self.id[:12]}.{self.started_at}"

    @property
    def end(self) -> str:
        """Why it does not run, for people."""
        if self.is_paused:
            return "paused"
        if self.status == "restarting":
            return f"restarted by the engine after exit code {self.exit_code}"
        if self.out_of_memory:
            return "killed: out of memory"
        if self.exit_code > SIGNALLED:
            return _signalled(self.exit_code - SIGNALLED)
        return f"exit code {self.exit_code}" + (f" ({self.error})" if self.error else "")

    def publishes(self, port: int) -> bool:
        """Say whether a request to this port of 127.0.0.1 reaches it."""
        return any(each.port == port and each.address in REACHED for each in self.published)


def parse(document: Mapping[str, Any]) -> Container:
    """Read the engine's answer to `inspect`."""
    config, state = document["Config"], document["State"]
    labels = config.get("Labels") or {}
    return Container(
        id=document["Id"],
        name=document["Name"].removeprefix("/"),
        project=labels.get(PROJECT, ""),
        service=labels.get(SERVICE, ""),
        folder=Path(labels.get(FOLDER, "")),
        files=tuple(Path(file) for file in labels.get(FILES, "").split(",") if file),
        image=config.get("Image", ""),
        image_id=labels.get(IMAGE) or document.get("Image", ""),
        created=datetime.fromisoformat(document["Created"]).timestamp(),
        depends_on=_parse_depends_on(labels.get(DEPENDS_ON, "")),
        published=tuple(_parse_ports(document.get("HostConfig", {}).get("PortBindings") or {})),
        status=state["Status"],
        started_at=state.get("StartedAt", ""),
        exit_code=state.get("ExitCode", 0),
        error=state.get("Error", ""),
        out_of_memory=bool(state.get("OOMKilled")),
        health=(state.get("Health") or {}).get("Status"),
    )


def is_ours(labels: Mapping[str, str]) -> bool:
    """Say whether a container is one of a project's services, not a `docker compose run`."""
    return bool(labels.get(SERVICE)) and labels.get(ONE_OFF, "").lower() != "true"


def needed(containers: Iterable[Container], names: Collection[str] | None) -> list[Container]:
    """Return those of the named compose services, and what they depend on; None means all."""
    containers = list(containers)
    if names is None:
        return containers
    dependencies: dict[str, set[str]] = {}
    for container in containers:
        dependencies.setdefault(container.service, set()).update(container.depends_on)
    wanted, left = set[str](), list(names)
    while left:
        name = left.pop()
        if name not in wanted:
            wanted.add(name)
            left += dependencies.get(name, ())
    return [container for container in containers if container.service in wanted]


def levels(containers: Sequence[Container]) -> list[list[Container]]:
    """Return them in the order of their dependencies: each level needs only earlier ones."""
    left = list(containers)
    ordered: list[list[Container]] = []
    while left:
        names = {container.service for container in left}
        level = [one for one in left if not (one.depends_on.keys() & names) - {one.service}]
        level = level or left  # a circle, which compose refuses: no order then
        ordered.append(level)
        left = [one for one in left if one not in level]
    return ordered


def main(containers: Iterable[Container], port: int) -> Container | None:
    """Return the one that publishes the port: its life is the service's."""
    publishers = [container for container in containers if container.publishes(port)]
    # Of several, which only a change of the file leaves behind, the one that is up.
    return max(publishers, key=lambda one: (one.is_running, one.created), default=None)


def _parse_depends_on(label: str) -> dict[str, str]:
    """Read "db:service_healthy:false,init:service_started:true"; the last part is restart."""
    found = {}
    for entry in label.split(","):
        service, _, rest = entry.partition(":")
        if service:
            found[service] = rest.partition(":")[0]
    return found


def _parse_ports(bindings: Mapping[str, Sequence[Mapping[str, str]] | None]) -> Iterable[Published]:
    for bound in bindings.values():
        for each in bound or ():
            port = each.get("HostPort", "")
            if port.isdigit():  # empty: the engine chooses one, which no map can name
                yield Published(each.get("HostIp", ""), int(port))


def _signalled(number: int) -> str:
    try:
        return f"killed by {signal.Signals(number).name}"
    except ValueError:
        return f"exit code {SIGNALLED + number}"
