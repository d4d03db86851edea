"""Restarts while somebody else holds the listening socket, as systemd does: nobody is refused."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.containers import skip_or_fail
from tests.crowd import Client, Crowd, close, exchange
from tests.daemon import HOST, Daemon, free_port, plain

# What a client may be told instead of an answer: it was held when autostart ended.
HELD = "503 shutting-down Retry-After: 5"

# What systemd does between fork and exec: the sockets become 3, 4, … and are meant for this pid.
HAND_OVER = """
import os, sys
fds = [os.dup(int(fd) + 0) for fd in sys.argv[1].split(",")]
for number, fd in enumerate(fds, 3):
    os.dup2(fd, number)
    os.set_inheritable(number, True)
os.environ |= {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": str(len(fds))}
if sys.argv[2]:
    os.environ["LISTEN_FDNAMES"] = sys.argv[2]
os.execv(sys.argv[3], sys.argv[3:])
"""


class Handed(Daemon):
    """An autostart that gets its listeners from us, at every start the same ones."""

    def hold(self, *sockets: socket.socket, names: str = "") -> None:
        """Hand these over from now on."""
        self.given_fds = [sock.fileno() for sock in sockets]
        numbers = ",".join(map(str, self.given_fds))
        self.inside = [sys.executable, "-c", HAND_OVER, numbers, names]


@contextlib.contextmanager
def listening(port: int) -> Iterator[socket.socket]:
    """Listen as systemd does for autostart.socket."""
    with socket.create_server(("127.0.0.1", port), backlog=4096) as sock:
        yield sock


@contextlib.asynccontextmanager
async def handed(
    folder: Path, services: dict[str, Any], *, names: str = "", **top: Any
) -> AsyncIterator[Handed]:
    """Run an autostart whose proxy's socket is ours."""
    daemon = Handed(folder, services, **top)
    with listening(daemon.port) as sock:
        daemon.hold(sock, names=names)
        try:
            await daemon.start()
            yield daemon
        finally:
            daemon.clean_up()


async def restart(daemon: Daemon, *, by_kill: bool = False) -> None:
    """End it, in the one way or the other, and start the next."""
    assert daemon.process is not None
    if by_kill:
        daemon.kill()
    else:
        daemon.process.terminate()
        await asyncio.to_thread(daemon.process.wait, 30)
    await daemon.start()


async def said(daemon: Daemon) -> str:
    """Return the name and pid of the service."""
    async with aiohttp.ClientSession(headers={"Host": HOST}) as session:
        async with session.get(daemon.url) as response:
            return await response.text()


async def more_answers(daemon: Daemon, crowd: Crowd) -> None:
    """Wait until the crowd has got two hundred more."""
    before = crowd.outcomes.total()
    await daemon._wait(lambda: crowd.outcomes.total() > before + 200, "answers", 20)


CLIENTS = (
    Client("new connections", HOST),
    Client("kept connections", HOST, keeps=True),
    Client("streams", HOST, "/drip?chunks=5&gap=0.03", keeps=True),
)
# It lets its service fall asleep between two requests.
SELDOM = Client("cold", "cold.localhost", pause_seconds=0.8)


@pytest.mark.timeout(300)
async def test_a_restart_under_load_refuses_nobody_and_loses_nothing(tmp_path: Path) -> None:
    """Through four restarts every request of 25 clients is answered, or was held and is told so."""
    services = {
        HOST: plain("--name", "plain"),
        "cold.localhost": plain("--ready-after", "0.3", idle="300ms"),
    }
    async with handed(tmp_path, services) as daemon:
        before = await said(daemon)
        crowd = Crowd(("127.0.0.1", daemon.port))
        async with crowd.asking(*CLIENTS, each=8), crowd.asking(SELDOM, each=1):
            await asyncio.sleep(1)
            for _ in range(4):
                await restart(daemon)
                await more_answers(daemon, crowd)
        print("what became of them:", dict(crowd.outcomes), f"{crowd.slowest_seconds:.1f} s")

        assert crowd.unexpected(HELD) == {}
        assert crowd.count(HELD) == crowd.count(HELD, "cold")
        assert crowd.count("200") > 800
        assert crowd.count("200", "cold") > 0
        woken = [each for each in daemon.log() if str(each.get("cause")).startswith("request ")]
        assert len([each for each in woken if each["service"] == "cold.localhost"]) > 1
        assert before == await said(daemon)


async def test_a_kill_refuses_nobody(tmp_path: Path) -> None:
    """kill -9 cuts what is under way; whoever connects meanwhile is answered by the next one."""
    async with handed(tmp_path, {HOST: plain()}) as daemon:
        crowd = Crowd(("127.0.0.1", daemon.port))
        async with crowd.asking(*CLIENTS, each=8):
            await asyncio.sleep(1)
            await restart(daemon, by_kill=True)
            await more_answers(daemon, crowd)

        assert crowd.unexpected("lost", "cut") == {}
        # At most what each client had under way.
        assert crowd.count("lost") + crowd.count("cut") <= 24


async def test_who_was_accepted_and_has_not_yet_spoken_is_answered(tmp_path: Path) -> None:
    """A request whose head arrives while autostart ends gets its answer, the last on its line."""
    async with handed(tmp_path, {HOST: plain()}) as daemon:
        connection = await asyncio.open_connection("127.0.0.1", daemon.port)
        warm = await exchange(connection, HOST, "/", keeps=True)
        silent = await asyncio.open_connection("127.0.0.1", daemon.port)
        halfway = await asyncio.open_connection("127.0.0.1", daemon.port)
        halfway[1].write(b"GET / HTTP/1.1\r\n")
        await asyncio.sleep(0.3)  # for the loop to accept them: nothing says that it has
        assert daemon.process is not None
        daemon.process.terminate()
        await daemon.wait_for_log("shutting-down")
        answers = [await exchange(each, HOST, "/", keeps=True) for each in (connection, silent)]
        # Its head is complete only after everybody else has left.
        await asyncio.sleep(0.5)
        halfway[1].write(f"Host: {HOST}\r\n\r\n".encode())
        late = await asyncio.wait_for(halfway[0].read(), 10)
        await asyncio.to_thread(daemon.process.wait, 10)
        for each in (connection, silent, halfway):
            await close(each)

        assert ("200", True) == warm
        assert [("200", False)] * 2 == answers
        assert late.startswith(b"HTTP/1.1 200 ")
        assert b"Connection: close" in late


async def test_a_connection_that_says_nothing_holds_no_restart_up(tmp_path: Path) -> None:
    """Idle connections are closed a moment after SIGTERM, long before drain_timeout."""
    async with handed(tmp_path, {HOST: plain()}, proxy={"drain_timeout": "30s"}) as daemon:
        idle = [await asyncio.open_connection("127.0.0.1", daemon.port) for _ in range(20)]
        await exchange(idle[0], HOST, "/", keeps=True)
        began = time.monotonic()
        await asyncio.to_thread(daemon.terminate)
        took = time.monotonic() - began
        for each in idle:
            await close(each)

        assert took < 5


async def test_the_end_of_an_answer_reaches_a_slow_reader(tmp_path: Path) -> None:
    """An answer that autostart has written but its client not yet read is complete all the same."""
    async with handed(tmp_path, {HOST: plain()}, proxy={"drain_timeout": "20s"}) as daemon:
        size = 20_000_000
        reader, writer = await asyncio.open_connection("127.0.0.1", daemon.port, limit=4096)
        writer.write(f"GET /bytes?size={size} HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode())
        await reader.readuntil(b"\r\n\r\n")
        assert daemon.process is not None
        daemon.process.terminate()
        await daemon.wait_for_log("shutting-down")
        await asyncio.sleep(0.5)
        received = 0
        while data := await reader.read(65536):
            received += len(data)
        await close((reader, writer))

        assert size == received


async def test_sockets_are_told_apart_by_name(tmp_path: Path) -> None:
    """LISTEN_FDNAMES says which is the proxy's, which admin's, and which a service's own door."""
    names = {"proxy": free_port(), HOST: free_port(), "admin": free_port()}
    daemon = Handed(tmp_path, {HOST: plain(listen=f"127.0.0.1:{names[HOST]}")})
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(listening(port)) for port in names.values()]
        daemon.hold(*sockets, names=":".join(names))
        try:
            await daemon.start()
            answers = {}
            async with aiohttp.ClientSession() as session:
                for name, path in (("proxy", "/"), (HOST, "/"), ("admin", "/healthz")):
                    async with session.get(f"http://127.0.0.1:{names[name]}{path}") as response:
                        answers[name] = response.status
        finally:
            daemon.clean_up()

    assert {"proxy": 404, HOST: 200, "admin": 200} == answers
    elsewhere = [entry["key"] for entry in daemon.log() if entry["event"] == "listens-elsewhere"]
    assert ["proxy.listen", "admin.listen"] == elsewhere


async def test_sockets_without_names_are_told_apart_by_address(tmp_path: Path) -> None:
    """One unit with every address of the map is enough: each socket becomes what the map says."""
    door_port = free_port()
    daemon = Handed(tmp_path, {HOST: plain(listen=f"127.0.0.1:{door_port}")})
    with listening(door_port) as door, listening(daemon.port) as front:
        daemon.hold(door, front, names="autostart.socket:autostart.socket")
        try:
            await daemon.start()
            async with aiohttp.ClientSession() as session:
                async with session.get(f"http://127.0.0.1:{door_port}/") as response:
                    at_door = response.status
                async with session.get(f"{daemon.url}/") as response:
                    at_proxy = response.status
        finally:
            daemon.clean_up()

    assert (200, 404) == (at_door, at_proxy)


async def test_an_unknown_name_is_refused_in_a_line(tmp_path: Path) -> None:
    """A socket that the map knows nothing of ends the start, and the line says what is allowed."""
    daemon = Handed(tmp_path, {HOST: plain()})
    with listening(daemon.port) as sock:
        daemon.hold(sock, names="metrics")
        with contextlib.suppress(AssertionError):
            await daemon.start()
        said = daemon.log_path.read_text()
        daemon.clean_up()

    assert "LISTEN_FDNAMES: 'metrics' is no listener of the map; allowed: proxy, admin" in said


async def test_a_unix_socket_of_somebody_else_is_not_removed(tmp_path: Path) -> None:
    """The file of a socket handed over is there after autostart has ended, and works again."""
    path = tmp_path / "front.sock"
    daemon = Handed(tmp_path, {HOST: plain()}, proxy={"listen": f"unix:{path}"})
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))
        sock.listen(4096)
        daemon.hold(sock)
        try:
            await daemon.start()
            await asyncio.to_thread(daemon.terminate)
            is_there = path.is_socket()
            connection = await asyncio.open_unix_connection(str(path))
            asked = asyncio.ensure_future(exchange(connection, HOST, "/", keeps=False))
            await daemon.start()
            answer = await asyncio.wait_for(asked, 20)
            await close(connection)
        finally:
            daemon.clean_up()

    assert is_there
    assert ("200", False) == answer


async def test_systemds_own_tool_starts_it_at_the_first_request(tmp_path: Path) -> None:
    """systemd-socket-activate hands its socket over, and the request is answered."""
    tool = shutil.which("systemd-socket-activate")
    skip_or_fail(None if tool else "there is no systemd-socket-activate: apt install systemd")
    assert tool is not None
    daemon = Daemon(tmp_path, {HOST: plain()})
    program = daemon.command
    environment = {**os.environ, "AUTOSTART_STATE": str(daemon.state)}
    passed = [f"--setenv=AUTOSTART_STATE={daemon.state}", f"--setenv=PATH={os.environ['PATH']}"]
    with daemon.log_path.open("ab") as log:
        daemon.process = subprocess.Popen(
            [tool, f"--listen=127.0.0.1:{daemon.port}", *passed, *program, "serve"],
            stdout=log,
            stderr=log,
            env=environment,
        )
    try:
        await daemon._wait(lambda: "Listening on" in daemon.log_path.read_text(), "socket", 10)
        was_asleep = "serving" not in daemon.log_path.read_text()
        connection = await asyncio.open_connection("127.0.0.1", daemon.port)
        answer = await asyncio.wait_for(exchange(connection, HOST, "/", keeps=False), 30)
        await close(connection)
    finally:
        daemon.clean_up()

    assert was_asleep
    assert ("200", False) == answer
