"""autostart with speech services that hear spoken digits, as local processes like the demo's."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.daemon import ROOT, Daemon, free_port
from tests.services.speech_server import FASTER_WHISPER, SpeechService

ADDRESS = ("--host", "127.0.0.1", "--port", "{port}")


def speech(
    environment: dict[str, str] | None = None,
    service: SpeechService = FASTER_WHISPER,
    **keys: Any,
) -> dict[str, Any]:
    """Return the map's entry of a service with a door of its own, which needs no host name."""
    return {
        "command": ["{python}", *service.arguments, *ADDRESS],
        "directory": str(ROOT),
        "environment": {**service.environment, **(environment or {})},
        "listen": f"127.0.0.1:{free_port()}",
        "ready": "/ready",
        "busy": "/busy",
        "idle": "2s",
        **keys,
    }


class SpeechDaemon:
    """A running autostart, for tests that are not asynchronous."""

    def __init__(self, daemon: Daemon, services: dict[str, Any]) -> None:
        self.daemon = daemon
        self._services = services

    def door(self, host: str) -> str:
        """Return the URL of a service's door."""
        return f"http://{self._services[host]['listen']}"

    def await_stopped(self, host: str) -> None:
        """Wait until the service is stopped, as it is once it was idle."""
        asyncio.run(self.daemon.wait_for_state("stopped", host, seconds=30))


@contextmanager
def run_daemon(folder: Path, services: dict[str, Any]) -> Iterator[SpeechDaemon]:
    """Run autostart on these services for the length of the block."""
    daemon = Daemon(folder, services)
    try:
        asyncio.run(daemon.start())
        yield SpeechDaemon(daemon, services)
    finally:
        daemon.clean_up()
