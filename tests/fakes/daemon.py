"""A fleet on the fake runtime behind a real admin listener, in a thread of its own.

For what blocks while it talks to the daemon, as commands do.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from aiohttp import web
from structlog.testing import capture_logs

from autostart.config import ServiceConfig
from tests.fakes.fleet import Fleet, operated, takes_nothing

T = TypeVar("T")

# Everything here takes milliseconds; this only keeps a broken test from hanging.
SECONDS_MAX = 20.0


class FakeDaemon:
    """What stands for `autostart serve`; its fleet lives in another thread's loop."""

    def __init__(self, fleet: Fleet, loop: asyncio.AbstractEventLoop) -> None:
        self.fleet = fleet
        self.listen = f"127.0.0.1:{fleet.client.port}"
        self._loop = loop

    def do(self, work: Callable[[Fleet], Coroutine[Any, Any, T]]) -> T:
        """Have the fleet's loop do something and return what came of it."""
        done = asyncio.run_coroutine_threadsafe(work(self.fleet), self._loop)
        return done.result(SECONDS_MAX)


@contextmanager
def serving(
    *services: ServiceConfig,
    token: str | None = None,
    reload: Callable[[], Awaitable[list[str]]] = takes_nothing,
    socket_path: Path | None = None,
) -> Iterator[FakeDaemon]:
    """Serve the fleet's admin listener for the length of the block."""
    began = threading.Event()
    made: list[FakeDaemon] = []
    ending: list[Callable[[], None]] = []

    async def serve() -> None:
        loop, ended = asyncio.get_running_loop(), asyncio.Event()
        ending.append(lambda: loop.call_soon_threadsafe(ended.set))
        async with operated(*services, token=token, reload=reload) as fleet:
            if socket_path is not None:
                await web.UnixSite(fleet.client.server.runner, socket_path).start()
            made.append(FakeDaemon(fleet, loop))
            began.set()
            await ended.wait()

    thread = threading.Thread(target=lambda: asyncio.run(serve()), name="fake daemon")
    with capture_logs():  # or the daemon's lines stand between those of the command
        thread.start()
        assert began.wait(SECONDS_MAX), "the fake daemon did not begin"
        try:
            yield made[0]
        finally:
            ending[0]()
            thread.join(SECONDS_MAX)
