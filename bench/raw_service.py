"""The fastest service that Python can be, so that a proxy before it is what is measured.

`python bench/raw_service.py PORT`: `GET /big` answers BODY_BYTES, anything else six bytes, an
upload once it is here.
"""

from __future__ import annotations

import asyncio
import re
import sys

import uvloop

BODY_BYTES = 500_000_000
PIECE = bytes(256 * 1024)
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 6\r\n%b\r\nhello\n"


class RawService(asyncio.Protocol):
    """One connection."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.head = b""
        self.missing_bytes = 0
        self.drained = asyncio.Event()
        self.drained.set()

    def pause_writing(self) -> None:
        self.drained.clear()

    def resume_writing(self) -> None:
        self.drained.set()

    def data_received(self, data: bytes) -> None:
        if not self.missing_bytes:
            self.head += data
            head, end, data = self.head.partition(b"\r\n\r\n")
            if not end:
                return
            self.head, lower = b"", head.lower()
            self.closes = b"connection: close" in lower
            if lower.startswith(b"get /big"):
                self.task = asyncio.ensure_future(self.send_body())
                return
            length = re.search(rb"content-length: (\d+)", lower)
            self.missing_bytes = int(length[1]) if length else 0
        self.missing_bytes -= len(data)
        if not self.missing_bytes:
            self.transport.write(ANSWER % (b"Connection: close\r\n" if self.closes else b""))
            if self.closes:
                self.transport.close()

    async def send_body(self) -> None:
        self.transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % BODY_BYTES)
        left_bytes = BODY_BYTES
        while left_bytes and not self.transport.is_closing():
            piece = PIECE[:left_bytes]
            left_bytes -= len(piece)
            self.transport.write(piece)
            await self.drained.wait()
        self.transport.close()


async def serve(port: int) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(RawService, "127.0.0.1", port, backlog=1024)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1])))
