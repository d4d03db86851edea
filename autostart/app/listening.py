"""Sockets to listen on: TCP and unix addresses of the map, and those that systemd hands over.

What is handed over wins; of what is not, the map's address is taken.
"""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Iterable, Mapping, MutableMapping
from pathlib import Path

import structlog

from autostart.config import Address, TcpAddress, UnixAddress
from autostart.errors import AddressTaken

log = structlog.get_logger("autostart")

# Requests that arrive while the loop is busy wait here; the kernel caps it (somaxconn).
BACKLOG = 4096
# sd_listen_fds(3): the first descriptor handed over.
FIRST_HANDED_OVER_FD = 3
PROXY_KEY = "proxy.listen"
# What nobody has named: an empty name, and what sd_listen_fds_with_names(3) says for none.
_NAMELESS = ("", "unknown")


def listen(address: Address, key: str) -> socket.socket:
    """Return a socket that listens; raises AddressTaken naming the map's `key`."""
    try:
        if isinstance(address, UnixAddress):
            return _listen_unix(address)
        return _listen_tcp(address)
    except OSError as error:
        text = f"{key}: cannot listen on {address}: {error.strerror}"
        raise AddressTaken(text) from error


def handed_over(environment: MutableMapping[str, str]) -> list[tuple[str, socket.socket]]:
    """Return the sockets of LISTEN_FDS with their names, if they are meant for this process.

    Forgets the variables: a child of ours must not take them for its own. Whoever handed them over
    keeps them, so that who connects between two of our lives waits for the second.
    """
    count = environment.pop("LISTEN_FDS", "0")
    meant_for = environment.pop("LISTEN_PID", "")
    names = environment.pop("LISTEN_FDNAMES", "").split(":")
    if meant_for != str(os.getpid()) or not count.isdigit():
        return []
    names = (names + [""] * int(count))[: int(count)]
    return [(name, _take(fd)) for fd, name in enumerate(names, FIRST_HANDED_OVER_FD)]


def bind(
    given: Iterable[tuple[str, socket.socket]], listeners: Mapping[str, Address]
) -> dict[str, list[socket.socket]]:
    """Return the sockets of every listener by its key: those given, else ones of our own.

    Raises AddressTaken. Says where a given one is not at the map's address, to which nginx sends.
    """
    found = assigned(given, listeners)
    for key, address in listeners.items():
        if key not in found:
            found[key] = [listen(address, key)]
        elif not any(_same(address, bound_to(sock)) for sock in found[key]):
            where = [str(bound_to(sock)) for sock in found[key]]
            log.warning("listens-elsewhere", key=key, map=str(address), handed_over=where)
    return found


def assigned(
    sockets: Iterable[tuple[str, socket.socket]], listeners: Mapping[str, Address]
) -> dict[str, list[socket.socket]]:
    """Return the sockets by the key of the map that each stands for.

    Raises AddressTaken for a name that is none of the map's.
    """
    found: dict[str, list[socket.socket]] = {}
    for name, sock in sockets:
        found.setdefault(key_of(name, bound_to(sock), listeners), []).append(sock)
    return found


def key_of(name: str, address: Address, listeners: Mapping[str, Address]) -> str:
    """Return the key of a socket handed over: by its name, else by where it listens.

    A name is proxy, admin, or the host of a service with a door (systemd: FileDescriptorName=). A
    socket without a name, or with its unit's, is the listener that has its address in the map,
    else the proxy's.
    """
    if name in _NAMELESS or name.endswith(".socket"):
        return next((key for key, at in listeners.items() if _same(at, address)), PROXY_KEY)
    names = {key.removeprefix("services.").removesuffix(".listen"): key for key in listeners}
    if name not in names:
        allowed = ", ".join(names)
        text = f"LISTEN_FDNAMES: {name!r} is no listener of the map; allowed: {allowed}"
        raise AddressTaken(text)
    return names[name]


def bound_to(sock: socket.socket) -> Address:
    """Return where a socket listens, as the map writes it."""
    name = sock.getsockname()
    if sock.family == socket.AF_UNIX:
        return UnixAddress(Path(os.fsdecode(name)))
    return TcpAddress(name[0], name[1])


def _same(one: Address, other: Address) -> bool:
    return str(one).replace("localhost:", "127.0.0.1:") == str(other)


def _take(fd: int) -> socket.socket:
    try:
        os.set_inheritable(fd, False)
        sock = socket.socket(fileno=fd)
        listens = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    except OSError as error:
        text = f"LISTEN_FDS: descriptor {fd} is no socket: {error.strerror}"
        raise AddressTaken(text) from error
    if not listens or sock.type != socket.SOCK_STREAM:
        text = f"LISTEN_FDS: descriptor {fd} does not listen; systemd: ListenStream=, Accept=no"
        raise AddressTaken(text)
    sock.setblocking(False)
    return sock


def _listen_tcp(address: TcpAddress) -> socket.socket:
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind((address.host, address.port))
        sock.listen(BACKLOG)
    except OSError:
        sock.close()
        raise
    sock.setblocking(False)
    return sock


def _listen_unix(address: UnixAddress) -> socket.socket:
    _remove_left_over(address)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.bind(str(address.path))
        address.path.chmod(0o660)  # the owner and its group: nginx joins the group
        sock.listen(BACKLOG)
    except OSError:
        sock.close()
        raise
    sock.setblocking(False)
    return sock


def _remove_left_over(address: UnixAddress) -> None:
    """Remove the socket file of a process that is gone; one that answers is left alone."""
    try:
        if not stat.S_ISSOCK(address.path.stat().st_mode):
            return
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.settimeout(1.0)
        try:
            client.connect(str(address.path))
        except ConnectionRefusedError:
            address.path.unlink(missing_ok=True)
