"""What is done for a job, however it came: RunPod's contract, RunPod's own line, or a form."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from services.transcription.audio import Recording, check_header
from services.transcription.errors import ApiError, EngineError
from services.transcription.metrics import Metrics
from services.transcription.transcript import Progress
from services.transcription.worker import Cancellation, Cancelled, Worker
from services.voxtral.answers import Answer, SpokenSegment
from services.voxtral.files import shown_name
from services.voxtral.request import JobInput, Wanted, named
from services.voxtral.settings import Settings
from services.voxtral.sources import decoded, fetched

if TYPE_CHECKING:  # it is imported in the worker's thread
    from services.voxtral.engine import VoxtralEngine

log = logging.getLogger(__name__)

R = TypeVar("R")
Report = Callable[[Progress | SpokenSegment], None]


def ignore_reports(_reported: Progress | SpokenSegment) -> None:
    """Tell nobody."""


class Handler:
    """Does one job at a time, in the worker's thread; to be used in one event loop.

    `gone` is an event that gives a job up: Cancelled is raised once nothing works on it any more.
    """

    def __init__(
        self,
        settings: Settings,
        worker: "Worker[VoxtralEngine]",
        metrics: Metrics | None = None,
        *,
        on_device_lost: Callable[[], None] = lambda: None,
    ) -> None:
        """Use a worker; `on_device_lost` is called when only a new process can go on."""
        self._settings = settings
        self._worker = worker
        self._metrics = metrics
        self._on_device_lost = on_device_lost
        self._name = shown_name(settings.voxtral_model)
        self._turn = asyncio.Lock()

    @asynccontextmanager
    async def turn(self, gone: asyncio.Event) -> AsyncIterator[None]:
        """Have the worker to oneself, for several calls of it; who asked first is first.

        A job's time runs from its first call on, so nobody else's may come in between. Raises
        Cancelled.
        """
        await _unless(gone, self._turn.acquire())
        try:
            yield
        finally:
            self._turn.release()

    def pong(self) -> dict[str, object]:
        """Answer a ping, whatever the model does."""
        engine = self._worker.engine
        return {
            "pong": True,
            "model": self._name,
            "model_resident": engine is not None and bool(engine.resident()),
        }

    async def load(self, gone: asyncio.Event) -> None:
        """Make the model resident; raises ApiError where that fails."""

        def job(engine: "VoxtralEngine", cancellation: Cancellation) -> None:
            engine.load(cancellation.check)

        await self._worker.run(job, gone=_wait(gone))

    @asynccontextmanager
    async def recording(self, given: JobInput, gone: asyncio.Event) -> AsyncIterator[Recording]:
        """Have a job's recording; raises ApiError, also for what shows at once to be none."""
        async with AsyncExitStack() as held:
            field, source = self._source(given)
            try:
                recording = await _unless(gone, held.enter_async_context(source))
                await self.check(recording)
                yield recording
            except ApiError as error:
                raise named(error, field) from error

    async def check(self, recording: Recording) -> None:
        """Refuse a recording that tells by itself that it cannot work, before anything is done."""
        seconds_max = self._settings.max_audio_seconds
        # In a thread: it reads the file, and some formats tell their length at the end of it.
        await asyncio.to_thread(
            check_header, recording, seconds_max=seconds_max, limit="MAX_DURATION_S"
        )

    async def work(
        self,
        recording: Recording,
        wanted: Wanted,
        gone: asyncio.Event,
        report: Report = ignore_reports,
        *,
        arrived: float | None = None,
    ) -> Answer:
        """Do what is wanted with a recording that is here; raises ApiError.

        `report` is called in the worker's thread. `arrived` is since when it waits, by the
        monotonic clock; None: from now on.
        """

        def job(engine: "VoxtralEngine", cancellation: Cancellation) -> Answer:
            engine.load(cancellation.check)
            began = time.monotonic()
            answer = engine.work(recording, wanted, cancellation, report)
            self._tell(answer, began - since, time.monotonic() - began)
            return answer

        since = time.monotonic() if arrived is None else arrived
        task = asyncio.ensure_future(self._worker.run(job, gone=_wait(gone)))
        try:
            return await asyncio.shield(task)
        except EngineError as error:
            if error.code == "device_lost":
                self._on_device_lost()
            raise
        except asyncio.CancelledError:
            # The recording is closed after this, and the thread still reads it.
            gone.set()
            await asyncio.gather(task, return_exceptions=True)
            raise

    def _tell(self, answer: Answer, waited_seconds: float, seconds: float) -> None:
        log.info(
            "done task=%s audio_seconds=%.2f language=%s waited_seconds=%.2f seconds=%.2f",
            answer.task,
            answer.duration,
            answer.language,
            waited_seconds,
            seconds,
        )
        for warned in answer.warnings:
            log.warning("%s: %s", warned.code, warned.message)
        if self._metrics is not None:
            self._metrics.transcribed(
                answer.model, answer.duration, waited_seconds=waited_seconds, seconds=seconds
            )

    def wanted(self, given: JobInput) -> Wanted:
        """Give what a job wants; raises InvalidRequest for what cannot be."""
        return given.wanted(with_summary_default=self._settings.with_summary_default)

    def _source(self, given: JobInput) -> tuple[str, AbstractAsyncContextManager[Recording]]:
        if given.audio_url is not None:
            return "audio_url", fetched(given.audio_url, settings=self._settings)
        assert given.audio_base64 is not None, "parse_input has seen to that"
        bytes_max = int(self._settings.max_upload)
        return "audio_base64", decoded(given.audio_base64, bytes_max=bytes_max)


async def _wait(gone: asyncio.Event) -> None:
    await gone.wait()


async def _unless(gone: asyncio.Event, work: Coroutine[Any, Any, R]) -> R:
    """Await some work; raises Cancelled, once it has ended, when it is given up."""
    task = asyncio.ensure_future(work)
    watch = asyncio.ensure_future(gone.wait())
    try:
        await asyncio.wait({task, watch}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        watch.cancel()
        if not task.done():
            task.cancel()
            await asyncio.wait({task})
    if task.cancelled():
        raise Cancelled
    return task.result()
