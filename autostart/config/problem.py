"""One fault of the map, in the operator's words: key, value, and what is allowed."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from difflib import get_close_matches
from typing import get_args, get_type_hints

from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from autostart.config.document import Key
from autostart.config.model import (
    Access,
    AdminConfig,
    Map,
    ProxyConfig,
    ServiceConfig,
    Wake,
    WarmWindow,
)

# A value in a message: enough to recognise it, not enough to fill the screen.
VALUE_CHARACTERS_MAX = 60

_SECTIONS: dict[str, type] = {
    "proxy": ProxyConfig,
    "admin": AdminConfig,
    "access": Access,
    "wake": Wake,
    "warm": WarmWindow,
}
_ALLOWED = {
    "string_type": "allowed: a text; put numbers, true, false and dates in quotes",
    "string_too_short": "allowed: a text that is not empty",
    "bool_type": "allowed: true, false",
    "int_type": "allowed: a whole number, without quotes",
    "tuple_type": "allowed: a list, such as [a, b]",
    "dict_type": "allowed: a mapping, such as {key: value}",
    "dataclass_type": "allowed: a mapping, such as {key: value}",
    "invalid_key": "allowed: keys that are texts",
    "path_type": "allowed: a path",
}
_BOUNDS = {"greater_than_equal": ("ge", "at least"), "less_than_equal": ("le", "at most")}


@dataclass(frozen=True)
class Problem:
    """A fault at a key; `text` follows the key directly (": is required", " is 5: allowed …")."""

    key: Key
    text: str


def dotted(key: Key) -> str:
    """Return a key as messages write it: services.whisper.example.com.warm[0].cron."""
    written = ""
    for step in key:
        written += f"[{step}]" if isinstance(step, int) else f".{step}"
    return written.removeprefix(".")


def explained(
    details: ErrorDetails, at: Key = (), section: Callable[[Key], type] | None = None
) -> Problem:
    """Return what pydantic found, with keys as the file writes them; `at` stands before its key.

    `section` says what is around a key, to name the keys allowed there; default: the map's.
    """
    key: Key = (*at, *details["loc"])
    if key[-1] == "[key]":
        return Problem(key[:-1], f": {_allowed(details)}")
    match details["type"]:
        case "unexpected_keyword_argument":
            return Problem(key, f": unknown key; {_suggestion(key, section or _section)}")
        case "missing":
            return Problem(key, ": is required")
    # Values of environment variables are passwords more often than not.
    shown = "" if "environment" in key else f" is {_shown(details['input'])}"
    return Problem(key, f"{shown}: {_allowed(details)}")


def _allowed(details: ErrorDetails) -> str:
    context = details.get("ctx", {})
    kind = details["type"]
    if kind == "value_error":
        return str(context["error"])
    if kind == "literal_error":
        return "allowed: " + str(context["expected"]).replace("'", "").replace(" or ", ", ")
    if kind in _BOUNDS:
        name, words = _BOUNDS[kind]
        return f"allowed: {words} {context[name]}"
    return _ALLOWED.get(kind, details["msg"])


def _suggestion(key: Key, section: Callable[[Key], type]) -> str:
    allowed = keys_of(section(key))
    close = get_close_matches(str(key[-1]), allowed, n=1)
    if close:
        return f"did you mean {close[0]}?"
    return f"allowed: {', '.join(allowed)}"


def _section(key: Key) -> type:
    """Return what stands around a key: the innermost named section, else a service or the map."""
    # ("services", host, ...): a host may be called "wake", and names no section.
    names = [
        step for index, step in enumerate(key[:-1]) if not (key[0] == "services" and index == 1)
    ]
    for step in reversed(names):
        if step in _SECTIONS:
            return _SECTIONS[str(step)]
    return ServiceConfig if names else Map


def keys_of(section: type) -> list[str]:
    """Return the keys of a section as the map writes them, in order."""
    assert is_dataclass(section), section
    hints = get_type_hints(section, include_extras=True)
    keys = [_key(each.name, hints[each.name]) for each in fields(section)]
    if section is Map:
        keys.insert(keys.index("services"), "defaults")
    return [key for key in keys if not key.startswith("<")]


def _key(name: str, hint: object) -> str:
    for each in get_args(hint):
        if isinstance(each, FieldInfo) and each.validation_alias:
            return str(each.validation_alias)
    return name


def _shown(value: object) -> str:
    shown = json.dumps(value, ensure_ascii=False, default=str)
    if len(shown) > VALUE_CHARACTERS_MAX:
        return shown[:VALUE_CHARACTERS_MAX] + "…"
    return shown
