"""`autostart status --watch`: the picture, drawn again at every event and every second.

Ctrl-C is how it ends, so that is no failure. A daemon that goes away is waited for.
"""

from __future__ import annotations

import signal
import sys
import threading
import time
from contextlib import suppress
from types import FrameType
from typing import NoReturn

from rich.console import Console
from rich.live import Live

from autostart.cli.client import Client
from autostart.cli.failure import CommandFailed
from autostart.cli.picture import Size, scene
from autostart.cli.table import short_duration
from autostart.errors import DaemonUnreachable

# A little less than a second: one that is shown twice is seen by nobody, one left out is.
TICK_SECONDS = 0.9
# Events come in bursts: what comes within so long is one drawing.
GATHER_SECONDS = 0.05
TERMINATED = 128 + signal.SIGTERM


def watch(client: Client) -> None:
    """Draw until Ctrl-C. Raises DaemonUnreachable if no daemon answers the first time."""
    services = client.services()
    console = Console()
    signal.signal(signal.SIGTERM, _leave)
    news = threading.Event()
    threading.Thread(target=_follow, args=(client, news), name="events", daemon=True).start()
    lost, lost_at = None, 0.0
    with (
        suppress(KeyboardInterrupt),
        Live(console=console, screen=True, auto_refresh=False) as live,
    ):
        while True:
            size = Size(*console.size)
            away = None if lost is None else f"{lost}, for {_since(lost_at)}"
            live.update(scene(services, size, lost=away, date=_date()), refresh=True)
            news.wait(TICK_SECONDS)
            time.sleep(GATHER_SECONDS)
            news.clear()
            try:
                services, lost = client.services(), None
            except DaemonUnreachable as error:
                lost, lost_at = error.message, lost_at if lost else time.monotonic()


def _follow(client: Client, news: threading.Event) -> None:
    """Tell of events for as long as the program lives, over restarts of the daemon."""
    while True:
        with suppress(DaemonUnreachable, CommandFailed):
            for _ in client.events():
                news.set()
        time.sleep(TICK_SECONDS)


def _leave(_: int, __: FrameType | None) -> NoReturn:
    """End in order: the terminal is as it was."""
    sys.exit(TERMINATED)


def _since(date: float) -> str:
    return short_duration(time.monotonic() - date)


def _date() -> str:
    return f"{time.strftime('%H:%M:%S')}, Ctrl-C ends"
