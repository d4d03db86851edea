"""The last days and the present in figures: GET /api/history and GET /api/usage."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime, time, timedelta
from typing import Any

from aiohttp import web

from autostart.admin.options import query_options
from autostart.lifecycle import Service
from autostart.telemetry import DAYS_MAX, Clock, Days, Sample, Start

# What a service's memory is counted in while it sleeps: decimal gigabytes, for hours.
_GB = 1e9
_HOUR_SECONDS = 3600.0

Usages = Callable[[], Awaitable[Mapping[str, Sample]]]


class Figures:
    """The two handlers. `usages` returns what everything that runs uses, none older than 2 s."""

    def __init__(
        self,
        *,
        snapshot: Callable[[], Mapping[str, Service]],
        days: Days,
        usages: Usages,
        clock: Clock,
    ) -> None:
        self._snapshot = snapshot
        self._days = days
        self._usages = usages
        self._clock = clock

    def add_to(self, application: web.Application) -> None:
        """Add the routes."""
        application.router.add_get("/api/history", self.history)
        application.router.add_get("/api/usage", self.usage)

    async def history(self, request: web.Request) -> web.Response:
        count = query_options(request, ("days",)).count("days", DAYS_MAX, least=1, most=DAYS_MAX)
        now, fleet = self._clock.now(), self._snapshot()
        self._days.pass_to(now, fleet)
        return web.json_response(history_answer(self._days, fleet, now.wall, count))

    async def usage(self, _: web.Request) -> web.Response:
        samples = await self._usages()
        return web.json_response([usage_answer(host, each) for host, each in samples.items()])


def history_answer(
    days: Days, fleet: Mapping[str, Service], wall: datetime, count: int
) -> dict[str, Any]:
    """Return the last days, today included; they begin at midnight, UTC."""
    today = wall.astimezone(UTC).date()
    since = datetime.combine(today - timedelta(days=count - 1), time(), UTC)
    return {
        "since": _date(since),
        "services": [_service(days, host, since, count) for host in fleet],
    }


def usage_answer(host: str, sample: Sample) -> dict[str, Any]:
    """Return what a run used, and when; null where its engine did not say."""
    cpu = sample.cpu_seconds
    return {
        "host": host,
        "memory_bytes": sample.memory_bytes,
        "cpu_seconds": None if cpu is None else round(cpu, 3),
        "at": _date(sample.at.wall),
    }


def _service(days: Days, host: str, since: datetime, count: int) -> dict[str, Any]:
    last = since.date() + timedelta(days=count - 1)
    each = days.sleep.days(host, last, count)
    asleep = sum(day.asleep_seconds for _, day in each)
    usual = days.usages.usual_memory_bytes(host)
    return {
        "host": host,
        "asleep_seconds": round(asleep, 1),
        "awake_seconds": round(sum(day.awake_seconds for _, day in each), 1),
        "memory_bytes_usual": usual,
        "memory_saved_gb_hours": None
        if usual is None
        else round(usual / _GB * asleep / _HOUR_SECONDS, 3),
        "days": [
            {
                "date": date.isoformat(),
                "asleep_seconds": round(day.asleep_seconds, 1),
                "awake_seconds": round(day.awake_seconds, 1),
            }
            for date, day in each
        ],
        "starts": [_start(start) for start in days.starts.of(host, since)],
    }


def _start(start: Start) -> dict[str, Any]:
    return {
        "at": _date(start.at),
        "cause": start.cause,
        "outcome": start.outcome,
        "seconds": start.seconds,
        "phases": dict(start.phases),
    }


def _date(wall: datetime) -> str:
    return wall.astimezone(UTC).isoformat(timespec="milliseconds")
