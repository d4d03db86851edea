"""POST /asr and /detect-language, asked as the clients of whisper-asr-webservice ask.

The requests are those of Bazarr's provider whisperai and of speakr's connector asr_endpoint, both
as of 2026; what they want stands in the query. speakr asks as murtaza-nasir/whisperx-asr-service
has it, too: for a model, for hotwords, and for speakers by either name.
"""

import io
from typing import Any

import httpx
import pytest
import srt
import webvtt

from tests.contract.test_transcription_api import refusal
from tests.services.sounds import (
    FRENCH_RECORDING,
    FRENCH_WORDS,
    RECORDING,
    WORDS,
    encode,
    recording_samples,
    wav_samples,
)
from tests.services.speech_server import SpeechServer
from tests.speech.voices import converse_in_digits

BAZARR = {"task": "transcribe", "language": "en", "output": "srt", "encode": "false"}
SPEAKR = {"encode": "true", "task": "transcribe", "output": "json"}
BOTH_NAMES = {"diarize": "true", "enable_diarization": "true"}


def ask(server: SpeechServer, recording: bytes, path: str = "/asr", **query: str) -> httpx.Response:
    files = {"audio_file": ("recording.wav", recording)}
    return httpx.post(server.url + path, params=query, files=files, timeout=60)


def samples_of(recording: bytes) -> bytes:
    """A recording as Bazarr sends it: FFmpeg's s16le, without a header."""
    return wav_samples(recording).tobytes()


def test_bazarr_gets_subtitles(server):
    """From samples without a header, as SubRip in plain text."""
    response = ask(server, samples_of(RECORDING), **BAZARR)
    (cue,) = srt.parse(response.text)

    assert cue.content == WORDS
    assert 0 <= cue.start.total_seconds() < cue.end.total_seconds() <= 3.3
    assert response.headers["content-type"].startswith("text/plain")


def test_bazarr_gets_translated_subtitles(server):
    """Its way to English subtitles for a French film."""
    samples = samples_of(FRENCH_RECORDING)
    response = ask(server, samples, **BAZARR | {"task": "translate", "language": "fr"})
    (cue,) = srt.parse(response.text)

    assert cue.content == WORDS


@pytest.mark.parametrize(
    ("recording", "name", "code"),
    [(FRENCH_RECORDING, "french", "fr"), (RECORDING, "english", "en")],
    ids=["french", "english"],
)
def test_bazarr_learns_the_language(server, recording, name, code):
    """By name and by code, from samples without a header."""
    told = ask(server, samples_of(recording), "/detect-language", encode="false").json()

    assert (told["detected_language"], told["language_code"]) == (name, code)
    assert 0.5 < told["confidence"] <= 1


def test_the_language_of_a_file_is_told(server):
    """With its header on, as the service's own page sends it."""
    told = ask(server, encode(recording_samples(), "mp3", "libmp3lame"), "/detect-language")

    assert told.json()["language_code"] == "en"


def test_speakr_gets_segments_with_speakers(server):
    """One for each turn, with its words, their times and who says them."""
    meeting = converse_in_digits(turns=4)
    asked = BOTH_NAMES | {"min_speakers": "1", "max_speakers": "3", "model": "base"}
    told = ask(server, meeting.to_wav(), **SPEAKR, **asked, word_timestamps="true").json()

    assert told["text"] == " ".join(turn.text for turn in meeting.turns)
    assert told["language"] == "en"
    assert [segment["text"] for segment in told["segments"]] == [t.text for t in meeting.turns]
    assert [segment["speaker"] for segment in told["segments"]] == ["SPEAKER_00", "SPEAKER_01"] * 2
    words = [word for segment in told["segments"] for word in segment["words"]]
    assert [word["word"] for word in words] == [word.text for word in meeting.words]
    assert all(set(word) == {"word", "start", "end", "score", "speaker"} for word in words)


@pytest.mark.parametrize("query", [{"diarize": "True"}, {"enable_diarization": "True"}], ids=str)
def test_speakers_have_two_names(server, query):
    """And Python's spelling of a boolean is one."""
    (segment,) = ask(server, RECORDING, **SPEAKR, **query).json()["segments"]

    assert segment["speaker"] == "SPEAKER_00"


def test_the_number_of_speakers_is_obeyed(server):
    """One, where there are two voices."""
    meeting = converse_in_digits(turns=4).to_wav()
    told = ask(server, meeting, **SPEAKR, **BOTH_NAMES, num_speakers="1").json()

    assert {segment["speaker"] for segment in told["segments"]} == {"SPEAKER_00"}


def test_segments_carry_only_what_was_asked_for(server):
    """Neither speakers nor words otherwise, not even as null."""
    (segment,) = ask(server, RECORDING, **SPEAKR).json()["segments"]

    assert set(segment) == {"start", "end", "text"}


@pytest.mark.parametrize("query", [{}, {"output": "txt"}], ids=str)
def test_the_plain_answer_is_text(server, query):
    """Without an output, too."""
    response = ask(server, RECORDING, **query)

    assert response.text == WORDS + "\n"
    assert response.headers["content-type"].startswith("text/plain")


def read_vtt(text: str) -> list[str]:
    return [cue.text for cue in webvtt.from_buffer(io.StringIO(text))]


def read_tsv(text: str) -> list[str]:
    head, *rows = text.splitlines()
    assert head == "start\tend\ttext"
    return [row.split("\t")[2] for row in rows]


@pytest.mark.parametrize(
    ("output", "read"),
    [("vtt", read_vtt), ("tsv", read_tsv)],
    ids=["vtt", "tsv"],
)
def test_other_outputs_are_plain_text_too(server, output, read):
    """As that service has it, whatever they hold."""
    response = ask(server, FRENCH_RECORDING, output=output)

    assert read(response.text) == [FRENCH_WORDS]
    assert response.headers["content-type"].startswith("text/plain")


@pytest.mark.parametrize("output", ["txt", "vtt", "srt", "tsv", "json"])
def test_the_engine_is_named(server, output):
    """In the header by which clients know the service; what it did without stands beside it."""
    headers = ask(server, FRENCH_RECORDING, output=output).headers

    assert headers["asr-engine"] == "whisperx"
    assert headers["transcription-warnings"] == "no_aligner"


REFUSALS: list[tuple[dict[str, str], int, str]] = [
    ({"output": "docx"}, 400, "output"),
    ({"task": "sing"}, 400, "task"),
    ({"language": "xx"}, 400, "language"),
    ({"diarize": "perhaps"}, 400, "diarize"),
    ({"encode": "perhaps"}, 400, "encode"),
    ({"model": "absent"}, 404, "model"),
    ({"hotwords": "one " * 501}, 400, "hotwords"),
    ({"num_speakers": "2", "max_speakers": "1"}, 400, "num_speakers"),
    ({"min_speakers": "0"}, 400, "min_speakers"),
    ({"min_speakers": "3", "max_speakers": "2"}, 400, "min_speakers"),
]


@pytest.mark.parametrize(
    ("query", "status", "param"), REFUSALS, ids=["+".join(query) for query, _, _ in REFUSALS]
)
def test_a_wrong_query_is_refused_by_name(server, query, status, param):
    """In the shape of every other refusal."""
    response = ask(server, RECORDING, **query)

    assert response.status_code == status
    assert refusal(response)["param"] == param


@pytest.mark.parametrize("path", ["/asr", "/detect-language"])
@pytest.mark.parametrize(
    ("options", "status"),
    [
        ({"files": {"file": ("recording.wav", RECORDING)}}, 400),
        ({"files": {"audio_file": ("recording.wav", b"noise" * 100)}}, 415),
        ({"files": {"audio_file": ("recording.wav", b"")}}, 415),
        ({"json": {}}, 415),
        ({}, 415),
    ],
    ids=["another field", "no audio", "empty", "no form", "nothing"],
)
def test_a_wrong_upload_is_refused(server, path, options: dict[str, Any], status):
    """A recording under another name, or none at all."""
    response = httpx.post(server.url + path, **options, timeout=60)

    assert response.status_code == status
    assert refusal(response)["param"] in ("audio_file", "file", None)
