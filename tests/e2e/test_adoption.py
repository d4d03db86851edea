"""autostart may die at any moment: what runs goes on, and the next autostart takes it over."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import aiohttp

from tests.daemon import HOST, Daemon, plain

OTHER = "other.localhost"


async def pid_of(daemon: Daemon, host: str = HOST) -> int:
    """Return the pid of the run that answers."""
    async with aiohttp.ClientSession() as session:
        async with session.get(daemon.url + "/echo", headers={"Host": host}) as response:
            assert response.status == 200, await response.text()
            return int((await response.json())["pid"])


async def test_kill_nine_loses_track_of_nothing(tmp_path: Path) -> None:
    """After kill -9 with one service ready and one starting, both are adopted, served, stopped."""
    services = {HOST: plain(idle="3s"), OTHER: plain("--ready-after", "3", idle="3s")}
    daemon = Daemon(tmp_path, services)
    try:
        await daemon.start()
        ready_pid = await pid_of(daemon)
        starting = asyncio.create_task(pid_of(daemon, OTHER))
        await daemon.wait_for_state("starting", OTHER)
        await asyncio.sleep(0.3)
        starting_pids = {process.pid for process in daemon.children()} - {ready_pid}
        daemon.kill()
        await asyncio.gather(starting, return_exceptions=True)
        daemon.log_path.unlink()
        await daemon.start()

        assert ready_pid == await pid_of(daemon)
        assert {await pid_of(daemon, OTHER)} == starting_pids
        await daemon.wait_for_state("stopped", seconds=10)
        await daemon.wait_for_state("stopped", OTHER, seconds=10)
        assert [] == daemon.children()
    finally:
        daemon.clean_up()


async def test_sigterm_leaves_services_running(tmp_path: Path) -> None:
    """An orderly end stops no service; the next autostart finds the same run."""
    daemon = Daemon(tmp_path, {HOST: plain(idle="60s")})
    try:
        await daemon.start()
        pid = await pid_of(daemon)
        assert 0 == daemon.terminate()
        daemon.log_path.unlink()
        await daemon.start()

        assert pid == await pid_of(daemon)
    finally:
        daemon.clean_up()


async def test_an_answer_in_flight_survives_the_shutdown(tmp_path: Path) -> None:
    """At SIGTERM answers in flight end, held requests get 503 shutting-down, and it exits 0."""
    services = {HOST: plain(), OTHER: plain("--ready-hangs", start_timeout="60s")}
    daemon = Daemon(tmp_path, services)
    try:
        await daemon.start()
        async with aiohttp.ClientSession() as session:

            async def ask(path: str, host: str) -> tuple[int, str, str | None]:
                url = daemon.url + path
                async with session.get(url, headers={"Host": host}) as response:
                    error = response.headers.get("Autostart-Error")
                    return response.status, await response.text(), error

            answer = asyncio.create_task(ask("/slow?seconds=2", HOST))
            held = asyncio.create_task(ask("/", OTHER))
            await daemon.wait_for_state("ready")
            await daemon.wait_for_state("starting", OTHER)
            await asyncio.sleep(0.2)
            began = time.monotonic()
            assert daemon.process is not None
            daemon.process.terminate()
            refused = await held
            refused_after = time.monotonic() - began

            assert (503, "shutting-down") == (refused[0], refused[2])
            assert refused_after < 1
            assert (200, "slow", None) == await answer
            status = await asyncio.to_thread(daemon.process.wait, 10)
            assert 0 == status
    finally:
        daemon.clean_up()


async def test_a_second_autostart_on_the_same_state_refuses(tmp_path: Path) -> None:
    """Two autostarts on one state folder would start everything twice: the second exits 1."""
    daemon = Daemon(tmp_path, {HOST: plain()})
    try:
        await daemon.start()
        status, text = await daemon.run_cli("serve")

        assert 1 == status
        assert "serves already" in text
        assert "hint:" in text
    finally:
        daemon.clean_up()
