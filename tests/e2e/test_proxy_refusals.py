"""Answers of ours, and the deadlines of a connection that sends no request."""

from __future__ import annotations

import asyncio
import json

import pytest
import structlog
from aiohttp import web

from autostart import errors, proxy
from tests.e2e.proxied import OK, PATIENCE_SECONDS, Client, Visit, on_both_loops, proxied

BROWSER = b"Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\n"


async def answer_at_once(visit: Visit) -> None:
    await visit.head()
    await visit.send(OK)


async def served(handler, request: bytes, *, to: str = "GET") -> tuple[list[bytes], bytes, bool]:
    """Head lines and body of what `handler` answers, and whether the connection was kept."""
    loop = asyncio.get_running_loop()
    server = proxy.ProxyServer(handler)
    gate = await loop.create_server(server, "127.0.0.1", 0)
    client = Client(*await asyncio.open_connection(*gate.sockets[0].getsockname()))
    try:
        await client.send(request)
        head, body = await client.answer(to=to)
        keeps = b"\r\nConnection: close\r\n" not in head
        return head.split(b"\r\n")[:-2], body, keeps
    finally:
        gate.close()
        await client.close()
        await server.drain(PATIENCE_SECONDS)


def refusing(refusal: errors.AutostartError, **options: object):
    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        return proxy.error_response(refusal, request=request, request_id="id-1", **options)

    return handle


def get(*headers: bytes, line: bytes = b"GET / HTTP/1.1") -> bytes:
    return b"".join((line, b"\r\nHost: a\r\n", *headers, b"\r\n"))


async def test_a_refusal_is_json_for_clients() -> None:
    """OpenAI clients show error.message, FastAPI's show detail; the code is a header as well."""
    head, body, keeps = await served(refusing(errors.QueueFull("max_waiting is 100")), get())

    assert b"HTTP/1.1 503 Service Unavailable" == head[0]
    assert b"Autostart-Error: queue-full" in head
    assert b"X-Request-ID: id-1" in head
    assert b"Cache-Control: no-store" in head
    assert b"Content-Type: application/json" in head
    assert not [line for line in head if line.startswith((b"Server", b"Retry-After"))]
    assert {
        "error": {
            "message": "max_waiting is 100",
            "type": "server_error",
            "code": "queue-full",
            "param": None,
        },
        "detail": "max_waiting is 100",
    } == json.loads(body)
    assert keeps


async def test_a_refusal_is_html_for_browsers() -> None:
    """Short, and nothing of the message is markup."""
    head, body, _ = await served(refusing(errors.UnknownHost("no <b> here")), get(BROWSER))

    assert b"Content-Type: text/html; charset=utf-8" in head
    assert b"<h1>404 Not Found</h1><p>no &lt;b&gt; here</p>" in body


@pytest.mark.parametrize(("seconds", "header"), [(0.01, b"1"), (1.01, b"2"), (120.0, b"120")])
async def test_retry_after_is_in_whole_seconds(seconds: float, header: bytes) -> None:
    """Rounded up, never 0."""
    refusal = errors.Starting("starting", retry_after_seconds=seconds)
    head, _, _ = await served(refusing(refusal), get())

    assert b"Retry-After: " + header in head


async def test_a_refusal_to_head_has_no_body() -> None:
    """Its length is that of the body which GET would have got."""
    refusal = errors.Held("held")
    _, body, _ = await served(refusing(refusal), get())
    head, nothing, keeps = await served(refusing(refusal), get(line=b"HEAD / HTTP/1.1"), to="HEAD")

    assert b"" == nothing
    assert b"Content-Length: %d" % len(body) in head
    assert keeps


async def test_a_refusal_speaks_http_1_0() -> None:
    """The connection closes unless the client asked to keep it."""
    refusal = errors.Held("held")
    _, body, keeps = await served(refusing(refusal), get(line=b"GET / HTTP/1.0"))
    kept_head, _, _ = await served(
        refusing(refusal), get(b"Connection: keep-alive\r\n", line=b"GET / HTTP/1.0")
    )

    assert "held" == json.loads(body)["detail"]
    assert not keeps
    assert b"Connection: keep-alive" in kept_head


async def test_an_answer_for_a_sleeping_service_is_not_an_error() -> None:
    """With the map's status below 400, the body only says why."""
    head, body, _ = await served(refusing(errors.Asleep("asleep", status=200)), get())

    assert b"HTTP/1.1 200 OK" == head[0]
    assert b"Autostart-Error: asleep" in head
    assert {"detail": "asleep"} == json.loads(body)


async def test_headers_of_the_caller_are_added() -> None:
    """WWW-Authenticate, CORS."""
    handler = refusing(errors.Unauthorized("who?"), headers=[("WWW-Authenticate", "Basic")])
    head, _, _ = await served(handler, get())

    assert b"WWW-Authenticate: Basic" in head


@pytest.mark.parametrize(
    ("body", "keeps"),
    [(b"Content-Length: 2\r\n\r\nok", True), (b"Content-Length: 9\r\n\r\nok", False)],
)
async def test_an_unread_body_closes_the_connection(body: bytes, keeps: bool) -> None:
    """Unless all of it has arrived, nobody knows where the next request begins."""
    request = b"POST / HTTP/1.1\r\nHost: a\r\n" + body
    *_, kept = await served(refusing(errors.Held("held")), request)

    assert keeps is kept


async def test_a_refusal_that_a_handler_raises_is_answered() -> None:
    """Forgotten by everyone else, it still is what the client gets."""

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        raise errors.Held("held")

    head, _, keeps = await served(handle, get())

    assert b"Autostart-Error: held" in head
    assert keeps


@pytest.mark.parametrize("error", [RuntimeError("secret"), TimeoutError(), web.HTTPFound("/x")])
async def test_a_bug_is_a_500_without_a_traceback(error: Exception) -> None:
    """Logged once, with the traceback there; the client learns nothing of it."""

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        raise error

    with structlog.testing.capture_logs() as logs:
        head, body, _ = await served(handle, get())

    assert b"HTTP/1.1 500 Internal Server Error" == head[0]
    assert b"Autostart-Error: error" in head
    assert b"secret" not in body
    assert b"Traceback" not in body
    assert not [line for line in head if b"aiohttp" in line.lower()]
    assert ["error"] == [line["log_level"] for line in logs]


async def test_a_bug_in_the_middle_of_an_answer_resets_the_client() -> None:
    """What has begun cannot be taken back, and must not look whole."""

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        answer = proxy.Answer(200, [(b"Content-Length", b"10")], length=10)
        await answer.prepare(request)
        await answer.write(b"half")
        raise RuntimeError("bug")

    with structlog.testing.capture_logs() as logs:
        with pytest.raises(ConnectionResetError):
            await served(handle, get())

    assert ["error"] == [line["log_level"] for line in logs]


@on_both_loops
async def test_a_client_that_does_not_read_our_answer_is_reset() -> None:
    """No answer of ours waits for ever for its reader."""
    body = bytes(32 * 2**20)

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        return proxy.own_answer(request, 200, body, "application/octet-stream")

    loop = asyncio.get_running_loop()
    server = proxy.ProxyServer(handle, send_timeout_seconds=0.2)
    gate = await loop.create_server(server, "127.0.0.1", 0)
    client = Client(*await asyncio.open_connection(*gate.sockets[0].getsockname()))
    client.writer.transport.pause_reading()
    await client.send(get())
    while not server.connections:
        await asyncio.sleep(0)
    while server.connections:
        await asyncio.sleep(0.01)
    client.writer.transport.resume_reading()
    _, how = await client.end()
    gate.close()

    assert "reset" == how


# Heads.


@on_both_loops
async def test_a_client_that_says_nothing_is_closed() -> None:
    """Without a word, after the time for a head."""
    async with proxied(answer_at_once, head_timeout_seconds=0.2) as here:
        client = await here.client()

        assert (b"", "end") == await client.end()


@on_both_loops
async def test_a_client_that_drips_a_head_is_a_408() -> None:
    """However often it sends a byte, the head has its time in all."""
    async with proxied(answer_at_once, head_timeout_seconds=0.3) as here:
        client = await here.client()

        async def drip() -> None:
            for byte in b"GET / HTTP/1.1\r\nHost: service.test\r\nX-Slow: " + b"a" * 10_000:
                client.writer.write(bytes([byte]))
                await asyncio.sleep(0.01)  # the slowness is what is tested

        dripping = asyncio.create_task(drip())  # cancelled below
        head, _ = await client.answer()
        dripping.cancel()

        assert head.startswith(b"HTTP/1.1 408 Request Timeout\r\n")
        assert b"Autostart-Error: request-timeout\r\n" in head
        assert (b"", "end") == await client.end()
        assert [] == here.visits


@on_both_loops
async def test_a_later_head_has_its_time_as_well() -> None:
    """On a kept connection it begins with the head's first byte; waiting for it is not counted."""
    async with proxied(answer_at_once, head_timeout_seconds=0.2) as here:
        client = await here.client()
        await client.send(get())
        await client.answer()
        await asyncio.sleep(0.4)  # longer than a head may take
        await client.send(get())
        assert b"ok" == (await client.answer())[1]
        await client.send(b"GET / HTTP/1.1\r\nHost")
        head, _ = await client.answer()

        assert head.startswith(b"HTTP/1.1 408 Request Timeout\r\n")
        assert 2 == len(here.visits)


@on_both_loops
async def test_a_head_in_time_is_not_disturbed() -> None:
    """The deadline ends with the head, not with the answer."""

    async def script(visit: Visit) -> None:
        await visit.head()
        await asyncio.sleep(0.4)  # longer than a head may take
        await visit.send(OK)

    async with proxied(script, head_timeout_seconds=0.2) as here:
        client = await here.client()
        await client.send(get()[:10])
        await client.send(get()[10:])

        assert b"ok" == (await client.answer())[1]
