"""A WebSocket after its 101: bytes both ways, unread.

Text, binary, ping, pong, close codes and messages of any size pass because no frame is parsed. A
silent tunnel lasts; TCP keep-alive notices a peer that vanished.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable

from aiohttp import web

from autostart.proxy.connection import ServiceConnection
from autostart.proxy.inbox import Inbox

# A close handshake ends with both sides closing; a side that goes on alone is given this long.
HALF_CLOSED_SECONDS = 10.0

# nginx's proxy_socket_keepalive with Linux' intervals would notice after 2 h 11 min.
_KEEPALIVE_IDLE_SECONDS = 60
_KEEPALIVE_INTERVAL_SECONDS = 15
_KEEPALIVE_PROBES = 4


class ClientBytes:
    """What aiohttp takes for a parser once a connection is upgraded: it keeps the bytes."""

    def __init__(self, inbox: Inbox) -> None:
        self._inbox = inbox

    def feed_data(self, data: bytes) -> tuple[bool, bytes]:
        if data:
            self._inbox.feed(data)
        return False, b""

    def feed_eof(self) -> None:
        self._inbox.end()


async def relay(request: web.BaseRequest, connection: ServiceConnection) -> None:
    """Carry bytes between the client and the service until both, or one for too long, are done.

    Raises ServiceClosed if the service's side broke. Cancelled when the client's side breaks.
    """
    client = request.transport
    if client is None:
        raise ConnectionResetError("the client left")
    inbox = Inbox()
    inbox.connect(client)
    for transport in (client, connection.transport):
        if transport is not None:
            _keep_alive(transport)
    request.protocol.set_parser(ClientBytes(inbox))  # type: ignore[arg-type]  # aiohttp names its only user

    async def to_client(data: bytes) -> None:
        if client.is_closing():
            raise ConnectionResetError("the client left")
        client.write(data)
        await request.writer.drain()

    async def to_service(data: bytes) -> None:
        connection.write(data)
        await connection.drain()

    def finish_client() -> None:
        if not client.is_closing():
            client.write_eof()

    pumps = [
        asyncio.create_task(pump, name=name)  # noqa: TID251  # both end with this function
        for name, pump in (
            ("tunnel up", _pump(inbox, to_service, connection.write_eof)),
            ("tunnel down", _pump(connection.inbox, to_client, finish_client)),
        )
    ]
    try:
        done, alone = await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        if alone and not any(pump.exception() for pump in done):
            await asyncio.wait(alone, timeout=HALF_CLOSED_SECONDS)
    finally:
        for pump in pumps:
            pump.cancel()
        await asyncio.wait(pumps)
    failures = [failure for pump in pumps if not pump.cancelled() and (failure := pump.exception())]
    if failures:
        raise failures[0]
    connection.close()


async def _pump(
    source: Inbox, write: Callable[[bytes], Awaitable[None]], finish: Callable[[], None]
) -> None:
    while data := await source.read():
        await write(data)
    finish()


def _keep_alive(transport: asyncio.Transport) -> None:
    sock = transport.get_extra_info("socket")
    if sock is None or sock.family not in (socket.AF_INET, socket.AF_INET6):
        return
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if hasattr(socket, "TCP_KEEPIDLE"):  # not on macOS
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _KEEPALIVE_IDLE_SECONDS)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, _KEEPALIVE_INTERVAL_SECONDS)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, _KEEPALIVE_PROBES)
