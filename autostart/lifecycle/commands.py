"""What the lifecycle wants done. Each of Start, Probe, Stop and AskBusy is answered by an event."""

from __future__ import annotations

from dataclasses import dataclass

from autostart.errors import AutostartError
from autostart.lifecycle.service import Endpoint, StopCause, Waited


@dataclass(frozen=True, slots=True)
class Start:
    """Prepare if need be, then bring it up: Progressed…, then Started or StartFailed."""

    attempt: int


@dataclass(frozen=True, slots=True)
class Probe:
    """Ask it until it is ready: ProbeSucceeded, or StartFailed at the deadline.

    Replaces a Probe that still runs.
    """

    attempt: int
    endpoint: Endpoint
    deadline: float


@dataclass(frozen=True, slots=True)
class Stop:
    """End what Start and Probe do, then stop it: Stopped or StopFailed."""

    attempt: int


@dataclass(frozen=True, slots=True)
class AskBusy:
    """Ask whether work goes on in the background: BusyAnswered, within seconds.

    `cause` is what it would be stopped for, None if nothing but an operator's drain asks for it.
    """

    attempt: int
    endpoint: Endpoint
    asked_at: float
    cause: StopCause | None


@dataclass(frozen=True, slots=True)
class Grant:
    """The lease is granted; its holder owes a LeaseReleased. Unless held, `waited` is None."""

    id: int
    endpoint: Endpoint
    waited: Waited | None = None


@dataclass(frozen=True, slots=True)
class Refuse:
    """The lease or the operator's ticket is refused; nothing is owed."""

    id: int
    error: AutostartError


@dataclass(frozen=True, slots=True)
class Accept:
    """The operator's ticket is accepted."""

    id: int


Command = Start | Probe | Stop | AskBusy | Grant | Refuse | Accept
