"""What autostart adds to the cold start of a container.

The floor is the engine's own: `start` over its API, then the service's ready path in a tight loop.
Beside it, in turn, so that a noisy minute hits all: the same container behind autostart, by
`docker compose up`, and by the engine's own verdict on a health check every second.
"""

from __future__ import annotations

import asyncio
import http.client
import re
import tempfile
import time
from contextlib import suppress
from pathlib import Path

from bench.cold_start import percentile
from tests.containers import (
    contained,
    docker,
    inspect,
    missing,
    name_of,
    plain_container,
    remove_projects,
    write_compose,
)
from tests.daemon import HOST, Daemon, free_port

ROUNDS = 30


class Bench:
    """One project behind autostart and one that is started by hand."""

    def __init__(self, folder: Path) -> None:
        import docker as sdk  # noqa: PLC0415 - bench needs the engine, its siblings do not

        self.folder = folder
        self.port = free_port()
        check = "import urllib.request as u; u.urlopen('http://127.0.0.1:8000/ready')"
        health = {"test": ["CMD", "python3", "-c", check], "interval": "1s"}
        write_compose(folder / "bare", {"web": plain_container(self.port, healthcheck=health)})
        self.compose = ("compose", "--project-directory", str(folder / "bare"))
        docker(*self.compose, "create")
        self.container = f"{name_of(folder / 'bare')}-web-1"
        self.engine = sdk.APIClient()

    def floor(self) -> float:
        return self._timed(lambda: self.engine.start(self.container))

    def compose_up(self) -> float:
        return self._timed(lambda: docker(*self.compose, "up", "--detach"))

    def health(self) -> float:
        began = time.perf_counter()
        self.engine.start(self.container)
        while inspect(self.container)["State"]["Health"]["Status"] != "healthy":
            time.sleep(0.01)
        return self._stopped(began)

    def _timed(self, start: object) -> float:
        began = time.perf_counter()
        start()  # type: ignore[operator]  # one of the two above
        while True:
            with suppress(OSError, http.client.HTTPException):
                if _get(self.port, "/ready", "localhost")[0] == http.client.OK:
                    break
            time.sleep(0.001)
        return self._stopped(began)

    def _stopped(self, began: float) -> float:
        seconds = time.perf_counter() - began
        self.engine.stop(self.container, timeout=1)
        return seconds


async def measure() -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Return seconds by way of starting, and milliseconds by phase of autostart's."""
    ways: dict[str, list[float]] = {
        "engine API": [],
        "autostart": [],
        "compose up": [],
        "health": [],
    }
    phases: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        bench = Bench(folder)
        port = free_port()
        daemon = Daemon(folder, {HOST: contained(folder / "plain", port, idle="100ms")})
        try:
            await daemon.start()
            await asyncio.to_thread(_get, daemon.port, "/", HOST)
            for number in range(ROUNDS):
                ways["engine API"].append(await asyncio.to_thread(bench.floor))
                await daemon.wait_for_state("stopped")
                began = time.perf_counter()
                _, timing = await asyncio.to_thread(_get, daemon.port, "/", HOST)
                ways["autostart"].append(time.perf_counter() - began)
                for phase, milliseconds in re.findall(r"(\w+);dur=([\d.]+)", timing):
                    phases.setdefault(phase, []).append(float(milliseconds))
                ways["compose up"].append(await asyncio.to_thread(bench.compose_up))
                if number % 3 == 0:
                    ways["health"].append(await asyncio.to_thread(bench.health))
        finally:
            daemon.clean_up()
            remove_projects(under=folder)
    return ways, phases


def _get(port: int, path: str, host: str) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request("GET", path, headers={"Host": host})
        response = connection.getresponse()
        return response.status, response.getheader("Server-Timing") or ""
    finally:
        connection.close()


def report() -> None:
    """Measure and print."""
    if reason := missing():
        print(f"cold start of a container: not measured, {reason}")
        return
    ways, phases = asyncio.run(measure())
    print(f"cold start of a container, {ROUNDS} rounds; ms, and times the engine's own p50")
    floor = percentile(ways["engine API"], 50)
    for way, seconds in ways.items():
        median, slow = percentile(seconds, 50), percentile(seconds, 95)
        print(f"  {way:12} p50 {median:8.1f}  p95 {slow:8.1f}  x {median / floor:.2f}")
    for phase, milliseconds in phases.items():
        print(f"    {phase:10} p50 {percentile(milliseconds, 50) / 1000:8.1f}")
    added = percentile(ways["autostart"], 95) - percentile(ways["engine API"], 95)
    print(f"  added at p95 {added:.1f}; aim: ≤ 50 {'reached' if added <= 50 else 'MISSED'}")


if __name__ == "__main__":
    report()
