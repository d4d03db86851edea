"""What `check` and `doctor` find in the files of a project, as compose resolved them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from autostart.config import ServiceConfig
from autostart.runtimes.docker.compose import Model
from autostart.runtimes.docker.examination import examine, missing_image
from autostart.runtimes.docker.project import read_project


def bound(port: int | str, address: str = "127.0.0.1") -> dict[str, Any]:
    return {"ports": [{"target": 80, "published": str(port), "host_ip": address}]}


def doubts(folder: Path, services: dict[str, Any], **keys: Any) -> list[tuple[str, bool]]:
    """Examine a service on port 8001 whose project resolves to these compose services."""
    (folder / "compose.yaml").write_text("services: {}")
    known = {"compose": folder, "port": 8001, **keys}
    service = ServiceConfig("a.localhost", **known)
    project = read_project(service, gpu=False, environment={})
    return [(one.text, one.fatal) for one in examine(service, project, Model("p", services))]


def test_a_project_as_it_should_be_raises_no_doubt(tmp_path: Path) -> None:
    """Published on loopback, restarted by nobody."""
    assert doubts(tmp_path, {"web": {**bound(8001), "restart": "no"}, "db": {}}) == []


@pytest.mark.parametrize(
    ("services", "shown"),
    [
        ({"web": {}}, "published: nothing"),
        ({"web": bound(8002)}, "published: 127.0.0.1:8002 (web)"),
        ({"web": bound(8001, "192.0.2.1")}, "published: 192.0.2.1:8001 (web)"),
        (
            {"web": {"network_mode": "host", **bound(8001)}},
            "published: nothing; web is on the host's network, which publishes nothing",
        ),
        ({"web": bound("")}, "published: nothing"),
    ],
)
def test_a_port_that_nobody_publishes_is_fatal(
    tmp_path: Path, services: dict[str, Any], shown: str
) -> None:
    """The text says what is published instead."""
    text = f"port 8001 is published by no container of {tmp_path}; {shown}"

    assert doubts(tmp_path, services) == [(text, True)]


def test_a_port_within_a_range_is_published(tmp_path: Path) -> None:
    """Compose resolves a range of ports to a range of hosts' ports."""
    assert doubts(tmp_path, {"web": bound("8000-8002")}) == []


@pytest.mark.parametrize("address", ["", "0.0.0.0", "::"])
def test_a_port_on_every_interface_is_doubtful(tmp_path: Path, address: str) -> None:
    """Docker opens it past the firewall, and past nginx and its passwords."""
    ((text, fatal),) = doubts(tmp_path, {"web": bound(8001, address)})

    assert text.startswith("web publishes port 8001 on every interface")
    assert not fatal


@pytest.mark.parametrize("restart", ["always", "unless-stopped"])
def test_a_container_that_comes_back_by_itself_is_doubtful(tmp_path: Path, restart: str) -> None:
    """It would be up after every boot, used or not."""
    ((text, fatal),) = doubts(tmp_path, {"web": {**bound(8001), "restart": restart}})

    assert text.startswith(f"web has restart: {restart}, so the engine starts it at every boot")
    assert not fatal


def test_what_the_map_does_not_name_is_not_our_business(tmp_path: Path) -> None:
    """Neighbours in the same project may be as they like."""
    services = {"web": bound(8001), "other": {**bound(9, ""), "restart": "always"}}

    assert doubts(tmp_path, services, containers=("web",)) == []


def test_health_needs_a_healthcheck(tmp_path: Path) -> None:
    """An image may bring one; the files do not show it."""
    healthy = {"web": {**bound(8001), "healthcheck": {"test": ["CMD", "true"]}}}
    ((text, fatal),) = doubts(tmp_path, {"web": bound(8001)}, ready="container-health")

    assert "ready: container-health, but web has no healthcheck" in text
    assert not fatal
    assert doubts(tmp_path, healthy, ready="container-health") == []


def test_an_override_beside_a_named_file_is_mentioned(tmp_path: Path) -> None:
    """Who names the file gets the file alone, and may not expect it."""
    (tmp_path / "compose.override.yaml").write_text("services: {}")
    file = tmp_path / "compose.yaml"
    ((text, fatal),) = doubts(tmp_path, {"web": bound(8001)}, compose=file)

    assert text.startswith("compose names a file, so compose.override.yaml beside it is not used")
    assert not fatal


@pytest.mark.parametrize(("entry", "how"), [({"build": {}}, "built"), ({}, "pulled")])
def test_a_missing_image_is_no_fault(entry: dict[str, Any], how: str) -> None:
    """It takes its time at the first start, and can be had ahead."""
    doubt = missing_image("web", "web:1", Model("p", {"web": entry}))

    assert doubt.text == (
        f"web: image web:1 is not here and is {how} first; autostart prepare does it ahead"
    )
    assert not doubt.fatal
