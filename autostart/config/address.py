"""Where something listens, and which networks are trusted, as the map writes them.

Good: `127.0.0.1:8890`, `[::1]:80`, `localhost:8890`, `unix:/run/autostart.sock`, `0.0.0.0:80`.
Bad: `8890` (which address?), `:8890` (say 0.0.0.0 if all are meant), `example.com:80` (a name may
lead anywhere), `unix:run.sock` (relative to what?).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from pathlib import Path

PORT_MAX = 65_535
Network = IPv4Network | IPv6Network

_TCP = re.compile(r"(?:\[(?P<v6>[0-9A-Fa-f:.]+)\]|(?P<name>[^\[\]:]+)):(?P<port>[0-9]{1,5})")
_ALLOWED = "allowed: an address and port such as 127.0.0.1:8890 or [::1]:8890, or unix:/a/path.sock"


@dataclass(frozen=True)
class TcpAddress:
    """`host` is an IP address without brackets, or "localhost"; port 0 = the system chooses."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        """Only programs of this machine can reach it."""
        return self.host == "localhost" or ip_address(self.host).is_loopback

    @property
    def is_every_interface(self) -> bool:
        """It listens on all addresses of the machine."""
        return self.host != "localhost" and ip_address(self.host).is_unspecified


@dataclass(frozen=True)
class UnixAddress:
    """A socket file; who may open it is decided by the folder's and the file's mode."""

    path: Path

    def __str__(self) -> str:
        return f"unix:{self.path}"

    @property
    def is_loopback(self) -> bool:
        """Only programs of this machine can reach it."""
        return True

    @property
    def is_every_interface(self) -> bool:
        """It has no interface."""
        return False


Address = TcpAddress | UnixAddress


def parse_address(written: object) -> Address:
    """Return what a `listen` key says. Raises ValueError."""
    if not isinstance(written, str):
        raise ValueError(_ALLOWED)
    if written.startswith("unix:"):
        path = Path(written.removeprefix("unix:"))
        if not path.is_absolute():
            raise ValueError("allowed: an absolute path after unix:")
        return UnixAddress(path)
    match = _TCP.fullmatch(written)
    if match is None:
        raise ValueError(_ALLOWED)
    port = int(match["port"])
    if port > PORT_MAX:
        raise ValueError(f"allowed: a port of at most {PORT_MAX}")
    if match["name"] == "localhost":
        return TcpAddress("localhost", port)
    try:
        host = ip_address(match["v6"] or match["name"])
    except ValueError:
        raise ValueError(f"{_ALLOWED}; a name is not an address") from None
    return TcpAddress(str(host), port)


def parse_network(written: object) -> Network:
    """Return a network such as 127.0.0.1/32; a single address means itself. Raises ValueError."""
    if not isinstance(written, str):
        raise ValueError("allowed: a network such as 10.0.0.0/8")
    try:
        return ip_network(written)
    except ValueError:
        pass
    try:
        meant = ip_network(written, strict=False)
    except ValueError:
        raise ValueError("allowed: a network such as 10.0.0.0/8") from None
    raise ValueError(f"the address has bits beyond its prefix; write {meant}")
