"""The app: `uvicorn services.faster_whisper.main:app`, from the folder that holds services/."""

from importlib.metadata import version

from fastapi import FastAPI

from services.faster_whisper.library import Library
from services.faster_whisper.settings import Settings
from services.transcription.app import Service, configure_logging
from services.transcription.app import create_app as create_speech_app
from services.transcription.engine import Engine
from services.transcription.metrics import Metrics

DESCRIPTION = """\
Turns speech into text with [faster-whisper](https://github.com/SYSTRAN/faster-whisper).
OpenAI's clients work unchanged: set their `base_url` to this host and `/v1`.
"""


def create_app(settings: Settings | None = None) -> FastAPI:
    """Give the app; without settings, as the environment says."""
    settings = settings or Settings.from_environment()
    configure_logging(settings.log_level)
    library = Library(settings.whisper)
    service = Service(
        title="Whisper API (faster-whisper)",
        description=DESCRIPTION,
        version=version("faster-whisper"),
        catalogue=library.catalogue(),
        load=lambda metrics: load_engine(settings, library, metrics),
    )
    return create_speech_app(service, settings)


def load_engine(settings: Settings, library: Library, metrics: Metrics) -> Engine:
    """Load the default model; called in the worker's thread."""
    # Imported here, so that /health answers while the libraries load.
    from services.faster_whisper.engine import WhisperEngine  # noqa: PLC0415 -- see above

    library.fetch_default()
    return WhisperEngine(
        settings.whisper,
        library,
        audio_seconds_max=settings.max_audio_seconds,
        on_load=metrics.model_loaded,
    )


app = create_app()
