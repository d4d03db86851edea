"""Which models there are, and which of them are in memory: /v1/models and /api/ps."""

import asyncio
from collections.abc import Coroutine
from typing import Any, Literal

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field

from services.transcription.catalogue import Catalogue, ServedModel
from services.transcription.engine import Engine
from services.transcription.errors import (
    Conflict,
    FetchFailed,
    ModelNotFound,
    NotReady,
    refusals,
)
from services.transcription.health import AppWorker
from services.transcription.uploads import until_any, until_gone
from services.transcription.worker import Cancellation, Cancelled

router = APIRouter(tags=["models"], responses=refusals(401))

OK, CREATED = 200, 201
# The largest model, 3 GB, over a line of 4 Mbit/s.
FETCH_SECONDS_MAX = 7200


class ModelBody(BaseModel):
    """A model, as OpenAI's clients know it."""

    id: str
    object: Literal["model"] = "model"
    created: int = Field(description="When it came to be here, in seconds since 1970.")
    owned_by: str


class ModelsBody(BaseModel):
    """Several of them."""

    object: Literal["list"] = "list"
    data: list[ModelBody]


class ResidentBody(BaseModel):
    """What is in memory."""

    models: list[str] = Field(description="The longest unused first: it would go first.")


class MessageBody(BaseModel):
    """What was done."""

    message: str


def _body(model: ServedModel) -> ModelBody:
    return ModelBody(id=model.id, created=model.created, owned_by=model.owner)


def _answer(model: ServedModel, status: int) -> Response:
    return JSONResponse(_body(model).model_dump(), status_code=status)


async def _find(request: Request, name: str) -> ServedModel:
    catalogue: Catalogue = request.app.state.catalogue
    # In a thread: it reads folders, on a disk that may sleep.
    return await asyncio.to_thread(catalogue.find, name)


@router.get("/v1/models", summary="What can be asked for")
async def list_models(request: Request) -> ModelsBody:
    """List what is here: the default model first, then those in the folder and in the cache."""
    models = await asyncio.to_thread(request.app.state.catalogue.models)
    return ModelsBody(data=[_body(model) for model in models])


@router.get("/v1/models/{name:path}", summary="One model", responses=refusals(400, 404))
async def get_model(request: Request, name: str) -> ModelBody:
    """Describe the model behind a name; names hold slashes."""
    return _body(await _find(request, name))


@router.post(
    "/v1/models/{name:path}",
    summary="Download a model",
    responses={
        200: {"model": ModelBody, "description": "It was here already."},
        201: {"model": ModelBody, "description": "It is here now."},
        **refusals(400, 404, 409, 429, 502, 503),
    },
)
async def fetch_model(request: Request, name: str, worker: AppWorker) -> Response:
    """Download a model unless it is here; leave, and the download ends. It goes on another time."""
    try:
        return _answer(await _find(request, name), OK)
    except ModelNotFound:
        catalogue: Catalogue = request.app.state.catalogue
        if not catalogue.may_fetch(name):
            raise
    fetching: asyncio.Lock = request.app.state.fetching
    if fetching.locked():
        raise Conflict("another model is being downloaded, try again later", code="fetching")
    stopping: asyncio.Event = request.app.state.stopping
    with worker.place():  # /busy tells of it
        async with fetching:
            unwanted = until_any(until_gone(request), stopping.wait())
            wanted = await _run_fetch(catalogue.fetch_command(name), unwanted=unwanted)
    if not wanted:
        if stopping.is_set():
            raise NotReady("the service stops", code="stopping", retry_after_seconds=5)
        raise Cancelled
    return _answer(await _find(request, name), CREATED)


@router.get("/api/ps", summary="What is in memory")
async def list_resident(worker: AppWorker) -> ResidentBody:
    """List the models in memory."""
    return ResidentBody(models=list(worker.engine.resident()) if worker.engine else [])


@router.post(
    "/api/ps/{name:path}",
    summary="Load a model",
    status_code=CREATED,
    responses=refusals(400, 404, 409, 429, 500, 503),
)
async def load_model(request: Request, name: str, worker: AppWorker) -> MessageBody:
    """Load a model in its turn; those that were longest unused make room for it."""
    model = await _find(request, name)

    def job(engine: Engine, _: Cancellation) -> bool:
        return engine.load(model.id)

    with worker.place():
        loaded = await worker.run(job, gone=until_gone(request), model=model.id)
    if not loaded:
        raise Conflict(f"the model {model.id!r} is loaded already", code="model_loaded")
    return MessageBody(message=f"the model {model.id!r} is loaded")


@router.delete(
    "/api/ps/{name:path}",
    summary="Unload a model",
    responses=refusals(400, 404, 409, 429, 503),
)
async def unload_model(request: Request, name: str, worker: AppWorker) -> MessageBody:
    """Remove a model from memory unless it is in use; the next request loads it again."""
    model = await _find(request, name)
    if worker.uses(model.id):
        raise Conflict(f"the model {model.id!r} is in use, try again later", code="model_in_use")

    def job(engine: Engine, _: Cancellation) -> bool:
        return engine.unload(model.id)

    with worker.place():
        removed = await worker.run(job, gone=until_gone(request))
    if not removed:
        raise ModelNotFound(
            f"the model {model.id!r} is not loaded", param="model", code="model_not_loaded"
        )
    return MessageBody(message=f"the model {model.id!r} is unloaded")


async def _run_fetch(command: list[str], *, unwanted: Coroutine[Any, Any, None]) -> bool:
    """Download in a process of its own, which can be ended and takes its memory along.

    Gives False, once the process has ended, if `unwanted` returned before it had.
    """
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE
    )
    told = asyncio.ensure_future(process.communicate())
    watch = asyncio.ensure_future(unwanted)
    try:
        async with asyncio.timeout(FETCH_SECONDS_MAX):
            await asyncio.wait({told, watch}, return_when=asyncio.FIRST_COMPLETED)
    except TimeoutError:
        raise FetchFailed(
            f"the download took longer than {FETCH_SECONDS_MAX} s", code="fetch_failed"
        ) from None
    finally:
        watch.cancel()
        if process.returncode is None:
            process.kill()
        _, complaint = await told
    if watch.done() and not watch.cancelled():
        return False
    if process.returncode:
        lines = complaint.decode(errors="replace").strip().splitlines() or ["no reason was told"]
        raise FetchFailed(lines[-1][:500], code="fetch_failed")
    return True
