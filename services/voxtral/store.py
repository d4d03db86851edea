"""The jobs on disk, in SQLite: no end of the process loses one that was accepted, or its result.

Every method is one transaction, so what it finds is what it changes. A job changes its state only
from the one that the method names: who comes too late changes nothing.
"""

import json
import sqlite3
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from services.transcription.errors import InvalidRequest, QueueFull
from services.voxtral.database import Database, StoreError, StoreFailed
from services.voxtral.jobs import (
    ATTEMPTS_MAX,
    RUN_KEPT_SECONDS,
    Ending,
    Job,
    NewJob,
    Status,
    Webhook,
    expiry,
)

_JOB = (
    "id, status, synchronous, submitted_at, started_at, ended_at, expires_at, execution_seconds,"
    " output, error"
)
# What a client may have done once more.
_RETRIED = (Status.FAILED, Status.TIMED_OUT)
# What a webhook is told of; a job that was cancelled had its answer.
_TOLD = (Status.COMPLETED, Status.FAILED, Status.TIMED_OUT)
_GIVEN_UP = (
    f"the service ended {ATTEMPTS_MAX} times in the middle of this job: probably out of memory"
)
# A job that is put in line again may wait a day.
_RETRIED_SECONDS = 86_400.0
# What stands around a part of a stream in its answer.
_AROUND_CHUNK_BYTES = len('{"output":},')


@dataclass(frozen=True)
class Counts:
    """How many jobs there are, and were."""

    completed: int = 0
    failed: int = 0
    retried: int = 0
    in_queue: int = 0
    in_progress: int = 0
    webhooks: int = 0  # to be posted
    changes: int = 0  # made by this process: of two counts, the later one has not fewer


class Store:
    """The jobs of one process, from any thread."""

    def __init__(self, folder: Path, *, waiting_max: int, now: float) -> None:
        """Open the jobs of a folder, and put those back in line that a crash interrupted.

        Raises StoreError.
        """
        self._waiting_max = waiting_max
        self._database = Database(folder)
        try:
            self.recover(now)
        except StoreFailed as error:
            self._database.close()
            raise StoreError(f"VOXTRAL_STATE: {folder}: {error}") from error

    def close(self) -> None:
        """Let another process have the folder."""
        self._database.close()

    def scrub(self) -> None:
        """Leave nothing on disk of what was deleted."""
        self._database.scrub()

    def recover(self, now: float) -> None:
        """Put the jobs back in line that the end of a process interrupted, but not for ever."""
        with self._database.transaction() as database:
            tried = database.execute(
                "SELECT id FROM jobs WHERE status IN ('IN_QUEUE', 'IN_PROGRESS') AND attempts >= ?",
                (ATTEMPTS_MAX,),
            ).fetchall()
            for (job_id,) in tried:
                self._finish(database, job_id, Ending(Status.FAILED, error=_GIVEN_UP), now)
            database.execute(
                "UPDATE jobs SET status = 'IN_QUEUE', started_at = NULL"
                " WHERE status = 'IN_PROGRESS'"
            )

    def add(self, job: NewJob, ending: Ending | None) -> None:
        """Accept a job, which may have ended already.

        Raises QueueFull; StoreFailed, as all that follow.
        """
        row = (
            job.id,
            Status.IN_QUEUE,
            job.synchronous,
            job.submitted_at,
            # What ends at once was worked on, too: clients read how long it took.
            None if ending is None else job.submitted_at,
            job.expires_at,
            job.execution_seconds,
            job.webhook,
        )
        given = json.dumps(job.given)
        with self._database.transaction() as database:
            if ending is None:
                self._check_room(database)
            if job.webhook is not None:
                self._check_webhooks(database)
            database.execute(
                "INSERT INTO jobs (id, status, synchronous, submitted_at, started_at, expires_at,"
                " execution_seconds, webhook) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                row,
            )
            database.execute("INSERT INTO inputs VALUES (?, ?)", (job.id, given))
            if ending is not None:
                self._finish(database, job.id, ending, job.submitted_at)

    def get(self, job_id: str, now: float) -> Job | None:
        """Give a job as it stands; None if there is none, or it has expired."""
        with self._database.transaction() as database:
            return _get(database, job_id, now)

    def take(self, now: float) -> tuple[Job, dict[str, Any]] | None:
        """Give the job that waits longest, and its input; None if none waits.

        That is an attempt, unless it is handed back: the process may end while the model loads.
        """
        with self._database.transaction() as database:
            row = database.execute(
                f"SELECT input, {_JOB} FROM jobs JOIN inputs ON job = id"  # noqa: S608 -- our own columns
                " WHERE status = 'IN_QUEUE' AND expires_at > ? ORDER BY number LIMIT 1",
                (now,),
            ).fetchone()
            if row is None:
                return None
            job = _job(row[1:])
            database.execute("UPDATE jobs SET attempts = attempts + 1 WHERE id = ?", (job.id,))
        return job, json.loads(row[0])

    def begin(self, job_id: str, now: float) -> bool:
        """Tell that a waiting job runs now; False if it waits no longer."""
        with self._database.transaction() as database:
            changed = database.execute(
                "UPDATE jobs SET status = 'IN_PROGRESS', started_at = ?"
                " WHERE id = ? AND status = 'IN_QUEUE'",
                (now, job_id),
            )
            return changed.rowcount > 0

    def finish(self, job_id: str, ending: Ending, now: float) -> None:
        """Keep how a job ended; nothing if it has ended before, or was taken out."""
        with self._database.transaction() as database:
            self._finish(database, job_id, ending, now)

    def hand_back(self, job_id: str) -> None:
        """Put a job that was taken back in line, unless it has ended: this is no failure of it."""
        with self._database.transaction() as database:
            database.execute(
                "UPDATE jobs SET status = 'IN_QUEUE', started_at = NULL,"
                " attempts = max(attempts - 1, 0)"
                " WHERE id = ? AND status IN ('IN_QUEUE', 'IN_PROGRESS')",
                (job_id,),
            )

    def cancel(self, job_id: str, now: float) -> Job | None:
        """End a job that has not ended, and give it as it stands then; None if there is none."""
        with self._database.transaction() as database:
            self._finish(database, job_id, Ending(Status.CANCELLED), now)
            return _get(database, job_id, now)

    def retry(self, job_id: str, now: float) -> Job | None:
        """Put a job in line again that failed, and give it as it stands; None if there is none.

        Raises QueueFull, and InvalidRequest for one that cannot be tried again.
        """
        with self._database.transaction() as database:
            job = _get(database, job_id, now)
            if job is None:
                return None
            _check_retry(database, job)
            self._check_room(database)
            number = _number(database, job_id)
            database.execute("DELETE FROM chunks WHERE job = ?", (number,))
            # To the end of the line; it lives as long as a new one may.
            database.execute(
                "UPDATE jobs SET number = (SELECT max(number) + 1 FROM jobs), status = 'IN_QUEUE',"
                " submitted_at = ?, started_at = NULL, ended_at = NULL, output = NULL,"
                " error = NULL, attempts = 0, webhook_attempts = 0, webhook_due_at = NULL,"
                " expires_at = ? WHERE id = ?",
                (now, now + _RETRIED_SECONDS, job_id),
            )
            _count(database, "retried", 1)
            return _get(database, job_id, now)

    def purge(self, now: float) -> int:
        """Cancel the jobs that wait; gives how many those were."""
        with self._database.transaction() as database:
            database.execute(
                "DELETE FROM inputs WHERE job IN (SELECT id FROM jobs WHERE status = 'IN_QUEUE')"
            )
            return database.execute(
                "UPDATE jobs SET status = 'CANCELLED', ended_at = ?,"
                " expires_at = min(expires_at, ?) WHERE status = 'IN_QUEUE'",
                (now, now + RUN_KEPT_SECONDS),
            ).rowcount

    def keep_until(self, job_id: str, expires_at: float) -> None:
        """Set when a job is forgotten."""
        with self._database.transaction() as database:
            database.execute("UPDATE jobs SET expires_at = ? WHERE id = ?", (expires_at, job_id))

    def expire(self, now: float) -> list[str]:
        """Forget the jobs whose time has come, and give their ids."""
        with self._database.transaction() as database:
            gone = [
                row[0]
                for row in database.execute("SELECT id FROM jobs WHERE expires_at <= ?", (now,))
            ]
            if gone:
                # What is still to be posted is kept, and shown to nobody.
                database.execute(
                    "DELETE FROM jobs WHERE expires_at <= ? AND webhook_due_at IS NULL", (now,)
                )
            return gone

    def add_chunk(self, job_id: str, number: int, output: object) -> None:
        """Keep a part of a running job's result; one that was kept before stays as it is."""
        with self._database.transaction() as database:
            database.execute(
                "INSERT OR IGNORE INTO chunks SELECT number, ?, ? FROM jobs"
                " WHERE id = ? AND status = 'IN_PROGRESS'",
                (number, json.dumps(output), job_id),
            )

    def take_chunks(self, job_id: str, bytes_max: int) -> list[Any]:
        """Give the parts that were not given before, as many as have room; each only once."""
        taken: list[Any] = []
        size = 0
        with self._database.transaction() as database:
            job = _number(database, job_id)
            rows = database.execute(
                "SELECT number, output FROM chunks WHERE job = ? AND output IS NOT NULL"
                " ORDER BY number",
                (job,),
            ).fetchall()
            for number, output in rows:
                size += len(output) + _AROUND_CHUNK_BYTES
                if taken and size > bytes_max:
                    break
                taken.append(json.loads(output))
                # The row stays: after a crash the same part comes again, and is not given again.
                database.execute(
                    "UPDATE chunks SET output = NULL WHERE job = ? AND number = ?", (job, number)
                )
        return taken

    def counts(self) -> Counts:
        """Count the jobs."""
        with self._database.transaction() as database:
            totals = dict(database.execute("SELECT name, value FROM totals").fetchall())
            running = database.execute(
                "SELECT count(*) FROM jobs WHERE status = 'IN_PROGRESS'"
            ).fetchone()[0]
            return Counts(
                **totals,
                in_queue=_waiting(database),
                in_progress=running,
                webhooks=_to_post(database),
                changes=database.total_changes,
            )

    def due_webhooks(self, now: float, most: int) -> list[Webhook]:
        """Give the results to be posted now."""
        with self._database.transaction() as database:
            rows = database.execute(
                f"SELECT webhook, webhook_attempts, {_JOB} FROM jobs WHERE webhook_due_at <= ?"  # noqa: S608 -- our own columns
                " ORDER BY webhook_due_at LIMIT ?",
                (now, most),
            ).fetchall()
        return [Webhook(_job(row[2:]), row[0], row[1]) for row in rows]

    def webhook_posted(self, job: Job, *, due_at: float | None) -> None:
        """Keep that a result was posted, or that it was in vain; None: not to be posted again.

        Nothing if the job has been tried again since: it has another result, or will have.
        """
        with self._database.transaction() as database:
            database.execute(
                "UPDATE jobs SET webhook_attempts = webhook_attempts + 1, webhook_due_at = ?"
                " WHERE id = ? AND ended_at = ? AND webhook_due_at IS NOT NULL",
                (due_at, job.id, job.ended_at),
            )

    def _check_room(self, database: sqlite3.Connection) -> None:
        waiting = _waiting(database)
        if waiting >= self._waiting_max:
            raise QueueFull(
                f"{waiting} jobs wait here already, try again later (MAX_QUEUE)",
                code="queue_full",
                retry_after_seconds=10,
            )

    def _check_webhooks(self, database: sqlite3.Connection) -> None:
        """Refuse a job whose result would have to wait until many others are posted."""
        waiting = _to_post(database)
        if waiting >= self._waiting_max:
            raise QueueFull(
                f"webhook: {waiting} results are still to be posted, try again later (MAX_QUEUE)",
                code="queue_full",
                param="webhook",
                retry_after_seconds=10,
            )

    def _finish(
        self, database: sqlite3.Connection, job_id: str, ending: Ending, now: float
    ) -> None:
        job = _get(database, job_id, now)
        if job is None or job.status.ended:
            return
        status = ending.status
        written = None if ending.output is None else json.dumps(ending.output)
        due = now if status in _TOLD else None
        database.execute(
            "UPDATE jobs SET status = ?, ended_at = ?, expires_at = ?, output = ?, error = ?,"
            " webhook_due_at = iif(webhook IS NULL, NULL, ?) WHERE id = ?",
            (status, now, expiry(job, now), written, ending.error, due, job_id),
        )
        if status in _RETRIED:
            # What can be tried again keeps its input, but no more of them than may wait.
            database.execute(
                "DELETE FROM inputs WHERE job IN (SELECT id FROM jobs JOIN inputs ON job = id"
                " WHERE status IN ('FAILED', 'TIMED_OUT')"
                " ORDER BY ended_at DESC, number DESC LIMIT -1 OFFSET ?)",
                (self._waiting_max,),
            )
        else:
            database.execute("DELETE FROM inputs WHERE job = ?", (job_id,))
        if status in _TOLD:
            _count(database, "completed" if status is Status.COMPLETED else "failed", 1)


def _check_retry(database: sqlite3.Connection, job: Job) -> None:
    """Refuse a job that cannot be tried again."""
    if job.status not in _RETRIED:
        raise InvalidRequest(
            f"id: the job is {job.status}; only FAILED and TIMED_OUT ones are tried again",
            param="id",
            code="invalid_state",
        )
    kept = database.execute("SELECT count(*) FROM inputs WHERE job = ?", (job.id,)).fetchone()[0]
    if not kept:
        raise InvalidRequest(
            "id: so many jobs have failed since that its input is kept no longer; send it anew",
            param="id",
            code="input_dropped",
        )


def _get(database: sqlite3.Connection, job_id: str, now: float) -> Job | None:
    row = database.execute(
        f"SELECT {_JOB} FROM jobs WHERE id = ? AND expires_at > ?",  # noqa: S608 -- our own columns
        (job_id, now),
    ).fetchone()
    return None if row is None else _job(row)


def _job(row: tuple[Any, ...]) -> Job:
    job_id, status, synchronous, *rest = row
    return Job(job_id, Status(status), bool(synchronous), *rest)


def _number(database: sqlite3.Connection, job_id: str) -> int | None:
    row = database.execute("SELECT number FROM jobs WHERE id = ?", (job_id,)).fetchone()
    return None if row is None else int(row[0])


def _waiting(database: sqlite3.Connection) -> int:
    row = database.execute("SELECT count(*) FROM jobs WHERE status = 'IN_QUEUE'").fetchone()
    return int(row[0])


def _to_post(database: sqlite3.Connection) -> int:
    row = database.execute("SELECT count(*) FROM jobs WHERE webhook_due_at IS NOT NULL").fetchone()
    return int(row[0])


def _count(database: sqlite3.Connection, name: str, more: int) -> None:
    database.execute("UPDATE totals SET value = value + ? WHERE name = ?", (more, name))
