"""The last days of the fleet: its starts, when it slept, what its runs take. Kept over restarts.

Two files of the state folder. The starts are appended, one line each, and written anew now and
then; the rest is small, and replaced every few minutes and at the end. So `kill -9` costs the
account of sleep a few minutes, which then count as neither asleep nor awake.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, timedelta
from pathlib import Path
from typing import Any

import structlog

from autostart.lifecycle import Service
from autostart.schedule import Now
from autostart.telemetry.disk import Disk
from autostart.telemetry.sleep import DAYS_MAX, Sleep
from autostart.telemetry.starts import STARTS_MAX, Start, Starts, parse_start
from autostart.telemetry.transition import Transition
from autostart.telemetry.usage import Sample, Usages

log = structlog.get_logger("autostart")

STARTS_FILE = "starts.jsonl"
DAYS_FILE = "days.json"
# How often the account of sleep is written while nothing ends.
SAVE_SECONDS = 300.0


class Days:
    """What is kept of the last days. `state_folder` None keeps nothing on disk.

    `now` is when it begins: what is older than a week by then is not read.
    """

    def __init__(self, state_folder: Path | None, now: Now) -> None:
        self._disk = Disk(state_folder)
        none: tuple[list[Start], int] = ([], 0)
        kept, broken = self._disk.read(STARTS_FILE, _parse_starts, none)
        self.starts = Starts(kept, age_max=timedelta(days=DAYS_MAX))
        self.sleep, self.usages = self._disk.read(DAYS_FILE, _parse_days, (Sleep(), Usages()))
        self.sleep.forget_before(now.wall.astimezone(UTC).date())
        if broken:
            log.warning("starts-unreadable", file=STARTS_FILE, lines=broken)
        # A last line that was cut off by a kill would spoil the one appended to it.
        if self.starts.forget_before(now.wall) or broken:
            self._write_starts()
        self._appended = 0
        self._saved_at = now.monotonic

    def record(self, transition: Transition) -> None:
        """Take a transition."""
        self.sleep.pass_to(transition.at, transition.host, transition.before)
        if not transition.after.is_running:
            self.usages.last.pop(transition.host, None)  # it says nothing about the next run
        start = self.starts.take(transition)
        if start is None:
            return
        self._disk.append(STARTS_FILE, start.line)
        self._appended += 1
        if self._appended >= STARTS_MAX:
            self.starts.forget_before(transition.at.wall)
            self._write_starts()
            self._appended = 0

    def take(self, host: str, sample: Sample) -> None:
        """Take what a run uses."""
        self.usages.take(host, sample)

    def pass_to(self, now: Now, fleet: Mapping[str, Service]) -> None:
        """Count the time since the last transitions too; save it now and then."""
        for host, service in fleet.items():
            self.sleep.pass_to(now, host, service)
        today = now.wall.astimezone(UTC).date()
        self.sleep.forget_before(today)
        if now.monotonic - self._saved_at >= SAVE_SECONDS:
            self._saved_at = now.monotonic
            self._save()

    def close(self, now: Now, fleet: Mapping[str, Service]) -> None:
        """Count the time up to now, save it, and wait until it is written."""
        self.pass_to(now, fleet)
        self._save()
        self._disk.close()

    def _save(self) -> None:
        days = {"sleep": self.sleep.to_json(), "usual_memory_bytes": self.usages.usual()}
        self._disk.replace(DAYS_FILE, lambda: json.dumps(days, indent=1) + "\n")

    def _write_starts(self) -> None:
        kept = list(self.starts)
        self._disk.replace(STARTS_FILE, lambda: "".join(start.line() for start in kept))


def _parse_starts(content: bytes) -> tuple[list[Start], int]:
    """Return the starts in a file, and how many of its lines are none."""
    starts, broken = [], 0
    for line in content.splitlines():
        try:
            starts.append(parse_start(line))
        except (ValueError, TypeError, RecursionError, OverflowError):
            broken += 1
    return starts, broken


def _parse_days(content: bytes) -> tuple[Sleep, Usages]:
    written: dict[str, Any] = json.loads(content)
    return Sleep(written["sleep"]), Usages(written["usual_memory_bytes"])
