"""The contract of a runtime. One suite (tests/contract/test_runtime.py) holds every runtime to it.

A runtime knows how to bring a declared service up and down and what runs of it exist. It knows no
leases, no idleness, no HTTP: whether a run is ready is asked elsewhere. It keeps no state that it
could not find again: after `kill -9` of autostart a new runtime sees the same runs.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, Self

from autostart.config import ServiceConfig
from autostart.lifecycle import Endpoint

# What `stop` may take beyond the service's stop_timeout; whoever waits gives it up then.
STOP_GRACE_SECONDS = 15.0
# Set in autostart's own image: what is not in that container is not there for us.
IN_CONTAINER_VARIABLE = "AUTOSTART_IN_CONTAINER"


@dataclass(frozen=True)
class Appeared:
    """A run that nobody asked this runtime to start, or that replaced one, is there."""

    host: str
    endpoint: Endpoint


@dataclass(frozen=True)
class Exited:
    """A run ended, whoever ended it; `reason` is for people ("exit code 3")."""

    host: str
    run: str
    reason: str


@dataclass(frozen=True)
class Lost:
    """The runtime cannot see its runs any more (its engine does not answer)."""

    reason: str


@dataclass(frozen=True)
class Found:
    """The runtime sees its runs again; what it missed follows as Appeared and Exited."""


Change = Appeared | Exited | Lost | Found


@dataclass(frozen=True)
class Usage:
    """What a run uses now."""

    memory_bytes: int
    cpu_seconds: float


@dataclass(frozen=True)
class Diagnosis:
    """One line of `autostart doctor`."""

    subject: str
    works: bool
    detail: str
    hint: str = ""
    is_doubtful: bool = False  # it works, and should be looked at

    @classmethod
    def of(cls, subject: str, attempt: Callable[[], None], *, hint: str) -> Self:
        """Try it: it works unless that raises OSError."""
        try:
            attempt()
        except OSError as error:
            return cls(subject, works=False, detail=str(error), hint=hint)
        return cls(subject, works=True, detail="")


@dataclass(frozen=True)
class Doubt:
    """What `examine` found about one service; a `fatal` one would fail its next start."""

    text: str
    fatal: bool


@dataclass(frozen=True)
class Device:
    """What a service computes on, and why that was chosen, for people."""

    kind: Literal["cpu", "gpu"]
    reason: str


class Runtime(Protocol):
    """What can start and stop services.

    `declare` is called before anything else and after every reload; only declared services are
    ever started, stopped or reported, to ask for another is a bug (AssertionError). A service that
    leaves the map stays declared until it is stopped. Calls for one host wait for each other.
    """

    name: str

    def declare(self, services: Sequence[ServiceConfig]) -> None:
        """Replace the declared services. Runs of services no longer declared are left alone."""

    async def needs_preparation(self, service: ServiceConfig) -> bool:
        """Say whether the next start has something to pull or to build first.

        Clients are refused meanwhile; creating alone takes a second and belongs to `start`.
        Raises StartFailed where that cannot be told, EngineUnreachable.
        """

    async def prepare(self, service: ServiceConfig, progress: Callable[[str], None]) -> None:
        """Pull, build and create what a start needs; `progress` gets lines for people.

        Returns at once where nothing is to do. May be cancelled; what is done stays done.
        Raises StartFailed or EngineUnreachable.
        """

    async def start(self, service: ServiceConfig) -> Endpoint:
        """Bring a run up and return its endpoint, without waiting for readiness.

        By state: stopped → a new run; running → the endpoint of that run (idempotent); another's
        program on the port → PortTaken, nothing started. On failure and on cancellation nothing is
        left half-started. Raises StartFailed, PortTaken, EngineUnreachable.
        A run that ends later is reported by `changes`, once.
        """

    async def wait_until_healthy(self, service: ServiceConfig, endpoint: Endpoint) -> None:
        """Return when the engine calls the run healthy; only for `ready: container-health`.

        The caller sets the deadline by cancelling. Raises StartFailed where its verdict is no, or
        none will come; EngineUnreachable.
        """

    async def stop(self, service: ServiceConfig) -> None:
        """End the run, asking first and forcing after stop_timeout; return when it is gone.

        By state: running → asked, then forced; stopped or never started → returns (idempotent).
        All of it takes stop_timeout and STOP_GRACE_SECONDS at most.
        Its end is reported by `changes` as any other. Raises StopFailed, EngineUnreachable.
        """

    async def running(self) -> dict[str, Endpoint]:
        """Return the endpoint of every declared service that runs, by host.

        Includes runs started by an earlier autostart with the same state folder; never a program
        that merely has the same pid, name or port. Raises EngineUnreachable.
        """

    def changes(self) -> AsyncGenerator[Change]:
        """Report what happens to declared services until closed; reconnects by itself.

        What was missed while the engine was away is reconciled with `running`. One consumer.
        """

    def logs(self, service: ServiceConfig, lines: int, *, follow: bool) -> AsyncGenerator[str]:
        """Yield the last `lines` lines of output, without line ends; with `follow`, then new ones.

        A service that never ran yields nothing. Who stops listening closes it (`aclosing`).
        """

    async def usage(self, service: ServiceConfig) -> Usage | None:
        """Return what the run uses now, None when there is none. Raises EngineUnreachable."""

    def device(self, service: ServiceConfig) -> Device | None:
        """Return what the next start would compute on, without I/O.

        None where there is nothing to choose, or nobody can say yet.
        """

    async def examine(self, service: ServiceConfig) -> list[Doubt]:
        """Return what would fail the next start and what is doubtful; changes nothing.

        An engine that does not answer is `diagnose`'s to tell. Never raises.
        """

    async def diagnose(self) -> list[Diagnosis]:
        """Say whether this runtime can work on this machine; never raises."""

    async def close(self) -> None:
        """Let go of watches and threads; runs stay up. A second close does nothing."""
