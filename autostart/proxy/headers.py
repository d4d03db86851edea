"""The head that a service gets and the header lines of its answer that a client gets.

Pure: raw header pairs in, bytes out, in their original order, case and number. Knows which lines
belong to one hop only, whose X-Forwarded-* are believed, and nothing of sockets.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address

RawHeader = tuple[bytes, bytes]
RawHeaders = Sequence[RawHeader]
Network = IPv4Network | IPv6Network

# RFC 9110, 7.6.1; Proxy-* is matched by its prefix.
HOP_BY_HOP = frozenset(
    {b"connection", b"keep-alive", b"te", b"trailer", b"transfer-encoding", b"upgrade"}
)

# "Connection: content-length" must not take the framing away: the body would be read as a request.
_NEVER_NAMED_BY_CONNECTION = frozenset({b"host", b"content-length"})

_FORWARDED_FOR = b"x-forwarded-for"
_FORWARDED_PROTO = b"x-forwarded-proto"
_FORWARDED_HOST = b"x-forwarded-host"
_REAL_IP = b"x-real-ip"
_REQUEST_ID = b"x-request-id"


@dataclass(frozen=True)
class Peer:
    """Who connected to us. `address` is None on a unix socket, whose peer is always trusted."""

    address: str | None
    trusted: bool


def peer(peername: object, trusted_proxies: tuple[Network, ...]) -> Peer:
    """The peer behind a transport's `peername`, and whether its forwarding headers are believed."""
    if not isinstance(peername, tuple):
        # A unix socket's is a path or empty; None is a connection that is gone already.
        return Peer(None, trusted=peername is not None)
    return _network_peer(str(peername[0]), trusted_proxies)


@lru_cache(maxsize=1024)
def _network_peer(text: str, trusted_proxies: tuple[Network, ...]) -> Peer:
    address = ip_address(text.partition("%")[0])
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return Peer(str(address), any(address in network for network in trusted_proxies))


def tokens(headers: Iterable[RawHeader], name: bytes) -> frozenset[bytes]:
    """The lower-case elements of a list header such as Connection, over all its lines."""
    elements: set[bytes] = set()
    for key, content in headers:
        if len(key) == len(name) and key.lower() == name:
            elements.update(element.strip().lower() for element in content.split(b","))
    return frozenset(elements)


def value(headers: Iterable[RawHeader], name: bytes) -> bytes | None:
    """The value of the first line called `name` (lower case), None if there is none."""
    for key, content in headers:
        if len(key) == len(name) and key.lower() == name:
            return content
    return None


def raw(headers: Iterable[tuple[str, str]]) -> list[RawHeader]:
    """Header lines as bytes; what came in as raw bytes goes out as the same."""
    return [
        (name.encode(), content.encode("utf-8", "surrogateescape")) for name, content in headers
    ]


def origin_target(target: str) -> bytes:
    """The target as it goes to a service: the very bytes received, without scheme and authority."""
    received = target.encode("utf-8", "surrogateescape")
    if received.startswith(b"/") or received == b"*":
        return received
    after_authority = received.partition(b"://")[2]
    for index, byte in enumerate(after_authority):
        if byte in b"/?":
            path = after_authority[index:]
            return path if byte in b"/" else b"/" + path
    return b"/"


@dataclass(frozen=True)
class Forwarding:
    """What we say about a request besides what its client said."""

    peer: Peer
    request_id: str
    host: str
    """Sent as Host where the request has none (HTTP/1.0 at a door of its own)."""
    extra: RawHeaders = ()


def request_head(
    method: str, target: str, headers: RawHeaders, forwarding: Forwarding, *, upgrade: bool
) -> bytes:
    """The head that goes to the service. A body is framed as received: by length, or chunked."""
    dropped = tokens(headers, b"connection") - _NEVER_NAMED_BY_CONNECTION
    lines = [b"%b %b HTTP/1.1" % (method.encode(), origin_target(target))]
    forwarded_for: list[bytes] = []
    present: set[bytes] = set()
    for name, content in headers:
        key = name.lower()
        if b"_" in key:
            # X_Forwarded_For and X-Forwarded-For are one variable to CGI and WSGI.
            key = key.replace(b"_", b"-")
        if key in HOP_BY_HOP or key in dropped or key == _REQUEST_ID:
            continue
        if key == b"proxy" or key.startswith(b"proxy-"):
            continue  # "Proxy" is HTTP_PROXY to CGI (httpoxy, CVE-2016-5385).
        if key == b"expect" and content.lower() == b"100-continue":
            continue
        if _is_forwarding(key):
            if not forwarding.peer.trusted or b"_" in name:
                continue
            if key == _FORWARDED_FOR:
                forwarded_for.append(content)
                continue
        present.add(key)
        lines.append(b"%b: %b" % (name, content))
    if b"host" not in present:
        lines.insert(1, b"Host: " + forwarding.host.encode())
    lines += _forwarding_lines(forwarding, forwarded_for, present, value(headers, b"host"))
    lines += [b"%b: %b" % pair for pair in forwarding.extra]
    lines += _connection_lines(headers, upgrade=upgrade)
    return b"\r\n".join(lines) + b"\r\n\r\n"


def _is_forwarding(key: bytes) -> bool:
    return key.startswith(b"x-forwarded-") or key in (_REAL_IP, b"forwarded")


def _forwarding_lines(
    forwarding: Forwarding, forwarded_for: list[bytes], present: set[bytes], host: bytes | None
) -> list[bytes]:
    lines = []
    address = forwarding.peer.address
    if address is not None:
        forwarded_for.append(address.encode())
        if _REAL_IP not in present:
            lines.append(b"X-Real-IP: " + address.encode())
    if forwarded_for:
        lines.append(b"X-Forwarded-For: " + b", ".join(forwarded_for))
    if _FORWARDED_PROTO not in present:
        lines.append(b"X-Forwarded-Proto: http")
    if _FORWARDED_HOST not in present and host is not None:
        lines.append(b"X-Forwarded-Host: " + host)
    lines.append(b"X-Request-ID: " + forwarding.request_id.encode())
    return lines


def _connection_lines(headers: RawHeaders, *, upgrade: bool) -> list[bytes]:
    if upgrade:
        return [b"Connection: Upgrade", b"Upgrade: websocket"]
    if value(headers, b"transfer-encoding") is not None:
        return [b"Transfer-Encoding: chunked", b"Connection: close"]
    return [b"Connection: close"]


def relayed_headers(headers: RawHeaders, *, keep_cors: bool = True) -> list[RawHeader]:
    """A service's header lines without those of one hop, and without those that only we may say.

    `keep_cors=False` also drops its Access-Control-*: they are ours alone where the map says so.
    """
    dropped = tokens(headers, b"connection") - _NEVER_NAMED_BY_CONNECTION
    kept = []
    for name, content in headers:
        key = name.lower()
        if key in HOP_BY_HOP or key in dropped or key == _REQUEST_ID:
            continue
        if key.startswith((b"autostart-", b"proxy-")):
            continue
        if not keep_cors and key.startswith(b"access-control-"):
            continue
        kept.append((name, content))
    return kept
