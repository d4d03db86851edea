"""What can happen to a service: facts in the past tense, due dates, and what an operator asked.

Completions carry the attempt that they belong to, what concerns a run carries its identity. An
operator's events carry a ticket, which is answered by exactly one Accept or Refuse.
"""

from __future__ import annotations

from dataclasses import dataclass

from autostart.config import ServiceConfig
from autostart.errors import Refusal
from autostart.lifecycle.service import Endpoint, Lease, Phase, StopCause

# Requests.


@dataclass(frozen=True, slots=True)
class LeaseRequested:
    """A request asks for the service; answered by exactly one Grant or Refuse."""

    lease: Lease


@dataclass(frozen=True, slots=True)
class LeaseReleased:
    """A request ended, or its client left while it was held."""

    id: int


@dataclass(frozen=True, slots=True)
class Answered:
    """The service has begun to answer a leased request: its run has shown that it works."""

    id: int


@dataclass(frozen=True, slots=True)
class Lost:
    """The run refused a connection although it was ready."""

    run: str


# Due dates, decided by schedule; each is checked again here.


@dataclass(frozen=True, slots=True)
class StartDue:
    """It is wanted up (warm window, idle: never, kept), or its exclusive place is free.

    Or still its own: nobody waits for it any more, or can have it in time.
    """


@dataclass(frozen=True, slots=True)
class StopDue:
    """It is idle for long enough, in the way of another (idle: evicted; in use for long enough:
    yielded, it drains), or no longer declared.
    """

    cause: StopCause


@dataclass(frozen=True, slots=True)
class BusyDue:
    """It is time to ask a busy service again."""


@dataclass(frozen=True, slots=True)
class RetryDue:
    """The back-off is over."""


@dataclass(frozen=True, slots=True)
class HoldDue:
    """A held request has waited for as long as it may; `behind` names who has its place."""

    behind: str = ""


# Completions of commands.


@dataclass(frozen=True, slots=True)
class Progressed:
    """The start reached a phase."""

    attempt: int
    phase: Phase


@dataclass(frozen=True, slots=True)
class Started:
    """The runtime brought a run up; it need not be ready."""

    attempt: int
    endpoint: Endpoint


@dataclass(frozen=True, slots=True)
class ProbeSucceeded:
    """The run answers."""

    attempt: int


@dataclass(frozen=True, slots=True)
class StartFailed:
    """The runtime failed, or the run was not ready in time."""

    attempt: int
    error: Refusal


@dataclass(frozen=True, slots=True)
class Stopped:
    """The run is gone."""

    attempt: int


@dataclass(frozen=True, slots=True)
class StopFailed:
    """The runtime could not stop it, and looking again it still runs."""

    attempt: int
    reason: str


@dataclass(frozen=True, slots=True)
class BusyAnswered:
    """What the service said to AskBusy; None when it gave no usable answer.

    `asked_at` says which question it answers: one that a request has overtaken proves nothing.
    """

    attempt: int
    asked_at: float
    cause: StopCause | None
    busy: bool | None


# What the runtime noticed.


@dataclass(frozen=True, slots=True)
class Exited:
    """A run ended."""

    run: str
    reason: str


@dataclass(frozen=True, slots=True)
class Adopted:
    """A run is there that this attempt did not start."""

    endpoint: Endpoint


# The operator.


@dataclass(frozen=True, slots=True)
class Reconfigured:
    """The map was read again."""

    config: ServiceConfig


@dataclass(frozen=True, slots=True)
class Removed:
    """The map was read again without it."""


@dataclass(frozen=True, slots=True)
class StartRequested:
    """Start now, whatever the back-off or an earlier hold says."""

    ticket: int


@dataclass(frozen=True, slots=True)
class StopRequested:
    """Stop; with leases only if drain (wait for them) or force (cut them)."""

    ticket: int
    drain: bool = False
    force: bool = False
    hold: bool = False


@dataclass(frozen=True, slots=True)
class RestartRequested:
    """Stop once leases have ended (force: at once), then start."""

    ticket: int
    force: bool = False


@dataclass(frozen=True, slots=True)
class Kept:
    """Keep it up until then, starting it if need be."""

    ticket: int
    until: float


@dataclass(frozen=True, slots=True)
class ShutdownBegan:
    """autostart is stopping; services stay up."""


Event = (
    LeaseRequested
    | LeaseReleased
    | Answered
    | Lost
    | StartDue
    | StopDue
    | BusyDue
    | RetryDue
    | HoldDue
    | Progressed
    | Started
    | ProbeSucceeded
    | StartFailed
    | Stopped
    | StopFailed
    | BusyAnswered
    | Exited
    | Adopted
    | Reconfigured
    | Removed
    | StartRequested
    | StopRequested
    | RestartRequested
    | Kept
    | ShutdownBegan
)
