"""What an operator sees of the last days, over restarts, through the installed CLI."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import aiohttp

from tests.daemon import HOST, Daemon, plain, running

HEADERS = {"Host": HOST}
COMPLAINT = "the model file is broken"


async def shown(client: aiohttp.ClientSession, daemon: Daemon, path: str) -> Any:
    async with client.get(daemon.admin_url + path) as response:
        assert response.status == 200, await response.text()
        return await response.json()


async def past(client: aiohttp.ClientSession, daemon: Daemon) -> dict[str, Any]:
    history = await shown(client, daemon, "/api/history")
    first: dict[str, Any] = history["services"][0]
    return first


async def ask(client: aiohttp.ClientSession, daemon: Daemon) -> tuple[int, str]:
    async with client.get(f"{daemon.url}/echo", headers=HEADERS) as response:
        return response.status, await response.text()


async def test_starts_and_sleep_outlive_a_kill(
    tmp_path: Path, client: aiohttp.ClientSession
) -> None:
    """kill -9, and the next autostart tells the starts of the one before it."""
    async with running(tmp_path, {HOST: plain("--ready-after", "0.2", idle="1s")}) as daemon:
        assert (await ask(client, daemon))[0] == 200
        await daemon.wait_for_state("stopped")
        before = await past(client, daemon)
        daemon.kill()
        await daemon.start()
        after = await past(client, daemon)
        await ask(client, daemon)
        later = await past(client, daemon)

    [start] = before["starts"]
    assert (start["outcome"], start["cause"]) == ("ready", "request GET /echo")
    assert start["phases"]["loading"] > 0.1
    assert start["seconds"] == round(sum(start["phases"].values()), 3)
    assert after["starts"] == before["starts"]
    assert [each["outcome"] for each in later["starts"]] == ["ready", "ready"]


async def test_what_runs_is_measured_and_remembered(
    tmp_path: Path, client: aiohttp.ClientSession
) -> None:
    """Memory now, its usual memory after an orderly restart, and so what its sleep saves."""
    async with running(tmp_path, {HOST: plain(idle="1s")}) as daemon:
        await ask(client, daemon)
        [usage] = await shown(client, daemon, "/api/usage")
        await daemon.wait_for_state("stopped")
        nothing = await shown(client, daemon, "/api/usage")
        assert daemon.terminate() == 0
        await daemon.start()
        after = await past(client, daemon)

    assert usage["host"] == HOST
    assert 1_000_000 < usage["memory_bytes"] < 1_000_000_000
    assert usage["cpu_seconds"] > 0
    assert nothing == []
    assert 0.5 < after["memory_bytes_usual"] / usage["memory_bytes"] < 2
    assert after["awake_seconds"] > 0


async def test_files_that_are_broken_cost_their_content(
    tmp_path: Path, client: aiohttp.ClientSession
) -> None:
    """autostart serves, and says once what it could not read."""
    state = tmp_path / "state"
    state.mkdir()
    for name in ("starts.jsonl", "days.json", "learned.json"):
        (state / name).write_bytes(b"\xff\x00[" * 1_000)
    async with running(tmp_path, {HOST: plain()}) as daemon:
        status, _ = await ask(client, daemon)
        after = await past(client, daemon)
        told = [entry["event"] for entry in daemon.log() if "unreadable" in entry["event"]]

    assert status == 200
    assert len(after["starts"]) == 1
    assert sorted(told) == ["days-unreadable", "learned-unreadable", "starts-unreadable"]


async def test_the_operator_sees_the_last_words_of_a_start_and_the_client_does_not(
    tmp_path: Path, client: aiohttp.ClientSession
) -> None:
    """The lines that it wrote before it failed stand beside the failure, on the admin listener."""
    program = f"import time; print({COMPLAINT!r}, flush=True); time.sleep(0.2); raise SystemExit(3)"
    service = {"command": ["{python}", "-c", program], "port": 0, "start_timeout": "10s"}
    async with running(tmp_path, {HOST: service}) as daemon:
        status, body = await ask(client, daemon)
        deadline = time.monotonic() + 10
        while not (failed := await shown(client, daemon, f"/api/services/{HOST}"))["failure_log"]:
            assert time.monotonic() < deadline, failed
            await asyncio.sleep(0.05)

    assert status == 503
    assert COMPLAINT not in body
    assert failed["failure"]["code"] == "start-failed"
    assert failed["failure_log"] == [COMPLAINT]


async def test_a_page_sees_a_service_change_without_asking(
    tmp_path: Path, client: aiohttp.ClientSession
) -> None:
    """One stream tells every state of a service, from asleep to asleep, at most twice a second."""
    told: list[tuple[float, dict[str, Any]]] = []
    async with running(tmp_path, {HOST: plain("--ready-after", "0.3", idle="2s")}) as daemon:

        def take(line: bytes) -> None:
            if line.startswith(b"data:") and b'"leases"' in line:
                told.append((time.monotonic(), json.loads(line.removeprefix(b"data:"))))

        async def follow() -> None:
            url = f"{daemon.admin_url}/api/events?last_event_id=0"
            async with client.get(url) as response:
                async for line in response.content:
                    take(line)

        following = asyncio.ensure_future(follow())
        for _ in range(200):
            assert (await ask(client, daemon))[0] == 200
        await daemon.wait_for_state("stopped")
        deadline = time.monotonic() + 10
        while len(told) < 3 or told[-1][1]["state"] != "stopped":
            assert time.monotonic() < deadline, told
            await asyncio.sleep(0.05)
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)

    states = [service["state"] for _, service in told]
    assert {"stopped", "starting", "ready"} <= set(states)
    assert states[-1] == "stopped"
    assert len(told) <= 2 + 2 * (told[-1][0] - told[0][0])
