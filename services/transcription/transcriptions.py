"""POST /v1/audio/transcriptions and its sisters, as OpenAI's clients know them."""

from collections.abc import Sequence
from contextlib import AsyncExitStack
from types import UnionType
from typing import Any

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel

from services.transcription.answers import (
    DiarizedTranscriptionBody,
    TranscriptionBody,
    VerboseTranscriptionBody,
)
from services.transcription.engine import Engine, Span
from services.transcription.errors import refusals
from services.transcription.form import SpeechForm, TranscriptionForm, TranslationForm
from services.transcription.formats import ALL_FORMATS
from services.transcription.health import AppWorker
from services.transcription.rendering import render
from services.transcription.serving import Dialect, serve
from services.transcription.telling import OpenAiTelling
from services.transcription.uploads import receive_upload, until_gone
from services.transcription.worker import Cancellation

_SRT = "1\n00:00:00,000 --> 00:00:02,600\nthree one four one five nine\n"
_VTT = "WEBVTT\n\n00:00:00.000 --> 00:00:02.600\nthree one four one five nine\n"
_EVENTS = (
    'data: {"type":"transcript.text.delta","delta":"three one four one five nine"}\n\n'
    'data: {"type":"transcript.text.done","text":"three one four one five nine", …}\n\n'
)
_TEXTS: dict[str, Any] = {
    "text/plain": {
        "schema": {"type": "string"},
        "examples": {
            "text": {"value": "three one four one five nine\n"},
            "srt": {"value": _SRT},
        },
    },
    "text/vtt": {"schema": {"type": "string"}, "example": _VTT},
    "text/tab-separated-values": {"schema": {"type": "string"}},
}


def _stream(example: str) -> dict[str, Any]:
    # Of each event, as OpenAPI 3.1 has no word for a stream of them.
    schema = {
        "type": "object",
        "required": ["data"],
        "properties": {"data": {"type": "string", "contentMediaType": "application/json"}},
    }
    return {"text/event-stream": {"schema": schema, "example": example}}


def takes(form: type[SpeechForm]) -> dict[str, Any]:
    """Describe a form that the route reads by itself, within its limits."""
    content = {"multipart/form-data": {"schema": form.schema_of_form()}}
    return {"requestBody": {"required": True, "content": content}}


def answers(
    body: type[BaseModel] | UnionType, *, events: str = ""
) -> dict[int | str, dict[str, Any]]:
    """Describe the answers that carry a transcript; `body` is the model of those in JSON.

    `events` is an example of those by server-sent events, if there are any.
    """
    return {
        **refusals(404, 502),  # a service may download what is asked for
        200: {
            "description": "The words, in the format that was asked for.",
            "model": body,
            "content": _TEXTS | (_stream(events) if events else {}),
        },
    }


class SpeechBody(BaseModel):
    """A passage where somebody speaks, in milliseconds."""

    start: int
    end: int


def make_router(
    transcription: type[TranscriptionForm], translation: type[TranslationForm]
) -> APIRouter:
    """Give the routes, which take these forms."""
    router = APIRouter(
        prefix="/v1/audio",
        tags=["audio"],
        responses=refusals(400, 401, 408, 413, 415, 429, 500, 503),
    )
    body = TranscriptionBody | VerboseTranscriptionBody
    diarizes = set(transcription.formats) == set(ALL_FORMATS)

    @router.post(
        "/transcriptions",
        summary="Turn speech into text",
        openapi_extra=takes(transcription),
        responses=answers(body | DiarizedTranscriptionBody if diarizes else body, events=_EVENTS),
        response_class=Response,
    )
    async def create_transcription(request: Request, worker: AppWorker) -> Response:
        """Transcribe one recording, in its turn; a client that leaves gives up its turn."""
        return await serve(request, worker, _dialect(transcription))

    @router.post(
        "/translations",
        summary="Turn speech of any language into English text",
        openapi_extra=takes(translation),
        responses=answers(body),
        response_class=Response,
    )
    async def create_translation(request: Request, worker: AppWorker) -> Response:
        """Translate one recording, in its turn; a client that leaves gives up its turn."""
        return await serve(request, worker, _dialect(translation))

    @router.post(
        "/speech/timestamps",
        summary="Find where somebody speaks",
        openapi_extra=takes(SpeechForm),
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

    return router


def _dialect(form: type[TranslationForm]) -> Dialect:
    return Dialect(
        read=lambda upload: form.parse(upload.fields).request(),
        render=lambda result, wanted: render(result.transcript, wanted),
        tell=OpenAiTelling,
    )
