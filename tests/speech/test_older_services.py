"""What the guides to three older services told their readers to type, typed as it stands.

Only the base URL is another, and the recording's folder where a guide names one. Each service is
met as its readers meet it: stopped, behind autostart. The tiny model goes by the name of the model
that the guide used.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.clients.speech_daemon import SpeechDaemon, run_daemon, speech
from tests.clients.typed import run, run_as_typed
from tests.services.sounds import FRENCH_RECORDING, FRENCH_WORDS, encode, wav_samples
from tests.speech.service import ALIGNERS, WHISPERX, with_diarizer
from tests.speech.voices import PAIRS, converse_in_digits

PYTORCH = "pytorch.localhost"
WHISPERX_HOST = "whisperx.localhost"
CHAT_SERVER = "chatserver.localhost"
TOKENLESS = "tokenless.localhost"  # no pipeline, and no token to fetch one with

# The guide to a PyTorch service with diarisation.

PYTORCH_URL = "http://localhost:8000"
PYTORCH_STATUS = "curl http://localhost:8000/status"
PYTORCH_HEALTH = "curl http://localhost:8000/health"
PYTORCH_CURL = """\
curl -X POST http://localhost:8000/transcribe \\
  -F "file=@audio.mp3" \\
  -F "language=fr" \\
  -F "model=medium" \\
  -F "enable_diarization=true"
"""

# The guide to a WhisperX service.

WHISPERX_URL = "https://whisperx.example.com"
WHISPERX_CURL = """\
curl -X POST https://whisperx.example.com/transcribe \\
  -F "file=@audio.mp3" \\
  -F "model=base" \\
  -F "language=fr" \\
  -F "diarize=true"
"""
WHISPERX_PYTHON = """\
import requests

url = "https://whisperx.example.com/transcribe"

with open("meeting.mp3", "rb") as f:
    files = {"file": f}
    data = {
        "model": "base",
        "language": "fr",
        "diarize": "true"
    }

    response = requests.post(url, files=files, data=data)
    result = response.json()

for segment in result["segments"]:
    print(f"[{segment['speaker']}] {segment['text']}")
"""

# The guide to ChatServer.

CHAT_SERVER_URL = "http://127.0.0.1:8000"
CHAT_SERVER_FOLDER = "/path/to/your"
CHAT_SERVER_CURL = """\
curl -X POST \\
  -F "file=@/path/to/your/audio.webm" \\
  -F "language=french" \\
  http://127.0.0.1:8000/transcribe
"""


@pytest.fixture(scope="module")
def running(tmp_path_factory, diarizer: Path) -> Iterator[SpeechDaemon]:
    """One autostart for the readers of all guides."""
    speakers = with_diarizer(diarizer)
    aligners = tmp_path_factory.mktemp("aligners")
    for language in ("en", "fr"):  # or that for French would be looked for on the network
        (aligners / language).symlink_to(ALIGNERS / "en")
    tokenless = {
        "ALIGN_FOLDER": str(aligners),
        "HF_HOME": str(tmp_path_factory.mktemp("hub")),
        "HF_HUB_OFFLINE": "0",
        "HF_TOKEN": "",
        "HUGGINGFACE_TOKEN": "",
    }
    services = {
        PYTORCH: speech({"WHISPER__ALIAS": "medium"}, speakers),
        WHISPERX_HOST: speech(service=speakers),
        CHAT_SERVER: speech({"WHISPER__ALIAS": "large-v3"}, WHISPERX),
        TOKENLESS: speech(tokenless, WHISPERX),
    }
    with run_daemon(tmp_path_factory.mktemp("autostart"), services) as started:
        yield started


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Where the reader's recordings are."""
    made = tmp_path_factory.mktemp("recordings")
    french = wav_samples(FRENCH_RECORDING)
    mp3 = encode(french, "mp3", "libmp3lame")
    for name in ("audio.mp3", "meeting.mp3"):
        (made / name).write_bytes(mp3)
    (made / "audio.webm").write_bytes(encode(french, "webm", "libopus", rate=48_000))
    return made


# The PyTorch service


def test_the_pytorch_guides_curl(running, folder):
    """All its keys come from a stopped service, each of its type, in its spelling."""
    running.await_stopped(PYTORCH)
    before = running.daemon.starts(PYTORCH)
    printed = run_as_typed(PYTORCH_CURL.replace(PYTORCH_URL, running.door(PYTORCH)), folder)
    told = json.loads(printed)
    (segment,) = told["segments"]
    (turn,) = told["speakers"]

    assert running.daemon.starts(PYTORCH) == before + 1
    assert (told["transcript"], told["language"]) == (FRENCH_WORDS, "fr")
    assert (segment["id"], segment["text"], segment["speaker"]) == (0, FRENCH_WORDS, "SPEAKER_00")
    assert turn["speaker"] == "SPEAKER_00"
    assert all(type(each[edge]) is float for each in (segment, turn) for edge in ("start", "end"))
    assert told["model_used"] == "whisper-medium"
    assert type(told["processing_time"]) is float
    assert told["processing_time"] > 0


def test_the_pytorch_guides_checks(running, folder):
    """/health says that it lives, /status what it can do."""
    health, status = (
        json.loads(run_as_typed(command.replace(PYTORCH_URL, running.door(PYTORCH)), folder))
        for command in (PYTORCH_HEALTH, PYTORCH_STATUS)
    )

    assert health["status"] == "ok"
    assert (status["status"], status["default_model"]) == ("ready", "medium")
    assert status["diarization"]["available"]


@pytest.mark.parametrize("model", ["tiny", "large-v2"])
def test_the_pytorch_guides_other_models_are_fetched(running, folder, model):
    """Or, without a network, the failure names the model: none is a guess by another one."""
    command = PYTORCH_CURL.replace(PYTORCH_URL, running.door(PYTORCH))
    told = json.loads(run_as_typed(command.replace("medium", model), folder))

    assert told["error"]["code"] == "fetch_failed"
    assert told["error"]["message"].startswith(f"{model}: cannot be fetched")


# The WhisperX service


def test_the_whisperx_guides_curl(running, folder):
    """Segments with speakers, and the language, from a stopped service."""
    running.await_stopped(WHISPERX_HOST)
    before = running.daemon.starts(WHISPERX_HOST)
    command = WHISPERX_CURL.replace(WHISPERX_URL, running.door(WHISPERX_HOST))
    told = json.loads(run_as_typed(command, folder))
    (segment,) = told["segments"]

    assert running.daemon.starts(WHISPERX_HOST) == before + 1
    assert told["language"] == "fr"
    assert (segment["text"], segment["speaker"]) == (FRENCH_WORDS, "SPEAKER_00")
    assert 0 <= segment["start"] < segment["end"] <= 2.6


def run_python(running: SpeechDaemon, host: str, folder: Path, **changes: str) -> list[str]:
    """Run the guide's program; return the lines that it prints."""
    program = WHISPERX_PYTHON.replace(WHISPERX_URL, running.door(host))
    for old, new in changes.items():
        program = program.replace(old, new)
    return run([sys.executable, "-c", program], folder).splitlines()


def test_the_whisperx_guides_program(running, folder):
    """It prints who says what."""
    running.await_stopped(WHISPERX_HOST)

    assert run_python(running, WHISPERX_HOST, folder) == [f"[SPEAKER_00] {FRENCH_WORDS}"]


def test_the_whisperx_guides_program_tells_voices_apart(running, folder, tmp_path):
    """A line for each turn of a conversation, in the language of the aligner that is here."""
    # The tiny Whisper hears each digit of it, from an MP3 too.
    meeting = converse_in_digits(PAIRS[1], turns=4, seed=3)
    (tmp_path / "meeting.mp3").write_bytes(encode(meeting.samples, "mp3", "libmp3lame"))
    printed = run_python(running, WHISPERX_HOST, tmp_path, **{'"fr"': '"en"'})

    speakers = ["SPEAKER_00", "SPEAKER_01"] * 2
    assert printed == [
        f"[{speaker}] {turn.text}" for speaker, turn in zip(speakers, meeting.turns, strict=True)
    ]


@pytest.mark.parametrize("asked", ["false", ""])
def test_the_whisperx_guides_program_finds_its_key_without_speakers(running, folder, asked):
    """`speaker` is null where it was not asked for: it is no KeyError."""
    printed = run_python(running, WHISPERX_HOST, folder, **{'"true"': f'"{asked}"'})

    assert printed == [f"[None] {FRENCH_WORDS}"]


# ChatServer


def test_the_chat_servers_curl(running, folder):
    """The transcript of what a browser recorded, from a stopped service; the language by name."""
    running.await_stopped(CHAT_SERVER)
    before = running.daemon.starts(CHAT_SERVER)
    command = CHAT_SERVER_CURL.replace(CHAT_SERVER_URL, running.door(CHAT_SERVER))
    told = json.loads(run_as_typed(command.replace(CHAT_SERVER_FOLDER, str(folder)), folder))

    assert running.daemon.starts(CHAT_SERVER) == before + 1
    assert told["transcript"] == FRENCH_WORDS
    assert told["model_used"] == "whisper-large-v3"


# Without a token


ACCEPT = "https://huggingface.co/pyannote/speaker-diarization-community-1"


def test_without_a_token_the_transcription_works(running, folder):
    """The words come, and the answer says why nobody was identified, and what to do."""
    command = WHISPERX_CURL.replace(WHISPERX_URL, running.door(TOKENLESS))
    told = json.loads(run_as_typed(command, folder))
    (warned,) = told["warnings"]

    assert told["transcript"] == FRENCH_WORDS
    assert [segment["speaker"] for segment in told["segments"]] == [None]
    assert told["speakers"] == []
    assert warned["code"] == "speakers_unavailable"
    assert warned["message"].startswith("speakers were not identified: no token")
    assert ACCEPT in warned["message"]


def test_without_a_token_the_program_prints_the_words(running, folder):
    """The guide's program finds its key all the same."""
    assert run_python(running, TOKENLESS, folder) == [f"[None] {FRENCH_WORDS}"]


def test_without_a_token_status_says_why(running, folder):
    """With the page to accept, the page of tokens and the setting."""
    status = PYTORCH_STATUS.replace(PYTORCH_URL, running.door(TOKENLESS))
    told = json.loads(run_as_typed(status, folder))["diarization"]

    assert not told["available"]
    for step in (ACCEPT, "https://huggingface.co/settings/tokens", "HF_TOKEN"):
        assert step in told["reason"]


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        ("/v1/audio/diarization", ""),
        ("/transcribe", "-F response_format=rttm"),
    ],
)
def test_without_a_token_speakers_alone_are_refused(running, folder, path, fields):
    """Where there is nothing else to tell, the reason is the answer."""
    url = running.door(TOKENLESS) + path
    told: dict[str, Any] = json.loads(
        run_as_typed(f"curl -X POST {url} -F file=@audio.mp3 {fields}", folder)
    )

    assert told["error"]["code"] == "speakers_unavailable"
    assert ACCEPT in told["error"]["message"]
