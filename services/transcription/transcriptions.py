"""POST /v1/audio/transcriptions and GET /v1/models, as OpenAI's clients know them."""

import logging
import time
from typing import Any

from fastapi import APIRouter, Request, Response

from services.transcription.engine import Engine
from services.transcription.errors import ErrorBody
from services.transcription.form import TranscriptionRequest, form_schema, parse_form
from services.transcription.formats import render
from services.transcription.health import AppWorker
from services.transcription.models import ServedModel
from services.transcription.transcript import Transcript
from services.transcription.uploads import Upload, receive_upload
from services.transcription.worker import Cancellation

log = logging.getLogger(__name__)

router = APIRouter(prefix="/v1", responses={"4XX": {"model": ErrorBody}})

_OPENAPI: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {"multipart/form-data": {"schema": form_schema()}},
    }
}
_ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The words, in the format that was asked for.",
        "content": {
            "application/json": {
                "example": {
                    "text": "three one four one five nine",
                    "usage": {"type": "duration", "seconds": 3},
                }
            },
            "text/plain": {"example": "three one four one five nine\n"},
        },
    }
}


@router.post(
    "/audio/transcriptions",
    summary="Turn speech into text",
    tags=["audio"],
    openapi_extra=_OPENAPI,
    responses=_ANSWERS,
    response_class=Response,
)
async def create_transcription(request: Request, worker: AppWorker) -> Response:
    """Transcribe one recording, in its turn; a client that leaves gives up its turn."""
    state = request.app.state
    with worker.place():
        async with receive_upload(request, state.upload_limits) as upload:
            wanted = parse_form(upload.fields, state.model)
            transcript = await worker.run(_Job(upload, wanted), gone=_until_gone(request))
            return render(transcript, wanted.response_format)


@router.get("/models", summary="What can be asked for", tags=["models"])
async def list_models(request: Request) -> dict[str, Any]:
    """List the one model; its other names work too."""
    model: ServedModel = request.app.state.model
    return {"object": "list", "data": [model.describe()]}


@router.get("/models/{name:path}", summary="One model", tags=["models"])
async def get_model(request: Request, name: str) -> dict[str, Any]:
    """Describe the model behind a name; names hold slashes."""
    model: ServedModel = request.app.state.model
    model.check(name)
    return model.describe()


class _Job:
    """What the worker's thread does for one request."""

    def __init__(self, upload: Upload, wanted: TranscriptionRequest) -> None:
        self._upload = upload
        self._wanted = wanted
        self._arrived = time.monotonic()

    def __call__(self, engine: Engine, cancellation: Cancellation) -> Transcript:
        began = time.monotonic()
        transcript = engine.transcribe(self._upload.file, self._wanted, cancellation)
        log.info(
            "transcribed audio_seconds=%.2f bytes=%d language=%s waited_seconds=%.2f seconds=%.2f",
            transcript.duration_seconds,
            self._upload.file_bytes,
            transcript.language,
            began - self._arrived,
            time.monotonic() - began,
        )
        return transcript


async def _until_gone(request: Request) -> None:
    """Return when the client has left; the body has been received before."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
