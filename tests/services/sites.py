"""HTTP servers that answer by a script, on addresses of this machine, and names for them.

127.0.0.2 is as good as 127.0.0.1 on Linux. So where a test says which address is public, one of
them stands for the Internet (OUTSIDE), and the other for what must not be reached (INSIDE).
"""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from aiohttp.abc import AbstractResolver, ResolveResult

INSIDE = "127.0.0.1"
INSIDE_V6 = "::1"
OUTSIDE = "127.0.0.2"

Answer = bytes | Callable[[asyncio.StreamWriter], Awaitable[None]]


def is_outside(address: str) -> bool:
    """Stand for `is_public`."""
    return address == OUTSIDE


def response(body: bytes = b"", *, status: int = 200, **headers: str) -> bytes:
    """Write a response with its true length, unless the headers say another."""
    fields = {"Content-Length": str(len(body)), "Connection": "close"}
    fields |= {name.replace("_", "-"): value for name, value in headers.items()}
    lines = [f"HTTP/1.1 {status} Reason", *(f"{name}: {value}" for name, value in fields.items())]
    return "\r\n".join([*lines, "", ""]).encode() + body


def unmeasured(body: bytes = b"", **headers: str) -> bytes:
    """Write a response without its length: it lasts until the connection ends."""
    return response(body, **headers).replace(b"Content-Length: %d\r\n" % len(body), b"")


def redirect(target: str, status: int = 302) -> bytes:
    return response(status=status, Location=target)


@dataclass
class Site:
    """A server: its answers by path, and what it saw."""

    port: int
    answers: dict[str, Answer]
    connections: int = 0
    requests: list[str] = field(default_factory=list)  # their heads
    left: asyncio.Event = field(default_factory=asyncio.Event)  # a client closed its connection

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one request; what `hold` is true of waits until the client leaves."""
        self.connections += 1
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            self.requests.append(head)
            answer = self.answers[head.split()[1]]
            if callable(answer):
                await answer(writer)
                await reader.read()
                self.left.set()
            else:
                writer.write(answer)
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            self.left.set()
        finally:
            writer.close()

    async def settle(self) -> int:
        """Give the connections that it has seen, once none is on its way any more.

        Connections are accepted in order: when the last one was served, all others were seen.
        """
        self.answers["/settle"] = response(b"settled")
        reader, writer = await asyncio.open_connection(INSIDE, self.port)
        writer.write(b"GET /settle HTTP/1.1\r\n\r\n")
        await reader.read()
        writer.close()
        return self.connections - 1


@asynccontextmanager
async def run_site(
    answers: dict[str, Answer] | None = None, *, host: str | Sequence[str] = INSIDE, port: int = 0
) -> AsyncIterator[Site]:
    """Run a site until the block ends; of several hosts, on the same port of each."""
    site = Site(port, answers if answers is not None else {})
    hosts = [host] if isinstance(host, str) else list(host)
    servers = []
    for each in hosts:
        server = await asyncio.start_server(site.serve, each, site.port)
        site.port = server.sockets[0].getsockname()[1]
        servers.append(server)
    try:
        yield site
    finally:
        for server in servers:
            server.close()
            await server.wait_closed()


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind((INSIDE_V6, 0))
    except OSError:
        return False
    return True


class Names(AbstractResolver):
    """A name server: each name's answers, one after the other, the last one for ever."""

    def __init__(self, **answers: Sequence[Sequence[str]]) -> None:
        self.answers = {name: list(listed) for name, listed in answers.items()}
        self.asked: list[str] = []

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        self.asked.append(host)
        if host not in self.answers:
            raise socket.gaierror(socket.EAI_NONAME, "no such name")
        listed = self.answers[host]
        addresses = listed.pop(0) if len(listed) > 1 else listed[0]
        return [
            ResolveResult(
                hostname=host,
                host=address,
                port=port,
                family=socket.AF_INET6 if ":" in address else socket.AF_INET,
                proto=0,
                flags=socket.AI_NUMERICHOST,
            )
            for address in addresses
        ]

    async def close(self) -> None:
        """Hold nothing."""
