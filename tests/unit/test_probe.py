"""autostart/probe.py: what is asked, how an answer is read. Sockets: contract/test_probing."""

from __future__ import annotations

import pytest

from autostart.config import ServiceConfig
from autostart.probe import BODY_BYTES_MAX, BusyUnknown, _Answer, _name, _parse_busy, _request

BIG = b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n"

# name -> (what arrives, status, body, complete)
ANSWERS = {
    "a stated length": (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", 200, b"ok", True),
    "chunks": (
        b"HTTP/1.1 503 No\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n2\r\nbc\r\n0\r\n\r\n",
        503,
        b"abc",
        True,
    ),
    "no body at all": (b"HTTP/1.1 204 No Content\r\n\r\n", 204, b"", True),
    "a body until the end": (b"HTTP/1.0 200 OK\r\n\r\nhalf", 200, b"half", False),
    "a part of the body": (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nok", 200, b"ok", False),
    "a part of the head": (b"HTTP/1.1 200 OK\r\nContent-Le", None, b"", False),
    "an interim answer": (b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n", None, b"", False),
    "an interim answer first": (
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n",
        404,
        b"",
        True,
    ),
}


@pytest.mark.parametrize("name", ANSWERS)
@pytest.mark.parametrize("step", [1, 7, 1000])
def test_an_answer_is_read_however_it_is_cut(name, step):
    """Status, body and end are the same for any size of the pieces."""
    data, status, body, complete = ANSWERS[name]
    answer = _Answer(BODY_BYTES_MAX)

    for start in range(0, len(data), step):
        answer.feed(data[start : start + step])

    assert (answer.status, answer.body, answer.complete) == (status, body, complete)


def test_the_head_is_enough_without_body():
    """Who asks for the status only does not wait for an endless body, and keeps none of it."""
    answer = _Answer(None)

    answer.feed(BIG + b"x" * 100)

    assert (answer.status, answer.body, answer.complete) == (200, b"", True)


@pytest.mark.parametrize(
    "data",
    [
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"HTTP/1.1 2000 OK\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
        BIG + b"x" * (BODY_BYTES_MAX + 1),
    ],
    ids=["not HTTP", "not a status", "an upgrade", "too large"],
)
def test_an_invalid_answer_is_a_connection_error(data):
    """What is not an answer counts as none; the parser's own errors stay inside."""
    with pytest.raises(ConnectionError, match=r"the answer is not valid|more than 65536 bytes"):
        _Answer(BODY_BYTES_MAX).feed(data)


def test_the_request_is_minimal_and_closes():
    """One request, no body, no second one on this connection."""
    assert _request("/ready?x", "whisper.example.com") == (
        b"GET /ready?x HTTP/1.1\r\n"
        b"Host: whisper.example.com\r\n"
        b"Accept: */*\r\n"
        b"User-Agent: autostart\r\n"
        b"Connection: close\r\n\r\n"
    )


@pytest.mark.parametrize(
    ("host", "name"),
    [
        ("whisper.example.com", "whisper.example.com"),
        ("*.example.com", "autostart.example.com"),
        ("::1", "[::1]"),
    ],
)
def test_a_probe_names_the_service(host, name):
    """The Host header is the service's host; of a wildcard, a name that it covers."""
    assert _name(ServiceConfig(host=host, name="x")) == name


@pytest.mark.parametrize("busy", [True, False])
def test_busy_is_what_the_service_says(busy):
    """{"busy": true} and {"busy": false} are answers, with other keys or without."""
    body = f'{{"busy": {str(busy).lower()}, "jobs": 3}}'.encode()

    assert _parse_busy("/busy", 200, body) is busy


@pytest.mark.parametrize(
    ("status", "body", "message"),
    [
        (200, b"", "/busy answered 200 without a JSON object"),
        (200, b"true", "/busy answered 200 without a JSON object"),
        (200, b"[" * 60_000, "/busy answered 200 without a JSON object"),
        (200, b"\xff", "/busy answered 200 without a JSON object"),
        (200, b"{}", '/busy answered without "busy": true or false'),
        (200, b'{"busy": 1}', '/busy answered without "busy": true or false'),
        (200, b'{"busy": "false"}', '/busy answered without "busy": true or false'),
        (404, b'{"busy": false}', "/busy answered 404 without a JSON object"),
    ],
)
def test_anything_else_is_busy_unknown(status, body, message):
    """Only a clear answer is one: the rest must not let a working service be stopped."""
    with pytest.raises(BusyUnknown) as caught:
        _parse_busy("/busy", status, body)

    assert caught.value.message == message
