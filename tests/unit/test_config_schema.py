"""autostart/config/schema.py and the files in config/: what is shipped is what the code says."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import yaml

from autostart.config import (
    Access,
    AdminConfig,
    Map,
    ProxyConfig,
    ServiceConfig,
    TcpAddress,
    Wake,
    WarmWindow,
    format_duration,
    format_size,
    json_schema,
    load,
    warnings,
)
from autostart.config.problem import keys_of

CONFIG = Path(__file__).parents[2] / "config"
EXAMPLE = CONFIG / "autostart.yaml"
SCHEMA = CONFIG / "autostart.schema.json"
SECTIONS: dict[str, type] = {
    "ServiceConfig": ServiceConfig,
    "Wake": Wake,
    "Access": Access,
    "WarmWindow": WarmWindow,
    "ProxyConfig": ProxyConfig,
    "AdminConfig": AdminConfig,
}
EVERY_KEY = [*keys_of(Map), *(key for section in SECTIONS.values() for key in keys_of(section))]
REQUIRED = {"cron", "for", "timezone"}
# These only hold other keys.
HOLDERS = {"proxy", "admin", "defaults", "services", "wake", "access", "warm"}


def test_shipped_schema_is_the_codes() -> None:
    """After a change of the models: make it anew with what the failure says."""
    make = (
        "import json; from autostart.config import json_schema; "
        f"open('config/{SCHEMA.name}', 'w').write(json.dumps(json_schema(), indent=2) + chr(10))"
    )

    assert json.loads(SCHEMA.read_text()) == json_schema(), f'python -c "{make}"'


@pytest.mark.parametrize("name", SECTIONS)
def test_schema_has_every_key_and_no_other(name: str) -> None:
    """Editors complete exactly what is accepted, with a sentence for each key."""
    section = json_schema()["$defs"][name]

    assert keys_of(SECTIONS[name]) == list(section["properties"])
    assert section["additionalProperties"] is False
    assert all(each["description"] for each in section["properties"].values())


def test_schema_has_the_sections_of_the_map() -> None:
    """Only services must be there."""
    schema = json_schema()

    assert keys_of(Map) == list(schema["properties"])
    assert ["services"] == schema["required"]
    assert ["cron", "for", "timezone"] == schema["$defs"]["WarmWindow"]["required"]
    assert "required" not in schema["$defs"]["ServiceConfig"]


def _schema_defaults() -> Iterator[tuple[str, Any]]:
    for section in json_schema()["$defs"].values():
        for key, value in section["properties"].items():
            if "default" in value:
                yield key, value["default"]


def test_schema_writes_defaults_as_the_map_does(tmp_path: Path) -> None:
    """Each could be copied into a map: durations and sizes with units, addresses as text."""
    defaults = dict(_schema_defaults())

    assert defaults["idle"] == "15m"
    assert defaults["max_body"] == "500MB"
    assert defaults["drain_timeout"] == "30s"
    assert defaults["trusted_proxies"] == ["127.0.0.1/32"]
    # What depends on other keys has no default of its own.
    assert not {"name", "directory", "hold_timeout", "cors", "compose"} & set(defaults)
    services = {key: defaults[key] for key in keys_of(ServiceConfig) if key in defaults}
    del services["listen"], services["device"]
    path = tmp_path / "map.yaml"
    path.write_text(yaml.safe_dump({"services": {"a.test": {**services, "command": ["x"]}}}))
    assert (
        ServiceConfig(host="a.test", name="a.test", command=("x",), directory=tmp_path)
        == load(path, {}).services["a.test"]
    )


@pytest.mark.parametrize("name", ["autostart.yaml", "demo.yaml"])
def test_shipped_map_loads(name: str) -> None:
    """Without environment, engine or network."""
    assert load(CONFIG / name, {}).services


def test_demo_has_no_doubts() -> None:
    """It works as it is, from a checkout."""
    assert [] == warnings(load(CONFIG / "demo.yaml", {}))


def _written_keys() -> dict[str, list[str]]:
    """Return the comment of each place where the example writes a key, by key."""
    written: dict[str, list[str]] = {}
    lines = EXAMPLE.read_text().splitlines()
    for index, line in enumerate(lines):
        # {/health: 200} and https://… are values; a key is followed by a space or the line's end.
        match = re.match(r"\s*(?:- )?([a-z_]+):(?=\s|$)", line)
        if match is None:
            continue
        comment = line.partition(" # ")[2]
        for following in lines[index + 1 :]:
            if not re.match(r"\s+# ", following):
                break
            comment += " " + following.strip().removeprefix("# ")
        written.setdefault(match[1], []).append(comment)
    return written


@pytest.mark.parametrize("key", EVERY_KEY)
def test_example_shows_every_key_with_its_default(key: str) -> None:
    """At least one place says what it is and what it is when it is not written."""
    comments = _written_keys()[key]

    said = "required" if key in REQUIRED else "default"
    assert key in HOLDERS or any(said in comment for comment in comments)


def test_example_states_the_true_defaults() -> None:
    """Its defaults section changes nothing, and its listeners are the ones without it."""
    content = yaml.safe_load(EXAMPLE.read_text())
    declared = load(EXAMPLE, {})

    assert ProxyConfig() == declared.proxy
    assert AdminConfig() == declared.admin
    for key, value in content["defaults"].items():
        assert value == _written_default(key)


def _written_default(key: str) -> object:
    if key == "wake":
        wake = Wake()
        return {each.name: list(getattr(wake, each.name)) for each in fields(Wake)}
    service = ServiceConfig(host="a.test")
    for suffix, write in (("_seconds", format_duration), ("_bytes", format_size)):
        value = getattr(service, key + suffix, None)
        if value is not None:
            # 60s is as good as 1m, and says more beside the other timeouts.
            return "60s" if value == 60 else write(value)
    return getattr(service, key)


def test_example_services_are_on_this_machine_only() -> None:
    """What is copied from the example opens no port to the network."""
    declared = load(EXAMPLE, {})

    assert isinstance(declared.proxy.listen, TcpAddress)
    assert declared.proxy.listen.is_loopback
    assert declared.admin.listen.is_loopback
