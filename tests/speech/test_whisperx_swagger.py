"""The Swagger page of services/whisperx, in a real browser: what it shows runs as it stands."""

from __future__ import annotations

from pathlib import Path

from tests.e2e.test_swagger import RECORDING, execute
from tests.services.sounds import WORDS
from tests.services.speech_server import SpeechServer


def test_a_recording_is_transcribed_from_the_page(server: SpeechServer, tmp_path: Path) -> None:
    """With a file and nothing else filled in: the fields that are shown work as they are shown."""
    shown = execute(server, tmp_path, "/transcribe", file=RECORDING)

    assert "200" == shown["status"], shown
    assert f'"transcript": "{WORDS}"' in shown["body"]


def test_who_speaks_is_told_on_the_page(server: SpeechServer, tmp_path: Path) -> None:
    """By the box that the page offers for it."""
    shown = execute(server, tmp_path, "/transcribe", file=RECORDING, fields={"diarize": "true"})

    assert "200" == shown["status"], shown
    assert '"speaker": "SPEAKER_00"' in shown["body"]
