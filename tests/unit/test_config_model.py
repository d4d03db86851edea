"""autostart/config/model.py: the map as values."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, fields, replace
from pathlib import Path
from typing import Any

import pytest

from autostart.config import (
    Access,
    AdminConfig,
    Map,
    ProxyConfig,
    ServiceConfig,
    TcpAddress,
    Wake,
    WarmWindow,
    listeners,
    run_changed,
)

SERVICE = ServiceConfig(host="a.test", command=("serve",), directory=Path("/srv"), port=1)
COMPOSE = ServiceConfig(host="a.test", compose=Path("/srv"), port=1)

CHANGES: dict[str, Any] = {
    "host": "b.test",
    "name": "B",
    "aliases": ("c.test",),
    "compose": Path("/other"),
    "containers": ("api",),
    "gpu_compose": Path("/gpu.yaml"),
    "device": "cpu",
    "command": ("other",),
    "directory": Path("/other"),
    "environment": {"A": "b"},
    "port": 2,
    "listen": TcpAddress("127.0.0.1", 9),
    "ready": "/ready",
    "busy": "/busy",
    "docs": "/docs",
    "mode": "page",
    "idle_seconds": None,
    "create_timeout_seconds": 1.0,
    "start_timeout_seconds": 1.0,
    "hold_timeout_seconds": 1.0,
    "stop_timeout_seconds": 1.0,
    "request_timeout_seconds": 1.0,
    "response_timeout_seconds": 1.0,
    "max_waiting": 1,
    "max_body_bytes": 1,
    "access": Access(keys_env="K"),
    "cors": ("*",),
    "wake": Wake(methods=()),
    "asleep": {"/": 200},
    "warm": (WarmWindow(cron="* * * * *", for_seconds=1.0, timezone="UTC"),),
    "exclusive": "gpu0",
}
OF_THE_RUN = {
    "compose",
    "containers",
    "gpu_compose",
    "device",
    "command",
    "directory",
    "environment",
    "port",
}


def test_every_attribute_is_in_the_table() -> None:
    """A new attribute must say whether it belongs to the run."""
    assert {each.name for each in fields(ServiceConfig)} == set(CHANGES)


@pytest.mark.parametrize("name", CHANGES)
def test_change_of_what_runs_waits_for_the_next_start(name: str) -> None:
    """Everything else takes effect at once."""
    changed = replace(SERVICE, **{name: CHANGES[name]})

    assert (name in OF_THE_RUN) == run_changed(SERVICE, changed)


@pytest.mark.parametrize("name", ["directory", "environment"])
def test_keys_of_a_process_are_nothing_to_a_container(name: str) -> None:
    """They come from defaults, and a container does not see them."""
    assert not run_changed(COMPOSE, replace(COMPOSE, **{name: CHANGES[name]}))


def test_unchanged_service_keeps_its_run() -> None:
    """A reload of the same map changes nothing."""
    assert not run_changed(SERVICE, replace(SERVICE))


@pytest.mark.parametrize(
    "value",
    [
        SERVICE,
        Access(),
        Wake(),
        CHANGES["warm"][0],
        ProxyConfig(),
        AdminConfig(),
        Map(path=Path("map.yaml")),
    ],
    ids=lambda value: type(value).__name__,
)
def test_values_are_frozen(value: Any) -> None:
    """A map is replaced as a whole, never changed."""
    with pytest.raises(FrozenInstanceError):
        setattr(value, fields(value)[0].name, "x")


def test_listeners_are_known_by_their_key() -> None:
    """Proxy, admin, and the door of each service that has one."""
    door = TcpAddress("127.0.0.1", 9001)
    declared = Map(
        path=Path("map.yaml"),
        services={
            "a.test": SERVICE,
            "*.b.test": replace(SERVICE, host="*.b.test", listen=door),
        },
    )

    assert {
        "proxy.listen": TcpAddress("127.0.0.1", 8890),
        "admin.listen": TcpAddress("127.0.0.1", 8891),
        "services.*.b.test.listen": door,
    } == listeners(declared)
