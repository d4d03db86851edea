"""What a call says beyond its path, in its query or its body; anything unknown is refused."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from aiohttp import web

from autostart import config
from autostart.errors import BadCommand

_TRUE = frozenset({"1", "true", "yes", "on", ""})
_FALSE = frozenset({"0", "false", "no", "off"})


class Options:
    """The options of one call, of which it allows these names."""

    def __init__(self, written: Mapping[str, Any], allowed: tuple[str, ...]) -> None:
        for name in written:
            if name not in allowed:
                names = ", ".join(allowed) or "none"
                raise BadCommand(f"unknown option {name!r}; allowed: {names}")
        self._written = written

    def flag(self, name: str) -> bool:
        """Return whether it is set."""
        value = self._written.get(name, False)
        if isinstance(value, bool):
            return value
        word = str(value).lower()
        if word not in _TRUE | _FALSE:
            raise BadCommand(f"{name} is {value!r}; allowed: true, false")
        return word in _TRUE

    def word(self, name: str) -> str | None:
        """Return what is written, None if nothing is."""
        written = self._written.get(name)
        return None if written is None else str(written)

    def count(self, name: str, default: int, *, least: int = 0, most: int) -> int:
        """Return a number, of lines or of days."""
        word = str(self._written.get(name, default))
        if re.fullmatch("[0-9]{1,6}", word) is None or not least <= int(word) <= most:
            raise BadCommand(f"{name} is {word[:20]!r}; allowed: {least} to {most}")
        return int(word)

    def duration(self, name: str) -> float:
        """Return seconds, more than none."""
        written = self._written.get(name)
        try:
            seconds = config.parse_duration(written)
        except ValueError as error:
            raise BadCommand(f"{name} is {written!r}: {error}") from error
        if seconds == 0:
            raise BadCommand(f"{name} is {written!r}: allowed: more than 0s")
        return seconds


def query_options(request: web.Request, allowed: tuple[str, ...]) -> Options:
    """Return the options in the query of a call that has no body."""
    return Options(dict(request.query), allowed)


async def read_options(request: web.Request, allowed: tuple[str, ...]) -> Options:
    """Return the options in the query and the body of a command."""
    written: dict[str, Any] = dict(request.query)
    content = await request.read()
    if content.strip():
        try:
            body = json.loads(content)
        except (ValueError, RecursionError) as error:  # the latter of "[[[[…"
            raise BadCommand(f"the body is not JSON: {error}") from error
        if not isinstance(body, dict):
            raise BadCommand('the body is not a JSON object such as {"for": "2h"}')
        written |= body
    return Options(written, allowed)


def last_event_id(request: web.Request) -> int | None:
    """Return the id of the last event that a reader has seen, None if it does not say.

    A browser that connects again sends the header; the query is for its first time, when it cannot.
    """
    named = query_options(request, ("last_event_id",))
    written = request.headers.get("Last-Event-ID") or named.word("last_event_id")
    if written is None:
        return None
    # An id that is none of ours is that of a reader that knows nothing yet.
    return int(written) if re.fullmatch("[0-9]{1,20}", written) else 0
