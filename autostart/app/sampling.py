"""What runs use, asked once a minute and when somebody wants to know. Decides nothing.

It asks the runtimes, never the supervisor: no sample is a use of a service. An engine that does
not answer costs two of its questions and a few seconds; the rest of its services is not asked.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Mapping

import structlog

from autostart import errors
from autostart.config import ServiceConfig
from autostart.lifecycle import Service, State
from autostart.runtimes.base import Runtime
from autostart.telemetry import Clock, Days, Sample, Transition

log = structlog.get_logger("autostart")

SAMPLE_SECONDS = 60.0
# Two pages that ask in the same moment are told the same.
FRESH_SECONDS = 2.0
# All questions of a round together; who waits for a page waits no longer.
ROUND_SECONDS = 4.0
# Questions to one runtime at once: looks of starts and probes go through the same threads.
ASKED_AT_ONCE = 2
# A run is sampled first when it has been ready for so long: many live for less than a minute.
SETTLED_SECONDS = 2.0


class Sampling:
    """Keeps `days` informed of what runs use and of the time that passes."""

    def __init__(
        self,
        *,
        snapshot: Callable[[], Mapping[str, Service]],
        runtime_of: Callable[[ServiceConfig], Runtime],
        clock: Clock,
        days: Days,
    ) -> None:
        self._snapshot = snapshot
        self._runtime_of = runtime_of
        self._clock = clock
        self._days = days
        self._round: asyncio.Task[None] | None = None
        self._ticking: asyncio.Task[None] | None = None
        self._settling: dict[str, asyncio.TimerHandle] = {}
        self._settled: set[str] = set()
        self._wake = asyncio.Event()

    def start(self) -> None:
        """Sample from now on; called with the loop running."""
        self._ticking = asyncio.get_running_loop().create_task(self._tick(), name="sampling")

    def record(self, transition: Transition) -> None:
        """Have a run sampled a moment after it became ready."""
        host, became = transition.host, transition.after.state
        former = self._settling.pop(host, None)
        if former is not None:
            former.cancel()
        if became is State.READY:
            loop = asyncio.get_running_loop()
            self._settling[host] = loop.call_later(SETTLED_SECONDS, self._settle, host)

    async def samples(self) -> dict[str, Sample]:
        """Return what every service that runs uses, none older than FRESH_SECONDS; never raises."""
        now = self._clock.now()
        running = self._running()
        for _ in range(2):  # the round that is under way may be one for other services
            if any(self._age(host, now.monotonic) > FRESH_SECONDS for host in running):
                await self._ask(running)
        unknown = Sample(now, None, None)
        return {host: self._days.usages.last.get(host, unknown) for host in running}

    async def close(self) -> None:
        """Sample no more."""
        for timer in self._settling.values():
            timer.cancel()
        tasks = [task for task in (self._ticking, self._round) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _tick(self) -> None:
        loop = asyncio.get_running_loop()
        round_at = loop.time() + SAMPLE_SECONDS
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(round_at):
                    await self._wake.wait()
            self._wake.clear()
            hosts, self._settled = self._settled, set()
            if loop.time() >= round_at:  # also where runs begin all the time
                round_at = loop.time() + SAMPLE_SECONDS
                hosts = set(self._running())
            try:
                running = self._running()
                await self._ask({host: running[host] for host in hosts if host in running})
                self._days.pass_to(self._clock.now(), self._snapshot())
            except Exception:  # a bug here must not end the account of the days
                log.exception("bug", task="sampling")

    def _settle(self, host: str) -> None:
        self._settling.pop(host, None)
        self._settled.add(host)
        self._wake.set()

    def _running(self) -> dict[str, Service]:
        return {host: each for host, each in self._snapshot().items() if each.is_running}

    def _age(self, host: str, now: float) -> float:
        sample = self._days.usages.last.get(host)
        return float("inf") if sample is None else now - sample.at.monotonic

    async def _ask(self, services: Mapping[str, Service]) -> None:
        """Ask for these, or wait for the round that is under way."""
        if self._round is None or self._round.done():
            asking = self._ask_all(services)
            self._round = asyncio.get_running_loop().create_task(asking, name="usage round")
        # Shielded: whoever asked first may leave, and others wait for the same round.
        await asyncio.shield(self._round)

    async def _ask_all(self, services: Mapping[str, Service]) -> None:
        lanes: dict[str, deque[ServiceConfig]] = {}
        for service in services.values():
            name = self._runtime_of(service.config).name
            lanes.setdefault(name, deque()).append(service.config)
        unasked = set(services)

        async def ask(lane: deque[ServiceConfig]) -> None:
            while lane:
                config = lane.popleft()
                sample = await self._sample(config, lane)
                unasked.discard(config.host)
                self._days.take(config.host, sample)

        try:
            async with asyncio.timeout(ROUND_SECONDS):
                await asyncio.gather(
                    *(ask(lane) for lane in lanes.values() for _ in range(ASKED_AT_ONCE))
                )
        except TimeoutError:
            log.debug("usage-unknown", services=sorted(unasked))
        now = self._clock.now()
        for host in unasked:
            self._days.take(host, Sample(now, None, None))

    async def _sample(self, config: ServiceConfig, lane: deque[ServiceConfig]) -> Sample:
        now = self._clock.now()
        try:
            used = await self._runtime_of(config).usage(config)
        except errors.EngineUnreachable:
            lane.clear()  # it does not answer for the others either
            return Sample(now, None, None)
        except errors.AutostartError:
            return Sample(now, None, None)
        except Exception:  # nobody else is there to tell
            log.exception("bug", service=config.host)
            return Sample(now, None, None)
        if used is None:
            return Sample(now, None, None)
        return Sample(now, used.memory_bytes, used.cpu_seconds)
