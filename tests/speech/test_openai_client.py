"""OpenAI's own client, unmodified, through autostart, from a stopped services/whisperx on.

It asks for everything in one process; every answer is held strictly against the package's models.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import srt
import webvtt

from tests.clients.installed import PYTHON_3, Wish
from tests.clients.speech_daemon import SpeechDaemon, run_daemon, speech
from tests.services.sounds import FRENCH_WORDS, WORDS
from tests.services.speech_server import DIGITS
from tests.speech.service import with_diarizer
from tests.speech.voices import Conversation, converse_in_digits

HOST = "whisperx.localhost"
RECORDING = str(DIGITS / "recording.wav")
FRENCH = str(DIGITS / "french.wav")
WORDS_AND_SEGMENTS = {
    "response_format": "verbose_json",
    "timestamp_granularities": ["word", "segment"],
}

Told = dict[str, Any]


@pytest.fixture(scope="module")
def running(tmp_path_factory, diarizer: Path) -> Iterator[SpeechDaemon]:
    """One autostart, and one service that tells speakers apart."""
    services = {HOST: speech(service=with_diarizer(diarizer))}
    with run_daemon(tmp_path_factory.mktemp("autostart"), services) as started:
        yield started


@pytest.fixture(scope="module")
def meeting() -> Conversation:
    """Two voices, twice each."""
    return converse_in_digits(turns=4)


@pytest.fixture(scope="module")
def told(running, meeting, tmp_path_factory) -> Told:
    """What the client got, by the name of the wish; the first one met a stopped service."""
    file = tmp_path_factory.mktemp("uploads") / "meeting.wav"
    file.write_bytes(meeting.to_wav())
    running.await_stopped(HOST)
    return PYTHON_3.ask(wishes(running.door(HOST) + "/v1", str(file)))


def wishes(url: str, meeting: str) -> list[Wish]:
    """Return everything that is asked for, in this order."""

    def heard(name: str, file: str = RECORDING, **options: Any) -> Wish:
        return Wish(name, url, file, options=options)

    diarized = {"response_format": "diarized_json", "chunking_strategy": "auto"}
    return [
        heard("json"),
        heard("words", **WORDS_AND_SEGMENTS),
        heard("srt", meeting, response_format="srt"),
        heard("vtt", meeting, response_format="vtt"),
        heard("text", response_format="text"),
        heard("speakers", meeting, **diarized),
        Wish("diarizing model", url, meeting, model="gpt-4o-transcribe-diarize", options=diarized),
        heard("stream", stream=True),
        heard("stream of speakers", meeting, stream=True, **diarized),
        heard("french", FRENCH, language="fr", response_format="verbose_json"),
        Wish("translation", url, FRENCH, call="translations"),
        heard("prompt", prompt="zero one two", temperature=0, language="en"),
        heard("bad temperature", temperature=0.2),
        heard("logprobs", include=["logprobs"]),
        heard("streamed subtitles", stream=True, response_format="srt"),
        Wish("unknown model", url, RECORDING, model="absent"),
    ]


def test_the_first_request_meets_a_stopped_service(told):
    """It is held through the start, which imports PyTorch, and its answer says so."""
    assert told["json"]["headers"]["autostart-start"] == "cold"
    assert told["json"]["text"] == WORDS


def test_every_answer_is_what_the_package_declares(told):
    """Held strictly against the package's own models, nothing is missing or of another type."""
    wrong = {name: each["wrong"] for name, each in told.items() if each.get("wrong")}
    assert wrong == {}


@pytest.mark.parametrize(
    ("wish", "text"),
    [
        ("json", WORDS),
        ("words", WORDS),
        ("text", WORDS + "\n"),
        ("french", FRENCH_WORDS),
        ("translation", WORDS),
        ("prompt", WORDS),
    ],
)
def test_the_text_is_what_was_said(told, wish, text):
    """In every format, language and task."""
    assert told[wish].get("text") == text, told[wish]


@pytest.mark.parametrize(
    ("wish", "kind"),
    [
        ("json", "Transcription"),
        ("words", "TranscriptionVerbose"),
        ("french", "TranscriptionVerbose"),
        ("speakers", "TranscriptionDiarized"),
        ("diarizing model", "TranscriptionDiarized"),
        ("srt", "str"),
        ("translation", "Translation"),
    ],
)
def test_the_client_takes_the_answer_for_what_it_is(told, wish, kind):
    """The package's own class is chosen by the format that was asked for."""
    assert told[wish]["kind"] == kind


def test_words_have_the_times_of_the_sound(told):
    """In order, none within another, beside the segments."""
    body = told["words"]["body"]

    assert [word["word"] for word in body["words"]] == WORDS.split()
    assert all(one["end"] <= other["start"] for one, other in pairwise(body["words"]))
    assert "".join(segment["text"] for segment in body["segments"]).strip() == WORDS


def test_subtitles_are_read_by_their_parsers(told, meeting):
    """SubRip and WebVTT, of all that was said."""
    spoken = " ".join(turn.text for turn in meeting.turns)

    assert " ".join(cue.content for cue in srt.parse(told["srt"]["text"])) == spoken
    cues = webvtt.from_buffer(io.StringIO(told["vtt"]["text"]))
    assert " ".join(cue.text for cue in cues) == spoken


@pytest.mark.parametrize("wish", ["speakers", "diarizing model"])
def test_speakers_are_letters(told, meeting, wish):
    """One for each voice, A first; a segment for each turn."""
    segments = told[wish]["body"]["segments"]

    assert [(segment["text"], segment["speaker"]) for segment in segments] == [
        (turn.text, turn.who) for turn in meeting.turns
    ]
    assert [segment["id"] for segment in segments] == ["seg_001", "seg_002", "seg_003", "seg_004"]


def test_a_stream_is_the_text_in_pieces(told):
    """The deltas, joined, are the text of the last event."""
    *deltas, done = told["stream"]["events"]

    assert {event["type"] for event in deltas} == {"transcript.text.delta"}
    assert "".join(event["delta"] for event in deltas) == done["text"] == WORDS


def test_a_stream_of_speakers_ends_with_their_segments(told, meeting):
    """After the text, when it is known who speaks."""
    *_, done = events = told["stream of speakers"]["events"]
    segments = [event for event in events if event["type"] == "transcript.text.segment"]

    assert [(segment["text"], segment["speaker"]) for segment in segments] == [
        (turn.text, turn.who) for turn in meeting.turns
    ]
    assert done["type"] == "transcript.text.done"
    assert done["text"] == " ".join(turn.text for turn in meeting.turns)


@pytest.mark.parametrize(
    ("wish", "exception", "code", "param"),
    [
        ("bad temperature", "BadRequestError", "unsupported_parameter", "temperature"),
        ("logprobs", "BadRequestError", "unsupported_parameter", "include"),
        ("streamed subtitles", "BadRequestError", "invalid_value", "stream"),
        ("unknown model", "NotFoundError", "model_not_found", "model"),
    ],
)
def test_a_refusal_is_the_clients_own_exception(told, wish, exception, code, param):
    """What whisperX cannot do is refused by name, and by the service, not by autostart."""
    refused = {name: told[wish].get(name) for name in ("exception", "code", "param")}

    assert refused == {"exception": exception, "code": code, "param": param}
    assert "autostart-error" not in told[wish]["headers"]
