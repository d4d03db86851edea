"""The made-up operator's API tells what the real one's document says, no key more or less."""

from __future__ import annotations

from typing import Any

import jsonschema_rs
import pytest

from autostart.admin.openapi import DOCUMENT
from tests.fakes.operator_api import cold_start, service, slept, transition

HOST = "a.localhost"
TOLD = {
    "Service": service(HOST),
    "Transition": transition(HOST, "stopped", "starting", "request GET /"),
    "Past": slept(HOST, 0.5, [cold_start(1, loading=3.0)]),
}


@pytest.mark.parametrize("name", TOLD)
def test_the_fake_tells_what_the_document_says(name: str) -> None:
    """Every answer fits its schema, and has all of its keys and no other."""
    schema: dict[str, Any] = {**DOCUMENT, "$ref": f"#/components/schemas/{name}"}
    jsonschema_rs.validate(schema, TOLD[name])

    assert set(DOCUMENT["components"]["schemas"][name]["properties"]) == TOLD[name].keys()
