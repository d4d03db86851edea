"""How long nothing has moved, and what happens then.

One clock per exchange, re-armed lazily: a moved byte costs one assignment, not a timer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class SilenceClock:
    """Calls `expired` once nothing has been `moved` for `limit_seconds`, again after each limit."""

    __slots__ = ("_expired", "_handle", "_limit_seconds", "_loop", "_moved_at")

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        limit_seconds: float,
        expired: Callable[[], None],
    ) -> None:
        self._loop = loop
        self._limit_seconds = limit_seconds
        self._expired = expired
        self._moved_at = loop.time()
        self._handle = loop.call_at(self._moved_at + limit_seconds, self._ring)

    def moved(self) -> None:
        """A byte went in some direction."""
        self._moved_at = self._loop.time()

    def stop(self) -> None:
        """Never call `expired` again."""
        self._handle.cancel()

    def _ring(self) -> None:
        if self._loop.time() >= self._moved_at + self._limit_seconds:
            self._moved_at = self._loop.time()
            self._handle = self._loop.call_at(self._moved_at + self._limit_seconds, self._ring)
            self._expired()
        else:
            self._handle = self._loop.call_at(self._moved_at + self._limit_seconds, self._ring)
