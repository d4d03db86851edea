"""What an operator's commands do to a service, in each state."""

from __future__ import annotations

from dataclasses import replace

from autostart.errors import Held, ServiceLeased, ShuttingDown, UnknownHost
from autostart.lifecycle import moves
from autostart.lifecycle.commands import Accept, Command, Refuse
from autostart.lifecycle.events import (
    Kept,
    Reconfigured,
    Removed,
    RestartRequested,
    ShutdownBegan,
    StartRequested,
    StopRequested,
)
from autostart.lifecycle.moves import Outcome
from autostart.lifecycle.service import (
    RETRY_AFTER_MAX_SECONDS,
    Lease,
    Phase,
    Service,
    State,
    Then,
)

OperatorEvent = (
    Reconfigured
    | Removed
    | StartRequested
    | StopRequested
    | RestartRequested
    | Kept
    | ShutdownBegan
)

# How many leases a refusal names; the rest are counted.
LEASES_NAMED_MAX = 5
# What a client should wait while autostart itself restarts (design: what a client gets).
SHUTDOWN_RETRY_SECONDS = 5.0


def command(service: Service, event: OperatorEvent, now: float) -> Outcome:
    """Return what the operator's event makes of the service."""
    match event:
        case Reconfigured(config):
            back = isinstance(service.closed_by, UnknownHost)
            closed_by = None if back else service.closed_by
            return replace(service, config=config, closed_by=closed_by), ()
        case Removed() if isinstance(service.closed_by, ShuttingDown):
            return service, ()  # it stays up: the next autostart finds it, or never looks
        case Removed():
            gone = UnknownHost(f"{service.config.host} was removed from the map")
            service, refusals = _close(service, gone, now, refuse=False)
            return service, refusals
        case ShutdownBegan():
            leaving = ShuttingDown(
                "autostart is shutting down", retry_after_seconds=SHUTDOWN_RETRY_SECONDS
            )
            return _close(service, leaving, now, refuse=True)
        case StartRequested(ticket) | RestartRequested(ticket) | Kept(ticket) if service.is_barred:
            assert service.closed_by is not None, service
            return service, (Refuse(ticket, service.closed_by),)
        case StartRequested(ticket):
            return _accept(ticket, _start(service, now))
        case Kept(ticket, until):
            return _accept(ticket, _start(replace(service, kept_until=until), now))
        case StopRequested():
            return _stop(service, event, now)
        case RestartRequested(ticket, force):
            return _accept(ticket, _restart(service, force, now))


def held_by_operator(host: str) -> Held:
    """Return what closes a service that its operator holds stopped."""
    return _held(f"{host} is held stopped by its operator")


def _accept(ticket: int, outcome: Outcome) -> Outcome:
    service, commands = outcome
    return service, (Accept(ticket), *commands)


def _close(
    service: Service, why: UnknownHost | ShuttingDown, now: float, *, refuse: bool
) -> Outcome:
    """Close it to new requests; those held are refused at a shutdown and served at a removal."""
    service = replace(service, closed_by=why)
    refusals: tuple[Command, ...] = ()
    if refuse:
        service, refusals = moves.refuse_waiting(service, why)
    if service.phase is Phase.QUEUED and not service.waiting:
        return moves.rest(service, now), refusals
    return service, refusals


def _start(service: Service, now: float) -> Outcome:
    """Want it up: an operator's hold and the back-off end."""
    service = replace(service, closed_by=None)
    match service.state:
        case State.STOPPED | State.FAILED:
            return moves.begin_start(service, now, then=Then.START)
        case State.STARTING:
            # A start that waits in the queue must outlive the requests that wait with it.
            return replace(
                service, then=Then.START if service.phase is Phase.QUEUED else Then.REST
            ), ()
        case State.READY:
            return replace(service, last_use=now), ()
        case State.STOPPING:
            return replace(service, then=Then.START), ()
    raise AssertionError(service)


def _stop(service: Service, event: StopRequested, now: float) -> Outcome:
    in_use = [*service.leases.values(), *service.waiting.values()]
    if in_use and not event.drain and not event.force and service.state is not State.STOPPING:
        return service, (Refuse(event.ticket, _leased(service, in_use)),)
    commands: tuple[Command, ...] = (Accept(event.ticket),)
    if event.hold and not service.is_barred:
        service = replace(service, closed_by=held_by_operator(service.config.host))
    service = replace(service, kept_until=0.0, yielded_at=None)
    service, moved = _take_down(service, event, now)
    return service, commands + moved


def _take_down(service: Service, event: StopRequested, now: float) -> Outcome:
    match service.state:
        case State.STOPPED:
            return replace(service, failures=0), ()
        case State.FAILED:
            return moves.rest(replace(service, failures=0), now), ()
        case State.STARTING if service.phase is Phase.QUEUED and (
            event.force or not service.waiting
        ):
            service, refusals = _refuse_stopped(service)
            return moves.rest(service, now), refusals
        case State.STARTING if (service.waiting or _streams(service)) and not event.force:
            return replace(service, then=Then.STOP), ()
        case State.READY if not event.force:
            return moves.drain(replace(service, then=Then.REST), now)
        case State.STARTING | State.READY:
            service, refusals = _refuse_stopped(service)
            service, stop = moves.begin_stop(replace(service, then=Then.REST), now)
            return service, refusals + stop
        case State.STOPPING if service.phase is Phase.DRAINING and event.force:
            service, refusals = _refuse_stopped(service)
            service, stop = moves.begin_stop(replace(service, then=Then.REST), now)
            return service, refusals + stop
        case State.STOPPING if event.hold or event.force:
            return _refuse_stopped(replace(service, then=Then.REST))
    return replace(service, then=Then.REST), ()


def _streams(service: Service) -> bool:
    """Whether a run that refused a connection still serves others."""
    return service.was_ready and bool(service.leases)


def _refuse_stopped(service: Service) -> Outcome:
    """Refuse who waits for a service that its operator has just stopped."""
    stopped = _held(f"{service.config.host} was stopped by its operator")
    return moves.refuse_waiting(service, stopped)


def _held(text: str) -> Held:
    # Nobody knows when an operator will start it again; the longest wait that clients obey.
    return Held(text, retry_after_seconds=RETRY_AFTER_MAX_SECONDS)


def _leased(service: Service, in_use: list[Lease]) -> ServiceLeased:
    named = ", ".join(lease.about for lease in in_use[:LEASES_NAMED_MAX])
    more = len(in_use) - LEASES_NAMED_MAX
    rest = f" and {more} more" if more > 0 else ""
    return ServiceLeased(f"{service.config.host} is in use by {named}{rest}")


def _restart(service: Service, force: bool, now: float) -> Outcome:
    service = replace(service, closed_by=None, yielded_at=None)
    match service.state:
        case State.STOPPED | State.FAILED:
            return moves.begin_start(service, now, then=Then.START)
        case State.STARTING if service.phase is Phase.QUEUED:
            return replace(service, then=Then.START), ()
        case State.READY if not force:
            return moves.drain(replace(service, then=Then.START), now)
        case State.STARTING if _streams(service) and not force:
            return moves.drain(replace(service, then=Then.START), now)
        case State.STARTING | State.READY:
            return moves.begin_stop(replace(service, then=Then.START), now)
        case State.STOPPING if service.phase is Phase.DRAINING and force:
            return moves.begin_stop(replace(service, then=Then.START), now)
        case State.STOPPING:
            return replace(service, then=Then.START), ()
    raise AssertionError(service)
