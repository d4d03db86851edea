"""What the service manager is told of us, as sd_notify(3) has it: lines KEY=value in a datagram.

systemd names its socket and the watchdog's patience in the environment. Where none is named nothing
is sent. Knows no service.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Callable, MutableMapping

# systemd reads at once; a manager that hangs must not hang us.
SEND_SECONDS_MAX = 1.0
# How often a line that says how it stands may change.
STATUS_SECONDS = 1.0
_MICROSECONDS = 1_000_000

Send = Callable[[str, str], None]


def send(address: str, text: str) -> None:
    """Send one message; `address` is a path, or a name in the abstract space after an @."""
    name = "\0" + address[1:] if address.startswith("@") else address
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.settimeout(SEND_SECONDS_MAX)
        # A manager that has gone is no reason to end: it says itself what it misses.
        with contextlib.suppress(OSError):
            sock.sendto(text.encode(), name)


class Notification:
    """The line to the service manager; forgets the variables, so that no child takes them."""

    def __init__(self, environment: MutableMapping[str, str], send: Send = send) -> None:
        self._address = environment.pop("NOTIFY_SOCKET", "")
        patience = environment.pop("WATCHDOG_USEC", "")
        meant_for = environment.pop("WATCHDOG_PID", str(os.getpid()))
        is_watched = patience.isdigit() and meant_for == str(os.getpid())
        self._patience_seconds = int(patience) / _MICROSECONDS if is_watched else 0.0
        self._send = send
        self._beat: asyncio.TimerHandle | None = None
        self._status: asyncio.TimerHandle | None = None

    def tell(self, **fields: str | int) -> None:
        """Send these fields, if anybody listens."""
        if self._address:
            text = "\n".join(f"{key}={value}" for key, value in fields.items())
            self._send(self._address, text)

    def tell_soon(self, describe: Callable[[], str]) -> None:
        """Send a STATUS within a second, of how it stands then; calls until then are one."""
        if self._address and self._status is None:
            loop = asyncio.get_running_loop()
            self._status = loop.call_later(STATUS_SECONDS, self._tell_status, describe)

    def beat(self) -> None:
        """Tell the watchdog, from now on, that the loop turns: twice within its patience."""
        if not self._address or not self._patience_seconds:
            return
        self.tell(WATCHDOG=1)
        loop = asyncio.get_running_loop()
        self._beat = loop.call_later(self._patience_seconds / 2, self.beat)

    def tell_ending(self, within_seconds: float) -> None:
        """Say that we end, and how long that may take, whatever the unit says."""
        self._forget_status()
        self.tell(
            STOPPING=1,
            STATUS="answers in flight may end",
            EXTEND_TIMEOUT_USEC=int(within_seconds * _MICROSECONDS),
        )

    def close(self) -> None:
        """Tell nothing more by itself."""
        self._forget_status()
        if self._beat is not None:
            self._beat.cancel()

    def _tell_status(self, describe: Callable[[], str]) -> None:
        self._status = None
        self.tell(STATUS=describe())

    def _forget_status(self) -> None:
        if self._status is not None:
            self._status.cancel()
            self._status = None
