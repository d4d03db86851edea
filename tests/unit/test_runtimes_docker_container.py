"""Containers as values: what an inspect document says, and who depends on whom."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from autostart.runtimes.docker.container import (
    Container,
    Published,
    is_ours,
    levels,
    main,
    needed,
    parse,
)

# What engine 20.10 and compose 2.26 say of a running container, without what nobody reads.
DOCUMENT: dict[str, Any] = {
    "Id": "4d1e5bcf82e8b0c1a2b3c4d5e6f708192a3b4c5d6e7f8091a2b3c4d5e6f70819",
    "Name": "/whisper-web-1",
    "Created": "2026-11-21T04:49:36.860507072Z",
    "Image": "sha256:b763493f46b0",
    "State": {
        "Status": "running",
        "OOMKilled": False,
        "ExitCode": 0,
        "Error": "",
        "StartedAt": "2026-11-21T04:50:00.123456789Z",
        "Health": {"Status": "healthy", "FailingStreak": 0, "Log": []},
    },
    "HostConfig": {
        "PortBindings": {
            "8000/tcp": [{"HostIp": "127.0.0.1", "HostPort": "8001"}],
            "9000/tcp": [{"HostIp": "", "HostPort": ""}],
        }
    },
    "Config": {
        "Image": "autostart/faster-whisper",
        "Labels": {
            "com.docker.compose.depends_on": "job:service_completed_successfully:false,"
            "db:service_healthy:true",
            "com.docker.compose.image": "sha256:b763493f46b0",
            "com.docker.compose.oneoff": "False",
            "com.docker.compose.project": "whisper",
            "com.docker.compose.project.config_files": "/srv/whisper/compose.yaml,"
            "/srv/whisper/compose.override.yaml",
            "com.docker.compose.project.working_dir": "/srv/whisper",
            "com.docker.compose.service": "web",
        },
    },
}


def container(service: str, **values: Any) -> Container:
    known = {
        "id": f"{service}-id",
        "name": f"p-{service}-1",
        "project": "p",
        "service": service,
        "folder": Path("/srv/p"),
        "files": (Path("/srv/p/compose.yaml"),),
        "image": "plain",
        "image_id": "sha256:1",
        "created": 0.0,
        "depends_on": {},
        "published": (),
        "status": "exited",
        "started_at": "",
        "exit_code": 0,
        "error": "",
        "out_of_memory": False,
        "health": None,
    }
    return Container(**{**known, **values})


def test_an_inspect_document_is_read_whole():
    """Identity, project, ports, dependencies and health come from one document."""
    read = parse(DOCUMENT)

    assert read == Container(
        id=DOCUMENT["Id"],
        name="whisper-web-1",
        project="whisper",
        service="web",
        folder=Path("/srv/whisper"),
        files=(Path("/srv/whisper/compose.yaml"), Path("/srv/whisper/compose.override.yaml")),
        image="autostart/faster-whisper",
        image_id="sha256:b763493f46b0",
        created=1795236576.860507,
        depends_on={"job": "service_completed_successfully", "db": "service_healthy"},
        published=(Published("127.0.0.1", 8001),),
        status="running",
        started_at="2026-11-21T04:50:00.123456789Z",
        exit_code=0,
        error="",
        out_of_memory=False,
        health="healthy",
    )


def test_a_container_without_compose_reads_as_nobodys():
    """No labels, no ports, no health: still a value, of no project."""
    bare = {
        "Id": "1",
        "Name": "/x",
        "Created": DOCUMENT["Created"],
        "State": {"Status": "created"},
        "HostConfig": {"PortBindings": None},
        "Config": {"Labels": None, "Image": "plain"},
    }

    read = parse(bare)

    assert (read.project, read.service, read.published, read.health) == ("", "", (), None)


def test_a_run_is_known_by_id_and_start():
    """The engine keeps the id across starts, so the date belongs to the identity."""
    assert parse(DOCUMENT).run == "4d1e5bcf82e8.2026-11-21T04:50:00.123456789Z"


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"exit_code": 0}, "exit code 0"),
        ({"exit_code": 3}, "exit code 3"),
        ({"exit_code": 137}, "killed by SIGKILL"),
        ({"exit_code": 143}, "killed by SIGTERM"),
        ({"exit_code": 255}, "exit code 255"),
        ({"exit_code": 137, "out_of_memory": True}, "killed: out of memory"),
        ({"status": "paused"}, "paused"),
        (
            {"status": "restarting", "exit_code": 1},
            "restarted by the engine after exit code 1",
        ),
        (
            {"status": "created", "exit_code": 127, "error": "no such program"},
            "exit code 127 (no such program)",
        ),
    ],
)
def test_the_end_is_told_for_people(values: dict[str, Any], expected: str):
    """Why a container does not run is one short phrase."""
    assert container("web", **values).end == expected


def test_what_a_service_needs_includes_its_dependencies():
    """Named ones and what they depend on, however deep; without names, all."""
    web = container("web", depends_on={"db": "service_started"})
    db = container("db", depends_on={"disk": "service_started"})
    disk, other = container("disk"), container("other")

    assert needed([web, db, disk, other], ["web"]) == [web, db, disk]
    assert needed([web, db, disk, other], None) == [web, db, disk, other]


def test_dependencies_come_first():
    """Each level needs only what earlier ones hold; replicas of one service stand together."""
    web = container("web", depends_on={"db": "service_healthy", "job": "service_started"})
    db = container("db", depends_on={"job": "service_started"})
    twin = container("db", id="db-2", depends_on={"job": "service_started"})
    job = container("job")

    assert levels([web, db, twin, job]) == [[job], [db, twin], [web]]


def test_a_dependency_without_container_is_no_obstacle():
    """An optional dependency that was not created does not hold anybody up."""
    web = container("web", depends_on={"cache": "service_started"})

    assert levels([web]) == [[web]]


def test_a_circle_still_comes_to_an_end():
    """Compose refuses circles; labels that hold one are taken in any order."""
    one = container("one", depends_on={"two": "service_started"})
    two = container("two", depends_on={"one": "service_started"})

    assert levels([one, two]) == [[one, two]]


def test_the_publisher_of_the_port_is_the_service():
    """The container that requests reach is the one that counts; of two, the one that is up."""
    old = container("web", id="old", published=(Published("", 8001),), created=2.0)
    new = container("web", published=(Published("127.0.0.1", 8001),), status="running")
    db = container("db", published=(Published("127.0.0.1", 5432),))

    assert main([old, db, new], 8001) == new
    assert main([old, db], 8001) == old
    assert main([db], 8001) is None


@pytest.mark.parametrize(
    ("address", "reached"),
    [("127.0.0.1", True), ("", True), ("0.0.0.0", True), ("::", True), ("192.168.1.5", False)],
)
def test_only_what_loopback_reaches_counts_as_published(address: str, reached: bool):
    """A port on another address of the host is not where requests are sent."""
    assert container("web", published=(Published(address, 8001),)).publishes(8001) is reached


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ({"com.docker.compose.service": "web"}, True),
        ({"com.docker.compose.service": "web", "com.docker.compose.oneoff": "True"}, False),
        ({"com.docker.compose.project": "p"}, False),
        ({}, False),
    ],
)
def test_one_off_containers_are_not_ours(labels: dict[str, str], expected: bool):
    """What `docker compose run` made belongs to who ran it."""
    assert is_ours(labels) is expected
