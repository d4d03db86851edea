"""Whatever a client makes of services/whisperx's /openapi.json is answered as the document says.

The parts are those of tests/services/test_openapi_fuzz.py; the shared routes were tried harder
there. 5xx only where something really is not here: a model, or what tells speakers apart.
"""

from collections import Counter
from collections.abc import Iterator

import httpx
import pytest
from schemathesis import BaseSchema, GenerationMode
from schemathesis.transport.serialization import Binary

from services.transcription.formats import ALL_FORMATS
from tests.services.fuzzing import (
    AS_DOCUMENTED,
    CHECKS,
    Meaning,
    assert_no_field_is_null,
    assert_successes_are_documented,
    find,
    load_api,
    operations,
    responses,
    try_limits,
    try_many,
)
from tests.services.sounds import RECORDING, WORDS
from tests.services.speech_server import SpeechServer, run_server
from tests.speech.service import WHISPERX

OWN = [
    "POST /asr",
    "POST /detect-language",
    "GET /status",
    "POST /transcribe",
    "POST /v1/audio/diarization",
]
# Here they take more fields than elsewhere.
WIDER = ["POST /v1/audio/transcriptions", "POST /v1/audio/translations"]
SHARED = [
    "GET /api/ps",
    "DELETE /api/ps/{name}",
    "POST /api/ps/{name}",
    "GET /busy",
    "GET /health",
    "GET /metrics",
    "GET /ready",
    "POST /v1/audio/speech/timestamps",
    "GET /v1/models",
    "GET /v1/models/{name}",
    "POST /v1/models/{name}",
]
OPERATIONS = OWN + WIDER + SHARED
UPLOADS = [label for label in OWN + WIDER if label != "GET /status"]

# Where the document allows any text, and only some of it means something.
LANGUAGES = ["en", "French", "", "xx"]
MODELS = [*["base", "whisper-1", ""] * 3, "absent", "tiny"]
COUNTS = [1, 2, 3]
FIELDS = {
    "language": LANGUAGES,
    "languages[]": [["en", "fr"], ["en"], [], ["xx"]],
    "keywords[]": [["three"], []],
    "chunking_strategy": ["auto", '{"type": "server_vad", "threshold": 0.4}', "{}", ""],
    "temperature": [0, 0, 0.5],
    "vad_filter": [True, True, False],
    "include[]": [[], ["logprobs"]],
    "known_speaker_names[]": [[], [], ["Ada"]],
    "known_speaker_references[]": [[], [], ["data:audio/wav;base64,AAAA"]],
    "num_speakers": COUNTS,
    "min_speakers": [1],
    "max_speakers": [3, 4],
}
MEANING = Meaning(fields=FIELDS | {"model": MODELS}, path={"name": ["base", "whisper-1", "absent"]})
# A diarization has no words, and so no model for them.
OF_SPEAKERS = Meaning(fields=FIELDS | {"model": ["", "", "base"]}, path={})


@pytest.fixture(scope="module")
def api(limited_server) -> BaseSchema:
    """The service as it describes itself."""
    return load_api(limited_server.url)


@pytest.fixture(scope="module")
def document(limited_server) -> dict:
    """The OpenAPI document."""
    return httpx.get(limited_server.url + "/openapi.json").json()


def meaning_of(label: str) -> Meaning:
    return OF_SPEAKERS if label == "POST /v1/audio/diarization" else MEANING


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


@pytest.mark.parametrize("label", UPLOADS)
def test_no_form_field_is_documented_as_null(document, label):
    """Clients that go by the document would send the word, and mean nothing."""
    assert_no_field_is_null(document, label)


@pytest.mark.parametrize("label", OPERATIONS)
def test_only_what_is_answered_is_documented(document, label):
    """FastAPI tells of a 422 for each wrong parameter; here that is a 400."""
    assert "422" not in responses(document, label)


@pytest.mark.parametrize("label", UPLOADS)
def test_every_upload_may_be_refused(document, label):
    """What is no audio, too large, too slow, one too many; a failure, and a service that stops."""
    owed = {"400", "401", "408", "413", "415", "429", "500", "503"}

    assert owed <= responses(document, label).keys()


# Answers


@pytest.mark.parametrize("label", ["POST /transcribe", "POST /v1/audio/transcriptions"])
@pytest.mark.parametrize("response_format", ALL_FORMATS)
def test_each_format_is_answered_as_documented(api, label, response_format):
    """What carries real words and speakers has a documented type and shape."""
    body = {
        "file": Binary(RECORDING),
        "model": "base",
        "response_format": response_format,
        "diarize": "true",
    }
    case = find(api, label).Case(body=body, media_type="multipart/form-data")

    assert 200 == case.call_and_validate(checks=CHECKS, timeout=30).status_code


@pytest.mark.parametrize("options", [{"stream": "true"}, {"words": "true"}], ids=str)
def test_each_option_is_answered_as_documented(api, options):
    """What adds to an answer is documented too."""
    case = find(api, "POST /transcribe").Case(
        body={"file": Binary(RECORDING), **options}, media_type="multipart/form-data"
    )

    assert 200 == case.call_and_validate(checks=CHECKS, timeout=30).status_code


@pytest.mark.parametrize("output", ["txt", "vtt", "srt", "tsv", "json"])
def test_each_output_is_answered_as_documented(api, output):
    """Of whisper-asr-webservice."""
    case = find(api, "POST /asr").Case(
        query={"output": output, "diarize": "true", "word_timestamps": "true"},
        body={"audio_file": Binary(RECORDING)},
        media_type="multipart/form-data",
    )

    assert 200 == case.call_and_validate(checks=CHECKS, timeout=30).status_code


@pytest.mark.parametrize("response_format", ["json", "rttm"])
def test_each_diarization_is_answered_as_documented(api, response_format):
    """With its speakers."""
    case = find(api, "POST /v1/audio/diarization").Case(
        body={"file": Binary(RECORDING), "response_format": response_format},
        media_type="multipart/form-data",
    )
    response = case.call_and_validate(checks=CHECKS, timeout=30)

    assert response.status_code == 200
    assert "SPEAKER_00" in response.text


# Made up requests


@pytest.mark.parametrize(
    ("label", "mode"),
    [
        *((label, GenerationMode.POSITIVE) for label in OPERATIONS),
        *((label, GenerationMode.NEGATIVE) for label in UPLOADS),
    ],
    ids=str,
)
def test_made_up_requests_are_answered_as_documented(api, label, mode):
    """Right or wrong, each gets a documented status, and a body of the documented shape."""
    examples = 40 if label in UPLOADS else 10
    statuses = try_many(find(api, label), mode, meaning_of(label), examples=examples)
    # Or else nothing but refusals was tried.
    assert mode is GenerationMode.NEGATIVE or min(statuses) < 300, statuses


@pytest.mark.parametrize("label", OWN)
def test_requests_at_the_limits_are_answered_as_documented(api, label):
    """Every bound of every field from both sides, every field left out, every type mistaken."""
    fixed = {"model": ""} if label == "POST /v1/audio/diarization" else {"model": "base"}
    try_limits(api, find(api, label), fixed)


def test_nothing_that_was_made_up_harmed_the_service(limited_server):
    """After all of them it hears as before, holds no file, and is not busy."""
    response = httpx.post(
        limited_server.url + "/transcribe",
        files={"file": ("recording.wav", RECORDING)},
        data={"diarize": "true"},
        timeout=30,
    )

    assert response.json()["transcript"] == WORDS
    assert response.json()["warnings"] == []
    assert limited_server.open_uploads() == []
    assert not limited_server.is_busy()


# Where something is not here


@pytest.fixture(scope="module")
def poor_server(tmp_path_factory) -> Iterator[SpeechServer]:
    """No pipeline, no network, and the right to download what is asked for."""
    folder = tmp_path_factory.mktemp("poor")
    with run_server(WHISPERX, folder, {"MAX_WAITING": "64"}) as running:
        yield running


@pytest.mark.parametrize("label", ["POST /transcribe", "POST /v1/audio/diarization"])
def test_what_is_not_here_is_answered_as_documented(poor_server, label):
    """502 for a model that cannot come, 503 for speakers that cannot be told; no other 5xx."""
    api = load_api(poor_server.url)
    statuses: Counter[int] = try_many(
        find(api, label),
        GenerationMode.POSITIVE,
        meaning_of(label),
        examples=40,
        checks=AS_DOCUMENTED,
    )

    assert {status for status in statuses if status >= 500} <= {502, 503}
    assert statuses[503] or label == "POST /transcribe", statuses


@pytest.mark.parametrize(
    ("path", "fields", "code"),
    [
        ("/transcribe", {"model": "tiny"}, (502, "fetch_failed")),
        ("/v1/audio/transcriptions", {"model": "tiny"}, (502, "fetch_failed")),
        ("/v1/audio/translations", {"model": "tiny"}, (502, "fetch_failed")),
        ("/transcribe", {"response_format": "rttm"}, (503, "speakers_unavailable")),
        (
            "/v1/audio/transcriptions",
            {"model": "base", "response_format": "rttm"},
            (503, "speakers_unavailable"),
        ),
        ("/v1/audio/diarization", {}, (503, "speakers_unavailable")),
    ],
)
def test_each_absence_is_answered_as_documented(poor_server, path, fields, code):
    """By its own status and code; retries are in vain."""
    case = find(load_api(poor_server.url), f"POST {path}").Case(
        body={"file": Binary(RECORDING), **fields}, media_type="multipart/form-data"
    )
    response = case.call_and_validate(checks=AS_DOCUMENTED, timeout=30)

    assert (response.status_code, response.json()["error"]["code"]) == code
    assert response.headers["x-should-retry"] == ["false"]
