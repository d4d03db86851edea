"""The Swagger page of services/voxtral, in a real browser: what it shows runs as it stands."""

from __future__ import annotations

from pathlib import Path

from tests.daemon import ROOT
from tests.e2e.test_swagger import RECORDING, execute
from tests.services.speech_server import SpeechServer

SAMPLE = (ROOT / "services/voxtral/sample_transcribe.json").read_text()


def test_a_file_is_transcribed_from_the_page(
    voxtral: SpeechServer, tmp_path: Path, spoken: str
) -> None:
    """With nothing else filled in: the fields that are shown work as they are shown."""
    shown = execute(voxtral, tmp_path, "/transcribe", file=RECORDING)

    assert "200" == shown["status"], shown
    assert f'"transcript": "{spoken}"' in shown["body"]
    assert [] == shown["complaints"]


def test_a_job_is_run_from_the_page(voxtral: SpeechServer, tmp_path: Path, spoken: str) -> None:
    """With the sample in place of the example, whose recording is nowhere."""
    shown = execute(voxtral, tmp_path, "/runsync", body=SAMPLE)

    assert "200" == shown["status"], shown
    assert '"status": "COMPLETED"' in shown["body"]
    assert f'"transcript": "{spoken}"' in shown["body"]
