"""The last transitions, for people: kept in memory, told as they happen; what starts usually take.

The starts of the last days are kept elsewhere (`days`): these entries end with the process.
"""

from __future__ import annotations

import json
import math
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from autostart.lifecycle import State
from autostart.schedule import Now
from autostart.telemetry.disk import Disk
from autostart.telemetry.transition import Transition

# Transitions kept for people: a busy day of a dozen services, and less than a megabyte.
HISTORY_MAX = 1_000
LEARNED_FILE = "learned.json"


@dataclass(frozen=True, slots=True)
class Entry:
    """What happened, as it is shown: words and numbers.

    `id` grows, also over restarts of autostart (it is wall time in milliseconds, pushed on where
    two entries share one), so that a reader who saw an earlier one knows what it has missed. What
    is not kept has none.
    """

    id: int | None
    fields: Mapping[str, object]
    kind: Literal["transition", "progress"] = "transition"


class History:
    """The last transitions of the fleet, and what its starts usually take.

    `state_folder` None keeps nothing on disk.
    """

    def __init__(self, state_folder: Path | None, *, entries_max: int = HISTORY_MAX) -> None:
        self._entries: deque[tuple[int, Entry]] = deque(maxlen=entries_max)
        self._last_id = 0
        self._disk = Disk(state_folder)
        self._learned: dict[str, float] = self._disk.read(LEARNED_FILE, _parse_learned, {})
        self.observers: list[Callable[[Entry], None]] = []

    def usual_start_seconds(self) -> dict[str, float]:
        """Return what starts usually take, by host: what the supervisor begins with."""
        return dict(self._learned)

    def record(self, transition: Transition) -> None:
        """Keep a transition, and tell those who follow."""
        self._last_id = max(self._last_id + 1, int(transition.at.wall.timestamp() * 1000))
        entry = Entry(self._last_id, _fields(transition))
        self._entries.append((self._last_id, entry))
        self._tell(entry)
        usual = transition.after.usual_start_seconds
        if transition.after.state is State.READY and usual is not None:
            self._learn(transition.host, usual)

    def after(self, last_id: int) -> list[Entry]:
        """Return the kept entries that came after that id, oldest first."""
        return [entry for id_, entry in self._entries if id_ > last_id]

    def pass_on(self, host: str, progress: str | None, at: Now) -> None:
        """Tell those who follow how far a pull or build is, None once it ended; keep nothing."""
        fields = {"at": at.wall.isoformat(timespec="milliseconds"), "service": host}
        self._tell(Entry(None, {**fields, "progress": progress}, "progress"))

    def close(self) -> None:
        """Wait until what was learned is written."""
        self._disk.close()

    def _tell(self, entry: Entry) -> None:
        for observer in list(self.observers):
            observer(entry)

    def _learn(self, host: str, seconds: float) -> None:
        if self._learned.get(host) == seconds:
            return
        self._learned[host] = seconds
        learned = dict(self._learned)
        self._disk.replace(LEARNED_FILE, lambda: _learned_text(learned))


def _fields(transition: Transition) -> dict[str, object]:
    before, after = transition.before, transition.after
    failed = after.failure is not None and after.failure is not before.failure
    failure = after.failure if failed else None
    return {
        "at": transition.at.wall.isoformat(timespec="milliseconds"),
        "service": transition.host,
        "from": transition.source,
        "to": transition.target,
        "state": after.state.value,
        "phase": after.phase.value if after.phase else None,
        "cause": transition.cause,
        "attempt": after.attempt,
        "seconds": round(transition.at.monotonic - before.since, 3),
        "failure": None
        if failure is None
        else {
            "code": failure.code,
            "message": failure.for_operator,
            "hint": failure.hint.replace("HOST", transition.host),
        },
    }


def _parse_learned(content: bytes) -> dict[str, float]:
    """Return what the file says; one that cannot be used costs a few guesses, no more."""
    written = json.loads(content)
    return {
        str(host): float(seconds)
        for host, seconds in written["usual_start_seconds"].items()
        if math.isfinite(seconds) and seconds >= 0
    }


def _learned_text(learned: Mapping[str, float]) -> str:
    text = json.dumps({"usual_start_seconds": learned}, indent=2, sort_keys=True)
    return f"{text}\n"
