"""autostart/lifecycle: what an operator's commands, a reload and a shutdown do, in each place."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

from autostart import errors
from autostart.config import ServiceConfig
from autostart.lifecycle import (
    Accept,
    AskBusy,
    Command,
    Event,
    Exited,
    Grant,
    HoldDue,
    Kept,
    LeaseReleased,
    LeaseRequested,
    Phase,
    ProbeSucceeded,
    Reconfigured,
    Refuse,
    Removed,
    RestartRequested,
    Service,
    ShutdownBegan,
    Start,
    StartDue,
    StartRequested,
    State,
    Stop,
    StopFailed,
    Stopped,
    StopRequested,
    Then,
    transition,
)
from tests.unit.lifecycle_places import (
    ASKED_FOR_BUSY,
    ATTEMPT,
    CLEANING,
    CONFIG,
    DRAINING,
    EXCLUSIVE,
    FAILED,
    HOST,
    LOADING,
    NOW,
    PREPARING,
    QUEUED,
    READY,
    RUN,
    STARTING,
    STOPPED,
    STOPPING,
    Place,
    Refused,
    in_short,
    lease,
    leased,
    place_of,
    service,
    waiting,
)

# What is more than its place: who uses it.
IDLE = service(READY)
IN_USE = service(READY, leases=leased(1))
WITH_JOBS = service(READY, config=ASKED_FOR_BUSY)
QUEUED_ALONE = service(QUEUED, waiting={}, then=Then.START)
LOADING_ALONE = service(LOADING, waiting={})
# It refused a connection, and streams to lease 2 while 1 waits; or while nobody does.
LOST_AND_WAITED_FOR = service(LOADING, leases=leased(2), milestones={Phase.LOADING: NOW - 6.0})
LOST = replace(LOST_AND_WAITED_FOR, waiting={})
LOST_ALONE = replace(LOST, leases={})
# Lease 2 is what is left of a run that died.
AFTER_A_CRASH = service(LOADING, leases=leased(2), waiting={})

ACCEPTED: tuple[Command, ...] = (Accept(5),)
LEASED: tuple[Refused, ...] = (Refused(5, errors.ServiceLeased),)
STOPS: tuple[Command, ...] = (Accept(5), Stop(ATTEMPT))
ASKS: tuple[Command, ...] = (Accept(5), AskBusy(ATTEMPT, RUN, NOW, None))
CUTS: tuple[Command | Refused, ...] = (Accept(5), Refused(1, errors.Held), Stop(ATTEMPT))
LETS_GO: tuple[Command | Refused, ...] = (Accept(5), Refused(1, errors.Held))

PLAIN = StopRequested(5)
DRAIN = StopRequested(5, drain=True)
FORCE = StopRequested(5, force=True)

Outcome = tuple[Place, tuple[Command | Refused, ...]]
STOP_ROWS: list[tuple[str, Service, dict[StopRequested, Outcome]]] = [
    (
        "stopped",
        service(STOPPED),
        {PLAIN: (STOPPED, ACCEPTED), DRAIN: (STOPPED, ACCEPTED), FORCE: (STOPPED, ACCEPTED)},
    ),
    (
        "queued, waited for",
        service(QUEUED),
        {PLAIN: (QUEUED, LEASED), DRAIN: (QUEUED, ACCEPTED), FORCE: (STOPPED, LETS_GO)},
    ),
    (
        "queued, nobody waits",
        QUEUED_ALONE,
        {PLAIN: (STOPPED, ACCEPTED), DRAIN: (STOPPED, ACCEPTED), FORCE: (STOPPED, ACCEPTED)},
    ),
    (
        "preparing",
        service(PREPARING),
        {PLAIN: (STOPPING, STOPS), DRAIN: (STOPPING, STOPS), FORCE: (STOPPING, STOPS)},
    ),
    (
        "starting, waited for",
        service(STARTING),
        {PLAIN: (STARTING, LEASED), DRAIN: (STARTING, ACCEPTED), FORCE: (STOPPING, CUTS)},
    ),
    (
        "loading, waited for",
        service(LOADING),
        {PLAIN: (LOADING, LEASED), DRAIN: (LOADING, ACCEPTED), FORCE: (STOPPING, CUTS)},
    ),
    (
        "loading, nobody waits",
        LOADING_ALONE,
        {PLAIN: (STOPPING, STOPS), DRAIN: (STOPPING, STOPS), FORCE: (STOPPING, STOPS)},
    ),
    (
        "loading again, streams to one",
        LOST,
        {PLAIN: (LOADING, LEASED), DRAIN: (LOADING, ACCEPTED), FORCE: (STOPPING, STOPS)},
    ),
    (
        "loading again, nobody waits",
        LOST_ALONE,
        {PLAIN: (STOPPING, STOPS), DRAIN: (STOPPING, STOPS), FORCE: (STOPPING, STOPS)},
    ),
    (
        "loading, clients of a dead run",
        AFTER_A_CRASH,
        {PLAIN: (LOADING, LEASED), DRAIN: (STOPPING, STOPS), FORCE: (STOPPING, STOPS)},
    ),
    (
        "ready, idle",
        IDLE,
        {PLAIN: (STOPPING, STOPS), DRAIN: (STOPPING, STOPS), FORCE: (STOPPING, STOPS)},
    ),
    (
        "ready, in use",
        IN_USE,
        {PLAIN: (READY, LEASED), DRAIN: (DRAINING, ACCEPTED), FORCE: (STOPPING, STOPS)},
    ),
    (
        "ready, may have jobs",
        WITH_JOBS,
        {PLAIN: (DRAINING, ASKS), DRAIN: (DRAINING, ASKS), FORCE: (STOPPING, STOPS)},
    ),
    (
        "draining",
        service(DRAINING, then=Then.START),
        {PLAIN: (DRAINING, ACCEPTED), DRAIN: (DRAINING, ACCEPTED), FORCE: (STOPPING, STOPS)},
    ),
    (
        "draining, waited for",
        service(DRAINING, leases=leased(2), waiting=waiting(1)),
        {PLAIN: (DRAINING, ACCEPTED), DRAIN: (DRAINING, ACCEPTED), FORCE: (STOPPING, CUTS)},
    ),
    (
        "stopping, waited for",
        service(STOPPING, waiting=waiting(1), then=Then.START),
        {PLAIN: (STOPPING, ACCEPTED), DRAIN: (STOPPING, ACCEPTED), FORCE: (STOPPING, LETS_GO)},
    ),
    (
        "cleaning",
        service(CLEANING, then=Then.START),
        {PLAIN: (CLEANING, ACCEPTED), DRAIN: (CLEANING, ACCEPTED), FORCE: (CLEANING, ACCEPTED)},
    ),
    (
        "failed",
        service(FAILED),
        {PLAIN: (STOPPED, ACCEPTED), DRAIN: (STOPPED, ACCEPTED), FORCE: (STOPPED, ACCEPTED)},
    ),
]
STOP_PARAMETERS = [
    pytest.param(
        before,
        replace(event, hold=hold),
        outcome,
        id=f"{name}, {'drain' if event.drain else 'force' if event.force else 'plain'}"
        f"{', hold' if hold else ''}",
    )
    for name, before, outcomes in STOP_ROWS
    for event, outcome in outcomes.items()
    for hold in (False, True)
]


@pytest.mark.parametrize(("before", "event", "outcome"), STOP_PARAMETERS)
def test_stop_is_refused_waits_or_cuts_as_the_operator_says(
    before: Service, event: StopRequested, outcome: Outcome
) -> None:
    """A plain stop cuts nobody, --drain waits for them, --force does not; --hold then holds."""
    after, commands = transition(before, event, NOW)
    place, told = outcome
    is_refused = told == LEASED
    if event.hold and told == ACCEPTED and before.state is State.STOPPING and before.waiting:
        told = LETS_GO  # nobody is held for a start that will not follow

    assert (place, told) == (place_of(after), in_short(commands))
    assert (event.hold and not is_refused) == isinstance(after.closed_by, errors.Held)
    assert is_refused or Then.START is not after.then


def test_refused_stop_names_who_uses_it() -> None:
    """The operator sees the first five requests, and how many more there are."""
    streams = {n: replace(lease(n), about=f"GET /{n}") for n in range(1, 8)}
    _, commands = transition(service(READY, leases=streams), PLAIN, NOW)
    text = f"{HOST} is in use by GET /1, GET /2, GET /3, GET /4, GET /5 and 2 more"

    assert (Refuse(5, errors.ServiceLeased(text)),) == commands


def test_refused_stop_counts_only_who_is_not_named() -> None:
    """Five of five are named, and there are no more."""
    _, commands = transition(service(READY, leases=leased(1, 2, 3, 4, 5)), PLAIN, NOW)
    text = f"{HOST} is in use by GET /, GET /, GET /, GET /, GET /"

    assert (Refuse(5, errors.ServiceLeased(text)),) == commands


def test_refused_stop_changes_nothing() -> None:
    """A stop that is refused does not hold, keep or hurry anything."""
    assert IN_USE == transition(IN_USE, StopRequested(5, hold=True), NOW)[0]


@pytest.mark.parametrize("before", [service(LOADING), LOST_AND_WAITED_FOR], ids=["first", "again"])
def test_drain_of_a_start_serves_who_waits_first(before: Service) -> None:
    """Who waited is granted; then nobody else comes in, and the last to leave is followed by it."""
    asked, _ = transition(before, DRAIN, NOW)
    draining, grants = transition(asked, ProbeSucceeded(ATTEMPT), NOW)
    state = draining
    for number in draining.leases:
        state, commands = transition(state, LeaseReleased(number), NOW)

    assert [1] == [command.id for command in grants if isinstance(command, Grant)]
    assert DRAINING == place_of(draining)
    assert (STOPPING, (Stop(ATTEMPT),)) == (place_of(state), commands)


def test_drain_of_a_start_is_over_with_its_stop() -> None:
    """A request that comes during that stop is served by a start that nobody has asked to stop."""
    asked, _ = transition(service(LOADING), DRAIN, NOW)
    draining, _ = transition(asked, ProbeSucceeded(ATTEMPT), NOW)
    stopping, _ = transition(draining, LeaseReleased(1), NOW)
    waited_for, _ = transition(stopping, LeaseRequested(lease(9)), NOW)
    started, _ = transition(waited_for, Stopped(ATTEMPT), NOW)

    assert (STARTING, Then.REST) == (place_of(started), started.then)


def test_drain_begins_when_it_is_asked_for() -> None:
    """`since` tells an operator for how long it has been draining."""
    after, _ = transition(IN_USE, DRAIN, NOW)

    assert (DRAINING, NOW) == (place_of(after), after.since)


def test_stop_ends_a_keep() -> None:
    """An operator who stops what is kept does not want it started again at once."""
    after, _ = transition(service(READY, kept_until=NOW + 7200.0), PLAIN, NOW)

    assert 0.0 == after.kept_until


def test_stop_ends_the_back_off() -> None:
    """What failed is forgotten: the next request starts."""
    after, _ = transition(service(FAILED, failures=4, retry_at=NOW + 60.0), PLAIN, NOW)
    _, commands = transition(after, LeaseRequested(lease(9)), NOW)

    assert (0, (Start(8),)) == (after.failures, commands)


# Hold.


def held(place: Place, **changes: Any) -> Service:
    """Return the service of that place as an operator's --hold leaves it."""
    after, _ = transition(service(place, **changes), StopRequested(5, force=True, hold=True), NOW)
    return after


@pytest.mark.parametrize(
    "before",
    [held(STOPPED), held(FAILED), held(STOPPING), held(READY), held(READY, leases=leased(1))],
    ids=repr,
)
def test_held_service_refuses_and_says_so(before: Service) -> None:
    """Neither stopped nor on its way down does it take a request until an operator starts it."""
    _, commands = transition(before, LeaseRequested(lease(9)), NOW)
    text = f"{HOST} is held stopped by its operator"

    assert (Refuse(9, errors.Held(text, retry_after_seconds=120.0)),) == commands


@pytest.mark.parametrize(
    "event", [StartRequested(6), RestartRequested(6), Kept(6, NOW + 60.0)], ids=repr
)
def test_operator_who_starts_ends_the_hold(event: Event) -> None:
    """Start, restart and keep all mean that it is wanted."""
    after, commands = transition(held(STOPPED), event, NOW)

    assert (STARTING, None) == (place_of(after), after.closed_by)
    assert (Accept(6), Start(8)) == commands


def test_hold_does_not_open_what_left_the_map() -> None:
    """Held or not, its host is unknown."""
    removed, _ = transition(service(READY), Removed(), NOW)
    after, _ = transition(removed, StopRequested(5, hold=True), NOW)

    assert isinstance(after.closed_by, errors.UnknownHost)


def test_held_service_is_not_started_because_it_was_wanted() -> None:
    """A start that became due before the hold is no longer."""
    before = held(STOPPED)

    assert (before, ()) == transition(before, StartDue(), NOW)


def test_reload_does_not_end_a_hold() -> None:
    """The map says nothing about what an operator holds."""
    after, _ = transition(held(STOPPED), Reconfigured(CONFIG), NOW)

    assert isinstance(after.closed_by, errors.Held)


# Start, restart, keep.


@pytest.mark.parametrize(
    "event", [StartRequested(6), RestartRequested(6), Kept(6, NOW + 60.0)], ids=repr
)
@pytest.mark.parametrize("completion", [Stopped(ATTEMPT), StopFailed(ATTEMPT, "x")], ids=repr)
def test_start_during_the_cleaning_does_not_wait_for_the_back_off(
    event: Event, completion: Event
) -> None:
    """An operator's start that comes while a failed one is cleaned up follows it at once."""
    asked, _ = transition(service(CLEANING, retry_at=NOW + 300.0), event, NOW)
    after, commands = transition(asked, completion, NOW)

    assert (STARTING, (Start(8),)) == (place_of(after), commands)


@pytest.mark.parametrize("event", [StartRequested(6), RestartRequested(6)], ids=repr)
def test_start_ends_the_back_off(event: Event) -> None:
    """An operator need not wait."""
    _, commands = transition(service(FAILED, retry_at=NOW + 300.0), event, NOW)

    assert (Accept(6), Start(8)) == commands


def test_start_during_the_cleaning_is_forgotten_by_a_shutdown() -> None:
    """Nothing is begun by who is leaving."""
    asked, _ = transition(service(CLEANING), StartRequested(6), NOW)
    leaving, _ = transition(asked, ShutdownBegan(), NOW)
    after, commands = transition(leaving, Stopped(ATTEMPT), NOW)

    assert (FAILED, ()) == (place_of(after), commands)


def test_start_of_what_is_ready_counts_as_a_use() -> None:
    """An operator who starts it does not want it stopped a second later."""
    after, _ = transition(service(READY, last_use=NOW - 59.0), StartRequested(6), NOW)

    assert NOW + 60.0 == after.idle_due()


def test_start_during_a_stop_follows_it() -> None:
    """It is stopped, then started."""
    asked, _ = transition(service(STOPPING), StartRequested(6), NOW)
    after, commands = transition(asked, Stopped(ATTEMPT), NOW)

    assert (STARTING, (Start(8),)) == (place_of(after), commands)


def test_start_undoes_a_stop_that_waits_for_readiness() -> None:
    """The last word counts."""
    asked, _ = transition(service(LOADING), DRAIN, NOW)
    wanted, _ = transition(asked, StartRequested(6), NOW)
    after, _ = transition(wanted, ProbeSucceeded(ATTEMPT), NOW)

    assert READY == place_of(after)


@pytest.mark.parametrize("event", [StartRequested(6), RestartRequested(6)], ids=repr)
def test_start_of_a_queued_service_outlives_its_requests(event: Event) -> None:
    """It stays in the queue when those who waited with it have left."""
    asked, _ = transition(service(QUEUED), event, NOW)
    left, _ = transition(asked, LeaseReleased(1), NOW)
    overdue, _ = transition(asked, HoldDue(), NOW)

    assert (QUEUED, QUEUED) == (place_of(left), place_of(overdue))


RESTART_ROWS: list[tuple[str, Service, Outcome, Outcome]] = [
    ("ready, idle", IDLE, (STOPPING, STOPS), (STOPPING, STOPS)),
    ("ready, in use", IN_USE, (DRAINING, ACCEPTED), (STOPPING, STOPS)),
    ("ready, may have jobs", WITH_JOBS, (DRAINING, ASKS), (STOPPING, STOPS)),
    ("draining", service(DRAINING), (DRAINING, ACCEPTED), (STOPPING, STOPS)),
    ("stopping", service(STOPPING), (STOPPING, ACCEPTED), (STOPPING, ACCEPTED)),
    ("loading, waited for", service(LOADING), (STOPPING, STOPS), (STOPPING, STOPS)),
    ("loading again, streams to one", LOST, (DRAINING, ACCEPTED), (STOPPING, STOPS)),
    ("loading, clients of a dead run", AFTER_A_CRASH, (STOPPING, STOPS), (STOPPING, STOPS)),
]


@pytest.mark.parametrize(
    ("before", "plain", "forced"),
    [row[1:] for row in RESTART_ROWS],
    ids=[r[0] for r in RESTART_ROWS],
)
def test_restart_cuts_only_if_forced(before: Service, plain: Outcome, forced: Outcome) -> None:
    """A restart waits for leases and jobs, --force does not; either is followed by a start."""
    for force, outcome in ((False, plain), (True, forced)):
        after, commands = transition(before, RestartRequested(5, force), NOW)

        assert outcome == (place_of(after), commands)
        assert Then.START is after.then


@pytest.mark.parametrize("config", [CONFIG, EXCLUSIVE], ids=["alone", "exclusive"])
def test_restart_is_a_stop_and_a_start(config: ServiceConfig) -> None:
    """The next attempt follows the end of this one; an exclusive one queues for its place."""
    stopping, _ = transition(service(READY, config=config), RestartRequested(5), NOW)
    after, commands = transition(stopping, Stopped(ATTEMPT), NOW)

    if config is EXCLUSIVE:
        assert (QUEUED, (), Then.START) == (place_of(after), commands, after.then)
    else:
        assert (STARTING, (Start(8),)) == (place_of(after), commands)


def test_run_that_ends_during_a_restart_is_started_again() -> None:
    """The stop that the restart waits for may have become needless."""
    draining, _ = transition(IN_USE, RestartRequested(5), NOW)
    after, commands = transition(draining, Exited(RUN.run, "exit code 0"), NOW)

    assert (STARTING, (Start(8),)) == (place_of(after), commands)


@pytest.mark.parametrize(
    "event", [StartRequested(6), RestartRequested(6), Kept(6, NOW + 60.0)], ids=repr
)
@pytest.mark.parametrize("closing", [Removed(), ShutdownBegan()], ids=repr)
def test_closed_service_is_not_started_by_an_operator(event: Event, closing: Event) -> None:
    """What left the map, or what we are leaving, is refused."""
    closed, _ = transition(service(READY), closing, NOW)
    after, commands = transition(closed, event, NOW)
    assert closed.closed_by is not None

    assert (closed, (Refuse(6, closed.closed_by),)) == (after, commands)


# Reload and shutdown.


def test_removed_service_serves_who_is_there_and_refuses_who_comes() -> None:
    """Leases finish and those held are served; a new request finds no such host."""
    before = service(LOADING)
    removed, told = transition(before, Removed(), NOW)
    _, refused = transition(removed, LeaseRequested(lease(9)), NOW)
    _, granted = transition(removed, ProbeSucceeded(ATTEMPT), NOW)

    assert () == told
    assert (Refused(9, errors.UnknownHost),) == in_short(refused)
    assert [1] == [command.id for command in granted if isinstance(command, Grant)]


@pytest.mark.parametrize("ending", [Stopped(ATTEMPT), Exited(RUN.run, "exit code 0")], ids=repr)
def test_service_removed_during_its_stop_refuses_who_waits(ending: Event) -> None:
    """What is not declared is not started; whoever waited for that start is told."""
    place = STOPPING if isinstance(ending, Stopped) else DRAINING
    before = service(place, leases={}, waiting=waiting(1, deadline=math.inf))
    removed, _ = transition(before, Removed(), NOW)
    after, commands = transition(removed, ending, NOW)

    assert (STOPPED, {}) == (place_of(after), after.waiting)
    assert (Refused(1, errors.UnknownHost),) == in_short(commands)


def test_service_that_comes_back_to_the_map_is_open_again() -> None:
    """Removed and declared again before it stopped, it goes on as if nothing had been."""
    removed, _ = transition(IN_USE, Removed(), NOW)
    after, _ = transition(removed, Reconfigured(CONFIG), NOW)

    assert IN_USE == after


def test_shutdown_refuses_who_waits_and_lets_leases_end() -> None:
    """Held requests get 503 with Retry-After 5; what streams goes on."""
    before = service(LOADING, leases=leased(2))
    after, commands = transition(before, ShutdownBegan(), NOW)
    leaving = errors.ShuttingDown("autostart is shutting down", retry_after_seconds=5.0)

    assert (Refuse(1, leaving),) == commands
    assert {2} == set(after.leases)


@pytest.mark.parametrize("place", [STOPPED, QUEUED, STARTING, LOADING, STOPPING, FAILED], ids=repr)
def test_nobody_begins_to_wait_during_a_shutdown(place: Place) -> None:
    """A request that would need a start, or the end of one, is refused at once."""
    leaving, _ = transition(service(place, waiting={}), ShutdownBegan(), NOW)
    _, commands = transition(leaving, LeaseRequested(lease(9)), NOW)

    assert [9] == [command.id for command in commands if isinstance(command, Refuse)]


def test_a_ready_service_answers_the_last_requests_of_a_shutdown() -> None:
    """A connection that was open before may bring one more request: it needs no start."""
    leaving, _ = transition(service(READY), ShutdownBegan(), NOW)
    after, commands = transition(leaving, LeaseRequested(lease(9)), NOW)

    assert (Grant(9, RUN),) == commands
    assert 9 in after.leases


def test_shutdown_is_final() -> None:
    """A reload that comes during the shutdown neither opens a service nor stops it."""
    leaving, _ = transition(service(READY), ShutdownBegan(), NOW)
    removed, _ = transition(leaving, Removed(), NOW)
    after, _ = transition(removed, Reconfigured(CONFIG), NOW)

    assert leaving == after
    assert math.inf == after.idle_due()
