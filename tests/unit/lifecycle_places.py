"""One service in each place that the lifecycle knows, and how its tests write down what follows.

A place is a state with its phase. In every place the clock shows NOW, and what can be due is due.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from autostart.config import ServiceConfig
from autostart.errors import AutostartError, StartFailed
from autostart.lifecycle import Command, Endpoint, Lease, Phase, Refuse, Service, State

Place = tuple[State, Phase | None]

STOPPED: Place = (State.STOPPED, None)
QUEUED: Place = (State.STARTING, Phase.QUEUED)
PREPARING: Place = (State.STARTING, Phase.PREPARING)
STARTING: Place = (State.STARTING, Phase.STARTING)
LOADING: Place = (State.STARTING, Phase.LOADING)
READY: Place = (State.READY, None)
DRAINING: Place = (State.STOPPING, Phase.DRAINING)
STOPPING: Place = (State.STOPPING, Phase.STOPPING)
CLEANING: Place = (State.STOPPING, Phase.CLEANING)
FAILED: Place = (State.FAILED, None)

PLACES = (
    STOPPED,
    QUEUED,
    PREPARING,
    STARTING,
    LOADING,
    READY,
    DRAINING,
    STOPPING,
    CLEANING,
    FAILED,
)

NOW = 1000.0
ATTEMPT = 7
RUN = Endpoint("127.0.0.1", 8001, "run-7")
OTHER_RUN = Endpoint("127.0.0.1", 8001, "run-8")
HOST = "whisper.example.com"
CONFIG = ServiceConfig(
    host=HOST,
    command=("serve",),
    port=8001,
    idle_seconds=60.0,
    start_timeout_seconds=60.0,
    hold_timeout_seconds=20.0,
    max_waiting=3,
)
EXCLUSIVE = replace(CONFIG, exclusive="gpu0")
ASKED_FOR_BUSY = replace(CONFIG, busy="/busy")
FAILURE = StartFailed("whisper.example.com ended: exit code 3")


def lease(number: int, **changes: Any) -> Lease:
    """Return the lease of an ordinary request that came ten seconds ago."""
    return Lease(id=number, about="GET /", requested_at=NOW - 10.0, **changes)


def waiting(*numbers: int, deadline: float = NOW) -> dict[int, Lease]:
    """Return leases that wait until `deadline`, by number."""
    return {number: lease(number, deadline=deadline) for number in numbers}


def leased(*numbers: int) -> dict[int, Lease]:
    """Return granted leases, by number."""
    return {number: lease(number) for number in numbers}


def service(place: Place, **changes: Any) -> Service:
    """Return the service of that place: lease 1 waits where one can, and holds where one must."""
    state, phase = place
    known: dict[str, Any] = {"config": CONFIG, "attempt": ATTEMPT, "since": NOW - 100.0}
    match place:
        case (State.STARTING, Phase.QUEUED):
            known |= {"config": EXCLUSIVE, "milestones": {Phase.QUEUED: NOW - 8.0}}
            known |= {"waiting": waiting(1)}
        case (State.STARTING, Phase.PREPARING):
            known |= {"milestones": {Phase.QUEUED: NOW - 8.0, Phase.PREPARING: NOW - 8.0}}
        case (State.STARTING, Phase.STARTING):
            known |= {"milestones": {Phase.QUEUED: NOW - 8.0, Phase.STARTING: NOW - 8.0}}
            known |= {"waiting": waiting(1)}
        case (State.STARTING, Phase.LOADING):
            known |= {"milestones": {Phase.STARTING: NOW - 8.0, Phase.LOADING: NOW - 6.0}}
            known |= {"waiting": waiting(1), "endpoint": RUN}
        case (State.READY, _):
            known |= {"endpoint": RUN, "last_use": NOW - 60.0}
        case (State.STOPPING, Phase.DRAINING):
            known |= {"endpoint": RUN, "leases": leased(1)}
        case (State.STOPPING, Phase.STOPPING):
            known |= {"endpoint": RUN}
        case (State.STOPPING, Phase.CLEANING) | (State.FAILED, _):
            known |= {"failures": 1, "failure": FAILURE, "retry_at": NOW}
    return Service(state=state, phase=phase, **(known | changes))


def place_of(a_service: Service) -> Place:
    return a_service.state, a_service.phase


@dataclass(frozen=True)
class Refused:
    """A Refuse in short: which lease or ticket, with which class of error."""

    id: int
    error: type[AutostartError]


def in_short(commands: tuple[Command, ...]) -> tuple[Command | Refused, ...]:
    """Return the commands with each refusal reduced to its class."""
    return tuple(
        Refused(command.id, type(command.error)) if isinstance(command, Refuse) else command
        for command in commands
    )
