"""Which models there are, and which of them are in memory: /v1/models and /api/ps."""

import asyncio
from typing import Literal

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field

from services.transcription.catalogue import ServedModel
from services.transcription.engine import Engine
from services.transcription.errors import Conflict, ModelNotFound, refusals
from services.transcription.fetching import fetch, find
from services.transcription.health import AppWorker
from services.transcription.uploads import until_gone
from services.transcription.worker import Cancellation

router = APIRouter(tags=["models"], responses=refusals(401))

OK, CREATED = 200, 201


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


@router.get("/v1/models", summary="What can be asked for")
async def list_models(request: Request) -> ModelsBody:
    """List what is here: the default model first, then those in the folder and in the cache."""
    models = await asyncio.to_thread(request.app.state.catalogue.models)
    return ModelsBody(data=[_body(model) for model in models])


@router.get("/v1/models/{name:path}", summary="One model", responses=refusals(400, 404))
async def get_model(request: Request, name: str) -> ModelBody:
    """Describe the model behind a name; names hold slashes."""
    return _body(await find(request, name))


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
    with worker.place():  # /busy tells of it
        model, fetched = await fetch(request, name)
    return _answer(model, CREATED if fetched else OK)


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
    model = await find(request, name)

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
    model = await find(request, name)
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
