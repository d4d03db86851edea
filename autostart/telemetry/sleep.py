"""How long each service was asleep (without a run) and awake, in all and by day. Values only.

Days are those of UTC. A time when autostart itself did not run counts as neither.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

from autostart.lifecycle import Service
from autostart.schedule import Now

# Today and the six days before it.
DAYS_MAX = 7


@dataclass(slots=True)
class Day:
    """One service's day, as far as it was counted."""

    asleep_seconds: float = 0.0
    awake_seconds: float = 0.0


class Sleep:
    """What was counted so far. `kept` is what `to_json` returned in an earlier process."""

    def __init__(self, kept: Mapping[str, Any] | None = None) -> None:
        # Since this process began.
        self.asleep_seconds: dict[str, float] = {}
        self.awake_seconds: dict[str, float] = {}
        self._counted_to: dict[str, float] = {}
        self._days: dict[date, dict[str, Day]] = _parse(kept or {})

    def pass_to(self, now: Now, host: str, service: Service) -> None:
        """Count what has passed since the last time in favour of what the service was until now."""
        # Its own `since` is later if it left the map meanwhile and has come back.
        counted_to = max(self._counted_to.get(host, service.since), service.since)
        seconds = max(0.0, now.monotonic - counted_to)
        self._counted_to[host] = max(counted_to, now.monotonic)
        if seconds == 0.0:
            return
        awake = service.is_running
        counted = self.awake_seconds if awake else self.asleep_seconds
        counted[host] = counted.get(host, 0.0) + seconds
        for day, part in _by_day(now.wall.astimezone(UTC), seconds):
            of_day = self._days.setdefault(day, {}).setdefault(host, Day())
            if awake:
                of_day.awake_seconds += part
            else:
                of_day.asleep_seconds += part

    def totals(self, now: Now, host: str, service: Service) -> tuple[float, float]:
        """Return the seconds asleep and awake since this process began, up to now.

        Counts nothing: it may be asked in another thread.
        """
        counted_to = max(self._counted_to.get(host, service.since), service.since)
        seconds = max(0.0, now.monotonic - counted_to)
        asleep, awake = self.asleep_seconds.get(host, 0.0), self.awake_seconds.get(host, 0.0)
        return (asleep, awake + seconds) if service.is_running else (asleep + seconds, awake)

    def days(self, host: str, today: date, count: int) -> list[tuple[date, Day]]:
        """Return so many days of a service up to today, oldest first; empty ones too."""
        dates = [today - timedelta(days=back) for back in reversed(range(count))]
        return [(day, self._days.get(day, {}).get(host, Day())) for day in dates]

    def forget_before(self, today: date) -> None:
        """Drop the days that are too long ago, and those to come: the clock was wrong."""
        first = today - timedelta(days=DAYS_MAX - 1)
        for day in list(self._days):
            if not first <= day <= today + timedelta(days=1):
                del self._days[day]

    def to_json(self) -> dict[str, Any]:
        """Return the days by date and host, each with the seconds asleep and awake."""
        return {
            day.isoformat(): {
                host: [round(each.asleep_seconds, 1), round(each.awake_seconds, 1)]
                for host, each in hosts.items()
            }
            for day, hosts in sorted(self._days.items())
        }


def _by_day(end: datetime, seconds: float) -> list[tuple[date, float]]:
    """Return which part of the seconds before `end` lies in which day, for the days we keep."""
    parts = []
    for _ in range(DAYS_MAX):
        midnight = datetime.combine(end.date(), time(), UTC)
        part = min(seconds, (end - midnight).total_seconds())
        parts.append((end.date(), part))
        seconds -= part
        if seconds <= 0:
            break
        end = midnight - timedelta(microseconds=1)
    return parts


def _parse(kept: Mapping[str, Any]) -> dict[date, dict[str, Day]]:
    """Return what `to_json` returned; raises what reading foreign data raises."""
    return {
        date.fromisoformat(day): {str(host): _day(*pair) for host, pair in hosts.items()}
        for day, hosts in kept.items()
    }


def _day(asleep: float, awake: float) -> Day:
    if not all(math.isfinite(each) and each >= 0 for each in (asleep, awake)):
        raise ValueError("a time that cannot be")
    return Day(float(asleep), float(awake))
