"""What became of a command: how a start advanced, how a stop ended, what a service said.

`transition` has checked that the completion belongs to the present attempt.
"""

from __future__ import annotations

from dataclasses import replace

from autostart import errors
from autostart.lifecycle import moves
from autostart.lifecycle.events import (
    BusyAnswered,
    ProbeSucceeded,
    Progressed,
    Started,
    StartFailed,
    StopFailed,
    Stopped,
)
from autostart.lifecycle.moves import Outcome
from autostart.lifecycle.service import (
    BUSY_AGAIN_SECONDS,
    BUSY_SILENCE_MAX_SECONDS,
    Phase,
    Service,
    State,
    Then,
    back_off_seconds,
)


def start_advanced(
    service: Service, event: Progressed | Started | ProbeSucceeded | StartFailed, now: float
) -> Outcome:
    match event:
        case Progressed() | Started() if service.phase is Phase.LOADING:
            return service, ()  # a start reports its run once
        case Progressed(_, phase):
            service = replace(service, phase=phase, milestones={**service.milestones, phase: now})
            if phase is Phase.PREPARING:
                return moves.refuse_waiting(service, moves.preparing(service))
            return service, ()
        case Started(_, endpoint):
            service = replace(service, answers=0)
            if service.last_exit is not None and service.has_ended(endpoint):
                return moves.fail(service, moves.exit_failure(service, service.last_exit[1]), now)
            begun = service.milestones.get(Phase.STARTING, now)
            deadline = begun + service.config.start_timeout_seconds
            return moves.load(service, endpoint, now, deadline)
        case ProbeSucceeded():
            if service.phase is not Phase.LOADING:
                return service, ()
            return moves.become_ready(service, now)
        case StartFailed(_, error):
            if service.leases and service.was_ready:
                # It refused a connection and still streams to others: never stopped under them.
                # Whoever waited has waited long enough.
                service, refusals = moves.refuse_waiting(
                    service, error.after(service.start_remaining_seconds(now))
                )
                service, commands = moves.load_again(service, now)
                return service, refusals + commands
            return moves.fail(service, error, now)


def stop_ended(service: Service, event: Stopped | StopFailed, now: float) -> Outcome:
    match event:
        case Stopped() | StopFailed() if service.phase is Phase.CLEANING:
            return moves.end_cleaning(service, now)
        case Stopped():
            return moves.end_run(service, now)
        case StopFailed(_, reason) if service.endpoint is None:
            # It was never ready, so nobody can be given it.
            error = errors.StartFailed(f"{service.config.host} could not be stopped: {reason}")
            service, refusals = moves.back_off(replace(service, then=Then.REST), error, now)
            service, _ = moves.end_cleaning(service, now)
            return service, refusals
        case StopFailed() if service.has_ended(service.endpoint):
            return moves.end_run(service, now)
        case StopFailed():
            failures, last_use = service.stop_failures + 1, service.last_use
            service = replace(service, then=Then.REST, milestones={})
            service, grants = moves.become_ready(service, now)
            service = replace(
                service,
                last_use=last_use,  # still due: it is tried again as soon as the back-off ends
                stop_failures=failures,
                stop_again_at=now + back_off_seconds(failures),
            )
            return service, grants


def busy_answered(service: Service, event: BusyAnswered, now: float) -> Outcome:
    if event.attempt != service.attempt or event.asked_at != service.busy_asked_at:
        return service, ()
    service = replace(service, busy_asked_at=None)
    draining = service.phase is Phase.DRAINING
    if service.leases or (service.state is not State.READY and not draining):
        return service, ()
    silent_since = None
    if event.busy is None:
        first = service.busy_silent_since
        silent_since = event.asked_at if first is None else first
    service = replace(service, busy_silent_since=silent_since)
    gave_up = silent_since is not None and now - silent_since >= BUSY_SILENCE_MAX_SECONDS
    if event.busy is False or gave_up:
        if draining or service.is_stop_due(event.cause, now):
            return moves.begin_stop(service, now)
        return service, ()
    idle = service.config.idle_seconds
    again = BUSY_AGAIN_SECONDS if idle is None else min(idle, BUSY_AGAIN_SECONDS)
    last_use = now if event.busy else service.last_use
    return replace(service, last_use=last_use, busy_again_at=now + again), ()
