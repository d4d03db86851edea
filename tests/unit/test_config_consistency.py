"""autostart/config/consistency.py: what must agree, and what is doubtful."""

from __future__ import annotations

from dataclasses import replace
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
    UnixAddress,
    warnings,
)
from autostart.config.consistency import problems
from autostart.config.problem import dotted

COMMAND = ServiceConfig(host="a.test", command=("serve", "{port}"), directory=Path("/"))
COMPOSE = ServiceConfig(host="b.test", compose=Path("/srv/b"), port=8001)
AT = Path("map.yaml")


def found(
    *services: ServiceConfig, own: dict[str, set[str]] | None = None, **more: Any
) -> list[str]:
    """Return the problems of a map of these services, as one line each."""
    declared = Map(path=AT, services={each.host: each for each in services}, **more)
    own_keys = {host: frozenset(keys) for host, keys in (own or {}).items()}
    return [f"{dotted(each.key)}{each.text}" for each in problems(declared, own_keys, {})]


def test_good_services_agree() -> None:
    """A process and a container side by side are no problem."""
    assert [] == found(COMMAND, COMPOSE)


def test_service_is_either_compose_or_command() -> None:
    """Exactly one of both says what runs."""
    both = replace(COMPOSE, command=("x",))
    neither = ServiceConfig(host="c.test")

    assert [
        "services.b.test: has both compose and command; keep one",
        "services.c.test: needs compose (a folder or file) or command (a local process)",
    ] == found(both, neither)


@pytest.mark.parametrize("key", ["compose", "command"])
def test_key_whose_value_is_wrong_is_there_all_the_same(key: str) -> None:
    """Its value is a problem already; that the key is missing would be a wrong one."""
    service = ServiceConfig(host="c.test", port=1)

    assert [] == found(service, own={"c.test": {key}})


def test_compose_needs_a_port() -> None:
    """Nobody could choose the port that a compose file publishes."""
    assert [
        "services.b.test.port: is required with compose: the port published on 127.0.0.1"
    ] == found(replace(COMPOSE, port=0))


@pytest.mark.parametrize("key", ["containers", "gpu_compose", "device"])
def test_keys_of_compose_need_compose(key: str) -> None:
    """Written in the service itself; from defaults they are nothing to a process."""
    assert [f"services.a.test.{key}: works only with compose"] == found(
        COMMAND, own={"a.test": {"command", key}}
    )


@pytest.mark.parametrize("key", ["directory", "environment"])
def test_keys_of_command_need_command(key: str) -> None:
    """A container's environment is its compose file's."""
    assert [f"services.b.test.{key}: works only with command"] == found(
        COMPOSE, own={"b.test": {"compose", key}}
    )


def test_container_health_needs_a_container() -> None:
    """Docker has no verdict on a process."""
    assert [] == found(replace(COMPOSE, ready="container-health"))
    assert ["services.a.test.ready: container-health works only with compose"] == found(
        replace(COMMAND, ready="container-health")
    )


def test_host_leads_to_one_service() -> None:
    """Hosts, aliases and the portal are all different."""
    assert [
        "services.p.test: p.test is already portal",
        "services.a.test.aliases[0]: b.test is already a host of b.test",
        "services.a.test.aliases[1]: p.test is already portal",
        "services.b.test.aliases[0]: new.test is already a host of a.test",
        "services.p.test.aliases[0]: p.test is already portal",
    ] == found(
        replace(COMMAND, aliases=("b.test", "p.test", "new.test")),
        replace(COMPOSE, aliases=("new.test",)),
        replace(COMMAND, host="p.test", aliases=("p.test",)),
        portal="p.test",
    )


def test_port_belongs_to_one_service() -> None:
    """Whoever came first has it; ports that are chosen never collide."""
    assert ["services.c.test.port: 8001 is already services.b.test.port"] == found(
        COMPOSE,
        replace(COMPOSE, host="c.test", compose=Path("/srv/c")),
        COMMAND,
        replace(COMMAND, host="d.test"),
    )


def test_port_is_no_listener() -> None:
    """Neither the proxy's, nor the admin's, nor a door's."""
    door = replace(COMMAND, listen=TcpAddress("127.0.0.1", 9001))

    assert [
        "services.b.test.port: 8890 is already proxy.listen",
        "services.c.test.port: 8891 is already admin.listen",
        "services.d.test.port: 9001 is already services.a.test.listen",
    ] == found(
        door,
        replace(COMPOSE, port=8890),
        replace(COMMAND, host="c.test", port=8891),
        replace(COMMAND, host="d.test", port=9001),
    )


@pytest.mark.parametrize(
    ("proxy", "admin", "door", "problems_of_listeners"),
    [
        (("127.0.0.1", 80), ("127.0.0.1", 81), ("127.0.0.1", 82), []),
        (("127.0.0.1", 80), ("::1", 80), ("127.0.0.2", 80), []),
        (("127.0.0.1", 0), ("127.0.0.1", 0), ("127.0.0.1", 0), []),
        (
            ("127.0.0.1", 80),
            ("127.0.0.1", 80),
            ("127.0.0.1", 80),
            [
                "admin.listen: 127.0.0.1:80 is already proxy.listen",
                "services.a.test.listen: 127.0.0.1:80 is already proxy.listen",
                "services.a.test.listen: 127.0.0.1:80 is already admin.listen",
            ],
        ),
        (
            ("0.0.0.0", 80),
            ("127.0.0.1", 80),
            ("127.0.0.1", 81),
            ["admin.listen: 127.0.0.1:80 is already proxy.listen"],
        ),
        (
            ("127.0.0.1", 80),
            ("127.0.0.1", 81),
            ("::", 81),
            ["services.a.test.listen: [::]:81 is already admin.listen"],
        ),
    ],
)
def test_listeners_are_apart(
    proxy: tuple[str, int],
    admin: tuple[str, int],
    door: tuple[str, int],
    problems_of_listeners: list[str],
) -> None:
    """The same address and port twice, or one port on every interface and on one."""
    assert problems_of_listeners == found(
        replace(COMMAND, listen=TcpAddress(*door)),
        proxy=ProxyConfig(listen=TcpAddress(*proxy)),
        admin=AdminConfig(listen=TcpAddress(*admin)),
    )


def test_socket_file_is_one_listener() -> None:
    """Two sockets at one path are one too many."""
    socket = UnixAddress(Path("/run/a.sock"))

    assert ["admin.listen: unix:/run/a.sock is already proxy.listen"] == found(
        proxy=ProxyConfig(listen=socket), admin=AdminConfig(listen=socket)
    )


@pytest.mark.parametrize(
    ("one", "other", "common"),
    [
        (("api",), ("web",), None),
        (("api", "db"), ("web", "db"), "db"),
        (("api", "db"), ("db", "api"), "db, api"),
        (None, ("web",), "web"),
        (("api",), None, "api"),
        (None, None, "every container"),
    ],
)
@pytest.mark.parametrize("compose", ["/srv/b", "/srv/b/compose.yaml", "/srv/b/docker-compose.yml"])
def test_container_belongs_to_one_service(
    one: tuple[str, ...] | None, other: tuple[str, ...] | None, common: str | None, compose: str
) -> None:
    """Two services of one project name different containers; a folder is its compose file."""
    path = Path(compose)
    expected = [f"services.c.test.containers: {common} of {path} is already named by b.test"]

    assert (expected if common else []) == found(
        replace(COMPOSE, containers=one),
        replace(COMPOSE, host="c.test", port=8002, compose=path, containers=other),
    )


def test_other_file_of_a_folder_is_another_project() -> None:
    """A file with a name of its own is not what the folder means."""
    assert [] == found(
        COMPOSE, replace(COMPOSE, host="c.test", port=8002, compose=Path("/srv/b/other.yaml"))
    )


def doubts(*services: ServiceConfig, **more: Any) -> list[str]:
    return warnings(Map(path=AT, services={each.host: each for each in services}, **more))


PUBLIC = TcpAddress("0.0.0.0", 80)


@pytest.mark.parametrize(
    ("service", "expected"),
    [
        (COMMAND, []),
        (replace(COMMAND, command=("serve",), port=8001), []),
        (replace(COMMAND, command=("serve",), environment={"PORT": "{port}"}), []),
        (
            replace(COMMAND, command=("serve",)),
            [".command: port is chosen at each start, but {port} is nowhere filled in"],
        ),
        (COMPOSE, []),
        (
            replace(COMPOSE, gpu_compose=Path("/not/gpu.yaml")),
            [".gpu_compose: /not/gpu.yaml does not exist"],
        ),
        (
            replace(COMMAND, exclusive="gpu0", idle_seconds=None),
            [".exclusive: idle is never, so others of gpu0 start by evicting it"],
        ),
        (replace(COMMAND, exclusive="gpu0"), []),
        (replace(COMMAND, listen=PUBLIC), [".listen: 0.0.0.0:80 is public, and access is not set"]),
        (replace(COMMAND, listen=PUBLIC, access=Access(keys_env="K")), []),
        (
            replace(COMMAND, cors=("*",), access=Access(keys_env="K")),
            [".cors: * lets the pages of every site call it"],
        ),
        (replace(COMMAND, cors=("*",)), []),
    ],
)
def test_doubtful_service_is_warned_of(service: ServiceConfig, expected: list[str]) -> None:
    """Legal, and probably not meant."""
    assert [f"services.{service.host}{text}" for text in expected] == doubts(service)


def test_page_that_nobody_is_shown_is_warned_of() -> None:
    """Unless it is shown by another service: one of the defaults is for those in mode page."""
    own = replace(COMMAND, waiting_page=Path("/srv/waiting.html"))
    shown = replace(own, host="c.test", mode="page")

    assert ["services.a.test.waiting_page: is shown only with mode: page"] == doubts(own)
    assert [] == doubts(own, shown)


def test_public_proxy_without_access_is_warned_of() -> None:
    """Each service that anybody on the network could wake."""
    closed = replace(COMMAND, host="c.test", access=Access(keys_env="K"))

    assert ["services.a.test: no access, and proxy.listen 0.0.0.0:80 is public"] == doubts(
        COMMAND, closed, proxy=ProxyConfig(listen=PUBLIC)
    )


def test_a_portal_that_shows_nothing_is_warned_of() -> None:
    """It has no service with docs; without a portal nobody misses any."""
    shown = replace(COMMAND, host="d.test", docs="/openapi.json", cors=("https://p.test",))

    assert ["portal: no service has docs, so it shows none"] == doubts(COMMAND, portal="p.test")
    assert [] == doubts(COMMAND, shown, portal="p.test")
    assert [] == doubts(COMMAND)


@pytest.mark.parametrize(
    ("cors", "is_warned_of"),
    [
        ((), True),
        (("https://other.test",), True),
        (("https://other.test", "https://p.test"), False),
        (("http://p.test:8890",), False),
        (("*",), False),
    ],
    ids=str,
)
def test_a_service_that_the_portal_may_not_call_is_warned_of(
    cors: tuple[str, ...], is_warned_of: bool
) -> None:
    """Its docs can be read there, and nothing more."""
    service = replace(COMMAND, docs="/openapi.json", cors=cors)

    told = "services.a.test.cors: does not name the portal p.test, so Execute works only at the"

    assert is_warned_of * [f"{told} service's own /docs"] == doubts(service, portal="p.test")


def test_empty_map_is_warned_of() -> None:
    """Nothing is wrong with it, and nothing works."""
    assert ["services: none is declared"] == doubts()
