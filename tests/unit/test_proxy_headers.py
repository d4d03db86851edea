"""Which header lines go on, and whose forwarding headers are believed."""

from __future__ import annotations

from ipaddress import ip_network

import pytest

from autostart.proxy.headers import (
    Forwarding,
    Peer,
    origin_target,
    peer,
    relayed_headers,
    request_head,
    tokens,
)

NETWORKS = (ip_network("127.0.0.1/32"), ip_network("fd00::/8"))


@pytest.mark.parametrize(
    ("peername", "expected"),
    [
        (("127.0.0.1", 5), Peer("127.0.0.1", trusted=True)),
        (("127.0.0.2", 5), Peer("127.0.0.2", trusted=False)),
        (("::ffff:127.0.0.1", 5, 0, 0), Peer("127.0.0.1", trusted=True)),
        (("fd00::1%eth0", 5, 0, 2), Peer("fd00::1", trusted=True)),
        (("::1", 5, 0, 0), Peer("::1", trusted=False)),
        ("", Peer(None, trusted=True)),
        (None, Peer(None, trusted=False)),
    ],
)
def test_a_peer_is_trusted_by_its_network(peername: object, expected: Peer) -> None:
    """Mapped addresses count as IPv4, scopes do not count, a unix socket is always trusted."""
    assert expected == peer(peername, NETWORKS)


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("/", b"/"),
        ("/p?", b"/p?"),
        ("//x/%2F", b"//x/%2F"),
        ("*", b"*"),
        ("/\udcff", b"/\xff"),
        ("http://a", b"/"),
        ("http://a/b?c", b"/b?c"),
        ("http://a?c", b"/?c"),
        ("http://a/?http://b/", b"/?http://b/"),
    ],
)
def test_a_target_keeps_its_bytes(target: str, expected: bytes) -> None:
    """Only scheme and authority are cut off."""
    assert expected == origin_target(target)


def test_tokens_are_gathered_over_lines() -> None:
    """Lower case, without spaces, from every line of that name."""
    headers = [(b"Connection", b"a, B"), (b"x", b"c"), (b"connection", b" D ")]

    assert {b"a", b"b", b"d"} == tokens(headers, b"connection")


def head(*headers: tuple[bytes, bytes], upgrade: bool = False) -> list[bytes]:
    """The lines for a service, without the request line and those that are always there."""
    forwarding = Forwarding(Peer(None, trusted=True), "id", "map.host", ((b"X-More", b"1"),))
    rendered = request_head("GET", "/", headers, forwarding, upgrade=upgrade)
    return rendered.removesuffix(b"\r\n\r\n").split(b"\r\n")[1:]


def test_what_the_caller_adds_comes_last() -> None:
    """Before Connection, after what we say of the request."""
    assert [
        b"Host: a",
        b"X-Forwarded-Proto: http",
        b"X-Forwarded-Host: a",
        b"X-Request-ID: id",
        b"X-More: 1",
        b"Connection: close",
    ] == head((b"Host", b"a"))


def test_a_missing_host_is_the_map_s() -> None:
    """HTTP/1.1 needs one; nothing is said of what the client asked for."""
    lines = head()

    assert b"Host: map.host" == lines[0]
    assert not [line for line in lines if line.startswith(b"X-Forwarded-Host")]


def test_chunks_are_announced_by_us() -> None:
    """Transfer-Encoding is of one hop, and our hop chunks again."""
    lines = head((b"Host", b"a"), (b"transfer-encoding", b"Chunked"))

    assert [b"Transfer-Encoding: chunked", b"Connection: close"] == lines[-2:]
    assert 1 == len([line for line in lines if line.lower().startswith(b"transfer")])


def test_an_upgrade_is_asked_for_again() -> None:
    """Upgrade and Connection are of one hop; a websocket needs them on the next."""
    lines = head((b"Host", b"a"), (b"Connection", b"Upgrade"), (b"Upgrade", b"x"), upgrade=True)

    assert [b"Connection: Upgrade", b"Upgrade: websocket"] == lines[-2:]


@pytest.mark.parametrize(
    "dropped",
    [
        (b"Expect", b"100-Continue"),
        (b"Proxy", b"http://evil"),
        (b"Proxy-Authorization", b"x"),
        (b"X_Request_ID", b"x"),
        (b"x_forwarded_for", b"1.2.3.4"),
        (b"Keep-Alive", b"x"),
    ],
)
def test_what_is_not_for_the_service_is_dropped(dropped: tuple[bytes, bytes]) -> None:
    """Including the underscored twins of what we say ourselves."""
    assert head((b"Host", b"a")) == head((b"Host", b"a"), dropped)


def test_other_expectations_are_the_service_s() -> None:
    """Only 100-continue is ours to answer."""
    assert b"Expect: 200-ok" in head((b"Host", b"a"), (b"Expect", b"200-ok"))


def test_an_answer_keeps_the_rest_in_order() -> None:
    """Hop-by-hop lines, Autostart-*, X-Request-ID and, if asked, Access-Control-* go."""
    lines = [
        (b"B", b"1"),
        (b"AUTOSTART-Error", b"x"),
        (b"Connection", b"c, content-length"),
        (b"C", b"x"),
        (b"Transfer-Encoding", b"chunked"),
        (b"Content-Length", b"5"),
        (b"Access-Control-Max-Age", b"5"),
        (b"X-Request-ID", b"x"),
        (b"A", b"1"),
        (b"B", b"2"),
    ]
    kept = [b"B", b"Content-Length", b"Access-Control-Max-Age", b"A", b"B"]

    assert kept == [name for name, _ in relayed_headers(lines)]
    assert [b"B", b"Content-Length", b"A", b"B"] == [
        name for name, _ in relayed_headers(lines, keep_cors=False)
    ]
