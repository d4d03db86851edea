"""One client that follows what happens: its queue, and the form in which it is told.

Server-sent events, as https://html.spec.whatwg.org/multipage/server-sent-events.html has them. Who
writes them to a socket is above: the admin listener and the proxy's do it each in its own way.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Mapping
from typing import Generic, TypeVar

T = TypeVar("T")

# Sent when nothing happens, so that neither end takes the other for gone.
HEARTBEAT = ": heartbeat\n\n"
HEARTBEAT_SECONDS = 15.0
# What a browser waits before it connects again.
RETRY = "retry: 2000\n\n"
# A client that is this many events behind is not reading.
QUEUE_MAX = 256
# How long one write may wait for a client that does not read.
WRITE_SECONDS = 10.0


def event_text(kind: str, fields: Mapping[str, object], id_: int | None = None) -> str:
    """Return a server-sent event."""
    id_line = "" if id_ is None else f"id: {id_}\n"
    return f"{id_line}event: {kind}\ndata: {json.dumps(dict(fields))}\n\n"


class Follower(Generic[T]):
    """One client's queue of events; `is_late` once it could not keep up."""

    def __init__(self, queue_max: int = QUEUE_MAX) -> None:
        self._events: deque[T] = deque()
        self._newest: dict[str, T] = {}
        self._news = asyncio.Event()
        self._queue_max = queue_max
        self.is_late = False
        self.is_ended = False

    def take(self, event: T) -> None:
        """Take an event, or give the client up; never waits."""
        if len(self._events) >= self._queue_max:
            self.is_late = True
        else:
            self._events.append(event)
        self._news.set()

    def take_newest(self, subject: str, event: T) -> None:
        """Take an event that makes the one about the same subject before it needless."""
        self._newest[subject] = event
        self._news.set()

    def end(self) -> None:
        """Let the client go at once."""
        self.is_ended = True
        self._news.set()

    async def next(self, seconds: float) -> T | None:
        """Return the next event, None if there was none for so long, or at the end."""
        if not self._events and not self._newest and not self.is_ended:
            self._news.clear()
            try:
                async with asyncio.timeout(seconds):
                    await self._news.wait()
            except TimeoutError:
                return None
        if self._events:
            return self._events.popleft()
        return self._newest.pop(next(iter(self._newest))) if self._newest else None
