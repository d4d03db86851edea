"""A draft of the map from what the engine knows."""

from __future__ import annotations

from pathlib import Path

import yaml

from autostart.config import load
from autostart.runtimes.docker.container import Published
from autostart.runtimes.docker.discovery import draft_map
from tests.unit.test_runtimes_docker_container import container


def test_a_project_with_one_port_is_one_service():
    """The folder, the port, and a host to be renamed."""
    web = container("web", project="whisper", published=(Published("127.0.0.1", 8001),))
    db = container("db", project="whisper")

    draft = yaml.safe_load(draft_map([web, db]))

    expected = {"compose": "/srv/p", "port": 8001, "ready": "any"}
    assert draft == {"services": {"whisper.localhost": expected}}


def test_each_container_with_a_port_is_a_service():
    """Of several that publish, each is named by its place in the compose file."""
    one = container("stt", published=(Published("", 8001), Published("", 8002)))
    two = container("tts", published=(Published("", 8003),))

    draft = yaml.safe_load(draft_map([two, one]))["services"]

    assert draft == {
        "p-stt.localhost": {
            "compose": "/srv/p",
            "containers": ["stt"],
            "port": 8001,
            "ready": "any",
        },
        "p-tts.localhost": {
            "compose": "/srv/p",
            "containers": ["tts"],
            "port": 8003,
            "ready": "any",
        },
    }


def test_a_file_with_a_name_of_its_own_is_named():
    """What compose does not find by itself is written as the file."""
    files = (Path("/srv/p/prod.yaml"),)
    web = container("web", files=files, published=(Published("", 8001),))

    draft = yaml.safe_load(draft_map([web]))["services"]

    assert draft["p.localhost"]["compose"] == "/srv/p/prod.yaml"


def test_two_projects_of_one_name_get_two_hosts():
    """No host is written twice."""
    one = container("web", published=(Published("", 8001),))
    two = container("web", folder=Path("/srv/q"), published=(Published("", 8002),))

    draft = yaml.safe_load(draft_map([one, two]))["services"]

    assert list(draft) == ["p.localhost", "p-2.localhost"]


def test_a_port_belongs_to_one_service():
    """A map cannot hold both, and the draft says which it left out."""
    one = container("web", published=(Published("", 8001),))
    two = container("web", folder=Path("/srv/q"), published=(Published("", 8001),))

    text = draft_map([one, two])

    assert list(yaml.safe_load(text)["services"]) == ["p.localhost"]
    assert "# p in /srv/q publishes 8001 too, as p.localhost does" in text


def test_what_publishes_nothing_is_named_in_a_comment():
    """A project without ports cannot be led to, and the draft says so."""
    assert "# p in /srv/p publishes no port" in draft_map([container("worker")])


def test_an_empty_engine_says_what_to_do():
    """Without projects the draft is a hint, and still YAML."""
    draft = draft_map([])

    assert yaml.safe_load(draft) is None
    assert "docker compose create" in draft


def test_a_draft_is_a_valid_map(tmp_path: Path):
    """autostart reads its own draft."""
    web = container("web", folder=tmp_path, files=(), published=(Published("", 8001),))
    path = tmp_path / "autostart.yaml"
    path.write_text(draft_map([web]))

    assert load(path).services["p.localhost"].port == 8001
