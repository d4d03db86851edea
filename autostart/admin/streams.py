"""Answers without end: what happens as server-sent events, output as text.

Served with handler_cancellation=True: a stream ends when its client leaves. At shutdown `Streams`
ends those that are left. A client that does not read is dropped; it never slows the fleet down.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, contextmanager
from typing import cast

from aiohttp import web

from autostart import errors
from autostart.config import ServiceConfig
from autostart.runtimes.base import Runtime
from autostart.telemetry import Entry, History

HEARTBEAT_SECONDS = 15.0
# A client that is this many events behind is not reading.
QUEUE_MAX = 256
# How long one write may wait for a client that does not read.
WRITE_SECONDS = 10.0
# How long the last lines of output may take; new ones may take for ever.
LOGS_SECONDS = 30.0
# What a browser waits before it connects again.
RETRY_MILLISECONDS = 2_000

_PLAIN = {"Content-Type": "text/plain; charset=utf-8", "Cache-Control": "no-store"}


class Streams:
    """The handlers that stream, so that a shutdown need not wait for them."""

    def __init__(self) -> None:
        self._handlers: set[asyncio.Task[object]] = set()

    @contextmanager
    def registered(self) -> Iterator[None]:
        """Let `close` end the handler that calls this, for the length of the block."""
        handler = cast("asyncio.Task[object]", asyncio.current_task())
        self._handlers.add(handler)
        try:
            yield
        finally:
            self._handlers.discard(handler)

    def close(self) -> None:
        """End them."""
        for handler in self._handlers:
            handler.cancel()


class Follower:
    """One client's queue of events; `is_late` once it could not keep up."""

    def __init__(self, queue_max: int = QUEUE_MAX) -> None:
        self._queue: asyncio.Queue[Entry] = asyncio.Queue(queue_max)
        self.is_late = False

    def take(self, entry: Entry) -> None:
        """Take an event, or give the client up; never waits."""
        try:
            self._queue.put_nowait(entry)
        except asyncio.QueueFull:
            self.is_late = True

    async def next(self, seconds: float) -> Entry | None:
        """Return the next event, None if there was none for so long."""
        try:
            async with asyncio.timeout(seconds):
                return await self._queue.get()
        except TimeoutError:
            return None


async def send_events(
    request: web.Request, history: History, *, last_id: int | None, heartbeat_seconds: float
) -> web.StreamResponse:
    """Send the kept transitions after `last_id` (None: none of them), then what happens."""
    response = web.StreamResponse(
        headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store"}
    )
    follower = Follower()
    # Nothing is awaited between these two: no transition is missed and none sent twice.
    missed = [] if last_id is None else history.after(last_id)
    history.observers.append(follower.take)
    try:
        await response.prepare(request)
        await _send(response, f"retry: {RETRY_MILLISECONDS}\n\n")
        for entry in missed:
            await _send(response, event_text(entry))
        while not follower.is_late:
            following = await follower.next(heartbeat_seconds)
            await _send(response, ": heartbeat\n\n" if following is None else event_text(following))
    except TimeoutError:
        pass  # it does not read: dropped below, like one that is late
    finally:
        history.observers.remove(follower.take)
    _drop(request)
    return response


def event_text(entry: Entry) -> str:
    """Return an entry as a server-sent event."""
    id_line = "" if entry.id is None else f"id: {entry.id}\n"
    return f"{id_line}event: {entry.kind}\ndata: {json.dumps(dict(entry.fields))}\n\n"


async def send_logs(
    request: web.Request, runtime: Runtime, service: ServiceConfig, lines: int, *, follow: bool
) -> web.StreamResponse:
    """Send the last lines of a service's output; with `follow`, then new ones as they come.

    Without `follow` an error is an answer of its own; with it, it can only be a last line.
    """
    output = runtime.logs(service, lines, follow=follow)
    async with aclosing(output):
        if not follow:
            text = await _collected(output, service.host)
            return web.Response(body=text.encode("utf-8", "replace"), headers=_PLAIN)
        response = web.StreamResponse(headers=_PLAIN)
        await response.prepare(request)
        try:
            async for line in output:
                await _send(response, f"{line}\n")
        except errors.AutostartError as error:
            await _send(response, f"autostart: {error.for_operator}\n")
        except TimeoutError:
            _drop(request)  # it does not read
        return response


async def _collected(output: AsyncIterator[str], host: str) -> str:
    try:
        async with asyncio.timeout(LOGS_SECONDS):
            return "".join([f"{line}\n" async for line in output])
    except TimeoutError as error:
        text = f"the output of {host} did not come within {LOGS_SECONDS:g} s"
        raise errors.EngineUnreachable(text) from error


async def _send(response: web.StreamResponse, text: str) -> None:
    async with asyncio.timeout(WRITE_SECONDS):
        await response.write(text.encode("utf-8", "replace"))


def _drop(request: web.Request) -> None:
    if request.transport is not None:
        request.transport.abort()
