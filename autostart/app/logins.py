"""Logins whose password hash has to be computed: in a few threads of their own, and not too many.

A hash takes a core for 50 to 300 ms, by design. Whoever guesses passwords would fill the threads
that everything else shares, and make right logins wait for as long as there are guesses.
"""

from __future__ import annotations

import asyncio
import os
from concurrent.futures import ThreadPoolExecutor

from autostart import errors
from autostart.access import Gate

# The other half of the cores is for those who are in already.
THREADS = max(1, (os.cpu_count() or 1) // 2)
# Under way and waiting; at 200 ms each nobody waits for much longer than a second.
CHECKS_MAX = 6 * THREADS
RETRY_SECONDS = 1.0


class Logins:
    """The checks under way. Used from one event loop."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="logins")
        self._under_way: dict[tuple[Gate, str], asyncio.Future[None]] = {}

    async def check(self, gate: Gate, authorization: str) -> None:
        """Return if it gets in; raises Unauthorized, or QueueFull if too many are checked.

        A client that sends many requests at once is checked once.
        """
        key = gate, authorization
        checking = self._under_way.get(key)
        if checking is None:
            if len(self._under_way) >= CHECKS_MAX:
                text = f"{CHECKS_MAX} other logins are being checked"
                raise errors.QueueFull(text, retry_after_seconds=RETRY_SECONDS)
            loop = asyncio.get_running_loop()
            checking = loop.run_in_executor(self._threads, gate.check, authorization)
            self._under_way[key] = checking
            checking.add_done_callback(lambda done: self._forget(key, done))
        try:
            # Shielded: the thread computes to the end, whoever leaves, and counts until then.
            await asyncio.shield(checking)
        except errors.Unauthorized as refusal:
            raise refusal.after(None) from None  # each has its own

    def close(self) -> None:
        """Wait for the checks that have begun, a fraction of a second; drop the others."""
        self._threads.shutdown(wait=True, cancel_futures=True)

    def _forget(self, key: tuple[Gate, str], done: asyncio.Future[None]) -> None:
        del self._under_way[key]
        if not done.cancelled():
            done.exception()  # everybody who wanted to know may have left
