"""RunPod's contract for one endpoint, as its own clients speak it, and POST /transcribe.

Each route of the contract is at its own name, too, for people with curl: /run is /v2/ANY/run.
"""

import asyncio
import time
from contextlib import AsyncExitStack
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Query, Request
from fastapi.responses import JSONResponse

from services.transcription.errors import ModelNotFound, refusals
from services.transcription.uploads import receive_json, receive_upload, until_gone
from services.transcription.worker import Worker
from services.voxtral.answers import (
    Answer,
    HealthBody,
    PurgedBody,
    QueuedBody,
    StatusBody,
    StreamBody,
)
from services.voxtral.form import UploadForm
from services.voxtral.handler import Handler
from services.voxtral.jobs import (
    RUN_BYTES_MAX,
    RUNSYNC_BYTES_MAX,
    TTL_MS_MAX,
    WAIT_MS_DEFAULT,
    WAIT_MS_MAX,
    WAIT_MS_MIN,
    Job,
    JobRequest,
    Status,
)
from services.voxtral.queue import Queue

_SAMPLE = {
    "input": {
        "audio_url": "https://example.com/audio.wav",
        "task": "transcribe_diarized",
        "language": "fr",
        "summary": True,
        "sentiment": True,
    }
}
_SUBMITTED: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {"schema": JobRequest.schema_of_body(), "example": _SAMPLE}
        },
    }
}
_ACCEPTING = refusals(400, 401, 408, 413, 415, 429, 503)
_JOB = refusals(400, 401, 404, 503)

JobId = Annotated[str, Path(description="As /run or /runsync gave it.", max_length=100)]

_jobs = APIRouter(tags=["jobs"])


def get_queue(request: Request) -> Queue:
    """Give the app's line of jobs to a route."""
    queue = request.app.state.queue
    assert isinstance(queue, Queue), queue
    return queue


AppQueue = Annotated[Queue, Depends(get_queue)]


@_jobs.post(
    "/run",
    summary="Accept a job",
    openapi_extra=_SUBMITTED,
    responses=_ACCEPTING | {200: {"model": QueuedBody}},
)
async def run(request: Request, queue: AppQueue) -> JSONResponse:
    """Accept a job of at most 10 MiB; its result is kept for half an hour after it has ended."""
    job = await _submit(request, queue, RUN_BYTES_MAX, synchronous=False)
    return JSONResponse({"id": job.id, "status": job.status})


@_jobs.post(
    "/runsync",
    summary="Accept a job, and wait for its result",
    openapi_extra=_SUBMITTED,
    responses=_ACCEPTING | {200: {"model": StatusBody}},
)
async def runsync(
    request: Request,
    queue: AppQueue,
    wait: Annotated[
        int, Query(ge=WAIT_MS_MIN, le=WAIT_MS_MAX, description="Milliseconds.")
    ] = WAIT_MS_DEFAULT,
) -> JSONResponse:
    """Accept a job of at most 20 MiB; after `wait`, /status tells. Its result is kept a minute."""
    job = await _submit(request, queue, RUNSYNC_BYTES_MAX, synchronous=True)
    job = await queue.wait(job.id, wait / 1000)
    return await _status_of(queue, job)


@_jobs.post("/status/{job_id}", include_in_schema=False)
@_jobs.get(
    "/status/{job_id}", summary="Where a job stands", responses=_JOB | {200: {"model": StatusBody}}
)
async def status(
    job_id: JobId,
    queue: AppQueue,
    ttl: Annotated[
        int | None,
        Query(ge=1, le=TTL_MS_MAX, description="Forget it so many milliseconds from now."),
    ] = None,
) -> JSONResponse:
    """Give the state, and the result once there is one."""
    job = await queue.find(job_id)
    if ttl is not None:
        await queue.keep_for(job.id, ttl / 1000)
    return await _status_of(queue, job)


@_jobs.post("/stream/{job_id}", include_in_schema=False)
@_jobs.get(
    "/stream/{job_id}",
    summary="The passages that are new",
    responses=_JOB | {200: {"model": StreamBody}},
)
async def stream(job_id: JobId, queue: AppQueue) -> JSONResponse:
    """Give each passage once, as soon as it is certain; 404 for a job that was cancelled."""
    job, chunks = await queue.stream(job_id)
    if job.status is Status.CANCELLED and not chunks:
        # RunPod's own client knows no end of a cancelled stream: it would ask for ever.
        raise ModelNotFound(
            "id: the job was cancelled, there is no more of it", param="id", code="job_cancelled"
        )
    return JSONResponse({"status": job.status, "stream": [{"output": each} for each in chunks]})


@_jobs.post("/cancel/{job_id}", summary="End a job", responses=_JOB | {200: {"model": QueuedBody}})
async def cancel(job_id: JobId, queue: AppQueue) -> JSONResponse:
    """End a job that waits or runs; one that has ended stays as it is."""
    job = await queue.cancel(job_id)
    return JSONResponse({"id": job.id, "status": job.status})


@_jobs.post(
    "/retry/{job_id}",
    summary="Try a job again that failed",
    responses=_JOB | {200: {"model": QueuedBody}},
)
async def retry(job_id: JobId, queue: AppQueue) -> JSONResponse:
    """Put a FAILED or TIMED_OUT job in line again, under the same id."""
    job = await queue.retry(job_id)
    return JSONResponse({"id": job.id, "status": job.status})


@_jobs.post(
    "/purge-queue",
    summary="Cancel the jobs that wait",
    responses=refusals(401, 503) | {200: {"model": PurgedBody}},
)
async def purge_queue(queue: AppQueue) -> JSONResponse:
    """Take all jobs out of the line; the one that runs goes on."""
    return JSONResponse({"removed": await queue.purge(), "status": "completed"})


_endpoint = APIRouter(tags=["jobs"])


@_endpoint.get("/health", summary="RunPod's figures", responses={200: {"model": HealthBody}})
async def health(queue: AppQueue) -> JSONResponse:
    """Count jobs and workers."""
    return JSONResponse(queue.health())


async def _check_endpoint(
    request: Request, endpoint_id: Annotated[str, Path(description="Any, or the operator's.")]
) -> None:
    served = request.app.state.endpoint_id
    if served and endpoint_id != served:
        raise ModelNotFound(
            f"endpoint: there is no {endpoint_id[:100]!r} here",
            param="endpoint_id",
            code="endpoint_not_found",
        )


router = APIRouter()
router.include_router(_jobs)
for _routes in (_jobs, _endpoint):
    router.include_router(
        _routes,
        prefix="/v2/{endpoint_id}",
        dependencies=[Depends(_check_endpoint)],
        responses=refusals(401, 404),
    )


@router.post(
    "/transcribe",
    tags=["audio"],
    summary="The same for a file, at once",
    openapi_extra=UploadForm.described(),
    responses=refusals(400, 401, 408, 413, 415, 429, 500, 502, 503) | {200: {"model": Answer}},
)
async def transcribe(request: Request) -> JSONResponse:
    """Answer what /runsync would, for an upload of any size; who leaves gives it up."""
    worker: Worker[Any] = request.app.state.worker
    handler: Handler = request.app.state.handler
    async with AsyncExitStack() as held:
        held.enter_context(worker.place())
        upload = await held.enter_async_context(
            receive_upload(request, request.app.state.upload_limits)
        )
        wanted = UploadForm.parse(dict(upload.fields)).wanted(
            with_summary_default=request.app.state.with_summary_default
        )
        gone = asyncio.Event()
        watch = asyncio.ensure_future(until_gone(request))
        watch.add_done_callback(lambda _watch: gone.set())
        try:
            arrived = time.monotonic()
            await handler.check(upload.recording)
            async with handler.turn(gone):
                answer = await handler.work(upload.recording, wanted, gone, arrived=arrived)
        finally:
            watch.cancel()
    return JSONResponse(answer.model_dump(mode="json"))


async def _submit(request: Request, queue: Queue, bytes_max: int, *, synchronous: bool) -> Job:
    seconds = request.app.state.upload_limits.silence_seconds_max
    with request.app.state.bodies.hold() as take:
        given = await receive_json(
            request, bytes_max=bytes_max, silence_seconds_max=seconds, take=take
        )
        return await queue.submit(JobRequest.parse(given), synchronous=synchronous)


async def _status_of(queue: Queue, job: Job) -> JSONResponse:
    # In a thread: a transcript of hours is long.
    return await asyncio.to_thread(lambda: JSONResponse(queue.status_of(job)))
