"""autostart/schedule.py: what is due across the fleet, and when to look again."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

import pytest

from autostart import errors
from autostart.config import ServiceConfig, WarmWindow
from autostart.lifecycle import (
    BusyDue,
    Event,
    HoldDue,
    RetryDue,
    Service,
    StartDue,
    StopDue,
)
from autostart.schedule import WARM_LOOK_AHEAD, Now, Plan, is_warm, next_date, plan
from tests.unit.lifecycle_places import (
    ASKED_FOR_BUSY,
    CLEANING,
    CONFIG,
    DRAINING,
    FAILED,
    LOADING,
    NOW,
    PLACES,
    PREPARING,
    QUEUED,
    READY,
    RUN,
    STARTING,
    STOPPED,
    STOPPING,
    Place,
    leased,
    place_of,
    service,
    waiting,
)

WALL = datetime(2026, 6, 15, 12, 0, tzinfo=UTC)  # a Monday
NEVER = replace(CONFIG, idle_seconds=None)
HOUR = 3600.0


def planned(*fleet: Service, wall: datetime = WALL) -> Plan:
    """Return the plan of a fleet at NOW."""
    return plan({member.config.host: member for member in fleet}, Now(NOW, wall))


def named(host: str, place: Place, **changes: Any) -> Service:
    """Return the sample of that place under another host, exclusive unless said otherwise."""
    config = replace(changes.pop("config", CONFIG), host=host)
    exclusive = changes.pop("exclusive", "gpu0")
    return service(place, config=replace(config, exclusive=exclusive), **changes)


def due(*pairs: tuple[str, Event]) -> tuple[tuple[str, Event], ...]:
    return pairs


HOST = CONFIG.host


# One service.


@pytest.mark.parametrize(
    ("member", "decisions", "look_again_at"),
    [
        (service(READY, last_use=NOW - 60.0), [StopDue("idle")], math.inf),
        (service(READY, last_use=NOW - 59.0), [], NOW + 1.0),
        (service(READY, last_use=NOW - 90.0, kept_until=NOW + 5.0), [], NOW + 5.0),
        (service(READY, last_use=NOW - 90.0, kept_until=NOW), [StopDue("idle")], math.inf),
        (service(READY, last_use=NOW - 90.0, leases=leased(1)), [], math.inf),
        (service(READY, last_use=NOW - 90.0, busy_asked_at=NOW - 1.0), [], math.inf),
        (service(READY, last_use=NOW - 90.0, stop_again_at=NOW + 7.0), [], NOW + 7.0),
        (service(READY, config=NEVER), [], math.inf),
        (service(READY, last_use=NOW, busy_again_at=NOW + 30.0), [], NOW + 30.0),
        (service(READY, last_use=NOW, busy_again_at=NOW), [BusyDue()], NOW + 60.0),
        (service(READY, busy_again_at=NOW), [StopDue("idle"), BusyDue()], math.inf),
        (service(DRAINING), [], math.inf),
        (service(DRAINING, leases={}, busy_again_at=NOW), [BusyDue()], math.inf),
        (service(DRAINING, leases={}, busy_again_at=NOW + 3.0), [], NOW + 3.0),
        (service(FAILED, retry_at=NOW), [RetryDue()], math.inf),
        (service(FAILED, retry_at=NOW + 4.0), [], NOW + 4.0),
        (service(LOADING), [HoldDue()], math.inf),
        (
            service(LOADING, waiting=waiting(1) | waiting(2, deadline=NOW + 9.0)),
            [HoldDue()],
            math.inf,
        ),
        (service(LOADING, waiting=waiting(2, deadline=NOW + 9.0)), [], NOW + 9.0),
        (service(STOPPING, waiting=waiting(1, deadline=math.inf)), [], math.inf),
        (service(STOPPED), [], math.inf),
        (service(STOPPED, config=NEVER), [StartDue()], math.inf),
        (service(STOPPED, config=NEVER, retry_at=NOW + 5.0), [], NOW + 5.0),
        (service(STOPPED, kept_until=NOW + 5.0), [StartDue()], math.inf),
        (service(STOPPED, kept_until=NOW), [], math.inf),
        (service(FAILED, config=NEVER, retry_at=NOW + 5.0), [], NOW + 5.0),
        (service(CLEANING, config=NEVER), [], math.inf),
        (service(PREPARING, config=NEVER), [], math.inf),
        (service(STARTING, config=NEVER, waiting={}), [], math.inf),
    ],
    ids=repr,
)
def test_dates_of_one_service(
    member: Service, decisions: list[Event], look_again_at: float
) -> None:
    """What is due now is decided, what is due later is when to look again."""
    expected = Plan(tuple((HOST, event) for event in decisions), look_again_at)

    assert expected == planned(member)


REMOVED = errors.UnknownHost(f"{HOST} was removed from the map")
LEAVING = errors.ShuttingDown("autostart is shutting down", retry_after_seconds=5.0)
HELD = errors.Held(f"{HOST} is held stopped by its operator")


@pytest.mark.parametrize(
    ("member", "decisions"),
    [
        (service(READY, config=NEVER, closed_by=REMOVED), [StopDue("removed")]),
        (service(READY, last_use=NOW, closed_by=REMOVED), [StopDue("removed")]),
        (service(READY, closed_by=REMOVED, leases=leased(1)), []),
        (service(READY, closed_by=LEAVING), []),
        (service(STOPPED, config=NEVER, closed_by=HELD), []),
        (service(STOPPED, config=NEVER, closed_by=LEAVING), []),
        (service(STOPPED, kept_until=NOW + 5.0, closed_by=REMOVED), []),
        (service(FAILED, config=NEVER, closed_by=HELD), [RetryDue()]),
    ],
    ids=repr,
)
def test_closed_service_is_not_wanted(member: Service, decisions: list[Event]) -> None:
    """Held or leaving is not started; removed is stopped once idle; leaving is left alone."""
    assert tuple((HOST, event) for event in decisions) == planned(member).decisions


def test_empty_fleet_has_no_dates() -> None:
    """Nothing is due, ever."""
    assert Plan((), math.inf) == planned()


@pytest.mark.parametrize("place", PLACES, ids=str)
def test_own_date_is_the_one_of_the_plan(place: Place) -> None:
    """What the request path computes for one service is what the plan says about it alone."""
    for member in (service(place), service(place, waiting=waiting(1, deadline=NOW + 3.0))):
        wanted = planned(member)
        own = next_date(member)

        if place in (STOPPED, QUEUED, STARTING, PREPARING):
            assert own in (math.inf, NOW, NOW + 3.0)
        elif wanted.decisions:
            assert own <= NOW
        else:
            assert wanted.look_again_at == own


# The exclusive place.

A, B, C = "a.example.com", "b.example.com", "c.example.com"


@pytest.mark.parametrize(
    ("fleet", "decisions", "look_again_at"),
    [
        # Free: given to the oldest wish.
        ([named(A, QUEUED, waiting={})], due((A, StartDue())), math.inf),
        (
            [named(A, QUEUED, since=NOW - 1.0), named(B, QUEUED, since=NOW - 2.0)],
            due((B, StartDue()), (A, HoldDue()), (B, HoldDue())),
            math.inf,
        ),
        (
            [named(A, STOPPED, config=NEVER), named(B, QUEUED, waiting={})],
            due((B, StartDue())),
            math.inf,
        ),
        (
            [named(A, STOPPED, config=NEVER), named(B, STOPPED, config=NEVER)],
            due((A, StartDue())),
            math.inf,
        ),
        (
            [
                named(A, STOPPED, config=NEVER, retry_at=NOW + 5.0),
                named(B, STOPPED, config=NEVER),
            ],
            due((B, StartDue())),
            math.inf,
        ),
        (
            [
                named(A, STOPPED, config=NEVER, retry_at=NOW + 5.0),
                named(B, STOPPED, config=NEVER, retry_at=NOW + 3.0),
            ],
            (),
            NOW + 3.0,
        ),
        ([named(A, FAILED), named(B, QUEUED, waiting={})], due((B, StartDue()), (A, RetryDue())),
         math.inf),
        # Taken by one that is idle: evicted, a second after its last use.
        (
            [named(A, READY, last_use=NOW - 1.0), named(B, QUEUED, since=NOW, waiting={})],
            due((A, StopDue("evicted"))),
            NOW + 10.0,
        ),
        (
            [named(A, READY, last_use=NOW), named(B, QUEUED, since=NOW, waiting={})],
            (),
            NOW + 1.0,
        ),
        (
            [named(A, READY, config=NEVER), named(B, QUEUED, since=NOW, waiting={})],
            due((A, StopDue("evicted"))),
            NOW + 10.0,
        ),
        (
            [
                named(A, READY, last_use=NOW - 1.0),
                named(B, READY, last_use=NOW - 1.0),
                named(C, QUEUED, since=NOW, waiting={}),
            ],
            due((A, StopDue("evicted")), (B, StopDue("evicted"))),
            NOW + 10.0,
        ),
        # Taken by one that is not: waited for, until its turn is over.
        (
            [named(A, READY, leases=leased(1)), named(B, QUEUED, since=NOW, waiting={})],
            (),
            NOW + 10.0,
        ),
        (
            [named(A, READY, busy_asked_at=NOW), named(B, QUEUED, since=NOW, waiting={})],
            (),
            NOW + 10.0,
        ),
        (
            [
                named(A, READY, last_use=NOW, busy_again_at=NOW + 9.0),
                named(B, QUEUED, since=NOW, waiting={}),
            ],
            (),
            NOW + 9.0,
        ),
        (
            [named(A, READY, last_use=NOW, kept_until=NOW + HOUR), named(B, QUEUED, waiting={})],
            (),
            NOW + HOUR,
        ),
        (
            [named(A, READY, config=NEVER, kept_until=NOW + HOUR), named(B, QUEUED, waiting={})],
            (),
            NOW + HOUR,
        ),
        (
            [named(A, READY, last_use=NOW, stop_again_at=NOW + 5.0), named(B, QUEUED, waiting={})],
            (),
            NOW + 5.0,
        ),
        *(
            ([named(A, place, waiting={}), named(B, QUEUED, waiting={})], (), math.inf)
            for place in (PREPARING, STARTING, LOADING, DRAINING, STOPPING, CLEANING)
        ),
        ([named(A, READY, closed_by=LEAVING), named(B, QUEUED, waiting={})], (), math.inf),
        # Nobody is evicted for one that is merely wanted.
        ([named(A, READY, last_use=NOW), named(B, STOPPED, config=NEVER)], (), NOW + 60.0),
        # Another name is another place, and no name none.
        (
            [named(A, READY, last_use=NOW), named(B, QUEUED, waiting={}, exclusive="gpu1")],
            due((B, StartDue())),
            NOW + 60.0,
        ),
        (
            [named(A, READY, last_use=NOW), named(B, QUEUED, waiting={}, exclusive=None)],
            due((B, StartDue())),
            NOW + 60.0,
        ),
        (
            [named(A, STOPPED, config=NEVER, exclusive=None),
             named(B, STOPPED, config=NEVER, exclusive=None)],
            due((A, StartDue()), (B, StartDue())),
            math.inf,
        ),
    ],
)  # fmt: skip
def test_one_place_is_shared(
    fleet: list[Service], decisions: tuple[tuple[str, Event], ...], look_again_at: float
) -> None:
    """Oldest wish first; who is idle is evicted, who is leased, busy or kept is waited for."""
    assert Plan(decisions, look_again_at) == planned(*fleet)


USED = {"leases": leased(1), "last_use": NOW}
PATIENT = replace(CONFIG, hold_timeout_seconds=600.0)


@pytest.mark.parametrize(
    ("running", "queued", "at"),
    [
        # Half of the hold_timeout of 20 s after both: the wish, and being ready.
        ({"since": NOW - HOUR}, {"since": NOW - 4.0}, NOW + 6.0),
        ({"since": NOW - 3.0}, {"since": NOW - 100.0}, NOW + 7.0),
        # Never more than FAIR_SHARE_SECONDS_MAX.
        ({"since": NOW - HOUR}, {"since": NOW - 4.0, "config": PATIENT}, NOW + 6.0),
        # It was drained in vain for 30 s: it gets 30 s.
        (
            {"since": NOW - 12.0, "yielded_at": NOW - 42.0},
            {"since": NOW - 100.0},
            NOW + 18.0,
        ),
        ({"since": NOW - HOUR, "kept_until": NOW + 50.0}, {}, NOW + 50.0),
        ({"since": NOW - HOUR, "stop_again_at": NOW + 5.0}, {}, NOW + 5.0),
    ],
)
def test_turn_of_a_service_in_use_ends(
    running: dict[str, Any], queued: dict[str, Any], at: float
) -> None:
    """Who waits has its turn after a fair share of time, in which the other was up for as long."""
    first = named(A, READY, **(USED | running))
    second = named(B, QUEUED, **({"waiting": {}} | queued))
    fleet = {A: first, B: second}

    assert Plan((), at) == planned(first, second)
    assert due((A, StopDue("yielded"))) == plan(fleet, Now(at, WALL)).decisions


def test_turn_ends_for_the_first_of_several_to_have_waited_long_enough() -> None:
    """One that has little patience does not wait for the share of one that has much."""
    hasty = replace(CONFIG, hold_timeout_seconds=4.0)
    fleet = [
        named(A, READY, **USED),
        named(B, QUEUED, since=NOW - 1.0, waiting={}),
        named(C, QUEUED, since=NOW, waiting={}, config=hasty),
    ]

    assert Plan((), NOW + 2.0) == planned(*fleet)


@pytest.mark.parametrize(
    ("changes", "others", "decisions", "look_again_at"),
    [
        ({}, [named(B, QUEUED, waiting={})], (), math.inf),
        ({}, [], due((A, StartDue())), math.inf),
        ({}, [named(B, STOPPED)], due((A, StartDue())), math.inf),
        ({"exclusive": None}, [named(B, QUEUED, waiting={})], due((A, StartDue()), (B, StartDue())),
         math.inf),
        (
            {"waiting": waiting(9, deadline=NOW + 5.0)},
            [named(B, QUEUED, waiting={})],
            (),
            NOW + 5.0,
        ),
        (
            {"waiting": waiting(9)},
            [named(B, QUEUED, waiting={})],
            due((A, StartDue()), (A, HoldDue())),
            math.inf,
        ),
    ],
    ids=["waited for", "alone", "nobody waits", "no name now", "patient", "out of patience"],
)  # fmt: skip
def test_drain_that_helps_nobody_is_taken_back(
    changes: dict[str, Any],
    others: list[Service],
    decisions: tuple[tuple[str, Event], ...],
    look_again_at: float,
) -> None:
    """When nobody waits for its place any more, and before its own clients would be refused."""
    draining = named(A, DRAINING, **({"yielded_at": NOW - 5.0} | changes))

    assert Plan(decisions, look_again_at) == planned(draining, *others)


def test_drain_for_an_operator_is_not_taken_back() -> None:
    """He said so; who waits has its deadline."""
    draining = named(A, DRAINING, waiting=waiting(9))

    assert due((A, HoldDue())) == planned(draining).decisions


def test_refusal_names_who_is_in_the_way() -> None:
    """Who waited in vain for an exclusive place hears who had it."""
    fleet = [
        named(A, READY, **USED, kept_until=NOW + HOUR),
        named(B, QUEUED),
        named(C, QUEUED, exclusive="gpu1", waiting={}),
    ]

    assert due((C, StartDue()), (B, HoldDue(A))) == planned(*fleet).decisions


def test_place_that_is_free_at_the_end_of_patience_is_given() -> None:
    """Of a start and a refusal that are due at the same moment, the start comes first."""
    member = named(A, QUEUED, waiting=waiting(1, deadline=NOW))

    assert due((A, StartDue()), (A, HoldDue())) == planned(member).decisions


# Warm windows.

PARIS_WEEKDAYS = WarmWindow("0 8 * * mon-fri", 10 * HOUR, "Europe/Paris")


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def warm(*windows: WarmWindow, **changes: Any) -> ServiceConfig:
    return replace(CONFIG, warm=windows, **changes)


@pytest.mark.parametrize(
    ("wall", "expected"),
    [
        ("2026-06-15T05:59:59.999999", False),
        ("2026-06-15T06:00", True),
        ("2026-06-15T12:00", True),
        ("2026-06-15T15:59:59.999999", True),
        ("2026-06-15T16:00", False),
        ("2026-06-13T12:00", False),  # a Saturday
        ("2026-06-14T12:00", False),  # a Sunday
        ("2026-01-15T06:30", False),  # winter: 7:30 in Paris
        ("2026-01-15T07:00", True),
    ],
)
def test_window_is_open_from_its_cron_date_for_its_length(wall: str, expected: bool) -> None:
    """Opened at 8:00 of the window's own clock, and closed exactly its length later."""
    assert expected is is_warm((PARIS_WEEKDAYS,), utc(wall))


@pytest.mark.parametrize(
    ("weekday", "days"),
    [
        ("0", {"sun"}),
        ("7", {"sun"}),
        ("1", {"mon"}),
        ("6", {"sat"}),
        ("5-7", {"fri", "sat", "sun"}),
        ("0-2", {"sun", "mon", "tue"}),
        ("sun", {"sun"}),
        ("1-5", {"mon", "tue", "wed", "thu", "fri"}),
    ],
)
def test_weekdays_are_crontabs(weekday: str, days: set[str]) -> None:
    """0 and 7 are Sunday, 1 is Monday, whatever the scheduler's own numbers are."""
    window = WarmWindow(f"0 12 * * {weekday}", 60.0, "UTC")
    noons = [utc("2026-06-15T12:00") + timedelta(days=n) for n in range(7)]

    assert days == {f"{noon:%a}".lower() for noon in noons if is_warm((window,), noon)}


@pytest.mark.parametrize("place", [STOPPED, READY], ids=str)
def test_started_inside_a_window_it_is_warm(place: Place) -> None:
    """Whoever looks for the first time in the middle of a window finds it open."""
    member = service(place, config=warm(PARIS_WEEKDAYS), last_use=NOW - 2 * HOUR)
    expected = due((HOST, StartDue())) if place == STOPPED else ()

    assert Plan(expected, NOW + 4 * HOUR) == planned(member)


def test_window_that_closes_ends_what_idled_in_it() -> None:
    """At the end of the window an idle service is stopped, not a whole idle time later."""
    member = service(READY, config=warm(PARIS_WEEKDAYS), last_use=NOW - 2 * HOUR)
    now = planned(member, wall=utc("2026-06-15T15:59:59"))
    then = planned(member, wall=utc("2026-06-15T16:00"))

    assert Plan((), NOW + 1.0) == now
    assert due((HOST, StopDue("idle"))) == then.decisions


def test_window_that_is_shut_is_looked_for_a_day_at_most() -> None:
    """The next opening is when to look again, or a day ahead: a clock may be set."""
    member = service(STOPPED, config=warm(PARIS_WEEKDAYS))
    friday_evening = planned(member, wall=utc("2026-06-19T16:00"))
    sunday_evening = planned(member, wall=utc("2026-06-21T20:00"))

    assert NOW + WARM_LOOK_AHEAD.total_seconds() == friday_evening.look_again_at
    assert NOW + 10 * HOUR == sunday_evening.look_again_at


def test_windows_that_overlap_are_one() -> None:
    """From the first opening to the last closing it is warm, looked at at each end."""
    early = WarmWindow("0 8 * * *", 4 * HOUR, "UTC")
    late = WarmWindow("0 10 * * *", 4 * HOUR, "UTC")
    member = service(READY, config=warm(early, late), last_use=NOW - 9 * HOUR)
    hours = [hour for hour in range(24) if is_warm((early, late), utc(f"2026-06-15T{hour:02}:30"))]

    assert list(range(8, 14)) == hours
    assert Plan((), NOW + HOUR) == planned(member, wall=utc("2026-06-15T09:00"))
    assert Plan((), NOW + HOUR) == planned(member, wall=utc("2026-06-15T11:00"))
    assert Plan((), NOW + 2 * HOUR) == planned(member, wall=utc("2026-06-15T12:00"))


def test_window_that_overlaps_itself_stays_open() -> None:
    """Opened every hour for ninety minutes, it never shuts."""
    window = WarmWindow("0 * * * *", 1.5 * HOUR, "UTC")
    minutes = [utc("2026-06-15T00:00") + timedelta(minutes=n) for n in range(24 * 60)]

    assert all(is_warm((window,), minute) for minute in minutes)


@pytest.mark.parametrize(
    ("cron", "timezone", "opening", "closing"),
    [
        # Spring forward: 2:00 is 3:00. The window is as long as it says.
        ("0 8 * * *", "Europe/Paris", "2026-03-29T06:00", "2026-03-29T08:00"),
        ("0 1 * * *", "Europe/Paris", "2026-03-29T00:00", "2026-03-29T02:00"),
        ("30 2 * * *", "Europe/Paris", "2026-03-29T01:30", "2026-03-29T03:30"),
        ("0 8 * * *", "America/New_York", "2026-03-08T12:00", "2026-03-08T14:00"),
        ("30 1 * * *", "America/New_York", "2026-03-08T06:30", "2026-03-08T08:30"),
        ("30 2 * * *", "America/New_York", "2026-03-08T07:30", "2026-03-08T09:30"),
        # Fall back: 2:30 comes twice, and each opens it.
        ("0 8 * * *", "Europe/Paris", "2026-10-25T07:00", "2026-10-25T09:00"),
        ("0 1 * * *", "Europe/Paris", "2026-10-24T23:00", "2026-10-25T01:00"),
        ("30 2 * * *", "Europe/Paris", "2026-10-25T00:30", "2026-10-25T03:30"),
        ("0 8 * * *", "America/New_York", "2026-11-01T13:00", "2026-11-01T15:00"),
        ("30 1 * * *", "America/New_York", "2026-11-01T05:30", "2026-11-01T08:30"),
    ],
)
def test_window_keeps_its_clock_over_a_change_of_time(
    cron: str, timezone: str, opening: str, closing: str
) -> None:
    """It opens at the hour that people there read, and lasts its real length."""
    window = WarmWindow(cron, 2 * HOUR, timezone)
    first, end = utc(opening), utc(closing)
    step = timedelta(minutes=1)
    inside = [first + n * step for n in range((end - first) // step)]

    assert not is_warm((window,), first - timedelta(microseconds=1))
    assert all(is_warm((window,), wall) for wall in inside)
    assert not is_warm((window,), end)


@pytest.mark.parametrize(
    ("timezone", "day"),
    [
        ("Europe/Paris", "2026-03-29"),
        ("Europe/Paris", "2026-10-25"),
        ("America/New_York", "2026-03-08"),
        ("America/New_York", "2026-11-01"),
    ],
)
@pytest.mark.parametrize("cron", ["0 2 * * *", "30 1 * * *", "30 2 * * *", "*/20 * * * *"])
def test_every_edge_is_looked_at_on_the_day_of_a_change(cron: str, timezone: str, day: str) -> None:
    """Following look_again_at sees each opening and closing that asking every minute sees."""
    member = service(STOPPED, config=warm(WarmWindow(cron, 1800.0, timezone)))
    begin, end = utc(f"{day}T00:00") - timedelta(hours=12), utc(f"{day}T00:00") + timedelta(days=2)

    def open_at(wall: datetime) -> bool:
        return is_warm(member.config.warm, wall)

    minutes = [
        begin + timedelta(minutes=n) for n in range(int((end - begin).total_seconds()) // 60)
    ]
    edges = {
        wall for earlier, wall in itertools.pairwise(minutes) if open_at(earlier) != open_at(wall)
    }
    looks, wall = set(), begin
    while wall < end:
        look_again_at = plan({HOST: member}, Now(NOW, wall)).look_again_at
        assert look_again_at > NOW
        wall += timedelta(seconds=look_again_at - NOW)
        looks.add(wall.replace(microsecond=0))

    assert edges - looks == set()


@pytest.mark.parametrize(
    ("shift", "decisions"),
    [(timedelta(hours=1), due((HOST, StopDue("idle")))), (timedelta(hours=-1), ())],
    ids=["an hour on", "an hour back"],
)
def test_wall_clock_that_is_set_opens_and_shuts_windows(
    shift: timedelta, decisions: tuple[tuple[str, Event], ...]
) -> None:
    """The next look after the clock was set goes by what it shows, idleness by what has passed."""
    member = service(READY, config=warm(PARIS_WEEKDAYS), last_use=NOW - 2 * HOUR)
    wall = utc("2026-06-15T15:30")

    assert () == planned(member, wall=wall).decisions
    assert decisions == planned(member, wall=wall + shift).decisions


@pytest.mark.parametrize("shift", [timedelta(hours=1), timedelta(hours=-1)], ids=str)
def test_wall_clock_that_is_set_does_not_touch_idleness(shift: timedelta) -> None:
    """Deadlines, back-off and idle dates are monotonic."""
    fleet = [named(A, READY, last_use=NOW - 59.0), named(B, FAILED, retry_at=NOW + 5.0)]

    assert planned(*fleet) == planned(*fleet, wall=WALL + shift)


def test_warm_service_with_a_past_busy_date_is_asked_and_not_stopped() -> None:
    """Inside a window only the question is due."""
    config = replace(ASKED_FOR_BUSY, warm=(PARIS_WEEKDAYS,))
    member = service(READY, config=config, last_use=NOW - HOUR, busy_again_at=NOW)

    assert due((HOST, BusyDue())) == planned(member).decisions


def test_held_service_is_not_warm() -> None:
    """What its operator holds is not started by a window."""
    member = service(STOPPED, config=warm(PARIS_WEEKDAYS), closed_by=HELD)

    assert () == planned(member).decisions


def test_removed_service_is_not_warm() -> None:
    """What left the map is stopped although its window is open."""
    member = service(READY, config=warm(PARIS_WEEKDAYS), closed_by=REMOVED)

    assert due((HOST, StopDue("removed"))) == planned(member).decisions


# What holds for any fleet.


def random_service(random: Random, host: str) -> Service:
    """Return a service with dates around NOW, in any place."""
    near = [NOW - 100.0, NOW - 1.0, NOW, NOW + 1.0, NOW + 100.0]
    place = random.choice(PLACES)
    window = WarmWindow("*/7 * * * *", random.choice((60.0, 300.0, 900.0)), "Europe/Paris")
    config = replace(
        CONFIG,
        host=host,
        idle_seconds=random.choice((5.0, 60.0, None)),
        exclusive=random.choice((None, "gpu0")),
        warm=random.choice(((), (window,))),
    )
    held_back = place in (QUEUED, STARTING, LOADING, DRAINING, STOPPING)
    return service(
        place,
        config=config,
        since=random.choice(near[:3]),
        last_use=random.choice(near[:3]),
        kept_until=random.choice((0.0, *near)),
        retry_at=random.choice((0.0, *near)),
        stop_again_at=random.choice((0.0, *near)),
        yielded_at=random.choice((None, NOW - 50.0, NOW)),
        busy_again_at=random.choice((None, *near)),
        busy_asked_at=random.choice((None, None, NOW)),
        closed_by=random.choice((None, None, None, REMOVED, LEAVING, HELD)),
        leases=random.choice(({}, leased(7))) if place in (READY, DRAINING) else {},
        waiting=waiting(1, deadline=random.choice(near)) if held_back else {},
        endpoint=RUN if place in (LOADING, READY, DRAINING, STOPPING) else None,
    )


@pytest.mark.parametrize("seed", range(20))
def test_next_look_is_always_ahead_and_a_plan_is_made_once(seed: int) -> None:
    """look_again_at is later than now or never, and planning again plans the same."""
    random = Random(seed)
    for _ in range(50):
        hosts = [f"{letter}.example.com" for letter in "abcd"]
        fleet = {host: random_service(random, host) for host in hosts}
        now = Now(NOW, WALL + timedelta(seconds=random.uniform(0.0, HOUR)))
        first = plan(fleet, now)

        assert first.look_again_at > NOW, (seed, fleet)
        assert first == plan(fleet, now), (seed, fleet)


@pytest.mark.parametrize("seed", range(20))
def test_nothing_becomes_due_between_two_looks(seed: int) -> None:
    """What is decided at look_again_at was not decided just before, nor anything else."""
    random = Random(seed)
    for _ in range(50):
        fleet = {host: random_service(random, host) for host in ("a.example.com", "b.example.com")}
        first = plan(fleet, Now(NOW, WALL))
        ahead = min(first.look_again_at - NOW, 1000.0) * random.random()
        between = plan(fleet, Now(NOW + ahead, WALL + timedelta(seconds=ahead)))
        kept = {host for host, member in fleet.items() if NOW < member.kept_until <= NOW + ahead}

        # A keep that ends makes a stopped service no longer wanted; nothing is due for that.
        assert [d for d in first.decisions if d[0] not in kept] == [
            d for d in between.decisions if d[0] not in kept
        ], (seed, fleet)


def test_samples_of_this_file_stand_where_they_should() -> None:
    """The random services are of the places that they were made for."""
    random = Random(1)

    assert {place_of(random_service(random, HOST)) for _ in range(500)} == set(PLACES)
