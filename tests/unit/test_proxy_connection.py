"""How a service's answer is read, byte by byte, without a socket."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from autostart.errors import ServiceClosed
from autostart.lifecycle import Endpoint
from autostart.proxy.connection import ServiceConnection
from autostart.proxy.inbox import HIGH_WATER_BYTES


class Transport(asyncio.Transport):
    """Remembers what it was told."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[str] = []

    def __getattribute__(self, name: str) -> Any:
        if name in {"pause_reading", "resume_reading", "abort", "close", "write_eof"}:
            return lambda: self.told.append(name)
        return super().__getattribute__(name)

    def is_closing(self) -> bool:
        return "abort" in self.told or "close" in self.told


def connected(*, is_head: bool = False) -> tuple[ServiceConnection, Transport]:
    connection = ServiceConnection(Endpoint("127.0.0.1", 1, "run-1"), is_head=is_head)
    transport = Transport()
    connection.connection_made(transport)
    return connection, transport


ANSWERS = {
    "a length": b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
    "chunks": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\nT: 1\r\n\r\n",  # noqa: E501 - one answer
    "an interim answer": (
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nX: 1\r\n\r\n"
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
    ),
    "more than its length": b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello, world",
}


@pytest.mark.parametrize("step", [1, 2, 7, 10_000])
@pytest.mark.parametrize("case", ANSWERS)
async def test_an_answer_may_come_in_any_pieces(case: str, step: int) -> None:
    """Head and body are the same however the bytes are cut."""
    connection, _ = connected()
    answer = ANSWERS[case]
    for start in range(0, len(answer), step):
        connection.data_received(answer[start : start + step])
    head = await connection.answer()

    assert (200, b"OK") == (head.status, head.reason)
    assert b"X" not in dict(head.headers)
    assert b"T" not in dict(head.headers)
    assert b"hello" == await connection.inbox.read()
    assert b"" == await connection.inbox.read()


async def test_an_answer_until_close_ends_with_the_connection() -> None:
    """Only a connection that ends in order makes it whole."""
    connection, _ = connected()
    connection.data_received(b"HTTP/1.1 200 OK\r\n\r\nhello")
    assert not connection.inbox.is_complete
    connection.connection_lost(None)

    assert b"hello" == await connection.inbox.read()
    assert b"" == await connection.inbox.read()


@pytest.mark.parametrize(
    "received",
    [
        b"",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhell",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n",
    ],
)
async def test_an_answer_that_breaks_off_is_a_failure(received: bytes) -> None:
    """Also when the connection ends in order."""
    connection, _ = connected()
    connection.data_received(received)
    connection.connection_lost(None)

    with pytest.raises(ServiceClosed):
        await connection.inbox.read()


async def test_head_has_no_body() -> None:
    """Whatever its length says, and even if the service sends one."""
    connection, _ = connected(is_head=True)
    connection.data_received(ANSWERS["a length"])
    head = await connection.answer()

    assert not head.has_body
    assert 5 == head.length
    assert b"" == await connection.inbox.read()


async def test_too_much_unread_holds_the_service_back() -> None:
    """Reading stops above the high-water mark and goes on once somebody took it."""
    connection, transport = connected()
    connection.data_received(b"HTTP/1.1 200 OK\r\nContent-Length: 999999999\r\n\r\n")
    connection.data_received(bytes(HIGH_WATER_BYTES))
    assert [] == transport.told
    connection.data_received(b"1")
    assert ["pause_reading"] == transport.told
    await connection.inbox.read()

    assert ["pause_reading", "resume_reading"] == transport.told


async def test_what_follows_a_switch_is_raw() -> None:
    """The bytes behind a 101 are the tunnel's, not a parser's."""
    connection, _ = connected()
    connection.data_received(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"
        b"\x81\x02hi"
    )
    connection.data_received(b"HTTP/1.1 \x00")

    assert connection.is_tunnel
    assert b"\x81\x02hiHTTP/1.1 \x00" == await connection.inbox.read()


async def test_the_first_failure_is_told() -> None:
    """What broke the exchange, not what its end looked like."""
    connection, transport = connected()
    connection.fail(TimeoutError("first"))
    connection.connection_lost(None)

    with pytest.raises(TimeoutError, match="first"):
        await connection.answer()
    assert "abort" in transport.told


def test_repr_shows_the_state() -> None:
    """What an operator sees in a debugger."""
    connection, transport = connected()
    assert "<ServiceConnection run-1 HEAD open>" == repr(connection)
    connection.data_received(ANSWERS["a length"])
    transport.close()

    assert "<ServiceConnection run-1 COMPLETE closed>" == repr(connection)
