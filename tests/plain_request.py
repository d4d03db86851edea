"""One request to the plain service for tests, and the ways to answer it, byte by byte."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from urllib.parse import parse_qsl, urlsplit

BLOCK = bytes(value % 251 for value in range(64 * 1024))  # what bodies of a given size repeat


@dataclass
class Request:
    method: str
    target: str
    version: str
    headers: list[tuple[str, str]]
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    body_is_read: bool = False

    @property
    def path(self) -> str:
        return urlsplit(self.target).path

    @property
    def query(self) -> dict[str, str]:
        return dict(parse_qsl(urlsplit(self.target).query, keep_blank_values=True))

    @property
    def keeps_alive(self) -> bool:
        return self.version == "HTTP/1.1" and self.header("connection").lower() != "close"

    def header(self, name: str) -> str:
        return next((value for key, value in self.headers if key.lower() == name), "")

    def number(self, name: str, default: float) -> float:
        return float(self.query.get(name, default))

    async def body(self) -> AsyncIterator[bytes]:
        """Yield the body, chunked or of a stated length; say 100 to a client that waits for it."""
        self.body_is_read = True
        if self.header("expect").lower() == "100-continue":
            await self.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        if "chunked" in self.header("transfer-encoding").lower():
            while size := int((await self.reader.readuntil(b"\n")).split(b";")[0], 16):
                yield await self.reader.readexactly(size)
                await self.reader.readexactly(2)
            while await self.reader.readuntil(b"\n") != b"\r\n":
                pass  # trailers
            return
        left = int(self.header("content-length") or 0)
        while left:
            block = await self.reader.read(min(left, len(BLOCK)))
            if not block:
                raise ConnectionResetError("the client left in its body")
            left -= len(block)
            yield block

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def head(self, status: str, *headers: str) -> None:
        await self.send("\r\n".join([f"HTTP/1.1 {status}", *headers, "", ""]).encode("latin-1"))

    async def answer(self, body: object, *headers: str, status: str = "200 OK") -> None:
        """Send a whole answer; str and bytes as they are, anything else as JSON."""
        text = body if isinstance(body, str | bytes) else json.dumps(body)
        kind = "text/plain" if text is body else "application/json"
        data = text.encode() if isinstance(text, str) else text
        await self.head(status, f"Content-Type: {kind}", f"Content-Length: {len(data)}", *headers)
        if self.method != "HEAD":
            await self.send(data)

    async def chunk(self, data: bytes) -> None:
        """Send one chunk; an empty one is the last."""
        await self.send(b"%x\r\n%b\r\n" % (len(data), data))

    async def repeat_block(self, size: int, send: Callable[[bytes], Awaitable[None]]) -> None:
        for start in range(0, size, len(BLOCK)):
            await send(BLOCK[: size - start])


async def read_request(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Request:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    first, *lines = head.removesuffix("\r\n\r\n").split("\r\n")
    method, target, version = first.split(" ")
    headers = [(name, value.strip()) for name, _, value in (line.partition(":") for line in lines)]
    return Request(method, target, version, headers, reader, writer)
