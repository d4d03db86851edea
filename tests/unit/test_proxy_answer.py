"""What an Accept header prefers, and what an answer of ours holds."""

from __future__ import annotations

import pytest
from aiohttp.test_utils import make_mocked_request

from autostart.errors import StartFailed
from autostart.proxy import error_response, prefers_html


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        ("", False),
        ("*/*", False),
        ("application/json", False),
        ("text/html", True),
        ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", True),
        ("TEXT/HTML ; Q=0.5", True),
        ("text/*", True),
        ("application/json, text/html", False),
        ("application/json;q=0.1, text/html;q=0.2", True),
        ("text/html;q=0", False),
        ("text/html;q=x", False),
        ("image/*", False),
        (",;,", False),
    ],
)
def test_html_is_for_those_who_like_it_more_than_json(accept: str, expected: bool) -> None:
    """Browsers name text/html; curl, openai and httpx do not."""
    assert expected is prefers_html(accept)


@pytest.mark.parametrize("accept", ["application/json", "text/html"])
def test_output_of_a_build_is_not_for_clients(accept: str) -> None:
    """The detail of an error is the operator's: a client gets the message, and no header more."""
    request = make_mocked_request("GET", "/", headers={"Accept": accept})
    refusal = StartFailed("docker compose: build failed", detail="RUN curl -H 'Bearer sesame'")
    sent = vars(error_response(refusal, request=request, request_id="1"))

    assert b"docker compose: build failed" in sent["_own_body"]
    assert "sesame" not in str(sent)
