"""Answers without end: what happens as server-sent events, output as text.

Served with handler_cancellation=True: a stream ends when its client leaves. At shutdown `Streams`
ends those that are left. A client that does not read is dropped; it never slows the fleet down.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, contextmanager
from typing import cast

from aiohttp import web

from autostart import errors
from autostart.admin.changes import Changes
from autostart.config import ServiceConfig
from autostart.runtimes.base import Runtime
from autostart.telemetry import (
    HEARTBEAT,
    RETRY,
    WRITE_SECONDS,
    Entry,
    Follower,
    History,
    event_text,
)

# How long the last lines of output may take; new ones may take for ever.
LOGS_SECONDS = 30.0

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


async def send_events(
    request: web.Request,
    history: History,
    changes: Changes,
    *,
    hosts: list[str],
    last_id: int | None,
    heartbeat_seconds: float,
) -> web.StreamResponse:
    """Send the kept transitions after `last_id` (None: none of them), then what happens.

    And what these services look like now, then each that changes.
    """
    response = web.StreamResponse(
        headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store"}
    )
    follower: Follower[str] = Follower()

    def take(entry: Entry) -> None:
        follower.take(_event(entry))

    # Nothing is awaited between these two: no transition is missed and none sent twice.
    missed = [] if last_id is None else history.after(last_id)
    history.observers.append(take)
    changes.follow(follower.take_newest, hosts)
    try:
        await response.prepare(request)
        await _send(response, RETRY)
        for entry in missed:
            await _send(response, _event(entry))
        while not follower.is_late:
            following = await follower.next(heartbeat_seconds)
            await _send(response, HEARTBEAT if following is None else following)
    except TimeoutError:
        pass  # it does not read: dropped below, like one that is late
    finally:
        history.observers.remove(take)
        changes.leave(follower.take_newest)
    _drop(request)
    return response


def _event(entry: Entry) -> str:
    return event_text(entry.kind, entry.fields, entry.id)


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
