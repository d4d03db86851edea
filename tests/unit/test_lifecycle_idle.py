"""autostart/lifecycle: when a ready service is stopped. Idle, busy, kept, evicted, stop failed."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from autostart import errors
from autostart.lifecycle import (
    Accept,
    AskBusy,
    BusyAnswered,
    BusyDue,
    Exited,
    Kept,
    LeaseReleased,
    LeaseRequested,
    Lost,
    Phase,
    Reconfigured,
    Removed,
    RestartRequested,
    Service,
    Stop,
    StopCause,
    StopDue,
    StopFailed,
    Stopped,
    StopRequested,
    transition,
)
from autostart.schedule import Now, plan
from tests.unit.lifecycle_places import (
    ASKED_FOR_BUSY,
    ATTEMPT,
    CONFIG,
    DRAINING,
    HOST,
    LOADING,
    NOW,
    READY,
    RUN,
    STOPPED,
    STOPPING,
    Place,
    lease,
    leased,
    place_of,
    service,
)
from tests.unit.lifecycle_world import WALL

NEVER = replace(CONFIG, idle_seconds=None)
HOUR = 3600.0
REMOVED = errors.UnknownHost(f"{HOST} was removed from the map")
LEAVING = errors.ShuttingDown("autostart is shutting down", retry_after_seconds=5.0)
HELD = errors.Held(f"{HOST} is held stopped by its operator")


# When.


@pytest.mark.parametrize(
    ("changes", "due"),
    [
        ({"last_use": NOW - 10.0}, NOW + 50.0),
        ({"last_use": NOW - 10.0, "kept_until": NOW + 7200.0}, NOW + 7200.0),
        ({"last_use": NOW - 10.0, "kept_until": NOW - 7200.0}, NOW + 50.0),
        ({"last_use": NOW - 90.0, "stop_again_at": NOW + 5.0}, NOW + 5.0),
        ({"last_use": NOW - 90.0, "busy_again_at": NOW + 30.0}, NOW + 30.0),
        ({"config": NEVER}, math.inf),
        ({"config": NEVER, "kept_until": NOW + 7200.0}, math.inf),
        ({"closed_by": LEAVING}, math.inf),
        ({"config": NEVER, "closed_by": REMOVED}, 0.0),
        ({"closed_by": REMOVED, "kept_until": NOW + 7200.0}, 0.0),
        ({"closed_by": REMOVED, "stop_again_at": NOW + 5.0}, NOW + 5.0),
        ({"closed_by": REMOVED, "busy_again_at": NOW + 30.0}, NOW + 30.0),
        ({"closed_by": HELD, "last_use": NOW - 10.0}, NOW + 50.0),
        ({"closed_by": HELD, "stop_failures": 1, "stop_again_at": NOW + 5.0}, NOW + 5.0),
    ],
)
def test_idle_date_is_computed_from_the_last_use(changes: dict[str, object], due: float) -> None:
    """idle after the last use that counts, but not while kept, busy, or in a stop's back-off."""
    assert due == service(READY, **changes).idle_due()


@pytest.mark.parametrize(
    ("changes", "at"),
    [
        ({}, NOW - 59.0),
        ({"answers": 1}, NOW - 59.0),
        ({"answers": 1, "last_use": NOW - 0.5}, NOW + 0.5),
        ({"since": NOW - 1.0}, NOW + 9.0),
        ({"since": NOW - 1.0, "answers": 1}, NOW - 59.0),
        ({"config": NEVER, "answers": 1}, NOW - 59.0),
        ({"kept_until": NOW + 7200.0}, NOW + 7200.0),
        ({"stop_again_at": NOW + 5.0}, NOW + 5.0),
        ({"busy_again_at": NOW + 30.0}, NOW + 30.0),
        ({"closed_by": LEAVING}, math.inf),
        ({"closed_by": REMOVED, "answers": 1}, NOW - 59.0),
    ],
)
def test_evicting_spares_what_is_kept_busy_or_unused(changes: dict[str, object], at: float) -> None:
    """To make room an idle service is stopped before its date; not what is kept, or busy, or just
    ready for a client that has yet to come back, or used within the last second.
    """
    assert at == service(READY, **changes).evictable_at()


@pytest.mark.parametrize("cause", ["idle", "evicted", "removed"])
@pytest.mark.parametrize(
    "changes",
    [
        {"leases": leased(1)},
        {"last_use": NOW, "kept_until": NOW + 1.0},
        {"busy_asked_at": NOW - 1.0},
        {"last_use": NOW, "busy_again_at": NOW + 1.0},
    ],
    ids=["leased", "kept", "asked", "busy"],
)
def test_due_stop_is_checked_again(cause: StopCause, changes: dict[str, object]) -> None:
    """A stop that was due when somebody looked does nothing if it is no longer."""
    before = service(READY, config=ASKED_FOR_BUSY, **changes)

    assert (before, ()) == transition(before, StopDue(cause), NOW)


@pytest.mark.parametrize("cause", ["idle", "evicted", "removed"])
def test_stop_asks_first_where_jobs_may_run(cause: StopCause) -> None:
    """A service with a busy path is asked before it is stopped, whatever for."""
    before = service(READY, config=ASKED_FOR_BUSY)
    after, commands = transition(before, StopDue(cause), NOW)

    assert (AskBusy(ATTEMPT, RUN, NOW, cause),) == commands
    assert (READY, NOW) == (place_of(after), after.busy_asked_at)


# Busy.


def answered(
    before: Service, busy: bool | None, *, cause: StopCause | None = "idle", seconds: float = 1.0
) -> Service:
    """Return the service after an answer to a question that was asked `seconds` ago."""
    asked = replace(before, busy_asked_at=NOW - seconds)
    event = BusyAnswered(ATTEMPT, NOW - seconds, cause, busy)
    after, _ = transition(asked, event, NOW)
    return after


@pytest.mark.parametrize(
    ("cause", "place"),
    [("idle", STOPPING), ("evicted", STOPPING), (None, READY)],
)
def test_service_without_jobs_is_stopped_if_it_is_due(
    cause: StopCause | None, place: Place
) -> None:
    """The answer false stops what was asked for a cause; a question to know stops nothing."""
    assert place == place_of(answered(service(READY, config=ASKED_FOR_BUSY), False, cause=cause))


@pytest.mark.parametrize("cause", ["idle", "evicted", None])
def test_job_restarts_the_idle_clock(cause: StopCause | None) -> None:
    """The answer true counts as a use, and it is asked again soon."""
    after = answered(service(READY, config=ASKED_FOR_BUSY), True, cause=cause)

    assert (READY, NOW, NOW + 30.0) == (place_of(after), after.last_use, after.busy_again_at)


@pytest.mark.parametrize(("idle", "again"), [(60.0, 30.0), (7.0, 7.0), (None, 30.0)])
def test_busy_service_is_asked_again_soon(idle: float | None, again: float) -> None:
    """After min(idle, 30 s)."""
    config = replace(ASKED_FOR_BUSY, idle_seconds=idle)

    assert NOW + again == answered(service(READY, config=config), True).busy_again_at


def test_stale_answer_stops_nothing() -> None:
    """An answer to an earlier question is dropped: it says nothing about now."""
    before = service(READY, config=ASKED_FOR_BUSY, busy_asked_at=NOW - 0.5)
    answer = BusyAnswered(ATTEMPT, NOW - 2.0, "evicted", False)

    assert (before, ()) == transition(before, answer, NOW)


def test_request_between_question_and_answer_is_asked_after() -> None:
    """A job that a request began after the service said no is not cut."""
    asked, _ = transition(service(READY, config=ASKED_FOR_BUSY), StopDue("evicted"), NOW)
    granted, _ = transition(asked, LeaseRequested(lease(9)), NOW + 0.1)
    released, _ = transition(granted, LeaseReleased(9), NOW + 0.2)
    answer = BusyAnswered(ATTEMPT, NOW, "evicted", False)

    assert (released, ()) == transition(released, answer, NOW + 0.3)


def test_answer_does_not_stop_under_a_monitor() -> None:
    """A lease that does not count protects like any other while it is open."""
    asked = service(READY, config=ASKED_FOR_BUSY, busy_asked_at=NOW - 1.0)
    granted, _ = transition(asked, LeaseRequested(lease(9, counts=False)), NOW)
    after, commands = transition(granted, BusyAnswered(ATTEMPT, NOW - 1.0, "idle", False), NOW)

    assert (READY, ()) == (place_of(after), commands)


@pytest.mark.parametrize("cause", ["idle", "evicted"])
def test_keep_between_question_and_answer_is_kept(cause: StopCause) -> None:
    """What an operator asked to keep is not stopped by an answer that was on its way."""
    asked = service(READY, config=ASKED_FOR_BUSY, busy_asked_at=NOW - 1.0)
    kept, _ = transition(asked, Kept(5, NOW + 7200.0), NOW)
    after, commands = transition(kept, BusyAnswered(ATTEMPT, NOW - 1.0, cause, False), NOW)

    assert (READY, ()) == (place_of(after), commands)


def tell_silence(before: Service, seconds: float) -> tuple[Service, float]:
    """Follow the plan with a service that never answers; return it and when it was stopped."""
    now, state = NOW, before
    while now < NOW + seconds:
        planned = plan({HOST: state}, Now(now, WALL))
        for _, event in planned.decisions:
            state, commands = transition(state, event, now)
            for command in commands:
                if isinstance(command, AskBusy):
                    silent = BusyAnswered(ATTEMPT, command.asked_at, command.cause, None)
                    now += 2.0
                    state, _ = transition(state, silent, now)
        if state.state is not before.state:
            return state, now
        now = max(now, plan({HOST: state}, Now(now, WALL)).look_again_at)
    raise AssertionError("never stopped")


def test_silence_counts_as_busy_for_five_minutes() -> None:
    """Errors keep it up for 5 minutes without leases, then it is stopped."""
    after, stopped_at = tell_silence(service(READY, config=ASKED_FOR_BUSY), 3600.0)

    assert STOPPING == place_of(after)
    assert 300.0 <= stopped_at - NOW <= 340.0


@pytest.mark.parametrize(("silent_since", "place"), [(NOW - 300.0, STOPPING), (NOW - 299.9, READY)])
def test_five_minutes_of_silence_are_enough(silent_since: float, place: Place) -> None:
    """Neither more nor less."""
    before = service(READY, config=ASKED_FOR_BUSY, busy_silent_since=silent_since)

    assert place == place_of(answered(before, None))


def test_silence_does_not_stop_what_is_kept() -> None:
    """Five minutes of silence are no reason to break a promise to an operator."""
    kept = service(READY, config=ASKED_FOR_BUSY, kept_until=NOW + 1800.0, busy_again_at=NOW)
    after, stopped_at = tell_silence(kept, 3600.0)

    assert STOPPING == place_of(after)
    assert stopped_at - NOW >= 1800.0


@pytest.mark.parametrize(
    ("counts", "silent_since"), [(True, None), (False, NOW - 200.0)], ids=["request", "monitor"]
)
def test_only_use_ends_the_silence(counts: bool, silent_since: float | None) -> None:
    """A request begins the five minutes anew; a monitor would keep a silent service for ever."""
    before = service(READY, config=ASKED_FOR_BUSY, busy_silent_since=NOW - 200.0)
    after, _ = transition(before, LeaseRequested(lease(9, counts=counts)), NOW)

    assert silent_since == after.busy_silent_since


def test_removed_service_with_a_job_is_not_asked_without_pause() -> None:
    """A job keeps it up after it left the map; it is asked again after 30 s, not at once."""
    after = answered(
        service(READY, config=ASKED_FOR_BUSY, closed_by=REMOVED), True, cause="removed"
    )

    assert NOW + 30.0 == after.idle_due()


def test_busy_path_that_left_the_map_is_not_asked() -> None:
    """After a reload without `busy` there is nobody to ask, and nothing to wait for."""
    before = service(READY, config=ASKED_FOR_BUSY, busy_again_at=NOW)
    reloaded, _ = transition(before, Reconfigured(CONFIG), NOW)
    after, commands = transition(reloaded, BusyDue(), NOW)

    assert (None, ()) == (after.busy_again_at, commands)


def test_drain_ends_after_the_last_lease_and_the_last_job() -> None:
    """Leases first, then the question, then the stop."""
    leaving = service(DRAINING, config=ASKED_FOR_BUSY)
    asked, asking = transition(leaving, LeaseReleased(1), NOW)
    busy, waits = transition(asked, BusyAnswered(ATTEMPT, NOW, None, True), NOW + 1.0)
    early = transition(busy, BusyDue(), NOW + 30.0)
    again, asking_again = transition(busy, BusyDue(), NOW + 31.0)
    done, stop = transition(again, BusyAnswered(ATTEMPT, NOW + 31.0, None, False), NOW + 32.0)

    assert (AskBusy(ATTEMPT, RUN, NOW, None),) == asking
    assert () == waits
    assert (busy, ()) == early
    assert (AskBusy(ATTEMPT, RUN, NOW + 31.0, None),) == asking_again
    assert (STOPPING, (Stop(ATTEMPT),)) == (place_of(done), stop)


@pytest.mark.parametrize(
    "changes",
    [
        {"busy_again_at": NOW + 0.1},
        {"busy_again_at": NOW, "busy_asked_at": NOW - 1.0},
        {"busy_again_at": NOW, "leases": leased(1)},
        {},
    ],
    ids=["too early", "asked", "leased", "not wanted"],
)
@pytest.mark.parametrize("place", [READY, DRAINING], ids=str)
def test_service_is_not_asked_when_it_is_not_due(place: Place, changes: dict[str, object]) -> None:
    """One question at a time, and none while a lease says more than the answer."""
    before = service(place, **({"config": ASKED_FOR_BUSY, "leases": {}} | changes))

    assert (before, ()) == transition(before, BusyDue(), NOW)


def test_drain_waits_for_the_answer_that_is_on_its_way() -> None:
    """A stop that comes while the service is asked asks no second time."""
    before = service(READY, config=ASKED_FOR_BUSY, busy_asked_at=NOW - 1.0)
    asked, commands = transition(before, StopRequested(5), NOW)
    after, stop = transition(asked, BusyAnswered(ATTEMPT, NOW - 1.0, "idle", False), NOW)

    assert (Accept(5),) == commands
    assert (STOPPING, (Stop(ATTEMPT),)) == (place_of(after), stop)


def test_drain_does_not_wait_for_an_earlier_date() -> None:
    """It is asked at once, whatever it said half a minute ago."""
    before = service(READY, config=ASKED_FOR_BUSY, busy_again_at=NOW + 30.0, leases=leased(1))
    draining, _ = transition(before, StopRequested(5, drain=True), NOW)

    assert None is draining.busy_again_at


def test_answer_of_a_run_that_was_lost_meanwhile_stops_nothing() -> None:
    """It refused a connection after it was asked: it is probed, not stopped."""
    asked = service(READY, config=ASKED_FOR_BUSY, busy_asked_at=NOW - 1.0)
    lost, _ = transition(asked, Lost(RUN.run), NOW)
    after, commands = transition(lost, BusyAnswered(ATTEMPT, NOW - 1.0, "idle", False), NOW)

    assert (LOADING, ()) == (place_of(after), commands)


# A stop that fails.


def test_failed_stop_ends_a_restart() -> None:
    """What could not be stopped goes on; a start that nobody waits for does not follow later."""
    stopping, _ = transition(service(READY), RestartRequested(5), NOW)
    ready, _ = transition(stopping, StopFailed(ATTEMPT, "device busy"), NOW)
    after, commands = transition(ready, Exited(RUN.run, "exit code 0"), NOW + 60.0)

    assert (STOPPED, ()) == (place_of(after), commands)


def test_failed_stop_teaches_no_start_time() -> None:
    """The hours since its start are not what a start takes."""
    before = service(STOPPING, usual_start_seconds=8.0, milestones={Phase.STARTING: NOW - HOUR})
    after, _ = transition(before, StopFailed(ATTEMPT, "device busy"), NOW)

    assert 8.0 == after.usual_start_seconds


def test_failed_stop_is_tried_again_with_back_off() -> None:
    """5 s, then 10 s, as long as nobody uses it: what was idle before the stop still is."""
    dates = []
    now, state = NOW, service(READY)
    for _ in range(3):
        stopping, _ = transition(state, StopDue("idle"), now)
        state, _ = transition(stopping, StopFailed(ATTEMPT, "device busy"), now)
        dates.append(state.idle_due() - now)
        now = state.idle_due()

    assert [5.0, 10.0, 20.0] == dates


def test_use_after_a_failed_stop_counts() -> None:
    """A request that came after the failed stop has its full idle time."""
    before = service(READY, stop_failures=1, stop_again_at=NOW + 5.0)
    granted, _ = transition(before, LeaseRequested(lease(9)), NOW)
    released, _ = transition(granted, LeaseReleased(9), NOW + 1.0)

    assert NOW + 61.0 == released.idle_due()


def test_operators_stop_that_failed_is_tried_again() -> None:
    """What is held is not left running for its idle time, nor for ever where that is never."""
    held, _ = transition(service(READY, config=NEVER), StopRequested(5, hold=True), NOW)
    after, _ = transition(held, StopFailed(ATTEMPT, "device busy"), NOW)

    assert NOW + 5.0 == after.idle_due()


def test_stop_that_failed_because_it_had_ended_is_a_stop() -> None:
    """The runtime could not say; the end of the run was reported meanwhile."""
    before = service(STOPPING, last_exit=(RUN.run, "killed by SIGTERM"))
    after, commands = transition(before, StopFailed(ATTEMPT, "no answer"), NOW)

    assert (STOPPED, ()) == (place_of(after), commands)


def test_removed_service_is_stopped_once_idle() -> None:
    """Its leases finish, then nothing keeps it, not even idle: never."""
    leased_, _ = transition(service(READY, config=NEVER, leases=leased(1)), Removed(), NOW)
    released, _ = transition(leased_, LeaseReleased(1), NOW)
    stopping, commands = transition(released, StopDue("removed"), NOW)
    stopped, _ = transition(stopping, Stopped(ATTEMPT), NOW)

    assert (Stop(ATTEMPT),) == commands
    assert STOPPED == place_of(stopped)
