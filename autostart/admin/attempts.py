"""How often somebody may present a wrong token.

Counted by address, so that whoever guesses keeps nobody else out. Asked from this machine itself,
without a reverse proxy in between, there is no limit: that is the operator's way in when all else
fails, and who is on the machine has better ways than to guess. Knows no sockets; `now` is
monotonic seconds.
"""

from __future__ import annotations

from collections import OrderedDict
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

# A person who mistypes is not kept waiting; a program that guesses gets 1,800 an hour.
WRONG_MAX = 10
SECONDS_EACH = 2.0
# Of more addresses the one that was wrong longest ago is forgotten.
ADDRESSES_MAX = 1_000
# Who has one IPv6 address has all of its network.
_IPV6_PREFIX = 64


class Attempts:
    """Wrong tokens by address: a bucket of WRONG_MAX that loses one every SECONDS_EACH."""

    def __init__(self) -> None:
        # When the bucket will be empty again.
        self._empty_at: OrderedDict[str, float] = OrderedDict()

    def wait_seconds(self, who: str | None, now: float) -> float:
        """Return how long this address has to wait before its token is looked at; 0 = not."""
        if who is None:
            return 0.0
        full_at = self._empty_at.get(who, now) - WRONG_MAX * SECONDS_EACH
        return max(0.0, full_at - now + SECONDS_EACH)

    def note_wrong(self, who: str | None, now: float) -> None:
        """Count a wrong token."""
        if who is None:
            return
        self._empty_at[who] = max(now, self._empty_at.pop(who, now)) + SECONDS_EACH
        while len(self._empty_at) > ADDRESSES_MAX:
            self._empty_at.popitem(last=False)


def who_asks(peer: str | None, forwarded_for: str | None) -> str | None:
    """Return the address that attempts are counted by, None for this machine itself.

    `peer` is the socket's, None for a unix socket. What a reverse proxy on this machine wrote is
    believed: the last one in the list is whom it saw itself.
    """
    direct = None if peer is None else _address(peer)
    if direct is not None and not direct.is_loopback:
        return _network(direct)
    if forwarded_for is None:
        return None
    seen = forwarded_for.rpartition(",")[2].strip()
    address = _address(seen)
    return _network(address) if address is not None else "unknown"


def _address(written: str) -> IPv4Address | IPv6Address | None:
    try:
        address = ip_address(written.partition("%")[0])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def _network(address: IPv4Address | IPv6Address) -> str:
    prefix = _IPV6_PREFIX if isinstance(address, IPv6Address) else 32
    return str(ip_network((address, prefix), strict=False))
