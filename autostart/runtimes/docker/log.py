"""What a service's containers have written, and go on writing, as one stream of lines."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from datetime import datetime

from autostart.errors import EngineUnreachable
from autostart.runtimes.docker.container import Container
from autostart.runtimes.docker.engine import ContainerGone, Engine, EngineRefused

# How often we look whether a container runs again, or another one has taken its place.
LOOK_AGAIN_SECONDS = 0.5
# Lines that wait for a slow reader, per reader; then the containers' streams wait.
AHEAD_MAX = 1_000

Look = Callable[[], Awaitable[Sequence[Container]]]


async def read_log(engine: Engine, look: Look, lines: int, *, follow: bool) -> AsyncGenerator[str]:
    """Yield the last lines, oldest first; with `follow`, then new ones, also of later runs.

    Of several containers, each line is led by its container's name in the compose file.
    """
    containers = await look()
    several = len({container.service for container in containers}) > 1
    last: dict[str, str] = {}
    written: list[tuple[str, str]] = []
    for container in containers:
        for date, line in await _tail(engine, container, lines):
            written.append((date, _led(container, line, several)))
            last[container.id] = date
    written.sort(key=lambda entry: entry[0])
    for _, line in written[max(0, len(written) - lines) :]:
        yield line
    if follow:
        following = _Following(engine, look, last, several)
        async with aclosing(following.lines()) as fresh:
            async for line in fresh:
                yield line


class _Following:
    """Reads each container that runs, from where it was last read."""

    def __init__(self, engine: Engine, look: Look, last: dict[str, str], several: bool) -> None:
        self._engine = engine
        self._look = look
        self._last = last
        self._several = several
        self._lines: asyncio.Queue[str] = asyncio.Queue(AHEAD_MAX)
        self._reading: dict[str, asyncio.Task[None]] = {}

    async def lines(self) -> AsyncGenerator[str]:
        looking = asyncio.ensure_future(self._keep_looking())
        try:
            while True:
                yield await self._lines.get()
        finally:
            tasks = [looking, *self._reading.values()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _keep_looking(self) -> None:
        while True:
            try:
                for container in await self._look():
                    task = self._reading.get(container.id)
                    if container.is_running and (task is None or task.done()):
                        reading = self._read(container)
                        self._reading[container.id] = asyncio.ensure_future(reading)
            except EngineUnreachable:
                pass  # it may come back, and who follows waits for that
            await asyncio.sleep(LOOK_AGAIN_SECONDS)

    async def _read(self, container: Container) -> None:
        known = self._last.get(container.id, "")
        since = datetime.fromisoformat(known).timestamp() if known else 0.0
        written = self._engine.log(container.id, None, follow=True, since=since)
        try:
            async with aclosing(written):
                async for date, line in written:
                    if date > self._last.get(container.id, ""):
                        self._last[container.id] = date
                        await self._lines.put(_led(container, line, self._several))
        except (EngineUnreachable, EngineRefused):
            return  # looked for again


async def _tail(engine: Engine, container: Container, lines: int) -> list[tuple[str, str]]:
    try:
        async with aclosing(engine.log(container.id, lines, follow=False)) as written:
            return [entry async for entry in written]
    except ContainerGone:
        return []
    except EngineRefused as error:
        return [("", f"the engine cannot show this log: {error.message}")]


def _led(container: Container, line: str, several: bool) -> str:
    return f"{container.service} | {line}" if several else line
