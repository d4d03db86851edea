"""The app: `uvicorn services.whisperx.main:app`, from the folder that holds services/."""

import logging
import os
import time
from importlib.metadata import version

from fastapi import FastAPI

from services.diarization.provision import Provision
from services.faster_whisper.library import Library
from services.transcription.app import Service, configure_logging
from services.transcription.app import create_app as create_speech_app
from services.transcription.downloads import Downloads
from services.transcription.engine import Engine
from services.transcription.memory import use_one_heap
from services.transcription.metrics import Metrics
from services.whisperx import asr, routes
from services.whisperx.form import (
    REFERENCE_BYTES_MAX,
    WhisperxForm,
    WhisperxTranslationForm,
)
from services.whisperx.settings import Settings

log = logging.getLogger(__name__)

DESCRIPTION = """\
Tells who says what, and when, with [whisperX](https://github.com/m-bain/whisperX) and
[pyannote.audio](https://github.com/pyannote/pyannote-audio). `POST /transcribe` answers the
clients of three older services; OpenAI's and those of whisper-asr-webservice work unchanged.
"""


def create_app(settings: Settings | None = None) -> FastAPI:
    """Give the app; without settings, as the environment says."""
    settings = settings or Settings.from_environment()
    configure_logging(settings.log_level)
    use_one_heap()
    library = Library(settings.whisper)
    downloads = Downloads()
    provision = Provision(settings, downloads, may_fetch=settings.whisper.fetch != "none")
    catalogue = library.catalogue(fetches_unasked=True)
    service = Service(
        title="WhisperX API (words, times and speakers)",
        description=DESCRIPTION,
        version=version("whisperx"),
        catalogue=catalogue,
        load=lambda metrics: load_engine(settings, library, provision, downloads, metrics),
        transcription_form=WhisperxForm,
        translation_form=WhisperxTranslationForm,
        routers=(routes.router, asr.router),
        state={"provision": provision},
        is_busy=lambda: downloads.busy,
        stop=downloads.stop,
        large_fields={"known_speaker_references": REFERENCE_BYTES_MAX},
    )
    return create_speech_app(service, settings)


def load_engine(
    settings: Settings,
    library: Library,
    provision: Provision,
    downloads: Downloads,
    metrics: Metrics,
) -> Engine:
    """Load the default model; called in the worker's thread."""
    # PyTorch and CTranslate2 have OpenMP threads of their own, which otherwise spin while they
    # wait: where others use the cores, too, that made a recording take ten times as long.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # Imported here, so that /health answers while the libraries load.
    began = time.monotonic()
    from services.whisperx.engine import WhisperxEngine  # noqa: PLC0415 -- see above

    log.info("imported seconds=%.2f", time.monotonic() - began)
    library.fetch_default()
    return WhisperxEngine(settings, library, provision, downloads, on_load=metrics.model_loaded)


app = create_app()
