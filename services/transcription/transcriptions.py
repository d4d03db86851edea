"""POST /v1/audio/transcriptions and its sisters, as OpenAI's clients know them."""

import asyncio
import dataclasses
import logging
import time
from collections.abc import Coroutine, Sequence
from contextlib import AsyncExitStack
from typing import Any

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel

from services.transcription.answers import TranscriptionBody, VerboseTranscriptionBody
from services.transcription.engine import Engine, Report, Span
from services.transcription.errors import refusals
from services.transcription.events import EventStream
from services.transcription.form import (
    SpeechForm,
    TranscriptionForm,
    TranscriptionRequest,
    TranslationForm,
)
from services.transcription.health import AppWorker
from services.transcription.metrics import Metrics
from services.transcription.rendering import render
from services.transcription.transcript import Transcript
from services.transcription.uploads import Upload, receive_upload, until_gone
from services.transcription.worker import Cancellation

log = logging.getLogger(__name__)

router = APIRouter(
    prefix="/v1/audio",
    tags=["audio"],
    responses=refusals(400, 401, 408, 413, 415, 429, 500, 503),
)

_SRT = "1\n00:00:00,000 --> 00:00:02,600\nthree one four one five nine\n"
_VTT = "WEBVTT\n\n00:00:00.000 --> 00:00:02.600\nthree one four one five nine\n"
_EVENTS = (
    'data: {"type":"transcript.text.delta","delta":"three one four one five nine"}\n\n'
    'data: {"type":"transcript.text.done","text":"three one four one five nine", …}\n\n'
)
_ANSWERS: dict[int | str, dict[str, Any]] = {
    **refusals(404),
    200: {
        "description": "The words, in the format that was asked for.",
        "model": TranscriptionBody | VerboseTranscriptionBody,
        "content": {
            "text/plain": {
                "schema": {"type": "string"},
                "examples": {
                    "text": {"value": "three one four one five nine\n"},
                    "srt": {"value": _SRT},
                },
            },
            "text/vtt": {"schema": {"type": "string"}, "example": _VTT},
            "text/tab-separated-values": {"schema": {"type": "string"}},
        },
    },
}
_STREAM = {
    "text/event-stream": {
        # Of each event, as OpenAPI 3.1 has no word for a stream of them.
        "schema": {
            "type": "object",
            "required": ["data"],
            "properties": {"data": {"type": "string", "contentMediaType": "application/json"}},
        },
        "example": _EVENTS,
    }
}
_ANSWERS_OR_STREAM: dict[int | str, dict[str, Any]] = {
    **_ANSWERS,
    200: _ANSWERS[200] | {"content": _ANSWERS[200]["content"] | _STREAM},
}


def _takes(form: type[SpeechForm]) -> dict[str, Any]:
    """Describe a form that the route reads by itself, within its limits."""
    content = {"multipart/form-data": {"schema": form.schema_of_form()}}
    return {"requestBody": {"required": True, "content": content}}


@router.post(
    "/transcriptions",
    summary="Turn speech into text",
    openapi_extra=_takes(TranscriptionForm),
    responses=_ANSWERS_OR_STREAM,
    response_class=Response,
)
async def create_transcription(request: Request, worker: AppWorker) -> Response:
    """Transcribe one recording, in its turn; a client that leaves gives up its turn."""
    return await _answer(request, worker, TranscriptionForm)


@router.post(
    "/translations",
    summary="Turn speech of any language into English text",
    openapi_extra=_takes(TranslationForm),
    responses=_ANSWERS,
    response_class=Response,
)
async def create_translation(request: Request, worker: AppWorker) -> Response:
    """Translate one recording, in its turn; a client that leaves gives up its turn."""
    return await _answer(request, worker, TranslationForm)


class SpeechBody(BaseModel):
    """A passage where somebody speaks, in milliseconds."""

    start: int
    end: int


@router.post(
    "/speech/timestamps",
    summary="Find where somebody speaks",
    openapi_extra=_takes(SpeechForm),
)
async def find_speech(request: Request, worker: AppWorker) -> list[SpeechBody]:
    """Give the passages with speech, by Silero's detector; no model is needed for it."""
    async with AsyncExitStack() as held:
        held.enter_context(worker.place())
        upload = await held.enter_async_context(
            receive_upload(request, request.app.state.upload_limits)
        )
        tuning = SpeechForm.parse(upload.fields).vad()

        def job(engine: Engine, cancellation: Cancellation) -> Sequence[Span]:
            return engine.find_speech(upload.recording, tuning, cancellation)

        spans = await worker.run(job, gone=until_gone(request))
    return [
        SpeechBody(start=round(span.start_seconds * 1000), end=round(span.end_seconds * 1000))
        for span in spans
    ]


async def _answer(request: Request, worker: AppWorker, form: type[TranslationForm]) -> Response:
    state = request.app.state
    async with AsyncExitStack() as held:
        held.enter_context(worker.place())
        upload = await held.enter_async_context(receive_upload(request, state.upload_limits))
        wanted = form.parse(upload.fields).request()
        # In a thread: the name may be that of a folder on a disk that sleeps.
        model = await asyncio.to_thread(state.catalogue.find, wanted.model)
        wanted = dataclasses.replace(wanted, model=model.id)

        async def run(report: Report, gone: Coroutine[Any, Any, None]) -> Transcript:
            job = _Job(upload, wanted, report, state.metrics)
            return await worker.run(job, gone=gone, model=wanted.model)

        if wanted.stream:
            stream = EventStream(
                run,
                gone=until_gone(request),
                logprobs=wanted.logprobs,
                send_seconds_max=state.upload_limits.silence_seconds_max,
            )
            await stream.begin(held)
            return stream
        transcript = await run(lambda _segment: None, until_gone(request))
    # In a thread: that of hours takes a tenth of a second.
    return await asyncio.to_thread(render, transcript, wanted)


class _Job:
    """What the worker's thread does for one request."""

    def __init__(
        self, upload: Upload, wanted: TranscriptionRequest, report: Report, metrics: Metrics
    ) -> None:
        self._recording = upload.recording
        self._file_bytes = upload.file_bytes
        self._wanted = wanted
        self._report = report
        self._metrics = metrics
        self._arrived = time.monotonic()

    def __call__(self, engine: Engine, cancellation: Cancellation) -> Transcript:
        began = time.monotonic()
        transcript = engine.transcribe(self._recording, self._wanted, cancellation, self._report)
        waited_seconds, seconds = began - self._arrived, time.monotonic() - began
        self._metrics.transcribed(
            self._wanted.model, transcript, waited_seconds=waited_seconds, seconds=seconds
        )
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
        return transcript
