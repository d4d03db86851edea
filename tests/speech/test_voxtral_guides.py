"""What the guides to two older workers told their readers to type, typed as it stands.

Only the base URL is another, and the reader's own names are filled in. One guide has the backslash
at the end of a line twice, which no shell takes: it was written for a page that eats one.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from itertools import groupby
from typing import Any

import pytest

from services.voxtral.answers import Answer
from tests.clients.typed import run_as_typed
from tests.daemon import ROOT
from tests.services.sounds import encode, recording_samples
from tests.services.speech_server import SpeechServer, wait_for
from tests.speech.voices import Conversation, converse_in_sentences

SAMPLES = ROOT / "services/voxtral"

# The guide to the worker on transformers.

RUNPOD_URL = "https://api.runpod.ai"
RUNSYNC = """\
curl -X POST "https://api.runpod.ai/v2/<ENDPOINT_ID>/runsync" \\
  -H "Authorization: Bearer $RUNPOD_API_KEY" \\
  -H "Content-Type: application/json" \\
"""
PING = RUNSYNC + """  -d '{ "input": { "ping": true } }'"""
TRANSCRIBE = RUNSYNC + "  -d @sample_transcribe.json"
SUMMARY = RUNSYNC + "  -d @sample_summary.json"
DIARIZED = RUNSYNC + "  -d @sample_transcribe_diarized.json"
ITS_KEYS = {"task": str, "segments": list, "transcript": str, "summary": str}

# The guide to the worker on vLLM, which names the route and the body.

RUN = """\
curl -X POST http://localhost:8000/run -H "Content-Type: application/json" -d '{
  "input": {
    "audio_url": "https://example.com/audio.wav",
    "task": "transcribe_diarized",
    "language": "fr",
    "summary": true,
    "sentiment": true
  }
}'"""
STATUS = "curl http://localhost:8000/status/<ID>"
LOCAL_URL = "http://localhost:8000"
AUDIO_URL = "https://example.com/audio.wav"
OTHERS_KEYS = {
    "task": str,
    "language": str,
    "duration": float,
    "transcriptions": list,
    "summary": str,
    "sentiment": dict,
}
SEGMENT_KEYS = {"speaker": str, "start": float, "end": float, "text": str}
SENTIMENT_KEYS = {
    "sentiment": str,
    "score": float,
    "emotions": list,
    "satisfaction_client": str,
}

# Half of the pause between two turns, and as much as the pipeline is off (measured: 0.35).
EDGE_SECONDS = 0.6


def typed(server: SpeechServer, command: str) -> dict[str, Any]:
    """Type a command of the guides where the samples are; give the JSON that it prints."""
    for told, own in (
        (RUNPOD_URL, server.url),
        (LOCAL_URL, server.url),
        ("<ENDPOINT_ID>", "voxtral"),
    ):
        command = command.replace(told, own)
    return dict(json.loads(run_as_typed(command, SAMPLES, RUNPOD_API_KEY="any")))


def output_of(told: dict[str, Any]) -> dict[str, Any]:
    """Give the output of a job that was done."""
    assert told["status"] == "COMPLETED", told
    return dict(told["output"])


def types_of(told: dict[str, Any], keys: dict[str, type]) -> dict[str, type]:
    """Give the types of what stands under these keys; none may be missing."""
    return {name: type(told[name]) for name in keys}


# The worker on transformers


def test_the_ping(voxtral):
    """It says that somebody is there."""
    assert output_of(typed(voxtral, PING))["pong"] is True


@pytest.mark.parametrize(
    ("command", "task", "has_summary"),
    [(TRANSCRIBE, "transcribe", False), (SUMMARY, "summary", True)],
    ids=["transcribe", "summary"],
)
def test_the_words_and_the_summary(voxtral, spoken, command, task, has_summary):
    """The words of each piece; a summary where it is the task, and nobody's opinion."""
    told = output_of(typed(voxtral, command))
    (segment,) = told["segments"]

    assert told["task"] == task
    assert told["transcript"] == segment["text"] == spoken
    assert 0 <= segment["start"] < segment["end"] <= told["duration"]
    assert bool(told["summary"]) is has_summary
    assert told["sentiment"] is None


def test_the_call_with_everything(voxtral, spoken):
    """Both guides' keys, each of its type, in one answer; both voices take their turns."""
    told = output_of(typed(voxtral, DIARIZED))

    assert set(told) == set(Answer.model_fields)
    assert types_of(told, ITS_KEYS | OTHERS_KEYS) == ITS_KEYS | OTHERS_KEYS
    assert told["segments"] == told["transcriptions"]
    assert all(types_of(each, SEGMENT_KEYS) == SEGMENT_KEYS for each in told["segments"])
    assert [each["speaker"] for each in told["segments"]] == ["SPEAKER_00", "SPEAKER_01"] * 2
    lines = [f"{each['speaker']}: {spoken}" for each in told["segments"]]
    assert told["transcript"] == "\n".join(lines)
    assert told["warnings"] == []


def test_the_customers_opinion(voxtral):
    """In the guide's words, as the model wrote it."""
    told = output_of(typed(voxtral, DIARIZED))["sentiment"]

    assert types_of(told, SENTIMENT_KEYS) == SENTIMENT_KEYS
    assert told == {
        "sentiment": "positif",
        "score": 0.5,
        "emotions": ["joie"],
        "satisfaction_client": "satisfait",
    }


# The worker on vLLM


@pytest.fixture(scope="module")
def conversation() -> Conversation:
    """Two voices, which take turns."""
    return converse_in_sentences()


@pytest.fixture(scope="module")
def site(tmp_path_factory, conversation) -> Iterator[str]:
    """A server of this machine with that recording."""
    folder = tmp_path_factory.mktemp("site")
    (folder / "audio.wav").write_bytes(conversation.to_wav())
    (folder / "audio.mp3").write_bytes(encode(conversation.samples, "mp3", "libmp3lame"))
    (folder / "audio.ogg").write_bytes(encode(conversation.samples, "ogg", "libopus", rate=48_000))
    handler = partial(_Quiet, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_arguments: object) -> None:
        pass


def run_to_its_end(server: SpeechServer, audio_url: str) -> dict[str, Any]:
    """Type /run, then /status until the job has ended."""
    accepted = typed(server, RUN.replace(AUDIO_URL, audio_url))
    assert accepted["status"] == "IN_QUEUE", accepted
    told: dict[str, Any] = {}

    def has_ended() -> bool:
        told.update(typed(server, STATUS.replace("<ID>", accepted["id"])))
        return told["status"] not in ("IN_QUEUE", "IN_PROGRESS")

    wait_for(has_ended, 60, accepted["id"])
    return told


def test_a_recording_by_url(voxtral, site, conversation):
    """Who speaks, when, in order: as it was, with all of the guide's keys."""
    told = output_of(run_to_its_end(voxtral, f"{site}/audio.wav"))
    turns = [
        (speaker, [*segments])
        for speaker, segments in groupby(told["segments"], key=lambda each: each["speaker"])
    ]

    assert types_of(told, OTHERS_KEYS) == OTHERS_KEYS
    assert told["duration"] == pytest.approx(conversation.seconds, abs=0.01)
    names = {"A": "SPEAKER_00", "B": "SPEAKER_01"}
    assert [speaker for speaker, _ in turns] == [names[turn.who] for turn in conversation.turns]
    for (_, segments), turn in zip(turns, conversation.turns, strict=True):
        assert segments[0]["start"] == pytest.approx(turn.start, abs=EDGE_SECONDS)
        assert segments[-1]["end"] == pytest.approx(turn.end, abs=EDGE_SECONDS)
    edges = [each[edge] for each in told["segments"] for edge in ("start", "end")]
    assert edges == sorted(edges)


@pytest.mark.parametrize("name", ["audio.mp3", "audio.ogg"])
def test_the_guides_other_formats(voxtral, site, conversation, name):
    """Two people speak in them, too."""
    told = output_of(run_to_its_end(voxtral, f"{site}/{name}"))

    assert told["duration"] == pytest.approx(conversation.seconds, abs=0.1)
    assert {each["speaker"] for each in told["segments"]} == {"SPEAKER_00", "SPEAKER_01"}


def test_a_recording_that_is_not_there(voxtral, site):
    """The job fails, and says why."""
    told = run_to_its_end(voxtral, f"{site}/nothing.wav")

    assert told["status"] == "FAILED"
    assert told["error"] == "audio_url: '127.0.0.1' answered with status 404"


# Our own


UPLOAD = "curl $base/transcribe -F file=@meeting.m4a -F task=summary -F language=fr"


def test_a_file_by_our_own_guide(voxtral, spoken, tmp_path):
    """The output alone, at once."""
    recording = encode(recording_samples(), "ipod", "aac", rate=48_000)
    (tmp_path / "meeting.m4a").write_bytes(recording)
    told = json.loads(run_as_typed(UPLOAD, tmp_path, base=voxtral.url))

    assert UPLOAD in (SAMPLES / "README.md").read_text()
    assert set(told) == set(Answer.model_fields)
    assert (told["task"], told["transcript"]) == ("summary", spoken)
    assert told["summary"]
