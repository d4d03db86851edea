"""Is the process alive, can it work, is it at work: for orchestrators, so without a key."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request

from services.transcription.errors import NotReady, refusals
from services.transcription.worker import Failed, Loading, Ready, Worker

router = APIRouter(tags=["health"])


def get_worker(request: Request) -> Worker[Any]:
    """Give the app's worker to a route."""
    worker = request.app.state.worker
    assert isinstance(worker, Worker), worker
    return worker


AppWorker = Annotated[Worker[Any], Depends(get_worker)]


@router.get("/health", summary="The process is alive")
async def health(request: Request, worker: AppWorker) -> dict[str, Any]:
    """Answer, whatever the models do, and tell whether any is in memory."""
    resident = worker.engine is not None and bool(worker.engine.resident())
    return {"status": "ok", "model_resident": resident, **request.app.state.health()}


@router.get(
    "/ready",
    summary="The model is resident",
    responses=refusals(503),
)
async def ready(worker: AppWorker) -> dict[str, bool]:
    """Answer 200 when a request can be worked on, else 503."""
    match worker.state:
        case Ready():
            return {"ready": True}
        case Loading():
            raise NotReady("the model is loading", code="loading", retry_after_seconds=1)
        case Failed():
            raise NotReady("the model could not be loaded", code="load_failed")


@router.get("/busy", summary="A request waits or runs")
async def busy(request: Request, worker: AppWorker) -> dict[str, bool]:
    """Tell whether stopping now would lose work."""
    return {"busy": worker.busy or request.app.state.is_busy()}
