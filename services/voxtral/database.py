"""The file that holds the jobs: its tables, and who may use it."""

import fcntl
import logging
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

from services.transcription.errors import NotReady

log = logging.getLogger(__name__)

# A version of the tables that this code does not know is not touched.
_VERSION = 1
# Inputs are apart: they hold recordings, and a row that changes is written anew as a whole.
_TABLES = """
CREATE TABLE jobs (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    status TEXT NOT NULL,
    synchronous INTEGER NOT NULL,
    submitted_at REAL NOT NULL,
    started_at REAL,
    ended_at REAL,
    expires_at REAL NOT NULL,
    execution_seconds REAL NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0,
    output TEXT,
    error TEXT,
    webhook TEXT,
    webhook_attempts INTEGER NOT NULL DEFAULT 0,
    webhook_due_at REAL
);
CREATE INDEX jobs_by_status ON jobs (status, number);
CREATE INDEX jobs_by_expiry ON jobs (expires_at);
CREATE INDEX jobs_by_webhook ON jobs (webhook_due_at) WHERE webhook_due_at IS NOT NULL;
CREATE TABLE inputs (
    job TEXT PRIMARY KEY REFERENCES jobs (id) ON DELETE CASCADE,
    input TEXT NOT NULL
);
CREATE TABLE chunks (
    job INTEGER NOT NULL REFERENCES jobs (number) ON DELETE CASCADE,
    number INTEGER NOT NULL,
    output TEXT,
    PRIMARY KEY (job, number)
) WITHOUT ROWID;
CREATE TABLE totals (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
INSERT INTO totals VALUES ('completed', 0), ('failed', 0), ('retried', 0);
"""
_PRAGMAS = (
    "auto_vacuum = FULL",  # recordings come and go: the file shrinks again
    "journal_mode = WAL",
    "journal_size_limit = 67108864",
    "synchronous = FULL",  # what was accepted is there after a loss of power, too
    "foreign_keys = ON",
    "secure_delete = ON",  # what is deleted is overwritten; Debian's default, not everybody's
)
_BUSY_SECONDS = 10.0


class StoreError(Exception):
    """The jobs cannot be kept; the message says what the operator must do."""


class StoreFailed(NotReady):
    """The disk is full, or gone: nothing was changed."""


class Database:
    """The file in a folder, for one process at a time; from any thread."""

    def __init__(self, folder: Path) -> None:
        """Open the file, made if it is not there; raises StoreError."""
        self._lock = threading.Lock()
        with ExitStack() as opened:
            try:
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)  # recordings are in there
                opened.enter_context(_own(folder))
                self._connection = opened.enter_context(_connect(folder / "jobs.sqlite"))
            except (OSError, sqlite3.Error) as error:
                raise StoreError(f"VOXTRAL_STATE: {folder}: {error}") from error
            self._opened = opened.pop_all()

    def close(self) -> None:
        """Let another process have the folder."""
        with self._lock:
            self._opened.close()

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Hold the lock for one transaction; raises StoreFailed."""
        with self._lock, _failures(), _committed(self._connection):
            yield self._connection

    def scrub(self) -> None:
        """Empty the journal, which still holds what was deleted; raises StoreFailed."""
        with self._lock, _failures():
            self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


@contextmanager
def _own(folder: Path) -> Iterator[None]:
    """Keep other processes out of a folder."""
    with (folder / "lock").open("ab") as owner:
        try:
            fcntl.flock(owner, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StoreError(f"VOXTRAL_STATE: another process uses {folder}") from None
        yield


@contextmanager
def _connect(file: Path) -> Iterator[sqlite3.Connection]:
    file.touch(mode=0o600)  # SQLite would let others read the recordings
    # Transactions are begun by hand: the module's own would begin them late.
    with closing(
        sqlite3.connect(file, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False)
    ) as connection:
        for pragma in _PRAGMAS:
            connection.execute(f"PRAGMA {pragma}")
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        if version == 0:
            connection.executescript(f"BEGIN;{_TABLES}PRAGMA user_version = {_VERSION};COMMIT;")
        elif version != _VERSION:
            raise StoreError(f"VOXTRAL_STATE: {file} is of another version ({version})")
        yield connection


@contextmanager
def _committed(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    finally:
        # After some failures SQLite has done so by itself.
        if connection.in_transaction:
            connection.execute("ROLLBACK")


@contextmanager
def _failures() -> Iterator[None]:
    """Raise StoreFailed for a disk that is full or gone, and for a file that is damaged."""
    try:
        yield
    except (sqlite3.IntegrityError, sqlite3.ProgrammingError):
        raise  # our own mistakes
    except sqlite3.DatabaseError as error:
        log.error("jobs cannot be kept: %s", error)
        raise StoreFailed(f"jobs cannot be kept: {error}", code="store_failed") from error
