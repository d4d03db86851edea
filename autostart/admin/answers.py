"""Services, failures and errors as JSON values. Knows no routes and no sockets."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from autostart import errors, schedule
from autostart.errors import AutostartError, ConfigError
from autostart.lifecycle import Lease, Service, State
from autostart.runtimes.base import Device
from autostart.schedule import Now

_CLIENT_ERROR_MAX = 499


def service_answer(
    service: Service,
    now: Now,
    *,
    runtime: str,
    device: Device | None,
    progress: str | None,
    preparation: Mapping[str, Any] | None,
    failure_log: list[str] | None,
) -> dict[str, Any]:
    """Return one service; times are ISO dates in UTC, what ends in _seconds counts from now."""
    endpoint, config = service.endpoint, service.config
    failed = service.state is State.FAILED
    kept = service.kept_until > now.monotonic
    return {
        "host": config.host,
        "name": config.name or config.host,
        "aliases": list(config.aliases),
        "runtime": runtime,
        "state": service.state.value,
        "phase": service.phase.value if service.phase else None,
        "since": _date(service.since, now),
        "since_seconds": _rounded(now.monotonic - service.since),
        "attempt": service.attempt,
        "endpoint": None
        if endpoint is None
        else {"address": endpoint.address, "port": endpoint.port, "run": endpoint.run},
        "leases": [_lease(lease, now) for lease in service.leases.values()],
        "waiting": [_lease(lease, now) for lease in service.waiting.values()],
        "idle_due_seconds": _idle_due_seconds(service, now),
        "kept_until": _date(service.kept_until, now) if kept else None,
        "phases": _phases(service, now),
        "usual_start_seconds": _rounded(service.usual_start_seconds),
        "failure": failure_answer(service.failure, config.host),
        "failure_log": failure_log,
        "failures": service.failures,
        "retry_in_seconds": _rounded(max(0.0, service.retry_at - now.monotonic))
        if failed
        else None,
        "closed_by": service.closed_by.code if service.closed_by else None,
        "device": None if device is None else {"kind": device.kind, "reason": device.reason},
        "progress": progress,
        "preparation": preparation,
    }


def failure_answer(error: AutostartError | None, host: str) -> dict[str, str] | None:
    """Return what failed, for people and for programs, and the operator's next step.

    `detail` has more lines where there are any: the end of a build's output.
    """
    if error is None:
        return None
    shown = {"code": error.code, "message": error.for_operator, "hint": _hint(error, host)}
    return {**shown, "detail": error.detail}


def error_answer(error: AutostartError, host: str | None = None) -> dict[str, Any]:
    """Return the body of an answer that says no; `problems` if the map is at fault."""
    body: dict[str, Any] = {
        "error": {
            "message": error.message,
            "type": "invalid_request_error" if is_client_error(error) else "server_error",
            "code": error.code,
            "param": None,
        },
        "detail": error.message,
        "hint": error.hint if host is None else _hint(error, host),
    }
    if isinstance(error, ConfigError | errors.NeedsRestart):
        body["problems"] = error.message.splitlines()
    return body


def status_of(error: AutostartError) -> int:
    """Return the HTTP status: a map that is refused is the caller's, who asked us to take it."""
    return 400 if isinstance(error, ConfigError) else error.status


def is_client_error(error: AutostartError) -> bool:
    """Whether the caller can do something about it."""
    return status_of(error) <= _CLIENT_ERROR_MAX


def _hint(error: AutostartError, host: str) -> str:
    return error.hint.replace("HOST", host)


def _lease(lease: Lease, now: Now) -> dict[str, Any]:
    return {
        "id": lease.id,
        "about": lease.about,
        "age_seconds": _rounded(now.monotonic - lease.requested_at),
    }


def _idle_due_seconds(service: Service, now: Now) -> float | None:
    due = schedule.idle_due_seconds(service, now)
    return None if due is None else _rounded(max(0.0, due))


def _phases(service: Service, now: Now) -> list[dict[str, Any]]:
    """Return the phases of the last start, in order, each with how long it took.

    None for the last one if it is no longer known.
    """
    begun = sorted(service.milestones.items(), key=lambda milestone: milestone[1])
    match service.state:
        case State.STARTING:
            end: float | None = now.monotonic
        case State.READY:
            end = service.since
        case _:
            end = None
    ends = [date for _, date in begun[1:]] + [end]
    return [
        {"phase": phase.value, "seconds": None if until is None else _rounded(until - since)}
        for (phase, since), until in zip(begun, ends, strict=False)
    ]


def _date(monotonic: float, now: Now) -> str:
    wall: datetime = now.wall + timedelta(seconds=monotonic - now.monotonic)
    return wall.isoformat(timespec="milliseconds")


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 3)
