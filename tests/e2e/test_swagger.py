"""The Swagger page of a service, in a real browser: what it shows runs as it stands."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.browser import drive, screenshot
from tests.services.sounds import WORDS
from tests.services.speech_server import DIGITS, FASTER_WHISPER, SpeechServer, run_server

KEY = "sesame"
RECORDING = str(DIGITS / "recording.wav")


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[SpeechServer]:
    with run_server(FASTER_WHISPER, tmp_path_factory.mktemp("s"), {"API_KEY": KEY}) as running:
        yield running


def execute(server: SpeechServer, folder: Path, operation: str, **wish: Any) -> dict[str, Any]:
    """Open the page, type the key, fill in the form, press Execute; tell what is shown."""
    told = {
        "url": server.url + "/docs",
        "key": KEY,
        "operation": operation,
        "screenshot": screenshot("swagger"),
    }
    return drive("swagger", folder, **told | wish)


def test_a_recording_is_transcribed_from_the_page(server, tmp_path):
    """With a file and nothing else filled in: the fields that are shown work as they are shown."""
    shown = execute(server, tmp_path, "/v1/audio/transcriptions", file=RECORDING)

    assert "200" == shown["status"]
    assert f'"text": "{WORDS}"' in shown["body"]


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"response_format": "srt"}, "00:00:0"),
        ({"response_format": "text", "language": "english"}, WORDS),
        ({"stream": "true"}, "transcript.text.done"),
    ],
    ids=str,
)
def test_other_formats_are_shown(server, tmp_path, fields, expected):
    """What the page offers in its lists is taken."""
    shown = execute(server, tmp_path, "/v1/audio/transcriptions", file=RECORDING, fields=fields)

    assert "200" == shown["status"]
    assert expected in shown["body"]


def test_the_page_needs_no_network(server, tmp_path):
    """Every script, style and picture comes from the service itself, and none is missing."""
    shown = execute(server, tmp_path, "/v1/audio/speech/timestamps", file=RECORDING)

    assert "200" == shown["status"]
    assert [] == shown["complaints"]
    elsewhere = [url for url in shown["asked"] if not url.startswith((server.url, "data:"))]
    assert [] == elsewhere


def test_a_request_without_the_key_is_refused_readably(server, tmp_path):
    """The page shows what to do."""
    shown = execute(server, tmp_path, "/v1/models", key="wrong")

    assert "401" == shown["status"]
    assert "Authorization: Bearer KEY" in shown["body"]
