"""A value of the map as one word of nginx's configuration, or none at all.

nginx has no way to escape a `$`, and its words end at spaces, `;`, `{` and `}`; a comment ends with
its line. So a word stands bare, in quotes, or is refused, and what is put in as text says so by its
type: forgetting to quote is not possible.
"""

from __future__ import annotations

import re

from autostart.errors import ConfigError

# Nothing in it means anything to nginx, wherever it stands.
_BARE = re.compile(r"[A-Za-z0-9_./:\[\]*@%+,=-]+")


class Text(str):
    """Configuration as it is: a snippet, a comment, a word."""

    __slots__ = ()


def word(value: object) -> Text:
    """Return a value as one word; raises ConfigError if nginx cannot take it literally."""
    if isinstance(value, Text):
        return value
    text = str(value)
    if _BARE.fullmatch(text):
        return Text(text)
    if "$" in text or not text.isprintable():
        raise ConfigError(
            [f"{text!r} cannot stand in nginx's configuration: allowed: no $, no control character"]
        )
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return Text(f'"{escaped}"')


def comment(text: str) -> Text:
    """Return a text as one line of comment, whatever is in it."""
    return Text("# " + "".join(each if each.isprintable() else " " for each in text))
