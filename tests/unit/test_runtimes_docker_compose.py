"""What compose says when it fails, in our words; and that nothing of it is left behind."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from autostart.config import ServiceConfig
from autostart.errors import AutostartError, EngineUnreachable, StartFailed
from autostart.runtimes.docker import compose
from autostart.runtimes.docker.compose import Compose
from autostart.runtimes.docker.project import Project, read_project

SERVICE = ServiceConfig("a.localhost", compose=Path("/srv/a"), port=8001)


@pytest.fixture
def project(tmp_path: Path) -> Project:
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "compose.yaml").write_text("services: {web: {image: web}}")
    service = ServiceConfig("a.localhost", compose=folder, port=8001)
    return read_project(service, gpu=False, environment={})


def stand_in(folder: Path, script: str) -> Compose:
    """Return compose with a program of this script in place of docker."""
    program = folder / "docker"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    environment = {"PATH": f"{folder}:/bin:/usr/bin", "SECRET": "sesame", "KEPT": "1"}
    return Compose(environment, hidden={"SECRET"}, docker_host="unix:///here.sock")


async def failure(asked: Compose, project: Project) -> AutostartError:
    with pytest.raises(AutostartError) as raised:
        await asked.create(project, lambda _: None, None)
    return raised.value


@pytest.mark.parametrize(
    ("said", "kind", "message"),
    [
        (
            "Error response from daemon: pull access denied for nosuch, repository does not exist",
            StartFailed,
            "docker compose failed: pull access denied for nosuch, repository does not exist",
        ),
        (
            "validating compose.yaml: services.web additional properties 'x' not allowed",
            StartFailed,
            (
                "docker compose failed: validating compose.yaml: "
                "services.web additional properties 'x' not allowed"
            ),
        ),
        (
            (
                "Cannot connect to the Docker daemon at unix:///var/run/docker.sock. "
                "Is the docker daemon running?"
            ),
            EngineUnreachable,
            "the engine cannot be reached by docker compose",
        ),
        (
            "docker: 'compose' is not a docker command.",
            StartFailed,
            "docker compose is not installed; install Docker's compose plugin",
        ),
        (
            "unknown shorthand flag: 'f' in -f",
            StartFailed,
            "docker compose is not installed; install Docker's compose plugin",
        ),
        ("", StartFailed, "docker compose failed: exit code 7, without a word"),
        ("it is Tuesday", StartFailed, "docker compose failed: it is Tuesday"),
    ],
)
async def test_a_failure_is_told_in_one_line(
    tmp_path: Path, project: Project, said: str, kind: type[AutostartError], message: str
) -> None:
    """The line that says why, without what every daemon puts before it."""
    (tmp_path / "said").write_text(said)
    failed = await failure(stand_in(tmp_path, f"cat {tmp_path}/said >&2; exit 7"), project)

    assert (type(failed), failed.for_operator) == (kind, message)


async def test_the_end_of_the_output_is_kept_for_the_operator(
    tmp_path: Path, project: Project
) -> None:
    """Some twenty lines, without colours, however many there were and however long."""
    script = r"""
for number in $(seq 1000); do printf '\033[32mstep %s\033[0m\n' $number; done
head -c 30000 /dev/zero | tr '\0' x; echo
echo 'failed to solve: exit code 2' >&2
sleep 0.2
exit 17"""
    failed = await failure(stand_in(tmp_path, script), project)
    lines = failed.detail.splitlines()

    assert failed.private == "failed to solve: exit code 2"
    assert len(lines) == compose.DETAIL_LINES
    assert "step 1000" in lines
    assert max(map(len, lines)) <= compose.LINE_MAX


async def test_compose_s_words_are_not_for_clients(tmp_path: Path, project: Project) -> None:
    """It quotes what it cannot read, and that may be half of a password."""
    said = 'failed to read .env: unterminated quoted value "sesame'
    failed = await failure(stand_in(tmp_path, f"echo '{said}' >&2; exit 1"), project)

    assert failed.message == "docker compose failed"
    assert "sesame" in failed.private


async def test_progress_comes_line_by_line(tmp_path: Path, project: Project) -> None:
    """While it goes on, not at its end."""
    shown: list[tuple[str, float]] = []
    asked = stand_in(tmp_path, "echo one; sleep 0.5; echo two >&2")
    await asked.create(project, lambda line: shown.append((line, time.monotonic())), None)
    (first, at), (second, later) = shown

    assert (first, second) == ("one", "two")
    assert later - at > 0.3


async def test_who_gives_up_leaves_no_process(tmp_path: Path, project: Project) -> None:
    """Neither compose nor what it started: the whole group ends."""
    alive = tmp_path / "alive"
    asked = stand_in(tmp_path, f"(while :; do date >{alive}; sleep 0.05; done) & wait")
    creating = asyncio.ensure_future(asked.create(project, lambda _: None, None))
    while not alive.exists():
        await asyncio.sleep(0.01)
    creating.cancel()
    await asyncio.gather(creating, return_exceptions=True)
    await asyncio.sleep(0.2)
    alive.unlink(missing_ok=True)
    await asyncio.sleep(0.2)

    assert creating.cancelled()
    assert not alive.exists()


async def test_a_question_has_a_deadline(
    tmp_path: Path, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A compose that says nothing is an engine that does not answer."""
    monkeypatch.setattr(compose, "ASK_SECONDS", 0.2)
    with pytest.raises(EngineUnreachable, match="docker compose was silent for"):
        await stand_in(tmp_path, "exec sleep 60").model(project, SERVICE)


async def test_secrets_stay_here_and_the_engine_is_named(tmp_path: Path) -> None:
    """Our own keys are not for files to interpolate; the engine is the one that we watch."""
    said = await stand_in(tmp_path, 'echo "$SECRET,$KEPT,$DOCKER_HOST"').version()

    assert said == ",1,unix:///here.sock"


async def test_no_docker_is_told(project: Project) -> None:
    """The command itself may be missing."""
    with pytest.raises(StartFailed, match="the docker command cannot be run: No such file"):
        await Compose({"PATH": "/nosuch"}).model(project, SERVICE)
