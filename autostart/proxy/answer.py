"""What a client gets: bytes written as given, framed for its version of HTTP.

`Answer` stands where aiohttp expects a StreamResponse, but adds no header of aiohttp's (Server,
Date, Content-Type), keeps the order, case and number of the lines it is given, and writes its head
together with the first bytes of its body. Relayed answers and our own are both Answers.
"""

from __future__ import annotations

import html
import json
import math
import re
from collections.abc import Iterable
from email.utils import formatdate
from http import HTTPStatus

from aiohttp import HttpVersion11, web

from autostart.errors import AutostartError
from autostart.proxy.connection import reset
from autostart.proxy.framing import is_chunked
from autostart.proxy.headers import RawHeader, raw

LAST_CHUNK = b"0\r\n\r\n"

_BODILESS = frozenset({101, 204, 304})
_NO_LINE_BREAK = re.compile(rb"[^\r\n\0]*")
_SUCCESS_MAX = 399
_CLIENT_ERROR_MAX = 499


def chunk(data: bytes) -> bytes:
    """`data`, not empty, framed as one chunk."""
    return b"%x\r\n%b\r\n" % (len(data), data)


class Answer(web.StreamResponse):
    """One answer, relayed or ours. `length` is None where nobody knows it beforehand."""

    def __init__(
        self,
        status: int,
        headers: Iterable[RawHeader],
        *,
        reason: bytes | None = None,
        length: int | None = None,
        has_body: bool = True,
        body: bytes = b"",
        upgrade: bool = False,
    ) -> None:
        super().__init__(status=status, reason="")
        self.raw_headers = list(headers)
        self.sent_bytes = 0
        """Of the body, without framing."""
        self.leaves_unread = False
        """Whether bytes may follow its request that nobody will parse; then close slowly."""
        self.cut: AutostartError | None = None
        """Why the client's connection was reset in the middle of it; None if it was not."""
        self._raw_reason = _phrase(status) if reason is None else reason
        self._known_length = length
        self._may_have_body = has_body and status not in _BODILESS
        self._own_body = body
        self._upgrade = upgrade
        self._client: web.BaseRequest | None = None
        self._unsent_head = b""
        self._is_chunked = False

    @property
    def started(self) -> bool:
        """Its head has left: no other answer can be given any more."""
        return self._client is not None and not self._unsent_head

    @property
    def is_complete(self) -> bool:
        """All of it has left."""
        return self._eof_sent and self.cut is None

    @property
    def prepared(self) -> bool:
        """aiohttp's name for: too late to change the head."""
        return self._client is not None

    async def prepare(self, request: web.BaseRequest) -> None:
        """Choose the framing; nothing is written yet."""
        if self._client is not None:
            return
        self._client = request
        is_unframed = self._may_have_body and self._known_length is None
        self._is_chunked = is_unframed and request.version >= HttpVersion11
        if self._keep_alive is None:
            # A body that has not arrived leaves the connection out of step. And aiohttp 3.14's C
            # parser adds the last trailer of a chunked body to the headers of the next request.
            # An Upgrade makes that parser swallow what follows.
            in_step = request.content.is_eof() and not is_chunked(request)
            in_step = in_step and "Upgrade" not in request.headers
            # Of ClientConnection: who keeps a connection that we close loses what he sends next.
            is_last = getattr(request.protocol, "is_ending", False)
            self._keep_alive = request.keep_alive and in_step and not is_last
        if self._upgrade or (is_unframed and not self._is_chunked):
            self._keep_alive = False
        self._unsent_head = self._render_head(request)

    def _render_head(self, request: web.BaseRequest) -> bytes:
        lines = [b"HTTP/1.1 %d %b" % (self.status, self._raw_reason)]
        for name, content in self.raw_headers:
            lines.append(b"%b: %b" % (name, content))
            if _NO_LINE_BREAK.fullmatch(content) is None:
                raise AssertionError(f"a line break in header {name!r}")
        if self._is_chunked:
            lines.append(b"Transfer-Encoding: chunked")
        if self._upgrade:
            lines += [b"Upgrade: websocket", b"Connection: Upgrade"]
        elif not self._keep_alive:
            lines.append(b"Connection: close")
        elif request.version < HttpVersion11:
            lines.append(b"Connection: keep-alive")
        return b"\r\n".join(lines) + b"\r\n\r\n"

    async def write(self, data: bytes | bytearray | memoryview) -> None:
        """Send the head if it has not left, and `data`; wait while the client is slow.

        Raises ConnectionResetError if the client has left.
        """
        self._send(bytes(data), is_last=False)
        await self._drain()

    async def write_eof(self, data: bytes = b"") -> None:
        """Send what is missing and wait until the kernel has all of it; once."""
        if self._eof_sent or self.cut is not None:
            return
        if self._may_have_body and not self.sent_bytes:
            data = data or self._own_body
        self._send(data, is_last=True)
        self._eof_sent = True
        await self._flush()

    def _send(self, data: bytes, *, is_last: bool) -> None:
        client = self._client
        assert client is not None, "prepare comes before write"
        transport = client.transport
        if transport is None or transport.is_closing():
            raise ConnectionResetError("the client left")
        self.sent_bytes += len(data)
        if self._is_chunked:
            data = chunk(data) if data else b""
            if is_last:
                data += LAST_CHUNK
        if self._unsent_head:
            data, self._unsent_head = self._unsent_head + data, b""
        # aiohttp asks the writer whether anything has left.
        client.writer.output_size += len(data)
        if data:
            transport.write(data)

    async def _drain(self) -> None:
        assert self._client is not None
        await self._client.writer.drain()

    async def _flush(self) -> None:
        """Wait until nothing is left in user space, so that the end of a lease is the end."""
        assert self._client is not None
        transport = self._client.transport
        if transport is None or not transport.get_write_buffer_size():
            return
        transport.set_write_buffer_limits(high=0)
        try:
            await self._drain()
        finally:
            transport.set_write_buffer_limits()

    def abort(self, why: AutostartError) -> None:
        """Reset the client's connection: a cut answer must not look like a complete one."""
        self.cut = why
        self._keep_alive = False
        if self._client is not None:
            reset_client(self._client)


def reset_client(request: web.BaseRequest) -> None:
    """Close the client's connection with a reset and let aiohttp end its handler."""
    if request.transport is not None:
        reset(request.transport)
    request.protocol.force_close()


def own_answer(
    request: web.BaseRequest,
    status: int,
    body: bytes,
    content_type: str,
    *,
    headers: Iterable[tuple[str, str]] = (),
    cache: str = "no-store",
) -> Answer:
    """An answer of ours: complete, cached as `cache` says, without body for HEAD."""
    lines = [
        (b"Date", formatdate(usegmt=True).encode()),
        (b"Cache-Control", cache.encode()),
        *raw(headers),
    ]
    has_body = status not in _BODILESS
    if has_body:
        lines.append((b"Content-Type", content_type.encode()))
        lines.append((b"Content-Length", b"%d" % len(body)))
    has_body = has_body and request.method != "HEAD"
    return Answer(status, lines, length=len(body), has_body=has_body, body=body)


def own_stream(
    request: web.BaseRequest, content_type: str, *, headers: Iterable[tuple[str, str]] = ()
) -> Answer:
    """An answer of ours without known length: what is written to it leaves at once."""
    lines = [
        (b"Date", formatdate(usegmt=True).encode()),
        (b"Cache-Control", b"no-store"),
        (b"X-Accel-Buffering", b"no"),  # nginx would keep it back; see its proxy_buffering
        *raw(headers),
        (b"Content-Type", content_type.encode()),
    ]
    return Answer(HTTPStatus.OK, lines, has_body=request.method != "HEAD")


def error_response(
    refusal: AutostartError,
    *,
    request: web.BaseRequest,
    request_id: str,
    headers: Iterable[tuple[str, str]] = (),
    page: bytes | None = None,
) -> Answer:
    """Our answer in place of the service's, as JSON that OpenAI clients show or as short HTML.

    Or as `page`, which is HTML.
    """
    ours = [("Autostart-Error", refusal.code), ("X-Request-ID", request_id)]
    if refusal.retry_after_seconds is not None:
        ours.append(("Retry-After", str(max(1, math.ceil(refusal.retry_after_seconds)))))
    if page is not None:
        body, content_type = page, "text/html; charset=utf-8"
    elif prefers_html(request.headers.get("Accept", "")):
        body, content_type = _html(refusal), "text/html; charset=utf-8"
    else:
        body, content_type = _json(refusal), "application/json"
    return own_answer(request, refusal.status, body, content_type, headers=[*ours, *headers])


def _json(refusal: AutostartError) -> bytes:
    if refusal.status <= _SUCCESS_MAX:
        return json.dumps({"detail": refusal.message}).encode()
    kind = "invalid_request_error" if refusal.status <= _CLIENT_ERROR_MAX else "server_error"
    error = {"message": refusal.message, "type": kind, "code": refusal.code, "param": None}
    return json.dumps({"error": error, "detail": refusal.message}).encode()


def _html(refusal: AutostartError) -> bytes:
    title = f"{refusal.status} {_phrase(refusal.status).decode()}"
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title>'
        f"<h1>{title}</h1><p>{html.escape(refusal.message)}</p></html>\n"
    ).encode()


def prefers_html(accept: str) -> bool:
    """Whether an Accept header likes text/html more than JSON, as browsers do and curl does not."""
    quality = {"text/html": 0.0, "application/json": 0.0}
    for element in accept.split(","):
        kind, *parameters = (part.strip().lower() for part in element.split(";"))
        weight = _weight(parameters)
        for name, known in quality.items():
            if kind in (name, "*/*", name.partition("/")[0] + "/*"):
                quality[name] = max(known, weight)
    # "*/*" counts for both; a browser names text/html with a higher weight.
    return quality["text/html"] > quality["application/json"]


def _weight(parameters: list[str]) -> float:
    for parameter in parameters:
        if parameter.startswith("q="):
            try:
                return float(parameter[2:])
            except ValueError:
                return 0.0
    return 1.0


def _phrase(status: int) -> bytes:
    try:
        return HTTPStatus(status).phrase.encode()
    except ValueError:
        return b""


def send_continue(request: web.BaseRequest) -> None:
    """Ask a client that said `Expect: 100-continue` for its body, unless it is sending already."""
    if request.version < HttpVersion11 or request.content.total_bytes:
        return
    if request.headers.get("Expect", "").lower() != "100-continue":
        return
    if request.transport is not None and not request.transport.is_closing():
        request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
