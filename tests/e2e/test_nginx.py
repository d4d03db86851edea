"""The promises through Debian's nginx, on what `autostart nginx` prints: what it could break."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import ssl
import time
from collections.abc import AsyncIterator
from itertools import pairwise
from pathlib import Path

import aiohttp
import psutil
import pytest

from tests.daemon import plain
from tests.front import HOST, LOGIN, Front, fronted
from tests.plain_request import BLOCK

GIGABYTE = 1_000_000_000
HTTPS_1, HTTPS_2 = "--http1.1", "--http2"
# curl's exit statuses for an answer that was cut: CURLE_PARTIAL_FILE, CURLE_RECV_ERROR,
# CURLE_HTTP2_STREAM.
CUT = {18, 56, 92}

both_versions = pytest.mark.parametrize("version", [HTTPS_1, HTTPS_2], ids=["http1", "http2"])


@contextlib.asynccontextmanager
async def websocket(front: Front) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
    """A WebSocket to the plain service, with a login."""
    trusting = ssl.create_default_context()
    trusting.check_hostname = False
    trusting.verify_mode = ssl.CERT_NONE
    url = f"wss://127.0.0.1:{front.nginx.https_port}/ws"
    headers = {"Host": HOST, "Authorization": aiohttp.encode_basic_auth(*LOGIN)}
    async with aiohttp.ClientSession(headers=headers) as session:
        options = {"ssl": trusting, "server_hostname": HOST}
        async with session.ws_connect(url, max_msg_size=0, **options) as socket:
            yield socket


def resident_bytes(front: Front) -> int:
    return front.nginx.resident_bytes() + front.daemon.resident_bytes()


@both_versions
async def test_a_gigabyte_waits_for_a_start_outside_of_disk_and_memory(
    tmp_path: Path, version: str
) -> None:
    """1 GB sent to a stopped service arrives whole; nginx could keep none of it on disk."""
    block = BLOCK * 16
    file = tmp_path / "gigabyte"
    digest = hashlib.sha256()
    with file.open("wb") as written:
        for _ in range(GIGABYTE // len(block) + 1):
            written.write(block)
            digest.update(block)
    service = plain("--ready-after", "2", max_body="2GB")
    async with fronted(tmp_path, {HOST: service}) as front:
        await front.curl("/", "--head")  # what a first request allocates for good
        await front.daemon.run_cli("stop", HOST)
        before = most = resident_bytes(front)
        upload = asyncio.ensure_future(front.curl("/upload", version, "-T", str(file)))
        while not upload.done():
            most = max(most, resident_bytes(front))
            await asyncio.sleep(0.05)
        answer = await upload
    got, size = json.loads(answer.body), file.stat().st_size
    file.unlink()

    assert (0, 200) == (answer.ended, answer.status)
    assert (size, digest.hexdigest()) == (got["bytes"], got["sha256"])
    assert "cold" == answer.header("Autostart-Start")
    assert most - before < 32_000_000
    assert "temporary" not in front.nginx.log()


@both_versions
async def test_a_large_answer_waits_for_a_slow_reader_outside_of_disk_and_memory(
    tmp_path: Path, version: str
) -> None:
    """200 MB to a client that reads 100 MB/s arrive whole; nginx could keep none of it on disk."""
    async with fronted(tmp_path, {HOST: plain()}) as front:
        await front.curl("/")
        before = most = resident_bytes(front)
        words = ("--limit-rate", "100M", "--output", str(tmp_path / "got"))
        download = asyncio.ensure_future(front.curl("/bytes?size=200000000", version, *words))
        while not download.done():
            most = max(most, resident_bytes(front))
            await asyncio.sleep(0.05)
        answer = await download
        size = (tmp_path / "got").stat().st_size
        (tmp_path / "got").unlink()

        assert (0, 200, 200_000_000) == (answer.ended, answer.status, size)
        assert most - before < 32_000_000
        assert "temporary" not in front.nginx.log()


@both_versions
async def test_each_event_arrives_when_it_is_sent(tmp_path: Path, version: str) -> None:
    """Of events that are a second apart, none waits for the next one."""
    async with fronted(tmp_path, {HOST: plain()}) as front:
        url = f"https://{HOST}/sse?events=3&gap=1"
        command = front.curl_command(url, "--no-buffer", "--user", ":".join(LOGIN), version)
        process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
        assert process.stdout is not None
        arrived = [
            (line, time.monotonic()) async for line in process.stdout if line.startswith(b"data:")
        ]
        await process.wait()

    assert [b"data: event %d\n" % number for number in range(3)] == [line for line, _ in arrived]
    assert [True, True] == [later - earlier > 0.5 for (_, earlier), (_, later) in pairwise(arrived)]


async def test_a_websocket_wakes_its_service_and_echoes(tmp_path: Path) -> None:
    """The upgrade is held until the service is ready; then messages of a megabyte go both ways."""
    async with fronted(tmp_path, {HOST: plain("--ready-after", "1")}) as front:
        message = "m" * 1_000_000
        async with websocket(front) as socket:
            await socket.send_str("hello")
            first = await socket.receive_str()
            await socket.send_str(message)
            second = await socket.receive_str()

        assert ("hello", message) == (first, second)
        assert 1 == front.daemon.starts(HOST)


async def test_silence_beyond_nginxs_own_minute_is_waited_for(tmp_path: Path) -> None:
    """65 s without a byte cut nothing: not an answer, not a held request, not a WebSocket."""
    services = {
        HOST: plain(),
        "slow.example.com": plain("--ready-after", "65", start_timeout="90s"),
    }
    async with fronted(tmp_path, services) as front:
        async with websocket(front) as socket:
            answers = await asyncio.gather(
                front.curl("/slow?seconds=65", HTTPS_1),
                front.curl("/slow?seconds=65", HTTPS_2),
                front.curl("/upload", HTTPS_2, "--data", "held", host="slow.example.com"),
            )
            await socket.send_str("after the silence")
            echoed = await socket.receive_str()

    assert [(0, 200)] * 3 == [(answer.ended, answer.status) for answer in answers]
    assert "after the silence" == echoed


@both_versions
@pytest.mark.parametrize("framing", ["length", "chunked"])
async def test_a_cut_answer_is_seen_as_cut(tmp_path: Path, version: str, framing: str) -> None:
    """A service that dies in its answer: no client takes what came for the whole."""
    async with fronted(tmp_path, {HOST: plain()}) as front:
        answer = await front.curl(f"/die-mid?size=100000&{framing}&after=0.2", version)

        assert (True, 200) == (answer.ended in CUT, answer.status), answer
        assert len(answer.body) <= 100_000


@both_versions
@pytest.mark.parametrize("framing", ["length", "chunked"])
async def test_what_is_too_large_is_refused_in_our_words(
    tmp_path: Path, version: str, framing: str
) -> None:
    """The 413 is JSON with Autostart-Error; where the length is known, nothing was woken."""
    file = tmp_path / "large"
    file.write_bytes(bytes(20_000_000))
    # Of what comes from a pipe curl cannot know the length.
    body = ("--upload-file", str(file)) if framing == "length" else ("--upload-file", "-")
    async with fronted(tmp_path, {HOST: plain(max_body="1MB")}) as front:
        answer = await front.curl("/upload", version, *body, sent=file.read_bytes())

        assert (413, "body-too-large") == (answer.status, answer.header("Autostart-Error"))
        assert "body-too-large" == json.loads(answer.body)["error"]["code"]
        if framing == "length":
            assert 0 == front.daemon.starts(HOST)


@both_versions
async def test_the_service_sees_who_asked_and_not_what_they_claim(
    tmp_path: Path, version: str
) -> None:
    """X-Forwarded-* and X-Real-IP tell nginx's view; a client's own, and Forwarded, are dropped."""
    claims = {
        "X-Forwarded-For": "203.0.113.9",
        "X-Real-IP": "203.0.113.9",
        "X-Forwarded-Proto": "gopher",
        "X-Forwarded-Host": "evil.example.com",
        "X-Forwarded-Port": "1",
        "X-Forwarded-Prefix": "/evil",
        "X-Forwarded-Ssl": "off",
        "X-Forwarded-User": "root",
        "Forwarded": "for=203.0.113.9",
    }
    words = [word for name, value in claims.items() for word in ("--header", f"{name}: {value}")]
    async with fronted(tmp_path, {HOST: plain()}) as front:
        # Not 127.0.0.1, so that nginx's client is told from autostart's.
        answer = await front.curl("/echo?a=%2F//b", version, "--interface", "127.0.0.2", *words)
    got = json.loads(answer.body)
    headers = {name.lower(): value for name, value in got["headers"]}

    assert ("/echo?a=%2F//b", HOST) == (got["target"], headers["host"])
    assert {
        "x-forwarded-for": "127.0.0.2, 127.0.0.1",
        "x-real-ip": "127.0.0.2",
        "x-forwarded-proto": "https",
        "x-forwarded-host": HOST,
        "x-forwarded-port": str(front.nginx.https_port),
    } == {
        name: value
        for name, value in headers.items()
        if name.startswith(("x-forwarded", "forwarded", "x-real"))
    }


async def test_the_port_that_was_asked_for_is_kept(tmp_path: Path) -> None:
    """A URL with a port leads to a Host with that port, as services need it for their links."""
    async with fronted(tmp_path, {HOST: plain()}) as front:
        answer = await front.curl(f"https://{HOST}:{front.nginx.https_port}/echo")
    headers = dict(json.loads(answer.body)["headers"])

    assert f"{HOST}:{front.nginx.https_port}" == headers["Host"]


@both_versions
async def test_heads_of_thirty_kilobytes_pass_both_ways(tmp_path: Path, version: str) -> None:
    """A cookie of 30 kB reaches the service, and one of its answers' lines of 30 kB the client."""
    async with fronted(tmp_path, {HOST: plain()}) as front:
        cookie = "c" * 30_000
        asked = await front.curl("/echo", version, "--header", f"Cookie: {cookie}")
        answered = await front.curl("/big-head?size=30000", version)

    headers = {name.lower(): value for name, value in json.loads(asked.body)["headers"]}

    assert cookie == headers["cookie"]
    assert "b" * 30_000 == answered.header("X-Big")


async def test_plain_http_leads_to_https(tmp_path: Path) -> None:
    """308, so that a POST stays one; certbot's challenges are answered without a login."""
    async with fronted(tmp_path, {HOST: plain()}) as front:
        challenges = front.nginx.folder / "webroot/.well-known/acme-challenge"
        challenges.mkdir(parents=True)
        (challenges / "token").write_text("proof")
        led = await front.curl(f"http://{HOST}/a?b=%20c", "--data", "x", login=None)
        proven = await front.curl(f"http://{HOST}/.well-known/acme-challenge/token", login=None)

        port = front.nginx.https_port
        assert (308, f"https://{HOST}:{port}/a?b=%20c") == (led.status, led.header("Location"))
        assert (200, b"proof") == (proven.status, proven.body)
        assert 0 == front.daemon.starts(HOST)


async def test_connections_are_kept_and_http2_is_spoken(tmp_path: Path) -> None:
    """Two requests over HTTP/1.1 take one connection, and whoever can speaks HTTP/2."""
    async with fronted(tmp_path, {HOST: plain()}) as front:
        url = f"https://{HOST}/"
        count = ("--write-out", "%{num_connects} %{http_version};", "--output", "/dev/null")
        kept = await front.curl("/", HTTPS_1, *count, "--output", "/dev/null", url)
        newer = await front.curl("/", *count)

    assert b"1 1.1;0 1.1;" == kept.body
    assert b"1 2;" == newer.body


async def test_an_unknown_name_gets_no_certificate(tmp_path: Path) -> None:
    """The handshake ends without one; behind a known one, another Host gets 421 and no service."""
    async with fronted(tmp_path, {HOST: plain()}) as front:
        unknown = await front.curl("https://unknown.example.com/")
        without_name = await front.curl("https://192.0.2.1/")
        behind = await front.curl("/", "--header", "Host: unknown.example.com")

        assert (35, 35) == (unknown.ended, without_name.ended)
        assert (0, 421) == (behind.ended, behind.status)
        assert 0 == front.daemon.starts(HOST)


async def test_a_unix_socket_leads_to_autostart(tmp_path: Path) -> None:
    """nginx reaches a proxy.listen that is a socket file."""
    socket = tmp_path / "autostart.sock"
    async with fronted(tmp_path, {HOST: plain()}, proxy={"listen": f"unix:{socket}"}) as front:
        answer = await front.curl("/echo")
    headers = dict(json.loads(answer.body)["headers"])

    assert (200, "127.0.0.1") == (answer.status, headers["X-Real-IP"])


async def test_the_log_of_nginx_stays_quiet(tmp_path: Path) -> None:
    """Starting on what is printed warns of nothing."""
    async with fronted(tmp_path, {HOST: plain(aliases=["*.plain.example.com"])}) as front:
        await front.curl("/", host="deep.below.plain.example.com")

        assert [] == [line for line in front.nginx.log().splitlines() if "[warn]" in line]
        assert psutil.pid_exists(front.nginx.workers()[0].pid)
