"""The routes of the admin listener and what they do.

A command is posted as an event and answered with the service as it then stands: what takes time
goes on, and is seen in `GET /api/services/{host}` or `GET /api/events`.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol

import structlog
from aiohttp import web
from aiohttp.typedefs import Handler
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from autostart import config, lifecycle
from autostart.admin.answers import error_answer, service_answer, status_of
from autostart.admin.guard import HEALTH_PATH, make_guard
from autostart.admin.openapi import DOCUMENT
from autostart.admin.preparations import Preparations
from autostart.admin.streams import HEARTBEAT_SECONDS, Streams, send_events, send_logs
from autostart.config import ServiceConfig
from autostart.errors import AutostartError, BadCommand, EngineUnreachable, UnknownService
from autostart.lifecycle import Event, Service
from autostart.runtimes.base import Runtime
from autostart.telemetry import Clock, History, Metrics

log = structlog.get_logger("autostart")

# Commands are a few words.
BODY_BYTES_MAX = 64 * 1024
USAGE_SECONDS = 5.0
LOG_LINES = 100
LOG_LINES_MAX = 10_000

_TRUE = frozenset({"1", "true", "yes", "on", ""})
_FALSE = frozenset({"0", "false", "no", "off"})
_INDEX = """\
autostart: the operator's listener

GET  /api/services                   what every service does
GET  /api/services/HOST              one of them
GET  /api/services/HOST/logs         its output (?lines=100&follow=1)
GET  /api/services/HOST/usage        its memory and processor time
POST /api/services/HOST/start        also: stop, restart, keep, prepare
POST /api/reload                     read the map again
GET  /api/events                     what happens, as it happens (server-sent events)
GET  /metrics                        for Prometheus
GET  /openapi.json                   all of it, for programs
"""


class Fleet(Protocol):
    """What is asked of the supervisor."""

    def snapshot(self) -> dict[str, Service]:
        """Return the fleet as it stands, to be shown."""

    async def ask(self, host: str, event: Callable[[int], Event]) -> None:
        """Post an operator's event, made from its ticket; raise what it is refused with."""

    async def prepare(self, host: str) -> None:
        """Pull, build and create ahead of the first request."""

    @property
    def progress(self) -> Mapping[str, str]:
        """The last line of each pull or build under way, by host."""


def make_admin(
    *,
    supervisor: Fleet,
    history: History,
    metrics: Metrics,
    runtime_of: Callable[[ServiceConfig], Runtime],
    reload: Callable[[], Awaitable[list[str]]],
    clock: Clock,
    token: str | None,
    heartbeat_seconds: float = HEARTBEAT_SECONDS,
) -> web.Application:
    """Return the application; to be served with handler_cancellation=True, or streams linger.

    `reload` returns what it took; it raises ConfigError or NeedsRestart. `token` None or empty:
    whoever reaches the listener under one of its own names may do everything.
    """
    api = _Api(
        supervisor=supervisor,
        history=history,
        metrics=metrics,
        runtime_of=runtime_of,
        reload=reload,
        clock=clock,
        heartbeat_seconds=heartbeat_seconds,
    )
    guard = make_guard((token or "").strip() or None)
    application = web.Application(
        middlewares=[_answer_errors, guard], client_max_size=BODY_BYTES_MAX
    )
    application.router.add_get("/", api.index)
    application.router.add_get(HEALTH_PATH, api.health)
    application.router.add_get("/metrics", api.metrics)
    application.router.add_get("/openapi.json", api.openapi)
    application.router.add_get("/api/services", api.services)
    application.router.add_get("/api/services/{host}", api.service)
    application.router.add_get("/api/services/{host}/logs", api.logs)
    application.router.add_get("/api/services/{host}/usage", api.usage)
    application.router.add_post("/api/services/{host}/start", api.start)
    application.router.add_post("/api/services/{host}/stop", api.stop)
    application.router.add_post("/api/services/{host}/restart", api.restart)
    application.router.add_post("/api/services/{host}/keep", api.keep)
    application.router.add_post("/api/services/{host}/prepare", api.prepare)
    application.router.add_post("/api/reload", api.reload)
    application.router.add_get("/api/events", api.events)
    application.on_shutdown.append(api.end_streams)
    application.on_cleanup.append(api.close)
    return application


@web.middleware
async def _answer_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Give every error the same shape; what went wrong inside stays in the log."""
    try:
        return await handler(request)
    except AutostartError as error:
        return _no(error, host=request.match_info.get("host"))
    except web.HTTPException as error:
        kept = {name: error.headers[name] for name in ("Allow",) if name in error.headers}
        return _no(_misrouted(request, error), headers=kept)
    except ConnectionError:
        raise  # the client left
    except Exception:  # a bug: told in the log, and no traceback to whoever asked
        log.exception("bug", request=f"{request.method} {request.path}")
        return _no(AutostartError("a bug in autostart, see its log"))


def _no(
    error: AutostartError, *, host: str | None = None, headers: Mapping[str, str] | None = None
) -> web.Response:
    body = error_answer(error, host)
    return web.json_response(body, status=status_of(error), headers=headers)


def _misrouted(request: web.Request, error: web.HTTPException) -> BadCommand:
    match error:
        case web.HTTPNotFound():
            text = f"there is no {request.path}"
        case web.HTTPMethodNotAllowed():
            allowed = ", ".join(sorted(error.allowed_methods))
            text = f"{request.path} does not take {request.method}; allowed: {allowed}"
        case web.HTTPRequestEntityTooLarge():
            text = f"the body is larger than {BODY_BYTES_MAX} bytes"
        case _:
            text = f"the request is refused: {error.reason}"
    refusal = BadCommand(text)
    refusal.status = error.status
    return refusal


class _Api:
    """The handlers, by route."""

    def __init__(
        self,
        *,
        supervisor: Fleet,
        history: History,
        metrics: Metrics,
        runtime_of: Callable[[ServiceConfig], Runtime],
        reload: Callable[[], Awaitable[list[str]]],
        clock: Clock,
        heartbeat_seconds: float,
    ) -> None:
        self._fleet = supervisor
        self._history = history
        self._metrics = metrics
        self._runtime_of = runtime_of
        self._reload = reload
        self._clock = clock
        self._heartbeat_seconds = heartbeat_seconds
        self._preparations = Preparations(supervisor.prepare)
        self._streams = Streams()

    # Looking.

    async def index(self, _: web.Request) -> web.Response:
        return web.Response(text=_INDEX)

    async def health(self, _: web.Request) -> web.Response:
        return web.json_response({"status": "ok"})

    async def metrics(self, _: web.Request) -> web.Response:
        return web.Response(
            body=self._metrics.render(), headers={"Content-Type": CONTENT_TYPE_LATEST}
        )

    async def openapi(self, _: web.Request) -> web.Response:
        return web.json_response(DOCUMENT)

    async def services(self, _: web.Request) -> web.Response:
        fleet = self._fleet.snapshot()
        return web.json_response([self._answer(service) for service in fleet.values()])

    async def service(self, request: web.Request) -> web.Response:
        return self._answered(self._named(request))

    async def logs(self, request: web.Request) -> web.StreamResponse:
        host = self._named(request)
        options = _Options(dict(request.query), ("lines", "follow"))
        lines, follow = options.count("lines", LOG_LINES), options.flag("follow")
        declared = self._fleet.snapshot()[host].config
        with self._streams.registered():
            return await send_logs(
                request, self._runtime_of(declared), declared, lines, follow=follow
            )

    async def usage(self, request: web.Request) -> web.Response:
        host = self._named(request)
        declared = self._fleet.snapshot()[host].config
        try:
            async with asyncio.timeout(USAGE_SECONDS):
                used = await self._runtime_of(declared).usage(declared)
        except TimeoutError as error:
            text = f"what {host} uses was not told within {USAGE_SECONDS:g} s"
            raise EngineUnreachable(text) from error
        return web.json_response(
            {
                "memory_bytes": used and used.memory_bytes,
                "cpu_seconds": used and round(used.cpu_seconds, 3),
            }
        )

    async def events(self, request: web.Request) -> web.StreamResponse:
        last_id = _last_id(request.headers.get("Last-Event-ID"))
        with self._streams.registered():
            return await send_events(
                request,
                self._history,
                last_id=last_id,
                heartbeat_seconds=self._heartbeat_seconds,
            )

    # Commands.

    async def start(self, request: web.Request) -> web.Response:
        host = self._named(request)
        await _read_options(request, ())
        await self._fleet.ask(host, lifecycle.StartRequested)
        return self._answered(host)

    async def stop(self, request: web.Request) -> web.Response:
        host = self._named(request)
        options = await _read_options(request, ("drain", "force", "hold"))
        drain, force, hold = (options.flag(name) for name in ("drain", "force", "hold"))
        if drain and force:
            raise BadCommand("drain waits for the requests and force cuts them; send one of them")
        await self._fleet.ask(
            host,
            lambda ticket: lifecycle.StopRequested(ticket, drain=drain, force=force, hold=hold),
        )
        return self._answered(host)

    async def restart(self, request: web.Request) -> web.Response:
        host = self._named(request)
        force = (await _read_options(request, ("force",))).flag("force")
        await self._fleet.ask(host, lambda ticket: lifecycle.RestartRequested(ticket, force=force))
        return self._answered(host)

    async def keep(self, request: web.Request) -> web.Response:
        host = self._named(request)
        seconds = (await _read_options(request, ("for",))).duration("for")
        until = self._clock.now().monotonic + seconds
        await self._fleet.ask(host, lambda ticket: lifecycle.Kept(ticket, until))
        return self._answered(host)

    async def prepare(self, request: web.Request) -> web.Response:
        host = self._named(request)
        await _read_options(request, ())
        self._preparations.begin(host)
        return self._answered(host, status=202)

    async def reload(self, request: web.Request) -> web.Response:
        await _read_options(request, ())
        return web.json_response({"taken": await self._reload()})

    # The end.

    async def end_streams(self, _: web.Application) -> None:
        self._streams.close()

    async def close(self, _: web.Application) -> None:
        await self._preparations.close()

    # Parts.

    def _named(self, request: web.Request) -> str:
        """Return the host of the service that the path names, by its host or an alias."""
        name = request.match_info["host"].lower().removesuffix(".")
        for host, service in self._fleet.snapshot().items():
            if name == host or name in service.config.aliases:
                return host
        raise UnknownService(f"no service {name!r} in the map")

    def _answered(self, host: str, status: int = 200) -> web.Response:
        service = self._fleet.snapshot().get(host)
        if service is None:
            raise UnknownService(f"{host} was removed from the map")
        return web.json_response(self._answer(service), status=status)

    def _answer(self, service: Service) -> dict[str, Any]:
        host = service.config.host
        runtime = self._runtime_of(service.config)
        return service_answer(
            service,
            self._clock.now(),
            runtime=runtime.name,
            device=runtime.device(service.config),
            progress=self._fleet.progress.get(host),
            preparation=self._preparations.answer(host),
        )


class _Options:
    """What a call says beyond its path, in its query or its body; anything unknown is refused."""

    def __init__(self, written: Mapping[str, Any], allowed: tuple[str, ...]) -> None:
        for name in written:
            if name not in allowed:
                names = ", ".join(allowed) or "none"
                raise BadCommand(f"unknown option {name!r}; allowed: {names}")
        self._written = written

    def flag(self, name: str) -> bool:
        """Return whether it is set."""
        value = self._written.get(name, False)
        if isinstance(value, bool):
            return value
        word = str(value).lower()
        if word not in _TRUE | _FALSE:
            raise BadCommand(f"{name} is {value!r}; allowed: true, false")
        return word in _TRUE

    def count(self, name: str, default: int) -> int:
        """Return a number of lines."""
        word = str(self._written.get(name, default))
        if re.fullmatch("[0-9]{1,6}", word) is None or int(word) > LOG_LINES_MAX:
            raise BadCommand(f"{name} is {word[:20]!r}; allowed: 0 to {LOG_LINES_MAX}")
        return int(word)

    def duration(self, name: str) -> float:
        """Return seconds, more than none."""
        written = self._written.get(name)
        try:
            seconds = config.parse_duration(written)
        except ValueError as error:
            raise BadCommand(f"{name} is {written!r}: {error}") from error
        if seconds == 0:
            raise BadCommand(f"{name} is {written!r}: allowed: more than 0s")
        return seconds


def _last_id(written: str | None) -> int | None:
    if written is None:
        return None
    # An id that is none of ours is that of a reader that knows nothing yet.
    return int(written) if re.fullmatch("[0-9]{1,20}", written) else 0


async def _read_options(request: web.Request, allowed: tuple[str, ...]) -> _Options:
    written: dict[str, Any] = dict(request.query)
    content = await request.read()
    if content.strip():
        try:
            body = json.loads(content)
        except ValueError as error:
            raise BadCommand(f"the body is not JSON: {error}") from error
        if not isinstance(body, dict):
            raise BadCommand('the body is not a JSON object such as {"for": "2h"}')
        written |= body
    return _Options(written, allowed)
