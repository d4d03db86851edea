"""Jobs, clients, time and crashes in any order: the store keeps what a model of dicts keeps."""

import json
import shutil
import tempfile
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    multiple,
    rule,
)

from services.transcription.errors import InvalidRequest, QueueFull
from services.voxtral.jobs import ATTEMPTS_MAX, Ending, Job, Status
from tests.services.test_voxtral_store import DAY, NOW, new_job, open_store

JOBS_MAX = 6


class AnyOrder(RuleBasedStateMachine):
    """What clients, the worker and crashes do, in any order, beside a model of dicts."""

    jobs = Bundle("jobs")

    @initialize()
    def make(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="voxtral-store-"))
        self.now = NOW
        self.store = open_store(self.folder, waiting_max=JOBS_MAX, now=NOW)
        self.status: dict[str, Status] = {}
        self.expires: dict[str, float] = {}
        self.synchronous: dict[str, bool] = {}
        self.attempts: dict[str, int] = {}
        self.outputs: dict[str, object] = {}
        self.parts: dict[str, tuple[int, int]] = {}  # how many were kept, and given
        self.line: list[str] = []
        self.taken: str | None = None
        self.completed = self.failed = self.retried = 0

    def teardown(self) -> None:
        if hasattr(self, "store"):
            self.store.close()
            shutil.rmtree(self.folder)

    def end(self, job: str, status: Status) -> None:
        self.status[job] = status
        kept = 60.0 if self.synchronous[job] else 1800.0
        self.expires[job] = min(self.expires[job], self.now + kept)
        self.line = [each for each in self.line if each != job]
        self.completed += status is Status.COMPLETED
        self.failed += status in (Status.FAILED, Status.TIMED_OUT)

    def alive(self, job: str) -> bool:
        return job in self.status and self.expires[job] > self.now

    @rule(target=jobs, synchronous=st.booleans(), ttl_ms=st.sampled_from([10_000, 86_400_000]))
    def submit(self, synchronous, ttl_ms):
        job = new_job(synchronous=synchronous, now=self.now, policy={"ttl": ttl_ms})
        # Expired jobs hold their place until they are swept out.
        waiting = sum(status is Status.IN_QUEUE for status in self.status.values())
        try:
            self.store.add(job, None)
        except QueueFull:
            assert waiting >= JOBS_MAX
            return multiple()
        assert waiting < JOBS_MAX
        self.status[job.id] = Status.IN_QUEUE
        self.expires[job.id] = self.now + ttl_ms / 1000
        self.synchronous[job.id] = synchronous
        self.attempts[job.id] = 0
        self.parts[job.id] = (0, 0)
        self.line.append(job.id)
        return job.id

    @rule()
    def take_and_begin(self):
        if self.taken is not None:
            return
        found = self.store.take(self.now)
        expected = next((job for job in self.line if self.alive(job)), None)
        assert expected == (found and found[0].id)
        if found is None:
            return
        job = found[0].id
        assert self.store.begin(job, self.now)
        assert not self.store.begin(job, self.now)
        self.taken = job
        self.attempts[job] += 1
        self.status[job] = Status.IN_PROGRESS
        self.line.remove(job)

    @rule(status=st.sampled_from([Status.COMPLETED, Status.FAILED, Status.TIMED_OUT]))
    def finish(self, status):
        job, self.taken = self.taken, None
        if job is None:
            return
        output = {"number": self.completed} if status is Status.COMPLETED else None
        self.store.finish(job, Ending(status, output=output), self.now)
        if self.status.get(job) is Status.IN_PROGRESS and self.alive(job):
            self.outputs[job] = output
            self.end(job, status)

    @rule()
    def add_part(self):
        job = self.taken
        if job is None or self.status.get(job) is not Status.IN_PROGRESS:
            return
        kept, given = self.parts[job]
        self.store.add_chunk(job, kept, kept)
        self.parts[job] = (kept + 1, given)

    @rule(job=jobs)
    def take_parts(self, job):
        if job in self.status:
            kept, given = self.parts[job]
            assert list(range(given, kept)) == self.store.take_chunks(job, 10_000)
            self.parts[job] = (kept, kept)

    @rule(job=jobs)
    def cancel(self, job):
        found = self.store.cancel(job, self.now)
        assert (found is not None) == self.alive(job)
        if found is not None:
            if not self.status[job].ended:
                self.end(job, Status.CANCELLED)
            assert self.status[job] is found.status

    @rule(job=jobs)
    def retry(self, job):
        waiting = sum(status is Status.IN_QUEUE for status in self.status.values())
        retried = self.alive(job) and self.status[job] in (Status.FAILED, Status.TIMED_OUT)
        try:
            found = self.store.retry(job, self.now)
        except InvalidRequest:
            # Nor where its input was dropped, which is so after six more have failed.
            assert self.alive(job)
            assert not retried or self.failed > JOBS_MAX
            return
        except QueueFull:
            assert retried
            assert waiting >= JOBS_MAX
            return
        assert (found is not None) == self.alive(job)
        if found is not None:
            assert retried
            self.status[job] = Status.IN_QUEUE
            self.expires[job] = self.now + DAY
            self.attempts[job] = 0
            self.parts[job] = (0, 0)
            self.outputs.pop(job, None)
            self.line.append(job)
            self.retried += 1

    @rule()
    def purge(self):
        waiting = [job for job, status in self.status.items() if status is Status.IN_QUEUE]
        assert len(waiting) == self.store.purge(self.now)
        for job in waiting:
            self.status[job] = Status.CANCELLED
            self.expires[job] = min(self.expires[job], self.now + 1800.0)
        self.line = []

    @rule(seconds=st.sampled_from([0.5, 5.0, 61.0, 2000.0]))
    def let_time_pass(self, seconds):
        self.now += seconds

    @rule()
    def expire(self):
        gone = [job for job in self.status if not self.alive(job)]
        assert sorted(gone) == sorted(self.store.expire(self.now))
        self.store.scrub()
        for job in gone:
            del self.status[job]
        self.line = [job for job in self.line if job not in gone]

    @rule(gently=st.booleans())
    def end_the_process(self, gently):
        if gently and self.taken is not None:
            self.store.hand_back(self.taken)
            if self.status.get(self.taken) is Status.IN_PROGRESS:
                self.attempts[self.taken] -= 1
        self.store.close()
        self.store = open_store(self.folder, waiting_max=JOBS_MAX, now=self.now)
        job, self.taken = self.taken, None
        if job is not None and self.status.get(job) is Status.IN_PROGRESS:
            # It was the first when it was taken, and numbers do not change.
            self.status[job] = Status.IN_QUEUE
            self.line.insert(0, job)
            # What is given up is known by its error below.
            if self.attempts[job] >= ATTEMPTS_MAX and self.alive(job):
                self.end(job, Status.FAILED)

    @invariant()
    def nothing_is_lost(self):
        if not hasattr(self, "store"):
            return
        for job, status in self.status.items():
            found: Job | None = self.store.get(job, self.now)
            assert (found is not None) == self.alive(job)
            if found is not None:
                assert status is found.status
                assert self.outputs.get(job) == (found.output and json.loads(found.output))

    @invariant()
    def the_figures_are_right(self):
        if not hasattr(self, "store"):
            return
        counts = self.store.counts()
        standing = list(self.status.values())
        assert standing.count(Status.IN_QUEUE) == counts.in_queue
        assert standing.count(Status.IN_PROGRESS) == counts.in_progress
        assert counts.in_progress <= 1
        assert (self.completed, self.failed, self.retried) == (
            counts.completed,
            counts.failed,
            counts.retried,
        )


AnyOrder.TestCase.settings = settings(
    max_examples=60,
    stateful_step_count=40,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)
TestAnyOrder = AnyOrder.TestCase
