"""The worker owes: one job at a time, a bounded line, and an end for every job."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from services.transcription.errors import NotReady, QueueFull
from services.transcription.worker import Cancelled, Failed, Loading, Ready, Worker

SECONDS_MAX = 10.0  # for what should take none


async def never() -> None:
    """The client stays."""
    await asyncio.Event().wait()


@asynccontextmanager
async def running(
    load: Callable[[], object] = object,
    *,
    waiting_max: int = 1,
    warm_up: Callable[[object], None] = lambda engine: None,
    on_failure: Callable[[], None] = lambda: None,
) -> AsyncIterator[Worker[object]]:
    worker = Worker(load, warm_up=warm_up, waiting_max=waiting_max, on_failure=on_failure)
    worker.start()
    try:
        async with asyncio.timeout(SECONDS_MAX):
            yield worker
    finally:
        await worker.stop(SECONDS_MAX)


async def run_in_place(worker: Worker[object], function, gone=None):
    with worker.place():
        return await worker.run(function, gone=gone or never())


async def until(condition: Callable[[], bool]) -> None:
    """Wait for the other thread."""
    async with asyncio.timeout(SECONDS_MAX):
        while not condition():
            await asyncio.sleep(0.001)


class Gate:
    """A job that runs until it is let go, or cancelled."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.opened = threading.Event()

    def __call__(self, engine, cancellation) -> str:
        self.entered.set()
        while not self.opened.wait(0.001):
            cancellation.check()
        return "done"


async def test_a_job_gets_the_engine():
    """The result of load() is what jobs work with, in the worker's own thread."""
    async with running(lambda: "engine") as worker:
        seen = await run_in_place(
            worker, lambda engine, _: (engine, threading.current_thread().name)
        )

    assert seen == ("engine", "worker")


async def test_the_error_of_a_job_reaches_its_caller():
    """And the worker goes on."""
    async with running() as worker:
        with pytest.raises(ZeroDivisionError):
            await run_in_place(worker, lambda engine, _: 1 / 0)

        assert await run_in_place(worker, lambda engine, _: "next") == "next"


async def test_jobs_run_one_by_one_in_order():
    """The engine is never used by two."""
    order: list[str] = []
    gate = Gate()
    async with running(waiting_max=3) as worker:
        first = asyncio.ensure_future(run_in_place(worker, gate))
        rest = [
            asyncio.ensure_future(run_in_place(worker, lambda engine, _, n=n: order.append(n)))
            for n in "abc"
        ]
        await until(gate.entered.is_set)
        assert order == []
        gate.opened.set()
        await asyncio.gather(first, *rest)

    assert order == ["a", "b", "c"]


async def test_a_request_during_the_load_waits_for_it():
    """Early is no error: the job runs as soon as the engine is there."""
    loaded = threading.Event()
    async with running(lambda: loaded.wait(SECONDS_MAX)) as worker:
        early = asyncio.ensure_future(run_in_place(worker, lambda engine, _: engine))
        await asyncio.sleep(0)
        assert worker.state == Loading()
        loaded.set()

        assert await early is True
        assert worker.state == Ready()


async def test_ready_comes_before_the_warm_up():
    """The warm-up is for the first request, which waits for it in the line."""
    warmed = threading.Event()
    async with running(warm_up=lambda engine: warmed.wait(SECONDS_MAX)) as worker:
        await until(lambda: worker.state == Ready())
        job = asyncio.ensure_future(run_in_place(worker, lambda engine, _: warmed.is_set()))
        warmed.set()

        assert await job is True


async def test_a_failed_warm_up_does_not_stop_the_worker():
    """It was only meant to save time."""
    async with running(warm_up=lambda engine: 1 / 0) as worker:
        assert await run_in_place(worker, lambda engine, _: "served") == "served"


async def test_a_failed_load_refuses_all_requests():
    """Those that wait and those that come, without telling them the machine's paths."""
    fail = threading.Event()
    failures: list[str] = []

    def load() -> None:
        fail.wait(SECONDS_MAX)
        raise OSError("/srv/models/absent")

    async with running(load, on_failure=lambda: failures.append("told")) as worker:
        early = asyncio.ensure_future(run_in_place(worker, lambda engine, _: None))
        await asyncio.sleep(0)
        fail.set()
        with pytest.raises(NotReady) as raised:
            await early
        with pytest.raises(NotReady):
            await run_in_place(worker, lambda engine, _: None)

    assert worker.state == Failed("/srv/models/absent")
    assert "/srv" not in raised.value.message
    assert failures == ["told"]


async def test_places_are_bounded():
    """One runs, waiting_max wait, the next is refused with a time to come back."""
    gate = Gate()
    async with running(waiting_max=1) as worker:
        held = [asyncio.ensure_future(run_in_place(worker, gate)) for _ in range(2)]
        await until(gate.entered.is_set)
        with pytest.raises(QueueFull) as raised:
            await run_in_place(worker, gate)
        gate.opened.set()

        assert await asyncio.gather(*held) == ["done", "done"]
        assert await run_in_place(worker, gate) == "done"
    assert 1 <= raised.value.retry_after_seconds <= 120


async def test_busy_is_whether_a_place_is_held():
    """Uploads count: a place is taken before the body is read."""
    async with running() as worker:
        assert not worker.busy
        with worker.place():
            assert worker.busy
        assert not worker.busy


async def test_a_running_job_ends_when_its_client_is_gone():
    """At its next check; until then the place is held, for the job still uses the upload."""
    gate = Gate()
    gone = asyncio.Event()

    async def until_gone() -> None:
        await gone.wait()

    async with running() as worker:
        job = asyncio.ensure_future(run_in_place(worker, gate, until_gone()))
        await until(gate.entered.is_set)
        gone.set()
        with pytest.raises(Cancelled):
            await job

        assert not worker.busy
        assert await run_in_place(worker, lambda engine, _: "next") == "next"


async def test_a_waiting_job_is_withdrawn_when_its_client_is_gone():
    """At once, and it never runs."""
    gate, ran = Gate(), []

    async def gone_at_once() -> None:
        """The client has left."""

    async with running() as worker:
        first = asyncio.ensure_future(run_in_place(worker, gate))
        await until(gate.entered.is_set)
        with pytest.raises(Cancelled):
            await run_in_place(worker, lambda engine, _: ran.append(1), gone_at_once())
        gate.opened.set()
        await first
        await run_in_place(worker, lambda engine, _: None)

    assert ran == []


@pytest.mark.parametrize("place", ["running", "waiting"])
async def test_a_cancelled_caller_leaves_nothing_behind(place):
    """A forced shutdown cancels handlers; neither the job nor the worker is stuck."""
    gate = Gate()
    async with running() as worker:
        calls = [asyncio.ensure_future(run_in_place(worker, gate)) for _ in range(2)]
        await until(gate.entered.is_set)
        cancelled = calls[0 if place == "running" else 1]
        cancelled.cancel()
        with pytest.raises(asyncio.CancelledError):
            await cancelled
        gate.opened.set()
        await asyncio.gather(*calls, return_exceptions=True)

        assert await run_in_place(worker, lambda engine, _: "next") == "next"


async def test_stop_ends_what_runs_and_waits():
    """No caller is left hanging, and the thread is gone."""
    gate = Gate()
    async with running() as worker:
        calls = [asyncio.ensure_future(run_in_place(worker, gate)) for _ in range(2)]
        await until(gate.entered.is_set)
        await worker.stop(SECONDS_MAX)
        results = await asyncio.gather(*calls, return_exceptions=True)

    assert [type(result) for result in results] == [Cancelled, Cancelled]
    assert "worker" not in {thread.name for thread in threading.enumerate()}


async def test_stop_does_not_wait_for_a_load_for_ever():
    """A download of gigabytes must not outlive the wish to stop."""
    loaded = threading.Event()
    worker = Worker(
        lambda: loaded.wait(SECONDS_MAX),
        warm_up=lambda engine: None,
        waiting_max=1,
        on_failure=lambda: None,
    )
    worker.start()
    async with asyncio.timeout(SECONDS_MAX / 2):
        await worker.stop(0.01)
    loaded.set()


async def test_the_repr_shows_the_state():
    """What an operator prints is what is tested."""
    async with running(waiting_max=4) as worker:
        await until(lambda: worker.state == Ready())
        with worker.place():
            assert repr(worker) == "<Worker Ready(), 1 of 5 places taken>"
