"""autostart/lifecycle: a service in use yields its exclusive place to one that waits for it."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from autostart import errors
from autostart.lifecycle import (
    Accept,
    BusyAnswered,
    Event,
    Grant,
    HoldDue,
    Kept,
    LeaseReleased,
    LeaseRequested,
    Phase,
    Refuse,
    RestartRequested,
    Service,
    StartDue,
    StartRequested,
    Stop,
    StopDue,
    Stopped,
    StopRequested,
    Waited,
    transition,
)
from tests.unit.lifecycle_places import (
    ASKED_FOR_BUSY,
    ATTEMPT,
    CONFIG,
    DRAINING,
    EXCLUSIVE,
    NOW,
    QUEUED,
    READY,
    RUN,
    STOPPING,
    Refused,
    in_short,
    lease,
    leased,
    place_of,
    service,
    waiting,
)

LEAVING = errors.ShuttingDown("autostart is shutting down", retry_after_seconds=5.0)
YIELD = StopDue("yielded")
WAITED = Waited(queue=10.0, start=0.0, ready=0.0)


def in_use(**changes: object) -> Service:
    """Return a service of an exclusive name that answers request 1."""
    return service(READY, **({"config": EXCLUSIVE, "leases": leased(1)} | changes))


def yielding(**changes: object) -> Service:
    """Return it as it makes room, since two seconds ago."""
    draining, _ = transition(in_use(), YIELD, NOW - 2.0)
    return replace(draining, **changes)  # type: ignore[arg-type]  # fields of Service


def test_service_in_use_drains_to_make_room() -> None:
    """Requests under way go on; nothing is stopped before the last has ended."""
    after, commands = transition(in_use(), YIELD, NOW)

    assert (DRAINING, ()) == (place_of(after), commands)
    assert leased(1) == after.leases


def test_request_that_meets_a_yield_waits_for_its_next_turn() -> None:
    """It is held, the stop follows the last answer, and it queues with its full time."""
    held, nothing = transition(yielding(), LeaseRequested(lease(9)), NOW)
    stopping, stop = transition(held, LeaseReleased(1), NOW + 1.0)
    queued, waits = transition(stopping, Stopped(ATTEMPT), NOW + 2.0)

    assert () == nothing
    assert (STOPPING, (Stop(ATTEMPT),)) == (place_of(stopping), stop)
    assert (QUEUED, ()) == (place_of(queued), waits)
    assert NOW + 22.0 == queued.waiting[9].deadline


def test_service_that_is_free_when_its_turn_ends_is_stopped() -> None:
    """Used often is not in use."""
    after, commands = transition(in_use(leases={}), YIELD, NOW)

    assert (STOPPING, (Stop(ATTEMPT),)) == (place_of(after), commands)


@pytest.mark.parametrize(
    "changes",
    [
        {"config": CONFIG},
        {"kept_until": NOW + 1.0},
        {"stop_again_at": NOW + 1.0},
        {"closed_by": LEAVING},
        {"yielded_at": NOW - 21.0, "since": NOW - 10.0},
    ],
    ids=["alone", "kept", "stop failed", "shutting down", "drained in vain"],
)
def test_due_yield_is_checked_again(changes: dict[str, object]) -> None:
    """What may not be drained for another goes on as it is."""
    before = in_use(**changes)

    assert (before, ()) == transition(before, YIELD, NOW)


@pytest.mark.parametrize(
    ("changes", "at"),
    [
        ({}, 0.0),
        ({"config": CONFIG}, math.inf),
        ({"closed_by": LEAVING}, math.inf),
        ({"kept_until": NOW + 7.0}, NOW + 7.0),
        ({"yielded_at": NOW - 130.0}, NOW - 70.0),
    ],
)
def test_yielding_spares_what_is_kept_or_was_drained_in_vain(
    changes: dict[str, object], at: float
) -> None:
    """After a drain that was taken back it is up for at least as long as the drain took."""
    assert at == in_use(**changes).yieldable_at()


def test_drain_is_taken_back_when_its_place_is_free() -> None:
    """Nobody waits for it any more: its own clients are granted, and nothing was stopped."""
    held, _ = transition(yielding(), LeaseRequested(lease(9, counts=False)), NOW)
    after, commands = transition(held, StartDue(), NOW + 5.0)

    assert (Grant(9, RUN, Waited(queue=15.0, start=0.0, ready=0.0)),) == commands
    assert (READY, NOW + 5.0) == (place_of(after), after.since)
    assert ({1, 9}, {}) == (set(after.leases), after.waiting)


def test_drain_that_was_taken_back_forgets_its_question() -> None:
    """What the service said before its clients were granted says nothing about after."""
    config = replace(ASKED_FOR_BUSY, exclusive="gpu0")
    asked, _ = transition(in_use(config=config, leases={}), YIELD, NOW)
    back, _ = transition(asked, StartDue(), NOW + 1.0)
    after, commands = transition(back, BusyAnswered(ATTEMPT, NOW, None, False), NOW + 2.0)

    assert (back, ()) == (after, commands)
    assert (READY, None) == (place_of(back), back.busy_asked_at)


def test_run_that_was_proven_stays_proven() -> None:
    """Being drained and taken back makes no failed start of a later end."""
    before = in_use(since=NOW - 30.0)
    draining, _ = transition(before, YIELD, NOW)
    back, _ = transition(draining, StartDue(), NOW + 1.0)

    assert back.is_proven(NOW + 1.0)


def test_yield_refuses_nobody_for_want_of_room() -> None:
    """When all that may wait do, the drain is taken back and the next one granted with them."""
    full = yielding(waiting=waiting(7, 8, 9))
    after, commands = transition(full, LeaseRequested(lease(10)), NOW)

    assert [
        Grant(key, RUN, w) for key, w in ((7, WAITED), (8, WAITED), (9, WAITED), (10, None))
    ] == [*commands]
    assert (READY, {1, 7, 8, 9, 10}) == (place_of(after), set(after.leases))


def test_page_that_meets_a_yield_is_answered_and_comes_again() -> None:
    """Who does not wait is told that it starts; its next turn follows."""
    asked, refused = transition(yielding(), LeaseRequested(lease(9, may_wait=False)), NOW)
    stopping, _ = transition(asked, LeaseReleased(1), NOW)
    queued, _ = transition(stopping, Stopped(ATTEMPT), NOW)

    assert (Refused(9, errors.Starting),) == in_short(refused)
    assert QUEUED == place_of(queued)


@pytest.mark.parametrize(
    "command",
    [StopRequested(5, drain=True), RestartRequested(5)],
    ids=["stop", "restart"],
)
def test_operator_makes_a_drain_his_own(command: Event) -> None:
    """What he asked for meanwhile is not taken back."""
    asked, accepted = transition(yielding(), command, NOW)
    after, commands = transition(asked, StartDue(), NOW + 1.0)

    assert (Accept(5),) == accepted
    assert (asked, ()) == (after, commands)


@pytest.mark.parametrize("command", [StartRequested(5), Kept(5, NOW + 60.0)], ids=["start", "keep"])
def test_start_during_a_yield_is_satisfied_when_it_is_taken_back(command: Event) -> None:
    """It is up: nothing is left to follow."""
    asked, _ = transition(yielding(), command, NOW)
    after, _ = transition(asked, StartDue(), NOW + 1.0)
    left, _ = transition(after, LeaseReleased(1), NOW + 2.0)
    stopping, _ = transition(replace(left, kept_until=0.0), StopDue("idle"), NOW + 100.0)
    stopped, commands = transition(stopping, Stopped(ATTEMPT), NOW + 101.0)

    assert (READY, ()) == (place_of(after), commands)
    assert None is stopped.phase


def test_operators_drain_is_not_taken_back() -> None:
    """A place that is free is no reason to undo a stop."""
    before = service(DRAINING, config=EXCLUSIVE)

    assert (before, ()) == transition(before, StartDue(), NOW)


def test_next_drain_by_an_operator_is_his_own() -> None:
    """A yield of an earlier turn does not make it one that can be taken back."""
    back, _ = transition(yielding(), StartDue(), NOW)
    draining, _ = transition(back, StopRequested(5, drain=True), NOW + 1.0)

    assert (draining, ()) == transition(draining, StartDue(), NOW + 2.0)


def test_who_waited_in_vain_hears_who_was_in_the_way() -> None:
    """The refusal names the service that had the place, and the name that they share."""
    before = service(QUEUED, waiting=waiting(1))
    _, commands = transition(before, HoldDue("first.example.com"), NOW)
    text = (
        "whisper.example.com was not ready within 20 s"
        " (queued behind first.example.com, exclusive: gpu0)"
    )

    assert (Refuse(1, errors.StartTimeout(text, retry_after_seconds=5.0)),) == commands
    assert Phase.QUEUED is before.phase
