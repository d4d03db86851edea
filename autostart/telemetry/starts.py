"""Starts that ended: what asked for each, how it ended, how long each phase took. Values only."""

from __future__ import annotations

import json
import math
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from autostart.lifecycle import Phase, Service, State
from autostart.telemetry.transition import Transition

# Over all services: a start every five minutes for a week, and half a megabyte.
STARTS_MAX = 2_000
START_PHASES = (Phase.QUEUED, Phase.PREPARING, Phase.STARTING, Phase.LOADING)


@dataclass(frozen=True, slots=True)
class Start:
    """One start that ended; `at` is when it was asked for, in UTC.

    `outcome` is "ready", "stopped" (by an operator, or by autostart before it was ready), or the
    code of what failed.
    """

    host: str
    at: datetime
    cause: str
    outcome: str
    seconds: float
    phases: Mapping[str, float]

    def line(self) -> str:
        """Return it as one line of a file."""
        phases = [self.phases[phase.value] for phase in START_PHASES]
        written = [self.host, self.at.isoformat(), self.cause, self.outcome, self.seconds, phases]
        return json.dumps(written) + "\n"


def parse_start(line: bytes) -> Start:
    """Return what such a line says; raises ValueError, TypeError or RecursionError."""
    host, at, cause, outcome, seconds, phases = json.loads(line)
    date = datetime.fromisoformat(at)
    if date.tzinfo is None or not all(isinstance(each, str) for each in (host, cause, outcome)):
        raise ValueError("not a start")
    if not all(math.isfinite(each) and each >= 0 for each in (seconds, *phases)):
        raise ValueError("a time that cannot be")
    named = {phase.value: float(each) for phase, each in zip(START_PHASES, phases, strict=True)}
    return Start(host, date.astimezone(UTC), cause, outcome, float(seconds), named)


class Starts:
    """The last starts of the fleet, at most `entries_max`, none older than `age_max`."""

    def __init__(
        self, kept: Iterable[Start], *, age_max: timedelta, entries_max: int = STARTS_MAX
    ) -> None:
        self._age_max = age_max
        self._entries_max = entries_max
        self._by_host: dict[str, deque[Start]] = {}
        self._count = 0
        self._begun: dict[str, tuple[int, str]] = {}  # attempt and cause, by host
        for start in kept:
            self._add(start)

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Start]:
        """Yield them all, oldest first."""
        every = (start for starts in self._by_host.values() for start in starts)
        return iter(sorted(every, key=lambda start: start.at))

    def take(self, transition: Transition) -> Start | None:
        """Take a transition; return the start that ended with it, if one did."""
        host, before, after = transition.host, transition.before, transition.after
        if after.attempt != before.attempt and Phase.QUEUED in after.milestones:
            self._begun[host] = after.attempt, transition.cause
        outcome = start_outcome(before, after)
        if outcome is None:
            return None
        attempt, cause = self._begun.get(host, (0, ""))
        taken = phase_seconds(before, transition.at.monotonic)
        phases = {phase: round(seconds, 3) for phase, seconds in taken.items()}
        seconds = round(sum(phases.values()), 3)
        start = Start(
            host,
            at=transition.at.wall.astimezone(UTC) - timedelta(seconds=seconds),
            cause=cause if attempt == before.attempt else "",
            outcome=outcome,
            seconds=seconds,
            phases=phases,
        )
        self._add(start)
        return start

    def of(self, host: str, since: datetime) -> list[Start]:
        """Return the starts of a service that were asked for since then, oldest first."""
        return [start for start in self._by_host.get(host, ()) if start.at >= since]

    def forget_before(self, wall: datetime) -> int:
        """Drop those that are too old by then; return how many."""
        before = self._count
        for host, starts in list(self._by_host.items()):
            while starts and wall - starts[0].at > self._age_max:
                starts.popleft()
                self._count -= 1
            if not starts:
                del self._by_host[host]
        return before - self._count

    def _add(self, start: Start) -> None:
        self._by_host.setdefault(start.host, deque()).append(start)
        self._count += 1
        if self._count > self._entries_max:
            # Of the service that has the most: one that fails over and over displaces only itself.
            max(self._by_host.values(), key=len).popleft()
            self._count -= 1


def start_outcome(before: Service, after: Service) -> str | None:
    """Return how a start ended, None if none did; what is adopted or probed again is no start."""
    if before.state is not State.STARTING or after.state is State.STARTING:
        return None
    if Phase.STARTING not in before.milestones:
        return None
    if after.state is State.READY or after.phase is Phase.DRAINING:
        return State.READY.value  # ready and, asked to stop meanwhile, on its way down
    if after.failure is not None and after.failure is not before.failure:
        return after.failure.code
    return State.STOPPED.value


def phase_seconds(service: Service, now: float) -> dict[str, float]:
    """Return how long each phase of the present start took, if it ends now."""
    begun = sorted(service.milestones.items(), key=lambda milestone: milestone[1])
    ends = [date for _, date in begun[1:]] + [now]
    seconds = dict.fromkeys((phase.value for phase in START_PHASES), 0.0)
    for (phase, since), until in zip(begun, ends, strict=True):
        seconds[phase.value] += max(0.0, until - since)
    return seconds
