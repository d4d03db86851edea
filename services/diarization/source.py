"""Where the files of a pyannote pipeline are: in the operator's folder, or in the Hub's cache.

A pipeline of the Hub may be made of models of other repositories, and one of 3.x takes what it
does not name from community-1 (pyannote.audio 4.0.7). All of them are found here, so that nothing
is asked of the network when the pipeline is loaded.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from services.diarization.settings import COMMUNITY
from services.transcription.hub import cache_folder, repository_folder, snapshot

CONFIG = "config.yaml"
# The parts of a pipeline, and what each folder of them holds.
_PARTS = {
    "segmentation": ("pytorch_model.bin",),
    "embedding": ("pytorch_model.bin",),
    "plda": ("plda.npz", "xvec_transform.npz"),
}
_HUB_NAME = re.compile(r"[A-Za-z0-9_][\w.-]*/[A-Za-z0-9_][\w.-]*", re.ASCII)
# Other makers' models, which pyannote loads by other libraries that are not here.
_FOREIGN = ("speechbrain/", "nvidia/")


class MissingError(Exception):
    """A part of the pipeline is not here."""


class Source:
    """A pipeline by folder or name; `cache` is the Hub's."""

    def __init__(self, model: str, cache: Path | None = None) -> None:
        self.model = model
        self._cache = cache or cache_folder()

    @property
    def name(self) -> str:
        """What clients are told: not where on this machine it is."""
        return Path(self.model).name if self.is_folder else self.model

    @property
    def is_folder(self) -> bool:
        """Whether it is the operator's own, and so cannot be downloaded."""
        return Path(self.model).expanduser().is_dir() or not _HUB_NAME.fullmatch(self.model)

    def folder(self) -> Path:
        """Give the folder of config.yaml; raises MissingError."""
        if self.is_folder:
            return _with_files(Path(self.model).expanduser(), (CONFIG,), self.name)
        return self._snapshot(self.model, (CONFIG,))

    def repositories(self) -> list[str]:
        """Give the names on the Hub of what config.yaml needs beside itself."""
        return [
            part["repository"]
            for part in self._parts(self._read()).values()
            if "repository" in part
        ]

    def config(self) -> dict[str, Any]:
        """Give config.yaml with every part as a folder of this machine; raises MissingError."""
        try:
            return self._resolved()
        except OSError as error:
            raise MissingError(f"{self.name} cannot be read: {error.strerror}") from error

    def _resolved(self) -> dict[str, Any]:
        config = self._read()
        for name, part in self._parts(config).items():
            if "file" in part:
                config["pipeline"]["params"][name] = {"checkpoint": str(part["file"])}
                continue
            files = _PARTS[name]
            folder = (
                self._snapshot(part["repository"], ()) if "repository" in part else part["folder"]
            )
            subfolder = part.get("subfolder", "")
            _with_files(folder / subfolder, files, part.get("repository", self.name))
            found = {"checkpoint": str(folder)}
            config["pipeline"]["params"][name] = (
                found | {"subfolder": subfolder} if subfolder else found
            )
        return config

    def size_bytes(self) -> int:
        """Give the size of what will be loaded, about what it takes in memory."""
        found = {Path(config["checkpoint"]) for config in self._checkpoints()}
        files = {file for path in found for file in (path, *path.rglob("*")) if file.is_file()}
        return sum(file.stat().st_size for file in files)

    def _checkpoints(self) -> Iterator[dict[str, str]]:
        params = self.config()["pipeline"]["params"]
        yield from (params[name] for name in _PARTS if isinstance(params[name], dict))

    def _read(self) -> dict[str, Any]:
        path = self.folder() / CONFIG
        try:
            config = yaml.safe_load(path.read_text())
            params = config["pipeline"].setdefault("params", {})
        except (yaml.YAMLError, TypeError, KeyError, AttributeError, UnicodeDecodeError) as error:
            raise MissingError(f"{self.name}: {CONFIG} describes no pipeline") from error
        if not isinstance(params, dict):
            raise MissingError(f"{self.name}: {CONFIG} describes no pipeline")
        return dict(config)

    def _parts(self, config: dict[str, Any]) -> dict[str, dict[str, Any]]:
        """Give for each part its file or folder here or its repository, and its subfolder."""
        parts: dict[str, dict[str, Any]] = {}
        for name in _PARTS:
            described = config["pipeline"]["params"].get(
                name, {"checkpoint": COMMUNITY, "subfolder": name}
            )
            subfolder = ""
            if isinstance(described, dict):
                subfolder = str(described.get("subfolder", ""))
                described = described.get("checkpoint", "")
            described = str(described)
            if described.startswith(_FOREIGN):
                continue
            if described.startswith("$model"):
                subfolder = described.partition("/")[2].partition("@")[0]
                where: dict[str, Any] = {"folder": self.folder()}
            elif (path := self._path(described)).is_file() and name != "plda":
                # Where 3.x ran offline, each was copied by hand under a name of its own.
                where = {"file": path}
            elif _HUB_NAME.fullmatch(described) and not path.is_dir():
                where = {"repository": described}
            else:
                where = {"folder": path}
            parts[name] = where | ({"subfolder": subfolder} if subfolder else {})
        return parts

    def _path(self, described: str) -> Path:
        """Give what config.yaml names: beside itself, if it is there."""
        path = Path(described).expanduser()
        beside = self.folder() / path
        return beside if beside.exists() else path

    def _snapshot(self, repository: str, files: tuple[str, ...]) -> Path:
        try:
            folder = snapshot(repository_folder(repository, self._cache))
        except (OSError, ValueError):
            raise MissingError(f"{repository} is not here") from None
        return _with_files(folder, files, repository)


def _with_files(folder: Path, files: tuple[str, ...], owner: str) -> Path:
    missing = [name for name in files if not (folder / name).is_file()]
    if missing:
        raise MissingError(f"{owner} lacks {', '.join(missing)}")
    return folder
