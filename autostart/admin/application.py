"""The routes of the admin listener and what they do.

A command is posted as an event and answered with the service as it then stands: what takes time
goes on, and is seen in `GET /api/services/{host}` or `GET /api/events`.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol

import structlog
from aiohttp import web
from aiohttp.typedefs import Handler
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from autostart import lifecycle
from autostart.admin.answers import error_answer, service_answer, status_of
from autostart.admin.changes import Changes
from autostart.admin.figures import Figures, Usages
from autostart.admin.guard import HEALTH_PATH, Guard
from autostart.admin.login import Login
from autostart.admin.openapi import DOCUMENT
from autostart.admin.options import last_event_id, query_options, read_options
from autostart.admin.preparations import Preparations
from autostart.admin.streams import Streams, send_events, send_logs
from autostart.config import ServiceConfig
from autostart.errors import AutostartError, BadCommand, EngineUnreachable, UnknownService
from autostart.lifecycle import Event, Service
from autostart.runtimes.base import Runtime
from autostart.telemetry import HEARTBEAT_SECONDS, Clock, Days, History, Metrics

log = structlog.get_logger("autostart")

# Commands are a few words.
BODY_BYTES_MAX = 64 * 1024
USAGE_SECONDS = 5.0
LOG_LINES = 100
LOG_LINES_MAX = 10_000

_INDEX = """\
autostart: the operator's listener (in a browser: the dashboard)

GET  /api/services                   what every service does
GET  /api/usage                      memory and processor time of all that run
GET  /api/history                    the last days: starts, time asleep (?days=7)
GET  /api/services/HOST              one of them
GET  /api/services/HOST/logs         its output (?lines=100&follow=1)
GET  /api/services/HOST/usage        its memory and processor time
POST /api/services/HOST/start        also: stop, restart, keep, prepare
POST /api/reload                     read the map again
POST /login                          a browser's session for the token (also: /logout)
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

    watchers: list[Callable[[str], None]]
    """Who is told the host of each service that changes, on the path of requests."""


def make_admin(
    *,
    supervisor: Fleet,
    history: History,
    metrics: Metrics,
    runtime_of: Callable[[ServiceConfig], Runtime],
    reload: Callable[[], Awaitable[list[str]]],
    clock: Clock,
    token: str | None,
    days: Days,
    usages: Usages,
    failure_log: Callable[[Service], list[str] | None],
    heartbeat_seconds: float = HEARTBEAT_SECONDS,
) -> web.Application:
    """Return the application; to be served with handler_cancellation=True, or streams linger.

    `reload` returns what it took; it raises ConfigError or NeedsRestart. `token` None or empty:
    whoever reaches the listener under one of its own names may do everything. `failure_log` returns
    the last lines of the run that failed, None if there are none.
    """
    api = _Api(
        supervisor=supervisor,
        history=history,
        metrics=metrics,
        runtime_of=runtime_of,
        reload=reload,
        clock=clock,
        failure_log=failure_log,
        heartbeat_seconds=heartbeat_seconds,
    )
    figures = Figures(snapshot=supervisor.snapshot, days=days, usages=usages, clock=clock)
    guard = Guard((token or "").strip() or None, clock)
    application = web.Application(
        middlewares=[_answer_errors, guard.check], client_max_size=BODY_BYTES_MAX
    )
    Login(guard).add_to(application)
    figures.add_to(application)
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
    response = web.json_response(body, status=status_of(error), headers=headers)
    if error.retry_after_seconds is not None:
        response.headers["Retry-After"] = str(math.ceil(error.retry_after_seconds))
    return response


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
        failure_log: Callable[[Service], list[str] | None],
        heartbeat_seconds: float,
    ) -> None:
        self._fleet = supervisor
        self._history = history
        self._metrics = metrics
        self._runtime_of = runtime_of
        self._reload = reload
        self._clock = clock
        self._heartbeat_seconds = heartbeat_seconds
        self._failure_log = failure_log
        self._changes = Changes(supervisor.watchers, self._answer_of)
        self._preparations = Preparations(supervisor.prepare, self._changes.mark)
        self._streams = Streams()

    # Looking.

    async def index(self, _: web.Request) -> web.Response:
        return web.Response(text=_INDEX)

    async def health(self, _: web.Request) -> web.Response:
        return web.json_response({"status": "ok"})

    async def metrics(self, _: web.Request) -> web.Response:
        # In a thread: of a hundred services it is 300 kB, for 20 ms in which nobody is served.
        text = await asyncio.to_thread(self._metrics.render)
        return web.Response(body=text, headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def openapi(self, _: web.Request) -> web.Response:
        return web.json_response(DOCUMENT)

    async def services(self, _: web.Request) -> web.Response:
        fleet = self._fleet.snapshot()
        return web.json_response([self._answer(service) for service in fleet.values()])

    async def service(self, request: web.Request) -> web.Response:
        return self._answered(self._named(request))

    async def logs(self, request: web.Request) -> web.StreamResponse:
        host = self._named(request)
        options = query_options(request, ("lines", "follow"))
        lines = options.count("lines", LOG_LINES, most=LOG_LINES_MAX)
        follow = options.flag("follow")
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
        last_id = last_event_id(request)
        with self._streams.registered():
            return await send_events(
                request,
                self._history,
                self._changes,
                hosts=list(self._fleet.snapshot()),
                last_id=last_id,
                heartbeat_seconds=self._heartbeat_seconds,
            )

    # Commands.

    async def start(self, request: web.Request) -> web.Response:
        host = self._named(request)
        await read_options(request, ())
        await self._fleet.ask(host, lifecycle.StartRequested)
        return self._answered(host)

    async def stop(self, request: web.Request) -> web.Response:
        host = self._named(request)
        options = await read_options(request, ("drain", "force", "hold"))
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
        force = (await read_options(request, ("force",))).flag("force")
        await self._fleet.ask(host, lambda ticket: lifecycle.RestartRequested(ticket, force=force))
        return self._answered(host)

    async def keep(self, request: web.Request) -> web.Response:
        host = self._named(request)
        seconds = (await read_options(request, ("for",))).duration("for")
        until = self._clock.now().monotonic + seconds
        await self._fleet.ask(host, lambda ticket: lifecycle.Kept(ticket, until))
        return self._answered(host)

    async def prepare(self, request: web.Request) -> web.Response:
        host = self._named(request)
        await read_options(request, ())
        self._preparations.begin(host)
        return self._answered(host, status=202)

    async def reload(self, request: web.Request) -> web.Response:
        await read_options(request, ())
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
        answer = self._answer_of(host)
        if answer is None:
            raise UnknownService(f"{host} was removed from the map")
        return web.json_response(answer, status=status)

    def _answer_of(self, host: str) -> dict[str, Any] | None:
        service = self._fleet.snapshot().get(host)
        return None if service is None else self._answer(service)

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
            failure_log=self._failure_log(service),
        )
