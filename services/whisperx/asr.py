"""POST /asr and POST /detect-language, as clients of whisper-asr-webservice know them (1.9).

Bazarr, speakr and others ask so: what they want stands in the query, the recording in
`audio_file`; `encode=false` says that it is samples without a header, 16 bits, 16 kHz, mono.
"""

from contextlib import AsyncExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, Literal

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import PlainTextResponse, RedirectResponse

from services.transcription.audio import RawAudio, Recording
from services.transcription.errors import refusals
from services.transcription.events import Result
from services.transcription.form import FILE_SCHEMA
from services.transcription.health import AppWorker
from services.transcription.languages import LANGUAGES
from services.transcription.rendering import json_response, render, with_warnings
from services.transcription.request import Task, TranscriptionRequest
from services.transcription.serving import Dialect, serve
from services.transcription.telling import OpenAiTelling
from services.transcription.uploads import Upload, receive_upload, until_gone
from services.transcription.worker import Cancellation
from services.whisperx.answers import AsrBody, DetectedBody, asr_body
from services.whisperx.form import OlderForm

if TYPE_CHECKING:  # it takes seconds to import, in the worker's thread
    from services.whisperx.engine import WhisperxEngine

Output = Literal["txt", "vtt", "srt", "tsv", "json"]

_FILE_FIELD = "audio_file"
_RAW = RawAudio("s16le")
_ANSWER = {
    "model": AsrBody,
    "headers": {"Asr-Engine": {"schema": {"type": "string"}}},
    "content": {"text/plain": {"schema": {"type": "string"}}},
}
_TAKES: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "properties": {_FILE_FIELD: FILE_SCHEMA},
                    "required": [_FILE_FIELD],
                }
            }
        },
    }
}

Encode = Annotated[bool, Query(description="`false`: 16-bit samples without a header, 16 kHz.")]
Speakers = Annotated[int | None, Query(ge=1, le=50)]

router = APIRouter(
    tags=["whisper-asr-webservice"],
    responses=refusals(400, 401, 404, 408, 413, 415, 429, 500, 502, 503),
)


@router.get("/", include_in_schema=False)
async def show_docs() -> RedirectResponse:
    """Lead people to the page that shows what can be asked."""
    return RedirectResponse("docs")


@router.post(
    "/asr",
    summary="Turn speech into text",
    openapi_extra=_TAKES,
    responses={200: _ANSWER},
    response_class=Response,
)
async def transcribe(
    request: Request,
    worker: AppWorker,
    *,
    encode: Encode = True,
    task: Task = "transcribe",
    language: str | None = None,
    initial_prompt: str | None = None,
    hotwords: str | None = None,
    model: Annotated[str, Query(description="A size (`base`). Default: as configured.")] = "",
    vad_filter: Annotated[bool | None, Query(description="It is always on.")] = None,  # noqa: ARG001 -- see its description
    word_timestamps: bool = False,
    diarize: bool = False,
    enable_diarization: Annotated[bool, Query(description="As `diarize`.")] = False,
    num_speakers: Speakers = None,
    min_speakers: Speakers = None,
    max_speakers: Speakers = None,
    output: Output = "txt",
) -> Response:
    """Transcribe one recording, in its turn; a client that leaves gives up its turn."""
    asked = {
        "task": task,
        "language": language,
        "prompt": initial_prompt,
        "hotwords": hotwords,
        "model": model,
        "diarize": diarize or enable_diarization,
        "num_speakers": num_speakers,
        "min_speakers": min_speakers,
        "max_speakers": max_speakers,
        "words": word_timestamps,
        "response_format": "text" if output == "txt" else output,
    }
    fields = [(name, str(value)) for name, value in asked.items() if value is not None]
    wanted = OlderForm.parse(fields).request()
    dialect = Dialect(
        read=lambda _upload: wanted,
        render=_render,
        tell=OpenAiTelling,
        file_field=_FILE_FIELD,
        raw=None if encode else _RAW,
    )
    return await serve(request, worker, dialect)


@router.post("/detect-language", summary="Which language is spoken", openapi_extra=_TAKES)
async def detect_language(
    request: Request, worker: AppWorker, *, encode: Encode = True
) -> DetectedBody:
    """Tell the likeliest language by the first half minute in which somebody speaks."""
    async with AsyncExitStack() as held:
        held.enter_context(worker.place())
        upload = await held.enter_async_context(
            receive_upload(request, request.app.state.upload_limits, file_field=_FILE_FIELD)
        )
        recording = _recording(upload, encode=encode)

        def job(engine: "WhisperxEngine", cancellation: Cancellation) -> tuple[str, float]:
            return engine.detect_language(recording, cancellation)

        code, confidence = await worker.run(job, gone=until_gone(request))
    return DetectedBody(
        detected_language=LANGUAGES[code][0], language_code=code, confidence=round(confidence, 4)
    )


def _recording(upload: Upload, *, encode: bool) -> Recording:
    return upload.recording if encode else replace(upload.recording, raw=_RAW)


def _render(result: Result, wanted: TranscriptionRequest) -> Response:
    if wanted.response_format == "json":
        body = asr_body(result.transcript, words=wanted.words)
        response = json_response(body.model_dump_json(exclude_none=True))
    else:
        response = render(result.transcript, wanted)
        if not isinstance(response, PlainTextResponse):
            response = PlainTextResponse(response.body)
    response.headers["Asr-Engine"] = "whisperx"
    return with_warnings(response, result.transcript)
