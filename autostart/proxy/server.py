"""The listening side: aiohttp's low-level server, with our answers in place of its own.

aiohttp parses, keeps connections alive and cancels the handler when the client leaves. What it
would say by itself (plain text, its version, a traceback in the log) is said here as every refusal
is: JSON, `Autostart-Error`, one log line. No router, no web.Application, no access log.

    server = ProxyServer(handler)
    listener = await loop.create_server(server, sock=…)
    …
    listener.close()
    await server.settle(0.25)
    await server.drain(30.0)
"""

from __future__ import annotations

import asyncio
import os
import re
import time
from collections.abc import Awaitable, Callable

import structlog
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError, LineTooLong
from aiohttp.streams import EMPTY_PAYLOAD, StreamReader
from aiohttp.web_protocol import RequestHandler, _ErrInfo

from autostart.errors import AutostartError, BadRequest, Refusal, RequestTimeout
from autostart.proxy.answer import Answer, error_response
from autostart.proxy.connection import reset
from autostart.proxy.framing import head_refusal

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]

log = structlog.get_logger()

# Cookies and tokens grow beyond aiohttp's 8,190 bytes; nginx takes 32 KiB in all by default.
HEADER_LINE_BYTES_MAX = 32 * 1024
# nginx's default for both its sides.
KEEPALIVE_SECONDS = 75.0
# nginx's lingering_time and lingering_timeout: how long we discard what a refused client still
# sends, so that it reads our answer instead of a reset.
LINGER_SECONDS = 30.0
LINGER_SILENCE_SECONDS = 5.0
# nginx's client_header_timeout and send_timeout.
HEAD_SECONDS = 60.0
SEND_SECONDS = 60.0
# How long a request may be on its way to a connection that is open when we begin to end: a lost
# packet is sent again after 0.2 s. What crosses the end of one that was idle for longer is lost.
SETTLE_SECONDS = 0.25
# From a reset to the end of the handler that it cancels: one turn of the loop, unless it hangs.
_RESET_SECONDS = 5.0
# asyncio takes two turns of its loop from accept to connection_made, uvloop one.
_ACCEPT_TURNS = 3
# How often an ending server looks whether its clients have left.
_LOOK_SECONDS = 0.01

_REQUEST_ID_KEY = web.RequestKey("request_id", str)
_REQUEST_ID = re.compile(r"[A-Za-z0-9._:/+=-]{1,128}")
# The parser's messages quote what they refuse after the first of these.
_QUOTE = re.compile(r"""[:'"`\\\n]|\bb['"]""")
_NAMED_HEADER = re.compile(r"(Duplicate|Missing) '[A-Za-z-]+' header")


def request_id(request: web.BaseRequest) -> str:
    """The request's X-Request-ID: passed on if it is harmless, else made; the same at each call."""
    known = request.get(_REQUEST_ID_KEY)
    if known is None:
        given = request.headers.get("X-Request-ID", "")
        known = given if _REQUEST_ID.fullmatch(given) else os.urandom(16).hex()
        request[_REQUEST_ID_KEY] = known
    return known


class ProxyServer(web.Server):
    """Makes a ClientConnection of each accepted socket; `handler` gets requests with a good head.

    `head_timeout_seconds` is how long a client may take for a head, from the connection or, later,
    from the head's first byte; `send_timeout_seconds` for reading an answer of ours (a relayed one
    is under its service's response_timeout).
    """

    def __init__(
        self,
        handler: Handler,
        *,
        head_timeout_seconds: float = HEAD_SECONDS,
        send_timeout_seconds: float = SEND_SECONDS,
    ) -> None:
        super().__init__(self._guard, handler_cancellation=True)
        self.head_timeout_seconds = head_timeout_seconds
        self.send_timeout_seconds = send_timeout_seconds
        self.is_draining = False
        # How long an idle connection is left open while we end, and since when each is idle.
        self._settle_seconds = 0.0
        self._idle_since: dict[ClientConnection, float] = {}
        self._handler = handler
        self._running_loop = asyncio.get_running_loop()

    def __call__(self) -> RequestHandler:
        return ClientConnection(self, self._running_loop)

    async def _guard(self, request: web.BaseRequest) -> web.StreamResponse:
        refusal: AutostartError | None = head_refusal(request)
        if refusal is None:
            try:
                return await self._handler(request)
            except AutostartError as error:
                refusal = error
            except web.HTTPException as exception:
                raise AssertionError("aiohttp's own answers are not given here") from exception
        else:
            _log_refusal(request, refusal)
            return _last_answer(request, refusal)
        return error_response(refusal, request=request, request_id=request_id(request))

    async def settle(self, seconds: float) -> None:
        """Let requests that are on their way arrive: close who has sent none for so long.

        Call it once the listeners are closed. Who was accepted is answered, as the last one on its
        connection: closing an idle connection at once would lose a request that just crosses.
        """
        self.is_draining = True
        self._settle_seconds = seconds
        for _ in range(_ACCEPT_TURNS):
            await asyncio.sleep(0)
        await _wait_until(self._nobody_is_idle, seconds + _LOOK_SECONDS)

    async def drain(self, timeout_seconds: float) -> None:
        """Close idle connections, let requests in progress end for so long, then reset the rest.

        Call it once the listeners are closed. aiohttp's own `shutdown` is not used: from its first
        moment it discards what clients still upload.
        """
        self.is_draining = True
        # An answer that ends now may have said that its connection stays: more may be on its way.
        await _wait_until(lambda: self._nobody_is_idle() and not self.connections, timeout_seconds)
        for client in self._clients():
            client.reset()
        await _wait_until(lambda: not self.connections, _RESET_SECONDS)

    def _nobody_is_idle(self) -> bool:
        """Close who has been idle for long enough; say whether nobody is left who is idle."""
        now = time.monotonic()
        idle = [client for client in self._clients() if client.is_idle]
        self._idle_since = {client: self._idle_since.get(client, now) for client in idle}
        for client, since in self._idle_since.items():
            if now - since >= self._settle_seconds:
                client.close_if_idle()
        return not idle

    def _clients(self) -> list[ClientConnection]:
        return [client for client in self.connections if isinstance(client, ClientConnection)]


async def _wait_until(holds: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not holds() and time.monotonic() < deadline:  # noqa: ASYNC110 - aiohttp tells nobody who left
        await asyncio.sleep(_LOOK_SECONDS)


class ClientConnection(RequestHandler):
    """One client's connection: aiohttp's protocol, with our answers and a deadline for heads."""

    __slots__ = (
        "_deadline",
        "_has_part_of_a_head",
        "_heard",
        "_is_lingering",
        "_newest_payload",
        "_opened",
        "_server",
    )

    def __init__(self, server: ProxyServer, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(
            server,
            loop=loop,
            keepalive_timeout=KEEPALIVE_SECONDS,
            access_log=None,  # type: ignore[arg-type]  # aiohttp's way to say no access log
            max_line_size=HEADER_LINE_BYTES_MAX,
            max_field_size=HEADER_LINE_BYTES_MAX,
            lingering_time=0.0,  # see _linger
            auto_decompress=False,
        )
        self._server = server
        self._deadline: asyncio.TimerHandle | None = None
        self._has_part_of_a_head = False
        self._newest_payload: StreamReader = EMPTY_PAYLOAD
        self._is_lingering = False
        self._heard = False
        self._opened: asyncio.Transport | None = None

    @property
    def task(self) -> asyncio.Task[None] | None:
        """What serves this connection until it is closed; None once it is."""
        return self._task_handler

    @property
    def is_ending(self) -> bool:
        """The next answer is its last, and says so."""
        return self._server.is_draining

    @property
    def is_idle(self) -> bool:
        """It waits for a request, and no part of one has come."""
        # Not _request_in_progress: false until the task of a request that was taken begins.
        waits = self._waiter is not None and not self._waiter.done()
        begins = self._deadline is not None and self._has_part_of_a_head
        return waits and not self._messages and not begins

    def close_if_idle(self) -> None:
        if self.is_idle:
            self.force_close()

    def reset(self) -> None:
        """Drop the connection, and cancel the handler of its request."""
        if self._opened is not None:  # aiohttp forgets its own while an answer's end is unsent
            reset(self._opened)
        self.force_close()

    # What the transport calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._opened = self.transport
        self._expect_head()

    def connection_lost(self, exc: BaseException | None) -> None:
        self._opened = None
        self._stop_deadline()
        super().connection_lost(exc)

    def eof_received(self) -> bool:  # type: ignore[override]  # asyncio takes None for False
        """A client that closes its side has left, except in a tunnel."""
        if self._payload_parser is None:
            return False
        self._payload_parser.feed_eof()
        return True

    def data_received(self, data: bytes) -> None:
        if self._is_lingering:
            self._heard = True
            return
        try:
            super().data_received(data)
        except ValueError:
            # yarl, asked by aiohttp's parser about a target that is no url.
            self._refuse(BadRequest("the request target is not a url"))
        if self._messages:
            self._look_at_newest()
        elif data and not self._request_in_progress:
            if self._deadline is None:
                self._expect_head()
            self._has_part_of_a_head = True

    def _look_at_newest(self) -> None:
        message, payload = self._messages[-1]
        self._stop_deadline()
        if not isinstance(message, _ErrInfo):
            self._newest_payload = payload
            if message.url is None:
                # llhttp reads "CONNECT \r\n" as a request without a target; aiohttp takes that for
                # a request and fails where nobody catches it: the client would wait for ever.
                self._messages.pop()
                self._refuse(BadRequest("the request has no target"))
        elif not self._newest_payload.is_eof():
            # Bad framing in the middle of a body: nobody can say where the next request begins, and
            # the service must not take what it has for the whole.
            log.info("bad request", client=self._client, reason="the body is not framed well")
            self.reset()

    # The deadline for a head.

    def _expect_head(self) -> None:
        self._has_part_of_a_head = False
        self._deadline = self._loop.call_later(self._server.head_timeout_seconds, self._head_late)

    def _stop_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _head_late(self) -> None:
        self._deadline = None
        if self._has_part_of_a_head:
            limit_seconds = self._server.head_timeout_seconds
            self._refuse(RequestTimeout(f"the request's head took longer than {limit_seconds:g} s"))
        else:
            self.force_close()

    def _refuse(self, refusal: AutostartError) -> None:
        """Queue the refusal where aiohttp queues what its parser refuses."""
        info = _ErrInfo(status=refusal.status, exc=refusal, message=refusal.message)
        self._messages.append((info, EMPTY_PAYLOAD))
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    # What aiohttp calls around the handler.

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,  # noqa: ARG002  # aiohttp's signature; the exception says it all
        exc: BaseException | None = None,
        message: str | None = None,  # noqa: ARG002  # the same
    ) -> Answer:
        """Answer for the parser, and for a handler that failed; quiet when the client left."""
        if isinstance(exc, ConnectionError):
            raise exc
        refusal: AutostartError
        if isinstance(exc, AutostartError):
            refusal = exc
        elif isinstance(exc, HttpProcessingError):
            refusal = BadRequest(_reason(exc))
        else:
            refusal = AutostartError("autostart failed to handle this request")
            log.error("request failed", request_id=request_id(request), exc_info=exc)
        if isinstance(refusal, Refusal):
            _log_refusal(request, refusal)
        if request.writer.output_size > 0:
            self.reset()
            raise ConnectionResetError("an answer had begun")
        return _last_answer(request, refusal)

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        try:
            # A relayed answer has left already.
            limit_seconds = None if resp.prepared else self._server.send_timeout_seconds
            async with asyncio.timeout(limit_seconds):
                resp, is_lost = await super().finish_response(request, resp, start_time)
        except TimeoutError:
            self.reset()
            return resp, True
        leaves_unread = isinstance(resp, Answer) and resp.leaves_unread
        if not is_lost and (leaves_unread or not request.content.is_eof()):
            await self._linger()
        return resp, is_lost

    async def _linger(self) -> None:
        """Say that we are done, and discard what still comes, so that our answer is read.

        Closing at once would make the kernel answer the rest of an upload with a reset, which may
        overtake the answer. Cancelled when the client closes its side.
        """
        transport = self.transport
        if transport is None or transport.is_closing() or self._payload_parser is not None:
            return
        self._is_lingering = self._heard = True
        transport.write_eof()
        transport.resume_reading()
        deadline = self._loop.time() + LINGER_SECONDS
        while self._heard and self._loop.time() < deadline:
            self._heard = False
            await asyncio.sleep(LINGER_SILENCE_SECONDS)

    def log_exception(self, *args: object, **kw: object) -> None:
        """Once, as fields; what the client gets is decided elsewhere."""
        log.error("connection failed", reason=str(args[0]), exc_info=kw.get("exc_info"))

    @property
    def _client(self) -> str:
        return _name(self.peername)


def _last_answer(request: web.BaseRequest, refusal: AutostartError) -> Answer:
    """The end of a connection on which nobody can say where the next request begins."""
    answer = error_response(refusal, request=request, request_id=request_id(request))
    answer.force_close()
    answer.leaves_unread = True
    return answer


def _log_refusal(request: web.BaseRequest, refusal: AutostartError) -> None:
    log.info(
        "bad request",
        client=_name(request.protocol.peername),
        code=refusal.code,
        reason=refusal.message,
        request_id=request_id(request),
    )


def _name(peername: object) -> str:
    return str(peername[0]) if isinstance(peername, tuple) else "unix"


def _reason(error: HttpProcessingError) -> str:
    """What the parser found, without the bytes it quotes: they may hold a secret."""
    if isinstance(error, LineTooLong):
        return f"a line of the request's head is longer than {HEADER_LINE_BYTES_MAX} bytes"
    named = _NAMED_HEADER.match(error.message)
    if named is not None:
        return f"the request is not valid HTTP: {named[0].lower()}"
    words = _QUOTE.split(error.message.removeprefix("Bad status line:\n"), maxsplit=1)[0].strip()
    return f"the request is not valid HTTP: {words[:80].lower() or 'bad request line'}"
