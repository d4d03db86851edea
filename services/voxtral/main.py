"""The app, and the engine: `python -m services.voxtral`, from the folder that holds services/."""

import os
import time
from collections.abc import Callable
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

from fastapi import FastAPI

from services.diarization.provision import Provision
from services.transcription.app import Service, configure_logging, end_process
from services.transcription.app import create_app as create_speech_app
from services.transcription.downloads import Downloads
from services.transcription.memory import use_one_heap
from services.transcription.metrics import Metrics
from services.transcription.uploads import Bodies
from services.voxtral import routes
from services.voxtral.database import StoreError
from services.voxtral.handler import Handler
from services.voxtral.model import Model
from services.voxtral.queue import Queue
from services.voxtral.settings import Settings
from services.voxtral.store import Store

if TYPE_CHECKING:  # it is imported in the worker's thread
    from services.voxtral.engine import VoxtralEngine

MakeEngine = Callable[[Settings, Downloads, Metrics], "VoxtralEngine"]

# A dozen of the largest, each of which takes as much again while it is read.
_BODIES_BYTES_MAX = 256 * 1024 * 1024

DESCRIPTION = """\
Transcript, summary, sentiment and speakers by
[Voxtral](https://huggingface.co/mistralai/Voxtral-Mini-3B-2507), behind the contract of
[RunPod](https://docs.runpod.io/serverless/endpoints/send-requests)'s endpoints: its clients work
unchanged. `POST /transcribe` does the same for a file.
"""


def create_app(
    settings: Settings | None = None, make_engine: "MakeEngine | None" = None
) -> FastAPI:
    """Give the app; without settings, as the environment says.

    Raises SystemExit with one line where the jobs cannot be kept.
    """
    settings = settings or Settings.from_environment()
    configure_logging(log_level(settings))
    use_one_heap()
    try:
        store = Store(settings.voxtral_state, waiting_max=settings.max_queue, now=time.time())
    except StoreError as error:
        raise SystemExit(str(error)) from None
    downloads = Downloads()

    def stop() -> None:
        app.state.queue.stop()
        downloads.stop()

    service = Service(
        title="Voxtral API (transcript, summary, sentiment)",
        description=DESCRIPTION,
        version=_version(),
        load=partial(make_engine or load_engine, settings, downloads),
        routers=(routes.router,),
        state={
            "endpoint_id": settings.runpod_endpoint_id,
            "with_summary_default": settings.with_summary_default,
            "bodies": Bodies(_BODIES_BYTES_MAX),
        },
        is_busy=lambda: app.state.queue.busy or downloads.busy,
        stop=stop,
        around=lambda app: app.state.queue.run(),
        health=lambda: app.state.queue.health(),  # noqa: PLW0108 -- there is no queue yet
    )
    app = create_speech_app(service, settings)
    # After its end, autostart starts it again with the next request.
    app.state.handler = Handler(
        settings, app.state.worker, app.state.metrics, on_device_lost=end_process
    )
    app.state.queue = Queue(settings, store, app.state.handler)
    return app


def load_engine(
    settings: Settings, downloads: Downloads, metrics: Metrics | None = None
) -> "VoxtralEngine":
    """Give the engine, without a model yet: the first job that needs one loads it.

    So a ping, and a job that is only to be put in the line, need not wait for it. To be called in
    the worker's thread.
    """
    # See services/whisperx/main.py.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from services.voxtral.engine import VoxtralEngine  # noqa: PLC0415 -- in the worker's thread

    return VoxtralEngine(
        settings,
        Provision(settings, downloads, may_fetch=True),
        _model_loader(settings, downloads),
        **({} if metrics is None else {"on_load": metrics.model_loaded}),
    )


def _model_loader(
    settings: Settings, downloads: Downloads
) -> Callable[[Callable[[], None]], Model]:
    """Give what loads the model; it is given what may raise to give up."""
    if settings.voxtral_engine == "vllm":
        from services.voxtral.on_vllm import Loader  # noqa: PLC0415 -- only if it is used

        return Loader(settings)

    def load(check: Callable[[], None]) -> Model:
        from services.voxtral import on_transformers  # noqa: PLC0415 -- seconds, for torch

        return on_transformers.load(settings, check, downloads)

    return load


def log_level(settings: Settings) -> str:
    """Give how much is logged; RunPod's own variable asks for all of it."""
    return "debug" if settings.runpod_debug else settings.log_level


def _version() -> str:
    try:
        return version("transformers")
    except PackageNotFoundError:  # vLLM's client needs none
        return "0"
