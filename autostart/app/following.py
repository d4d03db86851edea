"""Who follows a service by `GET /.autostart/events`: a waiting page, or another front end.

Each gets the service's public status at once and at every transition. Following is no use: it takes
no lease, wakes nothing, and works in every state. Every stream ends after some minutes, its client
comes again; one that does not read is dropped, and so many follow one service at most.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Collection, Mapping

from aiohttp import web

from autostart import errors, proxy, waiting
from autostart.telemetry import (
    HEARTBEAT,
    HEARTBEAT_SECONDS,
    RETRY,
    WRITE_SECONDS,
    Follower,
    Transition,
)

# Of one service at a time; more get 503. A stream costs about 16 kB, measured, and a descriptor.
FOLLOWERS_MAX = 256
# Then its client connects again, and is let in again or not: keys and logins may have changed.
STREAM_SECONDS = 600.0
# A client that is behind by this many transitions is not reading.
BEHIND_MAX = 32
FULL_RETRY_SECONDS = 5.0


class Following:
    """The streams of all services."""

    def __init__(self) -> None:
        self._followers: dict[str, set[Follower[str]]] = defaultdict(set)
        self._is_closed = False

    def pass_on(self, transition: Transition) -> None:
        """Tell those who follow; for the supervisor."""
        followers = self._followers.get(transition.host)
        if followers:
            status = waiting.public_status(transition.after, transition.at.monotonic)
            text = waiting.status_event(status)
            for follower in followers:
                follower.take(text)

    def keep(self, hosts: Collection[str]) -> None:
        """End the streams of services that the map no longer has."""
        for host in self._followers.keys() - set(hosts):
            for follower in self._followers[host]:
                follower.end()

    def close(self) -> None:
        """End all of them: a shutdown need not wait for them."""
        self._is_closed = True
        self.keep(())

    async def follow(
        self,
        request: web.BaseRequest,
        status: waiting.Status,
        headers: Mapping[str, str],
    ) -> proxy.Answer:
        """Stream the service's status, as it is now and as it becomes.

        `status` is of this moment: nothing may be awaited between its making and this call.
        Raises QueueFull and ShuttingDown.
        """
        host = str(status["host"])
        if self._is_closed:
            text = "autostart is shutting down"
            raise errors.ShuttingDown(text, retry_after_seconds=FULL_RETRY_SECONDS)
        followers = self._followers[host]
        if len(followers) >= FOLLOWERS_MAX:
            text = f"{len(followers)} clients follow {host} already"
            raise errors.QueueFull(text, retry_after_seconds=FULL_RETRY_SECONDS)
        follower: Follower[str] = Follower(BEHIND_MAX)
        follower.take(RETRY + waiting.status_event(status))
        followers.add(follower)
        answer = proxy.own_stream(request, "text/event-stream", headers=headers.items())
        try:
            await _send_all(follower, answer, request)
        except TimeoutError:
            follower.is_late = True
        finally:
            followers.discard(follower)
            if not followers and self._followers.get(host) is followers:
                del self._followers[host]
        if follower.is_late:
            text = f"the client did not read the events of {host} for {WRITE_SECONDS:g} s"
            answer.abort(errors.RequestTimeout(text))
        return answer


async def _send_all(
    follower: Follower[str], answer: proxy.Answer, request: web.BaseRequest
) -> None:
    """Raises TimeoutError where the client does not read."""
    if request.method == "HEAD":
        return
    loop = asyncio.get_running_loop()
    ends_at = loop.time() + STREAM_SECONDS
    await answer.prepare(request)
    while not follower.is_late and not follower.is_ended and loop.time() < ends_at:
        text = await follower.next(min(HEARTBEAT_SECONDS, ends_at - loop.time()))
        if text is None and follower.is_ended:
            break
        async with asyncio.timeout(WRITE_SECONDS):
            await answer.write((text or HEARTBEAT).encode())
    if not follower.is_late:
        async with asyncio.timeout(WRITE_SECONDS):
            await answer.write_eof()
