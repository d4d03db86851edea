"""Requests that two readers could understand differently: refused, logged once, never forwarded.

The table holds what aiohttp's parser refuses by itself and what `autostart.proxy.framing` adds. It
runs on both of aiohttp's parsers, the one in C and the one in Python.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path

import h11
import pytest
import structlog
import uvloop

from tests.e2e.proxied import OK, PATIENCE_SECONDS, Proxied, Visit, proxied

FUZZ_COUNT = int(os.environ.get("AUTOSTART_FUZZ_COUNT", "100000"))
FUZZ_SEED = int(os.environ.get("AUTOSTART_FUZZ_SEED", str(random.SystemRandom().getrandbits(32))))
FUZZ_CLIENTS = 48

H = b"Host: service.test\r\n"
TE = b"Transfer-Encoding: chunked\r\n"
# The request that a smuggler hides in what another reader takes for a body.
HIDDEN = b"GET /hidden HTTP/1.1\r\n" + H + b"\r\n"


def get(headers: bytes, line: bytes = b"GET / HTTP/1.1") -> bytes:
    return line + b"\r\n" + headers + b"\r\n"


def post(headers: bytes, body: bytes = b"0\r\n\r\n" + HIDDEN) -> bytes:
    return b"POST / HTTP/1.1\r\n" + H + headers + b"\r\n" + body


REFUSED = {
    # Host.
    "no host": get(b""),
    "two hosts": get(H + b"Host: other.test\r\n"),
    "the same host twice": get(H + H),
    "two hosts in HTTP/1.0": get(H + H, b"GET / HTTP/1.0"),
    "a list of hosts": get(b"Host: service.test, other.test\r\n"),
    "a space in the host": get(b"Host: service.test other\r\n"),
    "a user in the host": get(b"Host: user@service.test\r\n"),
    "a path in the host": get(b"Host: service.test/x\r\n"),
    "a bad port in the host": get(b"Host: service.test:x\r\n"),
    "an open bracket in the host": get(b"Host: [::1\r\n"),
    "a host beyond ASCII": get(b"Host: service.t\xc3\xa9st\r\n"),
    # Request line.
    "a url of another host": get(H, b"GET http://other.test/ HTTP/1.1"),
    "a url of another port": get(H, b"GET http://service.test:81/ HTTP/1.1"),
    "a url with a user": get(H, b"GET http://user@service.test/ HTTP/1.1"),
    "a url of another scheme": get(H, b"GET ftp://service.test/ HTTP/1.1"),
    "a url with a bad port": get(H, b"GET http://service.test:99999/ HTTP/1.1"),
    "a url with an open bracket": get(H, b"GET http://[service.test/ HTTP/1.1"),
    "a relative target": get(H, b"GET index.html HTTP/1.1"),
    "an opaque target": get(H, b"GET mailto:x HTTP/1.1"),
    "an asterisk with GET": get(H, b"GET * HTTP/1.1"),
    "a fragment": get(H, b"GET /a#b HTTP/1.1"),
    "a space in the target": get(H, b"GET /a b HTTP/1.1"),
    "a tab in the request line": get(H, b"GET\t/ HTTP/1.1"),
    "a control character in the target": get(H, b"GET /\x01 HTTP/1.1"),
    "a nul in the target": get(H, b"GET /\x00 HTTP/1.1"),
    "a delete in the target": get(H, b"GET /\x7f HTTP/1.1"),
    "an unknown method": get(H, b"FOO / HTTP/1.1"),
    "a method of ICE": get(H, b"SOURCE / HTTP/1.1"),
    "a method of RTSP": get(H, b"DESCRIBE / RTSP/1.0"),
    "HTTP/0.9": b"GET /\r\n\r\n",
    "CONNECT without a target": b"CONNECT \r\nservice.test:80 HTTP/1.1\r\n" + H + b"\r\n\r\n",
    "HTTP/0.9 in words": get(H, b"GET / HTTP/0.9"),
    "HTTP/1.2": get(H, b"GET / HTTP/1.2"),
    "HTTP/1.10": get(H, b"GET / HTTP/1.10"),
    "HTTP/2.0": get(H, b"GET / HTTP/2.0"),
    "HTTP/2's preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(40) + b"\r\n\r\n",
    "SSH": b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
    "a long target": get(H, b"GET /" + b"a" * 40_000 + b" HTTP/1.1"),
    # Header lines.
    "a space before the colon": get(H + b"X-A : a\r\n"),
    "a space before the host's colon": get(b"Host : service.test\r\n"),
    "a space before the first name": get(b" X-A: a\r\n" + H),
    "a folded line": get(H + b"X-A: a\r\n b\r\n"),
    "a line folded by a tab": get(H + b"X-A: a\r\n\tb\r\n"),
    "a line folded at once": get(H + b"X-A:\r\n b\r\n"),
    "a bare CR in a value": get(H + b"X-A: a\rb\r\n"),
    "a bare LF in a value": get(H + b"X-A: a\nX-B: b\r\n"),
    "bare LFs all over": b"GET / HTTP/1.1\nHost: service.test\n\n",
    "a bare LF at the end": b"GET / HTTP/1.1\r\n" + H + b"\n",
    "a nul in a value": get(H + b"X-A: a\0b\r\n"),
    "a control character in a value": get(H + b"X-A: a\x01b\r\n"),
    "a delete in a value": get(H + b"X-A: a\x7fb\r\n"),
    "a nul in a name": get(H + b"X\0A: a\r\n"),
    "a space in a name": get(H + b"X A: a\r\n"),
    "a parenthesis in a name": get(H + b"X(A: a\r\n"),
    "a name beyond ASCII": get(H + b"X\xe9A: a\r\n"),
    "no name": get(H + b": a\r\n"),
    "no colon": get(H + b"XA\r\n"),
    "a long value": get(H + b"X-A: " + b"a" * 40_000 + b"\r\n"),
    "a long name": get(H + b"a" * 40_000 + b": a\r\n"),
    "too many lines": get(H + b"X-A: a\r\n" * 200),
    "WebSocket before RFC 6455": get(H + b"Sec-WebSocket-Key1: a\r\n"),
    # Bodies.
    "chunks and a length": post(TE + b"Content-Length: 3\r\n"),
    "a length and chunks": post(b"Content-Length: 3\r\n" + TE),
    "gzip, chunked": post(b"Transfer-Encoding: gzip, chunked\r\n"),
    "chunked twice": post(b"Transfer-Encoding: chunked, chunked\r\n"),
    "chunked on two lines": post(TE + TE),
    "chunked, then identity": post(TE + b"Transfer-Encoding: identity\r\n"),
    "identity": post(b"Transfer-Encoding: identity\r\n"),
    "xchunked": post(b"Transfer-Encoding: xchunked\r\n"),
    "chunked with a parameter": post(b"Transfer-Encoding: chunked;x=y\r\n"),
    "chunked in quotes": post(b'Transfer-Encoding: "chunked"\r\n'),
    "chunked after a vertical tab": post(b"Transfer-Encoding: \x0bchunked\r\n"),
    "no coding": post(b"Transfer-Encoding:\r\n"),
    "no coding with GET": get(H + b"Transfer-Encoding:\r\n"),
    "chunks in HTTP/1.0": b"POST / HTTP/1.0\r\n" + H + TE + b"\r\n0\r\n\r\n" + HIDDEN,
    "a length with a plus": post(b"Content-Length: +5\r\n"),
    "a length with a minus": post(b"Content-Length: -5\r\n"),
    "a list of lengths": post(b"Content-Length: 5,5\r\n"),
    "a length in hex": post(b"Content-Length: 0x5\r\n"),
    "two numbers as length": post(b"Content-Length: 5 5\r\n"),
    "a length with an underscore": post(b"Content-Length: 1_0\r\n"),
    "a length in other digits": post("Content-Length: \N{ARABIC-INDIC DIGIT FIVE}\r\n".encode()),
    "an empty length": post(b"Content-Length:\r\n"),
    "a length beyond 64 bits": post(b"Content-Length: 99999999999999999999999\r\n"),
    "a length of 64 bits": post(b"Content-Length: 18446744073709551615\r\n"),
    "the same length twice": post(b"Content-Length: 5\r\nContent-Length: 5\r\n"),
    "two lengths": post(b"Content-Length: 5\r\nContent-Length: 6\r\n"),
    "a chunk size in words": post(TE, b"zz\r\n"),
    "a chunk size in C": post(TE, b"0x5\r\nhello\r\n0\r\n\r\n"),
    "a chunk size with a plus": post(TE, b"+5\r\nhello\r\n0\r\n\r\n"),
    "a space after a chunk size": post(TE, b"5 \r\nhello\r\n0\r\n\r\n"),
    "a bare LF after a chunk size": post(TE, b"5\nhello\r\n0\r\n\r\n"),
    "a bare LF in an extension": post(TE, b"5;a\nhello\r\n0\r\n\r\n" + HIDDEN),
    "a chunk longer than its size": post(TE, b"5\r\nhello!\r\n0\r\n\r\n"),
}
UNSUPPORTED = {
    "CONNECT": get(H, b"CONNECT service.test:80 HTTP/1.1"),
    "h2c": get(H + b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n") + HIDDEN,
    "several protocols": get(H + b"Connection: upgrade\r\nUpgrade: h2c, websocket\r\n") + HIDDEN,
    "a websocket by POST": post(
        b"Connection: upgrade\r\nUpgrade: websocket\r\nContent-Length: 0\r\n", HIDDEN
    ),
    "a websocket in HTTP/1.0": get(
        H + b"Connection: upgrade\r\nUpgrade: websocket\r\n", b"GET / HTTP/1.0"
    ),
}
# What looks odd and is one request to every reader; the line that the service gets.
FORWARDED = {
    "empty lines before": (b"\r\n\r\n" + get(H), b"GET / HTTP/1.1"),
    "the url of the host": (get(H, b"GET http://SERVICE.test/a HTTP/1.1"), b"GET /a HTTP/1.1"),
    "spaces around a length": (post(b"Content-Length: \t 5 \t\r\n", b"hello"), b"POST / HTTP/1.1"),
    "zeros before a length": (post(b"Content-Length: 005\r\n", b"hello"), b"POST / HTTP/1.1"),
    "chunked in capitals": (
        post(b"transfer-encoding:CHUNKED\r\n", b"0\r\n\r\n"),
        b"POST / HTTP/1.1",
    ),
    "chunk extensions": (post(TE, b"5;a=b\r\nhello\r\n0\r\n\r\n"), b"POST / HTTP/1.1"),
    "GET with a body": (get(H + b"Content-Length: 5\r\n") + b"hello", b"GET / HTTP/1.1"),
    "an Upgrade that nobody asked for": (get(H + b"Upgrade: h2c\r\n"), b"GET / HTTP/1.1"),
    "a long value": (get(H + b"X-A: " + b"a" * 32_000 + b"\r\n"), b"GET / HTTP/1.1"),
    "an IPv6 host": (get(b"Host: [::1]:8890\r\n"), b"GET / HTTP/1.1"),
}
# Where the parser in Python is lenient without harm: it takes get for GET, and waits for more than
# 64 bits can count, within request_timeout.
ONLY_LLHTTP = {
    "a method in lower case": get(H, b"get / HTTP/1.1"),
    "a chunk size beyond 64 bits": post(TE, b"fffffffffffffffff\r\nhello\r\n"),
}


async def answer_at_once(visit: Visit) -> None:
    await visit.head()
    await visit.send(OK)


async def refuse(here: Proxied, request: bytes, status: bytes, code: str) -> None:
    """The whole story of one refused request."""
    with structlog.testing.capture_logs() as logs:
        client = await here.client()
        await client.send(request)
        head, body = await client.answer()
        rest, how = await client.end()
        await client.close()

    lines = head.split(b"\r\n")
    assert lines[0].startswith(b"HTTP/1.1 " + status)
    assert b"Autostart-Error: " + code.encode() in lines
    assert b"Connection: close" in lines
    assert b"Content-Type: application/json" in lines
    assert b"aiohttp" not in (head + body).lower()
    assert b"Traceback" not in body
    assert code == json.loads(body)["error"]["code"]
    assert (b"", "end") == (rest, how)
    assert 1 == len(logs), logs
    assert ("bad request", "info") == (logs[0]["event"], logs[0]["log_level"])
    assert [] == here.visits


@pytest.mark.parametrize("case", REFUSED)
async def test_an_ambiguous_request_is_refused(case: str) -> None:
    """400 bad-request in our words, one log line, the connection closed, nothing forwarded."""
    async with proxied(answer_at_once) as here:
        await refuse(here, REFUSED[case], b"400 ", "bad-request")


@pytest.mark.parametrize("case", UNSUPPORTED)
async def test_other_upgrades_are_refused(case: str) -> None:
    """501 upgrade-unsupported for CONNECT and whatever is not a proper websocket."""
    async with proxied(answer_at_once) as here:
        await refuse(here, UNSUPPORTED[case], b"501 ", "upgrade-unsupported")


@pytest.mark.parametrize("case", FORWARDED)
async def test_an_odd_but_unambiguous_request_is_forwarded(case: str) -> None:
    """It reaches the service as one request."""
    request, line = FORWARDED[case]
    async with proxied(answer_at_once) as here:
        head, _ = await here.ask(request)

        assert head.startswith(b"HTTP/1.1 200 OK\r\n")
        assert 1 == len(here.visits)
        assert line == here.visits[0].received.split(b"\r\n", 1)[0]


@pytest.mark.skipif(bool(os.environ.get("AIOHTTP_NO_EXTENSIONS")), reason="llhttp is not used")
@pytest.mark.parametrize("case", ONLY_LLHTTP)
async def test_what_llhttp_alone_sees_is_refused(case: str) -> None:
    """400 bad-request, as in the table."""
    async with proxied(answer_at_once) as here:
        await refuse(here, ONLY_LLHTTP[case], b"400 ", "bad-request")


@pytest.mark.skipif(bool(os.environ.get("AIOHTTP_NO_EXTENSIONS")), reason="this is that run")
def test_the_table_holds_for_the_parser_in_python() -> None:
    """Where aiohttp was installed without its C extensions, the same requests are refused."""
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", __file__, "-q", "-k", "ambiguous or upgrades"],
        env={**os.environ, "AIOHTTP_NO_EXTENSIONS": "1"},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    assert 0 == ran.returncode, ran.stdout[-4000:]


async def test_a_refusal_does_not_quote_the_request() -> None:
    """Neither the log nor the answer repeats bytes of a header value: it may be a token."""
    async with proxied(answer_at_once) as here:
        with structlog.testing.capture_logs() as logs:
            _, body = await here.ask(get(H + b"Authorization: Bearer sesame\x01\r\n"))

        assert b"sesame" not in body
        assert "sesame" not in str(logs)
        assert "invalid header value char" in json.loads(body)["detail"]


async def test_a_good_request_before_a_bad_one_is_answered() -> None:
    """What a client pipelined behind a good request is refused after its answer."""
    async with proxied(answer_at_once) as here:
        client = await here.client()
        await client.send(get(H))
        first, _ = await client.answer()
        await client.send(get(H + H))
        second, _ = await client.answer()

        assert first.startswith(b"HTTP/1.1 200 OK\r\n")
        assert second.startswith(b"HTTP/1.1 400 Bad Request\r\n")
        assert (b"", "end") == await client.end()
        assert 1 == len(here.visits)


async def test_a_refusal_is_read_by_a_client_that_sends_on() -> None:
    """Megabytes behind a bad head do not turn its 400 into a reset."""
    async with proxied(answer_at_once) as here:
        client = await here.client()
        client.writer.write(post(b"Content-Length: +5\r\n", b"x" * 8 * 2**20))
        head, _ = await client.answer()

        assert head.startswith(b"HTTP/1.1 400 Bad Request\r\n")
        await client.writer.drain()


# Fuzz.


class Malformer:
    """Makes requests that are wrong in one way, which is known, and random in all others."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.cases = list({**REFUSED, **UNSUPPORTED, **ONLY_LLHTTP}.items())

    def request(self) -> tuple[str, bytes]:
        """What is wrong with it, and the request."""
        case, request = self.chance.choice(self.cases)
        line, separator, rest = request.partition(b"\r\n")
        keeps_its_start = case in ("TLS", "SSH", "HTTP/0.9", "HTTP/2's preface")
        starts_with_space = rest.startswith((b" ", b"\t"))
        if separator and not keeps_its_start and not starts_with_space:
            rest = b"".join(self.harmless() for _ in range(self.chance.randrange(4))) + rest
        elif case in ("TLS", "SSH"):
            rest += self.chance.randbytes(self.chance.randrange(64))
        return case, line + separator + rest

    def harmless(self) -> bytes:
        """A header line that changes nothing."""
        name = bytes(self.chance.choices(b"abcXYZ019-_!#$%&'*+.^`|~", k=self.chance.randint(3, 12)))
        value = bytes(self.chance.choices(range(0x21, 0x100), k=self.chance.randrange(24)))
        return b"x-" + name + b": " + value.replace(b"\x7f", b"") + b"\r\n"

    def mutant(self) -> bytes:
        """A good request, or a bad one, with some bytes changed, lost, doubled or added."""
        good = [get(H), post(b"Content-Length: 5\r\n", b"hello"), FORWARDED["chunk extensions"][0]]
        request = bytearray(self.chance.choice([*good, self.chance.choice(self.cases)[1]])[:4096])
        for _ in range(self.chance.randint(1, 3)):
            at = self.chance.randrange(len(request))
            match self.chance.randrange(5):
                case 0:
                    request[at] = self.chance.randrange(256)
                case 1:
                    del request[at : at + self.chance.randint(1, 3)]
                case 2:
                    request[at:at] = self.chance.choice([b"\r", b"\n", b"\0", b" ", b"\r\n", b":"])
                case 3:
                    end = at + self.chance.randint(1, 20)
                    request[at:at] = request[at:end]
                case 4:
                    request[at:at] = self.chance.choice(
                        [TE, H, b"Content-Length: 1\r\n", b"0\r\n\r\n"]
                    )
            request = request or bytearray(b"\r\n")
        return bytes(request)


class FuzzClient(asyncio.Protocol):
    """Sends one request and takes what comes until the proxy ends the connection."""

    def __init__(self, request: bytes) -> None:
        self.received = bytearray()
        self.request = request
        self.said_enough = False
        self.ended = asyncio.get_running_loop().create_future()
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.transport.write(self.request)

    def data_received(self, data: bytes) -> None:
        self.received += data
        if self.received.startswith(b"HTTP/1.1 200") and not self.said_enough:
            # It was a good one, so its connection is kept: end it with a bad one.
            self.said_enough = True
            self.transport.write(b"\0\r\n\r\n")

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.ended.done():
            self.ended.set_result(None)


async def converse(path: Path, request: bytes) -> bytes:
    """Everything that the proxy says to `request`, until it ends the connection."""
    loop = asyncio.get_running_loop()
    _, client = await loop.create_unix_connection(lambda: FuzzClient(request), path)
    async with asyncio.timeout(PATIENCE_SECONDS):
        await client.ended
    return bytes(client.received)


def fuzzing(story) -> None:
    print(f"AUTOSTART_FUZZ_SEED={FUZZ_SEED} AUTOSTART_FUZZ_COUNT={FUZZ_COUNT}")
    with structlog.testing.capture_logs() as logs:
        uvloop.run(story(random.Random(FUZZ_SEED)))
    levels = Counter(line["log_level"] for line in logs)
    assert not [line for line in logs if line["log_level"] not in ("info", "warning")], levels


@pytest.mark.timeout(300)
def test_no_malformed_request_is_forwarded(tmp_path: Path) -> None:
    """Of very many, each gets its 400 or 501: no traceback, no hang, nothing for the service."""

    async def story(chance: random.Random) -> None:
        malformer = Malformer(chance)
        wrong: list[tuple[str, bytes, bytes]] = []
        async with proxied(answer_at_once, unix_path=tmp_path / "socket") as here:

            async def client(count: int) -> None:
                for _ in range(count):
                    case, request = malformer.request()
                    received = await converse(here.unix_path, request)
                    if received[:13] not in (b"HTTP/1.1 400 ", b"HTTP/1.1 501 "):
                        wrong.append((case, request[:200], received[:80]))

            await asyncio.gather(*(client(FUZZ_COUNT // FUZZ_CLIENTS) for _ in range(FUZZ_CLIENTS)))

            assert [] == wrong[:5]
            assert [] == here.visits

    fuzzing(story)


@pytest.mark.timeout(300)
def test_what_is_forwarded_of_mutants_is_one_whole_request(tmp_path: Path) -> None:
    """Whatever passes of mutated requests, another strict parser reads it as one request."""
    forwarded: list[bytes] = []

    async def record(visit: Visit) -> None:
        try:
            await visit.head()
            await visit.send(OK)
            await visit.end()
        finally:
            forwarded.append(visit.received)

    async def story(chance: random.Random) -> None:
        malformer = Malformer(chance)
        limits = {"request_timeout_seconds": 0.05, "head_timeout_seconds": 0.05}
        async with proxied(record, unix_path=tmp_path / "socket", **limits) as here:

            async def client(count: int) -> None:
                for _ in range(count):
                    await converse(here.unix_path, malformer.mutant())

            count = FUZZ_COUNT // 2
            await asyncio.gather(*(client(count // FUZZ_CLIENTS) for _ in range(FUZZ_CLIENTS)))
            await here.until(lambda: len(forwarded) == len(here.visits))

    fuzzing(story)
    # A client that leaves, or is late, while we connect has sent nothing on.
    passed = [request for request in forwarded if request]
    assert passed
    for request in passed:
        assert_is_one_request(request)


def assert_is_one_request(request: bytes) -> None:
    """h11 reads one request, maybe broken off in its body, and nothing behind it."""
    service = h11.Connection(h11.SERVER)
    service.receive_data(request)
    event = service.next_event()
    assert isinstance(event, h11.Request), request
    while isinstance(event := service.next_event(), h11.Data):
        pass
    assert event is h11.NEED_DATA or isinstance(event, h11.EndOfMessage), request
    assert b"" == service.trailing_data[0], request
