"""The containers of one service, brought up and taken down in the order of their dependencies.

As compose does it, but by the Engine API's start and stop alone: what exists is started, nothing
is created, changed or removed. A container that another service is taking down is waited for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from typing import Any

from autostart.errors import AutostartError, StartFailed, StopFailed
from autostart.runtimes.docker.container import COMPLETED, HEALTHY, Container, levels
from autostart.runtimes.docker.engine import ContainerGone, Engine, EngineRefused

# Between looks at what is waited for. The engine itself knows an exit at once, and a health
# verdict when its next check is due.
LOOK_AGAIN_SECONDS = 0.05
# Beyond stop_timeout, for containers that depend on one another and are stopped one after the
# other. Less than STOP_GRACE_SECONDS, which holds for all that a stop does.
LEVELS_SECONDS = 10.0
# What a start that was given up may still take in the engine, before we leave it to be found.
LETTING_GO_SECONDS = 10.0

# Says which containers other services use, at the time of asking.
IsShared = Callable[[Container], bool]
Sharing = Callable[[], Awaitable[IsShared]]


class Stack:
    """Ups and downs of containers on one engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        # Being stopped, by container id: to the end, also if whoever asked for it has left.
        self._going: dict[str, asyncio.Task[None]] = {}
        # Begun by a start that failed, and left up for another one that has failed since.
        self._loose: set[str] = set()

    async def up(
        self,
        containers: Sequence[Container],
        last: Container,
        stop_seconds: float,
        sharing: Sharing,
    ) -> Container:
        """Start what does not run; return how `last` looks then.

        All or nothing, also when cancelled, but for what others use by then. Raises StartFailed
        naming the container, EngineUnreachable.
        """
        begun: list[Container] = []
        by_service = {container.service: container for container in containers}
        try:
            for level in levels(containers):
                await _all(self._start(each, by_service, begun) for each in level)
            seen = await self._look(last)
        except BaseException:
            left = [one for one in containers if one.id in self._loose and one not in begun]
            # Shielded: a second cancellation must not leave half of it.
            await asyncio.shield(self._undo([*left, *begun], stop_seconds, sharing))
            raise
        self._loose.difference_update(one.id for one in containers)
        return seen

    async def down(
        self,
        containers: Sequence[Container],
        stop_seconds: float,
        sharing: Sharing,
    ) -> None:
        """Stop what runs and is not used by others when its turn comes, dependents first.

        Each is asked, and forced after `stop_seconds`, or after a second once those before it have
        taken LEVELS_SECONDS longer than that. Raises StopFailed, EngineUnreachable.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + stop_seconds + LEVELS_SECONDS
        for level in reversed(levels(containers)):
            seconds = max(1.0, min(stop_seconds, deadline - loop.time()))
            is_shared = await sharing()
            await _all(self._stop(each, seconds) for each in level if not is_shared(each))

    def close(self) -> None:
        """Wait for nothing any more; what was asked of the engine goes on there."""
        for going in self._going.values():
            going.cancel()

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
            await asyncio.wait([going])
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
            text = f"the engine did not start container {container.name}"
            raise StartFailed(text, private=error.message) from error

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
        going = self._going.get(container.id)
        if going is None:
            going = asyncio.get_running_loop().create_task(self._end(container, seconds))
            self._going[container.id] = going
            going.add_done_callback(lambda ended: self._forget(container.id, ended))
        await asyncio.shield(going)

    def _forget(self, container_id: str, ended: asyncio.Task[None]) -> None:
        del self._going[container_id]
        if not ended.cancelled():
            ended.exception()  # seen: whoever waited for it may have left

    async def _end(self, container: Container, seconds: float) -> None:
        try:
            if container.is_paused:
                await self._engine.unpause(container.id)  # else no signal reaches it
            await self._engine.stop(container.id, seconds)
        except ContainerGone:
            pass  # removed by hand: it does not run either
        except EngineRefused as error:
            text = f"the engine did not stop container {container.name}"
            raise StopFailed(text, private=error.message) from error

    async def _undo(self, begun: Sequence[Container], seconds: float, sharing: Sharing) -> None:
        self._loose.update(one.id for one in begun)
        try:
            is_shared = await sharing()
        except AutostartError:
            return  # nobody can say who uses them: found when the engine answers
        for container in reversed(begun):
            if is_shared(container):
                continue
            self._loose.discard(container.id)
            try:
                async with asyncio.timeout(seconds + LETTING_GO_SECONDS):
                    await self._stop(await self._look(container), seconds)
            except (AutostartError, TimeoutError):
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
        loop = asyncio.get_running_loop()
        deadline = loop.time() + LETTING_GO_SECONDS
        while not task.done() and loop.time() < deadline:
            await asyncio.wait([task], timeout=deadline - loop.time())
        if task.done() and not task.cancelled():
            task.exception()  # seen: who cancelled us does not want to hear of it
        raise
