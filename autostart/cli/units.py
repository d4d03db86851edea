"""The units of systemd as text: the files of config/systemd with a program and a map filled in.

A unit that we write ends with a line that tells whether somebody has edited it since.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path

from autostart.config import Map, TcpAddress, listeners

SERVICE = "autostart.service"
SOCKET = "autostart.socket"
# Besides drain_timeout, as TimeoutStopSec= of the file says.
STOP_SECONDS = 20

_MARK = "# Written by autostart install. Unedited while the rest has the sha256 "
_MARKED = re.compile(rf"{re.escape(_MARK)}([0-9a-f]{{64}})\n\Z")
_PLAIN = re.compile(r"[A-Za-z0-9._/+:@,=-]+")


def template(name: str) -> str:
    """Return a file of config/systemd, which lies beside this module."""
    return (resources.files("autostart.cli") / "systemd" / name).read_text(encoding="utf-8")


def service_unit(declared: Map, *, program: Path, user: str, groups: Sequence[str]) -> str:
    """Return autostart.service for a map; `groups` are those that the user needs beside its own."""
    stop_seconds = math.ceil(declared.proxy.drain_timeout_seconds) + STOP_SECONDS
    return stamped(
        fill(
            template(SERVICE),
            {
                "Environment=AUTOSTART_CONFIG=": [_word(f"AUTOSTART_CONFIG={declared.path}")],
                "ExecStart=": [f"{_program(program)} serve"],
                "ExecReload=": [f"{_program(program)} reload"],
                "TimeoutStopSec=": [f"{stop_seconds}s"],
                "User=": [user],
                "Group=": [user],
                "SupplementaryGroups=": groups,
            },
        )
    )


def socket_unit(declared: Map, *, user: str) -> str:
    """Return autostart.socket: every listener of the map but admin's."""
    addresses = [at for key, at in listeners(declared).items() if key != "admin.listen"]
    written = [
        str(at).replace("localhost:", "127.0.0.1:")
        if isinstance(at, TcpAddress)
        else _literal(str(at.path))
        for at in addresses
    ]
    values = {"ListenStream=": written, "SocketUser=": [user], "SocketGroup=": [user]}
    return stamped(fill(template(SOCKET), values))


def fill(text: str, values: Mapping[str, Sequence[str]]) -> str:
    """Replace each line that begins with a key of `values` by a line for each of its values."""
    lines: list[str] = []
    used = set()
    for line in text.splitlines():
        prefix = next((prefix for prefix in values if line.startswith(prefix)), None)
        if prefix is None:
            lines.append(line)
            continue
        used.add(prefix)
        key = line.partition("=")[0]
        lines += [f"{key}={value}" for value in values[prefix]]
    assert used == set(values), (used, values)
    return "\n".join(lines) + "\n"


def stamped(text: str) -> str:
    """Return the text with a last line that holds for this text only."""
    return f"{text}{_MARK}{_digest(text)}\n"


def is_edited(text: str) -> bool:
    """Say whether a unit holds anything that `autostart install` did not write."""
    mark = _MARKED.search(text)
    return mark is None or mark[1] != _digest(text[: mark.start()])


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _literal(text: str) -> str:
    """Return the text where systemd would expand specifiers."""
    return text.replace("%", "%%")


def _word(text: str) -> str:
    """Return one word of a unit's line."""
    text = _literal(text)
    if _PLAIN.fullmatch(text):
        return text
    quoted = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{quoted}"'


def _program(path: Path) -> str:
    # In a command line a dollar begins a variable, too.
    return _word(str(path)).replace("$", "$$")
