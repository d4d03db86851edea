"""What goes to a service and what comes back: the very bytes, without those of one hop."""

from __future__ import annotations

import asyncio
from ipaddress import ip_network
from pathlib import Path

import pytest

from autostart import errors
from tests.e2e.proxied import OK, Visit, on_both_loops, proxied

LOOPBACK = (ip_network("127.0.0.0/8"),)


def answering(answer: bytes, body_bytes: int = 0):
    """A service that reads one request and gives `answer`."""

    async def script(visit: Visit) -> None:
        await visit.head()
        await visit.exactly(body_bytes)
        await visit.send(answer)

    return script


def lines(head: bytes) -> list[bytes]:
    return head.removesuffix(b"\r\n\r\n").split(b"\r\n")


async def sent(request: bytes, **options: object) -> list[bytes]:
    """The lines of the head that a service gets for `request`."""
    async with proxied(answering(OK), **options) as here:
        await here.ask(request)
        return lines(here.visits[0].received)


# Up.


@on_both_loops
async def test_a_request_arrives_as_it_was_sent() -> None:
    """Method, target, order, case and repetition of header lines are the client's."""
    request = (
        b"GET /a?b=c&b=%20 HTTP/1.1\r\nHost: service.test\r\nx-LOWER: 1\r\nAccept:  a \r\n"
        b"X-Twice: b\r\nX-Other: \xe9\xff\r\nX-Twice: a\r\nX-Empty:\r\n"
        b"X-Request-ID: id-1\r\n\r\n"
    )
    expected = [
        b"GET /a?b=c&b=%20 HTTP/1.1",
        b"Host: service.test",
        b"x-LOWER: 1",
        b"Accept: a",
        b"X-Twice: b",
        b"X-Other: \xe9\xff",
        b"X-Twice: a",
        b"X-Empty: ",
        b"X-Real-IP: 127.0.0.1",
        b"X-Forwarded-For: 127.0.0.1",
        b"X-Forwarded-Proto: http",
        b"X-Forwarded-Host: service.test",
        b"X-Request-ID: id-1",
        b"Connection: close",
    ]

    assert expected == await sent(request)


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        (b"/p?", b"/p?"),
        (b"//x/%2F", b"//x/%2F"),
        (b"/a/../b/./c", b"/a/../b/./c"),
        (b"/%e9?q=%E9+%20", b"/%e9?q=%E9+%20"),
        (b"/?a=/b?c", b"/?a=/b?c"),
        (b'/[x]|\\^`{}"<>', b'/[x]|\\^`{}"<>'),
        (b"http://service.test/p?", b"/p?"),
        (b"HTTP://SERVICE.test?q", b"/?q"),
        (b"http://service.test", b"/"),
    ],
)
async def test_the_target_is_not_normalised(target: bytes, expected: bytes) -> None:
    """Empty queries, double slashes and escapes stay; only scheme and authority go."""
    head = await sent(b"GET " + target + b" HTTP/1.1\r\nHost: service.test\r\n\r\n")

    assert b"GET " + expected + b" HTTP/1.1" == head[0]


async def test_options_asterisk_is_passed_on() -> None:
    """OPTIONS * asks about the service as a whole."""
    head = await sent(b"OPTIONS * HTTP/1.1\r\nHost: service.test\r\n\r\n")

    assert b"OPTIONS * HTTP/1.1" == head[0]


async def test_hop_by_hop_lines_stay_on_their_hop() -> None:
    """Connection and what it lists, Keep-Alive, Proxy-*, TE, Trailer and Upgrade do not go on."""
    head = await sent(
        b"GET / HTTP/1.1\r\nHost: service.test\r\nConnection: keep-alive, x-Mine\r\nX-Mine: 1\r\n"
        b"Keep-Alive: 1\r\nProxy-Authorization: x\r\nProxy-Connection: x\r\nTE: trailers\r\n"
        b"Trailer: x\r\nUpgrade: h2c\r\nX-Kept: 1\r\n\r\n"
    )

    assert [b"GET / HTTP/1.1", b"Host: service.test", b"X-Kept: 1"] == head[:3]
    assert b"Connection: close" == head[-1]
    assert not [line for line in head if line.lower().startswith((b"x-mine", b"proxy", b"te:"))]


async def test_connection_cannot_name_the_framing_away() -> None:
    """`Connection: content-length, host` leaves both: a body must not become a request."""
    async with proxied(answering(OK, 5)) as here:
        await here.ask(
            b"POST / HTTP/1.1\r\nHost: service.test\r\nContent-Length: 5\r\n"
            b"Connection: content-length, host\r\n\r\nhello"
        )
        received = here.visits[0].received

    assert b"Host: service.test\r\nContent-Length: 5\r\n" in received
    assert received.endswith(b"\r\n\r\nhello")


async def test_an_untrusted_client_cannot_say_who_it_is() -> None:
    """X-Forwarded-*, X-Real-IP, Forwarded and their underscored twins are replaced or dropped."""
    head = await sent(
        b"GET / HTTP/1.1\r\nHost: service.test\r\nX-Forwarded-For: 1.2.3.4\r\n"
        b"X-Real-IP: 1.2.3.4\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: evil\r\n"
        b"X-Forwarded-Port: 1\r\nForwarded: for=1.2.3.4\r\n"
        b"X_Forwarded_For: 1.2.3.4\r\nX-Request-ID: a\r\n\r\n"
    )

    assert [
        b"Host: service.test",
        b"X-Real-IP: 127.0.0.1",
        b"X-Forwarded-For: 127.0.0.1",
        b"X-Forwarded-Proto: http",
        b"X-Forwarded-Host: service.test",
        b"X-Request-ID: a",
        b"Connection: close",
    ] == head[1:]


async def test_a_trusted_proxy_is_believed_and_extended() -> None:
    """What it says of its client stays; its own address is added to X-Forwarded-For."""
    head = await sent(
        b"GET / HTTP/1.1\r\nHost: service.test\r\nX-Forwarded-For: 1.2.3.4\r\n"
        b"X-Real-IP: 1.2.3.4\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: outside\r\n"
        b"Forwarded: for=1.2.3.4\r\nX-Forwarded-For: 5.6.7.8\r\n"
        b"X_Forwarded_For: 6\r\nX-Request-ID: a\r\n\r\n",
        trusted_proxies=LOOPBACK,
    )

    assert [
        b"Host: service.test",
        b"X-Real-IP: 1.2.3.4",
        b"X-Forwarded-Proto: https",
        b"X-Forwarded-Host: outside",
        b"Forwarded: for=1.2.3.4",
        b"X-Forwarded-For: 1.2.3.4, 5.6.7.8, 127.0.0.1",
        b"X-Request-ID: a",
        b"Connection: close",
    ] == head[1:]


async def test_a_unix_socket_is_trusted(tmp_path: Path) -> None:
    """Whoever may open it is believed, and has no address to add."""
    head = await sent(
        b"GET / HTTP/1.1\r\nHost: service.test\r\nX-Forwarded-For: 1.2.3.4\r\n\r\n",
        unix_path=tmp_path / "socket",
    )

    assert b"X-Forwarded-For: 1.2.3.4" in head
    assert not [line for line in head if line.startswith(b"X-Real-IP")]


@pytest.mark.parametrize("given", [b"", b"a b", b"x" * 200, b"\xe9"])
async def test_a_request_id_is_made_where_none_fits(given: bytes) -> None:
    """The service and the client get the same one, made here."""
    async with proxied(answering(OK)) as here:
        head, _ = await here.ask(
            b"GET / HTTP/1.1\r\nHost: service.test\r\nX-Request-ID: " + given + b"\r\n\r\n"
        )
        received = lines(here.visits[0].received)

    made = [line for line in received if line.startswith(b"X-Request-ID: ")]
    assert 1 == len(made)
    assert made == [line for line in lines(head) if line.startswith(b"X-Request-ID: ")]
    assert len(b"X-Request-ID: ") + 32 == len(made[0])


async def test_what_the_caller_adds_arrives() -> None:
    """service_headers go to the service, answer_headers to the client."""
    async with proxied(
        answering(OK), service_headers=(("X-S", "1"),), answer_headers=(("Server-Timing", "x"),)
    ) as here:
        head, _ = await here.ask(b"GET / HTTP/1.1\r\nHost: service.test\r\n\r\n")

        assert b"X-S: 1" in lines(here.visits[0].received)
        assert b"Server-Timing: x" in lines(head)


async def test_http_1_0_without_host_gets_the_service_s() -> None:
    """HTTP/1.1 towards the service needs a Host, so a request without one gets the map's."""
    head = await sent(b"GET / HTTP/1.0\r\n\r\n")

    assert [b"GET / HTTP/1.1", b"Host: service.test"] == head[:2]


@on_both_loops
async def test_a_body_with_a_length_keeps_it() -> None:
    """Content-Length and the bytes arrive as sent, in one request."""
    async with proxied(answering(OK, 5)) as here:
        request = b"POST / HTTP/1.1\r\nHost: service.test\r\nContent-Length: 5\r\n\r\nhello"
        head, _ = await here.ask(request)
        received = here.visits[0].received

    assert b"HTTP/1.1 200 OK" == lines(head)[0]
    assert b"Content-Length: 5\r\n" in received
    assert b"Transfer-Encoding" not in received
    assert received.endswith(b"\r\n\r\nhello")


@on_both_loops
async def test_a_chunked_body_is_chunked_again() -> None:
    """Pieces go on as they come; extensions and trailers of the client's hop stay behind."""
    first_piece = asyncio.Event()

    async def script(visit: Visit) -> None:
        await visit.head()
        assert b"5\r\nhello\r\n" == await visit.exactly(10)
        first_piece.set()
        await visit.until(b"0\r\n\r\n")
        await visit.send(OK)

    async with proxied(script) as here:
        client = await here.client()
        await client.send(
            b"POST / HTTP/1.1\r\nHost: service.test\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"5;a=b\r\nhello\r\n"
        )
        await first_piece.wait()
        await client.send(b"3\r\n12")
        await client.send(b"3\r\n0\r\nX-T: 1\r\n\r\n")
        head, _ = await client.answer()

        assert b"HTTP/1.1 200 OK" == lines(head)[0]
        head, _, body = here.visits[0].received.partition(b"\r\n\r\n")
        assert b"Transfer-Encoding: chunked" in lines(head)
        assert body in (
            b"5\r\nhello\r\n3\r\n123\r\n0\r\n\r\n",
            b"5\r\nhello\r\n2\r\n12\r\n1\r\n3\r\n0\r\n\r\n",
        )


async def test_a_trailer_does_not_become_a_header_of_the_next_request() -> None:
    """After a chunked request the connection closes: aiohttp's parser leaks its last trailer."""

    async def script(visit: Visit) -> None:
        await visit.head()
        await visit.until(b"0\r\n\r\n")
        await visit.send(OK)

    async with proxied(script) as here:
        client = await here.client()
        await client.send(
            b"POST /1 HTTP/1.1\r\nHost: service.test\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"0\r\nX-Evil: 1\r\n\r\n"
            b"GET /2 HTTP/1.1\r\nHost: service.test\r\n\r\n"
        )
        head, _ = await client.answer()
        ending = await client.end()

        assert b"Connection: close" in lines(head)
        assert b"" == ending[0]
        assert 1 == len(here.visits)


async def test_the_client_is_asked_for_its_body_only_when_it_is_read() -> None:
    """`Expect: 100-continue` is answered by us once the service is connected, and not sent on."""

    async with proxied(answering(OK, 5)) as here:
        client = await here.client()
        await client.send(
            b"POST / HTTP/1.1\r\nHost: service.test\r\nContent-Length: 5\r\n"
            b"Expect: 100-Continue\r\n\r\n"
        )
        assert b"HTTP/1.1 100 Continue\r\n\r\n" == (await client.answer())[0]
        await client.send(b"hello")
        head, body = await client.answer()

        assert b"HTTP/1.1 200 OK" == lines(head)[0]
        assert b"ok" == body
        assert b"Expect" not in here.visits[0].received


async def test_a_body_that_came_with_its_head_is_not_asked_for() -> None:
    """A client that did not wait gets no 100."""
    async with proxied(answering(OK, 5)) as here:
        head, _ = await here.ask(
            b"POST / HTTP/1.1\r\nHost: service.test\r\nContent-Length: 5\r\n"
            b"Expect: 100-continue\r\n\r\nhello"
        )

        assert b"HTTP/1.1 200 OK" == lines(head)[0]


# Down.


async def answered(answer: bytes, request: bytes = b"", *, to: str = "GET", **options: object):
    """Head lines and body that a client gets when the service gives `answer`."""
    request = request or to.encode() + b" / HTTP/1.1\r\nHost: service.test\r\n\r\n"
    async with proxied(answering(answer), **options) as here:
        head, body = await here.ask(request, to=to)
        return [line for line in lines(head) if not line.startswith(b"X-Request-ID")], body


@on_both_loops
async def test_an_answer_arrives_as_it_was_given() -> None:
    """Reason, order, case and repetition of header lines are the service's; none is added."""
    answer = (
        b"HTTP/1.1 299 Fine & D\xe9ndy\r\nset-cookie: b=1\r\nX-A: \xe9\r\nSet-Cookie: a=1\r\n"
        b"Content-Encoding: gzip\r\nX-Empty: \r\ncontent-length: 4\r\n\r\n\x1f\x8b\x00\xff"
    )
    head, body = answer.split(b"\r\n\r\n", 1)

    assert (head.split(b"\r\n"), body) == await answered(answer)


async def test_our_names_and_those_of_one_hop_are_stripped() -> None:
    """Autostart-*, Connection and what it lists, Keep-Alive and Proxy-* are the hop's or ours."""
    head, _ = await answered(
        b"HTTP/1.1 200 OK\r\nAutostart-Error: x\r\nautostart-start: cold\r\nConnection: X-Hop\r\n"
        b"X-Hop: 1\r\nKeep-Alive: timeout=5\r\nProxy-Authenticate: x\r\nX-Request-ID: other\r\n"
        b"Access-Control-Allow-Origin: *\r\nContent-Length: 0\r\n\r\n"
    )

    assert [
        b"HTTP/1.1 200 OK",
        b"Access-Control-Allow-Origin: *",
        b"Content-Length: 0",
    ] == head


async def test_cors_is_ours_alone_where_the_map_says_so() -> None:
    """keep_cors=False drops the service's Access-Control-*, whatever their case."""
    head, _ = await answered(
        b"HTTP/1.1 200 OK\r\naccess-control-allow-Origin: *\r\nContent-Length: 0\r\n\r\n",
        keep_cors=False,
        answer_headers=(("Access-Control-Allow-Origin", "https://portal"),),
    )

    assert [
        b"HTTP/1.1 200 OK",
        b"Content-Length: 0",
        b"Access-Control-Allow-Origin: https://portal",
    ] == head


@on_both_loops
@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;x=y\r\nabcde\r\n0\r\nT: v\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nabcde",
        b"HTTP/1.0 200 OK\r\n\r\nabcde",
    ],
    ids=["chunked", "until close", "HTTP/1.0"],
)
async def test_an_answer_without_length_is_chunked(answer: bytes) -> None:
    """However the service marks the end, an HTTP/1.1 client gets chunks and may stay."""
    head, body = await answered(answer)

    assert ([b"HTTP/1.1 200 OK", b"Transfer-Encoding: chunked"], b"abcde") == (head, body)


@on_both_loops
async def test_an_answer_without_length_ends_an_http_1_0_connection() -> None:
    """HTTP/1.0 knows no chunks: the body ends with the connection, in good order."""
    head, body = await answered(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        b"GET / HTTP/1.0\r\nHost: service.test\r\nConnection: keep-alive\r\n\r\n",
    )

    assert ([b"HTTP/1.1 200 OK", b"Connection: close"], b"abc") == (head, body)


@pytest.mark.parametrize(
    ("to", "answer", "expected"),
    [
        ("HEAD", b"200 OK\r\nContent-Length: 5", [b"HTTP/1.1 200 OK", b"Content-Length: 5"]),
        ("HEAD", b"200 OK\r\nTransfer-Encoding: chunked", [b"HTTP/1.1 200 OK"]),
        ("HEAD", b"200 OK", [b"HTTP/1.1 200 OK"]),
        ("GET", b"204 Gone Home\r\nContent-Length: 0", [b"HTTP/1.1 204 Gone Home"]),
        ("GET", b"204 No Content", [b"HTTP/1.1 204 No Content"]),
        (
            "GET",
            b"304 Not Modified\r\nETag: x\r\nContent-Length: 5",
            [b"HTTP/1.1 304 Not Modified", b"ETag: x", b"Content-Length: 5"],
        ),
    ],
)
async def test_an_answer_without_body_has_none(to: str, answer: bytes, expected: list) -> None:
    """After HEAD, 204 and 304 the next answer follows at once on the same connection."""
    async with proxied(answering(b"HTTP/1.1 " + answer + b"\r\n\r\n")) as here:
        client = await here.client()
        for _ in range(2):
            await client.send(to.encode() + b" / HTTP/1.1\r\nHost: service.test\r\n\r\n")
            head, _ = await client.answer(to=to)

            assert expected == lines(head)[:-1]


async def test_a_body_after_head_is_dropped() -> None:
    """A service that answers HEAD with a body does not put the connection out of step."""
    async with proxied(answering(OK)) as here:
        client = await here.client()
        for _ in range(2):
            await client.send(b"HEAD / HTTP/1.1\r\nHost: service.test\r\n\r\n")
            head, _ = await client.answer(to="HEAD")

            assert b"HTTP/1.1 200 OK" == lines(head)[0]


async def test_interim_answers_are_dropped() -> None:
    """100 and 103 of the service are not for the client, however many there are."""
    head, body = await answered(
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" * 3 + OK
    )

    assert ([b"HTTP/1.1 200 OK", b"Content-Length: 2"], b"ok") == (head, body)


async def test_each_request_takes_a_connection_of_its_own() -> None:
    """Requests of one client's connection reach the service on one connection each."""
    async with proxied(answering(OK)) as here:
        client = await here.client()
        for _ in range(3):
            await client.send(b"GET / HTTP/1.1\r\nHost: service.test\r\n\r\n")
            await client.answer()

        assert 3 == len(here.visits)
        assert all(visit.received.count(b"GET") == 1 for visit in here.visits)


async def test_pipelined_requests_are_answered_in_order() -> None:
    """Two requests in one packet give two answers, one after the other."""

    async def script(visit: Visit) -> None:
        path = (await visit.head()).split(b" ", 2)[1]
        await visit.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n" + path)

    async with proxied(script) as here:
        client = await here.client()
        request = b"GET /%d HTTP/1.1\r\nHost: service.test\r\n\r\n"
        await client.send(request % 1 + request % 2)

        assert [b"/1", b"/2"] == [(await client.answer())[1], (await client.answer())[1]]


@pytest.mark.parametrize(
    ("request_head", "keeps"),
    [
        (b"GET / HTTP/1.1\r\n", True),
        (b"GET / HTTP/1.1\r\nConnection: close\r\n", False),
        (b"GET / HTTP/1.0\r\n", False),
        (b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n", True),
    ],
)
async def test_the_client_s_connection_is_kept_as_it_wishes(
    request_head: bytes, keeps: bool
) -> None:
    """HTTP/1.1 stays unless told otherwise, HTTP/1.0 leaves unless told otherwise."""
    async with proxied(answering(OK)) as here:
        client = await here.client()
        for _ in range(2 if keeps else 1):
            await client.send(request_head + b"Host: service.test\r\n\r\n")
            assert b"ok" == (await client.answer())[1]
        if not keeps:
            assert (b"", "end") == await client.end()


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 200",
        b"HTTP/1.1 200 OK\r\nContent-Le",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"HTTP/1.1 200 OK\r\nX: a\r b\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X: " + b"a" * 2**21 + b"\r\n\r\n",
    ],
)
async def test_a_service_that_gives_no_valid_head_is_a_502(answer: bytes) -> None:
    """Closed before an answer, another protocol, ambiguous framing: service-closed."""
    async with proxied(answering(answer)) as here:
        head, _ = await here.ask(b"GET / HTTP/1.1\r\nHost: service.test\r\n\r\n")

        assert b"HTTP/1.1 502 Bad Gateway" == lines(head)[0]
        assert b"Autostart-Error: service-closed" in lines(head)
        assert 1 == len(here.visits)


async def test_the_caller_learns_of_the_answer_at_once() -> None:
    """on_answer has the status while the body still comes; a refusal gives none."""
    go_on = asyncio.Event()

    async def script(visit: Visit) -> None:
        await visit.head()
        await visit.send(b"HTTP/1.1 201 Created\r\nContent-Length: 1\r\n\r\n")
        await go_on.wait()
        await visit.send(b"x")

    async with proxied(script) as here:
        client = await here.client()
        await client.send(b"GET / HTTP/1.1\r\nHost: service.test\r\n\r\n")
        await client.until(b"\r\n\r\n")

        assert [201] == here.answered
        assert [] == here.outcomes
        go_on.set()
        assert b"x" == await client.exactly(1)
        assert 1 == (await here.outcome()).sent_bytes


async def test_a_refused_connection_is_told_apart(unused_tcp_port: int) -> None:
    """Nothing was sent, so the caller may try again: ConnectFailed."""
    async with proxied(answering(OK)) as here:
        here.endpoint_port = unused_tcp_port
        head, _ = await here.ask(b"POST / HTTP/1.1\r\nHost: service.test\r\n\r\n")

        assert b"HTTP/1.1 502 Bad Gateway" == lines(head)[0]
        assert b"Autostart-Error: connect-failed" in lines(head)
        assert isinstance(await here.outcome(), errors.ConnectFailed)
