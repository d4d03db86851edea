"""Time as an argument."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Protocol

from autostart.schedule import Now


class Clock(Protocol):
    """Where `now` comes from."""

    def now(self) -> Now:
        """Return monotonic seconds and wall time."""


class SystemClock:
    """The clocks of this machine."""

    def now(self) -> Now:
        """Return monotonic seconds and wall time."""
        return Now(time.monotonic(), datetime.now(UTC))
