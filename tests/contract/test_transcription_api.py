"""What every speech service owes to clients of OpenAI's transcription API.

A service joins by a line in SERVICES: the tests then run it as a real process, on a tiny real
model. What OpenAI's API has and not every engine is marked by an ability of the service; what only
one service can do is tested in tests/services and tests/speech.
"""

import asyncio
import importlib.util
import math
import signal
import socket
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO

import httpx
import openai
import pytest

from tests.services.sounds import (
    FRENCH_RECORDING,
    FRENCH_WORDS,
    RECORDING,
    SAMPLE_RATE,
    WORDS,
    encode,
    long_recording,
    recording_samples,
)
from tests.services.speech_server import FASTER_WHISPER, SpeechServer, run_server, wait_for
from tests.speech.service import WHISPERX

# Two lanes in two environments: `make test` has no PyTorch, and `make test-speech`, which has it,
# need not show a second time what the other shows.
SERVICES = [WHISPERX if importlib.util.find_spec("whisperx") else FASTER_WHISPER]

UPLOAD_BYTES_MAX = 30_000_000


@pytest.fixture(scope="module", params=SERVICES, ids=lambda service: service.name)
def server(request, tmp_path_factory) -> Iterator[SpeechServer]:
    """One process for all tests that leave it as it was; a busy one has one place to wait."""
    environment = {"MAX_UPLOAD": str(UPLOAD_BYTES_MAX), "MAX_WAITING": "1"}
    folder = tmp_path_factory.mktemp(request.param.name)
    with run_server(request.param, folder, environment) as running:
        yield running


def send(server: SpeechServer, recording: bytes = RECORDING, **fields) -> httpx.Response:
    """Send a recording with form fields; a field of None is left out."""
    data = {"model": "whisper-1"} | fields
    return httpx.post(
        server.transcriptions,
        files={"file": ("recording.wav", recording)},
        data={name: value for name, value in data.items() if value is not None},
        timeout=60,
    )


def send_long(server: SpeechServer, seconds: float, **fields) -> httpx.Response:
    """Send a recording of that length as the tiny model hears it well."""
    return send(server, long_recording(seconds), **server.service.long_fields, **fields)


def refusal(response: httpx.Response) -> dict[str, str | None]:
    """Give the error of an answer, once its shape is right."""
    body = response.json()
    assert set(body) == {"error", "detail"}
    assert set(body["error"]) == {"message", "type", "param", "code"}
    assert body["error"]["message"] == body["detail"]
    assert response.headers["x-should-retry"] == "false"
    return body["error"]


# What comes back


def test_json_carries_the_words_and_the_seconds(server):
    """The answer is OpenAI's: the text, and the seconds rounded up."""
    response = send(server)

    seconds = math.ceil(len(recording_samples()) / 16_000)
    assert response.json() == {
        "text": WORDS,
        "languages": [{"code": "en"}],
        "usage": {"type": "duration", "seconds": seconds},
    }


def test_text_is_one_plain_line(server):
    """response_format=text gives the words and a line end, nothing else."""
    response = send(server, response_format="text")

    assert response.text == WORDS + "\n"
    assert response.headers["content-type"].startswith("text/plain")


def test_the_language_is_detected(server):
    """Without a language, French is heard as French."""
    response = send(server, FRENCH_RECORDING, language="")

    assert response.json()["text"] == FRENCH_WORDS


@pytest.mark.parametrize("language", ["fr", "FR", "french", "French"])
def test_a_language_goes_by_code_and_by_name(server, language):
    """Both spellings are taken, in either case."""
    response = send(server, FRENCH_RECORDING, language=language)

    assert response.json()["text"] == FRENCH_WORDS


@pytest.mark.parametrize(
    ("container", "codec"),
    [("flac", "flac"), ("ipod", "aac"), ("mp3", "libmp3lame"), ("webm", "libopus")],
)
def test_the_usual_formats_are_heard(server, container, codec):
    """Lossy or not, index first or last: the words are the same."""
    recording = encode(recording_samples(), container, codec, rate=48_000)

    assert send(server, recording).json()["text"] == WORDS


@pytest.mark.parametrize("temperature", ["", "0", "0.0"])
def test_no_temperature_is_taken_by_all(server, temperature):
    """Clients send OpenAI's default unasked."""
    assert send(server, temperature=temperature).json()["text"] == WORDS


# Fields that ask for what an ability of the service gives.
ABILITIES = [
    ("temperature", {"temperature": "0.2"}, "temperature"),
    ("temperature", {"temperature": "1"}, "temperature"),
    ("logprobs", {"include[]": "logprobs"}, "include"),
]


@pytest.mark.parametrize(("ability", "fields", "param"), ABILITIES)
def test_what_an_engine_cannot_do_is_refused(server, ability, fields, param):
    """It is done, or refused by name with another service that does it: never ignored."""
    response = send(server, **fields)

    if ability in server.service.abilities:
        assert response.status_code == 200
        return
    assert response.status_code == 400
    error = refusal(response)
    assert (error["param"], error["code"]) == (param, "unsupported_parameter")
    assert "services/faster_whisper" in error["message"]


def test_silence_is_an_empty_text(server):
    """Nobody spoke, so nothing is written, in no language: that is no error."""
    silence = encode(recording_samples() * 0, "wav", "pcm_s16le")
    plain, verbose = (
        send(server, silence, response_format=name).json() for name in ("json", "verbose_json")
    )

    assert (plain["text"], plain["languages"]) == ("", [])
    assert (verbose["text"], verbose["language"], verbose["segments"]) == ("", "und", [])


def test_verbose_json_tells_segments_and_their_times(server):
    """Whisper's figures beside them; words are null unless asked for."""
    verbose = send(server, response_format="verbose_json").json()
    (segment,) = verbose["segments"]

    assert (verbose["task"], verbose["language"], verbose["text"]) == ("transcribe", "en", WORDS)
    assert verbose["duration"] == pytest.approx(len(recording_samples()) / SAMPLE_RATE, abs=0.001)
    assert verbose["words"] is None
    assert (segment["id"], segment["text"].strip()) == (0, WORDS)
    assert 0 <= segment["start"] < segment["end"] <= verbose["duration"]


@pytest.mark.parametrize("name", ["timestamp_granularities[]", "timestamp_granularities"])
def test_verbose_json_tells_words_and_their_times(server, name):
    """In order, with segments beside them, however the list is spelt."""
    verbose = send(server, response_format="verbose_json", **{name: ["word"]}).json()
    times = [time for word in verbose["words"] for time in (word["start"], word["end"])]

    assert [word["word"] for word in verbose["words"]] == WORDS.split()
    assert times == sorted(times)
    assert len(verbose["segments"]) == 1


def test_subtitles_hold_the_words(server):
    """SubRip as plain text, WebVTT under its own type, a table of tabs."""
    answers = {name: send(server, response_format=name) for name in ("srt", "vtt", "tsv")}
    types = [answer.headers["content-type"].partition(";")[0] for answer in answers.values()]

    assert types == ["text/plain", "text/vtt", "text/tab-separated-values"]
    assert answers["srt"].text.startswith("1\n00:00:00,")
    assert answers["vtt"].text.startswith("WEBVTT\n\n00:00:00.")
    assert answers["tsv"].text.startswith("start\tend\ttext\n")
    assert all(WORDS in answer.text for answer in answers.values())


def test_log_probabilities_come_with_json(server):
    """One for each word, none above 0; without being asked for there are none."""
    if "logprobs" not in server.service.abilities:
        pytest.skip(f"{server.service.name} has none, and says so")
    logprobs = send(server, **{"include[]": "logprobs"}).json()["logprobs"]

    assert [item["token"].strip() for item in logprobs] == WORDS.split()
    assert all(item["logprob"] <= 0 for item in logprobs)
    assert bytes(logprobs[0]["bytes"]).decode() == logprobs[0]["token"]
    assert "logprobs" not in send(server).json()


def test_a_translation_is_english(server):
    """By its own route, or by the field that other servers have."""
    by_route = httpx.post(
        server.url + "/v1/audio/translations",
        files={"file": ("a.wav", FRENCH_RECORDING)},
        data={"model": "whisper-1", "response_format": "verbose_json"},
        timeout=60,
    ).json()
    by_field = send(server, FRENCH_RECORDING, task="translate")

    assert (by_route["task"], by_route["language"]) == ("translate", "english")
    assert by_route["text"] == by_field.json()["text"] == WORDS


def test_passages_with_speech_are_told(server):
    """In milliseconds; no model is named."""
    response = httpx.post(
        server.url + "/v1/audio/speech/timestamps",
        files={"file": ("a.wav", RECORDING)},
        data={"vad_speech_pad_ms": "0"},
        timeout=60,
    )
    (passage,) = response.json()

    assert 0 <= passage["start"] < 700
    assert 2000 < passage["end"] <= 3202


# Streams


def test_openai_client_reads_a_stream(server):
    """The pieces are those of the whole text, which the last event repeats."""
    with openai.OpenAI(base_url=server.url + "/v1", api_key="unused") as client:
        *deltas, done = client.audio.transcriptions.create(
            file=("recording.wav", RECORDING), model="whisper-1", stream=True
        )

    assert "".join(event.delta for event in deltas) == WORDS
    assert (done.type, done.text) == ("transcript.text.done", WORDS)


async def test_a_stream_begins_with_the_first_segment(server):
    """Long before the last: the client reads while the model works."""
    async with httpx.AsyncClient(timeout=60) as client:
        request = client.build_request(
            "POST",
            server.transcriptions,
            files={"file": ("long.wav", long_recording(server.service.shorter_seconds))},
            data={"model": "whisper-1", "stream": "true"} | server.service.long_fields,
        )
        response = await client.send(request, stream=True)
        arrived = [
            time.monotonic() async for line in response.aiter_lines() if line.startswith("data:")
        ]

    assert response.headers["content-type"].startswith("text/event-stream")
    assert len(arrived) > 10
    assert arrived[-1] - arrived[0] > 5 * (arrived[1] - arrived[0])


async def test_a_client_that_leaves_a_stream_frees_its_place(server):
    """The rest of its recording is not worked on."""
    async with httpx.AsyncClient(timeout=60) as client:
        request = client.build_request(
            "POST",
            server.transcriptions,
            files={"file": ("long.wav", long_recording(server.service.long_seconds))},
            data={"model": "whisper-1", "stream": "true"} | server.service.long_fields,
        )
        response = await client.send(request, stream=True)
        await anext(response.aiter_lines())
        await response.aclose()
    await asyncio.to_thread(server.await_busy, False, 3.0)

    assert server.open_uploads() == []


# OpenAI's own client


def test_openai_client_reads_the_text(server):
    """The official client works with nothing but a base_url."""
    with openai.OpenAI(base_url=server.url + "/v1", api_key="unused") as client:
        answer = client.audio.transcriptions.create(
            file=("recording.wav", RECORDING), model="whisper-1", temperature=0, language="en"
        )

    assert answer.text == WORDS


async def test_openai_async_client_reads_plain_text(server):
    """The asynchronous client gets plain text as a string."""
    async with openai.AsyncOpenAI(base_url=server.url + "/v1", api_key="unused") as client:
        answer = await client.audio.transcriptions.create(
            file=("recording.wav", RECORDING), model="gpt-4o-transcribe", response_format="text"
        )

    assert answer == WORDS + "\n"


@pytest.mark.parametrize(
    ("options", "exception", "code", "param"),
    [
        ({"model": "absent"}, openai.NotFoundError, "model_not_found", "model"),
        ({"language": "klingon"}, openai.BadRequestError, "invalid_value", "language"),
        (
            {"chunking_strategy": {"type": "manual"}},
            openai.BadRequestError,
            "invalid_value",
            "chunking_strategy",
        ),
        (
            {"timestamp_granularities": ["word"]},
            openai.BadRequestError,
            "invalid_value",
            "timestamp_granularities",
        ),
        ({"file": ("a.wav", b"noise")}, openai.APIStatusError, "not_audio", "file"),
    ],
)
def test_openai_client_raises_the_right_error(server, options, exception, code, param):
    """Its exception classes, and the code and field inside, tell what was wrong."""
    options = {"file": ("recording.wav", RECORDING), "model": "whisper-1"} | options
    client = openai.OpenAI(base_url=server.url + "/v1", api_key="unused")
    with client, pytest.raises(exception) as raised:
        client.audio.transcriptions.create(**options)

    assert raised.value.code == code
    assert raised.value.param == param
    assert raised.value.type == "invalid_request_error"


def test_openai_client_lists_the_model(server):
    """The listed id is one that can be asked for."""
    with openai.OpenAI(base_url=server.url + "/v1", api_key="unused") as client:
        listed = [model.id for model in client.models.list()]
        described = client.models.retrieve(listed[0])

    assert listed == [described.id]
    assert send(server, model=listed[0]).status_code == 200


# What is refused


def zip_archive() -> bytes:
    target = BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        archive.writestr("recording.wav", RECORDING)
    return target.getvalue()


PNG = (
    b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\1\0\0\0\1\x08\6\0\0\0\x1f\x15\xc4\x89"
    b"\0\0\0\nIDATx\x9cc\0\1\0\0\5\0\1\r\n-\xb4\0\0\0\0IEND\xaeB`\x82"
)


@pytest.mark.parametrize(
    "upload",
    [
        pytest.param(b"", id="empty"),
        pytest.param(zip_archive(), id="zip"),
        pytest.param(PNG, id="png"),
        pytest.param(bytes(range(256)) * 40, id="garbage"),
        pytest.param(b"hello, world\n" * 100, id="text"),
        pytest.param(RECORDING[:20], id="half a header"),
        pytest.param(encode(recording_samples(), "ipod", "aac")[:5000], id="m4a without index"),
        pytest.param(b"ffconcat version 1.0\nfile README.md\n", id="playlist"),
    ],
)
def test_what_is_no_audio_is_refused(server, upload):
    """The client learns that the file is at fault, and that trying again is in vain."""
    response = send(server, upload)

    assert response.status_code == 415
    error = refusal(response)
    assert (error["param"], error["code"]) == ("file", "not_audio")


@pytest.mark.parametrize(
    ("fields", "status", "param"),
    [
        ({"model": ""}, 400, "model"),
        ({"model": None}, 400, "model"),
        ({"model": "absent/model"}, 404, "model"),
        ({"language": "xx"}, 400, "language"),
        ({"temperature": "-0.1"}, 400, "temperature"),
        ({"temperature": "1.01"}, 400, "temperature"),
        ({"temperature": "6.8e16"}, 400, "temperature"),
        ({"temperature": "nan"}, 400, "temperature"),
        ({"temperature": "warm"}, 400, "temperature"),
        ({"response_format": "docx"}, 400, "response_format"),
        ({"stream": "true", "response_format": "vtt"}, 400, "stream"),
        ({"timestamp_granularities[]": "word"}, 400, "timestamp_granularities"),
        ({"timestamp_granularities[]": "syllable"}, 400, "timestamp_granularities"),
        ({"include[]": "usage"}, 400, "include"),
        ({"chunking_strategy[type]": "manual"}, 400, "chunking_strategy"),
        ({"task": "sing"}, 400, "task"),
        ({"seed": "7"}, 400, "seed"),
    ],
)
def test_a_field_that_cannot_work_is_named(server, fields, status, param):
    """A wrong or unsupported value is refused, never ignored, and the field is named."""
    response = send(server, **fields)

    assert response.status_code == status
    assert refusal(response)["param"] == param


@pytest.mark.parametrize(
    ("fields", "allowed"),
    [
        ({"language": "xx"}, "fr (french)"),
        ({"model": "absent"}, "whisper-1"),
        ({"response_format": "docx"}, "json, text, srt, verbose_json, vtt"),
    ],
)
def test_a_refusal_says_what_is_allowed(server, fields, allowed):
    """Where there is a choice, the message lists it."""
    assert allowed in refusal(send(server, **fields))["message"]


@pytest.mark.parametrize(
    "fields",
    [
        {"stream": "false"},
        {"stream": ""},
        {"timestamp_granularities[]": "segment"},
        {"task": "transcribe"},
        {"user": "somebody"},
        {"prompt": "", "language": "", "response_format": "", "temperature": ""},
        {"prompt": "<|startoftranscript|><|endoftext|>\0 digits: é" * 500},
    ],
)
def test_a_field_that_asks_for_nothing_special_is_taken(server, fields):
    """Defaults, empty fields, unknown fields and odd prompts do not stop a request."""
    assert send(server, **fields).status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "options", "status"),
    [
        ("GET", "/absent", {}, 404),
        ("GET", "/v1/models/absent/model", {}, 404),
        ("GET", "/v1/audio/transcriptions", {}, 405),
        ("POST", "/v1/audio/transcriptions", {}, 415),
        ("POST", "/v1/audio/transcriptions", {"json": {"model": "whisper-1"}}, 415),
        ("POST", "/v1/audio/transcriptions", {"data": {"model": "whisper-1"}}, 415),
        ("POST", "/v1/audio/transcriptions", {"files": {"model": (None, "whisper-1")}}, 400),
        ("POST", "/v1/audio/transcriptions", {"files": {"file": (None, "text")}}, 400),
        ("POST", "/v1/audio/transcriptions", {"files": {"sound": ("a.wav", b"a")}}, 400),
        ("POST", "/v1/audio/transcriptions", {"files": [("file", ("a", b"a"))] * 2}, 400),
        (
            "POST",
            "/v1/audio/transcriptions",
            {"content": b"junk", "headers": {"content-type": "multipart/form-data; boundary=b"}},
            400,
        ),
        (
            "POST",
            "/v1/audio/transcriptions",
            {"content": b"junk", "headers": {"content-type": "multipart/form-data"}},
            400,
        ),
    ],
)
def test_every_refusal_has_one_shape(server, method, path, options, status):
    """Whoever refuses, framework or service: OpenAI's error object, and detail beside it."""
    response = httpx.request(method, server.url + path, **options)

    assert response.status_code == status
    refusal(response)


# Limits


def test_an_upload_past_the_limit_is_refused(server):
    """The announced length is enough to refuse, and the limit is named."""
    response = send(server, bytes(UPLOAD_BYTES_MAX + 1))

    assert response.status_code == 413
    assert str(UPLOAD_BYTES_MAX) in refusal(response)["message"]


def test_an_upload_of_unknown_length_is_refused_past_the_limit(server):
    """Chunks are counted as they come; the connection can be used again."""

    def chunks():
        yield b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n'
        # Known voices are fields of some megabytes, which a body may hold beside the file.
        for _ in range(UPLOAD_BYTES_MAX // 1_000_000 + 10):
            yield bytes(1_000_000)

    with httpx.Client(timeout=30) as client:
        response = client.post(
            server.transcriptions,
            content=chunks(),
            headers={"content-type": "multipart/form-data; boundary=b"},
        )

        assert response.status_code == 413
        refusal(response)
        assert client.get(server.url + "/health").status_code == 200


async def test_a_full_queue_refuses_with_retry_after(server):
    """One runs and one waits; the third is told to come later, and the first two are served."""
    async with httpx.AsyncClient(timeout=60) as client:
        seconds = server.service.shorter_seconds
        answers = await asyncio.gather(*(post(client, server, seconds) for _ in range(3)))

    served, also_served, refused = sorted(answers, key=lambda answer: answer.status_code)
    assert (served.status_code, also_served.status_code, refused.status_code) == (200, 200, 429)
    assert 1 <= int(refused.headers["retry-after"]) <= 120
    assert refused.json()["error"]["code"] == "queue_full"
    assert "x-should-retry" not in refused.headers


async def post(client: httpx.AsyncClient, server: SpeechServer, seconds: float) -> httpx.Response:
    return await client.post(
        server.transcriptions,
        files={"file": ("long.wav", long_recording(seconds))},
        data={"model": "whisper-1"} | server.service.long_fields,
    )


# While it works


@dataclass(frozen=True)
class LongRun:
    """A long transcription, and how long each /health took meanwhile."""

    answer: httpx.Response
    health_seconds: list[float]


# In a process of its own: this one is busy sending, and Python's threads wait for each other.
ASK_HEALTH = """
import http.client, sys, time
while True:
    began = time.monotonic()
    asked = http.client.HTTPConnection(sys.argv[1], timeout=60)
    asked.request("GET", "/health")
    answer = asked.getresponse().read()
    print(time.monotonic() - began, b'"status":"ok"' in answer, flush=True)
    asked.close()
    time.sleep(0.02)
"""


@pytest.fixture(scope="module")
def long_run(server) -> LongRun:
    """One for all tests: it takes several seconds."""
    address = httpx.URL(server.url).netloc.decode()
    command = [sys.executable, "-c", ASK_HEALTH, address]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as asking:
        answer = send_long(server, server.service.long_seconds)
        asking.terminate()
        assert asking.stdout is not None
        told = [line.split() for line in asking.stdout.read().splitlines()]
    assert {right for _, right in told} == {"True"}
    return LongRun(answer=answer, health_seconds=[float(seconds) for seconds, _ in told])


def test_health_answers_at_once_during_a_transcription(long_run):
    """The model never blocks the event loop: 99 of 100 within 0.1 s, and none takes a second."""
    took = sorted(long_run.health_seconds)

    assert len(took) > 20
    assert took[int(0.99 * len(took))] < 0.1
    assert took[-1] < 1.0


def test_a_long_recording_comes_back_whole(server, long_run):
    """It is more than a model takes at once; no part of it is missing or there twice."""
    repeats = server.service.long_seconds * SAMPLE_RATE / len(recording_samples())
    words = long_run.answer.json()["text"].split()

    assert len(words) == pytest.approx(repeats * len(WORDS.split()), rel=0.02)
    assert set(words) == set(WORDS.split())


async def test_a_client_that_leaves_frees_its_place(server):
    """Decoding stops at the next segment, so the next client need not wait for nobody."""
    async with httpx.AsyncClient(timeout=60) as client:
        seconds = server.service.long_seconds
        work = asyncio.ensure_future(post(client, server, seconds))
        await asyncio.to_thread(server.await_upload, len(long_recording(seconds)))
        await asyncio.sleep(0.5)  # into the decoding
        work.cancel()
        began = time.monotonic()
        await asyncio.to_thread(server.await_busy, False)
        freed_seconds = time.monotonic() - began

    assert freed_seconds < 3.0
    assert send(server).json()["text"] == WORDS


async def test_a_client_that_leaves_the_queue_frees_its_place(server):
    """Who waited and left makes room for another, while the first still runs."""
    async with httpx.AsyncClient(timeout=60) as client:
        seconds = server.service.long_seconds
        first = asyncio.ensure_future(post(client, server, seconds))
        await asyncio.to_thread(server.await_upload, len(long_recording(seconds)))
        for _ in range(3):  # there is one place to wait
            waiting = asyncio.ensure_future(post(client, server, 3.0))
            await asyncio.wait({waiting}, timeout=0.5)
            assert not waiting.done(), waiting.result().text
            waiting.cancel()
            await asyncio.sleep(0.2)  # until the server knows

        assert not first.done()
        first.cancel()
    await asyncio.to_thread(server.await_busy, False)


def test_a_client_that_leaves_while_sending_frees_its_place(server):
    """Half an upload leaves neither a place taken nor a file open."""
    url = httpx.URL(server.url)
    head = (
        f"POST /v1/audio/transcriptions HTTP/1.1\r\nHost: {url.netloc.decode()}\r\n"
        "Content-Type: multipart/form-data; boundary=b\r\nContent-Length: 20000000\r\n\r\n"
        '--b\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n'
    )
    with socket.create_connection((url.host, url.port)) as connection:
        connection.sendall(head.encode() + bytes(5_000_000))
        server.await_busy(True)
        wait_for(server.open_uploads, 10, "the upload to reach the disk")

    server.await_busy(False)
    assert server.open_uploads() == []


def test_no_upload_is_left_behind(server):
    """After success and refusal alike, the temporary folder is empty and no file is held."""
    send(server, long_recording(60))
    send(server, bytes(3_000_000))
    send(server, long_recording(60), language="xx")

    assert server.files_left() == []
    assert server.open_uploads() == []


def test_the_docs_describe_the_form(server):
    """The OpenAPI page knows the fields, though the form is read by hand."""
    schema = httpx.get(server.url + "/openapi.json").json()
    route = schema["paths"]["/v1/audio/transcriptions"]["post"]
    form = route["requestBody"]["content"]["multipart/form-data"]["schema"]

    assert form["required"] == ["file", "model"]
    assert "422" not in route["responses"]
    assert httpx.get(server.url + "/docs").status_code == 200


def test_probes_stay_out_of_the_log(server):
    """What an orchestrator asks every second is not worth a line each; requests are."""
    httpx.get(server.url + "/ready")
    httpx.get(server.url + "/v1/models")

    wait_for(lambda: "GET /v1/models" in server.log.read_text(), 5, "the access log")
    assert "GET /ready" not in server.log.read_text()


@pytest.mark.parametrize("service", SERVICES, ids=lambda service: service.name)
async def test_sigterm_finishes_the_running_request(service, tmp_path):
    """A stop lets the accepted request end, and then ends the process."""
    with run_server(service, tmp_path) as server:
        async with httpx.AsyncClient(timeout=60) as client:
            work = asyncio.ensure_future(post(client, server, service.shorter_seconds))
            await asyncio.to_thread(server.await_busy, True)
            server.terminate()
            answer = await work
        exit_status = await asyncio.to_thread(server.process.wait, 10)

    assert answer.status_code == 200
    assert answer.json()["text"].startswith(WORDS)
    assert exit_status in {0, -signal.SIGTERM}
