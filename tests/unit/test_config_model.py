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
)

SERVICE = ServiceConfig(host="a.test", command=("serve",), directory=Path("/srv"), port=1)


@pytest.mark.parametrize(
    "value",
    [
        SERVICE,
        Access(),
        Wake(),
        WarmWindow(cron="* * * * *", for_seconds=1.0, timezone="UTC"),
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
