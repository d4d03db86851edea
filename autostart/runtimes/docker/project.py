"""The files of a compose project: which they are, and whether they have changed.

Read here only as far as it takes to know whether compose has to be asked at all: it is compose
that decides what they mean. A folder means what `docker compose` itself finds there, a file means
`-f FILE`. No engine and no subprocess; a read takes a millisecond or two.
"""

from __future__ import annotations

import os
import re
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from autostart.config import ServiceConfig
from autostart.errors import StartFailed

# In compose's order, compose-go cli/options.go; the first that exists is taken, of each kind.
NAMES = ("compose.yaml", "compose.yml", "docker-compose.yml", "docker-compose.yaml")
OVERRIDES = (
    "compose.override.yml",
    "compose.override.yaml",
    "docker-compose.override.yml",
    "docker-compose.override.yaml",
)
DOTENV = ".env"
# Files that include one another in a circle, or a tree that nobody wrote by hand.
INCLUDES_MAX = 100


@dataclass(frozen=True)
class Project:
    """What compose is to read for a service."""

    folder: Path  # absolute; compose's project directory
    files: tuple[Path, ...]  # absolute, in compose's order
    implicit: bool  # compose finds exactly these by itself, and is not told
    name: str | None  # None where only compose can tell: it is interpolated
    services: frozenset[str]  # what a plain `up` makes
    is_complete: bool  # False where it may make more: a file is included that only compose finds
    profiles: tuple[str, ...]  # to be activated for the services that the map names
    inputs: tuple[Path, ...]  # every file whose edit may change a container, also if absent


class Projects:
    """Reads projects, and reads them again only when a file has changed."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment
        self._read: dict[tuple[str, bool], tuple[ServiceConfig, Hashable, Project]] = {}

    def read(self, service: ServiceConfig, *, gpu: bool) -> Project:
        """Return the project of a service on this device.

        Raises StartFailed naming what is missing or does not parse.
        """
        known = self._read.get((service.host, gpu))
        if known is not None and known[0] == service and known[1] == signature(known[2]):
            return known[2]
        project = read_project(service, gpu=gpu, environment=self._environment)
        self._read[service.host, gpu] = service, signature(project), project
        return project


def read_project(service: ServiceConfig, *, gpu: bool, environment: Mapping[str, str]) -> Project:
    """Read the project of a service. Raises StartFailed."""
    compose = service.compose
    assert compose is not None, f"{service.host} has no compose"
    compose = Path(os.path.abspath(compose))  # noqa: PTH100 - a link stays as it is written
    if not compose.exists():
        raise StartFailed(f"compose: {compose} does not exist")
    is_folder = compose.is_dir()
    folder = compose if is_folder else compose.parent
    dotenv = _read_dotenv(folder / DOTENV)
    files = _files_in(folder, {**dotenv, **environment}) if is_folder else (compose,)
    if gpu:
        if service.gpu_compose is None:
            raise StartFailed(f"{service.host} has no gpu_compose")
        files = (*files, Path(os.path.abspath(service.gpu_compose)))  # noqa: PTH100 - as above
    documents = {file: _parse(file) for file in files}
    declared = _Declared()
    inputs = [*files, folder / DOTENV]
    for file, document in documents.items():
        inputs += _inputs(file, folder, document, declared, depth=0)
    active = _words((dotenv | dict(environment)).get("COMPOSE_PROFILES", ""))
    return Project(
        folder=folder,
        files=files,
        implicit=is_folder and not gpu,
        name=_name(folder, documents.values(), {**dotenv, **environment}),
        services=frozenset(
            name
            for name, entry in declared.services.items()
            if _is_active(_profiles(entry), active)
        ),
        is_complete=declared.is_complete,
        profiles=_wanted_profiles(service, declared.services),
        inputs=tuple(dict.fromkeys(inputs)),
    )


def changed_since(project: Project, created: float) -> bool:
    """Say whether a file is newer than something made at `created`, in epoch seconds."""
    for path in project.inputs:
        try:
            stat = path.stat()
        except OSError:
            # Was it there? Its folder knows that something came or went.
            folder = _stat_or_none(path.parent)
            if folder is None or folder.st_mtime > created:
                return True
            continue
        # An older file that was moved here has an old mtime and a new ctime.
        if max(stat.st_mtime, stat.st_ctime) > created:
            return True
    return False


def signature(project: Project) -> Hashable:
    """Return what is different after any edit."""
    stats = []
    for path in project.inputs:
        stat = _stat_or_none(path)
        stats.append(stat and (stat.st_mtime_ns, stat.st_ctime_ns, stat.st_size, stat.st_ino))
    if project.implicit:
        # An override that comes is found by compose.
        present = tuple(name for name in (*NAMES, *OVERRIDES) if (project.folder / name).exists())
        return (project.files, tuple(stats), present)
    return (project.files, tuple(stats))


# Which files.


def _files_in(folder: Path, environment: Mapping[str, str]) -> tuple[Path, ...]:
    if named := environment.get("COMPOSE_FILE"):
        separator = environment.get("COMPOSE_PATH_SEPARATOR") or os.pathsep
        return tuple(folder / name for name in named.split(separator) if name)
    base = _first_of(folder, NAMES)
    if base is None:
        raise StartFailed(f"no compose file in {folder}; allowed: {', '.join(NAMES)}")
    override = _first_of(folder, OVERRIDES)
    return (base,) if override is None else (base, override)


def _first_of(folder: Path, names: Iterable[str]) -> Path | None:
    return next((folder / name for name in names if (folder / name).is_file()), None)


@dataclass
class _Declared:
    """What was found in the files so far."""

    services: dict[str, Any] = field(default_factory=dict)
    is_complete: bool = True


def _inputs(
    file: Path, folder: Path, document: Mapping[str, Any], declared: _Declared, *, depth: int
) -> Iterator[Path]:
    """Yield the other files that a compose file names; note the services that it declares."""
    for entry in _listed(document.get("include")) if depth < INCLUDES_MAX else ():
        inner = entry if isinstance(entry, Mapping) else {"path": entry}
        included = list(_paths(folder, inner.get("path")))
        if not included or not all(path.is_file() for path in included):
            declared.is_complete = False
        for path in included:
            yield path
            if path.is_file():
                below = Path(inner.get("project_directory") or path.parent)
                yield path.parent / DOTENV
                yield from _inputs(path, folder / below, _parse(path), declared, depth=depth + 1)
        yield from _paths(folder, inner.get("env_file"))
    for name, entry in _mapping(document.get("services")).items():
        service = _mapping(entry)
        declared.services[name] = {**declared.services.get(name, {}), **service}
        extends = service.get("extends")
        for path in _paths(folder, extends.get("file") if isinstance(extends, Mapping) else None):
            yield path
            if path.is_file() and path != file and depth < INCLUDES_MAX:
                yield from _inputs(path, path.parent, _parse(path), _Declared(), depth=depth + 1)
        for env_file in _listed(service.get("env_file")):
            yield from _paths(
                folder, env_file.get("path") if isinstance(env_file, Mapping) else env_file
            )


def _paths(folder: Path, written: object) -> Iterator[Path]:
    """Yield files named relative to the folder; what is interpolated only compose can tell."""
    for each in _listed(written):
        if isinstance(each, str) and "$" not in each:
            yield folder / each


# What they say.


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]  # one of two
    """YAML with compose's own tags (!reset, !override), which say how files are merged."""


def _construct_any(loader: yaml.Loader, _: str, node: yaml.Node) -> object:
    if isinstance(node, yaml.MappingNode):
        return loader.construct_mapping(node, deep=True)
    if isinstance(node, yaml.SequenceNode):
        return loader.construct_sequence(node, deep=True)
    assert isinstance(node, yaml.ScalarNode), node
    return loader.construct_scalar(node)


_Loader.add_multi_constructor("!", _construct_any)


def _parse(file: Path) -> Mapping[str, Any]:
    try:
        document = yaml.load(file.read_text(encoding="utf-8"), Loader=_Loader)  # noqa: S506 - safe
    except OSError as error:
        raise StartFailed(f"{file} cannot be read: {error.strerror}") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = "" if mark is None else f" line {mark.line + 1}:"
        problem = getattr(error, "problem", None) or "not valid"
        raise StartFailed(f"{file}:{where} not valid YAML: {problem}") from error
    except ValueError as error:
        raise StartFailed(f"{file} is not UTF-8 text") from error
    if not isinstance(document, Mapping):
        raise StartFailed(f"{file} is not a compose file: no mapping with services")
    return document


def _read_dotenv(path: Path) -> dict[str, str]:
    """Read the few lines that say how compose behaves; the rest is compose's to read."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return {}
    found = {}
    for line in text.splitlines():
        match = re.fullmatch(r"\s*(?:export\s+)?(COMPOSE_\w+)\s*=\s*(.*?)\s*", line)
        if match:
            found[match[1]] = _unquoted(match[2])
    return found


def _unquoted(value: str) -> str:
    """Return a value as compose reads it: without quotes, or without a comment."""
    if quoted := re.match(r"""(["'])(.*?)\1""", value):
        return quoted[2]
    return re.sub(r"\s#.*", "", value)


def _name(
    folder: Path, documents: Iterable[Mapping[str, Any]], environment: Mapping[str, str]
) -> str | None:
    if named := environment.get("COMPOSE_PROJECT_NAME"):
        return None if "$" in named else named
    written = [str(document["name"]) for document in documents if document.get("name")]
    if written:
        return None if "$" in written[-1] else written[-1]
    # As compose-go's NormalizeProjectName.
    return re.sub(r"[^-_a-z0-9]", "", folder.name.lower()).lstrip("_-") or None


def _profiles(entry: Mapping[str, Any]) -> list[str]:
    return [str(each) for each in _listed(entry.get("profiles"))]


def _is_active(profiles: Sequence[str], active: Iterable[str]) -> bool:
    return not profiles or "*" in active or not set(profiles).isdisjoint(active)


def _wanted_profiles(service: ServiceConfig, declared: Mapping[str, Any]) -> tuple[str, ...]:
    wanted: list[str] = []
    for name in service.containers or ():
        wanted += _profiles(declared.get(name, {}))  # one that is not there, compose names
    return tuple(dict.fromkeys(wanted))


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def _listed(value: object) -> list[Any]:
    if value is None:
        return []
    return list(value) if isinstance(value, list | tuple) else [value]


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _stat_or_none(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except OSError:
        return None
