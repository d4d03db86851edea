"""What would fail a service's next start, and what is doubtful in its compose files. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from autostart.config import CONTAINER_HEALTH, ServiceConfig
from autostart.runtimes.base import Doubt
from autostart.runtimes.docker.compose import Model
from autostart.runtimes.docker.container import REACHED
from autostart.runtimes.docker.project import OVERRIDES, Project

EVERYWHERE = ("", "0.0.0.0", "::")  # noqa: S104 - compared, not bound
# What brings a container back by itself: after we stopped it never, but with the engine.
STUBBORN = ("always", "unless-stopped")


def examine(service: ServiceConfig, project: Project, model: Model) -> Iterator[Doubt]:
    """Yield what is wrong or doubtful in a project, as compose resolved it."""
    wanted = {
        name: entry
        for name, entry in model.services.items()
        if service.containers is None or name in service.containers
    }
    published = [
        (name, address, port)
        for name, entry in model.services.items()
        for address, port in _ports(entry)
    ]
    publisher = next(
        (name for name, address, port in published if port == service.port and address in REACHED),
        None,
    )
    if publisher is None:
        shown = ", ".join(f"{a or '0.0.0.0'}:{p} ({name})" for name, a, p in published)  # noqa: S104 - shown
        yield Doubt(
            f"port {service.port} is published by no container of {service.compose}; "
            f"published: {shown or 'nothing'}{_host_network(wanted)}",
            fatal=True,
        )
    elif service.ready == CONTAINER_HEALTH and "healthcheck" not in model.services[publisher]:
        yield Doubt(
            f"ready: {CONTAINER_HEALTH}, but {publisher} has no healthcheck, unless its image "
            "brings one",
            fatal=False,
        )
    for name, address, port in published:
        if address in EVERYWHERE and name in wanted:
            yield Doubt(
                f"{name} publishes port {port} on every interface, past nginx and every "
                f'firewall rule of yours; write "127.0.0.1:{port}:…"',
                fatal=False,
            )
    for name, entry in wanted.items():
        if entry.get("restart") in STUBBORN:
            yield Doubt(
                f"{name} has restart: {entry['restart']}, so the engine starts it at every boot; "
                'write restart: "no", autostart starts it when it is needed',
                fatal=False,
            )
    yield from _beside(service, project)


def missing_image(name: str, image: str, model: Model) -> Doubt:
    """Return the doubt about an image that the engine does not have."""
    how = "built" if "build" in model.services[name] else "pulled"
    text = f"{name}: image {image} is not here and is {how} first; autostart prepare does it ahead"
    return Doubt(text, fatal=False)


def _ports(entry: Mapping[str, Any]) -> Iterator[tuple[str, int]]:
    """Yield (address, port) on the host; of a range, each."""
    if entry.get("network_mode") == "host":
        return
    for port in entry.get("ports") or ():
        first, _, last = str(port.get("published", "")).partition("-")
        if first.isdigit():
            for number in range(int(first), int(last or first) + 1):
                yield str(port.get("host_ip", "")), number


def _host_network(wanted: Mapping[str, Mapping[str, Any]]) -> str:
    names = [name for name, entry in wanted.items() if entry.get("network_mode") == "host"]
    if not names:
        return ""
    return f"; {', '.join(names)} is on the host's network, which publishes nothing"


def _beside(service: ServiceConfig, project: Project) -> Iterator[Doubt]:
    """Say that a file was named where compose, by itself, would take another one too."""
    if service.compose is None or service.compose.is_dir():
        return
    for name in OVERRIDES:
        if (project.folder / name).exists() and project.folder / name not in project.files:
            yield Doubt(
                f"compose names a file, so {name} beside it is not used; name the folder "
                "to honour it",
                fatal=False,
            )
