"""What runs use: the last sample of each, and the memory that a run usually takes. Values only."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from autostart.schedule import Now

# The weight of the newest sample: of one a minute, the last ten minutes count for two thirds.
NEWEST_WEIGHT = 0.1


@dataclass(frozen=True, slots=True)
class Sample:
    """What a run used then; None where nobody could say."""

    at: Now
    memory_bytes: int | None
    cpu_seconds: float | None


class Usages:
    """The samples of the fleet. `kept` is what `usual` returned in an earlier process."""

    def __init__(self, kept: Mapping[str, float] | None = None) -> None:
        self.last: dict[str, Sample] = {}
        self._usual = {str(host): _bytes(each) for host, each in (kept or {}).items()}

    def take(self, host: str, sample: Sample) -> None:
        """Take a sample."""
        self.last[host] = sample
        if sample.memory_bytes is None:
            return
        usual = self._usual.get(host)
        newest = float(sample.memory_bytes)
        self._usual[host] = newest if usual is None else usual + NEWEST_WEIGHT * (newest - usual)

    def usual_memory_bytes(self, host: str) -> int | None:
        """Return what a run of it usually takes, None if none was ever sampled."""
        usual = self._usual.get(host)
        return None if usual is None else round(usual)

    def usual(self) -> dict[str, int]:
        """Return what runs usually take, by host."""
        return {host: round(each) for host, each in self._usual.items()}


def _bytes(written: float) -> float:
    if not math.isfinite(written) or written < 0:
        raise ValueError("a memory that cannot be")
    return float(written)
