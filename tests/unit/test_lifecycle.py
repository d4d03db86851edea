"""autostart/lifecycle: the table of every place and event, and what never changes anything.

TABLE has one row for each event and each place: where the service is afterwards, and the commands.
SAME says that nothing at all changes. Rules with more sides than one are in test_lifecycle_rules,
what must hold in any order of events is in test_lifecycle_histories.
"""

from __future__ import annotations

from dataclasses import replace
from typing import get_args

import pytest

from autostart import errors
from autostart.lifecycle import (
    Accept,
    Adopted,
    Answered,
    BusyAnswered,
    BusyDue,
    Command,
    Event,
    Exited,
    Grant,
    HoldDue,
    Kept,
    LeaseReleased,
    LeaseRequested,
    Lost,
    Phase,
    Probe,
    ProbeSucceeded,
    Progressed,
    Reconfigured,
    Removed,
    RestartRequested,
    RetryDue,
    Service,
    ShutdownBegan,
    Start,
    StartDue,
    Started,
    StartFailed,
    StartRequested,
    State,
    Stop,
    StopDue,
    StopFailed,
    Stopped,
    StopRequested,
    Waited,
    transition,
)
from tests.unit.lifecycle_places import (
    ASKED_FOR_BUSY,
    ATTEMPT,
    CLEANING,
    CONFIG,
    DRAINING,
    FAILED,
    FAILURE,
    HOST,
    LOADING,
    NOW,
    OTHER_RUN,
    PLACES,
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

Row = tuple[Place | Command | Refused, ...]

SAME: Row = ()
START_TIMEOUT_AT = NOW + CONFIG.start_timeout_seconds
# A start has begun 8 s before NOW, and has start_timeout from there.
STARTED_TIMEOUT_AT = START_TIMEOUT_AT - 8.0

TABLE: tuple[tuple[Event, dict[Place, Row]], ...] = (
    (
        LeaseRequested(lease(9)),
        {
            STOPPED: (STARTING, Start(8)),
            QUEUED: (QUEUED,),
            PREPARING: (PREPARING, Refused(9, errors.Preparing)),
            STARTING: (STARTING,),
            LOADING: (LOADING,),
            READY: (READY, Grant(9, RUN)),
            DRAINING: (DRAINING,),
            STOPPING: (STOPPING,),
            CLEANING: (CLEANING, Refused(9, errors.BackingOff)),
            FAILED: (STARTING, Start(8)),
        },
    ),
    (
        LeaseReleased(1),
        {
            STOPPED: SAME,
            QUEUED: (STOPPED,),
            PREPARING: SAME,
            STARTING: (STARTING,),
            LOADING: (LOADING,),
            READY: SAME,
            DRAINING: (STOPPING, Stop(7)),
            STOPPING: SAME,
            CLEANING: SAME,
            FAILED: SAME,
        },
    ),
    (
        Answered(1),
        {
            STOPPED: SAME,
            QUEUED: SAME,
            PREPARING: SAME,
            STARTING: SAME,
            LOADING: SAME,
            READY: SAME,
            DRAINING: (DRAINING,),
            STOPPING: SAME,
            CLEANING: SAME,
            FAILED: SAME,
        },
    ),
    (
        Lost(RUN.run),
        {
            STOPPED: SAME,
            QUEUED: SAME,
            PREPARING: SAME,
            STARTING: SAME,
            LOADING: SAME,
            READY: (LOADING, Probe(7, RUN, START_TIMEOUT_AT)),
            DRAINING: SAME,
            STOPPING: SAME,
            CLEANING: SAME,
            FAILED: SAME,
        },
    ),
    (
        StartDue(),
        {
            STOPPED: (STARTING, Start(8)),
            QUEUED: (STARTING, Start(7)),
            PREPARING: SAME,
            STARTING: SAME,
            LOADING: SAME,
            READY: SAME,
            DRAINING: SAME,
            STOPPING: SAME,
            CLEANING: SAME,
            FAILED: SAME,
        },
    ),
    (
        StopDue("idle"),
        {
            STOPPED: SAME,
            QUEUED: SAME,
            PREPARING: SAME,
            STARTING: SAME,
            LOADING: SAME,
            READY: (STOPPING, Stop(7)),
            DRAINING: SAME,
            STOPPING: SAME,
            CLEANING: SAME,
            FAILED: SAME,
        },
    ),
    (
        BusyDue(),
        {
            STOPPED: SAME,
            QUEUED: SAME,
            PREPARING: SAME,
            STARTING: SAME,
            LOADING: SAME,
            READY: SAME,
            DRAINING: SAME,
            STOPPING: SAME,
            CLEANING: SAME,
            FAILED: SAME,
        },
    ),
    (
        RetryDue(),
        {
            STOPPED: SAME,
            QUEUED: SAME,
            PREPARING: SAME,
            STARTING: SAME,
            LOADING: SAME,
            READY: SAME,
            DRAINING: SAME,
            STOPPING: SAME,
            CLEANING: SAME,
            FAILED: (STOPPED,),
        },
    ),
    (
        HoldDue(),
        {
            STOPPED: SAME,
            QUEUED: (STOPPED, Refused(1, errors.StartTimeout)),
            PREPARING: SAME,
            STARTING: (STARTING, Refused(1, errors.StartTimeout)),
            LOADING: (LOADING, Refused(1, errors.StartTimeout)),
            READY: SAME,
            DRAINING: SAME,
            STOPPING: SAME,
            CLEANING: SAME,
            FAILED: SAME,
        },
    ),
    (
        Progressed(ATTEMPT, Phase.PREPARING),
        {
            STOPPED: SAME,
            QUEUED: SAME,
            PREPARING: (PREPARING,),
            STARTING: (PREPARING, Refused(1, errors.Preparing)),
            LOADING: SAME,
            READY: SAME,
            DRAINING: SAME,
            STOPPING: SAME,
            CLEANING: SAME,
            FAILED: SAME,
        },
    ),
    (
        Started(ATTEMPT, RUN),
        {
            STOPPED: SAME,
            QUEUED: SAME,
            PREPARING: (LOADING, Probe(7, RUN, START_TIMEOUT_AT)),
            STARTING: (LOADING, Probe(7, RUN, STARTED_TIMEOUT_AT)),
            LOADING: SAME,
            READY: SAME,
            DRAINING: SAME,
            STOPPING: SAME,
            CLEANING: SAME,
            FAILED: SAME,
        },
    ),
    (
        ProbeSucceeded(ATTEMPT),
        {
            STOPPED: SAME,
            QUEUED: SAME,
            PREPARING: SAME,
            STARTING: SAME,
            LOADING: (READY, Grant(1, RUN, Waited(queue=2.0, start=2.0, ready=6.0))),
            READY: SAME,
            DRAINING: SAME,
            STOPPING: SAME,
            CLEANING: SAME,
            FAILED: SAME,
        },
    ),
    (
        StartFailed(ATTEMPT, FAILURE),
        {
            STOPPED: SAME,
            QUEUED: SAME,
            PREPARING: (CLEANING, Stop(7)),
            STARTING: (CLEANING, Refused(1, errors.StartFailed), Stop(7)),
            LOADING: (CLEANING, Refused(1, errors.StartFailed), Stop(7)),
            READY: SAME,
            DRAINING: SAME,
            STOPPING: SAME,
            CLEANING: SAME,
            FAILED: SAME,
        },
    ),
    (
        Stopped(ATTEMPT),
        {
            STOPPED: SAME,
            QUEUED: SAME,
            PREPARING: SAME,
            STARTING: SAME,
            LOADING: SAME,
            READY: SAME,
            DRAINING: SAME,
            STOPPING: (STOPPED,),
            CLEANING: (FAILED,),
            FAILED: SAME,
        },
    ),
    (
        StopFailed(ATTEMPT, "device busy"),
        {
            STOPPED: SAME,
            QUEUED: SAME,
            PREPARING: SAME,
            STARTING: SAME,
            LOADING: SAME,
            READY: SAME,
            DRAINING: SAME,
            STOPPING: (READY,),
            CLEANING: (FAILED,),
            FAILED: SAME,
        },
    ),
    (
        BusyAnswered(ATTEMPT, NOW - 1.0, "idle", False),
        {
            STOPPED: SAME,
            QUEUED: SAME,
            PREPARING: SAME,
            STARTING: SAME,
            LOADING: SAME,
            READY: SAME,
            DRAINING: SAME,
            STOPPING: SAME,
            CLEANING: SAME,
            FAILED: SAME,
        },
    ),
    (
        Exited(RUN.run, "exit code 3"),
        {
            STOPPED: (STOPPED,),
            QUEUED: (QUEUED,),
            PREPARING: (PREPARING,),
            STARTING: (STARTING,),
            LOADING: (CLEANING, Refused(1, errors.StartFailed), Stop(7)),
            READY: (STOPPED,),
            DRAINING: (STOPPED,),
            STOPPING: (STOPPING,),
            CLEANING: (CLEANING,),
            FAILED: (FAILED,),
        },
    ),
    (
        Adopted(OTHER_RUN),
        {
            STOPPED: (LOADING, Probe(8, OTHER_RUN, START_TIMEOUT_AT)),
            QUEUED: (LOADING, Probe(8, OTHER_RUN, START_TIMEOUT_AT)),
            PREPARING: SAME,
            STARTING: SAME,
            LOADING: (LOADING, Probe(8, OTHER_RUN, START_TIMEOUT_AT)),
            READY: (LOADING, Probe(8, OTHER_RUN, START_TIMEOUT_AT)),
            DRAINING: SAME,
            STOPPING: SAME,
            CLEANING: SAME,
            FAILED: (LOADING, Probe(8, OTHER_RUN, START_TIMEOUT_AT)),
        },
    ),
    (
        Reconfigured(replace(CONFIG, idle_seconds=5.0)),
        {
            STOPPED: (STOPPED,),
            QUEUED: (QUEUED,),
            PREPARING: (PREPARING,),
            STARTING: (STARTING,),
            LOADING: (LOADING,),
            READY: (READY,),
            DRAINING: (DRAINING,),
            STOPPING: (STOPPING,),
            CLEANING: (CLEANING,),
            FAILED: (FAILED,),
        },
    ),
    (
        Removed(),
        {
            STOPPED: (STOPPED,),
            QUEUED: (QUEUED,),
            PREPARING: (PREPARING,),
            STARTING: (STARTING,),
            LOADING: (LOADING,),
            READY: (READY,),
            DRAINING: (DRAINING,),
            STOPPING: (STOPPING,),
            CLEANING: (CLEANING,),
            FAILED: (FAILED,),
        },
    ),
    (
        StartRequested(5),
        {
            STOPPED: (STARTING, Accept(5), Start(8)),
            QUEUED: (QUEUED, Accept(5)),
            PREPARING: (PREPARING, Accept(5)),
            STARTING: (STARTING, Accept(5)),
            LOADING: (LOADING, Accept(5)),
            READY: (READY, Accept(5)),
            DRAINING: (DRAINING, Accept(5)),
            STOPPING: (STOPPING, Accept(5)),
            CLEANING: (CLEANING, Accept(5)),
            FAILED: (STARTING, Accept(5), Start(8)),
        },
    ),
    (
        StopRequested(5),
        {
            STOPPED: (STOPPED, Accept(5)),
            QUEUED: (QUEUED, Refused(5, errors.ServiceLeased)),
            PREPARING: (STOPPING, Accept(5), Stop(7)),
            STARTING: (STARTING, Refused(5, errors.ServiceLeased)),
            LOADING: (LOADING, Refused(5, errors.ServiceLeased)),
            READY: (STOPPING, Accept(5), Stop(7)),
            DRAINING: (DRAINING, Accept(5)),
            STOPPING: (STOPPING, Accept(5)),
            CLEANING: (CLEANING, Accept(5)),
            FAILED: (STOPPED, Accept(5)),
        },
    ),
    (
        RestartRequested(5),
        {
            STOPPED: (STARTING, Accept(5), Start(8)),
            QUEUED: (QUEUED, Accept(5)),
            PREPARING: (STOPPING, Accept(5), Stop(7)),
            STARTING: (STOPPING, Accept(5), Stop(7)),
            LOADING: (STOPPING, Accept(5), Stop(7)),
            READY: (STOPPING, Accept(5), Stop(7)),
            DRAINING: (DRAINING, Accept(5)),
            STOPPING: (STOPPING, Accept(5)),
            CLEANING: (CLEANING, Accept(5)),
            FAILED: (STARTING, Accept(5), Start(8)),
        },
    ),
    (
        Kept(5, NOW + 7200.0),
        {
            STOPPED: (STARTING, Accept(5), Start(8)),
            QUEUED: (QUEUED, Accept(5)),
            PREPARING: (PREPARING, Accept(5)),
            STARTING: (STARTING, Accept(5)),
            LOADING: (LOADING, Accept(5)),
            READY: (READY, Accept(5)),
            DRAINING: (DRAINING, Accept(5)),
            STOPPING: (STOPPING, Accept(5)),
            CLEANING: (CLEANING, Accept(5)),
            FAILED: (STARTING, Accept(5), Start(8)),
        },
    ),
    (
        ShutdownBegan(),
        {
            STOPPED: (STOPPED,),
            QUEUED: (STOPPED, Refused(1, errors.ShuttingDown)),
            PREPARING: (PREPARING,),
            STARTING: (STARTING, Refused(1, errors.ShuttingDown)),
            LOADING: (LOADING, Refused(1, errors.ShuttingDown)),
            READY: (READY,),
            DRAINING: (DRAINING,),
            STOPPING: (STOPPING,),
            CLEANING: (CLEANING,),
            FAILED: (FAILED,),
        },
    ),
)
ROWS = [(event, place, row) for event, rows in TABLE for place, row in rows.items()]


def name_of(value: object) -> str:
    """Name a parameter: an event by its class, a place by its phase or state."""
    match value:
        case (State() as state, None):
            return state.value.upper()
        case (State(), Phase() as phase):
            return phase.value
        case tuple():
            return ""
    return type(value).__name__


@pytest.mark.parametrize(("event", "place", "row"), ROWS, ids=name_of)
def test_every_event_has_its_outcome_in_every_place(event: Event, place: Place, row: Row) -> None:
    """Where the service is afterwards, and the commands, are those of the table."""
    before = service(place)
    after, commands = transition(before, event, NOW)

    if row == SAME:
        assert (before, ()) == (after, commands)
    else:
        assert before != after or commands
        assert row == (place_of(after), *in_short(commands))
        assert (before.since if stays(place, row) else NOW) == after.since


def stays(place: Place, row: Row) -> bool:
    """Whether the service goes on with what it does: `since` tells of states, and of stops."""
    to = row[0]
    return place == to or (isinstance(to, tuple) and place[0] is to[0] is State.STARTING)


def test_table_is_complete() -> None:
    """A new event, state or phase fails here until it has its rows."""
    assert set(get_args(Event)) == {type(event) for event, _ in TABLE}
    assert len(get_args(Event)) == len(TABLE)
    assert set(State) == {state for state, _ in PLACES}
    assert set(Phase) == {phase for _, phase in PLACES if phase is not None}
    for event, rows in TABLE:
        assert PLACES == tuple(rows), event


def test_samples_stand_where_their_names_say() -> None:
    """The service of each place is in that place."""
    for place in PLACES:
        assert place == place_of(service(place))


# What belongs to another attempt or run.

STALE = ATTEMPT - 1
COMPLETIONS: tuple[Event, ...] = (
    Progressed(STALE, Phase.PREPARING),
    Progressed(STALE, Phase.STARTING),
    Started(STALE, RUN),
    ProbeSucceeded(STALE),
    StartFailed(STALE, FAILURE),
    Stopped(STALE),
    StopFailed(STALE, "device busy"),
    BusyAnswered(STALE, NOW - 1.0, "idle", False),
    BusyAnswered(STALE, NOW - 1.0, "evicted", True),
    BusyAnswered(STALE, NOW - 1.0, None, None),
)
MORE_PLACES: tuple[Service, ...] = (
    *(service(place) for place in PLACES),
    service(READY, config=ASKED_FOR_BUSY, busy_asked_at=NOW - 1.0),
    service(READY, leases=leased(1, 2)),
    service(DRAINING, config=ASKED_FOR_BUSY, busy_asked_at=NOW - 1.0, leases={}),
    service(STOPPING, waiting=waiting(1, 2)),
)


@pytest.mark.parametrize("event", COMPLETIONS, ids=repr)
@pytest.mark.parametrize("before", MORE_PLACES, ids=repr)
def test_what_a_former_attempt_reports_changes_nothing(before: Service, event: Event) -> None:
    """A completion that carries another attempt than the present one is dropped."""
    assert (before, ()) == transition(before, event, NOW)


def test_every_completion_is_tried_with_a_former_attempt() -> None:
    """An event with an attempt fails here until it is among the stale ones."""
    with_attempt = {event for event in get_args(Event) if "attempt" in event.__match_args__}

    assert with_attempt == {type(event) for event in COMPLETIONS}


FOREIGN_RUN_EVENTS: tuple[Event, ...] = (
    Lost("run-of-somebody"),
    Exited("run-of-somebody", "exit code 3"),
)


@pytest.mark.parametrize("event", FOREIGN_RUN_EVENTS, ids=repr)
@pytest.mark.parametrize("before", MORE_PLACES, ids=repr)
def test_what_concerns_another_run_changes_nothing(before: Service, event: Event) -> None:
    """The end or the loss of a run that is not this service's present one moves nothing.

    The end is noted, for a start may be reported after it.
    """
    after, commands = transition(before, event, NOW)

    assert () == commands
    assert before == replace(after, last_exit=before.last_exit)


@pytest.mark.parametrize(
    ("place", "changes", "shown"),
    [
        (STOPPED, {}, f"<Service {HOST} STOPPED attempt 7, 0 leases, 0 waiting>"),
        (LOADING, {}, f"<Service {HOST} STARTING (loading) attempt 7, 0 leases, 1 waiting>"),
        (READY, {"leases": leased(1, 2)}, f"<Service {HOST} READY attempt 7, 2 leases, 0 waiting>"),
        (DRAINING, {}, f"<Service {HOST} STOPPING (draining) attempt 7, 1 leases, 0 waiting>"),
    ],
    ids=name_of,
)
def test_repr_shows_what_an_operator_asks_for(
    place: Place, changes: dict[str, object], shown: str
) -> None:
    """A service prints as its host, state, phase, attempt, and how many use and wait for it."""
    assert shown == repr(service(place, **changes))
