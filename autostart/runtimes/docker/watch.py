"""What is known of the runs, and what of it has changed: from the engine's events and from looks.

An event only says where to look: what is told comes from comparing what is there with what was
known, so nothing depends on the order of events, and what was missed while the engine was away is
told in the same way. Looks for a service that is being started or stopped are left to that.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter, deque
from collections.abc import (
    AsyncGenerator,
    Awaitable,
    Callable,
    Collection,
    Iterable,
    Iterator,
    Mapping,
)

from autostart.errors import AutostartError, EngineUnreachable
from autostart.lifecycle import Endpoint
from autostart.runtimes.base import Appeared, Change, Exited, Found, Lost
from autostart.runtimes.docker.container import Container
from autostart.runtimes.docker.engine import CONNECTED, Engine
from autostart.runtimes.port import LOOPBACK

# An engine that hangs sends nothing, as one where nothing happens: it is asked. Costs 0.5 ms.
PING_SECONDS = 5.0
# Between attempts to reach an engine that is away, doubling. It answers a moment before its
# containers are there; what is true is known 2 s later at most.
RECONNECT_FIRST_SECONDS = 0.1
RECONNECT_MAX_SECONDS = 1.0

# What a look at a service finds: the container that publishes its port, if there is one.
Seen = Mapping[str, Container | None]


class Watch:
    """Knows the runs of the declared services of one engine."""

    def __init__(
        self,
        engine: Engine,
        look: Callable[[Collection[str]], Awaitable[Seen]],
        hosts_of: Callable[[Mapping[str, str]], Collection[str]],
        connected: Callable[[], None],
    ) -> None:
        self._engine = engine
        self._look = look
        self._hosts_of = hosts_of
        self._connected = connected
        self._ports: dict[str, int] = {}  # declared hosts and their ports
        self._runs: dict[str, Endpoint] = {}
        self._pauses: dict[str, int] = {}  # how often a run was paused, which ends it for us
        self._told: deque[Change] = deque()
        self._unseen: set[str] = set()  # hosts where something happened
        self._working: dict[str, int] = {}  # hosts that are being started or stopped
        self._worked: Counter[str] = Counter()  # how often that was begun, by host
        self._news = asyncio.Event()
        self._untold: set[str] = set()  # hosts whose run is told although it is known
        self._is_lost = False
        self._reconnect_seconds = RECONNECT_FIRST_SECONDS
        self._closed = False

    def declare(self, ports: Mapping[str, int]) -> None:
        """Replace what is watched."""
        self._ports = dict(ports)
        self._runs = {host: run for host, run in self._runs.items() if host in ports}
        self._mark(ports)

    @contextlib.contextmanager
    def working_on(self, host: str) -> Iterator[None]:
        """Leave the looks at this host to the caller for the length of the block."""
        self._working[host] = self._working.get(host, 0) + 1
        self._worked[host] += 1
        try:
            yield
        finally:
            self._working[host] -= 1
            if not self._working[host]:
                del self._working[host]
            self._mark([host])

    def saw(self, host: str, container: Container | None, *, ours: bool) -> Endpoint | None:
        """Compare what is there with what was known; return the endpoint if it runs.

        `ours`: the caller tells of the run itself, so that only the end of another one is news.
        """
        known = self._runs.get(host)
        endpoint = None
        if container is not None and container.is_running:
            endpoint = Endpoint(LOOPBACK, self._ports.get(host, 0), self._identity(container))
        untold = host in self._untold
        self._untold.discard(host)
        if known == endpoint:
            if endpoint is not None and untold and not ours:
                self._tell(Appeared(host, endpoint))
            return endpoint
        if known is not None:
            reason = "replaced by another run"
            if endpoint is None:
                reason = "removed" if container is None else container.end
                if container is not None and container.is_paused:
                    self._pauses[container.run] = self._pauses.get(container.run, 0) + 1
            self._tell(Exited(host, known.run, reason))
            del self._runs[host]
        if endpoint is not None:
            self._runs[host] = endpoint
            if not ours:
                self._tell(Appeared(host, endpoint))
        return endpoint

    def runs(self, host: str) -> bool:
        """Say whether a run of this service is known."""
        return host in self._runs

    async def changes(self) -> AsyncGenerator[Change]:
        """Tell what changes until closed; one consumer."""
        following = asyncio.ensure_future(self._follow())
        following.add_done_callback(lambda _: self._news.set())
        try:
            while not self._closed:
                if following.done():
                    following.result()  # a bug: told, and begun again, by who listens
                self._news.clear()
                if self._told:
                    change = self._told.popleft()
                    if isinstance(change, Lost | Found) or change.host in self._ports:
                        yield change
                    continue
                if not await self._look_where_unseen():
                    await self._wait_for_news()
        finally:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)

    def close(self) -> None:
        self._closed = True
        self._news.set()

    # What happened.

    async def _wait_for_news(self) -> None:
        with contextlib.suppress(TimeoutError):
            # A look that failed is tried again, also if nothing more is heard.
            again = self._unseen.difference(self._working) and not self._is_lost
            async with asyncio.timeout(RECONNECT_MAX_SECONDS if again else None):
                await self._news.wait()

    async def _look_where_unseen(self) -> bool:
        """Look at hosts where something happened; say whether there were any to look at."""
        hosts = [host for host in self._unseen & self._ports.keys() if host not in self._working]
        if not hosts or self._is_lost:
            return False
        # Before the look: what happens during it has us look again.
        self._unseen.difference_update(hosts)
        worked = {host: self._worked[host] for host in hosts}
        try:
            seen = await self._look(hosts)
        except AutostartError:
            self._unseen.update(hosts)
            return False  # the follower notices, and has us look when it is found
        for host in hosts:
            # Somebody may have begun a start or a stop meanwhile, and knows better.
            if host in self._ports and worked[host] == self._worked[host]:
                self.saw(host, seen.get(host), ours=False)
        return True

    async def _follow(self) -> None:
        while True:
            try:
                await self._hear()
            except AutostartError as error:
                if not self._is_lost:
                    self._is_lost = True
                    self._tell(Lost(error.message))
            await asyncio.sleep(self._reconnect_seconds)
            self._reconnect_seconds = min(2 * self._reconnect_seconds, RECONNECT_MAX_SECONDS)

    async def _hear(self) -> None:
        """Note where each event happened. Raises EngineUnreachable when they end."""
        if not self._ports:
            return  # nothing is declared: the engine need not even be installed
        events = self._engine.events()
        next_event: asyncio.Future[tuple[str, dict[str, str]]] | None = None
        try:
            while True:
                next_event = next_event or asyncio.ensure_future(anext(events))
                done, _ = await asyncio.wait([next_event], timeout=PING_SECONDS)
                if not done:
                    await self._engine.ping()
                    continue
                kind, labels = next_event.result()
                next_event = None
                if kind == CONNECTED:
                    self._find()
                else:
                    self._mark(self._hosts_of(labels))
        except StopAsyncIteration:
            raise EngineUnreachable("the engine ended its events") from None
        finally:
            if next_event is not None:
                next_event.cancel()
                await asyncio.gather(next_event, return_exceptions=True)
            await events.aclose()

    def _find(self) -> None:
        self._reconnect_seconds = RECONNECT_FIRST_SECONDS
        if self._is_lost:
            self._is_lost = False
            self._tell(Found())
            # Whoever gave a run up meanwhile hears that it is still there.
            self._untold.update(self._ports)
        self._mark(self._ports)
        self._connected()

    def _identity(self, container: Container) -> str:
        """Return the run's identity: one that was paused and goes on is a new run to us."""
        pauses = self._pauses.get(container.run, 0)
        return f"{container.run}+{pauses}" if pauses else container.run

    def _mark(self, hosts: Iterable[str]) -> None:
        self._unseen.update(hosts)
        self._news.set()

    def _tell(self, change: Change) -> None:
        self._told.append(change)
        self._news.set()
