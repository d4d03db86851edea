"""Downloads that a job may wait for, but not for long: each goes on beside the work.

Each is a process of its own, which can be ended and takes its memory along.
"""

import logging
import math
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from services.transcription.errors import FetchFailed

log = logging.getLogger(__name__)

# The largest model, 3 GB, over a line of 4 Mbit/s.
FETCH_SECONDS_MAX = 7200
# How long the job that asked first waits: whoever else waits for the worker, waits for this, too.
WAIT_SECONDS_MAX = 30.0
# After one in vain; who has mended what it told need not wait longer.
RETRY_SECONDS = 60.0
# How soon a client's leaving is noticed.
_CHECK_SECONDS = 0.1


@dataclass
class _Download:
    process: subprocess.Popen[bytes]
    ended: threading.Event = field(default_factory=threading.Event)
    failure: str | None = None


class Downloads:
    """What is being downloaded, each thing once at a time; from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: dict[str, _Download] = {}
        self._failures: dict[str, tuple[float, str]] = {}  # when, and what was told
        self._stopped = False

    @property
    def busy(self) -> bool:
        """Whether anything is being downloaded."""
        return bool(self._running)

    def failure(self, what: str) -> str | None:
        """Give why a download was in vain a moment ago; None if it may be tried."""
        failed_at, told = self._failures.get(what, (0.0, ""))
        return told if told and time.monotonic() - failed_at < RETRY_SECONDS else None

    def fetch(
        self,
        what: str,
        command: Sequence[str],
        *,
        check: Callable[[], None],
        patient: bool = False,
    ) -> None:
        """Download a thing; `check` may raise to wait no longer.

        Raises FetchFailed if it cannot be had, or is not here after `WAIT_SECONDS_MAX`; only who
        asks first waits at all. Who is `patient` waits as long as it takes, whoever asked first.
        """
        with self._lock:
            if told := self.failure(what):
                raise FetchFailed(told, code="fetch_failed")
            if what in self._running and not patient:
                raise _unfinished(what)
            download = self._running.get(what) or self._begin(what, command)
        deadline = time.monotonic() + (math.inf if patient else WAIT_SECONDS_MAX)
        while not download.ended.wait(_CHECK_SECONDS):
            check()
            if time.monotonic() > deadline:
                raise _unfinished(what)
        if download.failure is not None:
            raise FetchFailed(download.failure, code="fetch_failed")

    def stop(self) -> None:
        """End all of them; what was received is kept for another time where that is possible."""
        self._stopped = True
        with self._lock:
            for download in self._running.values():
                download.process.kill()

    def _begin(self, what: str, command: Sequence[str]) -> _Download:
        log.info("fetching %s", what)
        process = subprocess.Popen(  # noqa: S603 -- our own command
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
        download = self._running[what] = _Download(process)
        watch = threading.Thread(target=self._watch, args=(what, download), daemon=True)
        watch.start()
        return download

    def _watch(self, what: str, download: _Download) -> None:
        began = time.monotonic()
        try:
            _, complaint = download.process.communicate(timeout=FETCH_SECONDS_MAX)
            failure = last_line(complaint) if download.process.returncode else None
        except subprocess.TimeoutExpired:
            download.process.kill()
            download.process.communicate()
            failure = f"the download took longer than {FETCH_SECONDS_MAX} s"
        if failure is not None and self._stopped:
            failure = f"{what} was being downloaded, and the service stops"
        download.failure = failure
        log.info("fetched %s seconds=%.1f failure=%s", what, time.monotonic() - began, failure)
        with self._lock:
            del self._running[what]
            if failure is not None:
                self._failures[what] = (time.monotonic(), failure)
        download.ended.set()


def last_line(complaint: bytes) -> str:
    """Give what a failed command said last: for people, and short."""
    lines = complaint.decode(errors="replace").strip().splitlines() or ["no reason was told"]
    return lines[-1][:500]


def _unfinished(what: str) -> FetchFailed:
    return FetchFailed(f"{what} is being downloaded, try again later", code="fetching")
