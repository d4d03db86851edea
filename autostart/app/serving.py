"""The process: one lock, one loop, the listeners, signals, reload and an orderly end.

At start every address is bound before anything is touched, and what runs is adopted before the
first request is taken. At the end answers in flight may finish within drain_timeout, held requests
are refused, services stay up.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import signal
import socket
import time
from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path

import structlog
from aiohttp import web

from autostart import admin, dashboard, errors, probe, proxy
from autostart.app.alarm import Alarm
from autostart.app.failure_logs import FailureLogs
from autostart.app.gateway import Gateway, Handler
from autostart.app.listening import BACKLOG, bind, handed_over
from autostart.app.notification import Notification
from autostart.app.sampling import Sampling
from autostart.app.state import locked, state_folder
from autostart.config import Map, ServiceConfig, listeners, load
from autostart.lifecycle import StopRequested
from autostart.portal import Portal
from autostart.runtimes.base import Runtime
from autostart.runtimes.docker import DockerRuntime
from autostart.runtimes.process import ProcessRuntime
from autostart.supervisor import Orders, Supervisor, SystemClock
from autostart.telemetry import Days, History, Metrics

log = structlog.get_logger("autostart")

# Two descriptors per request; services inherit the limit, so it is no more than they bear.
OPEN_FILES = 65_536
# How long services may take to stop with autostart; their own stop_timeout is usually less.
STOP_ALL_SECONDS = 60.0
# What aiohttp may take to close connections after the drain.
CLOSE_SECONDS = 1.0
# What the end may take after the drain, before a service manager should lose patience.
END_SECONDS = 20.0


def serve(config_path: Path, *, stop_services_on_exit: bool = False) -> int:
    """Serve the map until SIGTERM or SIGINT; returns the exit status.

    Raises ConfigError, AlreadyServing, AddressTaken.
    """
    declared = load(config_path)
    with locked(state_folder()):
        _raise_open_files()
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            daemon = Daemon(declared, state_folder(), stop_services_on_exit=stop_services_on_exit)
            runner.run(daemon.run())
    return 0


def make_runtimes(folder: Path, secret_variables: Collection[str] = ()) -> list[Runtime]:
    """Return the runtimes of this version.

    Services do not inherit the secret variables; a reload may add to the set.
    """
    return [
        ProcessRuntime(folder, hidden=secret_variables),
        DockerRuntime(hidden=secret_variables),
    ]


def runtime_for(service: ServiceConfig, runtimes: Sequence[Runtime]) -> Runtime:
    """Return the one that runs this service."""
    name = "process" if service.compose is None else "docker"
    return next(runtime for runtime in runtimes if runtime.name == name)


def _secret_variables(declared: Map) -> set[str]:
    """Return the names of the variables that hold keys and tokens of autostart itself."""
    named = {service.access.keys_env for service in declared.services.values() if service.access}
    return {name for name in (declared.admin.token_env, *named) if name}


class Daemon:
    """Everything that lives as long as `autostart serve`."""

    def __init__(self, declared: Map, folder: Path, *, stop_services_on_exit: bool) -> None:
        self._map = declared
        # First: they forget variables that the runtimes must not pass on.
        self._notification = Notification(os.environ)
        self._handed_over = handed_over(os.environ)
        self._stop_services = stop_services_on_exit
        self._clock = SystemClock()
        self._alarm = Alarm(self._clock)
        self._history = History(folder)
        self._secrets = _secret_variables(declared)
        self._runtimes = make_runtimes(folder, self._secrets)
        self._supervisor = Supervisor(
            list(declared.services.values()),
            runtime_of=self._runtime_of,
            runtimes=self._runtimes,
            probe=probe,
            clock=self._clock,
            set_alarm=self._alarm.set,
            usual_start_seconds=self._history.usual_start_seconds(),
            orders=Orders(folder),
        )
        self._days = Days(folder, self._clock.now())
        self._sampling = Sampling(
            snapshot=self._supervisor.snapshot,
            runtime_of=self._runtime_of,
            clock=self._clock,
            days=self._days,
        )
        self._failure_logs = FailureLogs(self._runtime_of, self._supervisor.watchers)
        self._metrics = Metrics(
            self._supervisor.snapshot, self._clock, self._days, self._reachable_runtimes
        )
        self._supervisor.observers += [
            self._history.record,
            self._days.record,
            self._metrics.record,
            self._sampling.record,
            self._failure_logs.record,
            lambda _: self._notification.tell_soon(self._describe),
        ]
        self._supervisor.progress_observers.append(self._history.pass_on)
        self._portal = Portal(
            folder,
            lease=self._supervisor.lease,
            read=probe.read_document,
            snapshot=self._supervisor.snapshot,
        )
        self._supervisor.observers.append(self._portal.record)
        self._gateway = Gateway(declared, self._supervisor, self._metrics, self._portal)
        self._servers: list[tuple[asyncio.Server, proxy.ProxyServer]] = []
        self._admin: web.BaseRunner | None = None
        self._ended = asyncio.Event()

    async def run(self) -> None:
        """Serve until told to end."""
        loop = asyncio.get_running_loop()
        for ending in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(ending, self._ended.set)
        loop.add_signal_handler(signal.SIGHUP, self._reload_on_signal)
        self._notification.beat()
        try:
            doors, admin_doors = self._bind()
            self._alarm.start(self._supervisor.look)
            await self._supervisor.adopt()
            self._sampling.start()
            for door, handler in doors:
                await self._serve_on(door, handler)
            await self._serve_admin(admin_doors)
            log.info(
                "serving",
                proxy=str(self._map.proxy.listen),
                admin=str(self._map.admin.listen),
                services=len(self._map.services),
            )
            self._notification.tell(READY=1, STATUS=self._describe())
            await self._ended.wait()
            await self._drain()
        finally:
            await self._close()

    async def reload(self) -> list[str]:
        """Read the map again and take it, whole or not at all; returns the hosts that changed.

        Raises ConfigError with every problem, NeedsRestart for listen addresses, ShuttingDown.
        """
        if self._ended.is_set():
            raise errors.ShuttingDown("autostart is shutting down")
        self._notification.tell(RELOADING=1, MONOTONIC_USEC=time.monotonic_ns() // 1000)
        taken = False
        try:
            changed = self._take(load(self._map.path))
            taken = True
            return changed
        finally:
            self._metrics.reload_ended(taken=taken)
            # The old map serves as well as a new one.
            self._notification.tell(READY=1, STATUS=self._describe())

    def _take(self, fresh: Map) -> list[str]:
        moved = _moved_listeners(self._map, fresh)
        if moved:
            raise errors.NeedsRestart("\n".join(moved))
        changed = sorted(
            host
            for host in self._map.services.keys() | fresh.services.keys()
            if self._map.services.get(host) != fresh.services.get(host)
        )
        self._map = fresh
        self._secrets |= _secret_variables(fresh)
        self._gateway.declare(fresh)
        self._failure_logs.keep(fresh.services)
        self._supervisor.reconfigure(list(fresh.services.values()))
        log.info("reloaded", changed=changed)
        return changed

    def _reload_on_signal(self) -> None:
        task = asyncio.get_running_loop().create_task(self.reload(), name="reload")
        task.add_done_callback(_log_refused_reload)

    def _runtime_of(self, service: ServiceConfig) -> Runtime:
        return runtime_for(service, self._runtimes)

    def _reachable_runtimes(self) -> dict[str, bool]:
        used = {self._runtime_of(service).name for service in self._map.services.values()}
        return {name: name not in self._supervisor.lost for name in sorted(used)}

    def _describe(self) -> str:
        """Say how the services stand, for `systemctl status`."""
        states = Counter(str(service.state) for service in self._supervisor.snapshot().values())
        return ", ".join(f"{count} {state}" for state, count in states.items()) or "no services"

    def _bind(self) -> tuple[list[tuple[socket.socket, Handler]], list[socket.socket]]:
        """Take every address, and accept nobody yet: who connects waits in the backlog."""
        sockets = bind(self._handed_over, listeners(self._map))
        doors: list[tuple[socket.socket, Handler]] = [
            (sock, self._gateway.handle) for sock in sockets["proxy.listen"]
        ]
        for host in self._map.services:
            door = self._gateway.door(host)
            doors += [(sock, door) for sock in sockets.get(f"services.{host}.listen", [])]
        return doors, sockets["admin.listen"]

    async def _serve_on(self, sock: socket.socket, handler: Handler) -> None:
        server = proxy.ProxyServer(handler)
        loop = asyncio.get_running_loop()
        listener = await loop.create_server(server, sock=sock, backlog=BACKLOG)
        self._servers.append((listener, server))

    async def _serve_admin(self, sockets: list[socket.socket]) -> None:
        application = admin.make_admin(
            supervisor=self._supervisor,
            history=self._history,
            metrics=self._metrics,
            runtime_of=self._runtime_of,
            reload=self.reload,
            clock=self._clock,
            token=os.environ.get(self._map.admin.token_env or ""),
            days=self._days,
            usages=self._sampling.samples,
            failure_log=self._failure_logs.of,
        )
        dashboard.add_to(application)
        self._admin = web.AppRunner(
            application,
            access_log=None,
            handler_cancellation=True,
            shutdown_timeout=CLOSE_SECONDS,
        )
        await self._admin.setup()
        for sock in sockets:
            await web.SockSite(self._admin, sock).start()

    async def _drain(self) -> None:
        """Let answers in flight end; whoever waits is refused.

        From the first line on nobody is accepted: who connects to a socket that was handed to us
        waits there for the next autostart. Who was accepted before gets an answer.
        """
        timeout_seconds = self._map.proxy.drain_timeout_seconds
        for listener, _ in self._servers:
            listener.close()
        log.info("shutting-down", drain_timeout=timeout_seconds)
        self._notification.tell_ending(timeout_seconds + self._close_seconds)
        servers = [server for _, server in self._servers]
        self._gateway.end_streams()
        settle_seconds = min(proxy.SETTLE_SECONDS, timeout_seconds)
        await asyncio.gather(*(server.settle(settle_seconds) for server in servers))
        self._supervisor.begin_shutdown()
        await asyncio.gather(*(server.drain(timeout_seconds) for server in servers))

    @property
    def _close_seconds(self) -> float:
        return END_SECONDS + (STOP_ALL_SECONDS if self._stop_services else 0.0)

    async def _close(self) -> None:
        if self._stop_services:
            await self._stop_all()
        if self._admin is not None:
            await self._admin.cleanup()
        self._alarm.close()
        await self._sampling.close()
        await self._failure_logs.close()
        await self._portal.close()
        await self._supervisor.close()
        self._gateway.close()
        self._history.close()
        self._days.close(self._clock.now(), self._supervisor.snapshot())
        for runtime in self._runtimes:
            await runtime.close()
        self._notification.close()

    async def _stop_all(self) -> None:
        """Stop what runs: for a demonstration that leaves nothing behind."""
        changed = asyncio.Event()
        self._supervisor.observers.append(lambda _: changed.set())
        for host in self._supervisor.snapshot():
            await self._supervisor.ask(host, lambda ticket: StopRequested(ticket, force=True))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(STOP_ALL_SECONDS):
                while any(service.is_running for service in self._supervisor.snapshot().values()):
                    changed.clear()
                    await changed.wait()


def _loop_factory() -> type[asyncio.AbstractEventLoop] | None:
    """Return uvloop's loop where there is one."""
    try:
        import uvloop  # noqa: PLC0415 - optional: not every platform has it
    except ImportError:
        return None
    return uvloop.Loop


def _raise_open_files() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, OPEN_FILES)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _moved_listeners(old: Map, new: Map) -> list[str]:
    pairs: list[tuple[str, object, object]] = [
        ("proxy.listen", old.proxy.listen, new.proxy.listen),
        ("admin.listen", old.admin.listen, new.admin.listen),
        ("admin.token_env", old.admin.token_env, new.admin.token_env),
    ]
    for host in old.services.keys() | new.services.keys():
        before, after = old.services.get(host), new.services.get(host)
        door, new_door = (before and before.listen, after and after.listen)
        pairs.append((f"services.{host}.listen", door, new_door))
    return [
        f"{key} changed from {before} to {after}: needs a restart"
        for key, before, after in pairs
        if before != after
    ]


def _log_refused_reload(task: asyncio.Task[list[str]]) -> None:
    if task.cancelled():
        return
    error = task.exception()
    if isinstance(error, errors.ConfigError):
        log.warning("reload-refused", problems=error.problems)
    elif isinstance(error, errors.AutostartError):
        log.warning("reload-refused", problems=error.message.splitlines())
    elif error is not None:
        log.error("bug", task=task.get_name(), exc_info=error)
