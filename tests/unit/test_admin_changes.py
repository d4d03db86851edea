"""What followers are told of services that change, and how often."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from itertools import pairwise
from typing import Any

from autostart.admin.changes import TOLD_EVERY_SECONDS, Changes
from tests.unit.virtual_time import on_virtual_time

A, B = "a.localhost", "b.localhost"


class Fleet:
    """Services that are a number, which grows with each change; and how often each was shown."""

    def __init__(self) -> None:
        self.watchers: list[Callable[[str], None]] = []
        self.numbers: dict[str, int] = {A: 0, B: 0}
        self.shown = 0

    def answer(self, host: str) -> dict[str, Any] | None:
        self.shown += 1
        return {"host": host, "n": self.numbers[host]} if host in self.numbers else None

    def change(self, host: str) -> None:
        self.numbers[host] += 1
        self.touch(host)

    def touch(self, host: str) -> None:
        for watch in self.watchers:
            watch(host)


class Page:
    """What one follower was told, with the time."""

    def __init__(self) -> None:
        self.told: list[tuple[float, str, Any]] = []

    def take(self, host: str, text: str) -> None:
        event, data = (line.partition(": ")[2] for line in text.splitlines()[:2])
        assert host in data
        body = json.loads(data)
        self.told.append((asyncio.get_running_loop().time(), event, body.get("n", host)))

    def numbers(self) -> list[Any]:
        return [number for _, _, number in self.told]


@on_virtual_time
async def test_who_begins_to_follow_is_told_everything() -> None:
    """Each service once, so that a page needs no other question."""
    fleet, page = Fleet(), Page()
    Changes(fleet.watchers, fleet.answer).follow(page.take, [A, B])

    assert [event for _, event, _ in page.told] == ["service", "service"]
    assert page.numbers() == [0, 0]


@on_virtual_time
async def test_the_first_change_is_told_at_once() -> None:
    """All changes of one step of the fleet are one event, with how it then stands."""
    fleet, page = Fleet(), Page()
    Changes(fleet.watchers, fleet.answer).follow(page.take, [])
    began = asyncio.get_running_loop().time()
    for _ in range(3):
        fleet.change(A)
    await asyncio.sleep(0.001)

    assert [(told - began < 0.001, number) for told, _, number in page.told] == [(True, 3)]


@on_virtual_time
async def test_a_service_that_always_changes_is_told_twice_a_second() -> None:
    """However often it changes, and the last change is never lost."""
    fleet, page = Fleet(), Page()
    Changes(fleet.watchers, fleet.answer).follow(page.take, [])
    for _ in range(1_000):
        fleet.change(A)
        await asyncio.sleep(0.002)
    await asyncio.sleep(TOLD_EVERY_SECONDS)
    times = [told for told, _, _ in page.told]

    assert len(times) == 5
    assert min(round(b - a, 6) for a, b in pairwise(times)) >= TOLD_EVERY_SECONDS
    assert page.numbers()[-1] == 1_000


@on_virtual_time
async def test_what_a_service_looks_like_is_worked_out_once_for_all() -> None:
    """Ten pages cost no more looks than one."""
    fleet, pages = Fleet(), [Page() for _ in range(10)]
    changes = Changes(fleet.watchers, fleet.answer)
    for page in pages:
        changes.follow(page.take, [])
    fleet.change(B)
    await asyncio.sleep(1)

    assert fleet.shown == 1
    assert [page.numbers() for page in pages] == [[1]] * 10


@on_virtual_time
async def test_a_service_that_left_the_map_is_told_as_removed() -> None:
    """With its host; there is nothing else to say about it."""
    fleet, page = Fleet(), Page()
    Changes(fleet.watchers, fleet.answer).follow(page.take, [])
    del fleet.numbers[A]
    fleet.touch(A)
    await asyncio.sleep(0.001)

    assert [(event, what) for _, event, what in page.told] == [("removed", A)]


@on_virtual_time
async def test_nobody_who_follows_costs_the_fleet_nothing() -> None:
    """It is watched only while somebody follows; who left is told no more."""
    fleet, page = Fleet(), Page()
    changes = Changes(fleet.watchers, fleet.answer)
    before = len(fleet.watchers)
    changes.follow(page.take, [])
    during = len(fleet.watchers)
    fleet.change(A)
    changes.leave(page.take)
    changes.mark(A)
    await asyncio.sleep(1)

    assert (before, during, len(fleet.watchers)) == (0, 1, 0)
    assert (page.told, fleet.shown) == ([], 0)


@on_virtual_time
async def test_one_who_leaves_ends_nothing_for_the_others() -> None:
    """The fleet is watched until the last one has left."""
    fleet, stays, leaves = Fleet(), Page(), Page()
    changes = Changes(fleet.watchers, fleet.answer)
    changes.follow(stays.take, [])
    changes.follow(leaves.take, [])
    changes.leave(leaves.take)
    fleet.change(A)
    await asyncio.sleep(1)

    assert (stays.numbers(), leaves.numbers()) == ([1], [])
