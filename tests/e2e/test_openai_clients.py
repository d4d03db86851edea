"""OpenAI's own clients, unmodified, through autostart, from a stopped service on.

Each client asks for everything in one process; the tests look at what it got.
"""

from __future__ import annotations

import contextlib
import io
import math
import socket
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
import srt
import webvtt

from tests.clients.installed import NODE_7, PYTHON_1, PYTHON_3, Client, Wish
from tests.clients.speech_daemon import SpeechDaemon, run_daemon, speech
from tests.services.sounds import FRENCH_WORDS, SAMPLE_RATE, WORDS, recording_samples
from tests.services.speech_server import DIGITS, wait_for

CLIENTS = [PYTHON_3, PYTHON_1, NODE_7]
# JavaScript's package has types, but no models to check with while it runs.
only_python = pytest.mark.parametrize(
    "client", [PYTHON_3, PYTHON_1], ids=lambda client: client.name, indirect=True
)

WHISPER = "whisper.localhost"
LOCKED = "locked.localhost"  # asks for a key, and takes no large uploads
CROWDED = "crowded.localhost"  # its only place is taken

KEY = "right-key"
UPLOAD_BYTES_MAX = 1_000_000
BODY_BYTES_MAX = 4_000_000

RECORDING = str(DIGITS / "recording.wav")
FRENCH = str(DIGITS / "french.wav")
RECORDING_SECONDS = len(recording_samples()) / SAMPLE_RATE

WORDS_AND_SEGMENTS = {
    "response_format": "verbose_json",
    "timestamp_granularities": ["word", "segment"],
}
VERBOSE = {"response_format": "verbose_json"}
# Nothing is that certainly speech.
DEAF = {"type": "server_vad", "threshold": 1.0, "prefix_padding_ms": 0, "silence_duration_ms": 200}

Told = dict[str, Any]


@contextlib.contextmanager
def taken_place(door: str) -> Iterator[None]:
    """Hold a place in a service's queue: an upload that does not end holds one."""
    address = urlsplit(door)
    head = (
        f"POST /v1/audio/transcriptions HTTP/1.1\r\nHost: {address.netloc}\r\n"
        "Content-Type: multipart/form-data; boundary=b\r\nContent-Length: 1000\r\n\r\n--b\r\n"
    )
    with socket.create_connection((address.hostname, address.port)) as upload:
        upload.sendall(head.encode())
        wait_for(lambda: httpx.get(door + "/busy", timeout=30).json()["busy"], 30, "the upload")
        yield


@pytest.fixture(scope="module")
def running(tmp_path_factory) -> Iterator[SpeechDaemon]:
    """One autostart for all clients."""
    limits = {"API_KEY": KEY, "MAX_UPLOAD": str(UPLOAD_BYTES_MAX)}
    patience = {"REQUEST_TIMEOUT_SECONDS": "600"}
    services = {
        WHISPER: speech(max_body=f"{BODY_BYTES_MAX}B"),
        LOCKED: speech(limits),
        CROWDED: speech({"MAX_WAITING": "0", **patience}, request_timeout="10m"),
    }
    with run_daemon(tmp_path_factory.mktemp("autostart"), services) as started:
        with taken_place(started.door(CROWDED)):
            yield started


@pytest.fixture(scope="module", params=CLIENTS, ids=lambda client: client.name)
def client(request) -> Client:
    """Each client that people have."""
    request.param.require()
    return request.param


@pytest.fixture(scope="module")
def told(running, client, tmp_path_factory) -> Told:
    """What the client got, by the name of the wish; the first one met a stopped service."""
    running.await_stopped(WHISPER)
    return client.ask(wishes(running, tmp_path_factory.mktemp("uploads")))


def wishes(running: SpeechDaemon, folder: Path) -> list[Wish]:
    """Return everything that is asked for, in this order."""
    whisper, locked, crowded = (running.door(host) + "/v1" for host in (WHISPER, LOCKED, CROWDED))

    def heard(name: str, file: str = RECORDING, **options: Any) -> Wish:
        return Wish(name, whisper, file, options=options)

    def translated(name: str, **options: Any) -> Wish:
        return Wish(name, whisper, FRENCH, call="translations", options=options)

    def written(content: bytes) -> str:
        file = folder / f"{len(content)}.wav"
        file.write_bytes(content)
        return str(file)

    noise = written(b"noise" * 1000)
    large, larger, largest = (
        written(bytes(size))
        for size in (UPLOAD_BYTES_MAX + 1, UPLOAD_BYTES_MAX * 3, BODY_BYTES_MAX * 3)
    )
    return [
        heard("json"),
        heard("verbose_json", **VERBOSE),
        heard("words", **WORDS_AND_SEGMENTS),
        heard("srt", response_format="srt"),
        heard("vtt", response_format="vtt"),
        heard("text", response_format="text"),
        heard("stream", stream=True),
        heard("stream with logprobs", stream=True, include=["logprobs"]),
        heard("detected", FRENCH),
        heard("language", FRENCH, language="fr", **VERBOSE),
        heard("temperature", temperature=0.2, **VERBOSE),
        heard("prompt", prompt="zero one two", temperature=0, language="en"),
        heard("chunking auto", chunking_strategy="auto"),
        heard("chunking server_vad", chunking_strategy={"type": "server_vad"}),
        heard("chunking deaf", chunking_strategy=DEAF),
        heard("logprobs", include=["logprobs"]),
        Wish("newer model", whisper, RECORDING, model="gpt-4o-transcribe"),
        translated("translation"),
        translated("verbose translation", prompt="zero one", temperature=0, **VERBOSE),
        translated("translated text", response_format="text"),
        heard("bad language", language="klingon"),
        heard("bad temperature", temperature=1.5),
        heard("words without verbose_json", timestamp_granularities=["word"]),
        heard("speakers", response_format="diarized_json"),
        heard("no audio", noise),
        heard("no audio, streamed", noise, stream=True),
        Wish("unknown model", whisper, RECORDING, model="absent"),
        Wish("right key", locked, RECORDING, key=KEY),
        Wish("wrong key", locked, RECORDING, key="wrong-key"),
        Wish("a bit too large", locked, large, key=KEY),
        Wish("too large", locked, larger, key=KEY),
        heard("too large for autostart", largest),
        Wish("queue full", crowded, RECORDING, settings={"max_retries": 0}),
    ]


# What comes back


def test_the_first_request_meets_a_stopped_service(told):
    """It is held through the start, and its answer says so."""
    assert "cold" == told["json"]["headers"]["autostart-start"]
    assert WORDS == told["json"]["text"]


def test_json_carries_the_words_and_the_seconds(told):
    """The answer is OpenAI's: the text, and the seconds rounded up."""
    body = told["json"]["body"]

    assert WORDS == body["text"]
    assert {"type": "duration", "seconds": math.ceil(RECORDING_SECONDS)} == body["usage"]


def test_verbose_json_carries_words_and_segments(told):
    """Both granularities come, in order, and say what the text says."""
    body = told["words"]["body"]

    assert WORDS == body["text"] == " ".join(word["word"] for word in body["words"])
    assert WORDS == "".join(segment["text"] for segment in body["segments"]).strip()
    assert pytest.approx(RECORDING_SECONDS, abs=0.001) == body["duration"]
    assert all(word["start"] <= word["end"] for word in body["words"])
    assert all(one["end"] <= other["start"] + 0.01 for one, other in pairwise(body["words"]))


def test_words_come_only_when_asked_for(told):
    """verbose_json without granularities has segments, and no words."""
    body = told["verbose_json"]["body"]

    assert WORDS == "".join(segment["text"] for segment in body["segments"]).strip()
    assert body["words"] is None


def test_srt_is_read_by_its_parser(told):
    """The client hands over subtitles as text, which an SRT library reads."""
    cues = list(srt.parse(told["srt"]["text"]))

    assert WORDS == " ".join(cue.content for cue in cues)
    assert told["srt"]["headers"]["content-type"].startswith("text/plain")


def test_vtt_is_read_by_its_parser(told):
    """The client hands over subtitles as text, which a WebVTT library reads."""
    cues = webvtt.from_buffer(io.StringIO(told["vtt"]["text"]))

    assert WORDS == " ".join(cue.text for cue in cues)
    assert told["vtt"]["headers"]["content-type"].startswith("text/vtt")


def test_text_is_the_words_and_a_line_end(told):
    """response_format=text is handed over as a string."""
    assert "str" == told["text"]["kind"]
    assert WORDS + "\n" == told["text"]["text"]


@pytest.mark.parametrize(
    ("wish", "text"),
    [
        ("detected", FRENCH_WORDS),
        ("language", FRENCH_WORDS),
        ("prompt", WORDS),
        ("chunking auto", WORDS),
        ("chunking server_vad", WORDS),
        ("chunking deaf", ""),
        ("logprobs", WORDS),
        ("newer model", WORDS),
        ("translation", WORDS),
        ("verbose translation", WORDS),
        ("translated text", WORDS + "\n"),
        ("right key", WORDS),
    ],
)
def test_every_option_arrives(told, wish, text):
    """The text is the one that was asked for."""
    assert text == told[wish].get("text"), told[wish]


def test_temperature_is_obeyed(told):
    """The temperature that was asked for is the one that was used."""
    assert {0.2} == {segment["temperature"] for segment in told["temperature"]["body"]["segments"]}


def test_the_language_is_told(told):
    """Heard as French, or translated into English."""
    assert "fr" == told["language"]["body"]["language"]
    assert "english" == told["verbose translation"]["body"]["language"]


def test_logprobs_cover_the_text(told):
    """The tokens, joined, are the text, and each is more or less likely."""
    logprobs = told["logprobs"]["body"]["logprobs"]

    assert WORDS == "".join(each["token"] for each in logprobs).strip()
    assert all(each["logprob"] <= 0 for each in logprobs)
    assert [each["token"] for each in logprobs] == [
        bytes(each["bytes"]).decode() for each in logprobs
    ]


@pytest.mark.parametrize("wish", ["stream", "stream with logprobs"])
def test_a_stream_is_the_text_in_pieces(told, wish):
    """The deltas, joined, are the text of the last event, which is the words."""
    events = told[wish]["events"]

    *deltas, done = events
    assert {"transcript.text.delta"} == {event["type"] for event in deltas}
    assert "transcript.text.done" == done["type"]
    assert WORDS == done["text"] == "".join(each["delta"] for each in deltas)
    assert ("logprobs" in done) == (wish == "stream with logprobs")


def test_a_streams_logprobs_are_those_of_its_deltas(told):
    """The last event repeats what came with the pieces."""
    *deltas, done = told["stream with logprobs"]["events"]

    assert done["logprobs"] == [each for event in deltas for each in event["logprobs"]]


@only_python
def test_every_answer_is_what_the_package_declares(told):
    """Held strictly against the package's own models, nothing is missing or of another type."""
    wrong = {name: each["wrong"] for name, each in told.items() if each.get("wrong")}
    assert {} == wrong


@only_python
@pytest.mark.parametrize(
    ("wish", "kind"),
    [
        ("json", "Transcription"),
        ("logprobs", "Transcription"),
        ("verbose_json", "TranscriptionVerbose"),
        ("words", "TranscriptionVerbose"),
        ("translation", "Translation"),
        ("verbose translation", "TranslationVerbose"),
    ],
)
def test_the_client_takes_the_answer_for_what_it_is(told, wish, kind):
    """The package's own class is chosen by the format that was asked for."""
    assert kind == told[wish]["kind"]


# What is refused


@pytest.mark.parametrize(
    ("wish", "exception", "status", "code", "param"),
    [
        ("bad language", "BadRequestError", 400, "invalid_value", "language"),
        ("bad temperature", "BadRequestError", 400, "invalid_value", "temperature"),
        (
            "words without verbose_json",
            "BadRequestError",
            400,
            "invalid_value",
            "timestamp_granularities",
        ),
        ("speakers", "BadRequestError", 400, "unsupported_value", "response_format"),
        ("unknown model", "NotFoundError", 404, "model_not_found", "model"),
        ("wrong key", "AuthenticationError", 401, "invalid_api_key", None),
        ("no audio", None, 415, "not_audio", "file"),
        ("no audio, streamed", None, 415, "not_audio", "file"),
        ("a bit too large", None, 413, "upload_too_large", "file"),
        ("too large", None, 413, "upload_too_large", "file"),
        ("too large for autostart", None, 413, "body-too-large", None),
        ("queue full", "RateLimitError", 429, "queue_full", None),
    ],
)
def test_a_refusal_is_the_clients_own_exception(client, told, wish, exception, status, code, param):
    """The class tells what kind of refusal it is, and what is inside tells what was wrong."""
    refused = {name: told[wish].get(name) for name in ("exception", "status", "code", "param")}

    assert {
        "exception": exception or client.status_error,
        "status": status,
        "code": code,
        "param": param,
    } == refused


def test_a_full_queue_says_when_to_come_again(told):
    """The client gets Retry-After, which it obeys up to two minutes."""
    headers = told["queue full"]["headers"]

    assert 1 <= int(headers["retry-after"]) <= 120
    assert "x-should-retry" not in headers


def test_only_autostarts_own_refusals_carry_its_name(told):
    """Whoever looks can tell who refused."""
    refusals = {name: each["headers"] for name, each in told.items() if "exception" in each}

    assert {"too large for autostart": "body-too-large"} == {
        name: headers["autostart-error"]
        for name, headers in refusals.items()
        if "autostart-error" in headers
    }
