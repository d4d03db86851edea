"""The files of a compose project: found as compose finds them, and known to have changed."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from autostart.config import ServiceConfig
from autostart.errors import StartFailed
from autostart.runtimes.docker.project import (
    NAMES,
    OVERRIDES,
    Project,
    Projects,
    changed_since,
    read_project,
)
from tests.containers import docker, require_engine

WEB = "services: {web: {image: web}}\n"


def write(folder: Path, files: Mapping[str, str]) -> Path:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def service(compose: Path, **keys: Any) -> ServiceConfig:
    return ServiceConfig("a.localhost", compose=compose, port=8001, **keys)


def read(
    compose: Path, *, gpu: bool = False, environment: Mapping[str, str] | None = None, **keys: Any
) -> Project:
    return read_project(service(compose, **keys), gpu=gpu, environment=environment or {})


def names(project: Project) -> list[str]:
    return [str(file.relative_to(project.folder)) for file in project.files]


# Which files.


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("override", [None, *OVERRIDES])
def test_a_folder_is_what_compose_finds_there(
    tmp_path: Path, name: str, override: str | None
) -> None:
    """Each usual name, with each usual override."""
    write(tmp_path, {name: WEB, **({override: WEB} if override else {})})

    assert names(read(tmp_path)) == [name, *([override] if override else [])]
    assert read(tmp_path).implicit


def test_the_first_of_several_names_is_taken(tmp_path: Path) -> None:
    """In compose's order, of each kind."""
    write(tmp_path, dict.fromkeys((*NAMES, *OVERRIDES), WEB))

    assert names(read(tmp_path)) == [NAMES[0], OVERRIDES[0]]


def test_a_file_is_that_file(tmp_path: Path) -> None:
    """As with `-f`: what lies beside it is not read."""
    write(tmp_path, {"prod.yaml": WEB, "compose.yaml": WEB, "compose.override.yaml": WEB})
    project = read(tmp_path / "prod.yaml")

    assert (names(project), project.implicit) == (["prod.yaml"], False)


def test_gpu_compose_is_added(tmp_path: Path) -> None:
    """After the others, so that it can change what they say."""
    write(tmp_path, {"compose.yaml": WEB, "gpu.yaml": WEB})
    gpu = read(tmp_path, gpu=True, gpu_compose=tmp_path / "gpu.yaml")

    assert (names(gpu), gpu.implicit) == (["compose.yaml", "gpu.yaml"], False)


@pytest.mark.parametrize(
    ("dotenv", "environment"),
    [
        ("COMPOSE_FILE=one.yaml:two.yaml\n", {}),
        ("export COMPOSE_FILE='one.yaml:two.yaml'\n", {}),
        ("COMPOSE_FILE=three.yaml\n", {"COMPOSE_FILE": "one.yaml:two.yaml"}),
        ("COMPOSE_FILE=one.yaml,two.yaml\nCOMPOSE_PATH_SEPARATOR=,\n", {}),
    ],
)
def test_compose_file_names_them(
    tmp_path: Path, dotenv: str, environment: Mapping[str, str]
) -> None:
    """From .env beside them, or from the environment, which wins."""
    write(tmp_path, {"one.yaml": WEB, "two.yaml": WEB, ".env": dotenv})

    assert names(read(tmp_path, environment=environment)) == ["one.yaml", "two.yaml"]


# What counts as an edit.


def test_every_file_that_may_change_a_container_is_watched(tmp_path: Path) -> None:
    """Includes, extends, env files, .env, however they are written."""
    write(
        tmp_path,
        {
            "compose.yaml": """
include:
  - more/compose.yaml
  - {path: [other.yaml], env_file: other.env}
services:
  web: {image: web, env_file: [one.env, {path: two.env, required: false}]}
  api: {extends: {file: base/common.yaml, service: api}}
  own: {extends: web, env_file: $SOMEWHERE/three.env}
""",
            "more/compose.yaml": "services: {deep: {image: deep, env_file: deep.env}}",
            "other.yaml": "services: {}",
            "base/common.yaml": "services: {api: {image: api, env_file: api.env}}",
        },
    )
    watched = {str(path.relative_to(tmp_path)) for path in read(tmp_path).inputs}

    assert watched == {
        "compose.yaml",
        ".env",
        "more/compose.yaml",
        "more/.env",
        "more/deep.env",
        "other.yaml",
        "other.env",
        "one.env",
        "two.env",
        "base/common.yaml",
        "base/api.env",
    }


def test_files_that_include_one_another_end(tmp_path: Path) -> None:
    """Compose refuses the circle; reading it must not go on for ever."""
    write(tmp_path, {"compose.yaml": "include: [compose.yaml]\nservices: {web: {image: web}}"})

    assert read(tmp_path).services == {"web"}


def test_an_edit_is_newer_than_what_was_made(tmp_path: Path) -> None:
    """An edit, a file that comes, goes, or is moved here with an old date: each is noticed."""
    write(tmp_path, {"compose.yaml": "services: {web: {image: web, env_file: sub/web.env}}"})
    (tmp_path / "sub").mkdir()
    project = read(tmp_path)

    def later() -> float:
        time.sleep(0.02)
        made = time.time()
        time.sleep(0.02)
        assert not changed_since(project, made)
        return made

    made = later()
    (tmp_path / "compose.yaml").touch()
    assert changed_since(project, made)
    made = later()
    (tmp_path / "sub/web.env").write_text("A=1")
    assert changed_since(project, made)
    made = later()
    (tmp_path / "sub/web.env").unlink()
    assert changed_since(project, made)
    made = later()
    old = tmp_path / "old"
    old.write_text(WEB)
    os.utime(old, (1, 1))
    old.rename(tmp_path / "compose.yaml")
    assert changed_since(project, made)


def test_a_project_is_read_again_when_it_was_edited(tmp_path: Path) -> None:
    """And only then: an override that comes is an edit too."""
    write(tmp_path, {"compose.yaml": WEB})
    projects, wanted = Projects({}), service(tmp_path)
    first = projects.read(wanted, gpu=False)
    same = projects.read(wanted, gpu=False)
    write(tmp_path, {"compose.override.yaml": "services: {more: {image: more}}"})
    edited = projects.read(wanted, gpu=False)

    assert first is same
    assert (first.services, edited.services) == ({"web"}, {"web", "more"})


# What they say.


@pytest.mark.parametrize(
    ("files", "environment", "name"),
    [
        ({"compose.yaml": WEB}, {}, "mystack_1"),
        ({"compose.yaml": f"name: chosen\n{WEB}"}, {}, "chosen"),
        ({"compose.yaml": f"name: chosen\n{WEB}"}, {"COMPOSE_PROJECT_NAME": "mine"}, "mine"),
        ({"compose.yaml": WEB, ".env": "COMPOSE_PROJECT_NAME=mine"}, {}, "mine"),
        ({"compose.yaml": WEB, ".env": "COMPOSE_PROJECT_NAME=mine # ours"}, {}, "mine"),
        ({"compose.yaml": WEB, ".env": "COMPOSE_PROJECT_NAME='mine' # ours"}, {}, "mine"),
        ({"compose.yaml": WEB, ".env": 'COMPOSE_PROJECT_NAME="mine"'}, {}, "mine"),
        (
            {"compose.yaml": f"name: one\n{WEB}", "compose.override.yaml": f"name: two\n{WEB}"},
            {},
            "two",
        ),
    ],
)
def test_the_project_is_named_as_compose_names_it(
    tmp_path: Path, files: Mapping[str, str], environment: Mapping[str, str], name: str
) -> None:
    """By variable, by file, by folder: what compose itself says of the same files."""
    require_engine()
    folder = write(tmp_path / "_My Stack_1!", files)
    variables = [word for pair in environment.items() for word in ("env", "=".join(pair))]
    assert len(variables) in {0, 2}
    known = dict(os.environ)
    os.environ.update(environment)
    try:
        said = docker("compose", "--project-directory", str(folder), "config")
    finally:
        os.environ.clear()
        os.environ.update(known)

    assert read(folder, environment=environment).name == name
    assert said.splitlines()[0] == f"name: {name}"


@pytest.mark.parametrize(
    "files",
    [
        {"compose.yaml": f"name: $STACK\n{WEB}"},
        {"compose.yaml": WEB, ".env": "COMPOSE_PROJECT_NAME=$STACK"},
    ],
)
def test_a_name_that_is_interpolated_is_compose_s_to_tell(
    tmp_path: Path, files: Mapping[str, str]
) -> None:
    """We do not guess."""
    assert read(write(tmp_path, files)).name is None


@pytest.mark.parametrize(
    ("include", "is_complete"),
    [("more.yaml", True), ("$MORE", False), ("gone.yaml", False), ("oci://x/y", False)],
)
def test_what_only_compose_can_find_is_not_guessed(
    tmp_path: Path, include: str, is_complete: bool
) -> None:
    """A project with such an include may have more services than we see."""
    text = f'include: ["{include}"]\n{WEB}'
    write(tmp_path, {"compose.yaml": text, "more.yaml": "services: {more: {image: more}}"})

    assert read(tmp_path).is_complete == is_complete


PROFILES = """
services:
  web: {image: web}
  gpu: {image: gpu, profiles: [cuda, rocm]}
  tool: {image: tool, profiles: [tools]}
"""


@pytest.mark.parametrize(
    ("active", "services"),
    [
        ("", {"web"}),
        ("cuda", {"web", "gpu"}),
        ("tools, rocm", {"web", "gpu", "tool"}),
        ("*", {"web", "gpu", "tool"}),
    ],
)
def test_a_plain_up_makes_what_is_active(tmp_path: Path, active: str, services: set[str]) -> None:
    """Compose services behind a profile only where it is active."""
    write(tmp_path, {"compose.yaml": PROFILES, ".env": f"COMPOSE_PROFILES={active}"})

    assert read(tmp_path).services == services


def test_a_service_that_the_map_names_activates_its_profiles(tmp_path: Path) -> None:
    """`containers: [gpu]` is enough; one without a profile adds none."""
    write(tmp_path, {"compose.yaml": PROFILES})

    assert read(tmp_path, containers=("gpu", "web")).profiles == ("cuda", "rocm")


def test_compose_s_own_tags_are_read(tmp_path: Path) -> None:
    """!override and !reset are not Python's, and no reason to refuse a file."""
    text = "services: {web: {image: web, ports: !override [127.0.0.1:1:1], command: !reset null}}"
    write(tmp_path, {"compose.yaml": text})

    assert read(tmp_path).services == {"web"}


def test_no_tag_runs_anything(tmp_path: Path) -> None:
    """A compose file is data, whatever it is tagged with."""
    mark = tmp_path / "mark"
    write(tmp_path, {"compose.yaml": f"x: !!python/object/apply:os.mkdir [{mark}]\n{WEB}"})

    with pytest.raises(StartFailed, match="not valid YAML"):
        read(tmp_path)
    assert not mark.exists()


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"services: [}", "compose.yaml: line 1: not valid YAML"),
        (b"a: b: c", "compose.yaml: line 1: not valid YAML"),
        (b"\xff\xfe", "compose.yaml"),
        (b"just text", "is not a compose file"),
        (b"", "is not a compose file"),
    ],
)
def test_a_file_that_does_not_parse_is_named(tmp_path: Path, content: bytes, text: str) -> None:
    """With the line, as far as there is one."""
    (tmp_path / "compose.yaml").write_bytes(content)

    with pytest.raises(StartFailed, match=text):
        read(tmp_path)


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    """The folder, the file in it, the GPU's file."""
    with pytest.raises(StartFailed, match=f"compose: {tmp_path}/gone does not exist"):
        read(tmp_path / "gone")
    with pytest.raises(StartFailed, match=f"no compose file in {tmp_path}; allowed: compose.yaml"):
        read(tmp_path)
    write(tmp_path, {"compose.yaml": WEB})
    with pytest.raises(StartFailed, match=f"{tmp_path}/gpu.yaml cannot be read: No such file"):
        read(tmp_path, gpu=True, gpu_compose=tmp_path / "gpu.yaml")
