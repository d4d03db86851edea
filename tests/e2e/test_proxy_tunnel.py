"""WebSockets: what passes between a client and a service after the 101, and what does not begin."""

from __future__ import annotations

import asyncio

import pytest

from autostart import errors, proxy
from tests.e2e.proxied import Client, Proxied, Visit, on_both_loops, proxied

OPEN = (
    b"GET /socket?x HTTP/1.1\r\nHost: service.test\r\nConnection: keep-alive, Upgrade\r\n"
    b"Upgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\n"
)
SWITCHED = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nAutostart-Error: x\r\n\r\n"
)
# A ping, a pong, a text, a binary and a close frame, and bytes that are no frame at all.
FRAMES = b"\x89\x00\x8a\x00\x81\x02hi\x82\x01\xff\x88\x02\x03\xe8" + bytes(range(256))


async def echo(visit: Visit) -> None:
    await visit.head()
    await visit.send(SWITCHED)
    while data := await visit.reader.read(2**16):
        await visit.send(data)


async def opened(here: Proxied) -> tuple[Client, bytes]:
    client = await here.client()
    await client.send(OPEN)
    return client, await client.until(b"\r\n\r\n")


@on_both_loops
async def test_the_handshake_is_relayed() -> None:
    """The service gets Upgrade and Connection again, the client the service's answer to them."""
    async with proxied(echo) as here:
        _, head = await opened(here)
        received = here.visits[0].received.split(b"\r\n")

        assert b"GET /socket?x HTTP/1.1" == received[0]
        assert [b"Connection: Upgrade", b"Upgrade: websocket"] == received[-4:-2]
        assert b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==" in received
        assert b"Sec-WebSocket-Extensions: permessage-deflate" in received
        assert head.startswith(b"HTTP/1.1 101 Switching Protocols\r\n")
        assert head.endswith(b"\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n")
        assert b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n" in head
        assert b"Autostart-Error" not in head
        assert [101] == here.answered


@on_both_loops
async def test_every_byte_passes_both_ways() -> None:
    """Frames of every kind, and what is none, come back as they were sent."""
    async with proxied(echo) as here:
        client, _ = await opened(here)
        for _ in range(3):
            await client.send(FRAMES)
            assert FRAMES == await client.exactly(len(FRAMES))


@on_both_loops
async def test_large_messages_pass_both_ways() -> None:
    """30 MB through an echo, with back-pressure and without a limit of ours."""
    message = FRAMES * 110_000

    async with proxied(echo) as here:
        client, _ = await opened(here)
        _, echoed = await asyncio.gather(client.send(message), client.exactly(len(message)))

    assert message == echoed


@on_both_loops
async def test_bytes_with_the_heads_are_not_lost() -> None:
    """What either side sends together with its head arrives after the other's."""

    async def script(visit: Visit) -> None:
        await visit.head()
        await visit.send(SWITCHED + b"first of the service")
        assert b"first of the client, second" == await visit.exactly(27)
        await visit.send(b", second")
        await visit.end()

    async with proxied(script) as here:
        client = await here.client()
        await client.send(OPEN + b"first of the client")
        await client.until(b"\r\n\r\n")
        assert b"first of the service" == await client.exactly(20)
        await client.send(b", second")
        assert b", second" == await client.exactly(8)


@on_both_loops
async def test_bytes_sent_while_the_service_still_thinks_are_kept() -> None:
    """More than any buffer of ours before the 101: the client is held back, nothing is lost."""
    early = FRAMES * 20_000
    thought = asyncio.Event()

    async def script(visit: Visit) -> None:
        await visit.head()
        await thought.wait()
        await visit.send(SWITCHED)
        assert early == await visit.exactly(len(early))
        await visit.send(b"all")
        await visit.end()

    async with proxied(script) as here:
        client = await here.client()
        client.writer.write(OPEN + early)
        await here.visit()
        thought.set()
        await client.until(b"\r\n\r\n")

        assert b"all" == await client.exactly(3)


@on_both_loops
async def test_the_service_s_refusal_is_a_plain_answer() -> None:
    """A 403 to the handshake is relayed with its body, and the connection closed."""

    async def script(visit: Visit) -> None:
        await visit.head()
        await visit.send(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno")

    async with proxied(script) as here:
        client = await here.client()
        await client.send(OPEN)
        head, body = await client.answer()

        assert head.startswith(b"HTTP/1.1 403 Forbidden\r\n")
        assert b"no" == body
        assert (b"", "end") == await client.end()


@on_both_loops
async def test_a_silent_tunnel_lasts() -> None:
    """Neither request_timeout nor response_timeout ends an open WebSocket."""
    async with proxied(echo, response_timeout_seconds=0.1, request_timeout_seconds=0.1) as here:
        client, _ = await opened(here)
        await asyncio.sleep(0.5)  # five times the silence that ends anything else
        await client.send(b"still here")

        assert b"still here" == await client.exactly(10)
        assert [] == here.outcomes


async def test_a_service_that_never_switches_is_a_504() -> None:
    """Until the 101, response_timeout counts."""

    async def script(visit: Visit) -> None:
        await visit.head()
        await visit.end()

    async with proxied(script, response_timeout_seconds=0.2) as here:
        head, _ = await here.ask(OPEN)

        assert head.startswith(b"HTTP/1.1 504 ")


@on_both_loops
async def test_a_client_s_half_close_is_relayed() -> None:
    """The service sees the end, may still speak, and the tunnel ends with it."""

    async def script(visit: Visit) -> None:
        await visit.head()
        await visit.send(SWITCHED)
        assert (b"bye", "end") == await visit.end()
        await visit.send(b"goodbye")

    async with proxied(script) as here:
        client, _ = await opened(here)
        await client.send(b"bye")
        client.finish()

        assert (b"goodbye", "end") == await client.end()
        assert isinstance(await here.outcome(), proxy.Answer)


@on_both_loops
async def test_a_service_s_half_close_is_relayed() -> None:
    """The client sees the end, may still speak, and the tunnel ends with it."""
    ending = asyncio.get_running_loop().create_future()

    async def script(visit: Visit) -> None:
        await visit.head()
        await visit.send(SWITCHED + b"bye")
        visit.finish()
        ending.set_result(await visit.end())

    async with proxied(script) as here:
        client, _ = await opened(here)
        assert (b"bye", "end") == await client.end()
        await client.send(b"goodbye")
        client.finish()

        assert (b"goodbye", "end") == await ending
        assert isinstance(await here.outcome(), proxy.Answer)


@on_both_loops
@pytest.mark.parametrize("how", ["close", "reset"])
async def test_a_client_that_leaves_ends_the_tunnel(how: str) -> None:
    """The service's side ends, and so does the lease."""
    ended = asyncio.Event()

    async def script(visit: Visit) -> None:
        await visit.head()
        await visit.send(SWITCHED)
        await visit.end()
        ended.set()

    async with proxied(script) as here:
        client, _ = await opened(here)
        if how == "close":
            await client.close()
        else:
            client.reset()
        await ended.wait()
        await here.outcome()


@on_both_loops
async def test_a_service_that_dies_resets_the_client() -> None:
    """A broken tunnel does not look like one that was closed."""

    async def script(visit: Visit) -> None:
        await visit.head()
        await visit.send(SWITCHED)
        await visit.exactly(1)
        visit.reset()

    async with proxied(script) as here:
        client, _ = await opened(here)
        await client.send(b"x")
        ending = await client.end()
        outcome = await here.outcome()

        assert (b"", "reset") == ending
        assert isinstance(outcome, proxy.Answer)
        assert isinstance(outcome.cut, errors.ServiceClosed)


@on_both_loops
async def test_what_a_service_says_before_it_dies_is_not_called_an_end() -> None:
    """A service that resets right behind its 101 gives the client a reset as well."""

    async def script(visit: Visit) -> None:
        await visit.head()
        await visit.send(SWITCHED)
        visit.reset()

    async with proxied(script) as here:
        client = await here.client()
        await client.send(OPEN)
        received, how = await client.end()

        assert how == "reset" or received.startswith(b"HTTP/1.1 502 ")


@on_both_loops
async def test_draining_cuts_a_tunnel_at_its_deadline() -> None:
    """A WebSocket would hold a shutdown up for ever; after drain_timeout it is reset."""
    async with proxied(echo) as here:
        client, _ = await opened(here)
        await client.send(b"x")
        await client.exactly(1)
        await here.server.drain(0.1)

        assert (b"", "reset") == await client.end()
