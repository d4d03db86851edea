"""Requests that schemathesis makes up from a service's own /openapi.json, and what must hold.

The requests are the same in every run. A failure prints the one that failed, as a curl command.
"""

import io
import zipfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis import APIOperation, BaseSchema, Case, GenerationMode
from schemathesis.checks import CheckFunction, not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.services.sounds import RECORDING, encode, recording_samples

AS_DOCUMENTED: list[CheckFunction] = [
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
CHECKS: list[CheckFunction] = [not_a_server_error, *AS_DOCUMENTED]

# Small, for it stands in every failure that is printed.
SHORT_RECORDING = encode(recording_samples(), "mp3", "libmp3lame", rate=24_000)
PNG = (
    b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\1\0\0\0\1\x08\6\0\0\0\x1f\x15\xc4\x89"
    b"\0\0\0\nIDATx\x9cc\0\1\0\0\5\0\1\r\n-\xb4\0\0\0\0IEND\xaeB`\x82"
)


def zip_archive() -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        archive.writestr("recording.wav", b"RIFF")
    return target.getvalue()


FILES = st.one_of(
    st.just(SHORT_RECORDING),
    st.sampled_from([SHORT_RECORDING[: len(SHORT_RECORDING) // 2], RECORDING[:44], RECORDING[:20]]),
    st.sampled_from([b"", zip_archive(), PNG]),
    st.binary(max_size=300),
)


@dataclass(frozen=True)
class Meaning:
    """What means something, of all that the document allows: by the name of a field."""

    fields: Mapping[str, Sequence[Any]]  # of a form, or of a query
    path: Mapping[str, Sequence[str]]


def load_api(url: str) -> BaseSchema:
    """Give the service as it describes itself."""
    schemathesis.openapi.format("binary", FILES)
    # The configuration is ours alone: none is looked for in the folders above.
    return schemathesis.openapi.from_url(
        url + "/openapi.json", config=schemathesis.Config.from_dict({})
    )


def find(api: BaseSchema, label: str) -> APIOperation:
    operation = api.find_operation_by_label(label)
    assert operation is not None, label
    return operation


@st.composite
def requests(draw, operation: APIOperation, mode: GenerationMode, meaning: Meaning) -> Case:
    """Make a request up; two of three say something that means something."""
    case = draw(operation.as_strategy(generation_mode=mode))
    if draw(st.sampled_from([True, True, False])):
        if isinstance(case.body, dict):
            # A form has no null: it would be sent as the word.
            case.body = {name: value for name, value in case.body.items() if value is not None}
        for place in (case.body, case.query):
            names = meaning.fields.keys() & (place.keys() if isinstance(place, dict) else ())
            for name in sorted(names):
                place[name] = draw(st.sampled_from(meaning.fields[name]))
        for name in sorted(meaning.path.keys() & case.path_parameters.keys()):
            case.path_parameters[name] = draw(st.sampled_from(meaning.path[name]))
    return case


def try_many(
    operation: APIOperation,
    mode: GenerationMode,
    meaning: Meaning,
    *,
    examples: int,
    checks: Sequence[CheckFunction] = CHECKS,
) -> Counter[int]:
    """Send made up requests, check each answer, and give how often each status came."""
    statuses: Counter[int] = Counter()

    @settings(
        max_examples=examples,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(requests(operation, mode, meaning))
    def try_one(case: Case) -> None:
        statuses[case.call_and_validate(checks=list(checks), timeout=30).status_code] += 1

    try_one()
    return statuses


def try_limits(
    api: BaseSchema,
    operation: APIOperation,
    fixed: Mapping[str, Any] | None = None,
    *,
    adapt: Callable[[Case], None] = lambda _case: None,
) -> None:
    """Try every bound of every field from both sides, every field left out, every type mistaken.

    `fixed` fields have one value wherever they have any; `adapt` may change more.
    """
    cases = api.iter_coverage_cases(
        operation,
        generation_modes=list(GenerationMode),
        generation_config=api.config.generation_for(operation=operation),
    )
    for case in cases:
        for name, value in (fixed or {}).items():
            if isinstance(case.body, dict) and case.body.get(name):
                case.body[name] = value
        adapt(case)
        case.call_and_validate(checks=CHECKS, timeout=30)


# The document


def operations(document: Mapping[str, Any]) -> list[str]:
    """Give the labels of all that the document has."""
    return sorted(
        f"{method.upper()} {path}"
        for path, methods in document["paths"].items()
        for method in methods
    )


def responses(document: Mapping[str, Any], label: str) -> dict[str, Any]:
    """Give an operation's documented answers, by status."""
    method, path = label.split()
    told: dict[str, Any] = document["paths"][path][method.lower()]["responses"]
    return told


def form_fields(document: Mapping[str, Any], label: str) -> dict[str, Any]:
    """Give the fields of an operation's form; what is described elsewhere is looked up."""
    method, path = label.split()
    body = document["paths"][path][method.lower()]["requestBody"]["content"]["multipart/form-data"]
    fields: dict[str, Any] = body["schema"]["properties"]
    return fields


def assert_successes_are_documented(document: Mapping[str, Any], label: str) -> None:
    """For each 2xx of an operation, the document tells what comes back."""
    told = responses(document, label)
    successes = {status: answer for status, answer in told.items() if status.startswith("2")}

    assert successes
    assert [status for status, answer in successes.items() if not answer.get("content")] == []


def assert_no_field_is_null(document: Mapping[str, Any], label: str) -> None:
    """A form has no null: clients that go by the document would send the word."""
    fields = form_fields(document, label)

    assert [
        name for name, field in fields.items() if {"type": "null"} in field.get("anyOf", [])
    ] == []
