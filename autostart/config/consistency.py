"""What must agree between the keys of a service, between services, and with the listeners.

Also what is legal but doubtful, as `autostart check` says it. Docker is not asked here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from autostart.config.address import Address, TcpAddress
from autostart.config.document import Key
from autostart.config.form import CONTAINER_HEALTH
from autostart.config.model import Map, ServiceConfig, listeners
from autostart.config.problem import Problem

# Files that a compose folder is known by: naming one names the folder's project.
COMPOSE_FILES = frozenset(
    {"compose.yaml", "compose.yml", "docker-compose.yaml", "docker-compose.yml"}
)
_ONLY_COMPOSE = ("containers", "gpu_compose", "device")
_ONLY_COMMAND = ("directory", "environment")


def problems(
    declared: Map, own_keys: Mapping[str, frozenset[str]], environ: Mapping[str, str]
) -> Iterator[Problem]:
    """Yield every contradiction of a map whose single values are right.

    `own_keys` has the keys that each host's section itself holds, right or wrong: a key that
    `defaults` gives to a service that cannot use it is no fault.
    """
    for service in declared.services.values():
        yield from _problems_of_kind(service, own_keys.get(service.host, frozenset()))
    yield from _problems_of_hosts(declared)
    yield from _problems_of_ports(declared)
    yield from _problems_of_containers(declared)
    admin = declared.admin
    if not admin.listen.is_loopback and not environ.get(admin.token_env, "").strip():
        yield Problem(
            ("admin", "listen"),
            f": {admin.listen} is public and the environment variable {admin.token_env} holds no "
            "token; set it, or listen on 127.0.0.1",
        )


def _problems_of_kind(service: ServiceConfig, own_keys: frozenset[str]) -> Iterator[Problem]:
    at: Key = ("services", service.host)
    is_compose = service.compose is not None or "compose" in own_keys
    is_command = service.command is not None or "command" in own_keys
    if is_compose and is_command:
        yield Problem(at, ": has both compose and command; keep one")
        return
    if not is_compose and not is_command:
        yield Problem(at, ": needs compose (a folder or file) or command (a local process)")
        return
    misplaced = _ONLY_COMMAND if is_compose else _ONLY_COMPOSE
    for name in misplaced:
        if name in own_keys:
            other = "command" if is_compose else "compose"
            yield Problem((*at, name), f": works only with {other}")
    if is_compose and not service.port:
        yield Problem((*at, "port"), ": is required with compose: the port published on 127.0.0.1")
    if is_command and service.ready == CONTAINER_HEALTH:
        yield Problem((*at, "ready"), f": {CONTAINER_HEALTH} works only with compose")


def _problems_of_hosts(declared: Map) -> Iterator[Problem]:
    owners: dict[str, str] = {} if declared.portal is None else {declared.portal: "portal"}
    named: list[tuple[str, Key]] = [(host, ("services", host)) for host in declared.services]
    for service in declared.services.values():
        for index, alias in enumerate(service.aliases):
            named.append((alias, ("services", service.host, "aliases", index)))
    for host, at in named:
        if host in owners:
            yield Problem(at, f": {host} is already {owners[host]}")
        owners.setdefault(host, f"a host of {at[1]}")


def _problems_of_ports(declared: Map) -> Iterator[Problem]:
    taken: list[tuple[str, Address]] = []
    for name, address in listeners(declared).items():
        for other_name, other in taken:
            if _collide(address, other):
                yield Problem(_key_of(name, declared), f": {address} is already {other_name}")
        taken.append((name, address))
    owners = {
        address.port: name
        for name, address in taken
        if isinstance(address, TcpAddress) and address.port
    }
    for service in declared.services.values():
        if service.port in owners:
            yield Problem(
                ("services", service.host, "port"),
                f": {service.port} is already {owners[service.port]}",
            )
        elif service.port:
            owners[service.port] = f"services.{service.host}.port"


def _collide(one: Address, other: Address) -> bool:
    if not isinstance(one, TcpAddress) or not isinstance(other, TcpAddress):
        return one == other
    everywhere = one.is_every_interface or other.is_every_interface
    # Port 0 is a different one each time.
    return one.port == other.port != 0 and (one.host == other.host or everywhere)


def _key_of(listener: str, declared: Map) -> Key:
    for host in declared.services:
        if listener == f"services.{host}.listen":
            return ("services", host, "listen")
    return tuple(listener.split("."))


def _problems_of_containers(declared: Map) -> Iterator[Problem]:
    projects: dict[Path, list[ServiceConfig]] = {}
    for service in declared.services.values():
        if service.compose is None:
            continue
        project = projects.setdefault(_project(service.compose), [])
        for other in project:
            both = _common(service.containers, other.containers)
            if both:
                yield Problem(
                    ("services", service.host, "containers"),
                    f": {both} of {service.compose} is already named by {other.host}",
                )
        project.append(service)


def _project(compose: Path) -> Path:
    return compose.parent if compose.name in COMPOSE_FILES else compose


def _common(some: tuple[str, ...] | None, others: tuple[str, ...] | None) -> str:
    # None means all of the project's.
    if some is None or others is None:
        return ", ".join(some or others or ()) or "every container"
    return ", ".join(name for name in some if name in others)


def warnings(declared: Map) -> list[str]:
    """Return what is legal but doubtful, one line each; looks at files, not at Docker."""
    found: list[str] = []
    if not declared.services:
        found.append("services: none is declared")
    found += _doubts_of_portal(declared)
    for service in declared.services.values():
        found += [f"services.{service.host}{text}" for text in _doubts(service)]
    found += _unshown_pages(declared)
    listen = declared.proxy.listen
    if not listen.is_loopback:
        found += [
            f"services.{service.host}: no access, and proxy.listen {listen} is public"
            for service in declared.services.values()
            if service.access is None
        ]
    return found


def _doubts_of_portal(declared: Map) -> Iterator[str]:
    if declared.portal is None:
        return
    shown = [service for service in declared.services.values() if service.docs is not None]
    if not shown:
        yield "portal: no service has docs, so it shows none"
    for service in shown:
        hosts = {origin.partition("://")[2].partition(":")[0] for origin in service.cors}
        if not {"*", declared.portal} & {*service.cors, *hosts}:
            yield (
                f"services.{service.host}.cors: does not name the portal {declared.portal}, "
                "so Execute works only at the service's own /docs"
            )


def _doubts(service: ServiceConfig) -> Iterator[str]:
    # compose and directory are needed for every start: the runtimes examine them.
    if service.gpu_compose is not None and not service.gpu_compose.exists():
        yield f".gpu_compose: {service.gpu_compose} does not exist"
    if service.exclusive is not None and service.idle_seconds is None:
        yield f".exclusive: idle is never, so others of {service.exclusive} start by evicting it"
    if service.command and not service.port and not _mentions_port(service):
        yield ".command: port is chosen at each start, but {port} is nowhere filled in"
    if service.listen is not None and not service.listen.is_loopback and service.access is None:
        yield f".listen: {service.listen} is public, and access is not set"
    if service.access is not None and "*" in service.cors:
        yield ".cors: * lets the pages of every site call it"


def _unshown_pages(declared: Map) -> Iterator[str]:
    # One of the defaults is for those that show it: that others do not is no doubt.
    services = declared.services.values()
    shown = {service.waiting_page for service in services if service.mode == "page"}
    for service in services:
        if service.waiting_page is not None and service.waiting_page not in shown:
            yield f"services.{service.host}.waiting_page: is shown only with mode: page"


def _mentions_port(service: ServiceConfig) -> bool:
    texts = (*(service.command or ()), *service.environment.values())
    return any("{port}" in text for text in texts)
