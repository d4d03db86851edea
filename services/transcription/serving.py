"""One request for a transcript, from its upload to its answer, whatever API it came by."""

import asyncio
import dataclasses
import logging
import time
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

from fastapi import Request, Response

from services.transcription.audio import RawAudio, Recording
from services.transcription.engine import Engine, Report
from services.transcription.events import EventStream, Result
from services.transcription.fetching import find_or_fetch
from services.transcription.metrics import Metrics
from services.transcription.request import TranscriptionRequest
from services.transcription.telling import Telling
from services.transcription.transcript import Transcript
from services.transcription.uploads import Upload, receive_upload, until_gone
from services.transcription.worker import Cancellation, Worker

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Dialect:
    """How one API asks for a transcript, and how it is answered.

    `read` gives the request or refuses it; a model of "" is the default one. `render` is called
    in a thread.
    """

    read: Callable[[Upload], TranscriptionRequest]
    render: Callable[[Result, TranscriptionRequest], Response]
    tell: Callable[[TranscriptionRequest], Telling]
    file_field: str = "file"
    raw: RawAudio | None = None  # what the recording is, where its type cannot tell


async def serve(request: Request, worker: Worker[Any], dialect: Dialect) -> Response:
    """Transcribe one recording, in its turn; a client that leaves gives up its turn."""
    state = request.app.state
    async with AsyncExitStack() as held:
        held.enter_context(worker.place())
        upload = await held.enter_async_context(
            receive_upload(request, state.upload_limits, file_field=dialect.file_field)
        )
        wanted = dialect.read(upload)
        model = await find_or_fetch(request, wanted.model or state.catalogue.default.id)
        wanted = dataclasses.replace(wanted, model=model.id)

        recording = upload.recording
        if dialect.raw is not None:
            recording = dataclasses.replace(recording, raw=dialect.raw)

        async def run(report: Report, gone: Coroutine[Any, Any, None]) -> Result:
            job = _Job(recording, upload.file_bytes, wanted, report, state.metrics)
            return await worker.run(job, gone=gone, model=wanted.model)

        if wanted.stream:
            stream = EventStream(
                run,
                dialect.tell(wanted),
                gone=until_gone(request),
                send_seconds_max=state.upload_limits.silence_seconds_max,
            )
            await stream.begin(held)
            return stream
        result = await run(lambda _reported: None, until_gone(request))
    # In a thread: that of hours takes a tenth of a second.
    return await asyncio.to_thread(dialect.render, result, wanted)


class _Job:
    """What the worker's thread does for one request."""

    def __init__(
        self,
        recording: Recording,
        file_bytes: int,
        wanted: TranscriptionRequest,
        report: Report,
        metrics: Metrics,
    ) -> None:
        self._recording = recording
        self._file_bytes = file_bytes
        self._wanted = wanted
        self._report = report
        self._metrics = metrics
        self._arrived = time.monotonic()

    def __call__(self, engine: Engine, cancellation: Cancellation) -> Result:
        began = time.monotonic()
        transcript = engine.transcribe(self._recording, self._wanted, cancellation, self._report)
        waited_seconds, seconds = began - self._arrived, time.monotonic() - began
        self._metrics.transcribed(
            self._wanted.model,
            transcript.duration_seconds,
            waited_seconds=waited_seconds,
            seconds=seconds,
        )
        self._log(transcript, waited_seconds, seconds)
        return Result(transcript, seconds)

    def _log(self, transcript: Transcript, waited_seconds: float, seconds: float) -> None:
        log.info(
            "transcribed model=%s audio_seconds=%.2f bytes=%d language=%s"
            " waited_seconds=%.2f seconds=%.2f",
            self._wanted.model,
            transcript.duration_seconds,
            self._file_bytes,
            transcript.language,
            waited_seconds,
            seconds,
        )
        for warned in transcript.warnings:
            log.warning("%s: %s", warned.code, warned.message)
