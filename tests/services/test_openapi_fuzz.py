"""Whatever a client makes of /openapi.json is answered as the document says, and never by a 5xx.

schemathesis makes the requests up: right ones, nearly right ones, and wrong ones. They are the same
in every run. A failure prints the request that failed, as a curl command.
"""

import json
from collections.abc import Iterator

import httpx
import pytest
from schemathesis import BaseSchema, GenerationMode
from schemathesis.transport.serialization import Binary

from services.transcription.formats import FORMATS
from tests.services.fuzzing import (
    CHECKS,
    PNG,
    SHORT_RECORDING,
    Meaning,
    assert_no_field_is_null,
    assert_successes_are_documented,
    find,
    load_api,
    operations,
    responses,
    try_limits,
    try_many,
    zip_archive,
)
from tests.services.sounds import RECORDING, WORDS
from tests.services.speech_server import FASTER_WHISPER, SpeechServer, run_server

LIMITS = {"MAX_WAITING": "64", "MAX_UPLOAD": "1MB", "WHISPER__FETCH": "none"}
OPERATIONS = [
    "GET /api/ps",
    "DELETE /api/ps/{name}",
    "POST /api/ps/{name}",
    "GET /busy",
    "GET /health",
    "GET /metrics",
    "GET /ready",
    "POST /v1/audio/speech/timestamps",
    "POST /v1/audio/transcriptions",
    "POST /v1/audio/translations",
    "GET /v1/models",
    "GET /v1/models/{name}",
    "POST /v1/models/{name}",
]
AUDIO_OPERATIONS = [label for label in OPERATIONS if "/v1/audio/" in label]

# Where the document allows any text, and only some of it means something.
MEANING = Meaning(
    fields={
        "model": [*["model", "whisper-1", "gpt-4o-transcribe"] * 3, "absent", ""],
        "language": ["en", "French", "", "xx"],
        "languages[]": [["en", "fr"], ["en"], [], ["xx"]],
        "keywords[]": [["three"], []],
        "chunking_strategy": ["auto", '{"type": "server_vad", "threshold": 0.4}', "{}", ""],
    },
    path={"name": ["model", "whisper-1", "absent/model", "tiny"]},
)


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[SpeechServer]:
    """One process for all requests: nothing that one of them does may harm another."""
    with run_server(FASTER_WHISPER, tmp_path_factory.mktemp("fuzz"), LIMITS) as running:
        yield running


@pytest.fixture(scope="module")
def api(server) -> BaseSchema:
    """The service as it describes itself."""
    return load_api(server.url)


@pytest.fixture(scope="module")
def document(server) -> dict:
    """The OpenAPI document."""
    return httpx.get(server.url + "/openapi.json").json()


# The document


def test_the_document_is_valid(api):
    """It is OpenAPI 3.1, as the schema of OpenAPI itself has it."""
    assert api.raw_schema["openapi"].startswith("3.1")
    api.validate()


def test_every_operation_is_tried(document):
    """The tests below know all that the document has."""
    assert sorted(OPERATIONS) == operations(document)


@pytest.mark.parametrize("label", OPERATIONS)
def test_every_success_has_a_documented_body(document, label):
    """For each 2xx of each operation, the document tells what comes back."""
    assert_successes_are_documented(document, label)


@pytest.mark.parametrize("label", AUDIO_OPERATIONS)
def test_no_form_field_is_documented_as_null(document, label):
    """A form has no null: clients that go by the document would send the word, and mean nothing."""
    assert_no_field_is_null(document, label)


@pytest.mark.parametrize("label", OPERATIONS)
def test_every_operation_documents_its_refusals(document, label):
    """A key may be missing, a queue full, a model on its way; only these two refuse nothing."""
    refusals = [status for status in responses(document, label) if status[0] in "45"]

    assert refusals or label in {"GET /health", "GET /busy"}


# Answers


@pytest.mark.parametrize("label", ["POST /v1/audio/transcriptions", "POST /v1/audio/translations"])
@pytest.mark.parametrize("response_format", FORMATS)
def test_each_format_is_answered_as_documented(api, label, response_format):
    """What carries real words has a documented type and shape."""
    body = {"file": Binary(RECORDING), "model": "whisper-1", "response_format": response_format}
    case = find(api, label).Case(body=body, media_type="multipart/form-data")

    assert 200 == case.call_and_validate(checks=CHECKS, timeout=30).status_code


@pytest.mark.parametrize(
    "options",
    [
        {"stream": "true"},
        {"include[]": ["logprobs"]},
        {"response_format": "verbose_json", "timestamp_granularities[]": ["word", "segment"]},
        {"response_format": "verbose_json", "task": "translate"},
    ],
    ids=str,
)
def test_each_option_is_answered_as_documented(api, options):
    """What adds to an answer is documented too."""
    body = {"file": Binary(RECORDING), "model": "whisper-1", **options}
    case = find(api, "POST /v1/audio/transcriptions").Case(
        body=body, media_type="multipart/form-data"
    )

    assert 200 == case.call_and_validate(checks=CHECKS, timeout=30).status_code


# Made up requests


@pytest.mark.parametrize(
    ("label", "mode"),
    [
        *((label, GenerationMode.POSITIVE) for label in OPERATIONS),
        # The others take nothing that could be wrong.
        *(
            (label, GenerationMode.NEGATIVE)
            for label in OPERATIONS
            if label in AUDIO_OPERATIONS or "{" in label
        ),
    ],
    ids=str,
)
def test_made_up_requests_are_answered_as_documented(api, label, mode):
    """Right or wrong, each gets a documented status, and a body of the documented shape."""
    operation = find(api, label)
    examples = 100 if label in AUDIO_OPERATIONS else 20
    statuses = try_many(operation, mode, MEANING, examples=examples)
    # Or else nothing but refusals was tried.
    assert mode is GenerationMode.NEGATIVE or min(statuses) < 300, statuses


@pytest.mark.parametrize("label", OPERATIONS)
def test_requests_at_the_limits_are_answered_as_documented(api, label):
    """Every bound of every field from both sides, every field left out, every type mistaken."""
    try_limits(api, find(api, label), {"model": "whisper-1"})


# Spellings


def post(server: SpeechServer, fields: list[tuple[str, str]]) -> httpx.Response:
    """Send fields as they are, with the recording, and with a model unless they name one."""
    if not any(name == "model" for name, _ in fields):
        fields = [("model", "whisper-1"), *fields]
    # As parts without a file name; httpx would take a list of pairs for a raw body.
    parts = [(name, (None, value)) for name, value in fields]
    file = ("file", ("recording", SHORT_RECORDING))
    return httpx.post(server.transcriptions, files=[*parts, file], timeout=30)


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param([("languages", "en"), ("languages", "fr")], id="list without brackets"),
        pytest.param([("languages[]", "en"), ("languages[]", "fr")], id="list"),
        pytest.param([("languages[0]", "en"), ("languages[1]", "fr")], id="list with numbers"),
        pytest.param([("languages", '["en", "fr"]')], id="list as JSON"),
        pytest.param([("languages", "en,fr")], id="list with commas"),
        pytest.param([("timestamp_granularities", "segment")], id="granularity without brackets"),
        pytest.param([("chunking_strategy", "auto")], id="chunking by name"),
        pytest.param(
            [("chunking_strategy", json.dumps({"type": "server_vad", "threshold": 0.4}))],
            id="chunking as JSON",
        ),
        pytest.param(
            [("chunking_strategy[type]", "server_vad"), ("chunking_strategy[threshold]", "0.4")],
            id="chunking by keys",
        ),
        pytest.param([("stream", "false")], id="no stream"),
        pytest.param([("stream", "False")], id="no stream, as Python has it"),
        pytest.param([("stream", "0")], id="no stream, as a number"),
        pytest.param([("temperature", "0.0"), ("temperature", "0")], id="a field twice"),
        pytest.param([("x" * 1000, "unknown")], id="unknown field"),
        pytest.param(
            [
                (name, "")
                for name in (
                    *("language", "languages[]", "prompt", "hotwords", "keywords[]", "include[]"),
                    *("response_format", "temperature", "timestamp_granularities[]", "stream"),
                    *("chunking_strategy", "vad_filter", "vad_threshold", "without_timestamps"),
                    *("task", "diarize", "known_speaker_names[]", "seed"),
                )
            ],
            id="all empty",
        ),
    ],
)
def test_other_spellings_are_understood(server, fields):
    """However a client writes lists, objects, booleans and nothing, the words come back."""
    response = post(server, fields)

    assert (200, WORDS) == (response.status_code, response.json().get("text"))


@pytest.mark.parametrize(
    ("fields", "status", "param"),
    [
        ([("model", "")], 400, "model"),
        ([("model", " ")], 400, "model"),
        ([("model", "\0")], 404, "model"),
        ([("model", "../../etc")], 404, "model"),
        ([("model", "m" * 60_000)], 404, "model"),
        ([("temperature", "6.8e16")], 400, "temperature"),
        ([("temperature", "1e999")], 400, "temperature"),
        ([("temperature", "-0.0001")], 400, "temperature"),
        ([("temperature", "0x0")], 400, "temperature"),
        ([("temperature", "null")], 400, "temperature"),
        ([("stream", "maybe")], 400, "stream"),
        ([("language", "\ud7ff")], 400, "language"),
        ([("languages", "[[]]")], 400, "languages"),
        ([("languages", '{"en": 1}')], 400, "languages"),
        ([("chunking_strategy", "[" * 50_000)], 400, "chunking_strategy"),
        ([("chunking_strategy", '{"type": "server_vad", "threshold": 7}')], 400, None),
        ([("chunking_strategy[type]", "client_vad")], 400, None),
        ([("chunking_strategy", '{"type": {"type": "server_vad"}}')], 400, None),
        ([("vad_speech_pad_ms", "9" * 5000)], 400, "vad_speech_pad_ms"),
        ([("vad_max_speech_duration_s", "inf")], 400, "vad_max_speech_duration_s"),
        ([("timestamp_granularities[]", "sentence")], 400, "timestamp_granularities"),
    ],
    ids=lambda value: str(value)[:60],
)
def test_what_cannot_be_meant_is_refused(server, fields, status, param):
    """A wrong value is the client's fault, and the field is named."""
    response = post(server, fields)
    error = response.json()["error"]

    assert status == response.status_code, error
    assert error["param"] == (param or "chunking_strategy")


@pytest.mark.parametrize("file", [b"", zip_archive(), PNG], ids=["empty", "zip", "png"])
@pytest.mark.parametrize("path", ["transcriptions", "translations", "speech/timestamps"])
def test_what_is_no_audio_is_the_clients_fault(server, path, file):
    """Each route that takes a recording refuses what is none."""
    response = httpx.post(
        f"{server.url}/v1/audio/{path}",
        files={"file": ("recording", file)},
        data={"model": "whisper-1"},
    )

    assert (415, "not_audio") == (response.status_code, response.json()["error"]["code"])


def test_nothing_that_was_made_up_harmed_the_service(server):
    """After all of them it hears as before, holds no file, and is not busy."""
    response = post(server, [])

    assert WORDS == response.json()["text"]
    assert server.open_uploads() == []
    assert not server.is_busy()
