"""Whatever is sent to RunPod's routes is answered as documented, and never by a 5xx.

schemathesis makes requests up from /openapi.json, the same in every run; what no document would
lead to is written by hand.
"""

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from schemathesis import BaseSchema, Case, GenerationMode

from tests.services.fuzzing import (
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
from tests.services.sounds import RECORDING
from tests.services.speech_server import SpeechServer
from tests.services.voxtral_app import (
    SPOKEN,
    base64_of,
    run_voxtral,
    spoken,
    submit,
)

LIMITS = {"MAX_QUEUE": "1000", "MAX_WAITING": "64", "MAX_UPLOAD": "1MB"}
CONTRACT = [
    "POST /run",
    "POST /runsync",
    "GET /status/{job_id}",
    "GET /stream/{job_id}",
    "POST /cancel/{job_id}",
    "POST /retry/{job_id}",
    "POST /purge-queue",
]
OPERATIONS = [
    *CONTRACT,
    *(label.replace(" ", " /v2/{endpoint_id}", 1) for label in [*CONTRACT, "GET /health"]),
    "POST /transcribe",
    "GET /busy",
    "GET /health",
    "GET /metrics",
    "GET /ready",
]
# Those that take a body are tried more often.
BODIES = [label for label in OPERATIONS if label.endswith(("/run", "/runsync", "/transcribe"))]


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[SpeechServer]:
    """One process for all requests: nothing that one of them does may harm another."""
    with run_voxtral(tmp_path_factory.mktemp("fuzz"), LIMITS) as (running, _):
        yield running


@pytest.fixture(scope="module")
def client(server) -> Iterator[httpx.Client]:
    """One connection for what is written by hand: others make new ones."""
    with httpx.Client(base_url=server.url, timeout=30) as open_client:
        yield open_client


@pytest.fixture(scope="module")
def api(server) -> BaseSchema:
    """The service as it describes itself."""
    return load_api(server.url)


@pytest.fixture(scope="module")
def document(server) -> dict[str, Any]:
    """The OpenAPI document."""
    return dict(httpx.get(server.url + "/openapi.json").json())


@pytest.fixture(scope="module")
def meaning(server) -> Meaning:
    """What means something where the document allows any text: jobs that are there, above all."""
    failed = submit(server, {"input": {}})
    jobs = [submit(server), submit(server, {"input": {"ping": True}}), *[failed] * 2]
    return Meaning(
        fields={
            "language": ["fr", "English", "", "xx"],
            "input": [
                *[{"ping": True}, {"audio_base64": base64_of(SHORT_RECORDING), "language": "fr"}],
                *[{}, {"audio_url": "http://127.0.0.1:1/a.wav"}, {"audio_base64": "UklGRg=="}],
            ],
            "webhook": ["https://127.0.0.1:1/hook", "ftp://example.com", ""],
            "policy": [{}, {"executionTimeout": 5000, "ttl": 10_000}, {"ttl": 1}],
            # Long waits are for those who wait.
            "wait": [1000],
        },
        path={"job_id": [*jobs, "absent"], "endpoint_id": ["voxtral", "é", "0"]},
    )


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


def test_no_form_field_is_documented_as_null(document):
    """A form has no null: clients that go by the document would send the word."""
    assert_no_field_is_null(document, "POST /transcribe")


@pytest.mark.parametrize("label", [label for label in OPERATIONS if "{job_id}" in label])
def test_an_unknown_job_is_documented(document, label):
    """As it is the first thing that happens to who comes too late."""
    assert "404" in responses(document, label)


# Made up requests


def stay_here(case: Case) -> None:
    """Let no example lead to where this machine would have to look for it."""
    given = case.body.get("input") if isinstance(case.body, dict) else None
    if isinstance(given, dict) and "example.com" in str(given.get("audio_url")):
        given["audio_url"] = "http://127.0.0.1:1/a.wav"


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE], ids=str)
@pytest.mark.parametrize("label", OPERATIONS)
def test_made_up_requests_are_answered_as_documented(api, meaning, label, mode):
    """Right or wrong, each gets a documented status, and a body of the documented shape."""
    if mode is GenerationMode.NEGATIVE and label not in BODIES and "{" not in label:
        return  # it takes nothing that could be wrong
    examples = 60 if label in BODIES else 15
    statuses = try_many(find(api, label), mode, meaning, examples=examples)

    # Or else nothing but refusals was tried.
    assert mode is GenerationMode.NEGATIVE or min(statuses) < 300, statuses


@pytest.mark.parametrize("label", OPERATIONS)
def test_requests_at_the_limits_are_answered_as_documented(api, label):
    """Every bound of every field from both sides, every field left out, every type mistaken."""
    try_limits(api, find(api, label), adapt=stay_here)


# Written by hand


def nested(depth: int, opening: str = "[", closing: str = "]") -> str:
    return opening * depth + closing * depth


PLACES = {
    "body": "%s",
    "input": '{"input": %s}',
    "policy": '{"input": {}, "policy": %s}',
    "webhook": '{"input": {}, "webhook": %s}',
    "ttl": '{"input": {}, "policy": {"ttl": %s}}',
    "s3Config": '{"input": {"ping": true}, "s3Config": %s}',
    **{
        name: f'{{"input": {{"audio_base64": "UklGRg==", "{name}": %s}}}}'
        for name in (
            *("task", "language", "summary", "sentiment", "max_new_tokens", "num_speakers"),
            *("min_speakers", "ping", "audio_url", "audio_base64", "invented"),
        )
    },
}
VALUES = {
    # Python's parser goes about as deep as the interpreter does, and its `repr` not quite.
    **{f"depth {depth}": nested(depth) for depth in (40, 60, *range(900, 1000, 15), 100_000)},
    "objects": nested(300, '{"a":', "") + "1" + "}" * 300,
    "open": "[" * 1000,
    "NaN": "NaN",
    "Infinity": "-Infinity",
    "1e400": "1e400",
    "4000 digits": "9" * 4000,
    "5000 digits": "9" * 5000,
    "lone surrogate": '"\\ud800\\udfff\\ud83d"',
    "NUL": '"\\u0000"',
    "text": '"%s"' % ("é" * 5000),
    "null": "null",
    "true": "true",
    "zero": "-0.0",
    "array": "[1, [2, {}], null]",
    "object": '{"a": {"b": []}}',
    "twice": '{"ping": true, "ping": [], "audio_url": 1, "audio_url": "x"}',
    "5000 fields": json.dumps({f"field{number}": number for number in range(5000)}),
    "20000 fields": json.dumps({f"field{number}": number for number in range(20_000)}),
    "long key": json.dumps({"k" * 100_000: 1}),
}


@pytest.mark.parametrize("value", VALUES.values(), ids=VALUES)
@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)
def test_no_value_in_any_place_breaks_the_service(client, place, value):
    """It is refused, or the job fails with a reason, or it did not matter."""
    response = client.post(
        "/runsync?wait=5000",
        content=(place % value).encode(),
        headers={"content-type": "application/json"},
    )
    told = response.json()

    assert response.status_code in {200, 400}, told
    if response.status_code == 200:
        assert told["status"] in {"COMPLETED", "FAILED"}
        assert told["status"] == "COMPLETED" or "internal" not in told["error"]
        assert told == client.get(f"/status/{told['id']}").json()


@pytest.mark.parametrize(
    "content",
    [
        b"\xef\xbb\xbf" + b'{"input": {"ping": true}}',
        '{"input": {"ping": true}}'.encode("utf-16"),
        '{"input": {"ping": true}}'.encode("utf-32"),
        b'{"input": {"ping": true, "a": "\xed\xa0\x80"}}',
        b'{"input": {"ping": true, "a": "\xff"}}',
        b'{"input": {"ping": true}}{"input": {"ping": true}}',
        b"'{'",
        b"\0" * 1000,
        b"{" * 1000,
        b'{"input": {"ping": true}, "input": {"ping": true}}',
        PNG,
        zip_archive(),
        RECORDING,
    ],
    ids=lambda value: repr(value[:30]),
)
@pytest.mark.parametrize("path", ["/run", "/v2/voxtral/runsync"])
def test_no_body_breaks_the_service(client, path, content):
    """What is JSON in one of its encodings is read, the rest refused."""
    headers = {"content-type": "application/json; charset=klingon"}
    response = client.post(path, content=content, headers=headers)

    assert response.status_code in {200, 400}, response.text


@pytest.mark.parametrize("name", ["task", "language", "summary", "max_new_tokens", "min_speakers"])
@pytest.mark.parametrize(
    "value",
    [nested(900), nested(100_000 // 4), "9" * 5000, "NaN", "\0", "é" * 5000, "null", "[]"],
    ids=lambda value: repr(value[:20]),
)
def test_no_form_field_breaks_the_service(client, name, value):
    """A form's fields are no better than a job's."""
    files = {"file": ("a.wav", SHORT_RECORDING)}
    response = client.post("/transcribe", files=files, data={name: value})

    assert (400, name) == (response.status_code, response.json()["error"]["param"])


@pytest.mark.parametrize(
    "url",
    [
        "/status/%ff%fe",
        "/status/..%2f..%2fetc",
        "/status/' OR 1=1 --",
        "/status/%F0%9F%98%80",
        "/v2/%00/status/a",
        "/v2//status/a",
        "/v2/a/b/status/c",
        "/status/a?ttl=99999999999999999999999999",
        "/status/a?ttl=1&ttl=x",
        "/status/a?ttl=NaN",
        "/status/a?ttl=",
    ],
)
def test_no_address_breaks_the_service(client, url):
    """What is not there is not there."""
    response = client.get(url)

    assert response.status_code in {400, 404}
    assert response.json()["error"]["message"]


def test_nothing_that_was_sent_harmed_the_service(server, client):
    """After all of it a job is done as before; no traceback was written, and nothing is left."""
    job = client.post("/runsync", json=spoken()).json()
    jobs = client.get("/health").json()["jobs"]
    log = server.log.read_text()

    assert f"{SPOKEN} 0" == job["output"]["transcript"]
    assert (0, 0) == (jobs["inProgress"], jobs["inQueue"])
    assert [] == server.open_uploads()
    assert "Traceback" not in log
    assert "internal error" not in log
