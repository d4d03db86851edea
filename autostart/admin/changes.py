"""What services look like now, told to those who follow: each at most twice a second.

A busy service changes thousands of times a second. So a change only marks it, and only while
somebody follows; what it looks like is worked out once for all who follow, when they are told.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from autostart.telemetry import event_text

# People see half a second; a service that changes all the time is shown twice in one.
TOLD_EVERY_SECONDS = 0.5

Take = Callable[[str, str], None]


class Changes:
    """Whoever `follow`s gets the text of a server-sent event for each service that changed.

    `watchers` is where the fleet looks up whom to tell of a change. `answer` returns a service as
    the API shows it, None once it has left the map.
    """

    def __init__(
        self,
        watchers: list[Callable[[str], None]],
        answer: Callable[[str], dict[str, Any] | None],
    ) -> None:
        self._watchers = watchers
        self._answer = answer
        self._followers: list[Take] = []
        self._marked: dict[str, None] = {}  # a set that keeps its order
        self._timer: asyncio.TimerHandle | None = None
        self._told_at = 0.0

    def follow(self, take: Take, hosts: list[str]) -> None:
        """Give `take` these services at once, and every service that changes from now on."""
        if not self._followers:
            self._watchers.append(self.mark)
        self._followers.append(take)
        for host in hosts:
            take(host, self._text(host))

    def leave(self, take: Take) -> None:
        """Tell it no more."""
        self._followers.remove(take)
        if not self._followers:
            self._watchers.remove(self.mark)
            self._marked.clear()
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None

    def mark(self, host: str) -> None:
        """Note that a service changed; cheap, for the path of requests."""
        if not self._followers:
            return
        self._marked[host] = None
        if self._timer is None:
            loop = asyncio.get_running_loop()
            due = max(loop.time(), self._told_at + TOLD_EVERY_SECONDS)
            self._timer = loop.call_at(due, self._tell)

    def _tell(self) -> None:
        self._timer = None
        self._told_at = asyncio.get_running_loop().time()
        marked, self._marked = self._marked, {}
        for host in marked:
            text = self._text(host)
            for take in list(self._followers):
                take(host, text)

    def _text(self, host: str) -> str:
        answer = self._answer(host)
        if answer is None:
            return event_text("removed", {"host": host})
        return event_text("service", answer)
