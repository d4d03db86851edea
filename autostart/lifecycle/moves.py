"""The moves that several events share. Each takes a service and returns it with its commands."""

from __future__ import annotations

import math
from dataclasses import replace

from autostart.errors import (
    BackingOff,
    EngineUnreachable,
    PortTaken,
    Preparing,
    Refusal,
    StartFailed,
)
from autostart.lifecycle.commands import AskBusy, Command, Grant, Probe, Refuse, Start, Stop
from autostart.lifecycle.service import (
    BACK_OFF_FIRST_SECONDS,
    Endpoint,
    Lease,
    Phase,
    Service,
    State,
    StopCause,
    Then,
    Waited,
    back_off_seconds,
)

Outcome = tuple[Service, tuple[Command, ...]]


def begin_start(service: Service, now: float, *, then: Then = Then.REST) -> Outcome:
    """Begin the next attempt; an exclusive service first queues for its place."""
    service = replace(
        service,
        state=State.STARTING,
        phase=Phase.QUEUED,
        since=now,
        attempt=service.attempt + 1,
        endpoint=None,
        milestones={Phase.QUEUED: now},
        then=then,
    )
    service = _await_until(service, now + service.config.hold_timeout_seconds)
    if service.config.exclusive is not None:
        return service, ()
    return leave_queue(service, now)


def leave_queue(service: Service, now: float) -> Outcome:
    """Start for real; whoever waits has a full deadline from here."""
    service = replace(
        service,
        phase=Phase.STARTING,
        milestones={**service.milestones, Phase.STARTING: now},
        then=Then.STOP if service.then is Then.STOP else Then.REST,
    )
    service = _await_until(service, now + service.config.hold_timeout_seconds)
    return service, (Start(service.attempt),)


def load(service: Service, endpoint: Endpoint, now: float, deadline: float) -> Outcome:
    """Probe a run of this attempt until it is ready."""
    service = replace(
        service,
        state=State.STARTING,
        phase=Phase.LOADING,
        since=service.since if service.state is State.STARTING else now,
        endpoint=endpoint,
        milestones={**service.milestones, Phase.LOADING: now},
    )
    return service, (Probe(service.attempt, endpoint, deadline),)


def load_again(service: Service, now: float) -> Outcome:
    """Probe a run that was ready before; what it cost to start was learned then."""
    deadline = now + service.config.start_timeout_seconds
    return load(replace(service, milestones={}), _endpoint(service), now, deadline)


def adopt(service: Service, endpoint: Endpoint, now: float) -> Outcome:
    """Take a run that is there as the next attempt; it is probed before it is trusted."""
    service = replace(
        service,
        attempt=service.attempt + 1,
        milestones={},
        answers=0,
        then=Then.STOP if service.then is Then.STOP else Then.REST,
    )
    return load(service, endpoint, now, now + service.config.start_timeout_seconds)


def become_ready(service: Service, now: float) -> Outcome:
    """Grant everything that waits."""
    grants = tuple(
        Grant(lease.id, _endpoint(service), service.waited(lease, now))
        for lease in service.waiting.values()
    )
    begun = service.milestones.get(Phase.STARTING)
    service = replace(
        service,
        state=State.READY,
        phase=None,
        since=now,
        leases={**service.leases, **service.waiting},
        waiting={},
        last_use=now,
        usual_start_seconds=_usual(service.usual_start_seconds, begun, now),
        failure=None,
        retry_at=0.0,
        stop_failures=0,
        stop_again_at=0.0,
        yielded_at=None,
        busy_asked_at=None,
        busy_again_at=None,
        busy_silent_since=None,
    )
    if service.then is Then.STOP:
        service, commands = drain(replace(service, then=Then.REST), now)
        return service, grants + commands
    return service, grants


def hold(service: Service, lease: Lease, deadline: float) -> Outcome:
    """Let a lease wait."""
    waiting = {**service.waiting, lease.id: replace(lease, deadline=deadline)}
    return replace(service, waiting=waiting), ()


def refuse_waiting(service: Service, error: Refusal) -> Outcome:
    """Refuse everything that waits, each with a copy of its own."""
    refusals = tuple(Refuse(key, error.after(error.retry_after_seconds)) for key in service.waiting)
    return replace(service, waiting={}), refusals


def fail(service: Service, error: Refusal, now: float) -> Outcome:
    """End a start that went wrong: refuse who waits, clean up, back off."""
    if isinstance(error, EngineUnreachable):
        # Nothing can be said about the run, nothing can be cleaned up, and the service is not
        # to blame: the next request tries again. What is wanted up without one tries less often.
        # The runtime reports what it finds when the engine answers again.
        service, refusals = refuse_waiting(
            service, error.after(service.start_remaining_seconds(now))
        )
        service = replace(service, failure=error, retry_at=now + BACK_OFF_FIRST_SECONDS)
        return rest(service, now), refusals
    service, refusals = back_off(service, error, now)
    service, commands = begin_stop(service, now, Phase.CLEANING)
    return service, refusals + commands


def back_off(service: Service, error: Refusal, now: float) -> Outcome:
    """Count a failure and refuse who waits until the next start may be tried."""
    failures = service.failures + 1
    delay = back_off_seconds(failures)
    service = replace(service, failure=error, failures=failures, retry_at=now + delay)
    return refuse_waiting(service, error.after(delay))


def end_cleaning(service: Service, now: float) -> Outcome:
    """Be failed; an operator who asked for a start meanwhile does not wait for the back-off."""
    wanted = service.then is Then.START and service.closed_by is None
    service = replace(
        service, state=State.FAILED, phase=None, since=now, endpoint=None, then=Then.REST
    )
    return begin_start(service, now, then=Then.START) if wanted else (service, ())


def drain(service: Service, now: float) -> Outcome:
    """Stop once nobody uses it any more."""
    service = replace(
        service, state=State.STOPPING, phase=Phase.DRAINING, since=now, busy_again_at=None
    )
    return proceed_drain(service, now)


def make_room(service: Service, now: float) -> Outcome:
    """Drain for another of its exclusive name; who comes meanwhile waits for its next turn."""
    # A proven run stays proven, should the drain be taken back.
    answers = service.answers + service.is_proven(now)
    return drain(replace(service, then=Then.REST, yielded_at=now, answers=answers), now)


def take_back(service: Service, now: float) -> Outcome:
    """End a drain that helps nobody: be ready as before, and grant everything that waits."""
    grants = tuple(
        Grant(lease.id, _endpoint(service), Waited(now - lease.requested_at, start=0.0, ready=0.0))
        for lease in service.waiting.values()
    )
    service = replace(
        service,
        state=State.READY,
        phase=None,
        since=now,
        leases={**service.leases, **service.waiting},
        waiting={},
        then=Then.REST,
        # What it was asked before says nothing about after.
        busy_asked_at=None,
        busy_silent_since=None if grants else service.busy_silent_since,
    )
    return service, grants


def proceed_drain(service: Service, now: float) -> Outcome:
    """Stop a draining service if its leases have ended and no background job runs."""
    if service.leases or service.busy_asked_at is not None:
        return service, ()
    if service.config.busy is not None:
        return ask_busy(service, now, None)
    return begin_stop(service, now)


def ask_busy(service: Service, now: float, cause: StopCause | None) -> Outcome:
    """Ask the run whether it works in the background."""
    service = replace(service, busy_asked_at=now, busy_again_at=None)
    return service, (AskBusy(service.attempt, _endpoint(service), now, cause),)


def begin_stop(service: Service, now: float, phase: Phase = Phase.STOPPING) -> Outcome:
    """Take the run down; who waits has its full time from the next start.

    The endpoint of a run that was never ready is forgotten: if it cannot be stopped, it is not
    ready for that.
    """
    service = replace(
        _await_until(service, math.inf),
        state=State.STOPPING,
        phase=phase,
        since=now,
        endpoint=None if service.state is State.STARTING else service.endpoint,
        busy_asked_at=None,
        busy_again_at=None,
        busy_silent_since=None,
    )
    return service, (Stop(service.attempt),)


def end_run(service: Service, now: float) -> Outcome:
    """The run is gone as intended: start again if somebody wants it, else rest."""
    wanted = bool(service.waiting) or service.then is Then.START
    service = replace(service, failures=0, endpoint=None)
    if service.closed_by is not None:
        # Removed from the map during the stop: what is not declared is not started.
        service, refusals = refuse_waiting(service, service.closed_by)
        return rest(service, now), refusals
    if wanted:
        return begin_start(service, now, then=service.then)
    return rest(service, now), ()


def rest(service: Service, now: float) -> Service:
    """Be stopped."""
    return replace(
        service, state=State.STOPPED, phase=None, since=now, endpoint=None, then=Then.REST
    )


def exit_failure(service: Service, reason: str) -> StartFailed:
    """Return what the end of a run is, to who waits for it and in the log."""
    return StartFailed(f"{service.config.host} ended: {reason}")


def preparing(service: Service) -> Preparing:
    """Return what a client is told during a pull or a build."""
    # Nobody knows how long it takes; half a minute is a polite interval to ask.
    return Preparing(f"{service.config.host} is being pulled or built", retry_after_seconds=30.0)


def refusal_while_failed(service: Service, now: float) -> Refusal:
    """Return what a client is told during the back-off: exact, and naming the cause."""
    remaining = max(service.retry_at - now, 0.0)
    if isinstance(service.failure, PortTaken):
        return service.failure.after(remaining)
    cause = service.failure.message if service.failure else "unknown cause"
    return BackingOff(
        f"{service.config.host} failed to start a moment ago: {cause}",
        retry_after_seconds=remaining,
    )


def hold_deadline(service: Service, now: float) -> float:
    """Return until when a lease asked for now may wait."""
    if service.state is State.STOPPING and service.phase is not Phase.DRAINING:
        return math.inf  # the stop has a deadline of its own; then the full time begins
    return now + service.config.hold_timeout_seconds


def _await_until(service: Service, deadline: float) -> Service:
    """Give everything that waits the same deadline."""
    waiting = {key: replace(lease, deadline=deadline) for key, lease in service.waiting.items()}
    return replace(service, waiting=waiting)


def _endpoint(service: Service) -> Endpoint:
    assert service.endpoint is not None, service
    return service.endpoint


def _usual(usual: float | None, begun: float | None, now: float) -> float | None:
    """Return what starts usually take, the newest weighing half."""
    if begun is None:
        return usual
    return now - begun if usual is None else (usual + now - begun) / 2
