"""Bodies that take their time: streaming, back-pressure, deadlines, and every way to be cut."""

from __future__ import annotations

import asyncio
import contextlib

import pytest
import structlog

from autostart import errors, proxy
from tests.e2e.proxied import OK, PATIENCE_SECONDS, Client, Visit, on_both_loops, proxied

GET = b"GET / HTTP/1.1\r\nHost: service.test\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: service.test\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n"
PIECE = b"0123456789abcdef" * 4096
# What both kernels' socket buffers, ours and asyncio's may hold on loopback; far below the body.
HELD_BYTES_MAX = 24 * 2**20
BODY_BYTES = 96 * 2**20


async def silent(visit: Visit) -> None:
    """Take the request and never answer."""
    await visit.head()
    await visit.end()


async def gone(visit: Visit) -> str:
    """How the service's connection ended."""
    return (await visit.end())[1]


# Streaming.


@on_both_loops
@pytest.mark.parametrize("framing", [b"Transfer-Encoding: chunked\r\n", b""])
async def test_each_piece_arrives_before_the_next_is_sent(framing: bytes) -> None:
    """Server-sent events are not gathered: head and events come one by one."""
    told = asyncio.Semaphore(0)

    async def script(visit: Visit) -> None:
        await visit.head()
        await visit.send(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n" + framing + b"\r\n"
        )
        for number in range(3):
            await told.acquire()
            event = b"data: %d\n\n" % number
            await visit.send(b"%x\r\n%b\r\n" % (len(event), event) if framing else event)
        await told.acquire()
        await visit.send(b"0\r\n\r\n" if framing else b"")

    async with proxied(script) as here:
        client = await here.client()
        await client.send(GET)
        assert b"200 OK" in await client.until(b"\r\n\r\n")
        for number in range(3):
            told.release()
            assert b"data: %d\n\n" % number == await client.chunk()
        told.release()
        assert b"" == await client.chunk()


@on_both_loops
async def test_both_directions_stream_at_once() -> None:
    """A service may answer while it is still being sent to, piece by piece."""

    async def script(visit: Visit) -> None:
        await visit.head()
        await visit.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while size := int(await visit.until(b"\r\n"), 16):
            data = await visit.exactly(size + 2)
            await visit.send(b"%x\r\n%b" % (size, data))
        await visit.send(b"0\r\n\r\n")

    async with proxied(script) as here:
        client = await here.client()
        await client.send(POST + CHUNKED)
        assert b"Connection: close\r\n" in await client.until(b"\r\n\r\n")
        for word in (b"one", b"two", b"three"):
            await client.send(b"%x\r\n%b\r\n" % (len(word), word))
            assert word == await client.chunk()
        await client.send(b"0\r\n\r\n")
        assert b"" == await client.chunk()


async def fill(side: Client | Visit, stalled: asyncio.Event) -> int:
    """Send until the other side takes no more for a while; how much it took."""
    sent_bytes = 0
    while sent_bytes < BODY_BYTES:
        side.writer.write(PIECE)
        try:
            async with asyncio.timeout(0.5):
                await side.writer.drain()
        except TimeoutError:
            break
        sent_bytes += len(PIECE)
    stalled.set()
    with contextlib.suppress(ConnectionError):
        await side.writer.drain()
    return sent_bytes


@on_both_loops
async def test_a_slow_client_holds_the_service_back() -> None:
    """What a client does not read is not taken from the service: memory stays constant."""
    stalled = asyncio.Event()
    taken: list[int] = []

    async def script(visit: Visit) -> None:
        await visit.head()
        await visit.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % BODY_BYTES)
        taken.append(await fill(visit, stalled))

    async with proxied(script) as here:
        client = await here.client()
        client.writer.transport.pause_reading()
        await client.send(GET)
        await stalled.wait()
        client.writer.transport.resume_reading()
        await client.until(b"\r\n\r\n")
        await client.exactly(HELD_BYTES_MAX // 8)
        await here.until(lambda: bool(taken))

    assert taken[0] < HELD_BYTES_MAX


@on_both_loops
async def test_a_slow_service_holds_the_client_back() -> None:
    """What a service does not read is not taken from the client: memory stays constant."""
    stalled = asyncio.Event()

    async def script(visit: Visit) -> None:
        await visit.head()
        visit.writer.transport.pause_reading()
        await stalled.wait()

    async with proxied(script) as here:
        client = await here.client()
        await client.send(POST + b"Content-Length: %d\r\n\r\n" % BODY_BYTES)
        taken = await fill(client, stalled)

    assert taken < HELD_BYTES_MAX


@on_both_loops
@pytest.mark.parametrize("is_chunked", [False, True])
async def test_large_bodies_pass_both_ways_unharmed(is_chunked: bool) -> None:
    """20 MB up and the same 20 MB down again, in pieces that fit no buffer."""
    body = bytes(range(256)) * 81_920
    size = len(body)

    async def script(visit: Visit) -> None:
        await visit.head()
        if is_chunked:
            received = b""
            while count := int(await visit.until(b"\r\n"), 16):
                received += (await visit.exactly(count + 2))[:-2]
            await visit.until(b"\r\n")
        else:
            received = await visit.exactly(size)
        await visit.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size + received)

    async with proxied(script) as here:
        client = await here.client()

        async def upload() -> None:
            await client.send(
                POST + (CHUNKED if is_chunked else b"Content-Length: %d\r\n\r\n" % size)
            )
            for start in range(0, size, 77_777):
                piece = body[start : start + 77_777]
                await client.send(b"%x\r\n%b\r\n" % (len(piece), piece) if is_chunked else piece)
            await client.send(b"0\r\n\r\n" if is_chunked else b"")

        _, (_, received) = await asyncio.gather(upload(), client.answer())

    assert body == received


# What the client does.


@on_both_loops
@pytest.mark.parametrize("how", ["close", "reset"])
async def test_a_client_that_leaves_is_told_to_the_service_at_once(how: str) -> None:
    """Before the answer or in the middle of it, the service's connection is reset."""
    for answer in (b"", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n"):
        endings: list[str] = []

        async def script(visit: Visit, answer=answer, endings=endings) -> None:
            await visit.head()
            await visit.send(answer)
            endings.append(await gone(visit))

        async with proxied(script) as here:
            client = await here.client()
            await client.send(GET)
            await here.visit()
            if answer:
                await client.until(b"1\r\nx\r\n")
            if how == "close":
                await client.close()
            else:
                client.reset()
            await here.until(lambda endings=endings: bool(endings))

            assert ["reset"] == endings
            assert isinstance(await here.outcome(), asyncio.CancelledError | ConnectionError)


@on_both_loops
async def test_a_client_that_leaves_in_its_upload_leaves_no_whole_request() -> None:
    """The service sees its request break off, and the exchange ends."""
    endings: list[tuple[bytes, str]] = []

    async def script(visit: Visit) -> None:
        await visit.head()
        assert b"half" == await visit.exactly(4)
        begun.set()
        endings.append(await visit.end())

    begun = asyncio.Event()
    async with proxied(script) as here:
        client = await here.client()
        await client.send(POST + b"Content-Length: 8\r\n\r\nhalf")
        await begun.wait()
        await client.close()
        await here.until(lambda: bool(endings))

        assert [(b"", "reset")] == endings


@on_both_loops
async def test_a_silent_upload_is_a_408() -> None:
    """No byte for request_timeout: refused, and the service's connection reset."""
    endings: list[str] = []

    async def script(visit: Visit) -> None:
        await visit.head()
        await visit.exactly(4)
        endings.append(await gone(visit))

    async with proxied(script, request_timeout_seconds=0.2) as here:
        client = await here.client()
        await client.send(POST + b"Content-Length: 8\r\n\r\nhalf")
        head, body = await client.answer()
        ending = await client.end()

        assert b"HTTP/1.1 408 Request Timeout\r\n" in head
        assert b"Autostart-Error: request-timeout\r\n" in head
        assert b"Connection: close\r\n" in head
        assert b"request-timeout" in body
        assert (b"", "end") == ending
        await here.until(lambda: bool(endings))
        assert ["reset"] == endings


async def test_a_slow_upload_is_not_a_silent_one() -> None:
    """A byte now and then keeps the request alive, longer than request_timeout in all."""

    async def script(visit: Visit) -> None:
        await visit.head()
        await visit.exactly(8)
        await visit.send(OK)

    async with proxied(script, request_timeout_seconds=0.3, response_timeout_seconds=0.3) as here:
        client = await here.client()
        await client.send(POST + b"Content-Length: 8\r\n\r\n")
        for _ in range(8):
            await asyncio.sleep(0.1)  # the slowness is what is tested
            await client.send(b"x")

        assert b"200 OK" in (await client.answer())[0]


@on_both_loops
@pytest.mark.parametrize("framing", [b"Content-Length: 1000\r\n\r\n", CHUNKED])
async def test_a_body_that_grows_too_large_is_a_413(framing: bytes) -> None:
    """Counted while it streams, whatever the head said; the service gets no whole request."""
    endings: list[str] = []

    async def script(visit: Visit) -> None:
        await visit.head()
        endings.append(await gone(visit))

    async with proxied(script, max_body_bytes=100) as here:
        client = await here.client()
        await client.send(POST + framing)
        await here.visit()
        for _ in range(3):
            piece = b"x" * 60
            await client.send(b"3c\r\n%b\r\n" % piece if framing == CHUNKED else piece)
        head, _ = await client.answer()

        assert b"HTTP/1.1 413 " in head
        assert b"Autostart-Error: body-too-large\r\n" in head
        await here.until(lambda: bool(endings))
        assert ["reset"] == endings


async def test_a_body_too_large_that_came_at_once_sends_nothing() -> None:
    """A chunked body that is here in full and too large leaves no byte for the service."""
    async with proxied(silent, max_body_bytes=4) as here:
        head, _ = await here.ask(POST + CHUNKED + b"5\r\nhello\r\n0\r\n\r\n")

        assert b"HTTP/1.1 413 " in head
        assert b"" == (await here.visit()).received


@on_both_loops
async def test_an_early_answer_reaches_a_client_that_still_sends() -> None:
    """A 413 of the service before the end of the upload is relayed and can be read to its end."""

    async def script(visit: Visit) -> None:
        await visit.head()
        await visit.exactly(10)
        # Closed with unread data: the kernel follows the answer with a reset.
        await visit.send(b"HTTP/1.1 413 Too Much\r\nContent-Length: 4\r\n\r\nstop")

    async with proxied(script) as here:
        client = await here.client()
        sending = asyncio.create_task(  # ends with the test
            fill(client, asyncio.Event())
        )
        client.writer.write(POST + b"Content-Length: %d\r\n\r\n" % BODY_BYTES)
        head, body = await client.answer()

        assert b"HTTP/1.1 413 Too Much\r\n" in head
        assert b"Connection: close\r\n" in head
        assert b"stop" == body
        await sending
        assert (b"", "end") == await client.end()


@on_both_loops
async def test_bad_framing_later_in_a_body_aborts_both_connections() -> None:
    """No answer, no end: the service must not take what it has for the whole."""
    endings: list[str] = []
    begun = asyncio.Event()

    async def script(visit: Visit) -> None:
        await visit.head()
        await visit.until(b"hello\r\n")
        begun.set()
        endings.append(await gone(visit))

    async with proxied(script) as here:
        client = await here.client()
        await client.send(POST + CHUNKED + b"5\r\nhello\r\n")
        await begun.wait()
        await client.send(b"zz\r\n")

        assert (b"", "reset") == await client.end()
        await here.until(lambda: bool(endings))
        assert ["reset"] == endings


@on_both_loops
async def test_a_client_that_stops_reading_is_cut() -> None:
    """Its exchange ends once nothing has left for response_timeout, not before."""
    endings: list[str] = []

    async def script(visit: Visit) -> None:
        await visit.head()
        await visit.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % BODY_BYTES)
        with contextlib.suppress(ConnectionError):
            for _ in range(BODY_BYTES // len(PIECE)):
                await visit.send(PIECE)
        endings.append("cut")

    async with proxied(script, response_timeout_seconds=0.4) as here:
        client = await here.client()
        client.writer.transport.pause_reading()
        with structlog.testing.capture_logs() as logs:
            await client.send(GET)
            outcome = await here.outcome()

        assert isinstance(outcome, asyncio.CancelledError | ConnectionError | proxy.Answer)
        assert [("answer cut", "response-timeout")] == [
            (line["event"], line["code"]) for line in logs
        ]
        await here.until(lambda: bool(endings))


async def test_a_slow_reader_is_not_a_silent_one() -> None:
    """An answer that leaves slowly lasts longer than response_timeout."""
    size = 8 * 2**20

    async def script(visit: Visit) -> None:
        await visit.head()
        await visit.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size + b"x" * size)

    async with proxied(script, response_timeout_seconds=0.2) as here:
        client = await here.client()
        client.reader._limit = 2**16
        await client.send(GET)
        await client.until(b"\r\n\r\n")
        for _ in range(32):
            await client.exactly(size // 32)
            await asyncio.sleep(0.03)  # the slowness is what is tested

        assert isinstance(await here.outcome(), proxy.Answer)


# What the service does.


@on_both_loops
async def test_a_silent_service_is_a_504() -> None:
    """No byte for response_timeout before the answer: refused, and the service told."""
    endings: list[str] = []

    async def script(visit: Visit) -> None:
        await visit.head()
        endings.append(await gone(visit))

    async with proxied(script, response_timeout_seconds=0.2) as here:
        head, body = await here.ask(GET)

        assert b"HTTP/1.1 504 Gateway Timeout\r\n" in head
        assert b"Autostart-Error: response-timeout\r\n" in head
        assert b"response-timeout" in body
        await here.until(lambda: bool(endings))
        assert ["reset"] == endings


BROKEN = {
    "short of its length": (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc", "close"),
    "within a chunk": (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nabc",
        "close",
    ),
    "without the last chunk": (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
        "close",
    ),
    "with a bad chunk": (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
        "garbage",
    ),
    "reset before its length": (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc", "reset"),
    "reset instead of an end": (b"HTTP/1.1 200 OK\r\n\r\nabc", "reset"),
    "silent in the middle": (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc", "hang"),
}


@on_both_loops
@pytest.mark.parametrize("version", [b"1.1", b"1.0"])
@pytest.mark.parametrize("case", BROKEN)
async def test_a_cut_answer_ends_in_a_reset(case: str, version: bytes) -> None:
    """Whatever marks its end, a client never sees a clean end of an answer that is not whole."""
    answer, how = BROKEN[case]
    go_on = asyncio.Event()

    async def script(visit: Visit) -> None:
        await visit.head()
        await visit.send(answer)
        await go_on.wait()
        if how == "reset":
            visit.reset()
        elif how == "garbage":
            await visit.send(b"zz\r\n")
        elif how == "hang":
            await visit.end()

    limits = {"response_timeout_seconds": 0.3} if how == "hang" else {}
    async with proxied(script, **limits) as here:
        client = await here.client()
        await client.send(b"GET / HTTP/" + version + b"\r\nHost: service.test\r\n\r\n")
        await client.until(b"abc")
        go_on.set()
        ending = await client.end()
        outcome = await here.outcome()

        assert "reset" == ending[1]
        if isinstance(outcome, proxy.Answer):
            assert isinstance(outcome.cut, errors.ServiceClosed | errors.ResponseTimeout)


@on_both_loops
async def test_a_service_that_dies_without_an_answer_is_a_502() -> None:
    """A reset before the head is told apart from a refused connection."""

    async def script(visit: Visit) -> None:
        await visit.head()
        visit.reset()

    async with proxied(script) as here:
        head, _ = await here.ask(GET)

        assert b"Autostart-Error: service-closed\r\n" in head
        assert isinstance(await here.outcome(), errors.ServiceClosed)


@on_both_loops
async def test_forwarding_ends_only_when_the_last_byte_has_left() -> None:
    """While a client has not taken the rest, the lease must last; then it ends."""
    size = 12 * 2**20

    async def script(visit: Visit) -> None:
        await visit.head()
        await visit.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size + b"x" * size)
        served.set()

    served = asyncio.Event()
    async with proxied(script) as here:
        client = await here.client()
        client.writer.transport.pause_reading()
        await client.send(GET)
        await asyncio.sleep(0.3)  # room for a wrong end; the right one waits for the client

        assert [] == here.outcomes
        client.writer.transport.resume_reading()
        await client.until(b"\r\n\r\n")
        assert size == len(await client.exactly(size))
        assert size == (await here.outcome()).sent_bytes


# Shutting down.


@on_both_loops
async def test_draining_lets_answers_end_and_closes_idle_connections() -> None:
    """An upload in progress still arrives in full while the server drains; idle ones are closed."""
    begun = asyncio.Event()

    async def script(visit: Visit) -> None:
        await visit.head()
        begun.set()
        assert b"hello" == await visit.exactly(5)
        await visit.send(OK)

    async with proxied(script) as here:
        idle = await here.client()
        client = await here.client()
        await client.send(POST + b"Content-Length: 5\r\n\r\n")
        await begun.wait()
        draining = asyncio.create_task(  # awaited below
            here.server.drain(PATIENCE_SECONDS)
        )
        assert (b"", "end") == await idle.end()
        await client.send(b"hello")
        head, body = await client.answer()
        ending = await client.end()
        await draining

        assert b"200 OK" in head
        assert b"ok" == body
        assert (b"", "end") == ending


@on_both_loops
async def test_draining_cuts_what_does_not_end() -> None:
    """After its time, what is left is reset, towards the client and the service."""
    endings: list[str] = []

    async def script(visit: Visit) -> None:
        await visit.head()
        endings.append(await gone(visit))

    async with proxied(script) as here:
        client = await here.client()
        await client.send(GET)
        await here.visit()
        await here.server.drain(0.1)

        assert (b"", "reset") == await client.end()
        await here.until(lambda: bool(endings))
        assert ["reset"] == endings
