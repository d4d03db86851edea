"""What `autostart status` prints: a line per service, and a second one where there is more to say.

Pure: answers of the admin API in, text out.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

Answer = dict[str, Any]

COLUMNS = ("HOST", "STATE", "SINCE", "LEASES", "WAITING", "IDLE IN", "ATTEMPT")
NUMBERS = frozenset({"SINCE", "LEASES", "WAITING", "IDLE IN", "ATTEMPT"})
GAP = "  "
NOTE_INDENT = "    "
_UNITS = (("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1))
_CUT = "…"


def status_table(services: Sequence[Answer], *, width: int) -> str:
    """Return the services as aligned text; notes are cut at `width`, hosts never."""
    if not services:
        return "no service is declared"
    rows = [COLUMNS, *(row_of(service) for service in services)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(COLUMNS))]
    lines = [_line(rows[0], widths)]
    for service, row in zip(services, rows[1:], strict=True):
        lines.append(_line(row, widths))
        lines += [_cut(f"{NOTE_INDENT}{note}", width) for note in notes_of(service)]
    return "\n".join(lines)


def short_duration(seconds: float) -> str:
    """Return a duration for people, in at most two units: 0s, 42s, 2m05s, 3h10m, 4d."""
    rest = int(seconds)
    for index, (unit, scale) in enumerate(_UNITS):
        if rest >= scale:
            count, rest = divmod(rest, scale)
            if index + 1 == len(_UNITS) or unit == "d":
                return f"{count}{unit}"
            smaller, smaller_scale = _UNITS[index + 1]
            return f"{count}{unit}{rest // smaller_scale:02d}{smaller}"
    return "0s"


def local_date(date: str) -> str:
    """Return an ISO date as the clock on the wall shows it."""
    return f"{datetime.fromisoformat(date).astimezone():%Y-%m-%d %H:%M}"


def row_of(service: Answer) -> tuple[str, ...]:
    """Return a service's line, a cell for each of COLUMNS."""
    idle = service["idle_due_seconds"]
    return (
        service["host"],
        service["phase"] or service["state"],
        short_duration(service["since_seconds"]),
        str(len(service["leases"])),
        str(len(service["waiting"])),
        "-" if idle is None else short_duration(idle),
        str(service["attempt"]),
    )


def notes_of(service: Answer) -> list[str]:
    """Return what is special about a service, a line each."""
    notes = []
    if service["closed_by"] is not None:
        notes.append(f"closed: {service['closed_by']}")
    if service["progress"] is not None:
        notes.append(f"progress: {service['progress']}")
    if (device := service["device"]) is not None:
        notes.append(f"device: {device['kind'].upper()}: {device['reason']}")
    if service["kept_until"] is not None:
        notes.append(f"kept until {local_date(service['kept_until'])}")
    failure, retry = service["failure"], service["retry_in_seconds"]
    if failure is not None:
        again = "" if retry is None else f"next try in {short_duration(retry)}; "
        notes.append(f"last failure: {again}{failure['code']}: {failure['message']}")
    return notes


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    cells = [
        text.rjust(width) if name in NUMBERS else text.ljust(width)
        for name, text, width in zip(COLUMNS, row, widths, strict=True)
    ]
    return GAP.join(cells).rstrip()


def _cut(line: str, width: int) -> str:
    line = " ".join(line.splitlines())
    return line if len(line) <= width else line[: width - len(_CUT)] + _CUT
