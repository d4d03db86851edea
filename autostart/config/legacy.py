"""docker-autostart's config.json → a map.

Its form: `{"services": {host: {"name", "composeDir", "proxyPort", "blocking", "containers"}}}`.
Knows what its proxy did: a blocking service held requests, another showed a waiting page; any HTTP
answer was ready enough, and it waited 30 seconds for one.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import yaml
from pydantic import (
    AfterValidator,
    ConfigDict,
    Field,
    StrictBool,
    StringConstraints,
    TypeAdapter,
    ValidationError,
)

from autostart.config.address import PORT_MAX
from autostart.config.document import Key
from autostart.config.form import parse_host
from autostart.config.problem import dotted, explained
from autostart.errors import ConfigError

_HEAD = """\
# Made from docker-autostart's config.json by autostart import. Next: autostart check.
"""
_READY = "  # any HTTP answer; a path that answers 2xx only when it can work is better"
_WIDTH_UNLIMITED = 10_000

_Text = Annotated[str, StringConstraints(min_length=1)]


@dataclass(frozen=True)
class _Service:
    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    compose: Annotated[_Text, Field(validation_alias="composeDir")]
    port: Annotated[int, Field(validation_alias="proxyPort", strict=True, ge=1, le=PORT_MAX)]
    name: str = ""
    blocking: StrictBool = True
    containers: tuple[_Text, ...] = ()


@dataclass(frozen=True)
class _File:
    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    services: dict[Annotated[str, AfterValidator(parse_host)], _Service]


def _section(key: Key) -> type:
    return _File if len(key) == 1 else _Service


_FILE = TypeAdapter(_File)


def from_legacy(text: str) -> str:
    """Return the map as YAML; raises ConfigError where the text is no such config.json."""
    try:
        content = json.loads(text, object_pairs_hook=_without_doubles)
    except json.JSONDecodeError as error:
        raise ConfigError([f"config.json:{error.lineno}: not JSON: {error.msg}"]) from error
    if not isinstance(content, dict):
        raise ConfigError(["config.json: allowed: an object with the key services"])
    try:
        services = _FILE.validate_python(content).services
    except ValidationError as error:
        faults = error.errors(include_url=False)
        problems = [explained(fault, section=_section) for fault in faults]
        raise ConfigError(
            [f"config.json: {dotted(each.key)}{each.text}" for each in problems]
        ) from error
    if len(services) < len(content["services"]):
        raise ConfigError(["config.json: services: a host is written twice, in other letters"])
    if not services:
        return f"{_HEAD}services: {{}}\n"
    sections = [_written(host, service) for host, service in services.items()]
    return _HEAD + "services:\n" + "\n".join(sections)


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Refuse a key that stands twice: json would keep the last and drop a service."""
    for index, (key, _) in enumerate(pairs):
        if key in dict(pairs[:index]):
            raise ConfigError([f"config.json: {key} is written twice"])
    return dict(pairs)


def _written(host: str, service: _Service) -> str:
    keys: dict[str, object] = {
        "name": service.name or host,
        "compose": service.compose,
        "containers": list(service.containers),
        "port": service.port,
        "ready": "any",
        "mode": "hold" if service.blocking else "page",
    }
    if not service.containers:
        # None listed meant all of them, which is also what an absent key means.
        del keys["containers"]
    lines = [f"    {key}: {_scalar(value)}" for key, value in keys.items()]
    lines = [line + _READY if line.endswith("ready: any") else line for line in lines]
    return "\n".join([f"  {_scalar(host)}:", *lines]) + "\n"


def _scalar(value: object) -> str:
    """Return a value as YAML on one line, quoted where YAML would read it as something else."""
    written: str = yaml.safe_dump(
        value, default_flow_style=True, allow_unicode=True, width=_WIDTH_UNLIMITED
    )
    return written.removesuffix("\n").removesuffix("\n...")
