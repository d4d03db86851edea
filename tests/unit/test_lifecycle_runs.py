"""autostart/lifecycle: runs that end, appear, are replaced, or are reported in another order."""

from __future__ import annotations

from dataclasses import replace

import pytest

from autostart import errors
from autostart.lifecycle import (
    Adopted,
    Exited,
    Grant,
    LeaseReleased,
    LeaseRequested,
    Lost,
    Phase,
    Probe,
    ProbeSucceeded,
    Refuse,
    Start,
    StartDue,
    Started,
    StartFailed,
    Stop,
    StopRequested,
    Then,
    transition,
)
from tests.unit.lifecycle_places import (
    ATTEMPT,
    CLEANING,
    EXCLUSIVE,
    FAILED,
    HOST,
    LOADING,
    NOW,
    OTHER_RUN,
    QUEUED,
    READY,
    RUN,
    STARTING,
    STOPPED,
    Place,
    Refused,
    in_short,
    lease,
    leased,
    place_of,
    service,
)

EXIT = Exited(RUN.run, "exit code 3")
ENDED = errors.StartFailed(f"{HOST} ended: exit code 3")


@pytest.mark.parametrize(
    ("since", "answers", "place", "failures"),
    [
        (NOW - 9.9, 0, CLEANING, 4),
        (NOW - 10.0, 0, STOPPED, 0),
        (NOW - 0.1, 1, STOPPED, 0),
    ],
    ids=["unproven", "ready for 10 s", "answered once"],
)
def test_crash_after_ready_is_a_failed_start_unless_proven(
    since: float, answers: int, place: Place, failures: int
) -> None:
    """A run that was ready for 10 s or answered once has ended; another one has failed to start."""
    before = service(READY, since=since, answers=answers, failures=3)
    after, _ = transition(before, EXIT, NOW)

    assert (place, failures) == (place_of(after), after.failures)
    assert ENDED == after.failure


def test_answers_prove_only_the_run_that_gave_them() -> None:
    """A new run begins unproven."""
    after, _ = transition(service(STARTING, answers=5), Started(ATTEMPT, RUN), NOW)

    assert 0 == after.answers


def test_run_that_dies_while_starting_fails_the_start_at_once() -> None:
    """Who waits is told, and does not wait for the timeout."""
    _, commands = transition(service(LOADING), EXIT, NOW)

    assert (Refuse(1, ENDED.after(5.0)), Stop(ATTEMPT)) == commands


def test_end_that_is_reported_before_the_start_fails_it() -> None:
    """The runtime's two reports may cross: a start whose run has ended already has failed."""
    ended, _ = transition(service(STARTING), EXIT, NOW)
    after, commands = transition(ended, Started(ATTEMPT, RUN), NOW)

    assert (Refuse(1, ENDED.after(5.0)), Stop(ATTEMPT)) == commands
    assert CLEANING == place_of(after)


def test_end_of_an_earlier_run_is_no_end_of_the_next() -> None:
    """The late report of a run that was stopped does not touch the run that followed."""
    before = service(LOADING, endpoint=OTHER_RUN)
    after, commands = transition(before, EXIT, NOW)

    assert (LOADING, ()) == (place_of(after), commands)


def test_end_of_a_proven_run_that_is_probed_again_is_no_failed_start() -> None:
    """It refused a connection because it had crashed: who waits gets the next run, at once."""
    lost, _ = transition(service(READY, since=NOW - 60.0), Lost(RUN.run), NOW)
    waited_for, _ = transition(lost, LeaseRequested(lease(9)), NOW)
    after, commands = transition(waited_for, EXIT, NOW)

    assert (STARTING, 0, (Start(8),)) == (place_of(after), after.failures, commands)


def test_leases_outlive_their_run() -> None:
    """A crash ends no lease: each is released by its holder, once."""
    after, _ = transition(service(READY, leases=leased(1, 2)), EXIT, NOW)
    released, _ = transition(after, LeaseReleased(1), NOW)

    assert ({1, 2}, {2}) == (set(after.leases), set(released.leases))


def test_ready_service_remembers_no_trouble() -> None:
    """Failures and questions of the time before are over with readiness."""
    troubled = service(
        LOADING,
        failure=ENDED,
        stop_failures=2,
        stop_again_at=NOW + 5.0,
        busy_again_at=NOW + 5.0,
        busy_silent_since=NOW - 5.0,
    )
    after, _ = transition(troubled, ProbeSucceeded(ATTEMPT), NOW)

    assert (None, 0, 0.0) == (after.failure, after.stop_failures, after.stop_again_at)
    assert (None, None) == (after.busy_again_at, after.busy_silent_since)


def test_lost_run_that_nobody_uses_fails_when_its_time_is_over() -> None:
    """Only leases keep a run that refuses connections from being stopped."""
    before = service(LOADING, milestones={Phase.LOADING: NOW - 60.0})
    after, _ = transition(before, StartFailed(ATTEMPT, ENDED), NOW)

    assert CLEANING == place_of(after)


# Adopted.


def test_answers_of_a_former_run_do_not_prove_the_adopted_one() -> None:
    """Who replaced it must prove itself."""
    after, _ = transition(service(READY, answers=5), Adopted(OTHER_RUN), NOW)

    assert 0 == after.answers


def test_adopted_run_is_probed_before_it_is_trusted() -> None:
    """What runs already becomes the next attempt, and requests wait for its probe."""
    adopted, probe = transition(service(STOPPED), Adopted(OTHER_RUN), NOW)
    held, _ = transition(adopted, LeaseRequested(lease(9)), NOW)
    _, grants = transition(held, ProbeSucceeded(8), NOW + 1.0)

    assert (Probe(8, OTHER_RUN, NOW + 60.0),) == probe
    assert [9] == [grant.id for grant in grants if isinstance(grant, Grant)]


def test_adopted_run_is_idle_from_its_readiness() -> None:
    """It is not stopped at once for a last use long ago."""
    adopted, _ = transition(service(STOPPED, last_use=0.0), Adopted(OTHER_RUN), NOW)
    after, _ = transition(adopted, ProbeSucceeded(8), NOW + 1.0)

    assert NOW + 61.0 == after.idle_due()


@pytest.mark.parametrize("place", [LOADING, READY], ids=str)
def test_run_that_is_known_is_not_adopted_again(place: Place) -> None:
    """A look at what runs changes nothing where it finds what is known."""
    before = service(place)

    assert (before, ()) == transition(before, Adopted(RUN), NOW)


@pytest.mark.parametrize("place", [STOPPED, FAILED, QUEUED], ids=str)
def test_run_that_has_ended_is_not_adopted(place: Place) -> None:
    """A look that took long may find what has ended since."""
    before = service(place, last_exit=(OTHER_RUN.run, "exit code 0"))

    assert (before, ()) == transition(before, Adopted(OTHER_RUN), NOW)


def test_replaced_run_takes_who_waits_along() -> None:
    """Requests that wait for one run wait for the one that replaced it."""
    adopted, _ = transition(service(LOADING), Adopted(OTHER_RUN), NOW)
    _, grants = transition(adopted, ProbeSucceeded(8), NOW)

    assert [(1, OTHER_RUN)] == [(g.id, g.endpoint) for g in grants if isinstance(g, Grant)]


def test_replaced_run_is_still_stopped_if_that_was_asked() -> None:
    """An operator's drain survives the replacement."""
    asked, _ = transition(service(LOADING), StopRequested(5, drain=True), NOW)
    adopted, _ = transition(asked, Adopted(OTHER_RUN), NOW)

    assert Then.STOP is adopted.then


def test_adopted_run_is_the_start_that_was_queued_for() -> None:
    """An operator's start that waited for its place is fulfilled; no other follows this run."""
    adopted, _ = transition(service(QUEUED, then=Then.START), Adopted(OTHER_RUN), NOW)

    assert Then.REST is adopted.then


def test_adopted_run_teaches_no_start_time() -> None:
    """When it was started, and how long that took, nobody knows."""
    adopted, _ = transition(service(LOADING), Adopted(OTHER_RUN), NOW)
    after, _ = transition(adopted, ProbeSucceeded(8), NOW)

    assert None is after.usual_start_seconds


def test_adopted_run_ends_the_back_off() -> None:
    """Ready by somebody else's hand, it owes nothing for its earlier failures."""
    adopted, _ = transition(service(FAILED, retry_at=NOW + 300.0), Adopted(OTHER_RUN), NOW)
    after, _ = transition(adopted, ProbeSucceeded(8), NOW)

    assert 0.0 == after.retry_at


# The exclusive place.


def test_exclusive_service_queues() -> None:
    """Nothing is started before schedule has given it the place."""
    after, commands = transition(service(STOPPED, config=EXCLUSIVE), LeaseRequested(lease(9)), NOW)

    assert (QUEUED, ()) == (place_of(after), commands)


def test_exclusive_service_that_is_wanted_does_not_queue_twice() -> None:
    """schedule says StartDue to a stopped one only when the place is free."""
    after, commands = transition(service(STOPPED, config=EXCLUSIVE), StartDue(), NOW)

    assert (STARTING, (Start(8),)) == (place_of(after), commands)


def test_failed_start_gives_the_place_back() -> None:
    """During the cleaning the place is still taken, during the back-off it is free."""
    before = service(LOADING, config=EXCLUSIVE)
    after, commands = transition(before, StartFailed(ATTEMPT, ENDED), NOW)
    failed = replace(after, state=service(FAILED).state, phase=None)

    assert (Refused(1, errors.StartFailed), Stop(ATTEMPT)) == in_short(commands)
    assert (True, False) == (after.is_running, failed.is_running)


def test_milestones_are_those_of_one_attempt() -> None:
    """A new start begins its own count."""
    after, _ = transition(service(STOPPED, milestones={Phase.LOADING: 1.0}), StartDue(), NOW)

    assert {Phase.QUEUED: NOW, Phase.STARTING: NOW} == after.milestones
