"""autostart may die at any moment: what runs goes on, and the next autostart takes it over."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import time
from datetime import datetime, timedelta
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


async def test_kill_nine_forgets_no_hold_and_no_keep(tmp_path: Path) -> None:
    """After kill -9 a held service is still held, a kept one is started and kept."""
    daemon = Daemon(tmp_path, {HOST: plain(), OTHER: plain(idle="200ms")})
    try:
        await daemon.start()
        for command in (("stop", HOST, "--hold"), ("keep", OTHER, "1h")):
            assert 0 == (await daemon.run_cli(*command))[0]
        await daemon.wait_for_state("ready", OTHER)
        kept_until = (await daemon.states())[OTHER]["kept_until"]
        daemon.kill()
        for process in daemon.children():
            process.kill()
        daemon.log_path.unlink()
        await daemon.start()
        await daemon.wait_for_state("ready", OTHER)
        await asyncio.sleep(1)

        states = await daemon.states()
        assert "ready" == states[OTHER]["state"]
        ends = [datetime.fromisoformat(end) for end in (kept_until, states[OTHER]["kept_until"])]
        assert abs(ends[0] - ends[1]) < timedelta(seconds=2)
        async with aiohttp.ClientSession() as session:
            async with session.get(daemon.url, headers={"Host": HOST}) as response:
                assert (503, "held") == (response.status, response.headers["Autostart-Error"])
        assert 0 == (await daemon.run_cli("start", HOST))[0]
        assert await pid_of(daemon)
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


async def test_an_address_that_is_taken_touches_nothing(tmp_path: Path) -> None:
    """serve exits 1 naming the key; what should be up is not started, what runs is not stopped."""
    daemon = Daemon(tmp_path, {HOST: plain(idle="never"), OTHER: plain()})
    try:
        await daemon.start()
        await daemon.wait_for_state("ready")
        wanted, other = await pid_of(daemon), await pid_of(daemon, OTHER)
        daemon.kill()
        os.kill(wanted, signal.SIGKILL)
        with socket.socket() as stranger:
            stranger.bind(("127.0.0.1", daemon.admin_port))
            stranger.listen()
            status, text = await daemon.run_cli("serve")

        assert 1 == status
        assert "admin.listen" in text
        assert "starting" not in text
        assert [other] == [process.pid for process in daemon.children()]
    finally:
        daemon.clean_up()


async def test_who_connects_during_adoption_is_served(tmp_path: Path) -> None:
    """From the first moment that the address is bound a connection waits; none is refused."""
    daemon = Daemon(tmp_path, {HOST: plain()})
    try:
        await daemon.start()
        pid = await pid_of(daemon)
        daemon.kill()
        daemon.log_path.unlink()
        starting = asyncio.create_task(daemon.start())
        while True:
            try:
                first = await pid_of(daemon)
                break
            except aiohttp.ClientConnectorError:
                await asyncio.sleep(0.01)
        await starting

        assert pid == first
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
