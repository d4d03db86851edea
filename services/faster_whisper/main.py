"""The app: `uvicorn services.faster_whisper.main:app`, from the folder that holds services/."""

import os
from importlib.metadata import version

from fastapi import FastAPI

from services.faster_whisper.settings import Settings, is_folder, served_model
from services.transcription.app import Service, configure_logging
from services.transcription.app import create_app as create_speech_app
from services.transcription.engine import Engine

DESCRIPTION = """\
Turns speech into text with [faster-whisper](https://github.com/SYSTRAN/faster-whisper).
OpenAI's clients work unchanged: set their `base_url` to this host and `/v1`.
"""


def create_app(settings: Settings | None = None) -> FastAPI:
    """Give the app; without settings, as the environment says."""
    settings = settings or Settings.from_environment()
    configure_logging(settings.log_level)
    service = Service(
        title="Whisper API (faster-whisper)",
        description=DESCRIPTION,
        version=version("faster-whisper"),
        model=served_model(settings.whisper),
        load=lambda: load_engine(settings),
    )
    return create_speech_app(service, settings)


def load_engine(settings: Settings) -> Engine:
    """Load the model; called in the worker's thread."""
    if is_folder(settings.whisper.model):
        # Read by the libraries when they are imported: what is local needs no network.
        os.environ["HF_HUB_OFFLINE"] = "1"
    # Imported here, so that /health answers while the libraries load.
    from services.faster_whisper.engine import WhisperEngine  # noqa: PLC0415 -- see above

    return WhisperEngine(settings.whisper, audio_seconds_max=settings.max_audio_seconds)


app = create_app()
