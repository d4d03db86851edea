"""Ports of this machine: is one free, who holds it, which one to choose.

Knows sockets as Linux shows them in /proc, and no service. Everything here may block for a few
milliseconds; naming a holder looks at every open file of the machine and belongs in a thread.
"""

from __future__ import annotations

import pwd
import random
import socket
import sys
from collections.abc import Container, Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path

from autostart.errors import PortTaken

LOOPBACK = "127.0.0.1"

# Below Linux's range for outgoing connections (ip_local_port_range, 32768 to 60999): a port of that
# range can be taken by any outgoing connection between our choice and the service's bind, and a
# probe that connects to it while nobody listens can even be given it as its own source port.
CHOICE = range(20_000, 32_768)
CHOICE_TRIES = 200

LISTENING = 0x0A  # TCP_LISTEN in include/net/tcp_states.h


@dataclass(frozen=True)
class Socket:
    """One line of /proc/net/tcp or tcp6."""

    address: IPv4Address | IPv6Address
    port: int
    listening: bool
    uid: int
    inode: int

    def covers(self, address: str) -> bool:
        """Say whether somebody who binds `address` on this port is in this socket's way."""
        own = self.address
        if isinstance(own, IPv6Address) and own.ipv4_mapped is not None:
            own = own.ipv4_mapped
        return own.is_unspecified or own == ip_address(address)


def parse_sockets(table: str) -> list[Socket]:
    """Read the text of /proc/net/tcp or /proc/net/tcp6."""
    sockets = []
    for line in table.splitlines()[1:]:
        fields = line.split()
        address, _, port = fields[1].partition(":")
        sockets.append(
            Socket(
                address=_parse_address(address),
                port=int(port, 16),
                listening=int(fields[3], 16) == LISTENING,
                uid=int(fields[7]),
                inode=int(fields[9]),
            )
        )
    return sockets


def _parse_address(text: str) -> IPv4Address | IPv6Address:
    # The kernel prints each 32-bit word as the machine would print an integer.
    words = [int(text[start : start + 8], 16) for start in range(0, len(text), 8)]
    return ip_address(b"".join(word.to_bytes(4, sys.byteorder) for word in words))


def is_free(port: int, address: str = LOOPBACK) -> bool:
    """Say whether a service could listen on the port now.

    Asks the kernel by binding, which needs no rights and knows every rule; old connections in
    TIME_WAIT do not count, as for any server that sets SO_REUSEADDR.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except PermissionError:
            return True  # a port below 1024: whether the service may, it will say itself
        except OSError:
            return False
    return True


def choose(excluding: Container[int], address: str = LOOPBACK) -> int:
    """Return a free port; `excluding` are ports of services that may be stopped now."""
    # Random, so that two autostarts do not meet on the same first port.
    for port in random.SystemRandom().sample(CHOICE, CHOICE_TRIES):
        if port not in excluding and is_free(port, address):
            return port
    raise PortTaken(f"no free port found between {CHOICE.start} and {CHOICE.stop - 1}")


def holder(port: int, *, address: str = LOOPBACK, proc: Path = Path("/proc")) -> str:
    """Name who holds the port, for people: "pid 123 (nginx)"."""
    sockets = [
        entry
        for name in ("tcp", "tcp6")
        for entry in _sockets(proc / "net" / name)
        if entry.port == port and entry.covers(address)
    ]
    # Whoever listens is the answer; without one, an outgoing connection sits on the port.
    sockets.sort(key=lambda entry: not entry.listening)
    for entry in sockets:
        pid = _pid_of(entry.inode, proc)
        if pid is not None:
            return f"pid {pid} ({_name(pid, proc)})"
    if sockets:
        return f"a program of user {_user(sockets[0].uid)}"
    return "a program that cannot be seen from here"


def _sockets(table: Path) -> Iterable[Socket]:
    try:
        return parse_sockets(table.read_text())
    except FileNotFoundError:  # a kernel without IPv6 has no tcp6
        return []


def _pid_of(inode: int, proc: Path) -> int | None:
    """Find the lowest pid that has the socket open: of a server and its workers, the server."""
    wanted = Path(f"socket:[{inode}]")
    for pid in sorted(int(entry.name) for entry in proc.iterdir() if entry.name.isdigit()):
        try:
            if any(file.readlink() == wanted for file in (proc / str(pid) / "fd").iterdir()):
                return pid
        except OSError:
            continue  # gone meanwhile, or another user's: not ours to see
    return None


def _name(pid: int, proc: Path) -> str:
    try:
        return (proc / str(pid) / "comm").read_text().strip()
    except OSError:
        return "gone meanwhile"


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
