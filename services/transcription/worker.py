"""One thread that owns the engine and does one job at a time, and a bounded line before it.

The event loop never computes: a model blocks for seconds, and /health must answer meanwhile. The
thread loads the engine first, so requests that come during the load simply wait in the line. It
is a daemon, for neither a load nor a segment in progress may keep the process from ending.

Two threads meet here. The places and the state belong to the event loop alone; the thread posts
to it. The line has a lock: a job is either taken by the thread or withdrawn by the loop, never
both. What the thread writes by itself, the loop reads only to stop or to show it.
"""

import asyncio
import logging
import math
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from services.transcription.errors import NotReady, QueueFull

log = logging.getLogger(__name__)

E = TypeVar("E")
R = TypeVar("R")

# openai's clients obey a Retry-After of at most two minutes.
RETRY_AFTER_SECONDS_MAX = 120


@dataclass(frozen=True)
class Loading:
    """The engine is on its way."""


@dataclass(frozen=True)
class Ready:
    """The engine is resident, and stays so."""


@dataclass(frozen=True)
class Failed:
    """The engine could not be loaded; only a new process tries again."""

    reason: str


State = Loading | Ready | Failed


class Cancelled(Exception):
    """The client has left, so its job was given up."""


class Cancellation:
    """Tells a running job that nobody waits for it."""

    def __init__(self) -> None:
        self._asked = threading.Event()

    def cancel(self) -> None:
        """Ask the job to end at its next check."""
        self._asked.set()

    def check(self) -> None:
        """Raise Cancelled if the job is no longer wanted; jobs call this at least per segment."""
        if self._asked.is_set():
            raise Cancelled


@dataclass(eq=False)
class _Job(Generic[E]):
    function: Callable[[E, Cancellation], Any]
    future: Future[Any] = field(default_factory=Future)
    cancellation: Cancellation = field(default_factory=Cancellation)


class _Line(Generic[E]):
    """Jobs in the order in which they came; its length is bounded by the worker's places."""

    def __init__(self) -> None:
        self._jobs: deque[_Job[E]] = deque()
        self._closed = False
        self._changed = threading.Condition()

    def put(self, job: _Job[E]) -> None:
        with self._changed:
            self._jobs.append(job)
            self._changed.notify()

    def take(self) -> _Job[E] | None:
        """Wait for a job; None means that there will be no more."""
        with self._changed:
            self._changed.wait_for(lambda: self._jobs or self._closed)
            return None if self._closed else self._jobs.popleft()

    def withdraw(self, job: _Job[E]) -> bool:
        """Take a job out; False if it was taken before."""
        with self._changed:
            if job not in self._jobs:
                return False
            self._jobs.remove(job)
            return True

    def close(self) -> list[_Job[E]]:
        """Let `take` return None from now on; gives the jobs that nobody will take."""
        with self._changed:
            left = list(self._jobs)
            self._jobs.clear()
            self._closed = True
            self._changed.notify_all()
            return left


class Worker(Generic[E]):
    """Loads an engine in its thread, then runs jobs on it there, one by one.

    `load` gives the engine, or raises. `on_failure` is called in the event loop when it has
    raised: such a process will never be ready. `warm_up` is called once after `load`; a request
    that comes meanwhile waits for it.
    """

    def __init__(
        self,
        load: Callable[[], E],
        *,
        warm_up: Callable[[E], None],
        waiting_max: int,
        on_failure: Callable[[], None],
    ) -> None:
        self._load = load
        self._warm_up = warm_up
        self._on_failure = on_failure
        self._places_max = 1 + waiting_max
        self._places_taken = 0
        self._used: Counter[str | None] = Counter()
        self._state: State = Loading()
        self._engine: E | None = None
        self._line: _Line[E] = _Line()
        self._running: _Job[E] | None = None
        self._job_seconds = 1.0
        self._thread = threading.Thread(target=self._work, name="worker", daemon=True)
        self._loop: asyncio.AbstractEventLoop | None = None

    def __repr__(self) -> str:
        return f"<Worker {self._state}, {self._places_taken} of {self._places_max} places taken>"

    @property
    def state(self) -> State:
        """Whether jobs can run, to be shown."""
        return self._state

    @property
    def engine(self) -> E | None:
        """What was loaded, for what may be asked of it in any thread; None before."""
        return self._engine

    @property
    def busy(self) -> bool:
        """Whether a request is being received, waits, or runs."""
        return self._places_taken > 0

    @property
    def places_taken(self) -> int:
        """How many requests are being received, wait, or run."""
        return self._places_taken

    @property
    def places_max(self) -> int:
        """How many there may be."""
        return self._places_max

    def uses(self, model: str) -> bool:
        """Tell whether a job that needs a model waits or runs."""
        return self._used[model] > 0

    def start(self) -> None:
        """Begin to load; to be called once, in the event loop that will ask for jobs."""
        self._loop = asyncio.get_running_loop()
        self._thread.start()

    async def stop(self, seconds_max: float) -> None:
        """Give up what runs and waits, and wait for the thread, but not for ever."""
        for job in self._line.close():
            job.future.set_exception(Cancelled())
        if self._running is not None:
            self._running.cancellation.cancel()
        await asyncio.to_thread(self._thread.join, seconds_max)

    @contextmanager
    def place(self) -> Iterator[None]:
        """Hold one of the places; raises QueueFull if there is none.

        A request takes its place before its body is read: who must be turned away is spared the
        upload, and uploads cannot fill the disk.
        """
        if self._places_taken >= self._places_max:
            raise QueueFull(
                f"{self._places_taken} requests run or wait here already, try again later",
                code="queue_full",
                retry_after_seconds=self._retry_after_seconds(),
            )
        self._places_taken += 1
        try:
            yield
        finally:
            self._places_taken -= 1

    async def run(
        self,
        function: Callable[[E, Cancellation], R],
        *,
        gone: Coroutine[Any, Any, None],
        model: str | None = None,
    ) -> R:
        """Run a job in its turn; the caller holds a place. `model` is what it uses.

        When `gone` returns first, the job is withdrawn, or asked to end, and Cancelled is raised
        once the thread no longer touches it.
        """
        job: _Job[E] = _Job(function)
        watch = asyncio.get_running_loop().create_task(gone, name="until the client is gone")
        self._used[model] += 1
        try:
            try:
                if isinstance(self._state, Failed):
                    raise _failed()
                self._line.put(job)
                result: asyncio.Future[R] = asyncio.wrap_future(job.future)
                either: set[asyncio.Future[Any]] = {result, watch}
                await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            finally:
                watch.cancel()
                self._give_up(job)
            return await result
        finally:
            self._used[model] -= 1

    def _give_up(self, job: _Job[E]) -> None:
        """Make sure that a job does not outlive its request; nothing if it has ended."""
        job.cancellation.cancel()
        if self._line.withdraw(job):
            job.future.set_exception(Cancelled())

    def _retry_after_seconds(self) -> int:
        return max(1, min(RETRY_AFTER_SECONDS_MAX, math.ceil(self._job_seconds)))

    # What follows runs in the thread, except for what it posts to the loop.

    def _work(self) -> None:
        began = time.monotonic()
        try:
            engine = self._load()
        except Exception as error:
            log.error("failed seconds=%.2f reason=%s", time.monotonic() - began, error)
            log.debug("the traceback of the failure", exc_info=error)
            self._post(self._fail, Failed(str(error)))
            return
        log.info("ready seconds=%.2f", time.monotonic() - began)
        self._post(self._become_ready, engine)
        try:
            self._warm_up(engine)
        except Exception:
            log.exception("the warm-up failed; the first request will tell")
        while (job := self._line.take()) is not None:
            self._do(engine, job)

    def _do(self, engine: E, job: _Job[E]) -> None:
        # From here on nobody but this thread may end the future.
        wanted = job.future.set_running_or_notify_cancel()
        assert wanted, "withdrawn jobs are not in the line"
        began = time.monotonic()
        self._running = job
        try:
            job.cancellation.check()
            result = job.function(engine, job.cancellation)
        except BaseException as error:  # noqa: BLE001 -- it belongs to the request, which raises it
            job.future.set_exception(error)
        else:
            job.future.set_result(result)
            self._job_seconds = time.monotonic() - began
        finally:
            self._running = None

    def _post(self, callback: Callable[..., None], *arguments: object) -> None:
        assert self._loop is not None, "start() comes first"
        # The loop is closed when the process ends during the load: nobody is left to be told.
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(callback, *arguments)

    def _become_ready(self, engine: E) -> None:
        self._state = Ready()
        self._engine = engine

    def _fail(self, state: Failed) -> None:
        self._state = state
        for job in self._line.close():
            job.future.set_exception(_failed())
        self._on_failure()


def _failed() -> NotReady:
    # The reason may name folders of the machine: it is for the log, not for clients.
    return NotReady("the model could not be loaded, see the service's log", code="load_failed")
