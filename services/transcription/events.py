"""Answers as server-sent events while the words are being found, as OpenAI's streams do.

Until the first event an error is still a status of its own. So the answer begins with the first
event, or when nothing has been sent for so long that proxies might give up: then
comments, which clients skip, keep the connection alive. What fails later is an event.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

from fastapi.responses import Response
from starlette.types import Receive, Scope, Send

from services.transcription.engine import Report
from services.transcription.errors import ApiError, ErrorBody, ErrorFields
from services.transcription.telling import Telling
from services.transcription.transcript import Progress, Segment, Transcript
from services.transcription.uploads import until_any
from services.transcription.worker import Cancelled

log = logging.getLogger(__name__)

# nginx gives up after 60 s of silence by default, many load balancers after 30 s.
KEEP_ALIVE_SECONDS = 10.0

_COMMENT = b": keep-alive\n\n"

Gone = Coroutine[Any, Any, None]


@dataclass(frozen=True)
class End:
    """The work has ended, well or not."""


@dataclass(frozen=True)
class Silence:
    """Nothing has come for `keep_alive_seconds`."""


@dataclass(frozen=True)
class Result:
    """What the work came to."""

    transcript: Transcript
    seconds: float  # of work, the wait before it left out


Item = Segment | Progress | End | Silence


class EventStream(Response):
    """The answer to one request; `run` does the work and reports from another thread.

    `run` is given what to report to, and what returns when its result is no longer wanted: `gone`,
    the client's leaving, or a client that takes nothing for `send_seconds_max`. After `begin`, the
    stream owns `held`, and closes it as soon as `run` has ended: who reads slowly keeps nobody
    waiting. `telling` has the words.
    """

    media_type = "text/event-stream"

    def __init__(
        self,
        run: Callable[[Report, Gone], Awaitable[Result]],
        telling: Telling,
        *,
        gone: Gone,
        send_seconds_max: float,
        keep_alive_seconds: float = KEEP_ALIVE_SECONDS,
    ) -> None:
        super().__init__(headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._telling = telling
        self._keep_alive_seconds = keep_alive_seconds
        self._send_seconds_max = send_seconds_max
        self._given_up = asyncio.Event()
        # As long as the transcript at most: its segments are a few hundred bytes each.
        self._queue: asyncio.Queue[Segment | Progress | End] = asyncio.Queue()
        self._loop = asyncio.get_running_loop()
        unwanted = until_any(gone, self._given_up.wait())
        self._run = asyncio.ensure_future(run(self._report, unwanted))
        self._run.add_done_callback(self._end)
        self._first: bytes | None = _COMMENT
        self._released: asyncio.Future[None] | None = None

    async def begin(self, held: AsyncExitStack) -> None:
        """Wait for the first event, or until the client must hear something.

        Raises what `run` raised before; `held` is then still the caller's.
        """
        self._first = await self._next_event()
        if self._first is None:
            await self._run
        self._released = asyncio.ensure_future(self._release(held.pop_all()))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 -- ASGI's
        """Send the events; if nobody reads, return before the end, so that the server cuts."""
        assert self._released is not None, "begin() comes first"
        try:
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            async for event in self._events():
                async with asyncio.timeout(self._send_seconds_max):
                    await send({"type": "http.response.body", "body": event, "more_body": True})
            await send({"type": "http.response.body", "body": b""})
        except TimeoutError:
            log.warning("a stream was not read for %g s and is cut", self._send_seconds_max)
        finally:
            self._given_up.set()
            await self._released

    async def _release(self, held: AsyncExitStack) -> None:
        await asyncio.wait([self._run])
        await held.aclose()

    def _report(self, item: Segment | Progress) -> None:
        self._loop.call_soon_threadsafe(self._queue.put_nowait, item)

    def _end(self, run: asyncio.Future[Result]) -> None:
        # Posted after the reports, for both go the same way.
        self._queue.put_nowait(End())
        # Looked at, or asyncio complains of what a client that has gone will never be told.
        run.cancelled() or run.exception()

    async def _next(self) -> Item:
        try:
            async with asyncio.timeout(self._keep_alive_seconds):
                return await self._queue.get()
        except TimeoutError:
            return Silence()

    async def _next_event(self) -> bytes | None:
        """Give what is to be sent next; None when the work has ended."""
        while not isinstance(item := await self._next(), End):
            match item:
                case Silence():
                    return _COMMENT
                case Segment():
                    told = self._telling.segment(item)
                case Progress():
                    told = self._telling.progress(item)
            if told is not None:
                return _data(told)
        return None

    async def _events(self) -> AsyncIterator[bytes]:
        event = self._first
        while event is not None:
            yield event
            event = await self._next_event()
        yield await self._last()

    async def _last(self) -> bytes:
        try:
            result = await self._run
            # In a thread: that of hours takes a tenth of a second.
            told = await asyncio.to_thread(self._telling.done, result.transcript, result.seconds)
        except Cancelled:
            return b""
        except ApiError as error:
            return _failure(error.message, error.type, error.code, error.param)
        except Exception:
            log.exception("a stream failed")
            return _failure("internal error", "server_error", "internal_error", None)
        return b"".join(map(_data, told))


def _failure(message: str, error_type: str, code: str, param: str | None) -> bytes:
    body = ErrorBody(
        error=ErrorFields(message=message, type=error_type, param=param, code=code), detail=message
    )
    return _data(body.model_dump_json())


def _data(text: str) -> bytes:
    return f"data: {text}\n\n".encode()
