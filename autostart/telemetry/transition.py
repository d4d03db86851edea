"""One change of a service, for those who show, count or keep it. A value, and the words for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from autostart.lifecycle import Service
from autostart.schedule import Now


class Clock(Protocol):
    """Where `now` comes from."""

    def now(self) -> Now:
        """Return monotonic seconds and wall time."""


@dataclass(frozen=True, slots=True)
class Transition:
    """One change of state or phase, for those who show, count or keep it."""

    host: str
    before: Service
    after: Service
    cause: str
    at: Now

    @property
    def is_change_of_state(self) -> bool:
        """Whether the state changed, not only the phase within it."""
        return self.after.state is not self.before.state

    @property
    def source(self) -> str:
        """Where the service stood, in the word of the log: its state; within one, its phase."""
        return str(self.before.state if self.is_change_of_state else self.before.phase)

    @property
    def target(self) -> str:
        """Where it stands now, in the word of the log."""
        return str(self.after.state if self.is_change_of_state else self.after.phase)
