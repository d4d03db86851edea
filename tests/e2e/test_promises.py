"""The promises, through the installed CLI and real sockets: what clients may trust."""

from __future__ import annotations

import asyncio
import hashlib
import random
import time
from collections import Counter
from pathlib import Path

import aiohttp
import pytest

from tests.daemon import HOST, Daemon, plain, running
from tests.plain_request import BLOCK

HEADERS = {"Host": HOST}


async def get(
    client: aiohttp.ClientSession, daemon: Daemon, path: str, host: str = HOST
) -> tuple[int, str]:
    """Return status and body."""
    async with client.get(daemon.url + path, headers={"Host": host}) as response:
        return response.status, await response.text()


def journal_ids(journal: Path) -> Counter[str]:
    """Return how often the service got each id, over all of its runs."""
    lines = journal.read_text().splitlines() if journal.exists() else []
    return Counter(line.split()[1].partition("id=")[2] for line in lines if "id=" in line)


async def test_a_herd_causes_one_start_and_one_stop(
    tmp_path: Path, client: aiohttp.ClientSession
) -> None:
    """300 requests at once to a stopped service: one start, 300 right answers, then one stop."""
    journal = tmp_path / "journal"
    service = plain("--ready-after", "0.3", "--journal", str(journal), idle="1s", max_waiting=300)
    async with running(tmp_path, {HOST: service}) as daemon:
        answers = await asyncio.gather(*(get(client, daemon, f"/count?id={n}") for n in range(300)))
        await daemon.wait_for_state("stopped")

        assert Counter({(200, '{"count": 1}'): 300}) == Counter(answers)
        assert Counter({str(n): 1 for n in range(300)}) == journal_ids(journal)
        assert [
            ("stopped", "starting"),
            ("starting", "ready"),
            ("ready", "stopping"),
            ("stopping", "stopped"),
        ] == daemon.transitions()


async def test_a_request_that_meets_a_stop_is_served(
    tmp_path: Path, client: aiohttp.ClientSession
) -> None:
    """1,000 requests over every moment of stops: all 200, none reaches the service twice."""
    journal = tmp_path / "journal"
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    service = plain("--journal", str(journal), "--stop-slowly", "0.05", idle="150ms")
    answers: list[int] = []

    async def ask(number: int) -> None:
        answers.append((await get(client, daemon, f"/count?id={number}"))[0])

    async with running(tmp_path, {HOST: service}) as daemon:
        number, began = 0, time.monotonic()
        while number < 1000:
            # Ten clients around one idle date: just before, at, and through the whole stop.
            moments = [0.15 + chance.uniform(-0.02, 0.12) for _ in range(10)]
            tasks = []
            for moment in moments:
                tasks.append(asyncio.create_task(_later(moment, ask(number))))
                number += 1
            await asyncio.gather(*tasks)
        print(f"{daemon.starts()} starts in {time.monotonic() - began:.1f} s")

        assert Counter({200: 1000}) == Counter(answers)
        assert Counter({str(n): 1 for n in range(1000)}) == journal_ids(journal)
        assert daemon.starts() > 10, "the sweep met too few stops"


async def _later(seconds: float, work: object) -> None:
    await asyncio.sleep(seconds)
    await work  # type: ignore[misc]  # a coroutine


@pytest.mark.parametrize("use", ["silent answer", "websocket", "events", "slow upload"])
async def test_a_service_in_use_is_not_stopped(
    tmp_path: Path, client: aiohttp.ClientSession, use: str
) -> None:
    """With idle: 1s nothing is stopped under a request that lasts longer, whatever it does."""

    async def silent_answer() -> None:
        assert (200, "slow") == await get(client, daemon, "/slow?seconds=10")

    async def websocket() -> None:
        async with client.ws_connect(daemon.url + "/ws", headers=HEADERS) as socket:
            await asyncio.sleep(5)
            await socket.send_str("still there")
            assert "still there" == await socket.receive_str(timeout=5)

    async def events() -> None:
        status, text = await get(client, daemon, "/sse?events=3&gap=1.6")
        assert (200, 3) == (status, text.count("data: event"))

    async def slow_upload() -> None:
        async def body() -> object:
            for _ in range(4):
                yield b"x" * 1000
                await asyncio.sleep(1.3)

        async with client.post(daemon.url + "/upload", data=body(), headers=HEADERS) as response:
            assert 4000 == (await response.json())["bytes"]

    uses = {
        "silent answer": silent_answer,
        "websocket": websocket,
        "events": events,
        "slow upload": slow_upload,
    }
    async with running(tmp_path, {HOST: plain(idle="1s")}) as daemon:
        await uses[use]()

        assert [("stopped", "starting"), ("starting", "ready")] == daemon.transitions()
        await daemon.wait_for_state("stopped")


async def test_a_busy_service_is_not_stopped(tmp_path: Path, client: aiohttp.ClientSession) -> None:
    """A background job that /busy reports keeps the service up; its end lets it idle out."""
    answer = tmp_path / "busy.json"
    answer.write_text('{"busy": true}')
    service = plain("--busy-file", str(answer), idle="1s", busy="/busy")
    async with running(tmp_path, {HOST: service}) as daemon:
        await get(client, daemon, "/")
        await asyncio.sleep(4)
        state = (await daemon.states())[HOST]["state"]
        answer.write_text('{"busy": false}')

        assert "ready" == state
        await daemon.wait_for_state("stopped")


async def test_a_start_outlives_the_client_that_asked_first(
    tmp_path: Path, client: aiohttp.ClientSession
) -> None:
    """The first client leaves during the start: the others are served by that same start."""
    service = plain("--ready-after", "1", idle="1s")
    async with running(tmp_path, {HOST: service}) as daemon:
        first = asyncio.create_task(get(client, daemon, "/"))
        await daemon.wait_for_state("starting")
        others = [asyncio.create_task(get(client, daemon, "/")) for _ in range(5)]
        await asyncio.sleep(0.1)
        first.cancel()
        statuses = [status for status, _ in await asyncio.gather(*others)]

        assert [200] * 5 == statuses
        assert 1 == daemon.starts()


async def test_a_start_whose_only_client_left_idles_out(
    tmp_path: Path, client: aiohttp.ClientSession
) -> None:
    """A lone client leaves during the start: the service becomes ready and idles out normally."""
    service = plain("--ready-after", "0.5", idle="1s")
    async with running(tmp_path, {HOST: service}) as daemon:
        lone = asyncio.create_task(get(client, daemon, "/"))
        await daemon.wait_for_state("starting")
        lone.cancel()
        await daemon.wait_for_state("ready")
        await daemon.wait_for_state("stopped")


async def test_an_exit_while_starting_fails_at_once_and_recovers(
    tmp_path: Path, client: aiohttp.ClientSession
) -> None:
    """Held requests get 503 within a second of the exit, then back-off, then recovery by itself."""
    broken = tmp_path / "broken"
    broken.touch()
    service = plain("--exit-if-file", str(broken), "--journal", str(tmp_path / "journal"))
    async with running(tmp_path, {HOST: service}) as daemon:
        began = time.monotonic()
        held = await asyncio.gather(*(_refusal(client, daemon) for _ in range(5)))
        assert time.monotonic() - began < 1.5
        assert {(503, "start-failed")} == {(status, code) for status, code, _ in held}

        began = time.monotonic()
        status, code, retry_after = await _refusal(client, daemon)
        assert time.monotonic() - began < 0.2
        assert (503, "backing-off") == (status, code)
        assert 1 <= retry_after <= 5

        broken.unlink()
        await asyncio.sleep(retry_after)
        assert 200 == (await get(client, daemon, "/"))[0]


async def _refusal(client: aiohttp.ClientSession, daemon: Daemon) -> tuple[int, str, int]:
    async with client.get(daemon.url + "/", headers=HEADERS) as response:
        await response.read()
        headers = response.headers
        return response.status, headers["Autostart-Error"], int(headers["Retry-After"])


async def test_a_health_path_that_hangs_ends_at_start_timeout(
    tmp_path: Path, client: aiohttp.ClientSession
) -> None:
    """504 at start_timeout; another service is served meanwhile as if nothing were."""
    services = {HOST: plain("--ready-hangs", start_timeout="2s"), "other.localhost": plain()}
    async with running(tmp_path, services) as daemon:
        began = time.monotonic()
        hanging = asyncio.create_task(_refusal(client, daemon))
        statuses = set()
        while not hanging.done():
            statuses.add((await get(client, daemon, "/", "other.localhost"))[0])
            await asyncio.sleep(0.02)
        status, code, _ = await hanging
        seconds = time.monotonic() - began

        assert (504, "start-timeout") == (status, code)
        assert 1.9 < seconds < 3
        assert {200} == statuses
        await daemon.wait_for_state("failed")


@pytest.mark.parametrize("version", ["1.1", "1.0"])
@pytest.mark.parametrize("path", ["/die-mid?size=1000", "/die-mid?size=1000&chunked=1"])
async def test_a_cut_answer_ends_in_a_reset(tmp_path: Path, version: str, path: str) -> None:
    """Killed in the middle of its answer: the client's connection is reset, over 1.1 and 1.0."""
    async with running(tmp_path, {HOST: plain()}) as daemon:
        reader, writer = await asyncio.open_connection("127.0.0.1", daemon.port)
        writer.write(f"GET {path} HTTP/{version}\r\nHost: {HOST}\r\n\r\n".encode())

        with pytest.raises(ConnectionResetError):
            await asyncio.wait_for(reader.read(), 20)
        writer.close()


async def test_a_service_killed_before_its_answer_gives_502(
    tmp_path: Path, client: aiohttp.ClientSession
) -> None:
    """Killed before its answer: 502 service-closed, and the next request is served."""
    async with running(tmp_path, {HOST: plain()}) as daemon:
        await get(client, daemon, "/")
        async with client.get(daemon.url + "/die", headers=HEADERS) as response:
            assert (502, "service-closed") == (
                response.status,
                response.headers["Autostart-Error"],
            )

        assert 200 == (await get(client, daemon, "/"))[0]


async def test_no_request_is_sent_twice(tmp_path: Path, client: aiohttp.ClientSession) -> None:
    """Whatever the method, however the service drops connections or dies, it counts one each."""
    journal = tmp_path / "journal"
    service = plain("--journal", str(journal), idle="2s")
    paths = ["/drop", "/drop?after=0.01", "/drop-before", "/count", "/cut", "/die"]
    async with running(tmp_path, {HOST: service}) as daemon:
        sent = 0
        for method in ("GET", "PUT", "DELETE", "POST", "PATCH"):
            for path in paths:
                for _ in range(6):
                    # A run that answered once is no failed start. Right after a death a request may
                    # still meet the dying socket: that is a 502, once.
                    while (await get(client, daemon, "/"))[0] != 200:
                        await asyncio.sleep(0.01)
                    url = f"{daemon.url}{path}{'&' if '?' in path else '?'}id={sent}"
                    body = b"x" * 100 if method in {"PUT", "POST", "PATCH"} else None
                    sent += 1
                    try:
                        async with client.request(
                            method, url, data=body, headers=HEADERS
                        ) as response:
                            await response.read()
                    except (aiohttp.ClientError, ConnectionError):
                        pass  # a cut answer, or a death: only the count matters here

        counts = journal_ids(journal)
        assert [] == [key for key, count in counts.items() if count > 1]
        assert len(counts) >= sent * 0.95, f"only {len(counts)} of {sent} arrived"


def digest_of_bytes(size: int) -> str:
    """Return the sha256 of what the plain service sends for /bytes?size=."""
    digest = hashlib.sha256()
    for start in range(0, size, len(BLOCK)):
        digest.update(BLOCK[: size - start])
    return digest.hexdigest()


async def test_two_gigabytes_pass_in_constant_memory(tmp_path: Path) -> None:
    """2 GB up and down through a held start: every byte arrives, memory grows by under 32 MB."""
    size = 2_000_000_000
    service = plain("--ready-after", "1", max_body="3GB")
    async with running(tmp_path, {HOST: service}) as daemon:
        before = daemon.resident_bytes()
        timeout = aiohttp.ClientTimeout(total=150)
        async with aiohttp.ClientSession(timeout=timeout) as session:
            block = bytes(range(256)) * 1024
            sent, received_digest = hashlib.sha256(), hashlib.sha256()

            async def body() -> object:
                left = size
                while left:
                    piece = block[: min(len(block), left)]
                    left -= len(piece)
                    sent.update(piece)
                    yield piece

            headers = {**HEADERS, "Content-Length": str(size)}
            async with session.post(
                daemon.url + "/upload", data=body(), headers=headers
            ) as response:
                up = await response.json()
            after_up = daemon.resident_bytes()
            received = 0
            async with session.get(f"{daemon.url}/bytes?size={size}", headers=HEADERS) as response:
                async for piece in response.content.iter_any():
                    received += len(piece)
                    received_digest.update(piece)
        grown = max(after_up, daemon.resident_bytes()) - before
        print(f"memory grew by {grown / 1e6:.1f} MB")

        assert (size, size) == (up["bytes"], received)
        assert sent.hexdigest() == up["sha256"]
        assert await asyncio.to_thread(digest_of_bytes, size) == received_digest.hexdigest()
        assert grown < 32_000_000


async def test_two_thousand_requests_are_held_at_once(tmp_path: Path) -> None:
    """2,000 requests held through one start are all answered; prints the memory per request."""
    service = plain("--ready-after", "4", max_waiting=2000)
    async with running(tmp_path, {HOST: service}) as daemon:
        before = daemon.resident_bytes()
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(connector=connector) as session:
            tasks = [asyncio.create_task(get(session, daemon, "/")) for _ in range(2000)]
            while (await daemon.states())[HOST]["state"] != "ready":
                waiting = len((await daemon.states())[HOST]["waiting"])
                held = daemon.resident_bytes() - before if waiting == 2000 else 0
                if held:
                    print(f"{held / 2000 / 1000:.1f} kB for each of {waiting} held requests")
                    break
                await asyncio.sleep(0.1)
            answers = await asyncio.gather(*tasks)

        assert Counter({200: 2000}) == Counter(status for status, _ in answers)
        assert 1 == daemon.starts()


async def test_a_reload_does_not_touch_an_answer(
    tmp_path: Path, client: aiohttp.ClientSession
) -> None:
    """A reload during a long answer: the answer is complete, the new limits hold afterwards."""
    async with running(tmp_path, {HOST: plain(idle="60s")}) as daemon:
        answer = asyncio.create_task(get(client, daemon, "/drip?chunks=10&gap=1"))
        await daemon.wait_for_state("ready")
        daemon.write_map({HOST: plain(idle="1s")})
        status, text = await daemon.run_cli("reload")
        assert 0 == status, text
        code, body = await answer

        assert (200, 10) == (code, body.count("chunk"))
        await daemon.wait_for_state("stopped", seconds=5)


async def test_a_bad_map_is_refused_whole(tmp_path: Path, client: aiohttp.ClientSession) -> None:
    """A bad map changes nothing, and every one of its errors is named."""
    async with running(tmp_path, {HOST: plain()}) as daemon:
        bad = plain(idle="soon", colour="red")
        daemon.write_map({HOST: bad, "new.localhost": plain(max_body="lots")})
        status, text = await daemon.run_cli("reload")

        assert 0 != status
        for word in ("idle", "soon", "colour", "max_body", "lots"):
            assert word in text, text
        assert "Traceback" not in text
        assert 200 == (await get(client, daemon, "/"))[0]
        assert 404 == (await get(client, daemon, "/", "new.localhost"))[0]
