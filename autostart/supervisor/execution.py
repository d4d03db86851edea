"""What takes time: starts, probes, stops and busy questions, as named tasks that post events.

It knows how, never whether: each task belongs to one command, and its result is the next event.
A bug in a task is logged and reported as the failure of its command, so that nobody waits for it.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Collection, Coroutine
from typing import Any, Protocol

import structlog

from autostart import errors, lifecycle
from autostart.config import CONTAINER_HEALTH, ServiceConfig
from autostart.lifecycle import Endpoint, Event, Phase
from autostart.probe import BusyUnknown
from autostart.runtimes import base
from autostart.runtimes.base import Runtime
from autostart.schedule import Now
from autostart.supervisor.clock import Clock

log = structlog.get_logger("autostart")

# How long `running` may take when we look whether a stop has worked after all.
LOOK_SECONDS = 10.0
# Lines of a pull or a build come faster than anybody reads; the last one is always there to see.
PROGRESS_SECONDS = 0.5
# How long we wait before we listen again to a runtime whose `changes` broke off.
CHANGES_AGAIN_SECONDS = 1.0


class Probe(Protocol):
    """How a run is asked; `autostart.probe` for real."""

    async def wait_until_ready(self, endpoint: Endpoint, service: ServiceConfig) -> None:
        """Return when the run is ready; the caller sets the deadline by cancelling."""

    async def ask_busy(self, endpoint: Endpoint, service: ServiceConfig) -> bool | None:
        """Return whether it works in the background; raises BusyUnknown, within seconds."""


class Execution:
    """Does the commands of one fleet. `post` takes what came of them."""

    def __init__(
        self,
        *,
        post: Callable[[str, Event], None],
        config_of: Callable[[str], ServiceConfig],
        runtime_of: Callable[[ServiceConfig], Runtime],
        probe: Probe,
        clock: Clock,
    ) -> None:
        self._post = post
        self._config_of = config_of
        self._runtime_of = runtime_of
        self._probe = probe
        self._clock = clock
        # What each run was started from: it is stopped by that, whatever the map says since.
        self.started_from: dict[str, ServiceConfig] = {}
        self.lost: dict[str, str] = {}  # runtimes that do not see their runs now, and why
        self.progress: dict[str, str] = {}  # the last line of a pull or build, by host
        self.progress_observers: list[Callable[[str, str | None, Now], None]] = []
        self._work: dict[str, asyncio.Task[None]] = {}  # the start or probe under way
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False

    def do(
        self,
        host: str,
        command: lifecycle.Start | lifecycle.Probe | lifecycle.Stop | lifecycle.AskBusy,
    ) -> None:
        """Begin the command; its event follows. Nothing is begun once closed."""
        if self._closed:
            return
        match command:
            case lifecycle.Start(attempt):
                self.started_from[host] = self._config_of(host)
                failed = _failed_by_bug(host, attempt)
                self._replace_work(host, self._start(host, attempt), failed)
            case lifecycle.Probe(attempt, endpoint, deadline):
                probing = self._probe_until(host, attempt, endpoint, deadline)
                self._replace_work(host, probing, _failed_by_bug(host, attempt))
            case lifecycle.Stop(attempt):
                stopping = self._stop(host, attempt, self._work.pop(host, None))
                failed_stop = lifecycle.StopFailed(attempt, "a bug in autostart, see its log")
                self._spawn(f"stop {host}", stopping, host, failed_stop)
            case lifecycle.AskBusy(attempt, _, asked_at, cause):
                unknown = lifecycle.BusyAnswered(attempt, asked_at, cause, None)
                self._spawn(f"busy {host}", self._ask_busy(host, command), host, unknown)

    def listen(self, runtime: Runtime) -> None:
        """Post what the runtime notices, until closed."""
        self._spawn(f"changes {runtime.name}", self._listen(runtime), "", None)

    def find(self, runtime: Runtime, hosts: Collection[str]) -> None:
        """Post which of these run already."""
        self._spawn(f"find {runtime.name}", self.find_runs(runtime, hosts), "", None)

    async def find_runs(self, runtime: Runtime, hosts: Collection[str]) -> None:
        """Post which of these run already; returns when all is posted."""
        try:
            async with asyncio.timeout(LOOK_SECONDS):
                running = await runtime.running()
        except (errors.AutostartError, TimeoutError) as error:
            reason = str(error) or f"silent for {LOOK_SECONDS:.0f} s"
            log.warning("runtime-unreachable", runtime=runtime.name, reason=reason)
            return
        for host, endpoint in running.items():
            if host in hosts:
                self._post(host, lifecycle.Adopted(endpoint))

    async def prepare(self, config: ServiceConfig) -> None:
        """Pull, build and create within create_timeout; raises StartFailed."""
        host, told_at = config.host, -math.inf

        def show(line: str) -> None:
            nonlocal told_at
            self.progress[host] = line
            log.debug("preparing", service=host, progress=line)
            now = self._clock.now().monotonic
            if now - told_at >= PROGRESS_SECONDS:
                told_at = now
                self._tell_progress(host, line)

        began = self._clock.now().monotonic
        log.info("preparing", service=host)
        try:
            async with asyncio.timeout(config.create_timeout_seconds):
                await self._runtime_of(config).prepare(config, show)
            log.info(
                "prepared", service=host, seconds=round(self._clock.now().monotonic - began, 3)
            )
        except TimeoutError as error:
            text = f"{host} was not created within {config.create_timeout_seconds:g} s"
            raise errors.StartFailed(text, detail=self.progress.get(host, "")) from error
        finally:
            if self.progress.pop(host, None) is not None:
                self._tell_progress(host, None)

    def _tell_progress(self, host: str, line: str | None) -> None:
        for observer in self.progress_observers:
            observer(host, line, self._clock.now())

    async def close(self) -> None:
        """End every task, and begin no other. Services stay up."""
        self._closed = True
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # The tasks.

    async def _start(self, host: str, attempt: int) -> None:
        config = self.started_from[host]
        runtime = self._runtime_of(config)
        try:
            async with asyncio.timeout(config.start_timeout_seconds):
                must_prepare = await runtime.needs_preparation(config)
            if must_prepare:
                self._post(host, lifecycle.Progressed(attempt, Phase.PREPARING))
                await self.prepare(config)
                self._post(host, lifecycle.Progressed(attempt, Phase.STARTING))
            async with asyncio.timeout(config.start_timeout_seconds):
                endpoint = await runtime.start(config)
        except errors.Refusal as error:
            self._post(host, lifecycle.StartFailed(attempt, error))
        except errors.AutostartError as error:
            # What is left of a former run could not be cleared away.
            text = f"{host} could not be started: {error.message}"
            refusal = errors.StartFailed(text, private=error.private, detail=error.detail)
            self._post(host, lifecycle.StartFailed(attempt, refusal))
        except TimeoutError:
            self._post(host, lifecycle.StartFailed(attempt, _start_timeout(config)))
        else:
            self._post(host, lifecycle.Started(attempt, endpoint))

    async def _probe_until(
        self, host: str, attempt: int, endpoint: Endpoint, deadline: float
    ) -> None:
        config = self._config_of(host)
        try:
            async with asyncio.timeout(deadline - self._clock.now().monotonic):
                if config.ready == CONTAINER_HEALTH:
                    await self._runtime_of(config).wait_until_healthy(config, endpoint)
                else:
                    await self._probe.wait_until_ready(endpoint, config)
        except errors.Refusal as error:
            self._post(host, lifecycle.StartFailed(attempt, error))
        except TimeoutError:
            lost = self.lost.get(self._runtime_of(config).name)
            unseen = None if lost is None else errors.EngineUnreachable(lost)
            self._post(host, lifecycle.StartFailed(attempt, unseen or _start_timeout(config)))
        else:
            self._post(host, lifecycle.ProbeSucceeded(attempt))

    async def _stop(self, host: str, attempt: int, work: asyncio.Task[None] | None) -> None:
        config = self.started_from.get(host) or self._config_of(host)
        if work is not None and not work.done():
            work.cancel()
            # Not for ever: requests may wait for the start that follows this stop.
            seconds = config.stop_timeout_seconds + base.STOP_GRACE_SECONDS
            await asyncio.wait([work], timeout=seconds)
        runtime = self._runtime_of(config)
        failure: errors.AutostartError | None = None
        try:
            async with asyncio.timeout(config.stop_timeout_seconds + base.STOP_GRACE_SECONDS):
                await runtime.stop(config)
        except TimeoutError:
            failure = errors.StopFailed("the stop did not end in time")
        except errors.AutostartError as error:
            failure = error
        if failure is not None and await self._still_runs(runtime, host):
            log.warning("stop-failed", service=host, reason=failure.for_operator)
            self._post(host, lifecycle.StopFailed(attempt, failure.message))
            return
        self._post(host, lifecycle.Stopped(attempt))

    async def _still_runs(self, runtime: Runtime, host: str) -> bool:
        try:
            async with asyncio.timeout(LOOK_SECONDS):
                return host in await runtime.running()
        except (errors.AutostartError, TimeoutError):
            return True  # nobody can say: assume the worse, look again later

    async def _ask_busy(self, host: str, ask: lifecycle.AskBusy) -> None:
        busy: bool | None = None
        try:
            busy = await self._probe.ask_busy(ask.endpoint, self._config_of(host))
        except BusyUnknown as error:
            log.warning("busy-unknown", service=host, reason=error.message)
        self._post(host, lifecycle.BusyAnswered(ask.attempt, ask.asked_at, ask.cause, busy))

    async def _listen(self, runtime: Runtime) -> None:
        while True:
            # Watched by itself: a bug must not make us deaf.
            await self._watched(self._hear(runtime), "", None)
            await asyncio.sleep(CHANGES_AGAIN_SECONDS)

    async def _hear(self, runtime: Runtime) -> None:
        async for change in runtime.changes():
            match change:
                case base.Appeared(host, endpoint):
                    self._post(host, lifecycle.Adopted(endpoint))
                case base.Exited(host, run, reason):
                    self._post(host, lifecycle.Exited(run, reason))
                case base.Lost(reason):
                    self.lost[runtime.name] = reason
                    log.warning("runtime-lost", runtime=runtime.name, reason=reason)
                case base.Found():
                    self.lost.pop(runtime.name, None)
                    log.info("runtime-found", runtime=runtime.name)

    # Keeping tasks.

    def _replace_work(self, host: str, work: Coroutine[Any, Any, None], failed: Event) -> None:
        former = self._work.pop(host, None)
        # A start that has just posted Started is the caller here, at its very end.
        if former is not None and former is not asyncio.current_task():
            former.cancel()
        self._work[host] = self._spawn(f"work {host}", work, host, failed)

    def _spawn(
        self, name: str, work: Coroutine[Any, Any, None], host: str, on_bug: Event | None
    ) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(self._watched(work, host, on_bug), name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        # Cancelled before its first step, a task never comes to its work: nothing may wait for it.
        task.add_done_callback(lambda _: work.close())
        return task

    async def _watched(
        self, work: Coroutine[Any, Any, None], host: str, on_bug: Event | None
    ) -> None:
        try:
            await work
        except Exception:  # the one place where a bug becomes an event
            log.exception("bug", service=host)
            if on_bug is not None:
                self._post(host, on_bug)


def _failed_by_bug(host: str, attempt: int) -> lifecycle.StartFailed:
    error = errors.StartFailed(f"{host} could not be started: a bug in autostart, see its log")
    return lifecycle.StartFailed(attempt, error)


def _start_timeout(config: ServiceConfig) -> errors.StartTimeout:
    return errors.StartTimeout(
        f"{config.host} was not ready within start_timeout, {config.start_timeout_seconds:g} s"
    )
