"""Clients who never stop asking, and note what became of every single request.

Raw, for a library would hide what counts here: it connects again, or sends again, in silence.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import NamedTuple

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]

# No answer of these tests takes longer: the drain, a start of autostart on a busy machine.
PATIENCE_SECONDS = 60.0


class Client(NamedTuple):
    """What one client asks for, again and again."""

    kind: str
    host: str
    path: str = "/"
    keeps: bool = False
    """Whether it uses its connection again."""
    pause_seconds: float = 0.0


@dataclass
class Crowd:
    """Clients of one address; `outcomes` counts what became of their requests.

    An outcome is "200", "503 shutting-down Retry-After: 5", "refused" (nobody took the connection),
    "lost" (it ended before its answer began) or "cut" (in the middle of it).
    """

    address: tuple[str, int] | str
    outcomes: Counter[tuple[str, str]] = field(default_factory=Counter)
    slowest_seconds: float = 0.0

    def count(self, outcome: str, kind: str | None = None) -> int:
        """Return how many requests ended so, of all kinds or of one."""
        return sum(
            number
            for (of_kind, ended), number in self.outcomes.items()
            if ended == outcome and kind in (None, of_kind)
        )

    def unexpected(self, *expected: str) -> dict[tuple[str, str], int]:
        """Return what happened beside 200 and these."""
        return {key: n for key, n in self.outcomes.items() if key[1] not in ("200", *expected)}

    @contextlib.asynccontextmanager
    async def asking(self, *clients: Client, each: int) -> AsyncIterator[None]:
        """Ask for the length of the block, so many of each."""
        ended = asyncio.Event()
        tasks = [
            asyncio.ensure_future(self._ask_on(ended, client))
            for client, _ in itertools.product(clients, range(each))
        ]
        try:
            yield
        finally:
            ended.set()
            await asyncio.wait_for(asyncio.gather(*tasks), PATIENCE_SECONDS)

    async def _ask_on(self, ended: asyncio.Event, client: Client) -> None:
        connection: Connection | None = None
        loop = asyncio.get_running_loop()
        while not ended.is_set():
            began = loop.time()
            try:
                connection = connection or await self._connect()
            except ConnectionRefusedError:
                self.outcomes[client.kind, "refused"] += 1
                await asyncio.sleep(0.01)
                continue
            outcome, stays = await asyncio.wait_for(
                exchange(connection, client.host, client.path, keeps=client.keeps),
                PATIENCE_SECONDS,
            )
            self.outcomes[client.kind, outcome] += 1
            self.slowest_seconds = max(self.slowest_seconds, loop.time() - began)
            if not stays:
                await close(connection)
                connection = None
            await asyncio.sleep(client.pause_seconds)
        if connection is not None:
            await close(connection)

    async def _connect(self) -> Connection:
        if isinstance(self.address, str):
            return await asyncio.open_unix_connection(self.address)
        return await asyncio.open_connection(*self.address)


async def exchange(
    connection: Connection, host: str, path: str, *, keeps: bool
) -> tuple[str, bool]:
    """Send one request and read its whole answer; say how it ended, and if the connection stays."""
    reader, writer = connection
    kept = "keep-alive" if keeps else "close"
    try:
        writer.write(f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: {kept}\r\n\r\n".encode())
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    except (ConnectionError, asyncio.IncompleteReadError):
        return "lost", False
    lines = head.split("\r\n")
    headers = {
        name.lower(): value.strip()
        for name, _, value in (line.partition(":") for line in lines[1:])
    }
    try:
        await _read_body(reader, headers)
    except (ConnectionError, asyncio.IncompleteReadError):
        return "cut", False
    outcome = lines[0].split(" ")[1]
    if code := headers.get("autostart-error"):
        outcome += f" {code} Retry-After: {headers.get('retry-after')}"
    return outcome, keeps and headers.get("connection", "").lower() != "close"


async def _read_body(reader: asyncio.StreamReader, headers: dict[str, str]) -> None:
    if headers.get("transfer-encoding") != "chunked":
        await reader.readexactly(int(headers["content-length"]))
        return
    while size := int(await reader.readuntil(b"\r\n"), 16):
        await reader.readexactly(size + 2)
    await reader.readexactly(2)


async def close(connection: Connection) -> None:
    """Close, whatever the other side did."""
    connection[1].close()
    with contextlib.suppress(ConnectionError):
        await connection[1].wait_closed()
