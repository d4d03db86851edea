"""What autostart costs while every service sleeps: resident memory and CPU with 100 declared."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

import psutil

from tests.daemon import Daemon, plain

SERVICES = 100
SECONDS = 30.0


async def measure() -> tuple[float, float]:
    """Return resident megabytes, and the share of one core in per cent."""
    services = {f"service-{number}.localhost": plain() for number in range(SERVICES)}
    with tempfile.TemporaryDirectory() as folder:
        daemon = Daemon(Path(folder), services)
        try:
            await daemon.start()
            assert daemon.process is not None
            process = psutil.Process(daemon.process.pid)
            await asyncio.sleep(2)
            before = sum(process.cpu_times()[:2])
            await asyncio.sleep(SECONDS)
            share = (sum(process.cpu_times()[:2]) - before) / SECONDS
            return process.memory_info().rss / 1e6, share * 100
        finally:
            daemon.clean_up()


def report() -> None:
    """Measure and print."""
    megabytes, percent = asyncio.run(measure())
    print(f"at rest, {SERVICES} services declared, all stopped, over {SECONDS:.0f} s")
    verdict = "reached" if megabytes <= 70 else "MISSED"
    print(f"  resident     {megabytes:8.1f} MB   aim: ≤ 70 {verdict}")
    print(f"  CPU          {percent:8.2f} % of one core")


if __name__ == "__main__":
    report()
