"""autostart/config/form.py: how each key of the map is written."""

from __future__ import annotations

import re

import pytest

from autostart.config.form import parse_host

ALLOWED = 'allowed: a host name without scheme and port, or "*.name"'


@pytest.mark.parametrize(
    ("written", "host"),
    [
        ("whisper.example.com", "whisper.example.com"),
        ("Whisper.Example.COM.", "whisper.example.com"),
        ("localhost", "localhost"),
        ("my_service.test", "my_service.test"),
        ("x--y.test", "x--y.test"),
        ("xn--bcher-kva.test", "xn--bcher-kva.test"),
        ("8080.test", "8080.test"),
        ("*.Example.com", "*.example.com"),
        ("*.test", "*.test"),
        ("127.0.0.1", "127.0.0.1"),
        ("[::1]", "::1"),
        ("FE80::0:1", "fe80::1"),
        ("a" * 63 + ".test", "a" * 63 + ".test"),
    ],
)
def test_host_has_one_spelling(written: str, host: str) -> None:
    """Lower case, no trailing dot, no brackets, the short form of an address."""
    assert host == parse_host(written)


@pytest.mark.parametrize(
    ("written", "text"),
    [
        ("", ALLOWED),
        (".", ALLOWED),
        ("*", ALLOWED),
        ("*.", ALLOWED),
        ("*.*.test", ALLOWED),
        ("whisper*.test", ALLOWED),
        ("a.*.test", ALLOWED),
        (".test", ALLOWED),
        ("a..test", ALLOWED),
        ("-a.test", ALLOWED),
        ("a-.test", ALLOWED),
        ("a b", ALLOWED),
        ("a.test:80", ALLOWED),
        ("https://a.test", ALLOWED),
        ("a.test/x", ALLOWED),
        ("a" * 64 + ".test", ALLOWED),
        ("a.test\n", ALLOWED),
        (5, f"{ALLOWED}, in quotes"),
        (None, f"{ALLOWED}, in quotes"),
        ("bücher.test", f"{ALLOWED}; write the xn-- form of an international name"),
    ],
)
def test_bad_host_says_what_is_allowed(written: object, text: str) -> None:
    """What no Host header could be, or would not match."""
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        parse_host(written)
