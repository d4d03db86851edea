"""The documents of all services as files, so that they are there after a restart.

Each file holds what the service answered, byte for byte; its time is when that was. Replaced at
once, not synced: after a power cut an old document will do, and the next start brings a new one.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from urllib.parse import quote

import structlog

from autostart.probe import DOCUMENT_BYTES_MAX

log = structlog.get_logger("autostart")

_ENDING = ".json"
_SCRATCH_ENDING = ".new"
# A file's name has at most 255 bytes; a host may be longer than that.
_NAME_CHARACTERS_MAX = 200


@dataclass(frozen=True)
class Stored:
    """One document as it was fetched."""

    body: bytes
    fetched_at: datetime


class Cache:
    """The files of one folder, which is made when the first is written."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def path(self, host: str) -> Path:
        """Return where a host's document is; no host leads out of the folder, and no two agree."""
        name = quote(host, safe="")
        if len(name) > _NAME_CHARACTERS_MAX:
            name = f"{name[:100]}~{sha256(host.encode()).hexdigest()}"
        return self._folder / f"{name}{_ENDING}"

    def read(self, host: str) -> Stored | None:
        """Return a host's document; None if there is none, or none that can be read."""
        path = self.path(host)
        try:
            with path.open("rb") as file:
                body = file.read(DOCUMENT_BYTES_MAX + 1)
                written_at = os.fstat(file.fileno()).st_mtime
        except FileNotFoundError:
            return None
        except OSError as error:
            log.warning("docs-unreadable", service=host, reason=f"{path}: {error.strerror}")
            return None
        if len(body) > DOCUMENT_BYTES_MAX:
            log.warning("docs-unreadable", service=host, reason=f"{path}: too large")
            return None
        return Stored(body, datetime.fromtimestamp(written_at, UTC))

    def write(self, host: str, body: bytes) -> None:
        """Replace a host's document at once."""
        path = self.path(host)
        scratch = path.with_name(path.name + _SCRATCH_ENDING)
        try:
            self._folder.mkdir(mode=0o700, exist_ok=True)
            scratch.write_bytes(body)
            scratch.replace(path)
        except OSError as error:
            log.warning("docs-unsaved", service=host, reason=f"{path}: {error.strerror}")

    def keep_only(self, hosts: Collection[str]) -> None:
        """Remove the documents of all other hosts."""
        kept = {self.path(host) for host in hosts}
        for path in self._folder.glob(f"*{_ENDING}*"):
            if path not in kept and path.name.endswith((_ENDING, _ENDING + _SCRATCH_ENDING)):
                try:
                    path.unlink(missing_ok=True)
                except OSError as error:  # it costs its bytes, and must cost no start or reload
                    log.warning("docs-unremoved", reason=f"{path}: {error.strerror}")
