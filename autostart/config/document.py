"""The file as text: YAML, with the line of every key, and keys that are written twice.

PyYAML keeps the last of two equal keys and says nothing; half of a service would then vanish.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import yaml

from autostart.errors import ConfigError

Key = tuple[str | int, ...]
"""Where a value stands: ("services", "whisper.example.com", "warm", 0, "cron")."""


@dataclass(frozen=True)
class Document:
    """What was read; `lines` count from 1, `doubled` are keys that stand twice in one mapping."""

    content: Any
    lines: dict[Key, int] = field(default_factory=dict)
    doubled: tuple[Key, ...] = ()


def parse(text: str, name: str) -> Document:
    """Return the document; raises ConfigError where the text is not YAML."""
    try:
        return _parse(text)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f":{mark.line + 1}" if mark else ""
        raise ConfigError([f"{name}{line}: not YAML: {error.problem or error.context}"]) from error
    except yaml.reader.ReaderError as error:
        line = f":{text.count(chr(10), 0, error.position) + 1}"
        raise ConfigError([f"{name}{line}: not YAML: {error.reason}"]) from error
    # A date that no calendar has (2025-02-30) is a plain ValueError.
    except ValueError as error:
        raise ConfigError([f"{name}: not YAML: {error}"]) from error


def _parse(text: str) -> Document:
    loader = yaml.SafeLoader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return Document(None)
        lines: dict[Key, int] = {}
        doubled: list[Key] = []
        for key, key_node in _keys(node, (), set()):
            if key in lines:
                doubled.append(key)
            lines[key] = key_node.start_mark.line + 1
        return Document(loader.construct_document(node), lines, tuple(doubled))
    finally:
        loader.dispose()


def _keys(node: yaml.Node, above: Key, seen: set[int]) -> Iterator[tuple[Key, yaml.Node]]:
    # An anchored node may stand at many places, even inside itself: its keys are listed once.
    if id(node) in seen:
        return
    seen.add(id(node))
    if isinstance(node, yaml.MappingNode):
        for key_node, value_node in node.value:
            key = (*above, str(key_node.value))
            # "<<" is no key but a request to copy others in.
            if key_node.tag != "tag:yaml.org,2002:merge":
                yield key, key_node
            yield from _keys(value_node, key, seen)
    elif isinstance(node, yaml.SequenceNode):
        for index, value_node in enumerate(node.value):
            yield from _keys(value_node, (*above, index), seen)
