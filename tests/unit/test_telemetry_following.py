"""What one client that follows is told, in which order, and when it is given up."""

from __future__ import annotations

import asyncio

from autostart.telemetry import Follower, event_text
from tests.unit.virtual_time import on_virtual_time


@on_virtual_time
async def test_events_come_in_their_order() -> None:
    """Each once; then there is silence for as long as is asked."""
    follower: Follower[str] = Follower()
    for event in ("one", "two"):
        follower.take(event)
    began = asyncio.get_running_loop().time()

    assert [await follower.next(5) for _ in range(3)] == ["one", "two", None]
    assert asyncio.get_running_loop().time() - began >= 5


@on_virtual_time
async def test_who_waits_is_told_at_once() -> None:
    """Nobody looks again and again."""
    follower: Follower[str] = Follower()
    waiting = asyncio.ensure_future(follower.next(60))
    await asyncio.sleep(1)
    follower.take("one")
    began = asyncio.get_running_loop().time()

    assert await waiting == "one"
    assert asyncio.get_running_loop().time() == began


@on_virtual_time
async def test_what_is_not_read_is_bounded() -> None:
    """A client that is so far behind is late, and is let go by whoever serves it."""
    follower: Follower[str] = Follower(queue_max=2)
    late = []
    for event in ("one", "two", "three"):
        follower.take(event)
        late.append(follower.is_late)

    assert late == [False, False, True]
    assert [await follower.next(0.1) for _ in range(3)] == ["one", "two", None]


@on_virtual_time
async def test_only_the_newest_about_a_subject_is_told() -> None:
    """A slow client is told how things stand, not how they stood; it is never late for that."""
    follower: Follower[str] = Follower(queue_max=2)
    for number in range(1_000):
        follower.take_newest("a", f"a {number}")
        follower.take_newest("b", f"b {number}")
    told = [await follower.next(1) for _ in range(3)]

    assert told == ["a 999", "b 999", None]
    assert not follower.is_late


@on_virtual_time
async def test_what_happened_is_told_before_how_things_stand() -> None:
    """So how they stand is never older than the last event that was told."""
    follower: Follower[str] = Follower()
    follower.take_newest("a", "stands")
    follower.take("happened")

    assert [await follower.next(1) for _ in range(2)] == ["happened", "stands"]


@on_virtual_time
async def test_an_end_is_told_at_once() -> None:
    """Whoever waits gets nothing more."""
    follower: Follower[str] = Follower()
    waiting = asyncio.ensure_future(follower.next(60))
    await asyncio.sleep(1)
    follower.end()

    assert await waiting is None
    assert follower.is_ended


def test_an_event_is_in_the_form_of_the_standard() -> None:
    """Its id only if it is kept: a browser that comes back names the last one that it saw."""
    assert event_text("a", {"n": 1}) == 'event: a\ndata: {"n": 1}\n\n'
    assert event_text("a", {"n": 1}, 7) == 'id: 7\nevent: a\ndata: {"n": 1}\n\n'
