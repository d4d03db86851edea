"""POST /transcribe, GET /status and POST /v1/audio/diarization."""

import asyncio
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

from fastapi import APIRouter, Request, Response
from fastapi.responses import PlainTextResponse

from services.diarization.provision import Provision
from services.faster_whisper.library import short_name
from services.transcription.answers import DiarizedTranscriptionBody, VerboseTranscriptionBody
from services.transcription.errors import ModelNotFound, refusals
from services.transcription.events import Result
from services.transcription.health import AppWorker
from services.transcription.rendering import (
    json_response,
    render,
    told_turns,
    with_warnings,
)
from services.transcription.request import TranscriptionRequest
from services.transcription.serving import Dialect, serve
from services.transcription.subtitles import write_rttm
from services.transcription.transcript import Progress, Segment, Transcript
from services.transcription.transcriptions import answers, takes
from services.transcription.uploads import receive_upload, until_gone
from services.transcription.worker import Cancellation, Failed, Loading, Ready
from services.whisperx.answers import (
    DiarizationBody,
    DoneEvent,
    ProgressEvent,
    SpeakersStatus,
    StatusBody,
    SuperBody,
    diarization_body,
    super_body,
)
from services.whisperx.form import DiarizationForm, OlderForm

if TYPE_CHECKING:  # it takes seconds to import, in the worker's thread
    from services.whisperx.engine import WhisperxEngine


router = APIRouter(responses=refusals(401))

_EVENTS = (
    'data: {"type":"progress","phase":"transcribe","percent":40.0}\n\n'
    'data: {"type":"done","transcript":"three one four one five nine", …}\n\n'
)
_UPLOADING = refusals(400, 404, 408, 413, 415, 429, 500, 502, 503)


@router.post(
    "/transcribe",
    tags=["audio"],
    summary="Who said what, and when",
    openapi_extra=takes(OlderForm),
    responses=_UPLOADING
    | answers(SuperBody | VerboseTranscriptionBody | DiarizedTranscriptionBody, events=_EVENTS),
    response_class=Response,
)
async def transcribe(request: Request, worker: AppWorker) -> Response:
    """Answer the clients of three older services alike, in turn; who leaves gives it up."""
    dialect = Dialect(
        read=lambda upload: OlderForm.parse(upload.fields).request(),
        render=_render,
        tell=_Telling,
    )
    return await serve(request, worker, dialect)


@router.post(
    "/v1/audio/diarization",
    tags=["audio"],
    summary="Who speaks when",
    openapi_extra=takes(DiarizationForm),
    responses=_UPLOADING
    | {
        200: {
            "model": DiarizationBody,
            "content": {"text/plain": {"schema": {"type": "string"}}},
        }
    },
    response_class=Response,
)
async def diarize(request: Request, worker: AppWorker) -> Response:
    """Tell speakers apart, without their words."""
    async with AsyncExitStack() as held:
        held.enter_context(worker.place())
        upload = await held.enter_async_context(
            receive_upload(request, request.app.state.upload_limits)
        )
        form = DiarizationForm.parse(upload.fields)
        tuning = form.tuning()
        provision: Provision = request.app.state.provision
        if form.model not in ("", provision.source.name):
            raise ModelNotFound(
                f"the model {form.model[:100]!r} is not here; use {provision.source.name!r}",
                param="model",
                code="model_not_found",
            )

        def job(engine: "WhisperxEngine", cancellation: Cancellation) -> Transcript:
            return engine.diarize(upload.recording, tuning, cancellation)

        transcript = await worker.run(job, gone=until_gone(request))
    turns = told_turns(transcript)
    if form.response_format == "rttm":
        return with_warnings(PlainTextResponse(write_rttm(turns)), transcript)
    body = diarization_body(transcript, turns)
    return with_warnings(json_response(body.model_dump_json(exclude_none=True)), transcript)


@router.get("/status", tags=["health"], summary="What can be done, and what is in memory")
async def status(request: Request, worker: AppWorker) -> StatusBody:
    """Tell the device, what is in memory, whether speakers can be told apart, or why not."""
    match worker.state:
        case Loading():
            told = "loading"
        case Ready():
            told = "ready"
        case Failed():
            told = "failed"
    provision: Provision = request.app.state.provision
    engine: WhisperxEngine | None = worker.engine
    # In a thread: it reads folders, on a disk that may sleep.
    speakers = await asyncio.to_thread(provision.status)
    return StatusBody(
        status=told,
        device=engine.device if engine else None,
        default_model=request.app.state.catalogue.default.id,
        models=list(engine.resident()) if engine else [],
        aligners=engine.aligners() if engine else [],
        diarization=SpeakersStatus(
            available=speakers.available, model=provision.source.name, reason=speakers.reason
        ),
    )


def _render(result: Result, wanted: TranscriptionRequest) -> Response:
    if wanted.response_format != "json":
        return render(result.transcript, wanted)
    body = super_body(result, wanted, short_name(wanted.model))
    return with_warnings(json_response(_dump(body, wanted)), result.transcript)


class _Telling:
    """What POST /transcribe says of its work: how far it is, then the whole answer."""

    def __init__(self, wanted: TranscriptionRequest) -> None:
        self._wanted = wanted

    def progress(self, progress: Progress) -> str:
        """Give the phase and the per cent."""
        return ProgressEvent(phase=progress.phase, percent=progress.percent).model_dump_json()

    def segment(self, segment: Segment) -> None:
        """Say nothing: its times and speakers are not known yet."""

    def done(self, transcript: Transcript, seconds: float) -> list[str]:
        """Give the whole answer."""
        body = super_body(Result(transcript, seconds), self._wanted, short_name(self._wanted.model))
        return [_dump(DoneEvent(**dict(body)), self._wanted)]


def _dump(body: SuperBody, wanted: TranscriptionRequest) -> str:
    # `speaker` is always there, be it null: clients read it unasked.
    return body.model_dump_json(
        exclude=None if wanted.words else {"segments": {"__all__": {"words"}}}
    )
