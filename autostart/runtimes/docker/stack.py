"""The containers of one service, brought up and taken down in the order of their dependencies.

As compose does it, but by the Engine API's start and stop alone: what exists is started, nothing
is created, changed or removed. A container that another service is taking down is waited for.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from typing import Any

from autostart.errors import EngineUnreachable, StartFailed, StopFailed
from autostart.runtimes.docker.container import COMPLETED, HEALTHY, Container, levels
from autostart.runtimes.docker.engine import ContainerGone, Engine, EngineRefused

# Between looks at what is waited for. The engine itself knows an exit at once, and a health
# verdict at its next check, which is a second away at best.
LOOK_AGAIN_SECONDS = 0.05
# What a start that was given up may still take in the engine, before we leave it to be found.
LETTING_GO_SECONDS = 10.0


class Stack:
    """Ups and downs of containers on one engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._going: dict[str, asyncio.Future[None]] = {}  # being stopped, by container id

    async def up(
        self, containers: Sequence[Container], last: Container, stop_seconds: float
    ) -> Container:
        """Start what does not run; return how `last` looks then.

        All or nothing, also when cancelled. Raises StartFailed naming the container,
        EngineUnreachable.
        """
        begun: list[Container] = []
        by_service = {container.service: container for container in containers}
        try:
            for level in levels(containers):
                await _all(self._start(each, by_service, begun) for each in level)
            return await self._look(last)
        except BaseException:
            # Shielded: a second cancellation must not leave half of it.
            await asyncio.shield(self._undo(begun, stop_seconds))
            raise

    async def down(
        self,
        containers: Sequence[Container],
        stop_seconds: float,
        is_shared: Callable[[Container], bool],
    ) -> None:
        """Stop what runs and is not used by others when its turn comes, dependents first.

        Raises StopFailed, EngineUnreachable.
        """
        for level in reversed(levels(containers)):
            await _all(self._stop(each, stop_seconds) for each in level if not is_shared(each))

    async def wait_until_healthy(self, container: Container) -> None:
        """Return when the engine calls it healthy. Raises StartFailed where it never will."""
        while container.is_running:
            if container.health == "healthy":
                return
            if container.health is None:
                raise StartFailed(f"container {container.name} has no healthcheck to wait for")
            if container.health == "unhealthy":
                raise StartFailed(f"container {container.name} is unhealthy: its own check says so")
            await asyncio.sleep(LOOK_AGAIN_SECONDS)
            container = await self._look(container)
        raise StartFailed(
            f"container {container.name} ended before it was healthy: {container.end}"
        )

    async def _start(
        self, container: Container, others: Mapping[str, Container], begun: list[Container]
    ) -> None:
        for name, condition in container.depends_on.items():
            if name in others:
                await self._await_condition(others[name], condition)
        if going := self._going.get(container.id):
            await asyncio.shield(going)
            container = await self._look(container)
        if container.is_running:
            return
        if container.is_paused:
            await self._engine.unpause(container.id)
            return
        begun.append(container)
        try:
            await _to_its_end(self._engine.start(container.id))
        except ContainerGone as error:
            raise StartFailed(f"container {container.name} was removed meanwhile") from error
        except EngineRefused as error:
            raise StartFailed(f"container {container.name}: {error.message}") from error

    async def _await_condition(self, container: Container, condition: str) -> None:
        if condition == HEALTHY:
            await self.wait_until_healthy(await self._look(container))
        elif condition == COMPLETED:
            container = await self._look(container)
            while container.is_running:
                await asyncio.sleep(LOOK_AGAIN_SECONDS)
                container = await self._look(container)
            if container.exit_code != 0:
                raise StartFailed(f"container {container.name} failed: {container.end}")

    async def _stop(self, container: Container, seconds: float) -> None:
        if not (container.is_running or container.is_paused or container.status == "restarting"):
            return
        gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._going[container.id] = gone
        try:
            if container.is_paused:
                await self._engine.unpause(container.id)  # else no signal reaches it
            await self._engine.stop(container.id, seconds)
        except ContainerGone:
            pass  # removed by hand: it does not run either
        except EngineRefused as error:
            raise StopFailed(f"container {container.name}: {error.message}") from error
        finally:
            del self._going[container.id]
            gone.set_result(None)

    async def _undo(self, begun: Sequence[Container], seconds: float) -> None:
        for container in reversed(begun):
            try:
                async with asyncio.timeout(seconds + LETTING_GO_SECONDS):
                    await self._stop(await self._look(container), seconds)
            except (StartFailed, StopFailed, EngineUnreachable, TimeoutError):
                continue  # it is found when the engine answers, and stopped when idle

    async def _look(self, container: Container) -> Container:
        try:
            return await self._engine.inspect(container.id)
        except ContainerGone as error:
            raise StartFailed(f"container {container.name} was removed meanwhile") from error


async def _all(work: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Do it side by side; the first failure ends the rest and is raised as it is."""
    try:
        async with asyncio.TaskGroup() as group:
            for each in work:
                group.create_task(each)
    except BaseExceptionGroup as failures:
        raise failures.exceptions[0] from None


async def _to_its_end(call: Coroutine[Any, Any, None]) -> None:
    """Await a call that goes on in the engine although we are cancelled: then to its end."""
    task = asyncio.ensure_future(call)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        deadline = time.monotonic() + LETTING_GO_SECONDS
        while not task.done() and time.monotonic() < deadline:
            await asyncio.wait([task], timeout=deadline - time.monotonic())
        if task.done() and not task.cancelled():
            task.exception()  # seen: who cancelled us does not want to hear of it
        raise
