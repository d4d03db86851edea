"""autostart/config/address.py: where something listens, and which networks are trusted."""

from __future__ import annotations

import re
from ipaddress import ip_network
from pathlib import Path

import pytest

from autostart.config.address import (
    Address,
    TcpAddress,
    UnixAddress,
    parse_address,
    parse_network,
)

ADDRESSES: dict[str, Address] = {
    "127.0.0.1:8890": TcpAddress("127.0.0.1", 8890),
    "0.0.0.0:80": TcpAddress("0.0.0.0", 80),
    "[::1]:80": TcpAddress("::1", 80),
    "[::]:443": TcpAddress("::", 443),
    "localhost:1": TcpAddress("localhost", 1),
    "127.0.0.1:0": TcpAddress("127.0.0.1", 0),
    "127.0.0.1:65535": TcpAddress("127.0.0.1", 65535),
    "unix:/run/x.sock": UnixAddress(Path("/run/x.sock")),
}
ALLOWED = "allowed: an address and port such as 127.0.0.1:8890 or [::1]:8890, or unix:/a/path.sock"
BAD_ADDRESSES: dict[object, str] = {
    8890: ALLOWED,
    None: ALLOWED,
    "": ALLOWED,
    "8890": ALLOWED,
    ":8890": ALLOWED,
    "127.0.0.1": ALLOWED,
    "127.0.0.1:": ALLOWED,
    "127.0.0.1:http": ALLOWED,
    "127.0.0.1:-1": ALLOWED,
    "::1:80": ALLOWED,
    "[::1]": ALLOWED,
    "http://127.0.0.1:80": ALLOWED,
    "127.0.0.1:65536": "allowed: a port of at most 65535",
    "example.com:80": f"{ALLOWED}; a name is not an address",
    "*:80": f"{ALLOWED}; a name is not an address",
    "[127.0.0.1.1]:80": f"{ALLOWED}; a name is not an address",
    "unix:": "allowed: an absolute path after unix:",
    "unix:run/x.sock": "allowed: an absolute path after unix:",
}


@pytest.mark.parametrize(("written", "address"), ADDRESSES.items())
def test_address_is_read(written: str, address: Address) -> None:
    """IPv4, IPv6 in brackets, localhost, and socket files."""
    assert address == parse_address(written)


@pytest.mark.parametrize("written", ADDRESSES)
def test_address_is_written_as_it_is_read(written: str) -> None:
    """Messages show the address as the map has it."""
    assert written == str(parse_address(written))


@pytest.mark.parametrize(("written", "text"), BAD_ADDRESSES.items(), ids=repr)
def test_bad_address_says_what_is_allowed(written: object, text: str) -> None:
    """What leaves a question open is refused."""
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        parse_address(written)


@pytest.mark.parametrize(
    ("written", "is_loopback", "is_every_interface"),
    [
        ("127.0.0.1:80", True, False),
        ("127.8.8.8:80", True, False),
        ("[::1]:80", True, False),
        ("localhost:80", True, False),
        ("unix:/run/x.sock", True, False),
        ("0.0.0.0:80", False, True),
        ("[::]:80", False, True),
        ("192.0.2.1:80", False, False),
    ],
)
def test_address_says_who_can_reach_it(
    written: str, is_loopback: bool, is_every_interface: bool
) -> None:
    """Whether only this machine can, and whether every network can."""
    address = parse_address(written)

    assert is_loopback == address.is_loopback
    assert is_every_interface == address.is_every_interface


@pytest.mark.parametrize(
    ("written", "network"),
    [
        ("127.0.0.1/32", "127.0.0.1/32"),
        ("127.0.0.1", "127.0.0.1/32"),
        ("10.0.0.0/8", "10.0.0.0/8"),
        ("::1", "::1/128"),
        ("fd00::/8", "fd00::/8"),
    ],
)
def test_network_is_read(written: str, network: str) -> None:
    """A single address means itself."""
    assert ip_network(network) == parse_network(written)


@pytest.mark.parametrize(
    ("written", "text"),
    [
        ("10.0.0.1/8", "the address has bits beyond its prefix; write 10.0.0.0/8"),
        ("nginx", "allowed: a network such as 10.0.0.0/8"),
        ("10.0.0.0/33", "allowed: a network such as 10.0.0.0/8"),
        (10, "allowed: a network such as 10.0.0.0/8"),
        (None, "allowed: a network such as 10.0.0.0/8"),
    ],
)
def test_bad_network_says_what_is_allowed(written: object, text: str) -> None:
    """A number is no address, although Python takes it for one."""
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        parse_network(written)
