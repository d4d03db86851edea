"""Files as they really arrive, on the routes that services/whisperx adds.

The files are those of tests/services/test_bad_uploads.py; here, what is heard of them goes on to an
aligner and to a pipeline of speakers, which have traps of their own.
"""

import base64
import json
import math
import struct
import time
from collections.abc import Callable, Iterator
from functools import cache

import httpx
import numpy as np
import pytest

from tests.services.sounds import RECORDING, SAMPLE_RATE, WORDS, encode, recording_samples
from tests.services.speech_server import SpeechServer
from tests.services.test_bad_uploads import (
    HALVES,
    NO_AUDIO,
    SOUND,
    endless_flac,
    refusal,
    without_length,
)

# Each route, and the field of its recording.
ROUTES = {"/transcribe": "file", "/asr": "audio_file", "/v1/audio/diarization": "file"}
EVERYTHING = {"diarize": "true", "words": "true"}  # of POST /transcribe


def send(
    server: SpeechServer,
    recording: bytes,
    path: str = "/transcribe",
    content_type: str = "application/octet-stream",
    **fields: object,
) -> httpx.Response:
    """Ask for all that there is: words, times and speakers."""
    asked = {
        "/transcribe": {"data": EVERYTHING | fields},
        "/asr": {
            "params": {"output": "json", "diarize": "true", "word_timestamps": "true"} | fields
        },
        "/v1/audio/diarization": {"data": fields},
    }[path]
    files = {ROUTES[path]: ("recording", recording, content_type)}
    return httpx.post(server.url + path, files=files, timeout=60, **asked)


def answer(response: httpx.Response) -> dict:
    """Give a body that is JSON as all parsers have it: without NaN."""
    assert response.status_code == 200, response.text

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} in {response.text}")

    return json.loads(response.text, parse_constant=refuse)


@pytest.fixture
def survivor(limited_server) -> Iterator[None]:
    """Whatever a test has sent through the models, the next recording is heard in full."""
    yield
    body = answer(send(limited_server, RECORDING))

    assert body["transcript"] == WORDS
    assert body["warnings"] == []
    assert [segment["speaker"] for segment in body["segments"]] == ["SPEAKER_00"]


# What is heard


@pytest.mark.parametrize("name", SOUND)
def test_an_odd_file_is_heard(limited_server, name):
    """However it was written, its words have times and a speaker."""
    body = answer(send(limited_server, SOUND[name]()))

    assert (body["transcript"], body["warnings"]) == (WORDS, [])
    words = [word for segment in body["segments"] for word in segment["words"]]
    assert [word["word"] for word in words] == WORDS.split()
    assert {word["speaker"] for word in words} == {"SPEAKER_00"}


@pytest.mark.parametrize("name", HALVES)
def test_what_is_there_of_half_a_file_is_heard(limited_server, name):
    """An upload of what broke off is worth its first half."""
    body = answer(send(limited_server, HALVES[name]()))

    assert body["transcript"].startswith(WORDS)
    assert all(segment["words"] for segment in body["segments"])


def quiet(seconds: float) -> np.ndarray:
    return np.zeros(int(seconds * SAMPLE_RATE), np.int16)


def spoken(seconds: float, start: float = 0.5) -> np.ndarray:
    """So much of the recording, from within its first word on."""
    first = int(start * SAMPLE_RATE)
    return recording_samples()[first : first + int(seconds * SAMPLE_RATE)]


def wav(samples: np.ndarray) -> bytes:
    return encode(samples, "wav", "pcm_s16le")


def float_wav(samples: np.ndarray) -> bytes:
    """A WAV file of 32-bit floats (format 3), whatever they are."""
    data = samples.astype("<f4").tobytes()
    rate = SAMPLE_RATE
    head = struct.pack(
        "<4sIHHIIHH4sI", b"fmt ", 16, 3, 1, rate, rate * 4, 4, 32, b"data", len(data)
    )
    return b"RIFF" + struct.pack("<I", 4 + len(head) + len(data)) + b"WAVE" + head + data


def with_every(number: float, step: int) -> np.ndarray:
    samples = recording_samples().astype(np.float32) / 32768
    samples[::step] = number
    return samples


STRANGE: dict[str, Callable[[], bytes]] = {
    "one sample": lambda: wav(spoken(1.1 / SAMPLE_RATE)),
    "0.01 s": lambda: wav(spoken(0.01)),
    "0.05 s": lambda: wav(spoken(0.05)),
    "0.1 s": lambda: wav(spoken(0.1)),
    "0.19 s": lambda: wav(spoken(0.19)),
    "0.2 s": lambda: wav(spoken(0.2)),
    "0.5 s": lambda: wav(spoken(0.5)),
    "0.01 s of silence": lambda: wav(quiet(0.01)),
    "silence": lambda: wav(quiet(3)),
    "a minute of silence": lambda: encode(quiet(60), "flac", "flac"),
    "one loud sample": lambda: wav(np.eye(1, SAMPLE_RATE, 8000, dtype=np.int16)[0] * 32767),
    "as loud as can be": lambda: wav(np.where(recording_samples() > 0, 32767, -32768).astype("i2")),
    "noise": lambda: wav(np.random.default_rng(0).integers(-9000, 9000, 32_000).astype(np.int16)),
    "a constant": lambda: wav(quiet(2) + np.int16(20_000)),
    "NaN": lambda: float_wav(np.full(32_000, np.nan)),
    "some NaN": lambda: float_wav(with_every(np.nan, 7)),
    "infinity": lambda: float_wav(with_every(np.inf, 100)),
    "far too loud": lambda: float_wav(with_every(0.0, 100) * 1e30),
}


@pytest.mark.usefixtures("survivor")
@pytest.mark.parametrize("path", ROUTES)
@pytest.mark.parametrize("name", STRANGE)
def test_strange_sound_is_answered(limited_server, name, path):
    """Too short for a model, silent, or no numbers at all: an answer, be it empty."""
    body = answer(send(limited_server, STRANGE[name](), path))

    duration = body.get("duration", math.inf)
    for segment in body["segments"]:
        assert 0 <= segment["start"] <= segment["end"] <= duration + 0.01
    if "silence" in name or name in {"NaN", "a constant"}:
        assert body["segments"] == []


@pytest.mark.usefixtures("survivor")
@pytest.mark.parametrize(
    "fields",
    [
        {"num_speakers": 20},
        {"num_speakers": 50},
        {"min_speakers": 20},
        {"min_speakers": 40, "max_speakers": 50},
    ],
    ids=str,
)
@pytest.mark.parametrize("path", ["/transcribe", "/v1/audio/diarization"])
def test_more_speakers_than_voices_are_not_made_up(limited_server, path, fields):
    """The clustering cannot; as many as there are is told, and a warning."""
    body = answer(send(limited_server, RECORDING, path, **fields))

    assert [warning["code"] for warning in body["warnings"]] == ["speaker_count_not_met"]
    assert {segment["speaker"] for segment in body["segments"]} == {"SPEAKER_00"}


@pytest.mark.parametrize("recording", ["silence", "0.01 s", "0.5 s"])
def test_speakers_of_silence_are_none(limited_server, recording):
    """Asking for twenty does not make it an error."""
    body = answer(send(limited_server, STRANGE[recording](), num_speakers=20))

    assert {segment["speaker"] for segment in body["segments"]} <= {"SPEAKER_00", None}


# What is refused


@pytest.mark.parametrize("path", ROUTES)
@pytest.mark.parametrize("name", NO_AUDIO)
def test_what_is_no_audio_is_refused(limited_server, name, path):
    """Trying again is in vain."""
    response = send(limited_server, NO_AUDIO[name], path)

    assert refusal(response) == (415, "file", "not_audio")


@pytest.mark.parametrize("path", ROUTES)
@pytest.mark.parametrize(
    ("recording", "content_type"),
    [
        pytest.param(RECORDING[:40] + bytes(4), "audio/wav", id="header without samples"),
        pytest.param(b"", "audio/pcm", id="no samples"),
        pytest.param(b"\1", "audio/pcm", id="half a sample"),
    ],
)
def test_sound_without_a_sample_is_refused(limited_server, path, recording, content_type):
    """Of whisperX it is a ValueError; here it is the request's fault."""
    response = send(limited_server, recording, path, content_type)

    assert refusal(response) == (400, "file", "invalid_audio")


def test_samples_without_a_header_may_be_few(limited_server):
    """`encode=false` says that there is no header; nothing in it is no audio, and one is little."""
    own = {"output": "json", "encode": "false"}
    nothing = send(limited_server, b"", "/asr", **own)
    something = send(limited_server, b"\0\0", "/asr", **own)

    assert refusal(nothing) == (400, "file", "invalid_audio")
    assert answer(something)["segments"] == []


@cache
def hours() -> bytes:
    """Ten hours of silence in 200 kB."""
    return endless_flac()


@pytest.mark.parametrize("told", [True, False])
@pytest.mark.parametrize("path", ROUTES)
def test_a_recording_of_hours_is_refused_fast(limited_server, path, told):
    """Whether its header tells the length or decoding finds it out."""
    recording = hours() if told else without_length(hours())
    began = time.monotonic()
    response = send(limited_server, recording, path)
    seconds = time.monotonic() - began

    assert refusal(response) == (400, "file", "audio_too_long")
    assert seconds < 5


@pytest.mark.parametrize("path", ROUTES)
@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"min_speakers": 3, "max_speakers": 2}, "min_speakers"),
        ({"min_speakers": 0}, "min_speakers"),
        ({"max_speakers": 0}, "max_speakers"),
        ({"max_speakers": 51}, "max_speakers"),
        ({"min_speakers": -1}, "min_speakers"),
        ({"min_speakers": "two"}, "min_speakers"),
        ({"max_speakers": "1.5"}, "max_speakers"),
    ],
    ids=str,
)
def test_impossible_numbers_of_speakers_are_refused(limited_server, path, fields, param):
    """The field at fault is named."""
    response = send(limited_server, RECORDING, path, **fields)

    assert refusal(response) == (400, param, "invalid_value")


def test_a_number_of_speakers_beyond_its_own_limits_is_refused(limited_server):
    """Each of the three may be right by itself."""
    response = send(limited_server, RECORDING, num_speakers=4, min_speakers=1, max_speakers=3)

    assert refusal(response) == (400, "num_speakers", "invalid_value")


# Voices that the client knows


def data_url(recording: bytes, media_type: str = "audio/wav") -> str:
    return f"data:{media_type};base64,{base64.b64encode(recording).decode()}"


@pytest.mark.parametrize("path", ["/transcribe", "/v1/audio/diarization"])
@pytest.mark.parametrize(
    "reference",
    [
        pytest.param("https://example.com/ada.wav", id="an address"),
        pytest.param("file:///etc/passwd", id="a file"),
        pytest.param(base64.b64encode(RECORDING).decode()[:1000], id="bare base64"),
        pytest.param("data:audio/wav,abc", id="no base64"),
        pytest.param("data:audio/wav;base64", id="no comma"),
        pytest.param("data:audio/wav;base64,", id="nothing"),
        pytest.param("data:audio/wav;base64,@@@@", id="no letters of base64"),
        pytest.param("data:audio/wav;base64,AAA", id="broken off"),
        pytest.param("data:audio/wav;base64,été=", id="not ASCII"),
        pytest.param(data_url(b"hello"), id="text"),
        pytest.param(data_url(NO_AUDIO["zip"][:5000]), id="zip"),
        pytest.param(data_url(RECORDING[:44]), id="header alone"),
        pytest.param(data_url(NO_AUDIO["playlist"]), id="playlist"),
        pytest.param(data_url(wav(spoken(0.9))), id="too short"),
        pytest.param(data_url(encode(quiet(31), "flac", "flac"), "audio/flac"), id="too long"),
    ],
)
def test_a_known_voice_that_cannot_be_heard_is_refused(limited_server, path, reference):
    """Before any work, and whose it is; nothing is fetched from where it points."""
    response = send(
        limited_server,
        RECORDING,
        path,
        **{"known_speaker_names[]": "Ada", "known_speaker_references[]": reference},
    )

    assert refusal(response) == (400, "known_speaker_references", "invalid_value")
    assert len(response.json()["detail"]) < 300


@pytest.mark.parametrize(
    ("names", "count"),
    [(["Ada", "Bo"], 1), (["Ada"], 2), ([], 1), (["Ada"], 0), (["Ada", "Ada"], 2), ([*"abcde"], 5)],
    ids=str,
)
def test_names_and_voices_that_do_not_agree_are_refused(limited_server, names, count):
    """As many of one as of the other, each name once, four at most."""
    response = send(
        limited_server,
        RECORDING,
        **{
            "known_speaker_names[]": names,
            "known_speaker_references[]": [data_url(wav(spoken(1.5)))] * count,
        },
    )

    status, param, code = refusal(response)
    assert (status, code) == (400, "invalid_value")
    assert param in {"known_speaker_names", "known_speaker_references"}


@pytest.mark.usefixtures("survivor")
@pytest.mark.parametrize("voice", ["silence", "noise", "NaN", "a constant"])
def test_a_known_voice_that_is_none_is_told(limited_server, voice):
    """The others are told apart without it."""
    body = answer(
        send(
            limited_server,
            RECORDING,
            **{
                "known_speaker_names[]": "Ada",
                "known_speaker_references[]": data_url(STRANGE[voice]()),
            },
        )
    )

    assert body["transcript"] == WORDS
    assert [warning["code"] for warning in body["warnings"]] == ["no_voice"]
    assert {segment["speaker"] for segment in body["segments"]} == {"SPEAKER_00"}


# After all of them


@pytest.mark.usefixtures("survivor")
def test_nothing_is_left_open(limited_server):
    """No file of a request outlives it, refused or not; and the next one is heard."""
    for path in ROUTES:
        for upload in (NO_AUDIO["png"], bytes(2_000_000), RECORDING):
            send(limited_server, upload, path)

    assert limited_server.open_uploads() == []
    assert limited_server.files_left() == []
