"""Asks a run over HTTP: is it ready, is it busy.

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
READ_BYTES = 16 * 1024

SUCCESS = range(200, 300)
# struct linger {on, 0 seconds}, socket(7): close with a reset.
RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class BusyUnknown(AutostartError):
    """The service did not say whether it is busy."""

    code = "busy-unknown"
    hint = 'the service\'s busy path must answer 200 {"busy": true} or {"busy": false} within 2 s'


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
                status, _ = await _get(endpoint, path, host or _name(service), with_body=False)
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
                endpoint, service.busy, host or _name(service), with_body=True
            )
    except TimeoutError as error:
        raise BusyUnknown(f"{service.busy} was silent for {BUSY_SECONDS_MAX:.0f} s") from error
    except OSError as error:
        raise BusyUnknown(f"{service.busy} cannot be asked: {error}") from error
    return _parse_busy(service.busy, status, body)


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

    def __init__(self, *, with_body: bool) -> None:
        self.parser = httptools.HttpResponseParser(self)
        self.status: int | None = None
        self.body = b""
        self.complete = False
        self._with_body = with_body

    def feed(self, block: bytes) -> None:
        try:
            self.parser.feed_data(block)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            raise ConnectionError(f"the answer is not valid: {error}") from error

    def on_headers_complete(self) -> None:
        status = self.parser.get_status_code()
        if status >= SUCCESS.start:
            self.status = status
            self.complete = not self._with_body

    def on_body(self, body: bytes) -> None:
        self.body += body if self._with_body else b""
        if len(self.body) > BODY_BYTES_MAX:
            raise ValueError(f"more than {BODY_BYTES_MAX} bytes")

    def on_message_complete(self) -> None:
        self.complete = self.status is not None


async def _get(endpoint: Endpoint, path: str, host: str, *, with_body: bool) -> tuple[int, bytes]:
    """Return status and body of one GET. Raises OSError where no valid answer comes."""
    loop = asyncio.get_running_loop()
    family = socket.AF_INET6 if ":" in endpoint.address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as connection:
        connection.setblocking(False)
        await loop.sock_connect(connection, (endpoint.address, endpoint.port))
        if _is_connected_to_itself(connection):
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
            raise ConnectionRefusedError("nobody listens")
        await loop.sock_sendall(connection, _request(path, host))
        answer = _Answer(with_body=with_body)
        while not answer.complete and (block := await loop.sock_recv(connection, READ_BYTES)):
            answer.feed(block)
    if answer.status is None:
        raise ConnectionResetError("closed without an answer")
    return answer.status, answer.body


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
