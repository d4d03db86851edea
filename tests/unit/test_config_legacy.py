"""autostart/config/legacy.py: docker-autostart's config.json → a map."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from autostart.config import from_legacy, load
from autostart.errors import ConfigError

OLD = """\
{
  "services": {
    "whisper.example.com": {
      "name": "Whisper API (faster-whisper)",
      "composeDir": "/srv/speech/fast",
      "proxyPort": 8001,
      "blocking": true,
      "containers": ["faster-whisper"]
    },
    "whisperx.example.com": {
      "name": "WhisperX API: with diarization",
      "composeDir": "/srv/speech/speakers",
      "proxyPort": 8002,
      "blocking": false,
      "containers": ["whisperx", "yes"]
    }
  }
}
"""
NEW = """\
# Made from docker-autostart's config.json by autostart import. Next: autostart check.
services:
  whisper.example.com:
    name: Whisper API (faster-whisper)
    compose: /srv/speech/fast
    containers: [faster-whisper]
    port: 8001
    ready: any  # any HTTP answer; a path that answers 2xx only when it can work is better
    mode: hold

  whisperx.example.com:
    name: 'WhisperX API: with diarization'
    compose: /srv/speech/speakers
    containers: [whisperx, 'yes']
    port: 8002
    ready: any  # any HTTP answer; a path that answers 2xx only when it can work is better
    mode: page
"""


def test_config_becomes_a_map() -> None:
    """Blocking services hold, others show the waiting page; values are quoted where needed."""
    assert NEW == from_legacy(OLD)


def test_map_loads(tmp_path: Path) -> None:
    """What is made is what is read, with the same hosts, folders and ports."""
    path = tmp_path / "map.yaml"
    path.write_text(from_legacy(OLD))

    services = load(path, {}).services.values()

    assert [
        ("whisper.example.com", Path("/srv/speech/fast"), 8001, "hold", ("faster-whisper",)),
        ("whisperx.example.com", Path("/srv/speech/speakers"), 8002, "page", ("whisperx", "yes")),
    ] == [(each.host, each.compose, each.port, each.mode, each.containers) for each in services]


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({}, {"name": "a.test", "compose": "/a", "port": 1, "ready": "any", "mode": "hold"}),
        ({"containers": []}, {"name": "a.test", "compose": "/a", "port": 1, "ready": "any",
                              "mode": "hold"}),
        ({"name": "# é\n'x"}, {"name": "# é\n'x", "compose": "/a", "port": 1, "ready": "any",
                               "mode": "hold"}),
    ],
)  # fmt: skip
def test_absent_keys_mean_what_they_meant(keys: dict[str, Any], expected: dict[str, Any]) -> None:
    """Blocking, all containers, and the host for a name; any name survives."""
    old = {"services": {"A.test": {"composeDir": "/a", "proxyPort": 1, **keys}}}

    assert {"services": {"a.test": expected}} == yaml.safe_load(from_legacy(json.dumps(old)))


def test_no_services_make_an_empty_map() -> None:
    """Nothing in, nothing out."""
    assert {"services": {}} == yaml.safe_load(from_legacy('{"services": {}}'))


@pytest.mark.parametrize(
    ("text", "problems"),
    [
        ("", ["config.json:1: not JSON: Expecting value"]),
        ('{"services":\n}', ["config.json:2: not JSON: Expecting value"]),
        ("[]", ["config.json: allowed: an object with the key services"]),
        ("{}", ["config.json: services: is required"]),
        ('{"services": []}', [("config.json: services is []: allowed: a mapping, such as"
                              " {key: value}")]),
        ('{"services": {}, "port": 1}', ["config.json: port: unknown key; allowed: services"]),
        ('{"services": {"a.test": {}}}', ["config.json: services.a.test.composeDir: is required",
                                          "config.json: services.a.test.proxyPort: is required"]),
        (
            ('{"services": {"a b": {"composeDir": "", "proxyPort": "1", "blocking": 1,'
            ' "containers": "x", "ports": 1}}}'),
            [
                ('config.json: services.a b: allowed: a host name without scheme and port, or'
                ' "*.name"'),
                'config.json: services.a b.composeDir is "": allowed: a text that is not empty',
                ('config.json: services.a b.proxyPort is "1": allowed: a whole number, without'
                " quotes"),
                "config.json: services.a b.blocking is 1: allowed: true, false",
                'config.json: services.a b.containers is "x": allowed: a list, such as [a, b]',
                ("config.json: services.a b.ports: unknown key; allowed: composeDir, "
                    "proxyPort, name, blocking, containers"),
            ],
        ),
        ('{"services": {"a.test": 1}}', [("config.json: services.a.test is 1: allowed: a mapping,"
                                         " such as {key: value}")]),
        (
            ('{"services": {"a.test": {"composeDir": "/a", "proxyPort": 1},'
            ' "A.test": {"composeDir": "/b", "proxyPort": 2}}}'),
            ["config.json: services: a host is written twice, in other letters"],
        ),
        ('{"services": {"a.test": {"x": 1, "x": 2}}}', ["config.json: x is written twice"]),
    ],
)  # fmt: skip
def test_what_is_no_config_says_why(text: str, problems: list[str]) -> None:
    """Every problem at once, in the old file's words."""
    with pytest.raises(ConfigError) as caught:
        from_legacy(text)

    assert sorted(problems) == sorted(caught.value.problems)
