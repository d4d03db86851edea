"""Durations and sizes as the map writes them: `500ms`, `90s`, `1h30m`; `500MB`, `1GiB`.

A number without a unit is refused: nobody remembers whether 60 meant seconds or minutes.

>>> parse_duration("1h30m")
5400.0
>>> parse_size("1GiB")
1073741824
>>> parse_duration(90)
Traceback (most recent call last):
ValueError: needs a unit, such as 90s
"""

from __future__ import annotations

import re
from itertools import pairwise

SECONDS = {"d": 86_400.0, "h": 3_600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
BYTES = {
    "B": 1,
    "kB": 10**3,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
    "KiB": 2**10,
    "MiB": 2**20,
    "GiB": 2**30,
    "TiB": 2**40,
}
# Beyond a year a duration is a mistake, and it would overflow the timers of some platforms.
DURATION_SECONDS_MAX = 365 * SECONDS["d"]

DURATION_PATTERN = r"^([0-9]+(\.[0-9]+)?(d|h|m|s|ms))+$"
SIZE_PATTERN = r"^[0-9]+(\.[0-9]+)?(B|kB|KB|MB|GB|TB|KiB|MiB|GiB|TiB)$"

_DURATION_PART = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|d|h|m|s)")
_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?)([A-Za-z]+)")


def parse_duration(written: object) -> float:
    """Return seconds; units stand from long to short, each at most once. Raises ValueError."""
    if _is_number(written) or (isinstance(written, str) and written.isdecimal()):
        raise ValueError(f"needs a unit, such as {written}s")
    allowed = "allowed: a duration such as 500ms, 90s, 15m, 1h30m"
    if not isinstance(written, str) or not re.fullmatch(DURATION_PATTERN, written):
        raise ValueError(allowed)
    parts = _DURATION_PART.findall(written)
    scales = [SECONDS[unit] for _, unit in parts]
    if any(scale <= following for scale, following in pairwise(scales)):
        raise ValueError(f"{allowed} (units from long to short, each once)")
    seconds = sum(float(number) * SECONDS[unit] for number, unit in parts)
    if seconds > DURATION_SECONDS_MAX:
        raise ValueError("allowed: at most 365d")
    return seconds


def parse_positive_duration(written: object) -> float:
    """Return seconds, more than none. Raises ValueError."""
    seconds = parse_duration(written)
    if seconds == 0:
        raise ValueError("allowed: more than 0s")
    return seconds


def parse_size(written: object) -> int:
    """Return bytes. Raises ValueError."""
    if _is_number(written) or (isinstance(written, str) and written.isdecimal()):
        raise ValueError(f"needs a unit, such as {written}MB")
    allowed = f"allowed: a size such as 500MB, 1GiB (units: {', '.join(BYTES)})"
    match = _SIZE.fullmatch(written) if isinstance(written, str) else None
    if match is None or match[2] not in BYTES:
        raise ValueError(allowed)
    return round(float(match[1]) * BYTES[match[2]])


def format_duration(seconds: float) -> str:
    """Return seconds as the map writes them, to the millisecond: 5400.0 → "1h30m"."""
    rest_milliseconds = round(seconds * 1000)
    if rest_milliseconds == 0:
        return "0s"
    written = ""
    for unit, scale in SECONDS.items():
        count, rest_milliseconds = divmod(rest_milliseconds, round(scale * 1000))
        written += f"{count}{unit}" if count else ""
    return written


def format_size(count: int) -> str:
    """Return bytes as the map writes them, exactly: 500_000_000 → "500MB"."""
    for unit in ("TiB", "TB", "GiB", "GB", "MiB", "MB", "KiB", "kB"):
        if count and count % BYTES[unit] == 0:
            return f"{count // BYTES[unit]}{unit}"
    return f"{count}B"


def _is_number(written: object) -> bool:
    return isinstance(written, int | float) and not isinstance(written, bool)
