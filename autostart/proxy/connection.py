"""One fresh connection to a service: one request up, one answer down, then it is closed.

There is no pool. A connection that is used once cannot die between two requests, so there is no
request that somebody could be tempted to send again; aiohttp's client, which silently re-sends
GET, HEAD, OPTIONS, PUT and DELETE when a reused connection dies, is not used. The price is one
connect on loopback (about 0.1 ms).

The answer is parsed by httptools (llhttp), strictly: its head is given out as received, its body
without framing. Knows no client.
"""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import cast

import httptools

from autostart.errors import ConnectFailed, ServiceClosed
from autostart.lifecycle import Endpoint
from autostart.proxy.headers import RawHeader, value
from autostart.proxy.inbox import Inbox

# A connect on loopback takes microseconds; a full backlog is tried again by the kernel after 1 s
# and 3 s, so this allows for both.
CONNECT_SECONDS = 5.0

# Larger than any real head (nginx takes 8 KiB, Node 16 KiB); llhttp has no limit.
ANSWER_HEAD_BYTES_MAX = 1024 * 1024

_LAST_WORDS_BYTES = 64 * 1024

_SWITCHING_PROTOCOLS = 101
_FINAL_STATUS_MIN = 200
_BODILESS = frozenset({204, 304})


def _ignore() -> None:
    """Nobody keeps a clock yet."""


class Progress(Enum):
    """How far the answer is."""

    HEAD = auto()
    BODY = auto()
    COMPLETE = auto()
    TUNNEL = auto()


@dataclass(slots=True)
class AnswerHead:
    """The head of a service's final answer, as received."""

    status: int
    reason: bytes
    headers: list[RawHeader] = field(default_factory=list)
    has_body: bool = True
    """False after HEAD, for 204 and 304: no byte follows whatever the header lines say."""
    length: int | None = None
    """Bytes of the body if the service said so."""


class ServiceConnection(asyncio.Protocol):
    """An open connection to a service; see `connect`."""

    def __init__(self, endpoint: Endpoint, *, is_head: bool) -> None:
        self.inbox = Inbox()
        self.head: AnswerHead | None = None
        self.received_bytes = 0
        self.on_moved: Callable[[], None] = _ignore
        """Called at every piece that arrives."""
        self._endpoint = endpoint
        self._is_head = is_head
        self._progress = Progress.HEAD
        self._reason = b""
        self._headers: list[RawHeader] = []
        self._parser = httptools.HttpResponseParser(self)
        # We ask for "Connection: close" and stop at the end of the answer by ourselves.
        self._parser.set_dangerous_leniencies(lenient_data_after_close=True)
        self._transport: asyncio.Transport | None = None
        self._drained: asyncio.Future[None] | None = None
        self._paused = False
        self._ends_with_connection = False

    def __repr__(self) -> str:
        state = "open" if self.is_open else "closed"
        return f"<ServiceConnection {self._endpoint.run} {self._progress.name} {state}>"

    # What forwarding asks of it.

    @property
    def is_open(self) -> bool:
        return self._transport is not None and not self._transport.is_closing()

    @property
    def transport(self) -> asyncio.Transport | None:
        """None once the connection is lost."""
        return self._transport

    async def answer(self) -> AnswerHead:
        """The head of the final answer; interim answers (100, 103) are dropped.

        Raises whatever the connection failed with before: ServiceClosed, or what `fail` was given.
        """
        while self.head is None:
            if self.inbox.failure is not None:
                raise self.inbox.failure
            await self.inbox.changed()
        return self.head

    @property
    def is_tunnel(self) -> bool:
        """The service switched protocols: what the inbox holds now is not HTTP."""
        return self._progress is Progress.TUNNEL

    def write(self, data: bytes) -> None:
        """Send, unless the connection is closed: then its answer, or its failure, tells."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    async def drain(self) -> None:
        """Wait until the service has taken most of what was written, or is gone."""
        while self._paused and self.is_open:
            self._drained = asyncio.get_running_loop().create_future()
            await self._drained

    def write_eof(self) -> None:
        """Say that nothing more will be sent; the service may still speak."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write_eof()

    def fail(self, failure: Exception) -> None:
        """Give the exchange up: readers get `failure`, the service gets a reset."""
        self.inbox.fail(failure)
        self.reset()

    def close(self) -> None:
        """End it in good order, after a complete answer."""
        if self._transport is not None:
            self._transport.close()

    def reset(self) -> None:
        """End it so that the service notices, even one that takes a FIN for a half-close."""
        if self._transport is not None:
            reset(self._transport)

    # What the transport calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self.inbox.connect(self._transport)

    def data_received(self, data: bytes) -> None:
        self.received_bytes += len(data)
        self.on_moved()
        if self._progress is Progress.TUNNEL:
            self.inbox.feed(data)
            return
        if self._progress is Progress.COMPLETE:
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._switch(data[upgrade.args[0] :])
        except httptools.HttpParserError as error:
            self._parser_refused(error)
        if self._progress is Progress.HEAD and self.received_bytes > ANSWER_HEAD_BYTES_MAX:
            self.fail(ServiceClosed("the head of the service's answer is larger than 1 MiB"))

    def eof_received(self) -> bool:
        if self._progress is Progress.TUNNEL:
            self.inbox.end()
            return True
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        transport, self._transport = self._transport, None
        if exc is not None and transport is not None:
            self._hear_last_words(transport)
        if self._progress is Progress.BODY and exc is None and self._ends_with_connection:
            self._progress = Progress.COMPLETE
        if self._progress is Progress.COMPLETE or (
            self._progress is Progress.TUNNEL and exc is None
        ):
            self.inbox.end()
        elif self._progress is Progress.HEAD:
            self.inbox.fail(ServiceClosed("the service closed the connection before it answered"))
        else:
            self.inbox.fail(ServiceClosed("the service died in the middle of its answer"))
        self.resume_writing()

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        if self._drained is not None and not self._drained.done():
            self._drained.set_result(None)

    # What the parser calls.

    def on_message_begin(self) -> None:
        self._reason = b""
        self._headers = []

    def on_status(self, reason: bytes) -> None:
        self._reason += reason

    def on_header(self, name: bytes, content: bytes) -> None:
        if self._progress is Progress.HEAD:  # else a trailer, which we do not announce
            self._headers.append((name, content.rstrip(b" \t")))

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if status < _FINAL_STATUS_MIN and status != _SWITCHING_PROTOCOLS:
            return
        coding = value(self._headers, b"transfer-encoding")
        if coding is not None and coding.lower() != b"chunked":
            # Relaying a body in a coding that we strip the name of would garble it.
            raise ValueError(f"transfer-encoding {coding!r}")
        length = value(self._headers, b"content-length")
        self._progress = Progress.BODY
        self._ends_with_connection = coding is None and length is None
        self.head = AnswerHead(
            status,
            self._reason,
            self._headers,
            has_body=not self._is_head and status not in _BODILESS,
            length=None if length is None else int(length),
        )
        if not self.head.has_body and status != _SWITCHING_PROTOCOLS:
            self._complete()
        else:
            self.inbox.wake()

    def on_body(self, body: bytes) -> None:
        if self._progress is Progress.BODY:
            self.inbox.feed(body)

    def on_message_complete(self) -> None:
        if self.head is not None and self.head.status != _SWITCHING_PROTOCOLS:
            self._complete()

    def _complete(self) -> None:
        self._progress = Progress.COMPLETE
        self.inbox.end()

    def _switch(self, rest: bytes) -> None:
        self._progress = Progress.TUNNEL
        if rest:
            self.inbox.feed(rest)

    def _parser_refused(self, error: httptools.HttpParserError) -> None:
        if self._progress is Progress.COMPLETE:
            return  # What follows a complete answer is nobody's.
        where = "the service's answer" if self.head is None else "the rest of the service's answer"
        failure = ServiceClosed(f"{where} is not valid HTTP")
        failure.__cause__ = error
        self.fail(failure)

    def _hear_last_words(self, transport: asyncio.Transport) -> None:
        """Read what the kernel still holds of a connection that broke while we were writing.

        A service that answers 413 in the middle of an upload and closes makes our next write fail,
        and asyncio then drops the connection without reading the answer that has already arrived.
        The descriptor is still open here, on asyncio and on uvloop.
        """
        sock = transport.get_extra_info("socket")
        while self._progress in (Progress.HEAD, Progress.BODY):
            try:
                data = os.read(sock.fileno(), _LAST_WORDS_BYTES)
            except OSError:
                return  # Nothing left, or the reset itself.
            if not data:
                return
            self.data_received(data)


def reset(transport: asyncio.Transport) -> None:
    """Close with a TCP reset: what is unsent is dropped, and the peer cannot take it for an end."""
    sock = transport.get_extra_info("socket")
    if sock is not None and not transport.is_closing():
        # On a unix socket this changes nothing: its peer sees an end.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()


async def connect(endpoint: Endpoint, *, is_head: bool) -> ServiceConnection:
    """Open a connection for one request; ConnectFailed if nobody took it (nothing was sent)."""
    loop = asyncio.get_running_loop()
    connection = ServiceConnection(endpoint, is_head=is_head)
    where = f"{endpoint.address}:{endpoint.port}"
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            transport, _ = await loop.create_connection(
                lambda: connection, endpoint.address, endpoint.port
            )
    except OSError as error:  # TimeoutError is one
        reason = error.strerror or str(error) or f"no answer within {CONNECT_SECONDS:g} s"
        raise ConnectFailed(f"no connection to the service at {where}: {reason}") from error
    if transport.get_extra_info("sockname") == transport.get_extra_info("peername"):
        # Where nobody listens on a port that the kernel also gives to clients (32768 to 60999), it
        # may give this very port to us, and TCP connects it to itself.
        connection.reset()
        raise ConnectFailed(f"no connection to the service at {where}: it would be with ourselves")
    return connection
