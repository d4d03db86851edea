"""What is told of runs: each change once, whoever notices it first."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Collection, Mapping
from contextlib import aclosing
from typing import Any

import pytest

from autostart.errors import AutostartError, EngineUnreachable
from autostart.runtimes.base import Appeared, Change, Exited, Found, Lost
from autostart.runtimes.docker.container import Container
from autostart.runtimes.docker.engine import CONNECTED, EngineRefused
from autostart.runtimes.docker.watch import Watch
from tests.unit.test_runtimes_docker_container import container

HOST, OTHER = "a.example.com", "b.example.com"


class Scene:
    """An engine of which a test says what is there and what is heard."""

    def __init__(self) -> None:
        self.there: dict[str, Container | None] = {}
        self.heard: asyncio.Queue[tuple[str, dict[str, str]] | AutostartError] = asyncio.Queue()
        self.held: asyncio.Event | None = None  # a look has seen, and has not answered yet
        self.looks = 0
        self.watch = Watch(self, self.look, self.hosts_of, lambda: None)  # type: ignore[arg-type]  # a stand-in
        self.watch.declare({HOST: 8001, OTHER: 8002})

    async def ping(self) -> None:
        pass

    async def events(self) -> AsyncGenerator[tuple[str, dict[str, str]]]:
        yield CONNECTED, {}
        while True:
            heard = await self.heard.get()
            if isinstance(heard, AutostartError):
                raise heard
            yield heard

    async def look(self, hosts: Collection[str]) -> Mapping[str, Container | None]:
        self.looks += 1
        seen = {host: self.there.get(host) for host in hosts}
        if self.held is not None:
            await self.held.wait()
        return seen

    def hosts_of(self, labels: Mapping[str, str]) -> Collection[str]:
        return labels.values()

    def up(self, host: str, started_at: str = "1", **values: Any) -> Container:
        self.there[host] = container(
            "web", id=f"{host}-id", status="running", started_at=started_at, **values
        )
        found = self.there[host]
        assert found is not None
        return found

    def down(self, host: str, **values: Any) -> None:
        before = self.there[host]
        assert before is not None
        known = {"id": before.id, "started_at": before.started_at, "status": "exited"}
        self.there[host] = container("web", **{**known, **values})

    def happens(self, host: str, kind: str = "any") -> None:
        self.heard.put_nowait((kind, {"host": host}))

    async def told(self, count: int) -> list[Change]:
        changes = []
        async with asyncio.timeout(5), aclosing(self.watch.changes()) as stream:
            while len(changes) < count:
                changes.append(await anext(stream))
        return changes


async def test_a_run_that_appears_is_told():
    """What nobody asked us to start is told with its endpoint."""
    scene = Scene()
    scene.up(HOST)

    (change,) = await scene.told(1)

    assert isinstance(change, Appeared)
    assert (change.host, change.endpoint.port) == (HOST, 8001)


async def test_a_run_of_ours_is_not_told():
    """Who started it knows; the first news is its end."""
    scene = Scene()
    endpoint = scene.watch.saw(HOST, scene.up(HOST), ours=True)
    scene.down(HOST, exit_code=3)

    assert endpoint is not None
    assert await scene.told(1) == [Exited(HOST, endpoint.run, "exit code 3")]


async def test_a_restart_by_hand_is_an_end_and_a_new_run():
    """One id, two dates: two runs."""
    scene = Scene()
    first = scene.watch.saw(HOST, scene.up(HOST), ours=True)
    scene.up(HOST, started_at="2")

    ended, appeared = await scene.told(2)

    assert first is not None
    assert ended == Exited(HOST, first.run, "replaced by another run")
    assert isinstance(appeared, Appeared)
    assert appeared.endpoint.run != first.run


async def test_a_removed_container_is_the_end_of_its_run():
    """Nothing is there any more."""
    scene = Scene()
    first = scene.watch.saw(HOST, scene.up(HOST), ours=True)
    scene.there.clear()

    assert first is not None
    assert await scene.told(1) == [Exited(HOST, first.run, "removed")]


async def test_a_paused_run_ends_and_goes_on_as_another():
    """It answers nobody while it is paused; unpaused, it is a run that can be asked for anew."""
    scene = Scene()
    first = scene.watch.saw(HOST, scene.up(HOST), ours=True)
    assert first is not None
    scene.down(HOST, status="paused")
    assert await scene.told(1) == [Exited(HOST, first.run, "paused")]
    scene.up(HOST)

    (change,) = await scene.told(1)

    assert isinstance(change, Appeared)
    assert change.endpoint.run == f"{first.run}+1"


async def test_a_start_under_way_tells_of_itself():
    """While a start works on a host, looks leave it alone; then they see nothing new."""
    scene = Scene()
    with scene.watch.working_on(HOST):
        found = scene.up(HOST)
        scene.happens(HOST)
        scene.up(OTHER)
        (other,) = await scene.told(1)
        scene.watch.saw(HOST, found, ours=True)
    scene.down(OTHER)
    scene.happens(OTHER)

    (change,) = await scene.told(1)

    assert isinstance(other, Appeared)
    assert (other.host, change.host) == (OTHER, OTHER)


async def test_an_engine_that_returns_tells_of_every_run_again():
    """Lost, Found, then what is there: who gave a run up meanwhile hears that it lives."""
    scene = Scene()
    endpoint = scene.watch.saw(HOST, scene.up(HOST), ours=True)
    scene.heard.put_nowait(EngineUnreachable("gone"))

    changes = await scene.told(3)

    assert endpoint is not None
    assert changes == [Lost("gone"), Found(), Appeared(HOST, endpoint)]


async def test_a_loss_is_told_once():
    """However often the engine fails to answer."""
    scene = Scene()
    scene.heard.put_nowait(EngineUnreachable("gone"))
    assert await scene.told(2) == [Lost("gone"), Found()]
    scene.heard.put_nowait(EngineUnreachable("gone again"))

    assert await scene.told(2) == [Lost("gone again"), Found()]


async def test_undeclared_services_are_neither_watched_nor_told():
    """What has left the map is nobody's."""
    scene = Scene()
    scene.watch.saw(HOST, scene.up(HOST), ours=True)
    scene.watch.declare({OTHER: 8002})
    scene.down(HOST)
    scene.up(OTHER)

    (change,) = await scene.told(1)

    assert isinstance(change, Appeared)
    assert change.host == OTHER


async def test_one_event_is_one_look():
    """A quiet fleet is not looked at again and again."""
    scene = Scene()
    scene.up(HOST)
    await scene.told(1)
    before = scene.looks
    scene.down(HOST)

    await scene.told(1)

    assert scene.looks == before + 1


async def test_what_happens_during_a_look_is_looked_at_too():
    """A look that saw it running a moment before it died is not the last word."""
    scene = Scene()
    scene.watch.saw(HOST, scene.up(HOST), ours=True)
    scene.held = asyncio.Event()
    telling = asyncio.ensure_future(scene.told(1))
    while not scene.looks:
        await asyncio.sleep(0)
    scene.down(HOST, exit_code=137)
    scene.happens(HOST, "die")
    await asyncio.sleep(0.01)
    scene.held.set()

    assert [Exited(HOST, "a.example.co.1", "killed by SIGKILL")] == await telling


async def test_a_look_does_not_overrule_a_start_that_it_slept_through():
    """What was seen before a start began and ended says nothing about its run."""
    scene = Scene()
    scene.up(HOST)
    scene.down(HOST)
    scene.held = asyncio.Event()
    telling = asyncio.ensure_future(scene.told(1))
    while not scene.looks:
        await asyncio.sleep(0)
    with scene.watch.working_on(HOST):
        endpoint = scene.watch.saw(HOST, scene.up(HOST, "2"), ours=True)
    scene.held.set()
    await asyncio.sleep(0.01)
    assert scene.watch.runs(HOST)
    scene.down(HOST, exit_code=1)
    scene.happens(HOST)

    assert endpoint is not None
    assert [Exited(HOST, endpoint.run, "exit code 1")] == await telling


@pytest.mark.parametrize("error", [EngineUnreachable("gone"), EngineRefused("503 from a proxy")])
async def test_no_answer_of_the_engine_makes_us_deaf(error: AutostartError):
    """Whatever it says instead of events: lost, then found, and what was missed."""
    scene = Scene()
    endpoint = scene.watch.saw(HOST, scene.up(HOST), ours=True)
    scene.heard.put_nowait(error)
    telling = asyncio.ensure_future(scene.told(3))
    await asyncio.sleep(0.01)
    scene.down(HOST, exit_code=1)

    assert endpoint is not None
    expected = [Lost(error.message), Found(), Exited(HOST, endpoint.run, "exit code 1")]
    assert expected == await telling


async def test_a_bug_in_listening_is_heard_of():
    """It ends the changes, so that whoever listens tells of it and begins again."""
    scene = Scene()

    async def broken() -> AsyncGenerator[tuple[str, dict[str, str]]]:
        raise ZeroDivisionError
        yield CONNECTED, {}

    scene.events = broken  # type: ignore[method-assign]  # the bug
    with pytest.raises(ZeroDivisionError):
        await scene.told(1)
