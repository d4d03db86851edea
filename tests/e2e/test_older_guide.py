"""What the guide to the service's predecessor told its readers to type, typed as it stands.

Only the base URL is another; the service goes by the name of the model that the guide used.
"""

from __future__ import annotations

import io
import json
import wave
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.clients.installed import PYTHON_1, PYTHON_3, Client
from tests.clients.speech_daemon import SpeechDaemon, run_daemon, speech
from tests.clients.typed import run_as_typed
from tests.services.sounds import FRENCH_RECORDING, FRENCH_WORDS, SAMPLE_RATE, encode

HOST = "whisper.localhost"
BASE_URL = "https://whisper.example.com"

CURL = """\
curl -X POST https://whisper.example.com/v1/audio/transcriptions \\
  -H "Authorization: Bearer $API_KEY" \\
  -F "file=@audio.mp3" \\
  -F "model=Systran/faster-whisper-small" \\
  -F "language=fr"
"""

PYTHON = """\
import openai

client = openai.OpenAI(
    base_url="https://whisper.example.com/v1",
    api_key="dummy"  # Not used but required
)

with open("meeting.mp3", "rb") as audio_file:
    transcript = client.audio.transcriptions.create(
        model="Systran/faster-whisper-small",
        file=audio_file,
        language="fr"
    )

print(transcript.text)
"""


@pytest.fixture(scope="module")
def running(tmp_path_factory) -> Iterator[SpeechDaemon]:
    """One autostart for all readers."""
    services = {HOST: speech({"WHISPER__ALIAS": "Systran/faster-whisper-small"})}
    with run_daemon(tmp_path_factory.mktemp("autostart"), services) as started:
        yield started


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Where the reader's recordings are."""
    made = tmp_path_factory.mktemp("recordings")
    with wave.open(io.BytesIO(FRENCH_RECORDING)) as file:
        assert (SAMPLE_RATE, 1) == (file.getframerate(), file.getnchannels())
        samples = np.frombuffer(file.readframes(file.getnframes()), dtype=np.int16)
    recording = encode(samples, "mp3", "libmp3lame")
    for name in ("audio.mp3", "meeting.mp3"):
        (made / name).write_bytes(recording)
    return made


def test_curl_gets_the_words_from_a_stopped_service(running, folder):
    """The command wakes the service by its host name and prints what was said."""
    running.await_stopped(HOST)
    before = running.daemon.starts(HOST)
    command = CURL.replace(BASE_URL, f"http://{HOST}:{running.daemon.port}")
    printed = run_as_typed(command, folder, API_KEY="dummy")

    assert FRENCH_WORDS == json.loads(printed)["text"]
    assert before + 1 == running.daemon.starts(HOST)


@pytest.mark.parametrize("client", [PYTHON_3, PYTHON_1], ids=lambda client: client.name)
def test_python_gets_the_words_from_a_stopped_service(running, folder, client: Client):
    """The program wakes the service and prints what was said."""
    client.require()
    running.await_stopped(HOST)
    before = running.daemon.starts(HOST)
    printed = client.run("-c", PYTHON.replace(BASE_URL, running.door(HOST)), folder=folder)

    assert FRENCH_WORDS + "\n" == printed
    assert before + 1 == running.daemon.starts(HOST)
