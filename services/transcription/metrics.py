"""What a service tells Prometheus."""

from fastapi import APIRouter, Request, Response
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from services.transcription.engine import Models
from services.transcription.errors import refusals
from services.transcription.worker import Worker

# Seconds of work per second of sound: a hundred times faster than real time, to slower.
_FACTOR_BUCKETS = (0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 0.75, 1, 2)
_SECONDS_BUCKETS = (0.01, 0.05, 0.1, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)

_METHODS = frozenset({"DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"})
INTERNAL_ERROR = 500

_NOW = {
    "speech_queue_places_taken": "Requests that are being received, wait, or run.",
    "speech_queue_places": "How many there may be; more are refused.",
    "speech_models_resident": "Models in memory.",
}


class Metrics:
    """The figures of one app; `render` gives them in Prometheus' text format."""

    media_type = CONTENT_TYPE_LATEST

    def __init__(self, worker: Worker[Models]) -> None:
        self._registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self._requests = Counter(
            "speech_requests",
            "Answered requests.",
            ("method", "route", "status"),
            registry=registry,
        )
        self._audio_seconds = Counter(
            "speech_audio_seconds",
            "Sound that was transcribed, in seconds.",
            ("model",),
            registry=registry,
        )
        self._work_seconds = Counter(
            "speech_work_seconds",
            "Time that models worked, in seconds.",
            ("model",),
            registry=registry,
        )
        self._factor = Histogram(
            "speech_realtime_factor",
            "Seconds of work per second of sound; less is faster.",
            ("model",),
            buckets=_FACTOR_BUCKETS,
            registry=registry,
        )
        self._waited = Histogram(
            "speech_queue_wait_seconds",
            "How long requests waited for their turn.",
            buckets=_SECONDS_BUCKETS,
            registry=registry,
        )
        self._loads = Counter(
            "speech_model_loads",
            "Models that were loaded.",
            ("model", "result"),
            registry=registry,
        )
        self._load_seconds = Histogram(
            "speech_model_load_seconds",
            "How long models took to load.",
            ("model",),
            buckets=_SECONDS_BUCKETS,
            registry=registry,
        )
        now = {
            "speech_queue_places_taken": lambda: worker.places_taken,
            "speech_queue_places": lambda: worker.places_max,
            "speech_models_resident": lambda: len(worker.engine.resident()) if worker.engine else 0,
        }
        for name, read in now.items():
            Gauge(name, _NOW[name], registry=registry).set_function(read)

    def request_answered(self, method: str, route: str, status: int) -> None:
        """Count an answer, by the route's pattern."""
        self._requests.labels(method, route, str(status)).inc()

    def transcribed(
        self, model: str, audio_seconds: float, *, waited_seconds: float, seconds: float
    ) -> None:
        """Count a finished job."""
        self._audio_seconds.labels(model).inc(audio_seconds)
        self._work_seconds.labels(model).inc(seconds)
        if audio_seconds > 0:  # of some samples, rounded, it is none
            self._factor.labels(model).observe(seconds / audio_seconds)
        self._waited.observe(waited_seconds)

    def model_loaded(self, model: str, seconds: float, error: Exception | None) -> None:
        """Count a load, in vain or not."""
        self._loads.labels(model, "error" if error else "ok").inc()
        self._load_seconds.labels(model).observe(seconds)

    def render(self) -> bytes:
        """Give all figures."""
        return generate_latest(self._registry)


router = APIRouter(tags=["metrics"])


@router.get(
    "/metrics",
    summary="Figures for Prometheus",
    response_class=Response,
    responses={
        200: {"content": {"text/plain": {"schema": {"type": "string"}}}},
        **refusals(401),
    },
)
async def get_metrics(request: Request) -> Response:
    """Give requests, seconds of sound and of work, the queue, and what was loaded."""
    figures: Metrics = request.app.state.metrics
    return Response(figures.render(), media_type=Metrics.media_type)


class CountRequests:
    """ASGI middleware that counts answers; `metrics` is set on the app's state."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass everything on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        answered = False

        def count(status: int) -> None:
            nonlocal answered
            answered = True
            route = scope.get("route")
            # A client may invent any number of paths and methods.
            pattern = route.path if isinstance(route, Route) else "unknown"
            method = scope["method"] if scope["method"] in _METHODS else "other"
            metrics: Metrics = scope["app"].state.metrics
            metrics.request_answered(method, pattern, status)

        async def watched(message: Message) -> None:
            if message["type"] == "http.response.start":
                count(message["status"])
            await send(message)

        try:
            await self._app(scope, receive, watched)
        except Exception:
            # A bug: it is answered further out.
            if not answered:
                count(INTERNAL_ERROR)
            raise
