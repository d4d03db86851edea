"""What autostart adds to a cold start.

The floor is what the service itself needs: started by hand, asked for its health path in a tight
loop until it answers. Then the same service behind autostart, stopped, gets one request. Both are
measured in turn, so that a noisy minute hits both.
"""

from __future__ import annotations

import asyncio
import http.client
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

from tests.daemon import HOST, PLAIN_SERVICE, Daemon, free_port, plain

ROUNDS = 40
READY_AFTER_SECONDS = 0.3  # a service that has something to load


async def measure() -> dict[str, float]:
    """Return floor, cold start and difference, p50 and p95 in milliseconds."""
    options = ("--ready-after", str(READY_AFTER_SECONDS))
    floors, colds = [], []
    with tempfile.TemporaryDirectory() as folder:
        daemon = Daemon(Path(folder), {HOST: plain(*options, idle="100ms")})
        try:
            await daemon.start()
            for _ in range(ROUNDS):
                floors.append(await asyncio.to_thread(_floor, options))
                await daemon.wait_for_state("stopped")
                colds.append(await asyncio.to_thread(_first_byte, daemon.port))
        finally:
            daemon.clean_up()
    added = [cold - floor for cold, floor in zip(sorted(colds), sorted(floors), strict=True)]
    return {
        "floor p50": percentile(floors, 50),
        "cold p50": percentile(colds, 50),
        "floor p95": percentile(floors, 95),
        "cold p95": percentile(colds, 95),
        "added p50": percentile(added, 50),
        "added p95": percentile(colds, 95) - percentile(floors, 95),
    }


def _floor(options: tuple[str, ...]) -> float:
    """Start the service by hand; return the seconds until its health path answers 200."""
    port = free_port()
    command = [sys.executable, str(PLAIN_SERVICE), "--port", str(port), *options]
    began = time.perf_counter()
    service = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while True:
            with suppress(OSError):
                if _get(port, "/ready", "localhost") == http.client.OK:
                    return time.perf_counter() - began
            time.sleep(0.001)
    finally:
        service.terminate()
        service.wait()


def _first_byte(port: int) -> float:
    began = time.perf_counter()
    status = _get(port, "/", HOST)
    assert status == http.client.OK, status
    return time.perf_counter() - began


def _get(port: int, path: str, host: str) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request("GET", path, headers={"Host": host})
        return connection.getresponse().status
    finally:
        connection.close()


def percentile(seconds: list[float], percent: int) -> float:
    """Return a percentile in milliseconds."""
    ordered = sorted(seconds)
    return ordered[min(len(ordered) - 1, len(ordered) * percent // 100)] * 1000


def report() -> None:
    """Measure and print."""
    figures = asyncio.run(measure())
    print(f"cold start, {ROUNDS} rounds, a service that needs {READY_AFTER_SECONDS} s to load; ms")
    for name, milliseconds in figures.items():
        print(f"  {name:12} {milliseconds:8.1f}")
    print(f"  aim: added p95 ≤ 50 ms {'reached' if figures['added p95'] <= 50 else 'MISSED'}")


if __name__ == "__main__":
    report()
