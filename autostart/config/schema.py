"""The JSON schema of the map, for editors: completion, keys in red, a sentence per key."""

from __future__ import annotations

from typing import Any

from pydantic import TypeAdapter

from autostart.config.address import TcpAddress
from autostart.config.model import HOST_KEY, PATH_KEY, Map
from autostart.config.quantity import format_duration, format_size

# Their defaults depend on other keys; their descriptions say how.
_DEPENDENT = frozenset({"name", "directory", "hold_timeout", "cors"})


def json_schema() -> dict[str, Any]:
    """Return the schema; defaults are written as the map writes them."""
    schema = TypeAdapter(Map).json_schema(mode="validation")
    sections = {**schema["$defs"], "Map": schema}
    for section in sections.values():
        _drop_unwritten(section)
        for key, value in section["properties"].items():
            _write_default(key, value)
    services = schema["properties"].pop("services")
    services.pop("default", None)
    schema["properties"]["defaults"] = {
        "$ref": "#/$defs/ServiceConfig",
        "description": "Any key of a service; it stands under every service.",
    }
    schema["properties"]["services"] = services
    schema["required"] = ["services"]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **schema,
        "title": "The map of autostart",
    }


def _drop_unwritten(section: dict[str, Any]) -> None:
    """Take out what is no key of the file, and titles that only repeat the key."""
    for key in (HOST_KEY, PATH_KEY):
        section["properties"].pop(key, None)
    required = [key for key in section.pop("required", []) if key in section["properties"]]
    if required:
        section["required"] = required
    for value in section["properties"].values():
        value.pop("title", None)


def _write_default(key: str, value: dict[str, Any]) -> None:
    default = value.pop("default", None)
    if default is None or key in _DEPENDENT:
        return
    match value.get("format"):
        case "duration":
            default = format_duration(default)
        case "size":
            default = format_size(default)
        case "address":
            default = str(TcpAddress(**default))
    value["default"] = default
