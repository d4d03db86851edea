"""The map as values: what the operator declared, parsed, with every default filled in.

Plain frozen dataclasses, so that a test or a tool can build one without a file. The annotations
say how each attribute is written in the map: its key where that differs (`idle` for
`idle_seconds`), its form, and the sentence that editors show. Reading a file is `loading`'s task;
what must agree between keys and between services is `consistency`'s.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, ConfigDict, Field

from autostart.config.address import Address, TcpAddress
from autostart.config.form import (
    ANY_ANSWER,
    Cron,
    Duration,
    DurationOrZero,
    FilePath,
    Host,
    Idle,
    Listen,
    Method,
    Origin,
    Port,
    Portal,
    Ready,
    Size,
    Status,
    Text,
    Timezone,
    TrustedNetwork,
    UrlPath,
    Variables,
    Words,
    key,
)

# Keys that are no keys of the file: where the value stands says them.
HOST_KEY = "<host>"
PATH_KEY = "<path>"

PROXY_LISTEN = TcpAddress("127.0.0.1", 8890)
ADMIN_LISTEN = TcpAddress("127.0.0.1", 8891)

_STRICT = ConfigDict(extra="forbid")


@dataclass(frozen=True)
class Access:
    """Who gets in. Either suffices; a file or variable that cannot be read lets nobody in."""

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT

    keys_env: Annotated[
        Text | None,
        key("keys_env", "Environment variable with the keys, separated by commas or spaces."),
    ] = None
    basic_file: Annotated[
        FilePath | None,
        key("basic_file", "An htpasswd file (bcrypt, apr1, SHA), read again when it changes."),
    ] = None


def _check_access(written: Access | None) -> Access | None:
    if written is not None and written.keys_env is None and written.basic_file is None:
        raise ValueError("allowed: keys_env, basic_file, or both")
    return written


@dataclass(frozen=True)
class Wake:
    """Which requests may start a stopped service."""

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT

    methods: Annotated[
        tuple[Method, ...], key("methods", "Methods that may wake; others get 403 while stopped.")
    ] = ("GET", "POST", "PUT", "PATCH", "DELETE")
    ignore: Annotated[
        tuple[Text, ...],
        key("ignore", "Globs of paths that get 404 while stopped; * also matches /."),
    ] = ("/favicon.ico", "/robots.txt")
    ignore_agents: Annotated[
        tuple[Text, ...],
        key("ignore_agents", "Globs of User-Agents, in any case, that get 403 while stopped."),
    ] = ()


@dataclass(frozen=True)
class WarmWindow:
    """A time when the service is kept ready without requests."""

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT

    cron: Annotated[Cron, key("cron", "When it opens: minute hour day month weekday.")]
    for_seconds: Annotated[Duration, key("for", "How long it stays open.")]
    timezone: Annotated[Timezone, key("timezone", "Whose clock: Europe/Paris, UTC.")]


@dataclass(frozen=True)
class ServiceConfig:
    """What the operator declared under one host, in lower case; absent keys have their default."""

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT

    host: Annotated[str, key(HOST_KEY, "")]
    name: Annotated[Text, key("name", "Shown to people; default: the host.")] = ""
    aliases: Annotated[
        tuple[Host, ...], key("aliases", "More hosts that lead to it, exact or *.name.")
    ] = ()
    compose: Annotated[
        FilePath | None, key("compose", "A compose project: its folder, or one file.")
    ] = None
    containers: Annotated[
        Words | None,
        key("containers", "Compose services; also activates their profiles; default: all."),
    ] = None
    gpu_compose: Annotated[
        FilePath | None, key("gpu_compose", "A compose file that is added when the device is gpu.")
    ] = None
    device: Annotated[
        Literal["auto", "cpu", "gpu"], key("device", "auto = gpu where one is usable.")
    ] = "auto"
    command: Annotated[
        Words | None,
        key("command", "A local process instead of compose; {python} and {port} are filled in."),
    ] = None
    directory: Annotated[
        FilePath, key("directory", "Where command runs; default: the map's folder.")
    ] = Path()
    environment: Annotated[
        Variables, key("environment", "Environment variables added for command.")
    ] = field(default_factory=dict)
    port: Annotated[
        Port, key("port", "Where it listens on 127.0.0.1; 0 = choose (command only).")
    ] = 0
    listen: Annotated[
        Listen | None, key("listen", "A door of its own that needs no host name.")
    ] = None
    ready: Annotated[
        Ready,
        key(
            "ready",
            "A path that answers 2xx when it can work; any = any HTTP answer; "
            "container-health = Docker's verdict (compose only).",
        ),
    ] = ANY_ANSWER
    busy: Annotated[
        UrlPath | None, key("busy", 'A path; the answer {"busy": true} keeps it from idling.')
    ] = None
    docs: Annotated[
        UrlPath | None, key("docs", "Path of its OpenAPI document, shown in the portal.")
    ] = None
    mode: Annotated[
        Literal["hold", "page"],
        key("mode", "page = browsers that navigate get the waiting page instead of being held."),
    ] = "hold"
    waiting_page: Annotated[
        FilePath | None,
        key("waiting_page", "A waiting page of your own, a Jinja2 template; default: ours."),
    ] = None
    idle_seconds: Annotated[
        Idle,
        key("idle", "Stopped after so long without requests; never = started with autostart."),
    ] = 900.0
    create_timeout_seconds: Annotated[
        Duration, key("create_timeout", "Pull, build and create; clients never cancel it.")
    ] = 1800.0
    start_timeout_seconds: Annotated[Duration, key("start_timeout", "From start to ready.")] = 60.0
    hold_timeout_seconds: Annotated[
        DurationOrZero, key("hold_timeout", "A client's patience; default: start_timeout.")
    ] = 60.0
    stop_timeout_seconds: Annotated[
        DurationOrZero, key("stop_timeout", "From asking it to stop to forcing it.")
    ] = 10.0
    request_timeout_seconds: Annotated[
        Duration, key("request_timeout", "Longest silence while we receive a request.")
    ] = 60.0
    response_timeout_seconds: Annotated[
        Duration, key("response_timeout", "Longest silence of an answer.")
    ] = 3600.0
    max_waiting: Annotated[
        int, Field(strict=True, ge=1), key("max_waiting", "Requests held at once; more get 503.")
    ] = 100
    max_body_bytes: Annotated[Size, key("max_body", "Largest request body; larger get 413.")] = (
        500_000_000
    )
    access: Annotated[
        Access | None,
        AfterValidator(_check_access),
        key("access", "Credentials, checked before waking; default: none needed."),
    ] = None
    cors: Annotated[
        tuple[Origin, ...],
        key("cors", "Origins whose pages may call it, answered by us; default: the portal."),
    ] = ()
    wake: Annotated[Wake, key("wake", "Which requests may start it.")] = field(default_factory=Wake)
    asleep: Annotated[
        dict[UrlPath, Status],
        key("asleep", "Paths and the status with which we answer them while it is stopped."),
    ] = field(default_factory=dict)
    warm: Annotated[
        tuple[WarmWindow, ...], key("warm", "Times when it is kept ready without requests.")
    ] = ()
    exclusive: Annotated[
        Text | None, key("exclusive", "At most one service of this name is up at a time.")
    ] = None


@dataclass(frozen=True)
class ProxyConfig:
    """The listener where every host arrives."""

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT

    listen: Annotated[Listen, key("listen", "Where nginx sends every subdomain.")] = PROXY_LISTEN
    trusted_proxies: Annotated[
        tuple[TrustedNetwork, ...],
        key("trusted_proxies", "Networks whose X-Forwarded-* and X-Real-IP are believed."),
    ] = (ip_network("127.0.0.1/32"),)
    drain_timeout_seconds: Annotated[
        DurationOrZero, key("drain_timeout", "At shutdown, answers in flight may end for so long.")
    ] = 30.0


@dataclass(frozen=True)
class AdminConfig:
    """The operator's listener: dashboard, API, metrics."""

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT

    listen: Annotated[
        Listen, key("listen", "Not public without a token in token_env's variable.")
    ] = ADMIN_LISTEN
    token_env: Annotated[
        Text, key("token_env", "Environment variable with the token; unset = none needed.")
    ] = "AUTOSTART_ADMIN_TOKEN"  # noqa: S105 - the name of a variable, no token


@dataclass(frozen=True)
class Map:
    """The whole map; `services` by host in lower case, in the order of the file."""

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT

    path: Annotated[Path, key(PATH_KEY, "")]
    proxy: Annotated[ProxyConfig, key("proxy", "The listener of all hosts.")] = field(
        default_factory=ProxyConfig
    )
    admin: Annotated[AdminConfig, key("admin", "The operator's listener.")] = field(
        default_factory=AdminConfig
    )
    portal: Annotated[
        Portal, key("portal", "Host of the docs of all services; default: no portal.")
    ] = None
    services: Annotated[dict[str, ServiceConfig], key("services", "The services by host.")] = field(
        default_factory=dict
    )


def listeners(declared: Map) -> dict[str, Address]:
    """Return every address we listen on by its key; when this changes, a reload is refused."""
    doors = {
        f"services.{service.host}.listen": service.listen
        for service in declared.services.values()
        if service.listen is not None
    }
    return {"proxy.listen": declared.proxy.listen, "admin.listen": declared.admin.listen, **doors}
