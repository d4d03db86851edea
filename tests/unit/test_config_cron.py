"""autostart/config/cron.py: cron expressions, as crontab(5) reads them."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import pytest
from apscheduler.triggers.cron import CronTrigger

from autostart.config.cron import cron_fields

WEEKDAYS = {
    "*": "*",
    "0": "sun",
    "7": "sun",
    "1": "mon",
    "6": "sat",
    "sun": "sun",
    "MON": "mon",
    "1-5": "mon,tue,wed,thu,fri",
    "mon-fri": "mon,tue,wed,thu,fri",
    "mon-5": "mon,tue,wed,thu,fri",
    "0-6": "*",
    "1-7": "*",
    "0-7": "*",
    "mon-sun": "*",
    "sun-sat": "*",
    "5-7": "fri,sat,sun",
    "fri-sun": "fri,sat,sun",
    "6-7": "sat,sun",
    "7-7": "sun",
    "sun-sun": "sun",
    "0-2": "mon,tue,sun",
    "sun-tue": "mon,tue,sun",
    "0,6": "sat,sun",
    "sat,sun": "sat,sun",
    "6,0,7": "sat,sun",
    "1,3,5": "mon,wed,fri",
    "1-3,fri": "mon,tue,wed,fri",
    "*/2": "tue,thu,sat,sun",
    "*/3": "wed,sat,sun",
    "*/1": "*",
    "1-5/2": "mon,wed,fri",
    "mon-fri/2": "mon,wed,fri",
    "0-6/3": "wed,sat,sun",
    "1-7/6": "mon,sun",
}
OTHERS = {
    "minute": {"*": "*", "0": "0", "59": "59", "0-59": "*", "*/15": "0,15,30,45", "5,1": "1,5",
               "10-20/5": "10,15,20", "00": "0", "*/60": "0", "1,1": "1"},
    "hour": {"*": "*", "23": "23", "8-10,20": "8,9,10,20", "*/6": "0,6,12,18"},
    "day": {"*": "*", "1": "1", "31": "31", "*/10": "1,11,21,31", "1-31": "*"},
    "month": {"*": "*", "12": "12", "jan": "1", "Jun-aug": "6,7,8", "*/3": "1,4,7,10",
              "jan,7": "1,7", "feb-12/5": "2,7,12"},
}  # fmt: skip
ORDER = ("minute", "hour", "day", "month")


def at(**fields: str) -> str:
    """Return an expression with these fields, and stars elsewhere."""
    return " ".join(fields.get(name, "*") for name in (*ORDER, "day_of_week"))


@pytest.mark.parametrize(("written", "expected"), WEEKDAYS.items())
def test_weekday_is_named(written: str, expected: str) -> None:
    """Numbers count from Sunday, 7 is Sunday too, and the scheduler gets names."""
    assert expected == cron_fields(at(day_of_week=written))["day_of_week"]


@pytest.mark.parametrize(
    ("name", "written", "expected"),
    [(name, *pair) for name, table in OTHERS.items() for pair in table.items()],
)
def test_field_is_written_out(name: str, written: str, expected: str) -> None:
    """Ranges, steps, lists and names become values."""
    fields = cron_fields(at(**{name: written}))

    assert {**dict.fromkeys((*ORDER, "day_of_week"), "*"), name: expected} == fields


@pytest.mark.parametrize(
    ("expression", "text"),
    [
        ("", "allowed: five fields, minute hour day month weekday, such as 0 8 * * mon-fri"),
        ("0 8 * *", "allowed: five fields, minute hour day month weekday, such as 0 8 * * mon-fri"),
        ("0 0 8 * * 1", ("allowed: five fields, minute hour day month weekday, "
         "such as 0 8 * * mon-fri")),
        ("@daily", "allowed: five fields, minute hour day month weekday, such as 0 8 * * mon-fri"),
        ("60 * * * *", "'60' is no minute; allowed: 0-59"),
        ("-1 * * * *", "'-1' is no minute; allowed: 0-59"),
        ("* 24 * * *", "'24' is no hour; allowed: 0-23"),
        ("* * 0 * *", "'0' is no day; allowed: 1-31"),
        ("* * L * *", "'l' is no day; allowed: 1-31"),
        ("* * ? * *", "'?' is no day; allowed: 1-31"),
        ("* * * 13 *", "'13' is no month; allowed: 1-12 or jan-dec"),
        ("* * * mon *", "'mon' is no month; allowed: 1-12 or jan-dec"),
        ("* * * * 8", "'8' is no weekday; allowed: 0-7 or sun-sat"),
        ("* * * * monday", "'monday' is no weekday; allowed: 0-7 or sun-sat"),
        ("* * * * 1#2", "'1#2' is no weekday; allowed: 0-7 or sun-sat"),
        ("* * * * 1,", "'' is no weekday; allowed: 0-7 or sun-sat"),
        ("* * * * ٣", "'٣' is no weekday; allowed: 0-7 or sun-sat"),
        ("* * * * ²", "'²' is no weekday; allowed: 0-7 or sun-sat"),
        ("1-2-3 * * * *", "'1-2-3' is no minute; allowed: 0-59"),
        ("*/0 * * * *", "'*/0' has a step of 0; allowed: 1 or more"),
        ("5/15 * * * *", "'5/15' has no end; write 5-59/15"),
        ("20-10 * * * *", "'20-10' runs backwards; write two ranges"),
        ("* * * * 5-1", "'5-1' runs backwards; write two ranges"),
        ("* * * * 5-0", "'5-0' runs backwards; write two ranges"),
        ("* * * * 7-1", "'7-1' runs backwards; write two ranges"),
        ("* * * * sat-mon", "'sat-mon' runs backwards; write two ranges"),
        ("0 8 1 * mon", "day and weekday are both restricted; write two windows instead"),
        ("0 8 30 2 *", "day 30 does not exist in these months"),
        ("0 8 31 4,6,9,11 *", "day 31 does not exist in these months"),
    ],
)  # fmt: skip
def test_bad_expression_says_what_is_allowed(expression: str, text: str) -> None:
    """What crontab would not take, or would take for something else than the scheduler."""
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        cron_fields(expression)


@pytest.mark.parametrize("expression", ["0 8 29 2 *", "0 8 31 4,5 *", "0 8 1-31 * mon"])
def test_rare_date_is_allowed(expression: str) -> None:
    """A date that comes at some time comes."""
    assert cron_fields(expression)


@pytest.mark.parametrize("written", WEEKDAYS)
def test_scheduler_fires_on_crontabs_weekdays(written: str) -> None:
    """Within a week the trigger fires on exactly the days that the fields name."""
    fields = cron_fields(at(minute="0", hour="12", day_of_week=written))
    trigger = CronTrigger(**fields, timezone=UTC)
    monday = datetime(2025, 1, 6, tzinfo=UTC)

    fired = []
    now = monday
    while (due := trigger.get_next_fire_time(None, now)) < monday + timedelta(days=7):
        fired.append(due.strftime("%a").lower())
        now = due + timedelta(seconds=1)

    every = "mon,tue,wed,thu,fri,sat,sun"
    assert WEEKDAYS[written].replace("*", every) == ",".join(fired)


@pytest.mark.parametrize(
    ("name", "written"), [(name, written) for name, table in OTHERS.items() for written in table]
)
def test_scheduler_understands_every_field(name: str, written: str) -> None:
    """What is written out is what APScheduler reads, and it fires."""
    trigger = CronTrigger(**cron_fields(at(**{name: written})), timezone=UTC)

    assert trigger.get_next_fire_time(None, datetime(2025, 1, 6, tzinfo=UTC)) is not None
