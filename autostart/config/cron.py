"""Cron expressions: five fields, as crontab(5) reads them.

minute hour day month weekday, each `*`, a value, a range `a-b`, either with a step `/n` (after a
range or `*` only), or a list of these. Months and weekdays may be named. Weekdays 0 and 7 are
Sunday; a range may end on Sunday (`5-7`, `fri-sun`).

Refused although some cron takes it: `5/15` (write `5-59/15`), day and weekday both restricted
(crontab means "either", the scheduler "both"; write two windows), a date that never comes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
# In the order of crontab's numbers, which start on Sunday.
WEEKDAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
SUNDAY = len(WEEKDAYS)
DAYS_OF_MONTH = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)

_ITEM = re.compile(r"(?:(?P<star>\*)|(?P<first>\w+)(?:-(?P<last>\w+))?)(?:/(?P<step>[0-9]+))?")


@dataclass(frozen=True)
class _Field:
    name: str
    least: int
    most: int
    names: tuple[str, ...] = ()
    first_name_is: int = 0

    @property
    def label(self) -> str:
        return "weekday" if self.names is WEEKDAYS else self.name


_FIELDS = (
    _Field("minute", 0, 59),
    _Field("hour", 0, 23),
    _Field("day", 1, 31),
    _Field("month", 1, 12, MONTHS, first_name_is=1),
    # One more than there are weekdays: 7 is Sunday too.
    _Field("day_of_week", 0, SUNDAY, WEEKDAYS),
)


def cron_fields(expression: str) -> dict[str, str]:
    """Return an expression as keyword arguments of APScheduler's CronTrigger.

    Every field is written out as "*" or a list of values, weekdays by name: APScheduler numbers
    them from Monday = 0, and reads steps of named values not at all. Raises ValueError.
    """
    written = expression.split()
    if len(written) != len(_FIELDS):
        raise ValueError(
            "allowed: five fields, minute hour day month weekday, such as 0 8 * * mon-fri"
        )
    values = {
        field.name: _values(field, text) for field, text in zip(_FIELDS, written, strict=True)
    }
    # 7 is Sunday like 0; the week then starts on Monday, as people list it.
    values["day_of_week"] = {day or SUNDAY for day in values["day_of_week"]}
    fields = {field.name: _written_out(field, values[field.name]) for field in _FIELDS}
    if fields["day"] != "*" and fields["day_of_week"] != "*":
        raise ValueError("day and weekday are both restricted; write two windows instead")
    if all(min(values["day"]) > DAYS_OF_MONTH[month - 1] for month in values["month"]):
        raise ValueError(f"day {min(values['day'])} does not exist in these months")
    return fields


def _values(field: _Field, text: str) -> set[int]:
    values: set[int] = set()
    for item in text.lower().split(","):
        match = _ITEM.fullmatch(item)
        if match is None:
            raise ValueError(f"{item!r} is no {field.label}; {_allowed(field)}")
        step = int(match["step"] or 1)
        if step == 0:
            raise ValueError(f"{item!r} has a step of 0; allowed: 1 or more")
        if match["star"]:
            # Sunday counts once, as 0: */2 is sun,tue,thu,sat.
            most = SUNDAY - 1 if field.names is WEEKDAYS else field.most
            values.update(range(field.least, most + 1, step))
        else:
            values.update(_range(field, match, step))
    return values


def _range(field: _Field, match: re.Match[str], step: int) -> range:
    first = _number(field, match["first"])
    if match["last"] is None:
        if match["step"]:
            raise ValueError(f"{match[0]!r} has no end; write {first}-{field.most}/{step}")
        return range(first, first + 1)
    last = _number(field, match["last"])
    if field.names is WEEKDAYS and match["last"] == "sun":
        last = SUNDAY if first else 0
    if last < first:
        raise ValueError(f"{match[0]!r} runs backwards; write two ranges")
    return range(first, last + 1, step)


def _number(field: _Field, text: str) -> int:
    if text in field.names:
        return field.names.index(text) + field.first_name_is
    if text.isascii() and text.isdecimal() and field.least <= int(text) <= field.most:
        return int(text)
    raise ValueError(f"{text!r} is no {field.label}; {_allowed(field)}")


def _allowed(field: _Field) -> str:
    names = f" or {field.names[0]}-{field.names[-1]}" if field.names else ""
    return f"allowed: {field.least}-{field.most}{names}"


def _written_out(field: _Field, values: set[int]) -> str:
    if field.names is WEEKDAYS:
        if len(values) == len(WEEKDAYS):
            return "*"
        return ",".join(WEEKDAYS[day % SUNDAY] for day in sorted(values))
    if len(values) == field.most - field.least + 1:
        return "*"
    return ",".join(str(value) for value in sorted(values))
