"""One service for all tests that leave it as it was: to import what it needs takes seconds."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.transcription.app import TELEMETRY_OFF
from tests.services.speech_server import SpeechServer, run_server
from tests.speech.service import with_diarizer
from tests.speech.voxtral_service import voxtral_service

# The libraries are imported by tests, too; read when they are.
os.environ |= TELEMETRY_OFF


@pytest.fixture(scope="session")
def diarizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a pipeline that tells voices apart truly."""
    from tests.speech.makers import make_diarizer  # noqa: PLC0415 -- it imports torch

    folder = tmp_path_factory.mktemp("pipelines") / "diarizer"
    make_diarizer(folder)
    return folder


@pytest.fixture(scope="session")
def aligner(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an aligner as whisperX loads it; its times mean nothing."""
    from tests.speech.makers import make_random_aligner  # noqa: PLC0415 -- it imports torch

    folder = tmp_path_factory.mktemp("aligners") / "any"
    make_random_aligner(folder)
    return folder


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory, diarizer: Path) -> Iterator[SpeechServer]:
    """A running service with words, times and speakers."""
    folder = tmp_path_factory.mktemp("whisperx")
    with run_server(with_diarizer(diarizer), folder, {"MAX_WAITING": "8"}) as running:
        yield running


@pytest.fixture(scope="session")
def limited_server(
    tmp_path_factory: pytest.TempPathFactory, diarizer: Path
) -> Iterator[SpeechServer]:
    """The same for strange requests: it takes less, and turns nobody away for being busy."""
    limits = {
        "MAX_AUDIO_SECONDS": "600",
        "MAX_UPLOAD": "50MB",
        "MAX_WAITING": "64",
        "WHISPER__FETCH": "none",
    }
    with run_server(with_diarizer(diarizer), tmp_path_factory.mktemp("limited"), limits) as running:
        yield running


@pytest.fixture(scope="session")
def voxtral_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny Voxtral: whatever it hears or reads, it writes the same."""
    from tests.speech.voxtral_maker import ANSWERED, HEARD, make_voxtral  # noqa: PLC0415 -- torch

    folder = tmp_path_factory.mktemp("voxtral") / "tiny"
    make_voxtral(folder, heard=HEARD, answered=ANSWERED)
    return folder


@pytest.fixture(scope="session")
def spoken() -> str:
    """What that model writes of a piece of sound."""
    from tests.speech.voxtral_maker import HEARD  # noqa: PLC0415 -- torch

    return "".join(HEARD).strip()


@pytest.fixture(scope="session")
def voxtral(
    tmp_path_factory: pytest.TempPathFactory, voxtral_model: Path, diarizer: Path
) -> Iterator[SpeechServer]:
    """services/voxtral with a scripted model, and a pipeline that tells voices apart."""
    service = voxtral_service(voxtral_model, diarizer)
    with run_server(service, tmp_path_factory.mktemp("voxtral")) as running:
        yield running
