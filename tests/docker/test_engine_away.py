"""The engine hangs, stops, dies and returns: what is ready goes on, what is true is known again."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import aiohttp
import pytest

from tests.containers import contained, docker, name_of
from tests.daemon import HOST, Daemon, free_port, plain
from tests.private_engine import PrivateEngine, private_engine

OTHER = "other.localhost"


@pytest.fixture(scope="module")
def private() -> Iterator[PrivateEngine]:
    """One engine for all of these; each leaves it answering."""
    with TemporaryDirectory(prefix="engine") as short, private_engine(Path(short)) as engine:
        engine.load_plain_image()
        yield engine


@contextlib.asynccontextmanager
async def with_engine(
    engine: PrivateEngine, folder: Path, services: dict[str, Any], **environment: str
) -> AsyncIterator[Daemon]:
    """Run autostart in the engine's network."""
    daemon = Daemon(folder, services)
    daemon.inside, daemon.sockets = engine.inside, engine.folder
    daemon.environment = {"DOCKER_HOST": engine.host, **environment}
    daemon.write_map(services)
    try:
        await daemon.start()
        yield daemon
    finally:
        daemon.clean_up()
        engine.thaw()
        for container in docker("ps", "--all", "--quiet", host=engine.host).split():
            docker("rm", "--force", container, host=engine.host)


async def ask(daemon: Daemon, path: str = "/", host: str = HOST) -> tuple[int, str | None]:
    """Return status and Autostart-Error."""
    async with daemon.session() as session:
        url = f"http://localhost{path}"
        async with session.get(url, headers={"Host": host}) as response:
            await response.read()
            return response.status, response.headers.get("Autostart-Error")


def pair(tmp_path: Path) -> dict[str, Any]:
    return {
        HOST: contained(tmp_path / "plain", free_port(), idle="60s"),
        OTHER: contained(tmp_path / "other", free_port(), idle="60s"),
    }


async def test_a_hung_engine_keeps_nobody_from_what_is_ready(
    private: PrivateEngine, tmp_path: Path
) -> None:
    """SIGSTOP: the ready one is served, the stopped one refused in 5 s; SIGCONT heals."""
    async with with_engine(private, tmp_path, pair(tmp_path)) as daemon:
        await ask(daemon)
        private.freeze()
        began = time.monotonic()
        answers = await asyncio.gather(ask(daemon), ask(daemon, host=OTHER))
        seconds = time.monotonic() - began
        again = await ask(daemon)
        private.thaw()
        healed = await ask(daemon, host=OTHER)

    assert [(200, None), (503, "engine-unreachable")] == answers
    assert ((200, None), (200, None)) == (again, healed)
    assert seconds < 5


async def test_a_hung_engine_hides_what_others_use_from_nobody(
    private: PrivateEngine, tmp_path: Path
) -> None:
    """Within 5 s what its containers use is null, and what processes use is told."""
    services = {HOST: contained(tmp_path / "plain", free_port(), idle="60s"), OTHER: plain()}
    async with with_engine(private, tmp_path, services) as daemon:
        await asyncio.gather(ask(daemon), ask(daemon, host=OTHER))
        private.freeze()
        began = time.monotonic()
        usages = await asyncio.gather(usage(daemon), usage(daemon), ask(daemon))
        seconds = time.monotonic() - began
        private.thaw()
        await asyncio.sleep(2.1)  # what was told is told again for two seconds
        healed = await usage(daemon)

    assert usages[0] == usages[1]
    assert usages[0][HOST] is None
    assert (usages[0][OTHER] or 0) > 1_000_000
    assert usages[2] == (200, None)
    assert min(each or 0 for each in healed.values()) > 1_000_000
    assert seconds < 5


async def usage(daemon: Daemon) -> dict[str, int | None]:
    """Return the memory of what runs, by host."""
    async with daemon.session("admin") as session:
        async with session.get(f"{daemon.admin_url}/api/usage") as response:
            return {each["host"]: each["memory_bytes"] for each in await response.json()}


async def test_a_stopped_engine_and_its_return(private: PrivateEngine, tmp_path: Path) -> None:
    """SIGTERM resets the cut answer; on its return the state is true in 2 s, without back-off."""
    async with with_engine(private, tmp_path, pair(tmp_path)) as daemon:
        await ask(daemon)

        async def long_answer() -> str:
            try:
                await ask(daemon, "/drip?chunks=200&gap=0.1")
            except (aiohttp.ClientError, ConnectionError) as error:
                return type(error).__name__
            return "whole"

        cut = asyncio.create_task(long_answer())
        await asyncio.sleep(0.5)
        await asyncio.to_thread(private.stop)
        outcome = await cut
        stopped_while_away = await ask(daemon, host=OTHER)
        await asyncio.to_thread(private.start)
        await daemon.wait_for_state("stopped", seconds=2)
        served = await ask(daemon)
        failures = (await daemon.states())[HOST]["failures"]

    assert outcome in {"ClientPayloadError", "ClientOSError", "ConnectionResetError"}
    assert (503, "engine-unreachable") == stopped_while_away
    assert ((200, None), 0) == (served, failures)


async def test_an_engine_killed_at_once(private: PrivateEngine, tmp_path: Path) -> None:
    """SIGKILL leaves containers without their ports: the next request is served all the same."""
    async with with_engine(private, tmp_path, pair(tmp_path)) as daemon:
        await ask(daemon)
        await asyncio.to_thread(private.kill)
        await asyncio.to_thread(private.start)
        answer = await ask(daemon)
        other = await ask(daemon, host=OTHER)

    assert ((200, None), (200, None)) == (answer, other)


async def test_autostart_may_start_before_the_engine(
    private: PrivateEngine, tmp_path: Path
) -> None:
    """Without an engine it serves refusals; what runs when the engine comes is adopted."""
    services = pair(tmp_path)
    async with with_engine(private, tmp_path, services) as daemon:
        await ask(daemon)
        daemon.kill()
        private.freeze()
        daemon.log_path.unlink()
        began = time.monotonic()
        await daemon.start()
        refused = await ask(daemon, host=OTHER)
        private.thaw()
        await daemon.wait_for_state("ready", seconds=5)
        run = (await daemon.states())[HOST]["endpoint"]["run"]
        mine = f"name={name_of(tmp_path / 'plain')}"
        container = docker("ps", "--quiet", "--filter", mine, host=private.host)

    assert (503, "engine-unreachable") == refused
    assert run.startswith(container)
    assert time.monotonic() - began < 30


async def test_live_restore_loses_nothing(tmp_path: Path) -> None:
    """With live-restore an engine's restart cuts no answer and ends no run."""
    with TemporaryDirectory(prefix="engine") as short:
        with private_engine(Path(short), options=["--live-restore"]) as engine:
            engine.load_plain_image()
            async with with_engine(engine, tmp_path, pair(tmp_path)) as daemon:
                await ask(daemon)
                run = (await daemon.states())[HOST]["endpoint"]["run"]
                await asyncio.to_thread(engine.stop)
                await asyncio.sleep(0.5)
                await asyncio.to_thread(engine.start)
                answers = [await ask(daemon), await ask(daemon, host=OTHER)]
                same = (await daemon.states())[HOST]["endpoint"]["run"]

    assert [(200, None), (200, None)] == answers
    assert run == same
