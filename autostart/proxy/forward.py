"""Forwarding one request to a service that is ready, and its answer to the client.

Each request takes a fresh connection (see `connection`): none is sent twice, by construction.
Bytes stream both ways at once with back-pressure, in constant memory. `forward` returns only when
the last byte is the kernel's or the connections are closed, so that a lease can end with it.

What can go wrong, and what the client sees:

    nothing has left yet           the refusal is raised; the caller answers with it
    the head has left              the client's connection is reset, `Answer.cut` says why
    the client left                CancelledError or ConnectionError; the service is told by a reset
"""

from __future__ import annotations

import asyncio
import fcntl
import struct
import termios
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import structlog
from aiohttp import web

from autostart.config import ServiceConfig
from autostart.errors import BodyTooLarge, Refusal, RequestTimeout, ResponseTimeout, ServiceClosed
from autostart.lifecycle import Endpoint
from autostart.proxy import tunnel
from autostart.proxy.answer import LAST_CHUNK, Answer, chunk, send_continue
from autostart.proxy.connection import AnswerHead, ServiceConnection, connect
from autostart.proxy.framing import is_chunked, is_websocket
from autostart.proxy.headers import Forwarding, Peer, RawHeaders, raw, relayed_headers, request_head
from autostart.proxy.silence import SilenceClock

log = structlog.get_logger()

_NO_CONTENT = 204
_SWITCHING_PROTOCOLS = 101

# Nothing is known of when it will answer faster; openai's clients try again by themselves.
RETRY_AFTER_SILENCE_SECONDS = 5.0


Headers = Sequence[tuple[str, str]]


@dataclass(frozen=True)
class _Relay:
    """What the caller of `forward` adds to an exchange, and wants to know of it."""

    forwarding: Forwarding
    answer_headers: RawHeaders
    keep_cors: bool
    on_answer: Callable[[int], None] | None


async def forward(
    request: web.BaseRequest,
    endpoint: Endpoint,
    service: ServiceConfig,
    *,
    request_id: str,
    peer: Peer,
    service_headers: Headers = (),
    answer_headers: Headers = (),
    keep_cors: bool = True,
    on_answer: Callable[[int], None] | None = None,
) -> Answer:
    """Send `request` to the service at `endpoint` and its answer to the client.

    Args:
        peer: who sent it, and whether its X-Forwarded-* are believed.
        service_headers: appended to what the service gets.
        answer_headers: appended to what the client gets (Server-Timing, Autostart-Start, CORS).
        keep_cors: False drops the service's own Access-Control-*.
        on_answer: called with the status as soon as the service's final head is here.

    Raises ConnectFailed if nothing was sent (the caller may lease again), BodyTooLarge,
    RequestTimeout, ServiceClosed or ResponseTimeout while the client can still be answered.
    May be cancelled: the service's connection is then reset at once.
    """
    forwarding = Forwarding(peer, request_id, service.host, raw(service_headers))
    relay = _Relay(forwarding, raw(answer_headers), keep_cors, on_answer)
    connection = await connect(endpoint, is_head=request.method == "HEAD")
    exchange = Exchange(request, connection, service, relay)
    try:
        return await exchange.run()
    finally:
        await exchange.end()


class Exchange:
    """One request and its answer over one open connection to the service."""

    def __init__(
        self,
        request: web.BaseRequest,
        connection: ServiceConnection,
        service: ServiceConfig,
        relay: _Relay,
    ) -> None:
        self._request = request
        self._connection = connection
        self._service = service
        self._relay = relay
        self._answer: Answer | None = None
        self._upload: asyncio.Task[None] | None = None
        self._awaits_client = False
        self._uploaded = False
        self._unsent_bytes = 0
        self._clock = SilenceClock(
            asyncio.get_running_loop(), service.response_timeout_seconds, self._silent
        )
        connection.on_moved = self._clock.moved

    async def run(self) -> Answer:
        """Carry the exchange to its end; see `forward`."""
        try:
            self._send_request()
            head = await self._connection.answer()
            if self._relay.on_answer is not None:
                self._relay.on_answer(head.status)
            if head.status == _SWITCHING_PROTOCOLS:
                return await self._tunnel(head)
            return await self._relay_answer(head)
        except Refusal as refusal:
            answer = self._answer
            if answer is None or not answer.started:
                raise
            self._cut(answer, refusal)
            return answer

    async def end(self) -> None:
        """Leave nothing behind, whatever happened.

        All of it before the first await: a client that leaves now cancels this as well.
        """
        self._clock.stop()
        answer = self._answer
        if answer is not None and answer.is_complete and self._uploaded:
            self._connection.close()
        else:
            self._connection.reset()
        if self._upload is not None and not self._upload.done():
            self._upload.cancel()
            await asyncio.wait([self._upload])

    # Up.

    def _send_request(self) -> None:
        request = self._request
        head = request_head(
            request.method,
            request.raw_path,
            request.raw_headers,
            self._relay.forwarding,
            upgrade=is_websocket(request),
        )
        if request.content.is_eof():
            self._send_with_body(head, request.content.read_nowait())
            return
        send_continue(request)
        self._connection.write(head)
        self._upload = asyncio.create_task(  # noqa: TID251  # ends with the exchange, see end()
            self._send_body(), name=f"upload {self._relay.forwarding.request_id}"
        )

    def _send_with_body(self, head: bytes, body: bytes) -> None:
        """One write for a request that has arrived in full."""
        if len(body) > self._service.max_body_bytes:
            raise self._too_large()
        if is_chunked(self._request):
            body = (chunk(body) if body else b"") + LAST_CHUNK
        self._connection.write(head + body)
        self._uploaded = True

    async def _send_body(self) -> None:
        """Pass the body on as it arrives; a refusal goes to whoever waits for the answer."""
        connection, is_framed = self._connection, is_chunked(self._request)
        sent_bytes = 0
        try:
            while piece := await self._next_piece():
                sent_bytes += len(piece)
                if sent_bytes > self._service.max_body_bytes:
                    raise self._too_large()
                connection.write(chunk(piece) if is_framed else piece)
                self._clock.moved()
                await connection.drain()
            if is_framed:
                connection.write(LAST_CHUNK)
            self._uploaded = True
        except Refusal as refusal:
            connection.fail(refusal)
        except ConnectionError as error:
            # The client left. Its handler is being cancelled as well; whichever comes first.
            connection.fail(error)

    async def _next_piece(self) -> bytes:
        """What the client sent since; RequestTimeout if it is silent and was not answered yet.

        Once the answer has begun, a client may hold its request open while it listens: then only
        silence in both directions ends the exchange.
        """
        limit_seconds = self._service.request_timeout_seconds
        while True:
            self._awaits_client = True
            try:
                async with asyncio.timeout(limit_seconds):
                    return await self._request.content.readany()
            except TimeoutError:
                if self._connection.head is None:
                    raise RequestTimeout(
                        f"no byte of the request's body came for {limit_seconds:g} s"
                    ) from None
            finally:
                self._awaits_client = False

    def _too_large(self) -> BodyTooLarge:
        limit_bytes = self._service.max_body_bytes
        return BodyTooLarge(f"the body is larger than max_body ({limit_bytes} bytes)")

    # Down.

    async def _relay_answer(self, head: AnswerHead) -> Answer:
        inbox = self._connection.inbox
        answer = self._make_answer(head)
        await answer.prepare(self._request)
        while not inbox.is_complete:
            # Also with nothing yet: the head must not wait for the first event of a stream.
            await answer.write(inbox.take())
            self._clock.moved()
            await inbox.wait()
        await answer.write_eof(inbox.take())
        return answer

    def _make_answer(self, head: AnswerHead, *, upgrade: bool = False) -> Answer:
        relay = self._relay
        headers = relayed_headers(head.headers, keep_cors=relay.keep_cors)
        if head.status == _NO_CONTENT:
            headers = [pair for pair in headers if pair[0].lower() != b"content-length"]
        headers.append((b"X-Request-ID", relay.forwarding.request_id.encode()))
        headers += relay.answer_headers
        self._answer = Answer(
            head.status,
            headers,
            reason=head.reason,
            length=head.length,
            has_body=head.has_body,
            upgrade=upgrade,
        )
        return self._answer

    async def _tunnel(self, head: AnswerHead) -> Answer:
        if not (self._connection.is_tunnel and is_websocket(self._request)):
            raise ServiceClosed("the service switched protocols without being asked")
        answer = self._make_answer(head, upgrade=True)
        await answer.prepare(self._request)
        self._clock.stop()  # A silent WebSocket lasts for ever.
        await answer.write_eof()
        await tunnel.relay(self._request, self._connection)
        return answer

    def _cut(self, answer: Answer, why: Refusal) -> None:
        """Reset the client, once: what it got must not look like a whole answer."""
        if answer.cut is not None:
            return
        log.warning(
            "answer cut",
            service=self._service.host,
            code=why.code,
            reason=why.message,
            sent_bytes=answer.sent_bytes,
            request_id=self._relay.forwarding.request_id,
        )
        answer.abort(why)

    # Silence.

    def _silent(self) -> None:
        """Nothing was received for response_timeout: end the exchange, unless bytes still leave.

        A slow reader takes what lies in our buffers and the kernel's without any new byte passing
        here; while there is less of it than at the last look, it is slow, not gone.
        """
        if self._awaits_client and self._connection.head is None:
            return  # request_timeout judges a client that is expected to send.
        unsent_bytes = _unsent(self._request.transport) + _unsent(self._connection.transport)
        is_leaving = unsent_bytes > 0 and unsent_bytes != self._unsent_bytes
        self._unsent_bytes = unsent_bytes
        if is_leaving:
            return
        limit_seconds = self._service.response_timeout_seconds
        refusal = ResponseTimeout(
            f"no byte passed for response_timeout ({limit_seconds:g} s)",
            retry_after_seconds=RETRY_AFTER_SILENCE_SECONDS,
        )
        self._connection.fail(refusal)
        if self._answer is not None and self._answer.started:
            # Also wakes a write that waits for a client who stopped reading.
            self._cut(self._answer, refusal)


def _unsent(transport: asyncio.Transport | None) -> int:
    """Bytes that the peer has not acknowledged, in our buffer and in the kernel's."""
    if transport is None or transport.is_closing():
        return 0
    sock = transport.get_extra_info("socket")
    in_kernel = fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, b"\0\0\0\0")  # SIOCOUTQ, tcp(7)
    return transport.get_write_buffer_size() + int(struct.unpack("i", in_kernel)[0])
