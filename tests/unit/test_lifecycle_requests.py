"""autostart/lifecycle: what becomes of requests. Admission, deadlines, back-off, Retry-After."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from autostart import errors
from autostart.lifecycle import (
    Answered,
    Grant,
    HoldDue,
    Lease,
    LeaseReleased,
    LeaseRequested,
    Lost,
    Phase,
    Probe,
    ProbeSucceeded,
    Progressed,
    Reconfigured,
    Refuse,
    RestartRequested,
    RetryDue,
    Start,
    StartDue,
    StartFailed,
    State,
    Stop,
    StopFailed,
    Stopped,
    Then,
    Waited,
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
    FAILURE,
    HOST,
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
    Refused,
    in_short,
    lease,
    leased,
    place_of,
    service,
    waiting,
)

ASLEEP = errors.Asleep(f"{HOST} is asleep", status=200)
WAKE_REFUSED = errors.WakeRefused(f"{HOST} is stopped and HEAD may not wake it")
MONITOR = lease(9, may_wake=False, may_wait=False, counts=False, otherwise=ASLEEP)
HEAD = lease(9, may_wake=False, counts=False, otherwise=WAKE_REFUSED)
PAGE = lease(9, may_wait=False)
FULL_HOLD = NOW + CONFIG.hold_timeout_seconds

# Admission.

HELD = None
GRANTED = "granted"
ADMISSIONS: dict[str, tuple[Lease, dict[Place, type[errors.Refusal] | str | None]]] = {
    "an ordinary request": (
        lease(9),
        {
            STOPPED: HELD,
            QUEUED: HELD,
            PREPARING: errors.Preparing,
            STARTING: HELD,
            LOADING: HELD,
            READY: GRANTED,
            DRAINING: HELD,
            STOPPING: HELD,
            CLEANING: errors.BackingOff,
            FAILED: errors.BackingOff,
        },
    ),
    "a browser that gets the waiting page": (
        PAGE,
        {
            STOPPED: errors.Starting,
            QUEUED: errors.Starting,
            PREPARING: errors.Preparing,
            STARTING: errors.Starting,
            LOADING: errors.Starting,
            READY: GRANTED,
            DRAINING: errors.Starting,
            STOPPING: errors.Starting,
            CLEANING: errors.BackingOff,
            FAILED: errors.BackingOff,
        },
    ),
    "a request that may not wake": (
        HEAD,
        {
            STOPPED: errors.WakeRefused,
            QUEUED: HELD,
            PREPARING: errors.Preparing,
            STARTING: HELD,
            LOADING: HELD,
            READY: GRANTED,
            DRAINING: errors.WakeRefused,
            STOPPING: errors.WakeRefused,
            CLEANING: errors.WakeRefused,
            FAILED: errors.WakeRefused,
        },
    ),
    "a monitor whom we answer": (
        MONITOR,
        dict.fromkeys(PLACES, errors.Asleep) | {READY: GRANTED},
    ),
}
ADMISSION_ROWS = [
    pytest.param(request, place, outcome, id=f"{name}, {place[1] or place[0]}")
    for name, (request, outcomes) in ADMISSIONS.items()
    for place, outcome in outcomes.items()
]


@pytest.mark.parametrize(("request_", "place", "outcome"), ADMISSION_ROWS)
def test_admission_is_applied_with_the_state_in_hand(
    request_: Lease, place: Place, outcome: type[errors.Refusal] | str | None
) -> None:
    """Each kind of request is held, granted or refused by where its service stands."""
    changes = {"retry_at": NOW + 5.0} if place == FAILED else {}
    after, commands = transition(service(place, **changes), LeaseRequested(request_), NOW)
    replies = [command for command in in_short(commands) if not isinstance(command, Start)]

    if outcome is HELD:
        assert ([], True) == (replies, 9 in after.waiting)
    elif outcome == GRANTED:
        assert ([Grant(9, RUN)], True) == (replies, 9 in after.leases)
    else:
        assert [Refused(9, outcome)] == replies
        assert 9 not in {*after.waiting, *after.leases}


def test_admission_rows_are_complete() -> None:
    """Each kind of request has a row for each place."""
    for name, (_, outcomes) in ADMISSIONS.items():
        assert set(PLACES) == set(outcomes), name


@pytest.mark.parametrize("request_", [MONITOR, HEAD], ids=["monitor", "HEAD"])
@pytest.mark.parametrize("place", [STOPPED, STOPPING, DRAINING, CLEANING, FAILED], ids=str)
def test_request_that_may_not_wake_changes_nothing(request_: Lease, place: Place) -> None:
    """Where nothing is up, a request that may not wake is refused and leaves no trace."""
    before = service(place)
    after, _ = transition(before, LeaseRequested(request_), NOW)

    assert before == after


def test_page_begins_a_start_that_nobody_waits_for() -> None:
    """A request that does not wait starts the service and is told so."""
    after, commands = transition(service(STOPPED), LeaseRequested(PAGE), NOW)

    assert STARTING == place_of(after)
    assert (Refused(9, errors.Starting), Start(8)) == in_short(commands)


def test_page_keeps_its_place_in_the_queue() -> None:
    """The start that a page asked for stays queued although nobody waits for it."""
    queued, _ = transition(service(STOPPED, config=EXCLUSIVE), LeaseRequested(PAGE), NOW)
    joined, _ = transition(queued, LeaseRequested(lease(10)), NOW)
    left, _ = transition(joined, LeaseReleased(10), NOW)

    assert QUEUED == place_of(left)


def test_page_takes_over_a_queued_start() -> None:
    """A page that meets a queued start keeps it in the queue when those who wait have left."""
    joined, _ = transition(service(QUEUED), LeaseRequested(PAGE), NOW)
    left, _ = transition(joined, LeaseReleased(1), NOW)

    assert QUEUED == place_of(left)


@pytest.mark.parametrize(
    ("request_", "then"),
    [(MONITOR, Then.REST), (HEAD, Then.REST), (PAGE, Then.STOP)],
    ids=["monitor", "HEAD", "page, asked to stop"],
)
def test_who_may_not_wake_takes_over_no_queued_start(request_: Lease, then: Then) -> None:
    """Nor does a page undo what an operator asked for."""
    before = service(QUEUED, then=then)
    after, _ = transition(before, LeaseRequested(request_), NOW)

    assert then is after.then


@pytest.mark.parametrize("place", [STARTING, LOADING], ids=str)
def test_page_that_meets_a_start_asks_for_no_other(place: Place) -> None:
    """What is under way is all that it wants: nothing is started again after this run."""
    before = service(place)

    assert before == transition(before, LeaseRequested(PAGE), NOW)[0]


@pytest.mark.parametrize("place", [DRAINING, STOPPING], ids=str)
def test_page_during_a_stop_starts_again(place: Place) -> None:
    """A request that does not wait, and comes during a stop, is followed by a start."""
    asked, _ = transition(service(place, leases={}), LeaseRequested(PAGE), NOW)

    assert Then.START is asked.then


@pytest.mark.parametrize("place", [QUEUED, STARTING, LOADING, STOPPING, DRAINING], ids=str)
def test_queue_has_a_limit(place: Place) -> None:
    """Beyond max_waiting requests are refused, and those who wait go on waiting."""
    full = service(place, waiting=waiting(1, 2, 3))
    after, commands = transition(full, LeaseRequested(lease(9)), NOW)

    assert (Refused(9, errors.QueueFull),) == in_short(commands)
    assert full == after


@pytest.mark.parametrize(("counts", "last_use"), [(True, NOW), (False, NOW - 60.0)])
def test_only_a_lease_that_counts_moves_the_idle_date(counts: bool, last_use: float) -> None:
    """A request that does not count protects the service only while it is open."""
    open_, _ = transition(service(READY), LeaseRequested(lease(9, counts=counts)), NOW - 3.0)
    closed, _ = transition(open_, LeaseReleased(9), NOW)

    assert last_use == closed.last_use


def test_second_release_changes_nothing() -> None:
    """A lease that has ended cannot end again."""
    before = service(READY)

    assert (before, ()) == transition(before, LeaseReleased(9), NOW)


# Deadlines.


@pytest.mark.parametrize(
    ("place", "deadline"),
    [
        (STOPPED, FULL_HOLD),
        (QUEUED, FULL_HOLD),
        (STARTING, FULL_HOLD),
        (LOADING, FULL_HOLD),
        (DRAINING, FULL_HOLD),
        (STOPPING, math.inf),
    ],
    ids=str,
)
def test_who_waits_has_a_deadline(place: Place, deadline: float) -> None:
    """hold_timeout begins when the request comes; during a stop, which ends by itself, later."""
    after, _ = transition(service(place), LeaseRequested(lease(9)), NOW)

    assert deadline == after.waiting[9].deadline


@pytest.mark.parametrize("config", [CONFIG, EXCLUSIVE], ids=["alone", "exclusive"])
def test_request_during_a_stop_has_its_full_time_afterwards(config: object) -> None:
    """When the stop has ended the full hold_timeout begins, also in the queue of an exclusive."""
    before = service(STOPPING, config=config, waiting=waiting(1, deadline=math.inf))
    after, _ = transition(before, Stopped(ATTEMPT), NOW)

    assert FULL_HOLD == after.waiting[1].deadline


def test_leaving_the_queue_gives_the_full_time() -> None:
    """Whoever waited for the exclusive place has a full hold_timeout from the start."""
    after, _ = transition(service(QUEUED), StartDue(), NOW - 1.0)

    assert FULL_HOLD - 1.0 == after.waiting[1].deadline


def test_restart_takes_who_waits_along() -> None:
    """No deadline rings during the stop of a restart; then the full time begins."""
    stopping, _ = transition(service(STARTING), RestartRequested(5), NOW)
    overdue, commands = transition(stopping, HoldDue(), NOW + 300.0)
    again, _ = transition(overdue, Stopped(ATTEMPT), NOW + 301.0)

    assert () == commands
    assert FULL_HOLD + 301.0 == again.waiting[1].deadline


def test_only_the_overdue_are_refused() -> None:
    """Each has a deadline of its own."""
    before = service(LOADING, waiting=waiting(1) | waiting(2, deadline=NOW + 0.1))
    after, commands = transition(before, HoldDue(), NOW)
    text = f"{HOST} was not ready within 20 s (loading)"

    assert (Refuse(1, errors.StartTimeout(text, retry_after_seconds=5.0)),) == commands
    assert {2} == set(after.waiting)


def test_start_goes_on_without_those_who_left() -> None:
    """A start belongs to the service: it does not end when nobody waits any more."""
    left, _ = transition(service(LOADING), LeaseReleased(1), NOW)
    after, commands = transition(left, ProbeSucceeded(ATTEMPT), NOW)

    assert READY == place_of(after)
    assert () == commands


# Granting.


def test_everybody_who_waits_is_granted_at_once() -> None:
    """Readiness grants all in the order in which they came, each with what it waited for."""
    before = service(LOADING, waiting=waiting(3, 1, 2))
    after, commands = transition(before, ProbeSucceeded(ATTEMPT), NOW)
    waited = Waited(queue=2.0, start=2.0, ready=6.0)

    assert tuple(Grant(number, RUN, waited) for number in (3, 1, 2)) == commands
    assert ({1, 2, 3}, set()) == (set(after.leases), set(after.waiting))


@pytest.mark.parametrize(
    ("requested_at", "waited"),
    [
        (NOW - 10.0, Waited(queue=2.0, start=2.0, ready=6.0)),
        (NOW - 7.0, Waited(queue=0.0, start=1.0, ready=6.0)),
        (NOW - 1.0, Waited(queue=0.0, start=0.0, ready=1.0)),
    ],
)
def test_wait_is_divided_by_what_it_was_for(requested_at: float, waited: Waited) -> None:
    """Waiting for a place or a stop, for the runtime, and for readiness are told apart."""
    before = service(LOADING, waiting={1: replace(lease(1), requested_at=requested_at)})
    _, commands = transition(before, ProbeSucceeded(ATTEMPT), NOW)

    assert (Grant(1, RUN, waited),) == commands


def test_start_time_is_learned_the_newest_weighing_half() -> None:
    """What a start usually takes is averaged from ready starts."""
    first, _ = transition(service(LOADING), ProbeSucceeded(ATTEMPT), NOW)
    slower = service(LOADING, usual_start_seconds=20.0)
    second, _ = transition(slower, ProbeSucceeded(ATTEMPT), NOW)

    assert (8.0, 14.0) == (first.usual_start_seconds, second.usual_start_seconds)


def test_what_was_only_probed_again_teaches_no_start_time() -> None:
    """A run that was lost and found says nothing about starts."""
    lost, _ = transition(service(READY, usual_start_seconds=20.0), Lost(RUN.run), NOW)
    found, _ = transition(lost, ProbeSucceeded(ATTEMPT), NOW + 3.0)

    assert 20.0 == found.usual_start_seconds


# Retry-After.


@pytest.mark.parametrize(
    ("usual", "begun", "retry_after"),
    [
        (None, NOW - 8.0, 5.0),
        (20.0, NOW - 8.0, 12.0),
        (20.0, NOW - 30.0, 1.0),
        (900.0, NOW, 120.0),
    ],
)
def test_retry_after_is_the_learned_rest_of_the_start(
    usual: float | None, begun: float, retry_after: float
) -> None:
    """Between 1 and 120 s, what is usually left of a start that began then."""
    before = service(
        STARTING, usual_start_seconds=usual, milestones={Phase.STARTING: begun}, waiting={}
    )
    _, commands = transition(before, LeaseRequested(PAGE), NOW)
    starting = errors.Starting(f"{HOST} is starting", retry_after_seconds=retry_after)

    assert (Refuse(9, starting),) == commands


def test_every_503_and_504_says_when_to_come_back() -> None:
    """No refusal with these statuses is without Retry-After, in any place, for any request."""
    closings = [None, errors.ShuttingDown("x", retry_after_seconds=5.0)]
    for place in PLACES:
        for closed_by in closings:
            for request in (lease(9), PAGE):
                before = service(place, closed_by=closed_by, waiting={})
                _, commands = transition(before, LeaseRequested(request), NOW)
                for command in commands:
                    if isinstance(command, Refuse) and command.error.status in {503, 504}:
                        assert command.error.retry_after_seconds is not None, (place, command)


def test_each_refused_client_has_an_error_of_its_own() -> None:
    """Two clients never share an exception: its traceback would be the other's."""
    before = service(LOADING, waiting=waiting(1, 2))
    _, commands = transition(before, StartFailed(ATTEMPT, FAILURE), NOW)
    first, second, _ = commands
    assert isinstance(first, Refuse)
    assert isinstance(second, Refuse)

    assert first.error == second.error
    assert len({id(first.error), id(second.error), id(FAILURE)}) == 3


# Failed starts and back-off.


@pytest.mark.parametrize(
    ("failures", "delay"),
    [(0, 5.0), (1, 10.0), (2, 20.0), (3, 40.0), (4, 80.0), (5, 160.0), (6, 300.0), (60, 300.0)],
)
def test_back_off_doubles_from_5_to_300_seconds(failures: int, delay: float) -> None:
    """After so many failures in a row the next start may be tried so much later."""
    before = service(LOADING, failures=failures)
    after, commands = transition(before, StartFailed(ATTEMPT, FAILURE), NOW)
    told = errors.StartFailed(FAILURE.message, retry_after_seconds=delay)

    assert NOW + delay == after.retry_at
    assert (Refuse(1, told), Stop(ATTEMPT)) == commands


@pytest.mark.parametrize("place", [CLEANING, FAILED], ids=str)
def test_back_off_is_told_exactly_and_why(place: Place) -> None:
    """A client during the back-off learns the seconds that are left, and the cause."""
    before = service(place, retry_at=NOW + 123.25)
    _, commands = transition(before, LeaseRequested(lease(9)), NOW)
    text = f"{HOST} failed to start a moment ago: {FAILURE.message}"

    assert (Refuse(9, errors.BackingOff(text, retry_after_seconds=123.25)),) == commands


def test_taken_port_is_told_as_such_during_the_back_off() -> None:
    """Who holds the port is what an operator needs, also a minute later."""
    taken = errors.PortTaken("port 8001 is taken by pid 7 (nginx)")
    before = service(FAILED, failure=taken, retry_at=NOW + 4.0)
    _, commands = transition(before, LeaseRequested(lease(9)), NOW)

    assert (Refuse(9, taken.after(4.0)),) == commands


def test_retry_waits_for_the_back_off() -> None:
    """The back-off is not over before its date, whoever says so."""
    before = service(FAILED, retry_at=NOW + 0.1)

    assert (before, ()) == transition(before, RetryDue(), NOW)


def test_request_after_the_back_off_starts() -> None:
    """The first request after the date need not wait for anybody to notice the date."""
    after, commands = transition(service(FAILED, failures=3), LeaseRequested(lease(9)), NOW)

    assert (STARTING, 3, (Start(8),)) == (place_of(after), after.failures, commands)


def test_answer_ends_the_row_of_failures() -> None:
    """Readiness alone does not: a service that dies on its first request goes on backing off."""
    ready, _ = transition(service(LOADING, failures=3), ProbeSucceeded(ATTEMPT), NOW)
    answered, _ = transition(ready, Answered(1), NOW)

    assert (3, 0) == (ready.failures, answered.failures)


def test_unreachable_engine_is_no_failure_of_the_service() -> None:
    """No cleaning and no back-off: the next request tries again; who waits is told when."""
    gone = errors.EngineUnreachable("the engine does not answer")
    after, commands = transition(service(STARTING), StartFailed(ATTEMPT, gone), NOW)

    assert (Refuse(1, gone.after(5.0)),) == commands
    assert (STOPPED, 0, gone) == (place_of(after), after.failures, after.failure)


def test_unreachable_engine_is_not_asked_without_pause() -> None:
    """What is wanted up without a request is tried again after five seconds, not at once."""
    gone = errors.EngineUnreachable("the engine does not answer")
    after, _ = transition(service(STARTING), StartFailed(ATTEMPT, gone), NOW)

    assert NOW + 5.0 == after.retry_at


def test_pull_or_build_refuses_who_waits_and_goes_on() -> None:
    """Nobody is held for half an hour: who waits is told to come back."""
    told = errors.Preparing(f"{HOST} is being pulled or built", retry_after_seconds=30.0)
    after, commands = transition(service(STARTING), Progressed(ATTEMPT, Phase.PREPARING), NOW)

    assert (Refuse(1, told),) == commands
    assert PREPARING == place_of(after)


def test_start_timeout_begins_after_the_pull() -> None:
    """start_timeout is counted from the end of the preparation."""
    prepared, _ = transition(service(PREPARING), Progressed(ATTEMPT, Phase.STARTING), NOW)

    assert NOW == prepared.milestones[Phase.STARTING]


# Lost, and failed stops.


def test_lost_run_is_probed_again_under_its_leases() -> None:
    """A refused connection makes newcomers wait; those who stream go on."""
    after, commands = transition(service(READY, leases=leased(1, 2)), Lost(RUN.run), NOW)

    assert (LOADING, {1, 2}) == (place_of(after), set(after.leases))
    assert (Probe(ATTEMPT, RUN, NOW + 60.0),) == commands


def test_lost_run_is_not_stopped_under_its_leases() -> None:
    """Not ready in time, it is probed again as long as somebody streams; who waits is refused."""
    before = service(LOADING, leases=leased(2), milestones={Phase.LOADING: NOW - 60.0})
    late = errors.StartTimeout(f"{HOST} was not ready within start_timeout, 60 s")
    after, commands = transition(before, StartFailed(ATTEMPT, late), NOW)

    assert (Refuse(1, late.after(5.0)), Probe(ATTEMPT, RUN, NOW + 60.0)) == commands
    assert LOADING == place_of(after)


def test_leases_of_a_former_run_do_not_protect_a_failed_start() -> None:
    """Clients of a run that died may still be letting go when the next start fails."""
    before = service(LOADING, leases=leased(2))
    after, _ = transition(before, StartFailed(ATTEMPT, FAILURE), NOW)

    assert CLEANING == place_of(after)


def test_failed_stop_grants_who_waits() -> None:
    """What could not be stopped is ready; the requests that came meanwhile are served."""
    before = service(STOPPING, waiting=waiting(1, deadline=math.inf))
    after, commands = transition(before, StopFailed(ATTEMPT, "device busy"), NOW)

    assert (READY, (Grant(1, RUN, Waited(10.0, 0.0, 0.0)),)) == (place_of(after), commands)


def test_failed_stop_of_what_was_never_ready_refuses_who_waits() -> None:
    """A run that nobody has seen ready is not given to anybody."""
    restarted, _ = transition(service(LOADING), RestartRequested(5), NOW)
    after, commands = transition(restarted, StopFailed(ATTEMPT, "device busy"), NOW)
    text = f"{HOST} could not be stopped: device busy"

    assert (Refuse(1, errors.StartFailed(text, retry_after_seconds=5.0)),) == commands
    assert (FAILED, NOW + 5.0) == (place_of(after), after.retry_at)


def test_new_declaration_applies_at_once_to_who_comes() -> None:
    """Limits need no restart."""
    stricter = replace(CONFIG, max_waiting=1)
    before, _ = transition(service(LOADING), Reconfigured(stricter), NOW)
    _, commands = transition(before, LeaseRequested(lease(9)), NOW)

    assert (Refused(9, errors.QueueFull),) == in_short(commands)


def test_request_meanwhile_makes_the_answer_about_jobs_worthless() -> None:
    """A request may begin a job after the service said that it has none: it is asked again."""
    asked = service(READY, config=ASKED_FOR_BUSY, busy_asked_at=NOW - 1.0)
    granted, _ = transition(asked, LeaseRequested(lease(9)), NOW)

    assert granted.busy_asked_at is None
    assert State.READY is granted.state
