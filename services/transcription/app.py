"""Builds the FastAPI app of a speech service around its engine."""

import asyncio
import logging
import os
import signal
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from dataclasses import dataclass, field
from types import FrameType

from fastapi import APIRouter, Depends, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from services.transcription import health, metrics, models, transcriptions
from services.transcription.catalogue import Catalogue
from services.transcription.docs import add_docs
from services.transcription.engine import Models
from services.transcription.errors import ApiError, InvalidKey, InvalidRequest, error_body
from services.transcription.form import TranscriptionForm, TranslationForm
from services.transcription.keys import Keys, require_key
from services.transcription.metrics import CountRequests, Metrics
from services.transcription.settings import ServiceSettings
from services.transcription.uploads import UploadLimits
from services.transcription.worker import Cancelled, Worker

log = logging.getLogger(__name__)

# The server has let all requests end before it shuts the app down, so only a load, or a job whose
# client has left, can still be in progress. Half of the 10 s after which Docker kills.
STOP_SECONDS_MAX = 5.0

# nginx's number for a client that left; nobody reads it but the access log.
CLIENT_GONE = 499

# The libraries beneath report to their makers unless told not to: onnxruntime since 1.29 sends
# names and hashes of models (microsoft/onnxruntime#27379). A self-hosted service tells nobody.
# Read when the libraries load; an operator's own value wins.
TELEMETRY_OFF = {
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "ORT_DISABLE_TELEMETRY": "1",
    "PYANNOTE_METRICS_ENABLED": "0",
}

_HEALTH_PATHS = ("/health", "/ready", "/busy")


@dataclass(frozen=True)
class Service:
    """What one service adds to the shared code."""

    title: str
    description: str
    version: str
    # Called in the worker's thread; may take minutes, may raise.
    load: Callable[[Metrics], Models]
    # The models that clients ask for by name, in OpenAI's API; None: there is none of that.
    catalogue: Catalogue | None = None
    transcription_form: type[TranscriptionForm] = TranscriptionForm
    translation_form: type[TranslationForm] = TranslationForm
    # Routes of its own; a key is asked for there too.
    routers: Sequence[APIRouter] = ()
    state: Mapping[str, object] = field(default_factory=dict)  # what they find in app.state
    # Work of its own that a stop would lose, and what ends that work.
    is_busy: Callable[[], bool] = lambda: False
    stop: Callable[[], None] = lambda: None
    # What runs as long as the app does; entered before, and left after, any request.
    around: Callable[[FastAPI], AbstractAsyncContextManager[None]] = lambda _app: nullcontext()
    # What /health tells beside the rest.
    health: Callable[[], Mapping[str, object]] = dict
    # What some fields of a form may hold, where that is more than usual.
    large_fields: Mapping[str, int] = field(default_factory=dict)  # bytes, by name


def end_process() -> None:
    """Let the server shut down: its supervisor sees the exit, and the log tells why."""
    os.kill(os.getpid(), signal.SIGTERM)


def create_app(
    service: Service,
    settings: ServiceSettings,
    *,
    on_failure: Callable[[], None] = end_process,
) -> FastAPI:
    """Give an app that begins to load the engine as soon as its server starts."""
    for name, value in TELEMETRY_OFF.items():
        os.environ.setdefault(name, value)
    worker: Worker[Models] = Worker(
        lambda: service.load(figures),
        warm_up=lambda engine: engine.warm_up(),
        waiting_max=settings.max_waiting,
        on_failure=on_failure,
    )
    figures = Metrics(worker)
    stopping = asyncio.Event()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        _tell_when_stopping(stopping, service.stop)
        worker.start()
        async with service.around(app):
            yield
            service.stop()
            asked_at = time.monotonic()
        # What ran around the requests may have waited for the same job.
        await worker.stop(max(0.0, STOP_SECONDS_MAX - (time.monotonic() - asked_at)))

    app = FastAPI(
        title=service.title,
        description=service.description,
        version=service.version,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
    )
    for key, found in service.state.items():
        setattr(app.state, key, found)
    app.state.worker = worker
    app.state.catalogue = service.catalogue
    app.state.is_busy = service.is_busy
    app.state.health = service.health
    app.state.metrics = figures
    app.state.keys = Keys(settings.api_key.get_secret_value())
    app.state.fetching = asyncio.Lock()
    app.state.stopping = stopping
    app.state.upload_limits = UploadLimits(
        bytes_max=int(settings.max_upload),
        silence_seconds_max=settings.request_timeout_seconds,
        large_fields=service.large_fields,
    )
    for router in (*service.routers, *_openai_routers(service), metrics.router):
        app.include_router(router, dependencies=[Depends(require_key)])
    app.include_router(health.router)
    add_docs(app)
    app.add_middleware(CountRequests)
    _allow_origins(app, settings.origins)
    _add_error_handlers(app)
    return app


def _openai_routers(service: Service) -> Sequence[APIRouter]:
    if service.catalogue is None:
        return ()
    audio = transcriptions.make_router(service.transcription_form, service.translation_form)
    return (audio, models.router)


def _allow_origins(app: FastAPI, origins: Sequence[str]) -> None:
    """Let pages use the service. Behind autostart, `cors:` in its map says so instead."""
    if origins:
        app.add_middleware(
            CORSMiddleware, allow_origins=origins, allow_methods=["*"], allow_headers=["*"]
        )


def _tell_when_stopping(stopping: asyncio.Event, stop: Callable[[], None]) -> None:
    """Set the event at SIGTERM, and call `stop` in the event loop.

    The server lets requests end first, whatever they wait for.
    """
    loop = asyncio.get_running_loop()
    servers_own = signal.getsignal(signal.SIGTERM)
    if not callable(servers_own):  # no server runs this app, but a test
        return

    def handle(number: int, frame: FrameType | None) -> None:
        loop.call_soon_threadsafe(stopping.set)
        loop.call_soon_threadsafe(stop)
        servers_own(number, frame)

    signal.signal(signal.SIGTERM, handle)


def configure_logging(level: str) -> None:
    """Write our lines to stderr, and keep the probes of orchestrators out of the access log."""
    logging.basicConfig(
        level=level.upper(), format="%(asctime)s %(levelname)s %(name)s %(message)s"
    )
    # Libraries tell every step at info. Those of HTTP also tell addresses, which may hold a token.
    for name in ("httpx", "httpcore", "httpx2", "httpcore2", "faster_whisper"):
        logging.getLogger(name).setLevel(logging.WARNING)
    # whisperX writes what was said into its warnings, and to stdout unless somebody else listens.
    whisperx = logging.getLogger("whisperx")
    whisperx.addHandler(logging.NullHandler())
    whisperx.setLevel(logging.ERROR)
    logging.getLogger("uvicorn.access").addFilter(_is_no_probe)


def _is_no_probe(record: logging.LogRecord) -> bool:
    # uvicorn's arguments: client, method, path, version, status.
    arguments = record.args
    if not isinstance(arguments, tuple) or not isinstance(
        path := next(iter(arguments[2:]), 0), str
    ):
        return True
    # A query may hold what is said in the recording.
    path = path.partition("?")[0]
    record.args = (*arguments[:2], path, *arguments[3:])
    return path not in _HEALTH_PATHS


def _add_error_handlers(app: FastAPI) -> None:
    app.add_exception_handler(ApiError, _answer_api_error)
    app.add_exception_handler(RequestValidationError, _answer_validation_error)
    app.add_exception_handler(HTTPException, _answer_http_exception)
    app.add_exception_handler(ClientDisconnect, _answer_nobody)
    app.add_exception_handler(Cancelled, _answer_nobody)
    app.add_exception_handler(Exception, _answer_bug)


async def _answer_api_error(_request: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError), error
    headers = {} if error.worth_retrying else {"x-should-retry": "false"}
    if error.retry_after_seconds is not None:
        headers["Retry-After"] = str(error.retry_after_seconds)
    if isinstance(error, InvalidKey):
        headers["WWW-Authenticate"] = "Bearer"
    body = error_body(error.message, error_type=error.type, code=error.code, param=error.param)
    return JSONResponse(body, status_code=error.status, headers=headers)


async def _answer_validation_error(request: Request, error: Exception) -> Response:
    # OpenAI answers 400 where FastAPI would say 422.
    assert isinstance(error, RequestValidationError), error
    first = error.errors()[0]
    param = str(first["loc"][-1])
    refusal = InvalidRequest(f"{param}: {first['msg']}", param=param, code="invalid_value")
    return await _answer_api_error(request, refusal)


async def _answer_http_exception(_request: Request, error: Exception) -> Response:
    """Give what the framework itself refuses (404, 405) in the shape of all refusals."""
    assert isinstance(error, HTTPException), error
    error_type = "invalid_request_error" if error.status_code < 500 else "server_error"  # noqa: PLR2004 -- where HTTP's server errors begin
    code = error.detail.lower().replace(" ", "_")
    body = error_body(error.detail, error_type=error_type, code=code)
    headers = {**(error.headers or {}), "x-should-retry": "false"}
    return JSONResponse(body, status_code=error.status_code, headers=headers)


async def _answer_nobody(_request: Request, _error: Exception) -> Response:
    return Response(status_code=CLIENT_GONE)


async def _answer_bug(_request: Request, _error: Exception) -> Response:
    # The server logs the traceback: Starlette raises the error again after this answer.
    body = error_body("internal error", error_type="server_error", code="internal_error")
    return JSONResponse(body, status_code=500, headers={"x-should-retry": "false"})
