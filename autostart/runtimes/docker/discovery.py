"""A map from the compose projects that the engine knows: a draft for an operator to edit. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import yaml

from autostart.runtimes.docker.container import Container

HEAD = """\
# Drafted from the compose projects on this machine. Give each service its host, delete what
# autostart is not to start and stop, then: autostart check
"""
NOTHING = "# No compose project with containers was found: docker compose create makes them.\n"


def draft_map(containers: Iterable[Container]) -> str:
    """Return the map as YAML: one service for each container that publishes a port."""
    services: dict[str, Any] = {}
    taken: dict[int, str] = {}
    notes: list[str] = []
    ordered = sorted(containers, key=lambda one: (str(one.folder), one.project, one.service))
    for (folder, project), group in groupby(ordered, lambda one: (one.folder, one.project)):
        found = list(group)
        publishers = _publishers(found)
        if not publishers:
            notes.append(f"# {project} in {folder} publishes no port: nothing to lead requests to")
        for one in publishers:
            name = project if len(publishers) == 1 else f"{project}-{one.service}"
            port = one.published[0].port
            if port in taken:
                notes.append(f"# {name} in {folder} publishes {port} too, as {taken[port]} does")
                continue
            host = _host(name, services)
            services[host] = _entry(one, alone=len(publishers) == 1)
            taken[port] = host
    if not services:
        return HEAD + "\n".join([*notes, NOTHING])
    text = yaml.safe_dump({"services": services}, sort_keys=False, allow_unicode=True)
    return "\n".join([HEAD.rstrip(), *notes, text])


def _publishers(containers: Sequence[Container]) -> list[Container]:
    """Return the first container of each compose service that publishes a port."""
    first: dict[str, Container] = {}
    for one in containers:
        if one.published:
            first.setdefault(one.service, one)
    return list(first.values())


def _entry(container: Container, *, alone: bool) -> dict[str, Any]:
    files = container.files
    entry: dict[str, Any] = {"compose": str(_compose(container.folder, files))}
    if not alone:
        entry["containers"] = [container.service]
    entry["port"] = container.published[0].port
    entry["ready"] = "any"
    return entry


def _compose(folder: Path, files: Sequence[Path]) -> Path:
    """Return the folder where compose found its files by itself, else the file."""
    by_itself = re.compile(r"(docker-)?compose(\.override)?\.ya?ml")
    if all(by_itself.fullmatch(file.name) and file.parent == folder for file in files):
        return folder
    return files[0]


def _host(name: str, taken: Iterable[str]) -> str:
    label = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "service"
    host, number = f"{label}.localhost", 2
    while host in taken:
        host, number = f"{label}-{number}.localhost", number + 1
    return host
