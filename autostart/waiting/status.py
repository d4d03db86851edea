"""What a front end may know of a service: where it stands, and nothing of its output.

The same words in `GET /.autostart/status`, in each event of `/.autostart/events`, and on the
waiting page.
"""

from __future__ import annotations

from autostart.errors import EngineUnreachable, Refusal
from autostart.lifecycle import Phase, Service, State
from autostart.telemetry import event_text

Status = dict[str, object]


def public_status(service: Service, now: float) -> Status:
    """Return what anybody who gets in may know; times in seconds, None where there is none.

    `elapsed_seconds` is of the start under way, from where `usual_start_seconds` counts; before
    that, of the wait for its place or of the preparation. `failure` says why it is not up, if it
    failed or is closed; `retry_in_seconds` is how long no request wakes it.
    """
    failure = _failure(service)
    return {
        "host": service.config.host,
        "name": service.config.name or service.config.host,
        "state": service.state.value,
        "phase": None if service.phase is None else service.phase.value,
        "elapsed_seconds": _rounded(_elapsed_seconds(service, now)),
        "usual_start_seconds": _rounded(service.usual_start_seconds),
        "failure": None if failure is None else {"code": failure.code, "message": failure.message},
        "retry_in_seconds": _rounded(_retry_in_seconds(service, now)),
    }


def status_event(status: Status) -> str:
    """Return a status as a server-sent event."""
    return event_text("status", status)


def _elapsed_seconds(service: Service, now: float) -> float | None:
    if service.state is not State.STARTING:
        return None
    begun = service.milestones.get(Phase.STARTING, service.since)
    if service.phase in (Phase.QUEUED, Phase.PREPARING):
        begun = service.milestones.get(service.phase, service.since)
    return max(0.0, now - begun)


def _failure(service: Service) -> Refusal | None:
    if service.is_barred:
        return service.closed_by
    if service.state in (State.STARTING, State.READY):
        return None
    if service.state is State.STOPPING and service.phase is not Phase.CLEANING:
        return service.closed_by
    return service.closed_by or service.failure


def _retry_in_seconds(service: Service, now: float) -> float | None:
    if service.closed_by is not None:
        return None
    backs_off = service.state is State.FAILED or service.phase is Phase.CLEANING
    # Then any request tries again; one that comes as soon as it can learns nothing new.
    unseen = service.state is State.STOPPED and isinstance(service.failure, EngineUnreachable)
    return max(0.0, service.retry_at - now) if backs_off or unseen else None


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 3)
