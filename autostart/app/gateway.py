"""One request, from its head to its last byte, in this order:

host → CORS preflight → credentials → Content-Length → admission → lease → forward.

What is refused before the lease wakes nothing. What is refused at all is answered here.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Awaitable, Callable

import structlog
from aiohttp import web

from autostart import errors, proxy, waiting
from autostart.access import Gate
from autostart.admission import Admission, RequestHead, admit, plain_path
from autostart.app import cors, docs
from autostart.app.following import Following
from autostart.app.logins import Logins
from autostart.config import Map, ServiceConfig
from autostart.lifecycle import Service, Waited
from autostart.portal import FOLDER, Portal, Reader
from autostart.routes import Routes, hostname
from autostart.supervisor import Granted, Supervisor
from autostart.telemetry import Metrics

log = structlog.get_logger("autostart")

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]

WAKE_PATH = "/.autostart/wake"
STATUS_PATH = "/.autostart/status"
EVENTS_PATH = "/.autostart/events"
# nginx's word for a client that left before it was answered; only counted, never sent.
STATUS_CLIENT_LEFT = 499
# How much of a path is shown to operators.
ABOUT_CHARACTERS = 120
_MILLISECONDS = 1000.0
# Whether a request that is told "not now" gets the waiting page.
_GETS_PAGE = web.RequestKey("gets_page", bool)
# A stream is no request that took so long, and its end no client that gave up.
_IS_STREAM = web.RequestKey("is_stream", bool)


class Gateway:
    """Answers every request of the proxy's listeners; a reload replaces what it knows."""

    def __init__(
        self, declared: Map, supervisor: Supervisor, metrics: Metrics, portal: Portal
    ) -> None:
        self._supervisor = supervisor
        self._metrics = metrics
        self._portal = portal
        self._logins = Logins()
        self._pages = waiting.Pages()
        self._following = Following()
        supervisor.observers.append(self._following.pass_on)
        self.declare(declared)

    def declare(self, declared: Map) -> None:
        """Take a map; requests under way go on with the one they came under."""
        self._map = declared
        self._routes = Routes(declared)
        self._portal.declare(declared)
        self._following.keep(declared.services)
        self._gates = {
            host: Gate(service.access, os.environ)
            for host, service in declared.services.items()
            if service.access is not None
        }
        for host, gate in self._gates.items():
            for problem in gate.problems():
                log.warning("nobody-gets-in", service=host, problem=problem)

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer a request whose Host header says which service it wants."""
        # Not request.host: without a Host header aiohttp looks up the name of this machine.
        host = request.headers.get("Host", "")
        if self._map.portal is not None and hostname(host) == self._map.portal:
            return await self._answer(request, lambda: None)
        return await self._answer(request, lambda: self._routes.match(host))

    def door(self, host: str) -> Handler:
        """Return the handler of a listener of its own, which needs no host name."""

        async def handle(request: web.BaseRequest) -> web.StreamResponse:
            return await self._answer(request, lambda: self._declared(host))

        return handle

    def end_streams(self) -> None:
        """Let go who follows: a drain need not wait for them."""
        self._following.close()

    def close(self) -> None:
        """End what it began, once no request comes any more."""
        self._logins.close()

    # One request.

    async def _answer(
        self, request: web.BaseRequest, match: Callable[[], ServiceConfig | None]
    ) -> web.StreamResponse:
        began = time.monotonic()
        service: ServiceConfig | None = None
        code: str | None = None
        status = STATUS_CLIENT_LEFT
        try:
            service = match()
            answer = await (
                self._read_portal(request) if service is None else self._serve(request, service)
            )
            status = answer.status
            if isinstance(answer, proxy.Answer) and answer.cut is not None:
                code = answer.cut.code
        except errors.Refusal as refusal:
            code, status = refusal.code, refusal.status
            answer = self._refused(request, service, refusal)
        finally:
            host = service.host if service is not None else ""
            if code is not None or not request.get(_IS_STREAM):
                self._metrics.request_ended(host, status, code, time.monotonic() - began)
        return answer

    async def _serve(self, request: web.BaseRequest, service: ServiceConfig) -> web.StreamResponse:
        if service.cors and cors.is_preflight(request.method, request.headers):
            headers = cors.preflight_headers(service, request.headers)
            return proxy.own_answer(request, 204, b"", "", headers=headers.items())
        await self._check_credentials(request, service)
        _check_length(request, service)
        path = plain_path(request.raw_path)
        if path == WAKE_PATH and request.method == "POST":
            return await self._wake(request, service)
        if path == STATUS_PATH and request.method in {"GET", "HEAD"}:
            return self._status(request, service)
        if path == EVENTS_PATH and request.method in {"GET", "HEAD"}:
            return await self._events(request, service)
        reads_docs = service.docs is not None and request.method in docs.READING_METHODS
        if reads_docs and path.startswith(FOLDER):
            page = await self._portal.read_beside(service, self._reader(request, service))
            return docs.answer(request, page, _own_headers(request, service))
        head = RequestHead(
            method=request.method,
            path=path,
            agent=request.headers.get("User-Agent", ""),
            navigates=_navigates(request),
            is_ahead=_is_ahead(request),
        )
        admission = admit(service, head)
        request[_GETS_PAGE] = admission.may_wake and not admission.may_wait
        try:
            return await self._forward(request, service, admission)
        except errors.DocsUnknown as unknown:
            reader = self._reader(request, service)
            page = await self._portal.read_instead(service, reader, unknown)
            return docs.answer(request, page, _own_headers(request, service))

    async def _forward(
        self, request: web.BaseRequest, service: ServiceConfig, admission: Admission
    ) -> web.StreamResponse:
        try:
            return await self._forward_once(request, service, admission)
        except errors.ConnectFailed:
            # Nothing was sent, and the supervisor knows: it probes, or starts, then once more.
            return await self._forward_once(request, service, admission)

    async def _forward_once(
        self, request: web.BaseRequest, service: ServiceConfig, admission: Admission
    ) -> web.StreamResponse:
        # As it was sent, escapes and all: it is shown in terminals. Without its query: secrets.
        about = f"{request.method} {request.raw_path.partition('?')[0][:ABOUT_CHARACTERS]}"
        async with self._supervisor.lease(service.host, admission, about) as granted:
            try:
                return await proxy.forward(
                    request,
                    granted.endpoint,
                    service,
                    request_id=proxy.request_id(request),
                    peer=proxy.peer(request.protocol.peername, self._map.proxy.trusted_proxies),
                    answer_headers=list(_answer_headers(request, service, granted).items()),
                    keep_cors=not service.cors,
                    on_answer=granted.mark_answered,
                )
            except errors.ConnectFailed:
                self._supervisor.report_lost(service.host, granted.endpoint)
                raise

    # Docs.

    async def _read_portal(self, request: web.BaseRequest) -> web.StreamResponse:
        if request.method not in docs.READING_METHODS:
            raise errors.UnknownPage(f"the portal is read; it knows no {request.method}")
        page = await self._portal.read(self._reader(request, None))
        return docs.answer(request, page, {})

    def _reader(self, request: web.BaseRequest, service: ServiceConfig | None) -> Reader:
        return docs.reader_of(request, self._map, plain_path(request.raw_path), service)

    # Ours on every host.

    async def _wake(self, request: web.BaseRequest, service: ServiceConfig) -> web.StreamResponse:
        """Start the service without waiting for it, while its user still records."""
        admission = Admission(may_wake=True, may_wait=False, counts=True)
        try:
            async with self._supervisor.lease(service.host, admission, f"POST {WAKE_PATH}"):
                return self._status(request, service)
        except errors.Starting as starting:
            seconds = math.ceil(starting.retry_after_seconds or 1)
            more = {"Retry-After": str(seconds)}
            return self._status(request, service, status=202, more=more)

    def _status(
        self,
        request: web.BaseRequest,
        service: ServiceConfig,
        *,
        status: int = 200,
        more: dict[str, str] | None = None,
    ) -> web.StreamResponse:
        headers = {**_own_headers(request, service), **(more or {})}
        text = json.dumps(self._public_status(service)).encode()
        return proxy.own_answer(request, status, text, "application/json", headers=headers.items())

    async def _events(self, request: web.BaseRequest, service: ServiceConfig) -> web.StreamResponse:
        """Tell where the service stands, and how it goes on."""
        status, headers = self._public_status(service), _own_headers(request, service)
        request[_IS_STREAM] = True
        return await self._following.follow(request, status, headers)

    def _public_status(self, service: ServiceConfig) -> waiting.Status:
        shown = self._supervisor.snapshot().get(service.host) or Service(service)
        return waiting.public_status(shown, time.monotonic())

    # What is refused.

    def _refused(
        self, request: web.BaseRequest, service: ServiceConfig | None, refusal: errors.Refusal
    ) -> proxy.Answer:
        headers = self._refusal_headers(request, service, refusal)
        page = None
        if service is not None and request.get(_GETS_PAGE) and waiting.is_not_now(refusal):
            shown = self._pages.render(
                service,
                self._public_status(service),
                language=waiting.preferred_language(request.headers.get("Accept-Language", "")),
                target=proxy.origin_target(request.raw_path).decode("utf-8", "replace"),
                retry_after_seconds=refusal.retry_after_seconds,
            )
            page, headers = shown.body, {**headers, **shown.headers}
        return proxy.error_response(
            refusal,
            request=request,
            request_id=proxy.request_id(request),
            headers=headers.items(),
            page=page,
        )

    # What stands in the way.

    def _declared(self, host: str) -> ServiceConfig:
        service = self._map.services.get(host)
        if service is None:
            raise errors.UnknownHost(f"no service has the host {host!r}")
        return service

    async def _check_credentials(self, request: web.BaseRequest, service: ServiceConfig) -> None:
        gate = self._gates.get(service.host)
        if gate is None:
            return
        authorization = request.headers.get("Authorization")
        if authorization is not None and gate.takes_long(authorization):
            await self._logins.check(gate, authorization)
        else:
            gate.check(authorization)

    def _refusal_headers(
        self, request: web.BaseRequest, service: ServiceConfig | None, refusal: errors.Refusal
    ) -> dict[str, str]:
        if service is None:
            return {}
        headers = cors.answer_headers(service, request.headers)
        gate = self._gates.get(service.host)
        if gate is not None and isinstance(refusal, errors.Unauthorized):
            headers["WWW-Authenticate"] = gate.challenge
        return headers


def _check_length(request: web.BaseRequest, service: ServiceConfig) -> None:
    length = request.content_length
    if length is not None and length > service.max_body_bytes:
        text = f"the body has {length} bytes; {service.host} takes {service.max_body_bytes}"
        raise errors.BodyTooLarge(text)


def _navigates(request: web.BaseRequest) -> bool:
    """Say whether a browser loads a page into a window of its own."""
    if request.method != "GET":
        return False
    mode = request.headers.get("Sec-Fetch-Mode")
    if mode is not None:
        # A frame is held: ours is shown in frames of the same host only.
        return mode == "navigate" and request.headers.get("Sec-Fetch-Dest") in {None, "document"}
    # A browser that says no more, or does not trust the address (plain HTTP); scripts say they are.
    if "X-Requested-With" in request.headers or "Origin" in request.headers:
        return False
    return request.headers.get("Accept", "").lower().startswith("text/html")


def _is_ahead(request: web.BaseRequest) -> bool:
    """Say whether a browser fetches before anybody wants it; older ones say Purpose."""
    said = (request.headers.get(name, "").lower() for name in ("Sec-Purpose", "Purpose"))
    return any(purpose.startswith("prefetch") for purpose in said)


def _own_headers(request: web.BaseRequest, service: ServiceConfig) -> dict[str, str]:
    headers = cors.answer_headers(service, request.headers)
    return {**headers, "X-Request-ID": proxy.request_id(request)}


def _answer_headers(
    request: web.BaseRequest, service: ServiceConfig, granted: Granted
) -> dict[str, str]:
    headers = cors.answer_headers(service, request.headers)
    if granted.waited is not None:
        headers["Autostart-Start"] = "cold"
        headers["Server-Timing"] = _server_timing(granted.waited)
    return headers


def _server_timing(waited: Waited) -> str:
    return ", ".join(
        f"{name};dur={seconds * _MILLISECONDS:.1f}"
        for name, seconds in (
            ("queue", waited.queue),
            ("start", waited.start),
            ("ready", waited.ready),
        )
    )
