"""A plain HTTP service for tests: `{python} tests/plain_service.py --port {port} [options]`.

Standard library only, ready in 60 ms, and raw: it sends exactly what a test asks for, valid or not.
Not built on a server library, so that none repairs, adds or reorders anything. Each path is one
behaviour, see its function; any other path answers 200 with the service's name and pid.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gzip
import hashlib
import os
import signal
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path

from plain_request import Request, read_request
from plain_websocket import accept_key, echo_frames

HEAD_BYTES_MAX = 256 * 1024
FOREVER = 86_400.0


class Service:
    """What one process of it remembers."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.began = time.monotonic()
        self.counts: Counter[str] = Counter()

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        gone = (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError)
        with contextlib.suppress(*gone):
            while not writer.is_closing():
                request = await read_request(reader, writer)
                self.note(request)
                await HANDLERS.get(request.path, hello)(self, request)
                if not request.keeps_alive:
                    break
                if not request.body_is_read:
                    async for _ in request.body():
                        pass
        writer.close()

    def note(self, request: Request) -> None:
        if self.options.journal:
            with self.options.journal.open("a") as journal:
                journal.write(f"{request.method} {request.target} {os.getpid()}\n")


Handler = Callable[[Service, Request], Awaitable[None]]
HANDLERS: dict[str, Handler] = {}


def at(path: str) -> Callable[[Handler], Handler]:
    def register(handler: Handler) -> Handler:
        HANDLERS[path] = handler
        return handler

    return register


# What the service is.


async def hello(service: Service, request: Request) -> None:
    await request.answer(f"{service.options.name} {os.getpid()}\n")


@at("/ready")
async def ready(service: Service, request: Request) -> None:
    """200 once --ready-after seconds have passed, 503 before; never answers with --ready-hangs."""
    if service.options.ready_hangs:
        await asyncio.sleep(FOREVER)
    is_ready = time.monotonic() - service.began >= service.options.ready_after
    status = "200 OK" if is_ready else "503 Service Unavailable"
    await request.answer({"ready": is_ready, "pid": os.getpid()}, status=status)


@at("/openapi.json")
async def openapi(service: Service, request: Request) -> None:
    """What the file --openapi holds, ?wait= seconds late; hello without one."""
    file = service.options.openapi
    await asyncio.sleep(request.number("wait", 0))
    if file is None:
        await hello(service, request)
    else:
        text = file.read_bytes()
        length = f"Content-Length: {len(text)}"
        await request.head("200 OK", "Content-Type: application/json", length)
        await request.send(text)


@at("/busy")
async def busy(service: Service, request: Request) -> None:
    """What the file --busy-file holds, else --busy."""
    file = service.options.busy_file
    await request.answer(file.read_text() if file and file.exists() else service.options.busy)


# What came in.


@at("/echo")
async def echo(service: Service, request: Request) -> None:
    """The request as it arrived: method, raw target, version, headers in order."""
    parts = {"method": request.method, "target": request.target, "version": request.version}
    await request.answer({**parts, "headers": request.headers, "pid": os.getpid()})


@at("/count")
async def count(service: Service, request: Request) -> None:
    """?id= counts a request, and says how often it came; without it: all counts."""
    if "id" in request.query:
        service.counts[request.query["id"]] += 1
        await request.answer({"count": service.counts[request.query["id"]]})
    else:
        await request.answer(dict(service.counts))


@at("/upload")
async def upload(service: Service, request: Request) -> None:
    """Reads the whole body, ?rate= bytes per second at most; answers its size and sha256."""
    size, digest, rate = 0, hashlib.sha256(), request.number("rate", 0)
    async for block in request.body():
        size += len(block)
        digest.update(block)
        if rate:
            await asyncio.sleep(len(block) / rate)
    await request.answer({"bytes": size, "sha256": digest.hexdigest(), "pid": os.getpid()})


@at("/early")
async def early(service: Service, request: Request) -> None:
    """413 before the body is read, then closes."""
    await request.answer("too large", "Connection: close", status="413 Content Too Large")
    request.writer.close()


@at("/print")
async def print_line(service: Service, request: Request) -> None:
    """Writes ?line= to standard output."""
    print(request.query["line"], flush=True)
    await request.answer("printed")


# How it answers.


@at("/status")
async def status(service: Service, request: Request) -> None:
    """An answer with status ?code=, without a body."""
    code = request.query["code"]
    length = [] if code in {"204", "304"} else ["Content-Length: 0"]
    await request.head(f"{code} As Asked", *length)


@at("/slow")
async def slow(service: Service, request: Request) -> None:
    """200 after ?seconds=."""
    await asyncio.sleep(request.number("seconds", 1))
    await request.answer("slow")


@at("/drip")
async def drip(service: Service, request: Request) -> None:
    """?chunks= numbered chunks, ?gap= seconds apart."""
    await send_numbered(request, "text/plain", int(request.number("chunks", 3)), "chunk {}\n")


@at("/sse")
async def sse(service: Service, request: Request) -> None:
    """?events= server-sent events, ?gap= seconds apart."""
    event = "id: {0}\ndata: event {0}\n\n"
    await send_numbered(request, "text/event-stream", int(request.number("events", 3)), event)


async def send_numbered(request: Request, kind: str, wanted: int, text: str) -> None:
    await request.head("200 OK", f"Content-Type: {kind}", "Transfer-Encoding: chunked")
    for number in range(wanted):
        await request.chunk(text.format(number).encode())
        await asyncio.sleep(request.number("gap", 0.1))
    await request.chunk(b"")


@at("/bytes")
async def send_bytes(service: Service, request: Request) -> None:
    """?size= bytes, with Content-Length; ?chunked= without."""
    size = int(request.number("size", 1000))
    chunked = "chunked" in request.query
    length = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {size}"
    await request.head("200 OK", length)
    if request.method != "HEAD":
        await request.repeat_block(size, request.chunk if chunked else request.send)
        if chunked:
            await request.chunk(b"")


@at("/close-delimited")
async def close_delimited(service: Service, request: Request) -> None:
    """?size= bytes as HTTP/1.0 does: the end of the connection is the end of the body."""
    await request.send(b"HTTP/1.0 200 OK\r\nContent-Type: application/octet-stream\r\n\r\n")
    await request.repeat_block(int(request.number("size", 1000)), request.send)
    request.writer.close()


@at("/gzip")
async def send_gzip(service: Service, request: Request) -> None:
    await request.answer(gzip.compress(b"compressed\n" * 1000), "Content-Encoding: gzip")


@at("/set-cookie")
async def set_cookie(service: Service, request: Request) -> None:
    await request.answer("cookies", "Set-Cookie: a=1; Path=/", "Set-Cookie: b=2; HttpOnly")


@at("/hop")
async def hop(service: Service, request: Request) -> None:
    """Headers that end at the next hop, one that only we may send, and one that must pass."""
    ends_here = ("Connection: keep-alive, X-Hop", "Keep-Alive: timeout=5", "X-Hop: ends here")
    await request.answer("hop", *ends_here, "Autostart-Error: forged", "X-End: passes")


@at("/big-head")
async def big_head(service: Service, request: Request) -> None:
    """One header line of ?size= bytes."""
    await request.answer("big", "X-Big: " + "b" * int(request.number("size", 16_000)))


@at("/hints")
async def hints(service: Service, request: Request) -> None:
    """103 before the 200."""
    await request.head("103 Early Hints", "Link: </style.css>; rel=preload")
    await request.answer("hinted")


# How it fails.


@at("/die")
async def die(service: Service, request: Request) -> None:
    """Dies before it answers."""
    os.kill(os.getpid(), signal.SIGKILL)


@at("/die-mid")
async def die_mid(service: Service, request: Request) -> None:
    """Dies after ?size= bytes of twice as many; ?chunked= of a chunked answer."""
    await send_half(request)
    await asyncio.sleep(request.number("after", 0.05))  # so that the half arrives
    os.kill(os.getpid(), signal.SIGKILL)


@at("/cut")
async def cut(service: Service, request: Request) -> None:
    """Closes politely after ?size= bytes of twice as many; ?chunked= without the last chunk."""
    await send_half(request)
    request.writer.close()


async def send_half(request: Request) -> None:
    size = int(request.number("size", 1000))
    if "chunked" in request.query:
        await request.head("200 OK", "Transfer-Encoding: chunked")
        await request.repeat_block(size, request.chunk)
    else:
        await request.head("200 OK", f"Content-Length: {2 * size}")
        await request.repeat_block(size, request.send)


@at("/drop")
async def drop(service: Service, request: Request) -> None:
    """Answers, says keep-alive, and closes all the same, after ?after= seconds."""
    await request.answer("dropped", "Connection: keep-alive")
    await asyncio.sleep(request.number("after", 0))
    request.writer.close()


@at("/drop-before")
async def drop_before(service: Service, request: Request) -> None:
    """Closes without an answer."""
    request.writer.close()


@at("/garbage")
async def garbage(service: Service, request: Request) -> None:
    """Answers something that is not HTTP."""
    await request.send(b"SSH-2.0-not-http\r\n\r\n")
    request.writer.close()


@at("/ws")
async def websocket(service: Service, request: Request) -> None:
    """A WebSocket that echoes, see plain_websocket; ?refuse= answers 403, ?protocol= is chosen."""
    if "refuse" in request.query or request.header("upgrade").lower() != "websocket":
        await request.answer("no websocket for you", status="403 Forbidden")
        return
    protocol = request.query.get("protocol")
    await request.head(
        "101 Switching Protocols",
        "Upgrade: websocket",
        "Connection: Upgrade",
        f"Sec-WebSocket-Accept: {accept_key(request.header('sec-websocket-key'))}",
        *([f"Sec-WebSocket-Protocol: {protocol}"] if protocol else []),
    )
    await echo_frames(request.reader, request.writer)
    request.writer.close()


# The process.


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="a plain HTTP service for tests")
    add = parser.add_argument
    add("--port", type=int, required=True)
    add("--address", default="127.0.0.1")
    add("--name", default="plain")
    add("--listen-after", type=float, default=0.0, help="seconds before it listens at all")
    add("--ready-after", type=float, default=0.0, help="seconds before /ready answers 200")
    add("--ready-hangs", action="store_true", help="/ready never answers")
    add("--exit-after", type=float, help="seconds after which it exits by itself")
    add("--exit-code", type=int, default=1)
    add("--exit-if-file", type=Path, help="exits at once while this file exists")
    add("--busy", default='{"busy": false}')
    add("--busy-file", type=Path, help="what /busy answers, read at each request")
    add("--openapi", type=Path, help="what /openapi.json answers, read at each request")
    add("--journal", type=Path, help="gets a line for each request: method target pid")
    add("--ignore-sigterm", action="store_true")
    add("--stop-slowly", type=float, default=0.0, help="seconds from SIGTERM to exit")
    return parser.parse_args()


async def main(options: argparse.Namespace) -> None:
    if options.exit_if_file and options.exit_if_file.exists():
        raise SystemExit(f"exiting because {options.exit_if_file} exists")
    loop = asyncio.get_running_loop()
    if options.ignore_sigterm:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    else:
        loop.add_signal_handler(signal.SIGTERM, loop.call_later, options.stop_slowly, os._exit, 0)
    if options.exit_after is not None:
        loop.call_later(options.exit_after, os._exit, options.exit_code)
    await asyncio.sleep(options.listen_after)
    service = Service(options)
    server = await asyncio.start_server(
        service.connected, options.address, options.port, limit=HEAD_BYTES_MAX
    )
    print(f"{options.name} listens on {options.address}:{options.port}", flush=True)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(parse_options()))
