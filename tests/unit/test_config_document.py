"""autostart/config/document.py: the file as text, with lines, and keys written twice."""

from __future__ import annotations

import pytest

from autostart.config.document import Document, parse
from autostart.errors import ConfigError

TEXT = """\
services:
  whisper.test:
    idle: 5s
    warm:
      - cron: x
        for: 1h
    idle: 6s
"""


def test_content_and_lines_are_found() -> None:
    """Every key has its line, in lists too."""
    document = parse(TEXT, "map.yaml")

    assert document.content == {
        "services": {"whisper.test": {"idle": "6s", "warm": [{"cron": "x", "for": "1h"}]}}
    }
    assert document.lines == {
        ("services",): 1,
        ("services", "whisper.test"): 2,
        ("services", "whisper.test", "idle"): 7,
        ("services", "whisper.test", "warm"): 4,
        ("services", "whisper.test", "warm", 0, "cron"): 5,
        ("services", "whisper.test", "warm", 0, "for"): 6,
    }


def test_doubled_key_is_found() -> None:
    """YAML would keep the last and say nothing."""
    assert (("services", "whisper.test", "idle"),) == parse(TEXT, "map.yaml").doubled


@pytest.mark.parametrize("text", ["", "# nothing\n", "---\n"])
def test_empty_file_is_nothing(text: str) -> None:
    """A file without content is read, and holds None."""
    assert parse(text, "map.yaml").content is None


def test_empty_text_has_no_lines() -> None:
    """There is nothing to point at."""
    assert Document(None) == parse("", "map.yaml")


def test_merged_keys_are_no_doubles() -> None:
    """A key may be written over one that `<<` copies in."""
    document = parse("a: &a {x: 1}\nb:\n  <<: *a\n  x: 2\n", "map.yaml")

    assert {"a": {"x": 1}, "b": {"x": 2}} == document.content
    assert () == document.doubled


def test_anchors_are_listed_once() -> None:
    """Ten levels of tenfold copies are read in no time, and a loop ends."""
    levels = "".join(
        f"l{level}: &l{level} [{', '.join([f'*l{level - 1}'] * 10)}]\n" for level in range(1, 10)
    )
    assert parse(f"l0: &l0 {{k: v}}\n{levels}", "map.yaml").lines["l0", "k"] == 1
    assert parse("a: &a {b: *a}\n", "map.yaml").lines == {("a",): 1, ("a", "b"): 1}


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a: [1\nb: 2\n", "map.yaml:2: not YAML: expected ',' or ']', but got ':'"),
        ("a: 1\n\tb: 2\n", ("map.yaml:2: not YAML: found character '\\t' that cannot start any"
         " token")),
        ("a: 1\n b: 2\n", "map.yaml:2: not YAML: mapping values are not allowed here"),
        ("a: *b\n", "map.yaml:1: not YAML: found undefined alias 'b'"),
        ("? [a]\n: b\n", "map.yaml:1: not YAML: found unhashable key"),
        ("a: 1\n---\nb: 2\n", "map.yaml:2: not YAML: but found another document"),
        ("a: !!python/name:os.system x\n", ("map.yaml:1: not YAML: could not determine a "
         "constructor for the tag 'tag:yaml.org,2002:python/name:os.system'")),
        ("a: 2025-02-30\n", "map.yaml: not YAML: day is out of range for month"),
    ],
)  # fmt: skip
def test_what_is_not_yaml_says_where(text: str, problem: str) -> None:
    """One problem, with its line where there is one."""
    with pytest.raises(ConfigError) as caught:
        parse(text, "map.yaml")

    assert [problem] == caught.value.problems


def test_character_that_no_text_has_is_refused() -> None:
    """A control character is found before anything is read."""
    with pytest.raises(ConfigError) as caught:
        parse("a: b\nc: \x01\n", "map.yaml")

    assert ["map.yaml:2: not YAML: special characters are not allowed"] == caught.value.problems
