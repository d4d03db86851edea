"""The promises with containers, where a container can differ from a process."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from pathlib import Path

import aiohttp
import pytest

from tests.containers import (
    contained,
    docker,
    journal_folder,
    name_of,
    recorded_events,
)
from tests.daemon import HOST, Daemon, free_port, running

HEADERS = {"Host": HOST}
JOURNAL = "/journal/lines"


async def get(
    client: aiohttp.ClientSession, daemon: Daemon, path: str, host: str = HOST
) -> tuple[int, str]:
    """Return status and body."""
    async with client.get(daemon.url + path, headers={"Host": host}) as response:
        return response.status, await response.text()


def mounted(journal: Path) -> dict[str, object]:
    return {"volumes": [f"{journal}:/journal"]}


def journal_ids(journal: Path) -> Counter[str]:
    """Return how often the service got each id, over all of its runs."""
    file = journal / "lines"
    lines = file.read_text().splitlines() if file.exists() else []
    return Counter(line.split()[1].partition("id=")[2] for line in lines if "id=" in line)


async def test_a_herd_causes_one_start_and_one_stop(
    tmp_path: Path, client: aiohttp.ClientSession
) -> None:
    """300 requests at once to a stopped service: the engine tells of one start and one stop."""
    journal, folder = journal_folder(tmp_path), tmp_path / "plain"
    options = ("--ready-after", "0.3", "--journal", JOURNAL)
    service = contained(
        folder, free_port(), *options, container=mounted(journal), idle="1s", max_waiting=300
    )
    async with recorded_events() as events, running(tmp_path, {HOST: service}) as daemon:
        answers = await asyncio.gather(*(get(client, daemon, f"/count?id={n}") for n in range(300)))
        await daemon.wait_for_state("stopped")
        await asyncio.sleep(0.2)
        counts = events.counts(name_of(folder))

    assert Counter({(200, '{"count": 1}'): 300}) == Counter(answers)
    assert Counter({str(n): 1 for n in range(300)}) == journal_ids(journal)
    assert (1, 1, 1, 1) == tuple(counts[kind] for kind in ("create", "start", "die", "stop"))


@pytest.mark.timeout(300)
async def test_a_request_that_meets_a_stop_is_served(
    tmp_path: Path, client: aiohttp.ClientSession
) -> None:
    """300 requests over every moment of stops: all 200, none reaches the service twice."""
    journal, folder = journal_folder(tmp_path), tmp_path / "plain"
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    options = ("--journal", JOURNAL, "--stop-slowly", "0.1")
    service = contained(folder, free_port(), *options, container=mounted(journal), idle="300ms")
    answers: list[int] = []

    async def ask(moment: float, number: int) -> None:
        await asyncio.sleep(moment)
        answers.append((await get(client, daemon, f"/count?id={number}"))[0])

    async with recorded_events() as events, running(tmp_path, {HOST: service}) as daemon:
        await get(client, daemon, "/")
        for first in range(0, 300, 5):
            moments = [0.3 + chance.uniform(-0.05, 0.4) for _ in range(5)]
            await asyncio.gather(*(ask(each, first + n) for n, each in enumerate(moments)))
        await daemon.wait_for_state("stopped")
        starts = daemon.starts()
        await asyncio.sleep(0.2)
        counts = events.counts(name_of(folder))

    assert Counter({200: 300}) == Counter(answers)
    assert Counter({str(n): 1 for n in range(300)}) == journal_ids(journal)
    assert starts > 10, "the sweep met too few stops"
    assert (starts, starts) == (counts["start"], counts["die"])


async def test_an_exit_while_starting_fails_at_once_and_recovers(
    tmp_path: Path, client: aiohttp.ClientSession
) -> None:
    """Held requests get 503 with the exit's reason, not the start's timeout; then it recovers."""
    journal = journal_folder(tmp_path)
    broken = journal / "broken"
    broken.touch()
    options = ("--exit-if-file", "/journal/broken")
    service = contained(
        tmp_path / "plain", free_port(), *options, container=mounted(journal), start_timeout="30s"
    )
    async with running(tmp_path, {HOST: service}) as daemon:
        began = time.monotonic()
        async with client.get(daemon.url + "/", headers=HEADERS) as response:
            refusal = await response.json()
            seconds = time.monotonic() - began
            retry_after = int(response.headers["Retry-After"])
        broken.unlink()
        await asyncio.sleep(retry_after)
        status, _ = await get(client, daemon, "/")

    assert ("start-failed", 200) == (refusal["error"]["code"], status)
    assert "exit code 1" in refusal["detail"]
    assert seconds < 5


@pytest.mark.parametrize("version", ["1.1", "1.0"])
@pytest.mark.parametrize("path", ["/bytes?size=900000000", "/drip?chunks=100&gap=0.1"])
async def test_a_container_killed_in_its_answer_resets_the_client(
    tmp_path: Path, version: str, path: str
) -> None:
    """docker kill in the middle of an answer: a reset over 1.1 and 1.0, also behind docker-proxy.

    docker-proxy turns the death into a clean end, so this is where a cut answer could look whole.
    """
    folder = tmp_path / "plain"
    service = contained(folder, free_port())
    async with running(tmp_path, {HOST: service}) as daemon:
        reader, writer = await asyncio.open_connection("127.0.0.1", daemon.port)
        writer.write(f"GET {path} HTTP/{version}\r\nHost: {HOST}\r\n\r\n".encode())
        await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 20)
        await asyncio.to_thread(docker, "kill", f"{name_of(folder)}-web-1")

        with pytest.raises(ConnectionResetError):
            await asyncio.wait_for(reader.read(), 20)
        writer.close()


async def test_kill_nine_loses_track_of_nothing(
    tmp_path: Path, client: aiohttp.ClientSession
) -> None:
    """After kill -9 with one ready and one starting, both are adopted, served and stopped."""
    other = "other.localhost"
    folders = [tmp_path / "plain", tmp_path / "other"]
    services = {
        HOST: contained(folders[0], free_port(), idle="3s"),
        other: contained(folders[1], free_port(), "--ready-after", "3", idle="3s"),
    }
    daemon = Daemon(tmp_path, services)
    try:
        async with recorded_events() as events:
            await daemon.start()
            await get(client, daemon, "/")
            starting = asyncio.create_task(get(client, daemon, "/", other))
            await daemon.wait_for_log("compose", count=2)
            await asyncio.sleep(1)
            daemon.kill()
            await asyncio.gather(starting, return_exceptions=True)
            daemon.log_path.unlink()
            await daemon.start()
            statuses = [(await get(client, daemon, "/", host))[0] for host in services]
            await daemon.wait_for_state("stopped", seconds=10)
            await daemon.wait_for_state("stopped", other, seconds=10)
            await asyncio.sleep(0.2)
            starts = [events.counts(name_of(folder))["start"] for folder in folders]
    finally:
        daemon.clean_up()

    assert [200, 200] == statuses
    assert [1, 1] == starts


async def test_sigterm_leaves_containers_running(
    tmp_path: Path, client: aiohttp.ClientSession
) -> None:
    """An orderly end stops no container, and is over at once; the next autostart adopts it."""
    folder = tmp_path / "plain"
    daemon = Daemon(tmp_path, {HOST: contained(folder, free_port(), idle="60s")})
    try:
        await daemon.start()
        await get(client, daemon, "/")
        began = time.monotonic()
        status = daemon.terminate()
        seconds = time.monotonic() - began
        running_now = docker("ps", "--quiet", "--filter", f"name={name_of(folder)}")
        daemon.log_path.unlink()
        await daemon.start()
        state = (await daemon.states())[HOST]["state"]
    finally:
        daemon.clean_up()

    assert (0, 1) == (status, len(running_now.split()))
    assert state in {"starting", "ready"}
    assert seconds < 3


@pytest.mark.parametrize("use", ["silent answer", "websocket"])
async def test_a_service_in_use_is_not_stopped(
    tmp_path: Path, client: aiohttp.ClientSession, use: str
) -> None:
    """With idle: 1s nothing is stopped under a request that lasts longer."""
    async with running(
        tmp_path, {HOST: contained(tmp_path / "plain", free_port(), idle="1s")}
    ) as daemon:
        if use == "websocket":
            async with client.ws_connect(daemon.url + "/ws", headers=HEADERS) as socket:
                await asyncio.sleep(4)
                await socket.send_str("still there")
                answer = await socket.receive_str(timeout=5)
        else:
            _, answer = await get(client, daemon, "/slow?seconds=4")
        transitions = daemon.transitions()
        await daemon.wait_for_state("stopped")

    assert answer in {"still there", "slow"}
    assert [("stopped", "starting"), ("starting", "ready")] == transitions


async def test_a_busy_container_is_not_stopped(
    tmp_path: Path, client: aiohttp.ClientSession
) -> None:
    """A background job that /busy reports keeps the container up; its end lets it idle out."""
    journal = journal_folder(tmp_path)
    answer = journal / "busy.json"
    answer.write_text('{"busy": true}')
    service = contained(
        tmp_path / "plain",
        free_port(),
        "--busy-file",
        "/journal/busy.json",
        container=mounted(journal),
        idle="1s",
        busy="/busy",
    )
    async with running(tmp_path, {HOST: service}) as daemon:
        await get(client, daemon, "/")
        await asyncio.sleep(3)
        state = (await daemon.states())[HOST]["state"]
        answer.write_text('{"busy": false}')
        await daemon.wait_for_state("stopped")

    assert "ready" == state
