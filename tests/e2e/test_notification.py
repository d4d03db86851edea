"""What autostart tells a service manager, over a real datagram socket in the abstract space."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import uuid
from pathlib import Path

from tests.daemon import HOST, Daemon, plain


class Manager:
    """Listens as systemd does; `heard` has every message in order."""

    def __init__(self) -> None:
        self.name = f"autostart-{uuid.uuid4().hex}"
        self.heard: list[list[str]] = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(f"\0{self.name}")
        self._socket.setblocking(False)

    async def hear(self, line: str, seconds: float = 20) -> list[str]:
        """Wait for a message with this line, from now on, and return it."""
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(seconds):
            while True:
                message = (await loop.sock_recv(self._socket, 4096)).decode().splitlines()
                self.heard.append(message)
                if line in message:
                    return message

    def drain(self) -> None:
        """Take what was sent until now."""
        with contextlib.suppress(BlockingIOError):
            while True:
                self.heard.append(self._socket.recv(4096).decode().splitlines())

    def close(self) -> None:
        self._socket.close()


async def test_a_manager_hears_of_every_turn(tmp_path: Path) -> None:
    """READY once it accepts, the watchdog's beat, how services stand, a reload, and the end."""
    manager = Manager()
    daemon = Daemon(tmp_path, {HOST: plain()}, proxy={"drain_timeout": "7s"})
    daemon.environment = {"NOTIFY_SOCKET": f"@{manager.name}", "WATCHDOG_USEC": "400000"}
    try:
        starting = asyncio.ensure_future(daemon.start())
        ready = await manager.hear("READY=1")
        _, writer = await asyncio.open_connection("127.0.0.1", daemon.port)
        writer.close()
        await starting
        await manager.hear("WATCHDOG=1")
        async with daemon.session() as session:
            async with session.get(daemon.url, headers={"Host": HOST}) as response:
                answered = response.status
        await manager.hear("STATUS=1 ready")
        daemon.hang_up()
        reloading = await manager.hear("RELOADING=1")
        await manager.hear("READY=1")
        await asyncio.to_thread(daemon.terminate)
        stopping = await manager.hear("STOPPING=1")
    finally:
        daemon.clean_up()
        manager.close()

    assert ["READY=1", "STATUS=1 stopped"] == ready
    assert 200 == answered
    assert reloading[1].startswith("MONOTONIC_USEC=")
    assert "EXTEND_TIMEOUT_USEC=27000000" in stopping


async def test_a_manager_that_is_gone_hinders_nothing(tmp_path: Path) -> None:
    """A socket that nobody reads any more costs no start, no request and no end."""
    daemon = Daemon(tmp_path, {HOST: plain()})
    daemon.environment = {"NOTIFY_SOCKET": str(tmp_path / "nobody")}
    try:
        await daemon.start()
        status = await asyncio.to_thread(daemon.terminate)
    finally:
        daemon.clean_up()

    assert 0 == status


async def test_a_reload_during_the_end_is_refused(tmp_path: Path) -> None:
    """While answers in flight end, nothing tells the manager that autostart is ready again."""
    manager = Manager()
    daemon = Daemon(tmp_path, {HOST: plain()})
    daemon.environment = {"NOTIFY_SOCKET": f"@{manager.name}"}
    try:
        await daemon.start()
        await manager.hear("READY=1")
        async with daemon.session(headers={"Host": HOST}) as session:
            async with session.get(f"{daemon.url}/drip?chunks=20&gap=0.1") as response:
                ending = asyncio.ensure_future(asyncio.to_thread(daemon.terminate))
                await manager.hear("STOPPING=1")
                told = len(manager.heard)
                daemon.hang_up()
                await daemon.wait_for_log("reload-refused")
                answered = await response.read()
        await ending
        manager.drain()
    finally:
        daemon.clean_up()
        manager.close()

    assert answered
    assert [] == [each for each in manager.heard[told:] if {"READY=1", "RELOADING=1"} & set(each)]
