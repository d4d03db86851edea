"""A client, the proxy and a service of raw sockets in one loop, for tests of bytes.

The service does what a test's script says and records what it was sent. Whatever asyncio reports to
its exception handler fails the test.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
import uvloop
from aiohttp import web

from autostart import proxy
from autostart.config import ServiceConfig
from autostart.lifecycle import Endpoint

PATIENCE_SECONDS = 20.0
"""How long a test waits for what must come."""

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def on_both_loops(scenario: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run an async test on asyncio's own loop and on uvloop."""

    def test(run: Callable[[Coroutine[Any, Any, None]], None], **values: object) -> None:
        run(asyncio.wait_for(scenario(**values), PATIENCE_SECONDS * 3))

    signature = inspect.signature(scenario)
    run = inspect.Parameter("run", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    test.__name__ = scenario.__name__
    test.__doc__ = scenario.__doc__
    test.__module__ = scenario.__module__
    test.__signature__ = signature.replace(parameters=[run, *signature.parameters.values()])
    test.pytestmark = getattr(scenario, "pytestmark", [])
    loops = pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
    return loops(test)


class _Recording(asyncio.StreamReader):
    def __init__(self) -> None:
        super().__init__(limit=2**22)
        self.record = bytearray()

    def feed_data(self, data: bytes) -> None:
        self.record += data
        super().feed_data(data)


class Side:
    """One end of a connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        async with asyncio.timeout(PATIENCE_SECONDS):
            await self.writer.drain()

    async def exactly(self, count: int) -> bytes:
        async with asyncio.timeout(PATIENCE_SECONDS):
            return await self.reader.readexactly(count)

    async def until(self, separator: bytes) -> bytes:
        async with asyncio.timeout(PATIENCE_SECONDS):
            return await self.reader.readuntil(separator)

    async def end(self) -> tuple[bytes, str]:
        """All that still comes, and how it ends: "end" or "reset"."""
        received = b""
        async with asyncio.timeout(PATIENCE_SECONDS):
            try:
                while data := await self.reader.read(2**18):
                    received += data
            except ConnectionError:
                return received, "reset"
        return received, "end"

    def finish(self) -> None:
        self.writer.write_eof()

    async def close(self) -> None:
        self.writer.close()
        with contextlib.suppress(ConnectionError):
            await self.writer.wait_closed()

    def reset(self) -> None:
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


class Visit(Side):
    """One connection to the service."""

    @property
    def received(self) -> bytes:
        return bytes(self.reader.record)

    async def head(self) -> bytes:
        return await self.until(b"\r\n\r\n")


class Client(Side):
    """One connection to the proxy."""

    async def answer(self, *, to: str = "GET") -> tuple[bytes, bytes]:
        """The head of the next answer, and its body by the head's framing."""
        head = await self.until(b"\r\n\r\n")
        lower = head.lower()
        if to == "HEAD" or head[9:12] in (b"204", b"304", b"101", b"100"):
            return head, b""
        if b"\r\ntransfer-encoding: chunked\r\n" in lower:
            return head, await self.chunks()
        if b"\r\ncontent-length: " in lower:
            length = lower.split(b"\r\ncontent-length: ", 1)[1].split(b"\r\n", 1)[0]
            return head, await self.exactly(int(length))
        body, how = await self.end()
        assert how == "end", how
        return head, body

    async def chunk(self) -> bytes:
        size = int(await self.until(b"\r\n"), 16)
        data = await self.exactly(size)
        assert await self.exactly(2) == b"\r\n"
        return data

    async def chunks(self) -> bytes:
        body = b""
        while data := await self.chunk():
            body += data
        return body


Script = Callable[[Visit], Awaitable[None]]


class Proxied:
    """What a test sees of the proxy and the service behind it."""

    def __init__(self) -> None:
        self.visits: list[Visit] = []
        self.outcomes: list[proxy.Answer | BaseException] = []
        self.answered: list[int] = []
        self.problems: list[object] = []
        self.server: proxy.ProxyServer | None = None
        self.port = 0
        self.endpoint_port = 0
        self.unix_path: Path | None = None
        self.clients: list[Client] = []
        self._change = asyncio.Event()

    async def client(self) -> Client:
        if self.unix_path is not None:
            streams = await asyncio.open_unix_connection(self.unix_path, limit=2**22)
        else:
            streams = await asyncio.open_connection("127.0.0.1", self.port, limit=2**22)
        client = Client(*streams)
        self.clients.append(client)
        return client

    async def ask(self, request: bytes, *, to: str = "GET") -> tuple[bytes, bytes]:
        """Send one request on a connection of its own; its answer."""
        client = await self.client()
        await client.send(request)
        answer = await client.answer(to=to)
        await client.close()
        return answer

    async def outcome(self, index: int = -1) -> proxy.Answer | BaseException:
        """What forwarding gave, once it is over."""
        await self.until(lambda: len(self.outcomes) >= (index + 1 if index >= 0 else 1))
        return self.outcomes[index]

    async def visit(self, index: int = 0) -> Visit:
        """The service's end of a connection, once it is made."""
        await self.until(lambda: len(self.visits) > index)
        return self.visits[index]

    async def until(self, holds: Callable[[], bool]) -> None:
        """Wait until `holds`; looked at whenever a visit begins or ends, or forwarding ends."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not holds():
                self._change.clear()
                await self._change.wait()

    def changed(self) -> None:
        self._change.set()


@contextlib.asynccontextmanager
async def proxied(
    script: Script,
    *,
    trusted_proxies: tuple[Any, ...] = (),
    unix_path: Path | None = None,
    head_timeout_seconds: float = 60.0,
    service_headers: tuple[tuple[str, str], ...] = (),
    answer_headers: tuple[tuple[str, str], ...] = (),
    keep_cors: bool = True,
    **limits: Any,
) -> AsyncIterator[Proxied]:
    """Run `script` for each connection to a service behind the proxy."""
    loop = asyncio.get_running_loop()
    here = Proxied()
    loop.set_exception_handler(lambda _, context: here.problems.append(context))
    service = ServiceConfig(host="service.test", **limits)

    async def visited(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        visit = Visit(reader, writer)
        here.visits.append(visit)
        here.changed()
        # A service that finds its client gone ends; what matters is what the test asserts.
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            await script(visit)
        await visit.close()
        here.changed()

    def accept() -> asyncio.StreamReaderProtocol:
        return asyncio.StreamReaderProtocol(_Recording(), visited)

    listener = await loop.create_server(accept, "127.0.0.1", 0)
    here.endpoint_port = listener.sockets[0].getsockname()[1]

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        try:
            answer = await proxy.forward(
                request,
                Endpoint("127.0.0.1", here.endpoint_port, "run-1"),
                service,
                request_id=proxy.request_id(request),
                peer=proxy.peer(request.protocol.peername, trusted_proxies),
                service_headers=service_headers,
                answer_headers=answer_headers,
                keep_cors=keep_cors,
                on_answer=here.answered.append,
            )
        except BaseException as error:
            here.outcomes.append(error)
            raise
        else:
            here.outcomes.append(answer)
            return answer
        finally:
            here.changed()

    here.server = proxy.ProxyServer(handle, head_timeout_seconds=head_timeout_seconds)
    if unix_path is not None:
        here.unix_path = unix_path
        gate = await loop.create_unix_server(here.server, unix_path)
    else:
        gate = await loop.create_server(here.server, "127.0.0.1", 0)
        here.port = gate.sockets[0].getsockname()[1]
    try:
        yield here
    finally:
        gate.close()
        listener.close()
        for side in (*here.clients, *here.visits):
            side.writer.transport.abort()
        await here.server.drain(PATIENCE_SECONDS)
        await asyncio.sleep(0)
    assert not here.problems, here.problems
