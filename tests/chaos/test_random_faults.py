"""Seeded faults under load: whatever dies, leaves or is reloaded, the promises hold at the end."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import time
from collections import Counter
from pathlib import Path

import aiohttp
import psutil

from tests.daemon import HOST, Daemon, plain

SECONDS = float(os.environ.get("AUTOSTART_CHAOS_SECONDS", "25"))
CLIENTS = 12
# What a request may come to: an answer, or a refusal with its reason. Nothing else, and no hang.
ANSWERS = {200, 502, 503, 504}


class Storm:
    """Clients and faults around one daemon, from one seed."""

    def __init__(self, daemon: Daemon, seed: int, journal: Path) -> None:
        self.daemon = daemon
        self.chance = random.Random(seed)
        self.journal = journal
        self.ends_at = time.monotonic() + SECONDS
        self.sent = 0
        self.outcomes: Counter[str] = Counter()

    async def clients(self) -> None:
        await asyncio.gather(*(self.client(random.Random(n)) for n in range(CLIENTS)))

    async def client(self, chance: random.Random) -> None:
        """Ask in bursts and pauses, sometimes leaving before the answer."""
        timeout = aiohttp.ClientTimeout(total=40)
        connector = aiohttp.TCPConnector(force_close=True)
        async with aiohttp.ClientSession(timeout=timeout, connector=connector) as session:
            while time.monotonic() < self.ends_at:
                await asyncio.sleep(chance.choice([0, 0.01, 0.05, 0.3, 0.6]))
                path = chance.choice(["/count?", "/slow?seconds=0.2&", "/bytes?size=100000&"])
                patience = chance.choice([0.05, 40, 40, 40])
                try:
                    async with asyncio.timeout(patience):
                        self.outcomes[await self.ask(session, path)] += 1
                except TimeoutError:
                    self.outcomes["left" if patience < 1 else "hung"] += 1

    async def ask(self, session: aiohttp.ClientSession, path: str) -> str:
        self.sent += 1
        url = f"{self.daemon.url}{path}id={self.sent}"
        method = "POST" if self.sent % 3 else "GET"
        try:
            async with session.request(method, url, headers={"Host": HOST}) as response:
                await response.read()
                return str(response.status)
        except (aiohttp.ClientError, ConnectionError):
            return "cut"

    async def faults(self) -> None:
        while time.monotonic() < self.ends_at - 8:
            await asyncio.sleep(self.chance.uniform(0.2, 1.5))
            fault = self.chance.choice([self.kill_service, self.reload, self.kill_daemon])
            print(f"{fault.__name__} ", end="", flush=True)
            await fault()

    async def kill_service(self) -> None:
        for process in self.daemon.children():
            with contextlib.suppress(psutil.Error):
                process.kill()

    async def reload(self) -> None:
        idle = self.chance.choice(["100ms", "300ms", "1s"])
        self.daemon.write_map({HOST: service(self.journal, idle=idle)})
        self.daemon.hang_up()

    async def kill_daemon(self) -> None:
        self.daemon.kill()
        self.daemon.log_path.unlink()
        await self.daemon.start()


def service(journal: Path, idle: str) -> dict[str, object]:
    return plain("--journal", str(journal), "--ready-after", "0.1", idle=idle)


async def test_the_promises_survive_a_storm(tmp_path: Path) -> None:
    """Kills of service and daemon, reloads, leaving clients: no hang, nothing twice, all idle."""
    seed = int(os.environ.get("AUTOSTART_CHAOS_SEED", random.randrange(2**32)))
    print(f"AUTOSTART_CHAOS_SEED={seed}")
    journal = tmp_path / "journal"
    daemon = Daemon(tmp_path, {HOST: service(journal, "300ms")})
    try:
        await daemon.start()
        storm = Storm(daemon, seed, journal)
        await asyncio.gather(storm.clients(), storm.faults())
        print(storm.outcomes)
        # A back-off that a fault has caused may still run; then everything is quiet.
        await daemon.wait_for_state("stopped", seconds=60)
        shown = (await daemon.states())[HOST]
        sent_to_service = Counter(
            line.split()[1].rpartition("id=")[2] for line in journal.read_text().splitlines()
        )
        del sent_to_service[""], sent_to_service["/ready"]

        assert [] == [key for key, count in sent_to_service.items() if count > 1]
        assert set() == set(storm.outcomes) - {str(code) for code in ANSWERS} - {"left", "cut"}
        assert storm.outcomes["200"] > 100
        assert ([], []) == (shown["leases"], shown["waiting"])
        assert [] == daemon.children()
    finally:
        daemon.clean_up()
