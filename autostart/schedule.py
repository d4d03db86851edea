"""What is wanted across the fleet: which due dates have come, and when to look again.

Pure: `plan` takes the services and the time and returns events; whether each is still legal is
checked again by the lifecycle. Idling is a due date computed from the last release, so nothing
ticks: between two looks nothing can become due. Cron expressions are APScheduler's.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

from apscheduler.triggers.cron import CronTrigger

from autostart.config import WarmWindow, cron_fields
from autostart.lifecycle import (
    BusyDue,
    Event,
    HoldDue,
    Phase,
    RetryDue,
    Service,
    StartDue,
    State,
    StopDue,
)

# A warm window is looked for at most this far ahead; a map may be read again, a clock set.
WARM_LOOK_AHEAD = timedelta(days=1)
# How far clocks are put forward, at most, where daylight saving time begins.
SKIPPED_HOUR = timedelta(hours=1)
# After so long, or half of its hold_timeout if that is less, a service that waits for its exclusive
# place has its turn, if the one in use was up for as long. Of the usual 60 s of patience 50 are
# left for the answers under way to end and for the start of whoever waits next; and a start of
# seconds to a minute is not spent for less.
FAIR_SHARE_SECONDS_MAX = 10.0


@dataclass(frozen=True, slots=True)
class Now:
    """The two clocks: monotonic seconds for idleness and deadlines, wall time for warm windows."""

    monotonic: float
    wall: datetime


# When, whose, and what is due then.
_Date = tuple[float, str, Event]


@dataclass(frozen=True, slots=True)
class Plan:
    """Events that are due now, by host, and the monotonic time of the next look (inf: none)."""

    decisions: tuple[tuple[str, Event], ...]
    look_again_at: float


def plan(fleet: Mapping[str, Service], now: Now) -> Plan:
    """Return everything that is due at `now` and when something can next be."""
    dates: list[_Date] = []
    groups: dict[tuple[str | None, str], list[Service]] = defaultdict(list)
    wanted_at: dict[str, float] = {}
    look_again_at = math.inf
    holders = {each.config.exclusive: host for host, each in fleet.items() if each.is_running}
    for host, service in fleet.items():
        warm = is_warm(service.config.warm, now.wall)
        if service.config.warm:
            look_again_at = min(look_again_at, _next_edge(service, now))
        wanted_at[host] = service.retry_at if _is_wanted(service, now, warm=warm) else math.inf
        exclusive = service.config.exclusive
        is_queued = exclusive is not None and service.phase is Phase.QUEUED
        behind = holders.get(exclusive, "") if is_queued else ""
        dates.extend(_dates(service, warm=warm, behind=behind))
        # Without an exclusive name it has a place of its own, even if the last map gave it one.
        groups[exclusive, "" if exclusive else host].append(service)
    # First: a place that becomes free at the very end of somebody's patience is still his.
    dates[:0] = [date for members in groups.values() for date in _share(members, wanted_at, now)]
    look_again_at = min([look_again_at, *(at for at, _, _ in dates if at > now.monotonic)])
    due = tuple((host, event) for at, host, event in dates if at <= now.monotonic)
    return Plan(due, look_again_at)


def next_date(service: Service) -> float:
    """Return the earliest date of this service alone, past ones included; inf if it has none.

    Cheap, for the request path: a warm window is not looked at, so it may be earlier than needed.
    """
    return min((at for at, _, _ in _dates(service, warm=False)), default=math.inf)


def _dates(service: Service, *, warm: bool, behind: str = "") -> Iterator[_Date]:
    """Yield the dates of one service that concern no other."""
    host = service.config.host
    if service.waiting:
        yield min(lease.deadline for lease in service.waiting.values()), host, HoldDue(behind)
    if service.state is State.FAILED:
        yield service.retry_at, host, RetryDue()
    if service.leases or service.busy_asked_at is not None:
        return
    ready = service.state is State.READY
    if ready and not (warm and service.closed_by is None):
        yield service.idle_due(), host, StopDue("removed" if service.is_barred else "idle")
    # After the idle date: that one asks too, and stops it if it may.
    if service.busy_again_at is not None and (ready or service.phase is Phase.DRAINING):
        yield service.busy_again_at, host, BusyDue()


def _is_wanted(service: Service, now: Now, *, warm: bool) -> bool:
    """Whether a stopped service should be up although no request asks for it."""
    if service.state is not State.STOPPED or service.closed_by is not None:
        return False
    return warm or service.config.idle_seconds is None or service.kept_until > now.monotonic


def _share(members: list[Service], wanted_at: Mapping[str, float], now: Now) -> Iterator[_Date]:
    """Give the one place of these services away, oldest wish first.

    Who is idle is evicted, who is in use drains when its turn is over; it goes on if that helps
    nobody, or before its own clients would be refused for it.
    """
    queued = [service for service in members if service.phase is Phase.QUEUED]
    running = [service for service in members if service.is_running]
    if queued and running:
        for service in running:
            host = service.config.host
            if service.is_yielding and service.waiting:
                yield min(lease.deadline for lease in service.waiting.values()), host, StartDue()
            if service.state is not State.READY:
                continue
            if not service.leases and service.busy_asked_at is None:
                yield service.evictable_at(), host, StopDue("evicted")
            yield _turn_ends_at(service, queued), host, StopDue("yielded")
    elif queued:
        oldest = min(queued, key=lambda service: service.since)
        yield oldest.since, oldest.config.host, StartDue()
    elif not running:
        first = min(members, key=lambda member: max(wanted_at[member.config.host], now.monotonic))
        yield wanted_at[first.config.host], first.config.host, StartDue()
    else:
        for service in running:
            if service.is_yielding:
                yield service.since, service.config.host, StartDue()


def _turn_ends_at(service: Service, queued: list[Service]) -> float:
    """Return when a ready service drains for one of the queued ones, however it is used."""
    ends = (
        max(service.since, each.since)
        + min(each.config.hold_timeout_seconds / 2, FAIR_SHARE_SECONDS_MAX)
        for each in queued
    )
    return max(min(ends), service.yieldable_at())


def idle_due_seconds(service: Service, now: Now) -> float | None:
    """Return in how long it may be stopped for idleness; None while in use, or never. To be shown.

    Less than none is how long it is overdue: a stop takes a moment, one that fails is tried again.
    """
    if service.state is not State.READY or service.leases:
        return None
    if is_warm(service.config.warm, now.wall) and not service.is_barred:
        return None
    due = service.idle_due()
    return None if math.isinf(due) else due - now.monotonic


def is_warm(windows: tuple[WarmWindow, ...], wall: datetime) -> bool:
    """Say whether any window is open: it opens at each cron date and lasts `for_seconds`."""
    return any(_opened(window, wall) is not None for window in windows)


def _opened(window: WarmWindow, wall: datetime) -> datetime | None:
    """Return when the window that is open now opened, the first one where several overlap."""
    length = timedelta(seconds=window.for_seconds)
    opened = _fires(window, wall - length + timedelta(microseconds=1))
    return opened if opened is not None and opened <= wall else None


def _next_edge(service: Service, now: Now) -> float:
    """Return the monotonic time at which a warm window of the service next opens or closes.

    Of windows that overlap each end is an edge; it is looked again then.
    """
    edge = now.wall + WARM_LOOK_AHEAD
    for window in service.config.warm:
        opened = _opened(window, now.wall)
        if opened is not None:
            edge = min(edge, opened + timedelta(seconds=window.for_seconds))
            continue
        following = _fires(window, now.wall)
        if following is not None:
            edge = min(edge, following)
    return now.monotonic + (edge - now.wall).total_seconds()


def _fires(window: WarmWindow, after: datetime) -> datetime | None:
    """Return the first cron date at or after `after`, in UTC: lengths are real time over DST."""
    trigger = _trigger(window.cron, window.timezone)
    zone = ZoneInfo(window.timezone)
    start = after.astimezone(UTC)
    if start.astimezone(zone).utcoffset() != (start - SKIPPED_HOUR).astimezone(zone).utcoffset():
        # A date within an hour that clocks have just skipped is an hour later by the new clock.
        # The trigger knows of it only if it is asked by the old one.
        start -= SKIPPED_HOUR
    while True:
        fire: datetime | None = trigger.get_next_fire_time(None, start)
        if fire is None or fire >= after:
            return None if fire is None else fire.astimezone(UTC)
        start = fire.astimezone(UTC) + timedelta(microseconds=1)


@lru_cache(maxsize=256)
def _trigger(cron: str, timezone: str) -> CronTrigger:
    return CronTrigger(**cron_fields(cron), timezone=timezone)
