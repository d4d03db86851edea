"""File → Map, or one ConfigError with every problem found, each with its line.

`defaults` stand under each service key by key: a key that a service writes replaces the whole
default, so that a service's own `access` never lets in whom another section names.

Reading goes on after a fault: the faulty keys are reported and left out, the rest is compared as
if they had not been written.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from autostart.config.address import Address, TcpAddress
from autostart.config.consistency import problems
from autostart.config.document import Document, Key, parse
from autostart.config.form import parse_host
from autostart.config.model import HOST_KEY, PATH_KEY, Map, ServiceConfig
from autostart.config.problem import Problem, dotted, explained
from autostart.errors import ConfigError

T = TypeVar("T")

_MAP = TypeAdapter(Map)
_SERVICE = TypeAdapter(ServiceConfig)


def load(path: Path, environ: Mapping[str, str] = os.environ) -> Map:
    """Return the map of a file; raises ConfigError with every problem found.

    `environ` says whether an admin token is set. Paths in the map are relative to its folder.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError([f"{path}: {error.strerror or error}"]) from error
    except UnicodeDecodeError as error:
        raise ConfigError([f"{path}: not UTF-8 text: {error.reason}"]) from error
    document = parse(text, str(path))
    if not isinstance(document.content, dict):
        raise ConfigError([f"{path}: allowed: a mapping with the key services"])
    declared, found = _read(document, Path(os.path.abspath(path)), environ)  # noqa: PTH100 - keeps links
    if found:
        lines = {_steps(_spelled(key)): line for key, line in document.lines.items()}
        found.sort(key=lambda problem: _line(problem.key, lines))
        raise ConfigError(
            [
                f"{path}:{_line(problem.key, lines)}: {dotted(problem.key)}{problem.text}"
                for problem in found
            ]
        )
    return declared


def _read(document: Document, path: Path, environ: Mapping[str, str]) -> tuple[Map, list[Problem]]:
    found = [Problem(_spelled(key), ": is written twice") for key in document.doubled]
    # A section with nothing but comments in it is null, and means an empty one.
    written = {key: value for key, value in document.content.items() if value is not None}
    if "services" not in document.content:
        found.append(Problem(("services",), ": is required"))
    defaults = _checked_defaults(written.pop("defaults", {}), path.parent, found)
    services = _by_host(written.get("services", {}), found)
    merged = {
        host: {**defaults, **own, HOST_KEY: host} if isinstance(own, dict) else own
        for host, own in services.items()
    }
    if isinstance(written.get("services", {}), dict):
        written["services"] = merged
    declared = _completed(
        _validated(_MAP, {**written, PATH_KEY: path}, path.parent, (), found), merged
    )
    own_keys = {
        host: frozenset(str(key) for key, value in own.items() if value is not None)
        for host, own in services.items()
        if isinstance(own, dict)
    }
    faulty = {problem.key for problem in found}
    # A key whose value is wrong contradicts nothing yet.
    found += [each for each in problems(declared, own_keys, environ) if each.key not in faulty]
    return declared, found


def _checked_defaults(written: object, folder: Path, found: list[Problem]) -> dict[str, Any]:
    """Return the defaults that can be merged: a fault in them is reported once, here."""
    if not isinstance(written, dict):
        found.append(Problem(("defaults",), ": allowed: a mapping of keys of a service"))
        return {}
    content = {**written, HOST_KEY: "defaults"}
    _validated(_SERVICE, content, folder, ("defaults",), found)
    return content


def _by_host(written: object, found: list[Problem]) -> dict[str, Any]:
    if not isinstance(written, dict):
        return {}
    services: dict[str, Any] = {}
    for name, own in written.items():
        try:
            host = parse_host(name)
        except ValueError as error:
            found.append(Problem(("services", str(name)), f": {error}"))
            continue
        if host in services:
            found.append(Problem(("services", host), ": is written twice, in other letters"))
        services[host] = own
    return services


def _validated(
    adapter: TypeAdapter[T], content: dict[str, Any], folder: Path, at: Key, found: list[Problem]
) -> T:
    """Return the value, after taking out of `content` what is wrong and adding it to `found`."""
    reported = False
    while True:
        try:
            return adapter.validate_python(content, context={"folder": folder})
        except ValidationError as error:
            faults = error.errors(include_url=False)
            # What is left out may be required elsewhere: that is no second fault.
            if not reported:
                found += [explained(fault, at) for fault in faults]
            reported = True
            _drop(content, faults[0]["loc"])


def _drop(content: dict[str, Any], key: Key) -> None:
    """Take out what is at `key`, or where nothing is there, what is around it."""
    taken_out = any(_take_out(content, key[:length]) for length in range(len(key), 0, -1))
    assert taken_out, f"nothing to take out at {key}"


def _take_out(content: dict[Any, Any], key: Key) -> bool:
    """Remove one key of nested mappings, in copies; a list on the way goes as a whole."""
    if key[0] not in content:
        return False
    inner = content[key[0]]
    if len(key) == 1 or not isinstance(inner, dict):
        del content[key[0]]
        return True
    content[key[0]] = inner = dict(inner)
    return _take_out(inner, key[1:])


def _completed(declared: Map, merged: Mapping[str, Any]) -> Map:
    """Fill in the defaults that depend on other keys."""
    portal = _origins(declared.portal, declared.proxy.listen) if declared.portal else ()
    services = {}
    for host, service in declared.services.items():
        written = merged[host]
        services[host] = replace(
            service,
            name=service.name or host,
            directory=service.directory if "directory" in written else declared.path.parent,
            cors=service.cors if "cors" in written else portal,
            hold_timeout_seconds=service.hold_timeout_seconds
            if "hold_timeout" in written
            else service.start_timeout_seconds,
        )
    return replace(declared, services=services)


def _origins(portal: str, listen: Address) -> tuple[str, ...]:
    """Return the origins of the portal's pages: https behind nginx, and plain under .localhost."""
    https = f"https://{portal}"
    if portal.endswith(".localhost") and isinstance(listen, TcpAddress):
        return (https, f"http://{portal}:{listen.port}")
    return (https,)


def _spelled(key: Key) -> Key:
    """Return a key as written with its host as we spell it."""
    if len(key) > 1 and key[0] == "services":
        try:
            return ("services", parse_host(key[1]), *key[2:])
        except ValueError:
            pass
    return key


def _steps(key: Key) -> tuple[str, ...]:
    # A key that YAML reads as a number stands in the text as digits.
    return tuple(str(step) for step in key)


def _line(key: Key, lines: Mapping[tuple[str, ...], int]) -> int:
    """Return the line of a key, or of the nearest key around it."""
    steps = _steps(key)
    for length in range(len(steps), 0, -1):
        if steps[:length] in lines:
            return lines[steps[:length]]
    return 1
