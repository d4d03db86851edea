"""autostart/config/problem.py: one fault, in the operator's words."""

from __future__ import annotations

from dataclasses import fields

import pytest

from autostart.config import Map, ServiceConfig, WarmWindow
from autostart.config.document import Key
from autostart.config.problem import dotted, explained, keys_of


@pytest.mark.parametrize(
    ("key", "written"),
    [
        ((), ""),
        (("proxy",), "proxy"),
        (("services", "whisper.example.com", "idle"), "services.whisper.example.com.idle"),
        (("services", "a.test", "warm", 0, "cron"), "services.a.test.warm[0].cron"),
        (("services", "*.test"), "services.*.test"),
    ],
)
def test_key_is_dotted(key: Key, written: str) -> None:
    """As the operator would say it; a place in a list in brackets."""
    assert written == dotted(key)


def test_keys_are_the_files() -> None:
    """What the place in the file says (path, host) is no key; defaults is one without attribute."""
    assert ["proxy", "admin", "portal", "defaults", "services"] == keys_of(Map)
    assert ["cron", "for", "timezone"] == keys_of(WarmWindow)
    assert len(fields(ServiceConfig)) - 1 == len(keys_of(ServiceConfig))


def test_unforeseen_fault_is_told_in_pydantics_words() -> None:
    """A type of fault that we have no sentence for is still reported."""
    problem = explained({"type": "new_type", "loc": ("x",), "msg": "Is odd", "input": 1})

    assert " is 1: Is odd" == problem.text
