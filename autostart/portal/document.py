"""A service's OpenAPI document: told from what is none, and made ready to be shown by others.

Pure. A document is what a service says, so nothing in it is believed: the addresses that "Execute"
calls are the service's own, whatever it writes there. Where they lead depends on who reads, so
they stand in a prepared document as two words of ours that are filled in last.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urljoin, urlsplit

from autostart.config import ServiceConfig
from autostart.probe import DocsUnreadable

Json = dict[str, Any]

# Stand for scheme and authority until somebody reads. A document that holds them itself only names
# its own service with them.
_SCHEME = "scheme.autostart.invalid"
_AUTHORITY = "authority.autostart.invalid"

# What a "*" of a host is called where people cannot say it themselves, and before they do.
WILDCARD_NAME = "autostart"

KEY_SCHEME = "autostart-key"
LOGIN_SCHEME = "autostart-login"

_OPERATIONS = ("get", "put", "post", "delete", "options", "head", "patch", "trace")
# What Swagger UI reads; it shows nothing at all of a document that is deeper.
DEPTH_MAX = 100
# Of a server's address; what browsers and proxies take for sure.
_ADDRESS_CHARACTERS_MAX = 2_000
_PATH = re.compile(r"(/[A-Za-z0-9._~!$&'()*+,;=:@%-]*)+")


@dataclass(frozen=True)
class Origin:
    """How somebody reaches us: https or http, and the port where it is not the scheme's own."""

    scheme: str
    port: int | None = None

    def of(self, host: str) -> str:
        """Return the origin of another of our hosts, reached in the same way."""
        return f"{self.scheme}://{self.authority(host)}"

    def authority(self, host: str) -> str:
        """Return a host with the port, as it stands in an address."""
        name = f"[{host}]" if ":" in host else host
        return name if self.port is None else f"{name}:{self.port}"


def exact_host(service: ServiceConfig) -> str:
    """Return a name of the service without a wildcard, the first one written if there is one."""
    written = (service.host, *service.aliases)
    exact = [host for host in written if not host.startswith("*")]
    return exact[0] if exact else service.host.replace("*", WILDCARD_NAME)


def written_host(service: ServiceConfig) -> str:
    """Return its exact name; of a service that has only wildcards, the first one as it stands."""
    exact = exact_host(service)
    return exact if exact in (service.host, *service.aliases) else service.host


def parse(body: bytes) -> Json:
    """Return an OpenAPI document; raises DocsUnreadable."""
    try:
        document = json.loads(body, parse_constant=_refuse_constant)
    except RecursionError as error:  # of "[[[[…"
        raise DocsUnreadable("the document is nested too deeply") from error
    except ValueError as error:
        raise DocsUnreadable(f"the document is not JSON: {error}") from error
    versions = ("openapi", "swagger")
    is_one = isinstance(document, dict) and any(
        isinstance(document.get(key), str) for key in versions
    )
    if not is_one:
        raise DocsUnreadable('the document is no JSON object with "openapi" or "swagger"')
    if _depth(document) > DEPTH_MAX:
        raise DocsUnreadable(f"the document is nested too deeply: over {DEPTH_MAX} levels")
    return dict(document)


def _depth(document: Json) -> int:
    """Return how many levels of objects and lists there are; no stack of ours is as deep."""
    depth = 0
    level: list[object] = [document]
    while level:
        depth += 1
        inner = (value for each in level for value in _values(each))
        level = [value for value in inner if isinstance(value, dict | list)]
    return depth


def _values(value: object) -> Iterable[Any]:
    return value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")  # Python reads NaN, browsers do not


@dataclass(frozen=True)
class Prepared:
    """A document that calls only its service, whose address is not filled in yet."""

    _body: bytes
    _wildcard: str

    def addressed(self, scheme: str, authority: str) -> bytes:
        """Return the document for somebody who reaches the service there, at any name of a "*"."""
        there = authority.replace("*", self._wildcard)
        filled_in = self._body.replace(_SCHEME.encode(), scheme.encode())
        return filled_in.replace(_AUTHORITY.encode(), there.encode())


def prepared(document: Json, service: ServiceConfig) -> Prepared:
    """Return a document that calls only its service, with the credentials that we ask for.

    Raises DocsUnreadable.
    """
    wildcard = WILDCARD_NAME
    if isinstance(document.get("openapi"), str):
        wildcard = "{name}"
        shown = _with_servers(document, service)
        shown = _with_access(shown, service)
    else:
        shown = _with_host(document, service)
        shown = _with_access_of_version_2(shown, service)
    try:
        body = json.dumps(shown, separators=(",", ":")).encode()
    except RecursionError as error:
        raise DocsUnreadable("the document is nested too deeply") from error
    return Prepared(body, wildcard)


# OpenAPI 3.


def _with_servers(document: Json, service: ServiceConfig) -> Json:
    """Put the service's own address wherever a document may say one: three levels, says 3.1."""

    def addressed_to_us(each: Json) -> Json:
        return {**each, "servers": [_server(each.get("servers"), service)]}

    changed = _with_operations(
        document, lambda each: addressed_to_us(each) if "servers" in each else each
    )
    return addressed_to_us(changed)


def _server(servers: object, service: ServiceConfig) -> Json:
    first = servers[0] if isinstance(servers, list) and servers else None
    written = first.get("url") if isinstance(first, dict) else None
    variables = first.get("variables") if isinstance(first, dict) else None
    prefix = _prefix(written, variables, service)
    server: Json = {"url": f"{_SCHEME}://{_AUTHORITY}{prefix}"}
    if written_host(service).startswith("*"):
        server["variables"] = {"name": {"default": WILDCARD_NAME}}
    return server


def _prefix(written: object, variables: object, service: ServiceConfig) -> str:
    """Return the path of a server's address without its last "/"; "" where it has none."""
    if not isinstance(written, str):
        return ""
    if isinstance(variables, dict):
        for name, variable in variables.items():
            default = variable.get("default") if isinstance(variable, dict) else None
            if isinstance(default, str):
                written = written[:_ADDRESS_CHARACTERS_MAX].replace(f"{{{name}}}", default)
    if len(written) > _ADDRESS_CHARACTERS_MAX:
        return ""
    try:
        # A relative one is relative to the document.
        address = urlsplit(urljoin(f"http://service{service.docs}", written))
        # JSON may hold half a character (a lone surrogate), which no address can.
        path = quote(address.path.rstrip("/"), safe="/%!$&'()*+,;=:@")
    except ValueError:
        return ""
    if address.scheme not in {"http", "https"}:
        return ""
    return path if _PATH.fullmatch(path) and not path.startswith("//") else ""


def _with_access(document: Json, service: ServiceConfig) -> Json:
    """Say which credentials we check before the service gets anything: for every operation."""
    schemes: Json = {}
    if service.access is not None and service.access.keys_env:
        text = "A key of this service, checked before it is woken."
        schemes[KEY_SCHEME] = {"type": "http", "scheme": "bearer", "description": text}
    if service.access is not None and service.access.basic_file:
        text = "A login of this service, checked before it is woken."
        schemes[LOGIN_SCHEME] = {"type": "http", "scheme": "basic", "description": text}
    if not schemes:
        return document
    components = _object(document, "components")
    components["securitySchemes"] = {**_object(components, "securitySchemes"), **schemes}
    return _with_security({**document, "components": components}, list(schemes))


def _with_security(document: Json, names: list[str]) -> Json:
    """Add our schemes as alternatives wherever a document says what an operation needs."""
    ours: list[Any] = [{name: []} for name in names]

    def secured(each: Json) -> Json:
        own = each.get("security")
        return {**each, "security": [*(own if isinstance(own, list) else []), *ours]}

    changed = _with_operations(document, lambda each: secured(each) if "security" in each else each)
    return secured(changed)


# Swagger 2.


def _with_host(document: Json, service: ServiceConfig) -> Json:
    shown = {**document, "host": _AUTHORITY, "schemes": [_SCHEME]}
    shown["basePath"] = _prefix(document.get("basePath"), None, service) or "/"
    return _with_operations(
        shown, lambda each: {key: value for key, value in each.items() if key != "schemes"}
    )


def _with_access_of_version_2(document: Json, service: ServiceConfig) -> Json:
    schemes: Json = {}
    if service.access is not None and service.access.keys_env:
        text = 'A key of this service, checked before it is woken. Write "Bearer KEY".'
        schemes[KEY_SCHEME] = {
            "type": "apiKey",
            "in": "header",
            "name": "Authorization",
            "description": text,
        }
    if service.access is not None and service.access.basic_file:
        text = "A login of this service, checked before it is woken."
        schemes[LOGIN_SCHEME] = {"type": "basic", "description": text}
    if not schemes:
        return document
    definitions = {**_object(document, "securityDefinitions"), **schemes}
    return _with_security({**document, "securityDefinitions": definitions}, list(schemes))


# Both.


def _with_operations(document: Json, change: Callable[[Json], Json]) -> Json:
    """Return a document with each of its path items and operations changed."""
    paths = {}
    for path, item in _object(document, "paths").items():
        paths[path] = item
        if isinstance(item, dict):
            operations = {
                key: change(item[key]) for key in _OPERATIONS if isinstance(item.get(key), dict)
            }
            paths[path] = change({**item, **operations})
    return {**document, "paths": paths}


def _object(document: Json, key: str) -> Json:
    value = document.get(key)
    return dict(value) if isinstance(value, dict) else {}
