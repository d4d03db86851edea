"""autostart/app/following.py: streams of a service's status, and when they end."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from unittest.mock import Mock

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request

from autostart import errors, proxy
from autostart.app.following import BEHIND_MAX, FOLLOWERS_MAX, STREAM_SECONDS, Following
from autostart.config import ServiceConfig
from autostart.lifecycle import Service, State
from autostart.schedule import Now
from autostart.telemetry import HEARTBEAT_SECONDS, WRITE_SECONDS, Transition
from autostart.waiting import public_status
from tests.unit.supervisor_stage import now, settle
from tests.unit.virtual_time import STARTED_AT, on_virtual_time

HOST = "files.test"
SERVICE = Service(ServiceConfig(host=HOST, name="Files"))


class Client:
    """One who follows: what has left for it, and whether it reads."""

    def __init__(self, following: Following, *, reads: bool = True) -> None:
        self.sent = b""
        self.reads = asyncio.Event()
        if reads:
            self.reads.set()
        transport = Mock()
        transport.is_closing.return_value = False
        transport.get_extra_info.return_value = None
        transport.get_write_buffer_size.return_value = 0
        transport.write.side_effect = self._take
        writer = Mock(output_size=0)
        writer.drain = self.reads.wait
        self.request: web.BaseRequest = make_mocked_request(
            "GET", "/.autostart/events", transport=transport, writer=writer
        )
        status = public_status(SERVICE, STARTED_AT)
        self.answer = asyncio.get_running_loop().create_task(
            following.follow(self.request, status, {}), name="follow"
        )

    def _take(self, data: bytes) -> None:
        self.sent += data


def transition(state: State = State.STARTING) -> Transition:
    at = Now(now(), datetime.now(UTC))
    return Transition(HOST, SERVICE, replace(SERVICE, state=state), "test", at)


@on_virtual_time
async def test_who_does_not_read_is_dropped() -> None:
    """After ten seconds: its connection is reset, and its place is free."""
    following = Following()
    client = Client(following, reads=False)
    answer = await client.answer

    assert pytest.approx(STARTED_AT + WRITE_SECONDS) == now()
    assert isinstance(answer, proxy.Answer)
    assert isinstance(answer.cut, errors.RequestTimeout)
    client.request.transport.abort.assert_called()
    following.pass_on(transition())
    assert b'"starting"' not in client.sent


@on_virtual_time
async def test_who_is_far_behind_is_dropped() -> None:
    """Nothing is kept for it without limit, and nobody waits for it."""
    following = Following()
    client, other = Client(following, reads=False), Client(following)
    await settle()
    for _ in range(BEHIND_MAX + 1):
        following.pass_on(transition())
        await settle()
    client.reads.set()
    answer = await client.answer

    assert now() < STARTED_AT + WRITE_SECONDS
    assert isinstance(answer.cut, errors.RequestTimeout)
    following.close()
    assert (await other.answer).cut is None


@on_virtual_time
async def test_stream_breathes_and_ends_by_itself() -> None:
    """A comment every fifteen seconds; after ten minutes its client has to come again."""
    client = Client(Following())
    answer = await client.answer

    assert pytest.approx(STARTED_AT + STREAM_SECONDS) == now()
    assert answer.is_complete
    assert client.sent.endswith(b"0\r\n\r\n")
    assert STREAM_SECONDS / HEARTBEAT_SECONDS == client.sent.count(b": heartbeat\n\n")


@on_virtual_time
async def test_streams_end_and_none_begins_at_a_shutdown() -> None:
    """At once, each with its last chunk; who comes then is told when to come again."""
    following = Following()
    clients = [Client(following) for _ in range(3)]
    await settle()
    following.close()
    answers = await asyncio.gather(*(client.answer for client in clients))
    late: Any = Client(following)

    assert pytest.approx(STARTED_AT, abs=0.01) == now()
    assert all(answer.is_complete for answer in answers)
    assert all(client.sent.endswith(b"}\n\n\r\n0\r\n\r\n") for client in clients)
    with pytest.raises(errors.ShuttingDown):
        await late.answer


@on_virtual_time
async def test_place_of_who_leaves_is_free() -> None:
    """So many follow at once; one that is cancelled, as one that leaves is, makes room."""
    following = Following()
    crowd = [Client(following) for _ in range(FOLLOWERS_MAX)]
    await settle()
    with pytest.raises(errors.QueueFull) as refused:
        await Client(following).answer
    crowd[0].answer.cancel()
    await settle()
    newcomer = Client(following)
    await settle()

    assert refused.value.retry_after_seconds
    assert newcomer.sent
    following.close()
    await asyncio.gather(newcomer.answer, *(client.answer for client in crowd[1:]))
