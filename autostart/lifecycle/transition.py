"""The step: one event in, the service and its commands out."""

from __future__ import annotations

from dataclasses import replace

from autostart import errors
from autostart.lifecycle import completions, moves, operator
from autostart.lifecycle.commands import Grant, Refuse
from autostart.lifecycle.events import (
    Adopted,
    Answered,
    BusyAnswered,
    BusyDue,
    Event,
    Exited,
    HoldDue,
    Kept,
    LeaseReleased,
    LeaseRequested,
    Lost,
    ProbeSucceeded,
    Progressed,
    Reconfigured,
    Removed,
    RestartRequested,
    RetryDue,
    ShutdownBegan,
    StartDue,
    Started,
    StartFailed,
    StartRequested,
    StopDue,
    StopFailed,
    Stopped,
    StopRequested,
)
from autostart.lifecycle.moves import Outcome
from autostart.lifecycle.service import (
    Lease,
    Phase,
    Service,
    State,
    StopCause,
    Then,
    changed,
)


def transition(service: Service, event: Event, now: float) -> Outcome:  # noqa: PLR0912 - a table
    """Return what `event` makes of `service` at `now`, and what is to be done about it.

    Total: every event is legal in every state; one that does not apply changes nothing.
    """
    match event:
        case LeaseRequested(lease):
            return _lease_requested(service, lease, now)
        case LeaseReleased(key):
            return _lease_released(service, key, now)
        case Answered(key):
            return _answered(service, key)
        case Lost(run):
            return _lost(service, run, now)
        case StartDue() | StopDue() | BusyDue() | RetryDue() | HoldDue():
            return _due(service, event, now)
        case Progressed() | Started() | ProbeSucceeded() | StartFailed():
            begun = service.state is State.STARTING and service.phase is not Phase.QUEUED
            if event.attempt != service.attempt or not begun:
                return service, ()
            return completions.start_advanced(service, event, now)
        case Stopped() | StopFailed():
            begun = service.state is State.STOPPING and service.phase is not Phase.DRAINING
            if event.attempt != service.attempt or not begun:
                return service, ()
            return completions.stop_ended(service, event, now)
        case BusyAnswered():
            return completions.busy_answered(service, event, now)
        case Exited(run, reason):
            return _exited(service, run, reason, now)
        case Adopted():
            return _adopted(service, event, now)
        case (
            Reconfigured()
            | Removed()
            | StartRequested()
            | StopRequested()
            | RestartRequested()
            | Kept()
            | ShutdownBegan()
        ):
            return operator.command(service, event, now)


# Requests.


def _lease_requested(service: Service, lease: Lease, now: float) -> Outcome:
    # The last request of a connection that was open when we began to end needs no start.
    is_last = service.state is State.READY and isinstance(service.closed_by, errors.ShuttingDown)
    if service.is_barred and not is_last:
        return _refuse(service, lease, service.closed_by)
    match service.state:
        case State.READY:
            return _grant(service, lease)
        case State.STARTING:
            return _lease_while_starting(service, lease, now)
        case State.STOPPING:
            return _lease_while_stopping(service, lease, now)
        case State.FAILED if now < service.retry_at:
            return _refuse(
                service, lease, lease.otherwise or moves.refusal_while_failed(service, now)
            )
        case State.STOPPED | State.FAILED:
            if not lease.may_wake:
                return _refuse(service, lease, lease.otherwise)
            if service.closed_by is not None:
                return _refuse(service, lease, service.closed_by)
            service, held = _hold_or_refuse(service, lease, now)
            service, commands = moves.begin_start(service, now, then=_after(lease))
            return service, held + commands
    raise AssertionError(service)


def _grant(service: Service, lease: Lease) -> Outcome:
    service = changed(service, leases={**service.leases, lease.id: lease})
    if lease.counts:
        # It may begin a background job: what was asked before it says nothing about after.
        service = changed(service, busy_asked_at=None, busy_silent_since=None)
    assert service.endpoint is not None, service
    return service, (Grant(lease.id, service.endpoint),)


def _lease_while_starting(service: Service, lease: Lease, now: float) -> Outcome:
    if service.phase is Phase.PREPARING:
        own = None if lease.may_wait else lease.otherwise
        return _refuse(service, lease, own or moves.preparing(service))
    if service.phase is Phase.QUEUED and service.then is Then.REST and lease.may_wake:
        service = replace(service, then=_after(lease))
    return _hold_or_refuse(service, lease, now)


def _lease_while_stopping(service: Service, lease: Lease, now: float) -> Outcome:
    if not lease.may_wake:
        return _refuse(service, lease, lease.otherwise)
    if service.phase is Phase.CLEANING:
        return _refuse(service, lease, moves.refusal_while_failed(service, now))
    if service.closed_by is not None:
        return _refuse(service, lease, service.closed_by)
    if not lease.may_wait:
        service = replace(service, then=Then.START)
    elif service.is_yielding and len(service.waiting) >= service.config.max_waiting:
        # Nobody is refused for another's sake while the run is there.
        service, grants = moves.take_back(service, now)
        service, granted = _grant(service, lease)
        return service, grants + granted
    return _hold_or_refuse(service, lease, now)


def _after(lease: Lease) -> Then:
    """A start that its request does not wait for goes on although nobody waits."""
    return Then.REST if lease.may_wait else Then.START


def _hold_or_refuse(service: Service, lease: Lease, now: float) -> Outcome:
    host, remaining = service.config.host, service.start_remaining_seconds(now)
    if not lease.may_wait:
        refusal = lease.otherwise or errors.Starting(
            f"{host} is starting", retry_after_seconds=remaining
        )
        return _refuse(service, lease, refusal)
    if len(service.waiting) >= service.config.max_waiting:
        text = f"{host} is starting and {len(service.waiting)} requests wait for it already"
        return _refuse(service, lease, errors.QueueFull(text, retry_after_seconds=remaining))
    return moves.hold(service, lease, moves.hold_deadline(service, now))


def _refuse(service: Service, lease: Lease, refusal: errors.Refusal | None) -> Outcome:
    assert refusal is not None, lease
    return service, (Refuse(lease.id, refusal.after(refusal.retry_after_seconds)),)


def _lease_released(service: Service, key: int, now: float) -> Outcome:
    if key in service.waiting:
        waiting = {other: lease for other, lease in service.waiting.items() if other != key}
        service = replace(service, waiting=waiting)
        if service.phase is Phase.QUEUED and not waiting and service.then is not Then.START:
            return moves.rest(service, now), ()  # nothing was begun, and nobody wants it now
        return service, ()
    if key not in service.leases:
        return service, ()
    lease = service.leases[key]
    service = changed(
        service,
        leases={k: other for k, other in service.leases.items() if k != key},
        last_use=now if lease.counts else service.last_use,
    )
    if service.phase is Phase.DRAINING:
        return moves.proceed_drain(service, now)
    return service, ()


def _answered(service: Service, key: int) -> Outcome:
    if key not in service.leases:
        return service, ()
    return changed(service, answers=service.answers + 1, failures=0), ()


def _lost(service: Service, run: str, now: float) -> Outcome:
    endpoint = service.endpoint
    if service.state is not State.READY or endpoint is None or endpoint.run != run:
        return service, ()
    # A proven run stays proven while it is probed again: if it has died, that is no failed start.
    service = replace(service, answers=service.answers + service.is_proven(now))
    return moves.load_again(service, now)


# Due dates.


def _due(
    service: Service, event: StartDue | StopDue | BusyDue | RetryDue | HoldDue, now: float
) -> Outcome:
    match event, service.state:
        case StartDue(), State.STOPPED if service.closed_by is None:
            service, commands = moves.begin_start(service, now)
            return (service, commands) if commands else moves.leave_queue(service, now)
        case StartDue(), State.STARTING if service.phase is Phase.QUEUED:
            return moves.leave_queue(service, now)
        case StartDue(), State.STOPPING if service.is_yielding:
            return moves.take_back(service, now)
        case StopDue(cause), State.READY if service.is_stop_due(cause, now):
            return _stop_due(service, cause, now)
        case BusyDue(), State.READY if _may_ask(service, now):
            if service.config.busy is None:  # the map was read again
                return replace(service, busy_again_at=None), ()
            return moves.ask_busy(service, now, None)
        case BusyDue(), State.STOPPING if _may_ask(service, now):
            return moves.proceed_drain(service, now)
        case RetryDue(), State.FAILED if now >= service.retry_at:
            return moves.rest(service, now), ()
        case HoldDue(behind), _:
            return _refuse_overdue(service, behind, now)
    return service, ()


def _stop_due(service: Service, cause: StopCause, now: float) -> Outcome:
    if cause == "yielded":
        return moves.make_room(service, now)
    if service.leases or service.busy_asked_at is not None:
        return service, ()
    if service.config.busy is not None:
        return moves.ask_busy(service, now, cause)
    return moves.begin_stop(service, now)


def _may_ask(service: Service, now: float) -> bool:
    return (
        not service.leases
        and service.busy_asked_at is None
        and service.busy_again_at is not None
        and now >= service.busy_again_at
    )


def _refuse_overdue(service: Service, behind: str, now: float) -> Outcome:
    overdue = [lease for lease in service.waiting.values() if lease.deadline <= now]
    if not overdue:
        return service, ()
    text = (
        f"{service.config.host} was not ready within {service.config.hold_timeout_seconds:g} s"
        f" ({service.phase}"
    )
    text += f" behind {behind}, exclusive: {service.config.exclusive})" if behind else ")"
    error = errors.StartTimeout(text)
    remaining = service.start_remaining_seconds(now)
    kept = {key: lease for key, lease in service.waiting.items() if lease.deadline > now}
    service = replace(service, waiting=kept)
    refusals = tuple(Refuse(lease.id, error.after(remaining)) for lease in overdue)
    if service.phase is Phase.QUEUED and not kept and service.then is not Then.START:
        return moves.rest(service, now), refusals
    return service, refusals


# What the runtime noticed.


def _exited(service: Service, run: str, reason: str, now: float) -> Outcome:
    service = replace(service, last_exit=(run, reason))
    if service.endpoint is None or service.endpoint.run != run:
        return service, ()
    match service.state:
        case State.STARTING | State.READY:
            if not service.is_proven(now):
                return moves.fail(service, moves.exit_failure(service, reason), now)
            service = replace(service, failure=moves.exit_failure(service, reason))
            return moves.end_run(service, now)
        case State.STOPPING if service.phase is Phase.DRAINING:
            return moves.end_run(service, now)
    return service, ()


def _adopted(service: Service, event: Adopted, now: float) -> Outcome:
    known = service.endpoint
    if service.has_ended(event.endpoint):
        return service, ()
    match service.state:
        case State.STOPPED | State.FAILED:
            return moves.adopt(service, event.endpoint, now)
        case State.STARTING if service.phase is Phase.QUEUED:
            return moves.adopt(service, event.endpoint, now)
        case State.STARTING | State.READY if known is not None and known.run != event.endpoint.run:
            return moves.adopt(service, event.endpoint, now)
    return service, ()
