"""The installed CLI as tests use it: `autostart serve` on a map made for one test."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import aiohttp
import psutil
import yaml

ROOT = Path(__file__).resolve().parent.parent
PLAIN_SERVICE = ROOT / "tests/plain_service.py"
HOST = "plain.localhost"


# Below the ports that the kernel gives to outgoing connections: nobody else takes one meanwhile.
_ports = iter(random.sample(range(15_000, 32_000), 17_000))


def free_port() -> int:
    """Return a loopback port that nobody has now, and that is never returned again."""
    for port in _ports:
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise AssertionError("every port was given away")


def plain(*options: str, **keys: Any) -> dict[str, Any]:
    """Return the map's entry of a plain service started with these options."""
    command = ["{python}", str(PLAIN_SERVICE), "--port", "{port}", *options]
    return {"command": command, "ready": "/ready", "start_timeout": "20s", **keys}


class Daemon:
    """One `autostart serve` as a subprocess, with its own state folder and ports."""

    # For one that lives with a private engine: what its command begins with, and the folder of the
    # unix sockets by which it is reached from outside of the engine's network.
    inside: Sequence[str] = ()
    sockets: Path | None = None
    # Open files that it is given, by the same numbers.
    given_fds: Sequence[int] = ()

    def __init__(self, folder: Path, services: dict[str, Any], **top: Any) -> None:
        self.folder = folder
        self.map_path = folder / "autostart.yaml"
        self.log_path = folder / "autostart.log"
        self.state = folder / "state"
        self.port, self.admin_port = free_port(), free_port()
        self.top = top
        self.environment: dict[str, str] = {}
        self.process: subprocess.Popen[bytes] | None = None
        self.write_map(services)

    def write_map(self, services: dict[str, Any], **top: Any) -> None:
        """Write the map; a reload or the next start takes it."""
        declared = {
            "proxy": {"listen": self._listen("proxy", self.port), "drain_timeout": "5s"},
            "admin": {"listen": self._listen("admin", self.admin_port)},
            "services": services,
        }
        for key, value in {**self.top, **top}.items():
            if isinstance(value, dict):
                declared[key] = {**declared.get(key, {}), **value}
            else:
                declared[key] = value
        self.map_path.write_text(yaml.safe_dump(declared))

    def _listen(self, name: str, port: int) -> str:
        return f"127.0.0.1:{port}" if self.sockets is None else f"unix:{self.sockets}/{name}"

    def session(self, name: str = "proxy", **options: Any) -> aiohttp.ClientSession:
        """Return a client session that reaches a listener of this daemon."""
        connector: aiohttp.BaseConnector
        if self.sockets is None:
            connector = aiohttp.TCPConnector(limit=0)
        else:
            connector = aiohttp.UnixConnector(str(self.sockets / name), limit=0)
        return aiohttp.ClientSession(connector=connector, **options)

    async def start(self) -> None:
        """Start it, also again, and wait until it serves."""
        before = sum(entry["event"] == "serving" for entry in self.log())
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                [*self.command, "serve", "--log-format", "json", "--log-level", "debug"],
                stdout=log,
                stderr=log,
                env={**os.environ, **self.environment, "AUTOSTART_STATE": str(self.state)},
                pass_fds=self.given_fds,
            )
        await self.wait_for_log("serving", seconds=20, count=before + 1)

    @property
    def command(self) -> list[str]:
        """The CLI on this daemon's map."""
        program = str(Path(sys.executable).parent / "autostart")
        return [*self.inside, program, "--config", str(self.map_path)]

    async def run_cli(self, *arguments: str) -> tuple[int, str]:
        """Run a command of the CLI; return its exit status and what it printed."""
        process = await asyncio.create_subprocess_exec(
            *self.command,
            *arguments,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env={**os.environ, **self.environment, "AUTOSTART_STATE": str(self.state)},
        )
        output, _ = await asyncio.wait_for(process.communicate(), 60)
        assert process.returncode is not None
        return process.returncode, output.decode()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def admin_url(self) -> str:
        return "http://localhost" if self.sockets else f"http://127.0.0.1:{self.admin_port}"

    def log(self) -> list[dict[str, Any]]:
        """Return every log entry so far."""
        if not self.log_path.exists():
            return []
        entries = []
        for line in self.log_path.read_text().splitlines():
            try:
                entries.append(json.loads(line))
            except ValueError:
                entries.append({"event": line, "level": "unparsed"})
        return entries

    def transitions(self, host: str = HOST) -> list[tuple[str, str]]:
        """Return the changes of state of one service, in order."""
        return [
            (entry["from"], entry["to"])
            for entry in self.log()
            if entry.get("service") == host and "to" in entry and entry["level"] != "debug"
        ]

    def starts(self, host: str = HOST) -> int:
        """Return how many starts of one service were begun."""
        return sum(1 for _, to in self.transitions(host) if to == "starting")

    async def wait_for_log(self, event: str, *, seconds: float = 10, count: int = 1) -> None:
        """Wait until an event was logged so many times."""
        await self._wait(
            lambda: sum(entry["event"] == event for entry in self.log()) >= count,
            f"{count} x {event!r} in the log",
            seconds,
        )

    async def states(self) -> dict[str, dict[str, Any]]:
        """Return what the admin API shows, by host."""
        async with self.session("admin") as session:
            async with session.get(f"{self.admin_url}/api/services") as response:
                assert response.status == 200, await response.text()
                shown = await response.json()
        services = shown["services"] if isinstance(shown, dict) else shown
        return {service["host"]: service for service in services}

    async def wait_for_state(self, state: str, host: str = HOST, *, seconds: float = 10) -> None:
        """Wait until the admin API shows the state."""
        deadline = time.monotonic() + seconds
        while (shown := (await self.states())[host])["state"] != state:
            assert time.monotonic() < deadline, f"{host} is {shown}, not {state}\n{self.tail()}"
            await asyncio.sleep(0.05)

    async def _wait(self, holds: Any, what: str, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while not holds():
            assert self.process is not None
            assert self.process.poll() is None, f"autostart ended\n{self.tail()}"
            assert time.monotonic() < deadline, f"no {what} within {seconds} s\n{self.tail()}"
            await asyncio.sleep(0.02)

    def tail(self) -> str:
        return "\n".join(self.log_path.read_text().splitlines()[-30:])

    def children(self) -> list[psutil.Process]:
        """Return the processes that carry this state folder in their environment, but ours."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                mine = self.process is not None and process.pid == self.process.pid
                marked = any(str(self.state) in value for value in process.environ().values())
                if marked and not mine and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
        return found

    def kill(self) -> None:
        """kill -9: it gets no chance to say goodbye."""
        assert self.process is not None
        self.process.kill()
        self.process.wait(10)

    def terminate(self, seconds: float = 20) -> int:
        """SIGTERM, and wait for its orderly end; return its exit status."""
        assert self.process is not None
        self.process.terminate()
        return self.process.wait(seconds)

    def hang_up(self) -> None:
        """SIGHUP: read the map again."""
        assert self.process is not None
        self.process.send_signal(signal.SIGHUP)

    def resident_bytes(self) -> int:
        assert self.process is not None
        return int(psutil.Process(self.process.pid).memory_info().rss)

    def clean_up(self) -> None:
        """End everything of this test; fail if autostart showed a traceback."""
        if self.process is not None and self.process.poll() is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.terminate(10)
            if self.process.poll() is None:
                self.kill()
        for process in self.children():
            with contextlib.suppress(psutil.Error):
                process.kill()
        text = self.log_path.read_text() if self.log_path.exists() else ""
        assert not re.search(r"Traceback|\"bug\"", text), text[-5000:]


@contextlib.asynccontextmanager
async def running(folder: Path, services: dict[str, Any], **top: Any) -> AsyncIterator[Daemon]:
    """Run autostart on these services for the length of the block, then leave nothing behind."""
    daemon = Daemon(folder, services, **top)
    try:
        await daemon.start()
        yield daemon
    finally:
        daemon.clean_up()
