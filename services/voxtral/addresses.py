"""Knows which addresses this service may connect to when somebody else chooses them.

Who sends a URL could have the service fetch what only the service can reach: a cloud's metadata,
a router, a database (server-side request forgery, SSRF). So what a URL looks like decides
nothing: `2130706433`, `0x7f.1`, `localhost`, a name of the attacker's, or a redirect all lead to
127.0.0.1. The check is made in one place, for each socket before it connects, of the very address
that it then connects to. aiohttp makes every socket by the connector's `socket_factory`: for
literal addresses and resolved names, for each of a name's addresses, for redirects and second
attempts. A name that changes its address in between (DNS rebinding) gains nothing.
"""

import asyncio
import errno
import re
import socket
from collections.abc import Callable
from ipaddress import AddressValueError, IPv4Address, IPv4Network, IPv6Address, IPv6Network

from aiohttp import (
    AddrInfoType,
    ClientConnectorError,
    ClientSession,
    DummyCookieJar,
    SocketFactoryType,
    TCPConnector,
    ThreadedResolver,
)
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from services.transcription.errors import InvalidRequest

URL_CHARACTERS_MAX = 4096
HOST_SHOWN_CHARACTERS_MAX = 100
# RFC 1035: of a name, and of what stands between its dots.
_NAME_CHARACTERS_MAX = 253
_LABEL = re.compile(r"[A-Za-z0-9_-]{1,63}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")

# IANA's special-purpose registry, by hand: what `ipaddress` calls global differs from one
# Python 3.11 to 3.13 to the next.
_IPV4_NOT_PUBLIC = tuple(
    IPv4Network(written)
    for written in (
        "0.0.0.0/8",  # this network; Linux takes 0.0.0.0 for itself
        "10.0.0.0/8",
        "100.64.0.0/10",  # shared by a carrier's customers; metadata of Alibaba's cloud
        "127.0.0.0/8",
        "168.63.129.16/32",  # not IANA's: Azure's metadata, in each virtual machine
        "169.254.0.0/16",  # link-local; metadata of most clouds
        "172.16.0.0/12",
        "192.0.0.0/24",  # protocols; metadata of Oracle's cloud
        "192.0.2.0/24",  # documentation
        "192.88.99.0/24",  # relays from IPv6, given up
        "192.168.0.0/16",
        "198.18.0.0/15",  # benchmarks
        "198.51.100.0/24",  # documentation
        "203.0.113.0/24",  # documentation
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, and broadcast
    )
)
# All of IPv6 that is handed out. Outside are loopback, link-local, unique local, site-local and
# multicast addresses, and those that hold an IPv4 address (::/96, ::ffff:0:0/96).
_IPV6_UNICAST = IPv6Network("2000::/3")
_IPV6_NOT_PUBLIC = tuple(
    IPv6Network(written)
    for written in (
        "2001::/23",  # protocols; Teredo (2001::/32) holds an IPv4 address
        "2001:db8::/32",  # documentation
        "2002::/16",  # 6to4, given up: holds an IPv4 address
        "3fff::/20",  # documentation
    )
)
# How a network without IPv4 reaches it, by a translator that sees the last 32 bits (RFC 6052). Its
# like for private use, 64:ff9b:1::/48, is not public.
_NAT64 = IPv6Network("64:ff9b::/96")
_IPV4_BITS = 0xFFFF_FFFF
# Of one session, at once. Python has six threads for such waits on a machine of two cores.
_LOOKUPS_MAX = 2


class AddressRefused(OSError):
    """The address is not public, and the operator allows no other; nothing was sent to it."""


def is_public(address: str) -> bool:
    """Tell whether an address, IPv4 or IPv6 as text, is of the Internet.

    What is no address in its usual form is not, nor is one with a zone (`fe80::1%eth0`).
    """
    try:
        if ":" in address:
            return "%" not in address and _is_public_v6(IPv6Address(address))
        return _is_public_v4(IPv4Address(address))
    except AddressValueError:
        return False


def make_session(
    *,
    allow_private: bool,
    may_reach: Callable[[str], bool] = is_public,
    resolver: AbstractResolver | None = None,
) -> ClientSession:
    """Give a session whose every connection leads to an address that `may_reach`.

    Where it does not, a request raises an error for which `is_refusal` holds. The session keeps no
    cookie, and knows no proxy: that would connect to where this check cannot see. `allow_private`
    lifts the check. `resolver` is the system's if not given.
    """
    connector = TCPConnector(
        resolver=resolver or _SystemResolver(),
        use_dns_cache=False,
        socket_factory=None if allow_private else _sockets_to(may_reach),
    )
    return ClientSession(connector=connector, cookie_jar=DummyCookieJar(), trust_env=False)


def is_refusal(error: BaseException) -> bool:
    """Tell whether a request of such a session failed because of where it led."""
    return isinstance(error, ClientConnectorError) and isinstance(error.os_error, AddressRefused)


def check_url(url: str, *, field: str) -> URL:
    """Read a URL that may be requested; credentials in it are kept.

    It may still lead to where it must not: the session knows. Raises InvalidRequest, which never
    shows the URL: it may hold a password.
    """
    if len(url) > URL_CHARACTERS_MAX:
        raise _invalid(field, f"the URL is longer than {URL_CHARACTERS_MAX} characters")
    # yarl would leave tabs and line ends out.
    if _CONTROL.search(url.strip()):
        raise _invalid(field, "the URL has a control character")
    try:
        read = URL(url.strip())
    except ValueError:
        # Without its cause, which holds the URL.
        raise _invalid(field, "that is no URL") from None
    if read.scheme not in {"http", "https"}:
        shown = read.scheme[:HOST_SHOWN_CHARACTERS_MAX]
        raise _invalid(field, f"the URL begins with {shown!r}, only http and https are taken")
    if not read.raw_host:
        raise _invalid(field, "the URL names no host")
    if not _is_host(read.raw_host):
        raise _invalid(field, f"{shown_host(read)} is no host")
    return read


def shown_host(url: URL) -> str:
    """Give the host as people write it, for a message."""
    return repr((url.host or "")[:HOST_SHOWN_CHARACTERS_MAX])


class _SystemResolver(ThreadedResolver):
    """The system's, which may look for a name for half a minute, whoever chose it.

    Each lookup holds one of the threads that all else needs, too, even when nobody waits for it
    any more. So there is room for a few.
    """

    def __init__(self) -> None:
        super().__init__()
        self._room = asyncio.Semaphore(_LOOKUPS_MAX)

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Look a name up, when there is room."""
        await self._room.acquire()
        looking = asyncio.ensure_future(super().resolve(host, port, family))
        looking.add_done_callback(self._leave)
        return await asyncio.shield(looking)

    def _leave(self, looked: "asyncio.Future[list[ResolveResult]]") -> None:
        self._room.release()
        if not looked.cancelled():
            looked.exception()  # who waited for it knows, if there is anybody left


def _is_public_v4(address: IPv4Address) -> bool:
    return not any(address in network for network in _IPV4_NOT_PUBLIC)


def _is_public_v6(address: IPv6Address) -> bool:
    if address in _NAT64:
        return _is_public_v4(IPv4Address(int(address) & _IPV4_BITS))
    return address in _IPV6_UNICAST and not any(address in network for network in _IPV6_NOT_PUBLIC)


def _sockets_to(may_reach: Callable[[str], bool]) -> SocketFactoryType:
    def make_socket(target: AddrInfoType) -> socket.socket:
        family, kind, protocol, _, address = target
        # An OSError: of a name's addresses, the next may be public.
        if not may_reach(str(address[0])):
            raise AddressRefused(errno.EACCES, "not a public address")
        return socket.socket(family=family, type=kind, proto=protocol)

    return make_socket


def _is_host(host: str) -> bool:
    if ":" in host:
        return True  # yarl has read an IPv6 address
    labels = host.removesuffix(".").split(".")
    return len(host) <= _NAME_CHARACTERS_MAX and all(map(_LABEL.fullmatch, labels))


def _invalid(field: str, problem: str) -> InvalidRequest:
    return InvalidRequest(f"{field}: {problem}", param=field, code="invalid_url")
