"""Where models are: the default one, those in the operator's folder, those in the Hub's cache.

A model is known by the folder's name, by its name on the Hub, or by its size ("small"). Only
`fetch_model` uses the network.
"""

import json
import logging
import re
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from services.faster_whisper.settings import ModelSettings
from services.transcription.catalogue import Catalogue, ServedModel
from services.transcription.hub import cache_folder, fetch_snapshot, repository_folder, snapshot

log = logging.getLogger(__name__)

# Without tokenizer.json the library would fetch another model's from the network.
NEEDED_FILES = ("model.bin", "tokenizer.json")
# Of a model on the Hub, as the library itself has it.
_HUB_FILES = [
    "config.json",
    "preprocessor_config.json",
    "model.bin",
    "tokenizer.json",
    "vocabulary.*",
]

_WIDE_TYPES = ("default", "auto", "float32")

# What the Hub takes for a name: https://huggingface.co/docs/hub/repositories-getting-started
_HUB_NAME = re.compile(r"[A-Za-z0-9_][\w.-]{0,95}/[A-Za-z0-9_][\w.-]{0,95}", re.ASCII)

# Where the sizes are on the Hub (faster-whisper 1.2.1, MIT); a test compares them with the library.
SIZES = {
    **{
        size: f"Systran/faster-whisper-{size}"
        for size in ("tiny", "base", "small", "medium", "large-v1", "large-v2", "large-v3")
    },
    **{
        f"{size}.en": f"Systran/faster-whisper-{size}.en"
        for size in ("tiny", "base", "small", "medium")
    },
    "large": "Systran/faster-whisper-large-v3",
    "distil-large-v2": "Systran/faster-distil-whisper-large-v2",
    "distil-medium.en": "Systran/faster-distil-whisper-medium.en",
    "distil-small.en": "Systran/faster-distil-whisper-small.en",
    "distil-large-v3": "Systran/faster-distil-whisper-large-v3",
    "distil-large-v3.5": "distil-whisper/distil-large-v3.5-ct2",
    "large-v3-turbo": "mobiuslabsgmbh/faster-whisper-large-v3-turbo",
    "turbo": "mobiuslabsgmbh/faster-whisper-large-v3-turbo",
}


def is_folder(model: str) -> bool:
    """Tell a folder from a name: it exists, or could only be a path."""
    return Path(model).is_dir() or model.startswith(("/", ".", "~")) or model.count("/") > 1


def missing_files(folder: Path) -> list[str]:
    """Give what a folder lacks to be a model."""
    return [name for name in NEEDED_FILES if not (folder / name).is_file()]


class Library:
    """The models of this machine, as the settings and the disk have them.

    `cache` is the Hub's; None: where the Hub's client has it ($HF_HOME).
    """

    def __init__(self, whisper: ModelSettings, cache: Path | None = None) -> None:
        self._whisper = whisper
        self._cache = cache or cache_folder()
        self.default = _default_model(whisper)

    def catalogue(self, *, fetches_unasked: bool = False) -> Catalogue:
        """Give what clients may ask for."""
        return Catalogue(
            default=self.default,
            find_others=lambda: [model for model, _ in self._others()],
            may_fetch=self._may_fetch,
            fetch_module="services.faster_whisper.fetch",
            fetches_unasked=fetches_unasked,
        )

    def folder(self, model_id: str) -> Path:
        """Give the folder of a model by its id; raises FileNotFoundError if it is not complete."""
        if model_id == self.default.id:
            return find_model(self._whisper.model, self._cache)
        for model, folder in self._others():
            if model.id == model_id:
                return folder
        raise FileNotFoundError(f"the model {model_id!r} is not here any more")

    def size_bytes(self, model_id: str) -> int:
        """Give about what a model takes in memory."""
        # Models on the Hub are saved in 16 bits a weight. To compute in 32 doubles them; to compute
        # in 8 halves them, which is left as room for the work itself.
        wide = self._whisper.compute_type in _WIDE_TYPES
        return (self.folder(model_id) / "model.bin").stat().st_size * (2 if wide else 1)

    def fetch_default(self) -> None:
        """Download the default model if it is a name and not here; for the start of the service."""
        try:
            find_model(self._whisper.model, self._cache)
        except FileNotFoundError:
            if is_folder(self._whisper.model):
                raise
            log.info("fetching model=%s", self._whisper.model)
            fetch_model(self._whisper.model, self._cache)

    def _others(self) -> Iterator[tuple[ServedModel, Path]]:
        if self._whisper.folder:
            yield from _models_in(Path(self._whisper.folder).expanduser())
        yield from _cached_models(self._cache)

    def _may_fetch(self, name: str) -> bool:
        # The name is a client's: it is compared, and never looked for on the disk.
        match self._whisper.fetch:
            case "none":
                return False
            case "known":
                return name in SIZES or name in SIZES.values()
            case "any":
                return name in SIZES or _HUB_NAME.fullmatch(name) is not None


def find_model(model: str, cache: Path) -> Path:
    """Give the folder of the operator's model; raises FileNotFoundError if it is not here."""
    if is_folder(model):
        folder = Path(model).expanduser()
        if missing := missing_files(folder):
            raise FileNotFoundError(f"WHISPER__MODEL: {model!r} lacks {', '.join(missing)}")
        return folder
    folder = snapshot(repository_folder(hub_name(model), cache))
    if missing := missing_files(folder):
        raise FileNotFoundError(f"the model {model!r} lacks {', '.join(missing)} in {cache}")
    return folder


def fetch_model(model: str, cache: Path | None = None, *, progress: bool = False) -> Path:
    """Download a model into the Hub's cache, and give its folder; what is there is kept.

    `progress` shows bars on stderr. Raises what the Hub's client raises, ValueError for a name
    that is none.
    """
    folder = fetch_snapshot(hub_name(model), cache, patterns=_HUB_FILES, progress=progress)
    if missing := missing_files(folder):
        raise ValueError(f"{model!r} on the Hub is not in CTranslate2's format: it lacks {missing}")
    return folder


def hub_name(model: str) -> str:
    """Give the name on the Hub of a size or a name."""
    if "/" in model:
        return model
    if model not in SIZES:
        raise ValueError(f"{model!r} is neither a folder nor one of: {', '.join(SIZES)}")
    return SIZES[model]


def short_name(model_id: str) -> str:
    """Give what people call a model: its size, or the last part of its name."""
    sizes = _sizes_of(model_id)
    return sizes[0] if sizes else model_id.rpartition("/")[2]


def is_whisper(folder: Path) -> bool:
    """Tell a Whisper model from others that CTranslate2 runs: it alone has alignment heads."""
    if missing_files(folder):
        return False
    config = json.loads((folder / "config.json").read_bytes())
    return isinstance(config, dict) and "alignment_heads" in config


def _default_model(whisper: ModelSettings) -> ServedModel:
    model = whisper.model
    if is_folder(model):
        # The folder's name comes first: clients need not learn where the operator keeps it.
        names = [Path(model).resolve().name, model]
    else:
        repository = SIZES.get(model, model)
        names = [model, repository, *_sizes_of(repository)]
    if whisper.alias:
        names.insert(0, whisper.alias)
    names = list(dict.fromkeys(names))
    return ServedModel(id=names[0], aliases=tuple(names[1:]))


def _models_in(folder: Path) -> Iterator[tuple[ServedModel, Path]]:
    for config in sorted(_listed(folder, "*/config.json") + _listed(folder, "*/*/config.json")):
        found = config.parent
        yield from _served(str(found.relative_to(folder)), partial(Path, found))


def _cached_models(cache: Path) -> Iterator[tuple[ServedModel, Path]]:
    # By the folders' names: to look at all that the cache holds may take seconds.
    for repository in _listed(cache, "models--*"):
        name = repository.name.removeprefix("models--").replace("--", "/")
        yield from _served(name, partial(snapshot, repository))


def _listed(folder: Path, pattern: str) -> list[Path]:
    try:
        return sorted(folder.glob(pattern))
    except OSError as error:  # it went away, or is somebody else's
        log.warning("cannot be listed folder=%s reason=%s", folder, error)
        return []


def _served(name: str, locate: Callable[[], Path]) -> Iterator[tuple[ServedModel, Path]]:
    """Give the model of that name, if it is one; what cannot be read is none.

    Folders come and go, and others than we write to the cache: none of them may hide the rest.
    """
    try:
        name.encode()  # a file's name may be any bytes, an answer's text may not
        folder = locate()
        if not is_whisper(folder):
            return
        created = int((folder / "model.bin").stat().st_mtime)
    except (OSError, ValueError, RecursionError) as error:
        log.debug("no model name=%a reason=%s", name, error)
        return
    owner, slash, _ = name.partition("/")
    model = ServedModel(
        id=name, aliases=_sizes_of(name), owner=owner if slash else "local", created=created
    )
    yield model, folder


def _sizes_of(name: str) -> tuple[str, ...]:
    return tuple(size for size, repository in SIZES.items() if repository == name)
