"""The line of jobs: accepts them, does one after the other, and answers what became of them.

What a client is told was committed before. A job that is cut off by the end of the process, gentle
or not, waits for the next one; one that ended has its result until its time is over.
"""

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar

from services.transcription.audio import Recording
from services.transcription.errors import ApiError, ModelNotFound, NotReady
from services.transcription.transcript import Progress
from services.transcription.worker import Cancelled
from services.voxtral.answers import SpokenSegment
from services.voxtral.database import StoreFailed
from services.voxtral.handler import Handler
from services.voxtral.jobs import Ending, Job, JobRequest, Status, accept, view
from services.voxtral.request import Wanted, parse_input
from services.voxtral.settings import Settings
from services.voxtral.store import Counts, Store
from services.voxtral.webhooks import Webhooks

log = logging.getLogger(__name__)

R = TypeVar("R")

# A part of a stream; RunPod's limit.
CHUNK_BYTES_MAX = 1_000_000
# Half of the 10 s after which Docker kills: what runs may end, then it is handed back.
STOP_SECONDS_MAX = 5.0
# A task that waits for a thread which does not listen ends with the process.
_CANCEL_SECONDS_MAX = 1.0
_SWEEP_SECONDS = 1.0
# Before the next try, after a failure that no job is to blame for, such as a full disk.
_PAUSE_SECONDS = 5.0


@dataclass(eq=False)
class _Running:
    """The job that is worked on."""

    job: Job
    gone: asyncio.Event = field(default_factory=asyncio.Event)  # set: it is given up
    begun: bool = False  # no: the model loads
    progress: Progress | None = None
    chunks: int = 0


class Queue:
    """The jobs of this process, in one event loop; `run` does them."""

    def __init__(self, settings: Settings, store: Store, handler: Handler) -> None:
        self._settings = settings
        self._store = store
        self._handler = handler
        self._webhooks = Webhooks(store, settings, self.status_of)
        self._running: _Running | None = None
        self._stopping = asyncio.Event()
        self._added = asyncio.Event()
        self._ended = asyncio.Condition()
        self._counts = store.counts()

    @property
    def busy(self) -> bool:
        """Whether a job waits or runs, or a result is to be posted."""
        counts = self._counts
        return counts.in_queue + counts.in_progress + counts.webhooks > 0

    def health(self) -> dict[str, object]:
        """Give RunPod's figures."""
        counts, working = self._counts, int(self._running is not None)
        return {
            "jobs": {
                "completed": counts.completed,
                "failed": counts.failed,
                "inProgress": counts.in_progress,
                "inQueue": counts.in_queue,
                "retried": counts.retried,
            },
            "workers": {
                "idle": 1 - working,
                "initializing": 0,
                "ready": 1,
                "running": working,
                "throttled": 0,
                "unhealthy": 0,
            },
        }

    @asynccontextmanager
    async def run(self) -> AsyncIterator[None]:
        """Do the jobs until left; then the one that runs is finished, or handed back."""
        loop = asyncio.get_running_loop()
        working = loop.create_task(self._work(), name="jobs")
        tasks = [
            working,
            loop.create_task(self._sweep(), name="expiry"),
            loop.create_task(self._webhooks.run(), name="webhooks"),
        ]
        # Not below: requests may keep the server from leaving this block.
        ending = loop.create_task(self._let_end(working), name="end of jobs")
        try:
            yield
        finally:
            self.stop()
            await ending
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks, timeout=_CANCEL_SECONDS_MAX)
            await asyncio.to_thread(self._store.close)

    def stop(self) -> None:
        """Begin no more jobs, and let nobody wait for one."""
        self._stopping.set()
        self._added.set()

    async def submit(self, request: JobRequest, *, synchronous: bool) -> Job:
        """Accept a job; raises QueueFull, and InvalidRequest for a webhook that cannot be."""
        if request.webhook is not None:
            self._webhooks.check(request.webhook)
        seconds_max = self._settings.execution_timeout_s
        new = accept(request, synchronous=synchronous, now=time.time(), seconds_max=seconds_max)
        await self._keep(self._store.add, new, self._ending(request.input))
        self._webhooks.wake()
        self._added.set()
        return await self.find(new.id)

    async def find(self, job_id: str) -> Job:
        """Give a job as it stands; raises ModelNotFound's kin, a 404."""
        job = await asyncio.to_thread(self._store.get, job_id, time.time())
        if job is None:
            raise _unknown(job_id)
        return job

    async def wait(self, job_id: str, seconds: float) -> Job:
        """Give a job once it has ended, or as it stands after a while, or when we stop."""
        try:
            async with asyncio.timeout(seconds), self._ended:
                while not (job := await self.find(job_id)).status.ended:
                    if self._stopping.is_set():
                        break
                    await self._ended.wait()
                return job
        except TimeoutError:
            return await self.find(job_id)

    async def keep_for(self, job_id: str, seconds: float) -> None:
        """Let a job be forgotten so many seconds from now."""
        await self._keep(self._store.keep_until, job_id, time.time() + seconds)

    async def cancel(self, job_id: str) -> Job:
        """End a job that has not ended."""
        job = await self._keep(self._store.cancel, job_id, time.time())
        if job is None:
            raise _unknown(job_id)
        if job.status is Status.CANCELLED:
            self._give_up(job_id)
        await self._tell()
        return job

    async def retry(self, job_id: str) -> Job:
        """Put a job in line again that failed."""
        job = await self._keep(self._store.retry, job_id, time.time())
        if job is None:
            raise _unknown(job_id)
        self._added.set()
        return job

    async def purge(self) -> int:
        """Cancel the jobs that wait, and give how many those were."""
        removed = await self._keep(self._store.purge, time.time())
        await self._tell()
        return removed

    async def stream(self, job_id: str) -> tuple[Job, list[Any]]:
        """Give a job, and the parts of its result that were not given before."""
        job = await self.find(job_id)
        return job, await asyncio.to_thread(self._store.take_chunks, job_id, CHUNK_BYTES_MAX)

    def status_of(self, job: Job) -> dict[str, object]:
        """Give what RunPod answers about a job."""
        output: object = None if job.output is None else json.loads(job.output)
        running = self._running
        if job.status is Status.IN_PROGRESS and running and running.job.id == job.id:
            told = running.progress
            output = told and {"phase": told.phase, "percent": told.percent}
        return view(job, worker_id=self._settings.runpod_pod_id, output=output)

    async def _work(self) -> None:
        while not self._stopping.is_set():
            self._added.clear()
            try:
                # Before that it is not taken: what others do with the model is no attempt at it.
                async with self._handler.turn(self._stopping):
                    found = await asyncio.to_thread(self._store.take, time.time())
                    if found is not None:
                        await self._do(*found)
                if found is None:
                    await self._added.wait()
            except Cancelled:
                return  # we stop
            except StoreFailed:
                await self._pause()
            except Exception:
                log.exception("a job could not be worked on")
                await self._pause()

    async def _do(self, job: Job, given: dict[str, Any]) -> None:
        """Do one job, and keep how it ended."""
        running = self._running = _Running(job)
        try:
            ending = await self._outcome(running, given)
            if ending is None:
                await self._insist(self._store.hand_back, job.id)
            else:
                await self._finish(job.id, ending)
        finally:
            self._running = None

    async def _outcome(self, running: _Running, given: dict[str, Any]) -> Ending | None:
        """Work on a job, and give how it ended.

        None: it has not, and waits for another time; or it was ended, or forgotten, by others.
        """
        job = running.job
        try:
            read = parse_input(given)
            async with self._handler.recording(read, running.gone) as recording:
                # Until the model is there, the job waits: that is not its own time.
                await self._handler.load(running.gone)
                if not await self._keep(self._store.begin, job.id, time.time()):
                    return None
                running.begun = True
                answer = await self._in_time(running, recording, self._handler.wanted(read))
        except Cancelled:
            log.info("job %s given up", job.id)
            return None
        except NotReady as error:
            # No fault of the job: the disk is full, or the worker could not start.
            log.warning("job %s waits: %s", job.id, error.code)
            await self._pause()
            return None
        except ApiError as error:
            log.warning("job %s failed: %s", job.id, error.code)
            return Ending(Status.FAILED, error=error.message)
        except OSError as error:
            log.error("job %s failed: %s", job.id, error)
            told = f"the recording could not be kept for the work: {error.strerror}"
            return Ending(Status.FAILED, error=told)
        except Exception:
            log.exception("job %s failed", job.id)
            return Ending(Status.FAILED, error="internal error")
        return Ending(Status.COMPLETED, output=answer)

    async def _in_time(
        self, running: _Running, recording: Recording, wanted: Wanted
    ) -> dict[str, Any]:
        """Give the answer of a job, which may run for so long."""

        def report(reported: Progress | SpokenSegment) -> None:  # in the worker's thread
            if isinstance(reported, Progress):
                running.progress = reported
            else:
                part = reported.model_dump()
                self._store.add_chunk(running.job.id, running.chunks, part)
                running.chunks += 1

        job = running.job
        work = asyncio.ensure_future(self._handler.work(recording, wanted, running.gone, report))
        try:
            if not (await asyncio.wait({work}, timeout=job.execution_seconds))[0]:
                told = f"the job took longer than {job.execution_seconds:g} s"
                told += " (policy.executionTimeout, EXECUTION_TIMEOUT_S)"
                await self._finish(job.id, Ending(Status.TIMED_OUT, error=told))
                running.gone.set()
                # Whatever comes of it now is too late: it may wait in the line again.
                await asyncio.gather(work, return_exceptions=True)
                raise Cancelled
            return (await work).model_dump(mode="json")
        finally:
            work.cancel()

    def _ending(self, given: dict[str, Any]) -> Ending | None:
        """Give how a job ends that needs no model: a ping, or one that can only fail."""
        try:
            read = parse_input(given)
            if read.ping:
                return Ending(Status.COMPLETED, output=self._handler.pong())
            self._handler.wanted(read)
        except ApiError as error:
            return Ending(Status.FAILED, error=error.message)
        return None

    async def _finish(self, job_id: str, ending: Ending) -> None:
        await self._insist(self._store.finish, job_id, ending, time.time())
        self._webhooks.wake()
        await self._tell()

    async def _insist(self, change: Callable[..., R], *arguments: object) -> R:
        """Change what is kept, once that is possible: a full disk may be emptied.

        Raises StoreFailed where we stop before that: then the next process finds the job begun.
        """
        while True:
            try:
                return await self._keep(change, *arguments)
            except StoreFailed:
                if self._stopping.is_set():
                    raise
                await self._pause()

    async def _pause(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(_PAUSE_SECONDS):
                await self._stopping.wait()

    async def _keep(self, change: Callable[..., R], *arguments: object) -> R:
        """Change what is kept, in a thread: to write to the disk takes a while."""

        def run() -> tuple[R, Counts]:
            return change(*arguments), self._store.counts()

        changed, counts = await asyncio.to_thread(run)
        # Threads do not always come back in the order in which they counted.
        if counts.changes >= self._counts.changes:
            self._counts = counts
        return changed

    async def _tell(self) -> None:
        async with self._ended:
            self._ended.notify_all()

    async def _sweep(self) -> None:
        """Forget what has expired, and tell those who wait that we stop."""
        while True:
            try:
                async with asyncio.timeout(_SWEEP_SECONDS):
                    await self._stopping.wait()
                await self._tell()
                await asyncio.sleep(_SWEEP_SECONDS)
            except TimeoutError:
                pass
            try:
                expired = await self._keep(self._store.expire, time.time())
                await asyncio.to_thread(self._store.scrub)
            except StoreFailed:
                continue  # it was logged, and the next second tells whether it is over
            for job_id in expired:
                self._give_up(job_id)
            if expired:
                await self._tell()

    async def _let_end(self, working: "asyncio.Task[None]") -> None:
        """When we stop, let the running job end, for a while; then ask it to, and hand it back."""
        await self._stopping.wait()
        if self._running is not None and not self._running.begun:
            self._running.gone.set()  # no model is of use to who stops
        await asyncio.wait({working}, timeout=STOP_SECONDS_MAX)
        running = self._running
        if running is None:
            return
        running.gone.set()
        await asyncio.wait({working}, timeout=STOP_SECONDS_MAX / 2)
        if self._running is running:
            log.warning("job %s does not end, so it is handed back as it is", running.job.id)
            with suppress(StoreFailed):  # then the next process finds it begun
                await self._keep(self._store.hand_back, running.job.id)

    def _give_up(self, job_id: str) -> None:
        if self._running is not None and self._running.job.id == job_id:
            self._running.gone.set()


def _unknown(job_id: str) -> ApiError:
    return ModelNotFound(
        f"id: there is no job {job_id[:100]!r}, or no more", param="id", code="job_not_found"
    )
