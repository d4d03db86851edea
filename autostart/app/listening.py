"""Sockets to listen on: TCP and unix addresses of the map, and those that systemd hands over."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import MutableMapping

from autostart.config import Address, TcpAddress, UnixAddress
from autostart.errors import AddressTaken

# Requests that arrive while the loop is busy wait here; the kernel caps it (somaxconn).
BACKLOG = 4096
# sd_listen_fds(3): the first descriptor handed over.
FIRST_HANDED_OVER_FD = 3


def listen(address: Address, key: str) -> socket.socket:
    """Return a socket that listens; raises AddressTaken naming the map's `key`."""
    try:
        if isinstance(address, UnixAddress):
            return _listen_unix(address)
        return _listen_tcp(address)
    except OSError as error:
        text = f"{key}: cannot listen on {address}: {error.strerror}"
        raise AddressTaken(text) from error


def handed_over(environment: MutableMapping[str, str]) -> list[socket.socket]:
    """Return the sockets of LISTEN_FDS, if they are meant for this process; forget the variables.

    A child of ours must not take them for its own.
    """
    count = environment.pop("LISTEN_FDS", "0")
    meant_for = environment.pop("LISTEN_PID", "")
    environment.pop("LISTEN_FDNAMES", None)
    if meant_for != str(os.getpid()) or not count.isdigit():
        return []
    sockets = []
    for fd in range(FIRST_HANDED_OVER_FD, FIRST_HANDED_OVER_FD + int(count)):
        try:
            os.set_inheritable(fd, False)
            sock = socket.socket(fileno=fd)
        except OSError as error:
            text = f"LISTEN_FDS: descriptor {fd} is no socket: {error.strerror}"
            raise AddressTaken(text) from error
        sock.setblocking(False)
        sockets.append(sock)
    return sockets


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
