"""The file that holds the jobs: its tables, and who may use it."""

import fcntl
import sqlite3
from pathlib import Path
from typing import IO

# A version of the tables that this code does not know is not touched.
_VERSION = 1
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
    input TEXT,
    output TEXT,
    error TEXT,
    webhook TEXT,
    webhook_attempts INTEGER NOT NULL DEFAULT 0,
    webhook_due_at REAL
);
CREATE INDEX jobs_by_status ON jobs (status, number);
CREATE INDEX jobs_by_expiry ON jobs (expires_at);
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
)
_BUSY_SECONDS = 10.0


class StoreError(Exception):
    """The jobs cannot be kept; the message says what the operator must do."""


def own(folder: Path) -> IO[bytes]:
    """Keep other processes out of a folder, for as long as the file is open.

    Raises StoreError where another is in it.
    """
    owner = (folder / "lock").open("ab")
    try:
        fcntl.flock(owner, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        owner.close()
        raise StoreError(f"VOXTRAL_STATE: another process uses {folder}") from None
    return owner


def open_database(file: Path) -> sqlite3.Connection:
    """Open the jobs' file, made if it is not there; raises StoreError, sqlite3.Error."""
    # Transactions are begun by hand: the module's own would begin them late.
    database = sqlite3.connect(
        file, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False
    )
    for pragma in _PRAGMAS:
        database.execute(f"PRAGMA {pragma}")
    version = database.execute("PRAGMA user_version").fetchone()[0]
    if version == 0:
        database.executescript(f"BEGIN;{_TABLES}PRAGMA user_version = {_VERSION};COMMIT;")
    elif version != _VERSION:
        raise StoreError(f"VOXTRAL_STATE: {file} is of another version ({version})")
    return database
