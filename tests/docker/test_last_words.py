"""What an operator sees of containers: what they use, and the last words of those that failed."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import aiohttp

from tests.containers import contained
from tests.daemon import HOST, Daemon, free_port, running


async def shown(client: aiohttp.ClientSession, daemon: Daemon, path: str) -> Any:
    async with client.get(daemon.admin_url + path) as response:
        assert response.status == 200, await response.text()
        return await response.json()


async def ask(client: aiohttp.ClientSession, daemon: Daemon) -> int:
    async with client.get(f"{daemon.url}/echo", headers={"Host": HOST}) as response:
        return response.status


async def test_what_a_container_uses_is_told(tmp_path: Path, client: aiohttp.ClientSession) -> None:
    """The engine's figures, and what it usually takes once it sleeps."""
    service = contained(tmp_path / "plain", free_port(), idle="1s")
    async with running(tmp_path, {HOST: service}) as daemon:
        status = await ask(client, daemon)
        [usage] = await shown(client, daemon, "/api/usage")
        await daemon.wait_for_state("stopped", seconds=20)
        [past] = (await shown(client, daemon, "/api/history"))["services"]

    assert status == 200
    assert usage["memory_bytes"] > 1_000_000
    assert usage["cpu_seconds"] > 0
    assert past["memory_bytes_usual"] > 1_000_000
    assert [start["outcome"] for start in past["starts"]] == ["ready"]


async def test_the_last_lines_of_a_container_that_failed_are_kept(
    tmp_path: Path, client: aiohttp.ClientSession
) -> None:
    """The operator sees them beside the failure, without a look at the engine."""
    refusing = {"environment": {"PYTHONUNBUFFERED": "1"}}
    service = contained(
        tmp_path / "plain", free_port(), "--exit-if-file", "/etc/hostname", container=refusing
    )
    async with running(tmp_path, {HOST: service}) as daemon:
        status = await ask(client, daemon)
        deadline = time.monotonic() + 10
        while not (failed := await shown(client, daemon, f"/api/services/{HOST}"))["failure_log"]:
            assert time.monotonic() < deadline, failed
            await asyncio.sleep(0.05)

    assert status == 503
    assert failed["failure"]["code"] == "start-failed"
    assert failed["failure_log"][-1] == "exiting because /etc/hostname exists"
