"""What an Accept header prefers."""

from __future__ import annotations

import pytest

from autostart.proxy import prefers_html


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
