"""autostart/config/quantity.py: durations and sizes as the map writes them."""

from __future__ import annotations

import re

import pytest

from autostart.config.quantity import (
    DURATION_PATTERN,
    SIZE_PATTERN,
    format_duration,
    format_size,
    parse_duration,
    parse_positive_duration,
    parse_size,
)

DURATIONS = {
    "0s": 0.0,
    "0ms": 0.0,
    "500ms": 0.5,
    "1s": 1.0,
    "90s": 90.0,
    "1.5s": 1.5,
    "15m": 900.0,
    "1h30m": 5_400.0,
    "1h": 3_600.0,
    "2d": 172_800.0,
    "1d1h1m1s1ms": 90_061.001,
    "1m500ms": 60.5,
    "365d": 31_536_000.0,
}
ALLOWED_DURATION = "allowed: a duration such as 500ms, 90s, 15m, 1h30m"
ORDER = f"{ALLOWED_DURATION} (units from long to short, each once)"
BAD_DURATIONS: dict[object, str] = {
    15: "needs a unit, such as 15s",
    1.5: "needs a unit, such as 1.5s",
    "15": "needs a unit, such as 15s",
    "": ALLOWED_DURATION,
    "s": ALLOWED_DURATION,
    "15 m": ALLOWED_DURATION,
    " 15m": ALLOWED_DURATION,
    "15m\n": ALLOWED_DURATION,
    "15min": ALLOWED_DURATION,
    "15M": ALLOWED_DURATION,
    "-15m": ALLOWED_DURATION,
    "1.m": ALLOWED_DURATION,
    ".5m": ALLOWED_DURATION,
    "1e3s": ALLOWED_DURATION,
    "1w": ALLOWED_DURATION,
    "never": ALLOWED_DURATION,
    "٣s": ALLOWED_DURATION,
    None: ALLOWED_DURATION,
    True: ALLOWED_DURATION,
    ("15m",): ALLOWED_DURATION,
    "30m1h": ORDER,
    "1m1m": ORDER,
    "1ms1s": ORDER,
    "366d": "allowed: at most 365d",
    "365d1ms": "allowed: at most 365d",
}

SIZES = {
    "0B": 0,
    "1B": 1,
    "500MB": 500_000_000,
    "1GiB": 1_073_741_824,
    "1.5GB": 1_500_000_000,
    "64KiB": 65_536,
    "64kB": 64_000,
    "64KB": 64_000,
    "2MiB": 2_097_152,
    "3GB": 3_000_000_000,
    "1TB": 1_000_000_000_000,
    "1TiB": 1_099_511_627_776,
}
ALLOWED_SIZE = (
    "allowed: a size such as 500MB, 1GiB (units: B, kB, KB, MB, GB, TB, KiB, MiB, GiB, TiB)"
)
BAD_SIZES: dict[object, str] = {
    500: "needs a unit, such as 500MB",
    1.5: "needs a unit, such as 1.5MB",
    "500": "needs a unit, such as 500MB",
    "": ALLOWED_SIZE,
    "MB": ALLOWED_SIZE,
    "500 MB": ALLOWED_SIZE,
    "500M": ALLOWED_SIZE,
    "500Mb": ALLOWED_SIZE,
    "500mb": ALLOWED_SIZE,
    "-1MB": ALLOWED_SIZE,
    "1MB1kB": ALLOWED_SIZE,
    "unlimited": ALLOWED_SIZE,
    None: ALLOWED_SIZE,
    False: ALLOWED_SIZE,
}


@pytest.mark.parametrize(("written", "seconds"), DURATIONS.items())
def test_duration_is_seconds(written: str, seconds: float) -> None:
    """Every unit, and units together."""
    assert seconds == pytest.approx(parse_duration(written))


@pytest.mark.parametrize(("written", "text"), BAD_DURATIONS.items(), ids=repr)
def test_bad_duration_says_what_is_allowed(written: object, text: str) -> None:
    """A bare number is told its unit is missing, anything else how durations look."""
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        parse_duration(written)


def test_positive_duration_is_more_than_none() -> None:
    """Where waiting not at all makes no sense, 0s is refused."""
    assert parse_positive_duration("1ms") == pytest.approx(0.001)
    with pytest.raises(ValueError, match=r"^allowed: more than 0s$"):
        parse_positive_duration("0s")


@pytest.mark.parametrize(("written", "count"), SIZES.items())
def test_size_is_bytes(written: str, count: int) -> None:
    """Decimal and binary units."""
    assert count == parse_size(written)


@pytest.mark.parametrize(("written", "text"), BAD_SIZES.items(), ids=repr)
def test_bad_size_says_what_is_allowed(written: object, text: str) -> None:
    """Units are spelled in one way: "mb" might be anything."""
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        parse_size(written)


@pytest.mark.parametrize(
    ("seconds", "written"),
    [(0, "0s"), (0.0004, "0s"), (0.25, "250ms"), (1.5, "1s500ms"), (60, "1m"), (90, "1m30s"),
     (5400, "1h30m"), (86_400, "1d"), (90_061.001, "1d1h1m1s1ms")],
)  # fmt: skip
def test_duration_is_written_with_its_units(seconds: float, written: str) -> None:
    """To the millisecond, from long to short."""
    assert written == format_duration(seconds)


@pytest.mark.parametrize(
    ("count", "written"),
    [(0, "0B"), (1, "1B"), (500_000_000, "500MB"), (1_073_741_824, "1GiB"), (1500, "1500B"),
     (64_000, "64kB"), (65_536, "64KiB"), (10**12, "1TB")],
)  # fmt: skip
def test_size_is_written_exactly(count: int, written: str) -> None:
    """The largest unit that loses nothing."""
    assert written == format_size(count)


@pytest.mark.parametrize("written", DURATIONS)
def test_written_duration_is_read_as_the_same(written: str) -> None:
    """Writing and reading undo each other."""
    seconds = parse_duration(written)

    assert seconds == pytest.approx(parse_duration(format_duration(seconds)))


@pytest.mark.parametrize("written", SIZES)
def test_written_size_is_read_as_the_same(written: str) -> None:
    """Writing and reading undo each other."""
    count = parse_size(written)

    assert count == parse_size(format_size(count))


def test_patterns_for_editors_accept_what_is_accepted() -> None:
    """No editor marks a good value."""
    assert all(re.search(DURATION_PATTERN, written) for written in DURATIONS)
    assert all(re.search(SIZE_PATTERN, written) for written in SIZES)
