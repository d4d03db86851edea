"""On RunPod's serverless platform: the same jobs, taken from its own line by its own SDK."""

import asyncio
import logging
import os
import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from services.transcription.app import TELEMETRY_OFF, configure_logging, end_process
from services.transcription.downloads import Downloads
from services.transcription.errors import ApiError
from services.transcription.memory import use_one_heap
from services.transcription.transcript import Progress
from services.transcription.worker import Worker
from services.voxtral.answers import SpokenSegment
from services.voxtral.handler import Handler
from services.voxtral.main import load_engine, log_level
from services.voxtral.request import parse_input
from services.voxtral.settings import Settings

if TYPE_CHECKING:  # it is imported in the worker's thread
    from services.voxtral.engine import VoxtralEngine

log = logging.getLogger(__name__)

# Each update is a thread and a connection of the SDK's.
_UPDATE_SECONDS = 2.0
_WORN_OUT = ("device_lost", "out_of_memory")


def serve(settings: Settings | None = None) -> None:
    """Work for RunPod until it says stop; without settings, as the environment says."""
    settings = settings or Settings.from_environment()
    configure_logging(log_level(settings))
    for name, value in TELEMETRY_OFF.items():
        os.environ.setdefault(name, value)
    # Unless told otherwise, the SDK logs what was said, too.
    level = os.environ.get("RUNPOD_DEBUG_LEVEL", "INFO")
    os.environ.setdefault("RUNPOD_LOG_LEVEL", level)
    use_one_heap()
    import runpod  # noqa: PLC0415 -- it reads its settings, and takes a second

    worker: Worker[VoxtralEngine] = Worker(
        partial(load_engine, settings, Downloads()),
        warm_up=lambda engine: engine.warm_up(),
        waiting_max=settings.max_waiting,
        on_failure=end_process,
    )
    handle = make_handler(Handler(settings, worker), worker, runpod.serverless.progress_update)
    runpod.serverless.start({"handler": handle})


def make_handler(
    handler: Handler,
    worker: "Worker[VoxtralEngine]",
    update: Callable[[dict[str, Any], object], None],
) -> Callable[[dict[str, Any]], Any]:
    """Give RunPod's handler; `update` tells a job's progress."""
    started = False

    async def handle(job: dict[str, Any]) -> dict[str, Any]:
        """Do one job; `error` in the answer makes it FAILED."""
        nonlocal started
        if not started:  # in the loop that the SDK runs
            worker.start()
            started = True
        try:
            given = parse_input(job.get("input"))
            if given.ping:
                return handler.pong()
            gone, report = asyncio.Event(), _reporter(job, update)
            async with handler.recording(given, gone) as recording:
                answer = await handler.work(recording, handler.wanted(given), gone, report)
            return answer.model_dump(mode="json")
        except ApiError as error:
            log.warning("job failed: %s", error.code)
            # What is left is not worth much: the next job gets a new worker.
            again = {"refresh_worker": True} if error.code in _WORN_OUT else {}
            return {"error": error.message, **again}
        except Exception:
            log.exception("job failed")
            return {"error": "internal error"}

    return handle


def _reporter(
    job: dict[str, Any], update: Callable[[dict[str, Any], object], None]
) -> Callable[[Progress | SpokenSegment], None]:
    # Not at once: an update has a connection of its own, and may come after a quick result.
    told_at = time.monotonic()

    def report(reported: Progress | SpokenSegment) -> None:
        nonlocal told_at
        if isinstance(reported, Progress) and time.monotonic() - told_at >= _UPDATE_SECONDS:
            told_at = time.monotonic()
            update(job, {"phase": reported.phase, "percent": reported.percent})

    return report
