"""One service for all tests that leave it as it was: to import what it needs takes seconds."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.services.speech_server import SpeechServer, run_server
from tests.speech.service import with_diarizer


@pytest.fixture(scope="session")
def diarizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a pipeline that tells voices apart truly."""
    from tests.speech.makers import make_diarizer  # noqa: PLC0415 -- it imports torch

    folder = tmp_path_factory.mktemp("pipelines") / "diarizer"
    make_diarizer(folder)
    return folder


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory, diarizer: Path) -> Iterator[SpeechServer]:
    """A running service with words, times and speakers."""
    folder = tmp_path_factory.mktemp("whisperx")
    with run_server(with_diarizer(diarizer), folder, {"MAX_WAITING": "8"}) as running:
        yield running
