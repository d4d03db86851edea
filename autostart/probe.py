"""Asks a run over HTTP: is it ready, is it busy, what is its OpenAPI document.

Only an HTTP answer proves anything: docker-proxy accepts connections seconds before the service
listens. One small request over a plain socket each time, never a pool: a probe must not find its
answer in an old connection. Knows no state and no runtime; who calls it sets the deadline.
"""

from __future__ import annotations

import asyncio
import json
import socket
import struct

import httptools

from autostart.config import ANY_ANSWER, CONTAINER_HEALTH, ServiceConfig
from autostart.errors import AutostartError
from autostart.lifecycle import Endpoint

REFUSED_SECONDS = 0.010  # between probes while nobody speaks HTTP: cheap, and the start is waiting
ANSWERED_SECONDS = 0.050  # between probes once somebody does: each costs a service that loads
PROBE_SECONDS_MAX = 2.0  # a probe that hangs is asked again on a new connection
BUSY_SECONDS_MAX = 2.0
BODY_BYTES_MAX = 64 * 1024
# Those of our own services have 30 kB.
DOCUMENT_BYTES_MAX = 5_000_000
DOCUMENT_SECONDS_MAX = 10.0
READ_BYTES = 16 * 1024

SUCCESS = range(200, 300)
OK = 200
# struct linger {on, 0 seconds}, socket(7): close with a reset.
RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class BusyUnknown(AutostartError):
    """The service did not say whether it is busy."""

    code = "busy-unknown"
    hint = 'the service\'s busy path must answer 200 {"busy": true} or {"busy": false} within 2 s'


class DocsUnreadable(AutostartError):
    """The service gave no OpenAPI document that can be shown."""

    code = "docs-unreadable"
    hint = "the service's docs path must answer 200 with an OpenAPI document in JSON, up to 5 MB"


async def wait_until_ready(
    endpoint: Endpoint, service: ServiceConfig, *, host: str | None = None
) -> None:
    """Return when the run at `endpoint` is ready; until then ask again, for as long as it takes.

    `host` is sent as Host header, the service's own by default. The caller sets the deadline by
    cancelling.
    """
    assert service.ready != CONTAINER_HEALTH, f"{service.host}: its engine knows, ask the runtime"
    path = "/" if service.ready == ANY_ANSWER else service.ready
    while True:
        try:
            async with asyncio.timeout(PROBE_SECONDS_MAX):
                status, _ = await _get(endpoint, path, host or _name(service))
        except OSError as error:
            # TimeoutError is an OSError: somebody holds the connection, and is not asked as often.
            silent = isinstance(error, TimeoutError)
            await asyncio.sleep(ANSWERED_SECONDS if silent else REFUSED_SECONDS)
            continue
        if service.ready == ANY_ANSWER or status in SUCCESS:
            return
        await asyncio.sleep(ANSWERED_SECONDS)


async def ask_busy(endpoint: Endpoint, service: ServiceConfig, *, host: str | None = None) -> bool:
    """Return what the service's busy path says. Raises BusyUnknown."""
    assert service.busy is not None, f"{service.host} has no busy path"
    try:
        async with asyncio.timeout(BUSY_SECONDS_MAX):
            status, body = await _get(
                endpoint, service.busy, host or _name(service), body_bytes_max=BODY_BYTES_MAX
            )
    except TimeoutError as error:
        raise BusyUnknown(f"{service.busy} was silent for {BUSY_SECONDS_MAX:.0f} s") from error
    except OSError as error:
        raise BusyUnknown(f"{service.busy} cannot be asked: {error}") from error
    return _parse_busy(service.busy, status, body)


async def read_document(endpoint: Endpoint, service: ServiceConfig, host: str) -> bytes:
    """Return what the service's docs path answers, whatever it is; raises DocsUnreadable."""
    assert service.docs is not None, f"{service.host} has no docs path"
    try:
        async with asyncio.timeout(DOCUMENT_SECONDS_MAX):
            status, body = await _get(
                endpoint, service.docs, host, body_bytes_max=DOCUMENT_BYTES_MAX
            )
    except TimeoutError as error:
        text = f"{service.docs} was not read within {DOCUMENT_SECONDS_MAX:.0f} s"
        raise DocsUnreadable(text) from error
    except OSError as error:
        raise DocsUnreadable(f"{service.docs} cannot be read: {error}") from error
    if status != OK:
        raise DocsUnreadable(f"{service.docs} answered {status}")
    return body


def _parse_busy(path: str, status: int, body: bytes) -> bool:
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):  # the latter of "[[[[…"
        answer = None
    if status not in SUCCESS or not isinstance(answer, dict):
        raise BusyUnknown(f"{path} answered {status} without a JSON object")
    busy = answer.get("busy")
    if not isinstance(busy, bool):
        raise BusyUnknown(f'{path} answered without "busy": true or false')
    return busy


def _name(service: ServiceConfig) -> str:
    """Return a host name of the service; of a wildcard, any name that it covers."""
    return f"[{service.host}]" if ":" in service.host else service.host.replace("*", "autostart")


class _Answer:
    """What httptools tells about one answer; interim ones (1xx) do not count."""

    def __init__(self, body_bytes_max: int | None) -> None:
        self.parser = httptools.HttpResponseParser(self)
        self.status: int | None = None
        self.body = bytearray()
        self.complete = False
        self._bytes_max = body_bytes_max
        self._is_too_large = False

    def feed(self, block: bytes) -> None:
        try:
            self.parser.feed_data(block)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            if self._is_too_large:
                raise ConnectionError(f"it has more than {self._bytes_max} bytes") from error
            raise ConnectionError(f"the answer is not valid: {error}") from error

    def on_headers_complete(self) -> None:
        status = self.parser.get_status_code()
        if status >= SUCCESS.start:
            self.status = status
            self.complete = self._bytes_max is None

    def on_body(self, body: bytes) -> None:
        if self._bytes_max is None:
            return
        self.body += body
        if len(self.body) > self._bytes_max:
            self._is_too_large = True
            raise ValueError(f"more than {self._bytes_max} bytes")

    def on_message_complete(self) -> None:
        self.complete = self.status is not None


async def _get(
    endpoint: Endpoint, path: str, host: str, *, body_bytes_max: int | None = None
) -> tuple[int, bytes]:
    """Return status and body of one GET, no body without a limit for it.

    Raises OSError where no valid answer comes.
    """
    loop = asyncio.get_running_loop()
    family = socket.AF_INET6 if ":" in endpoint.address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as connection:
        connection.setblocking(False)
        await loop.sock_connect(connection, (endpoint.address, endpoint.port))
        if _is_connected_to_itself(connection):
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
            raise ConnectionRefusedError("nobody listens")
        await loop.sock_sendall(connection, _request(path, host))
        answer = _Answer(body_bytes_max)
        while not answer.complete and (block := await loop.sock_recv(connection, READ_BYTES)):
            answer.feed(block)
    if answer.status is None:
        raise ConnectionResetError("closed without an answer")
    return answer.status, bytes(answer.body)


def _is_connected_to_itself(connection: socket.socket) -> bool:
    """Say whether nobody listens and the kernel gave us the very port that we asked for as our own.

    It hands out outgoing ports in turn, so a few thousand probes of one port in that range meet it.
    Let go at once, without the minute of TIME_WAIT: the service wants to bind it.
    """
    return bool(connection.getsockname() == connection.getpeername())


def _request(path: str, host: str) -> bytes:
    lines = (
        f"GET {path} HTTP/1.1",
        f"Host: {host}",
        "Accept: */*",
        "User-Agent: autostart",
        "Connection: close",
    )
    return ("\r\n".join(lines) + "\r\n\r\n").encode()
