"""What an operator asked for and an end of autostart does not end: holds and keeps.

They stand in one small file of the state folder, written when one changes and read once. Knows
services as values; decides nothing.
"""

from __future__ import annotations

import json
import os
from collections.abc import Container
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import structlog

from autostart.errors import Held, ShuttingDown, UnknownHost
from autostart.lifecycle import Service, held_by_operator
from autostart.schedule import Now

log = structlog.get_logger("autostart")

FILE = "orders.json"
_FOREVER = datetime.max.replace(tzinfo=UTC)


class Orders:
    """The orders in force, by host. `state_folder` None keeps nothing on disk."""

    def __init__(self, state_folder: Path | None) -> None:
        self._path = None if state_folder is None else state_folder / FILE
        self.held: set[str] = set()
        # By the wall clock: the other one does not outlive the machine.
        self.kept_until: dict[str, datetime] = {}
        if self._path is not None:
            self.held, self.kept_until = _read(self._path)

    def restore(self, service: Service, now: Now) -> Service:
        """Return a service of the map as its operator left it."""
        host = service.config.host
        until = self.kept_until.get(host)
        left_seconds = 0.0 if until is None else (until - now.wall).total_seconds()
        return replace(
            service,
            closed_by=held_by_operator(host) if host in self.held else None,
            kept_until=now.monotonic + left_seconds if left_seconds > 0 else 0.0,
        )

    def record(self, service: Service, now: Now) -> None:
        """Take what is in force for a service now."""
        if isinstance(service.closed_by, ShuttingDown):
            return  # whatever closes now, no operator asked for it
        left_seconds = service.kept_until - now.monotonic
        kept = left_seconds > 0 and not isinstance(service.closed_by, UnknownHost)
        self.take(
            service.config.host,
            held=isinstance(service.closed_by, Held),
            kept_until=_after(now.wall, left_seconds) if kept else None,
        )

    def take(self, host: str, *, held: bool, kept_until: datetime | None) -> None:
        """Take the orders for a host."""
        if held == (host in self.held) and kept_until == self.kept_until.get(host):
            return
        self.held = self.held | {host} if held else self.held - {host}
        self.kept_until.pop(host, None)
        if kept_until is not None:
            self.kept_until[host] = kept_until
        self._save()

    def forget_all_but(self, hosts: Container[str]) -> None:
        """Drop the orders for what has left the map."""
        for host in {*self.held, *self.kept_until}:
            if host not in hosts:
                self.take(host, held=False, kept_until=None)

    def _save(self) -> None:
        if self._path is None:
            return
        kept = {host: until.isoformat() for host, until in self.kept_until.items()}
        text = json.dumps({"held": sorted(self.held), "kept": kept}, indent=2, sort_keys=True)
        scratch = self._path.with_name(f"{FILE}.new")
        # In the loop's thread, so that it is written when the operator hears that it is accepted:
        # a tenth of a millisecond, once for each of his commands. Not synced: after a power cut the
        # former file will do.
        try:
            scratch.unlink(missing_ok=True)
            with os.fdopen(
                os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w"
            ) as new:
                new.write(f"{text}\n")
            scratch.replace(self._path)
        except OSError as error:
            log.warning("orders-unsaved", path=str(self._path), error=str(error))


def _after(wall: datetime, seconds: float) -> datetime:
    try:
        return wall + timedelta(seconds=seconds)
    except OverflowError:
        return _FOREVER


def _read(path: Path) -> tuple[set[str], dict[str, datetime]]:
    """Return what the file says; one that cannot be used is worth a warning, no more."""
    try:
        written = json.loads(path.read_text(encoding="utf-8"))
        kept = {host: datetime.fromisoformat(until) for host, until in written["kept"].items()}
        if not isinstance(written["held"], list):
            raise TypeError("held is no list")
        if any(until.tzinfo is None for until in kept.values()):
            raise ValueError("a date without a time zone")
        return set(written["held"]), kept
    except FileNotFoundError:
        return set(), {}  # no operator has ordered anything yet
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        log.warning("orders-unreadable", path=str(path), error=str(error))
        return set(), {}
