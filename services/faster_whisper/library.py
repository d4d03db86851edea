"""Where models are: the default one, those in the operator's folder, those in the Hub's cache.

A model is known by the folder's name, by its name on the Hub, or by its size ("small"). Only
`fetch_model` uses the network.
"""

import json
import logging
from collections.abc import Iterator
from pathlib import Path

# Itself it loads nothing before it is used: the client behind it takes a tenth of a second.
import huggingface_hub

from services.faster_whisper.settings import WhisperSettings
from services.transcription.catalogue import Catalogue, ServedModel

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

    def __init__(self, whisper: WhisperSettings, cache: Path | None = None) -> None:
        self._whisper = whisper
        self._cache = cache
        self.default = _default_model(whisper)

    def catalogue(self) -> Catalogue:
        """Give what clients may ask for."""
        return Catalogue(
            default=self.default,
            find_others=lambda: [model for model, _ in self._others()],
            may_fetch=self._may_fetch,
            fetch_module="services.faster_whisper.fetch",
        )

    def folder(self, model_id: str) -> Path:
        """Give the folder of a model by its id; raises FileNotFoundError if it is not complete."""
        if model_id == self.default.id:
            return find_model(self._whisper.model, self._cache)
        for model, folder in self._others():
            if model.id == model_id:
                return folder
        raise FileNotFoundError(f"the model {model_id!r} is not here any more")

    def _others(self) -> Iterator[tuple[ServedModel, Path]]:
        if self._whisper.folder:
            yield from _models_in(Path(self._whisper.folder).expanduser())
        yield from _cached_models(self._cache)

    def _may_fetch(self, name: str) -> bool:
        match self._whisper.fetch:
            case "none":
                return False
            case "known":
                return name in SIZES or name in SIZES.values()
            case "any":
                return not is_folder(name)


def find_model(model: str, cache: Path | None = None) -> Path:
    """Give the folder of a model, and fetch it if it is a name that was never fetched.

    The network is asked only then: what is here starts faster, and starts offline.
    """
    if is_folder(model):
        folder = Path(model).expanduser()
        if missing := missing_files(folder):
            raise FileNotFoundError(f"WHISPER__MODEL: {model!r} lacks {', '.join(missing)}")
        return folder
    if cached := _cached_folder(hub_name(model), cache):
        return cached
    log.info("fetching model=%s", model)
    return fetch_model(model, cache)


def fetch_model(model: str, cache: Path | None = None, *, progress: bool = False) -> Path:
    """Download a model into the Hub's cache, and give its folder; what is there is kept.

    `progress` shows bars on stderr. Raises what the Hub's client raises, ValueError for a name
    that is none.
    """
    if not progress:
        from huggingface_hub.utils.tqdm import disable_progress_bars  # noqa: PLC0415 -- as above

        disable_progress_bars()

    folder = Path(
        huggingface_hub.snapshot_download(
            hub_name(model), cache_dir=cache, allow_patterns=_HUB_FILES
        )
    )
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


def _default_model(whisper: WhisperSettings) -> ServedModel:
    model = whisper.model
    if is_folder(model):
        # The folder's name comes first: clients need not learn where the operator keeps it.
        names = [Path(model).resolve().name, model]
    elif model in SIZES:
        names = [model, SIZES[model]]
    else:
        names = [model, *_sizes_of(model)]
    if whisper.alias:
        names.insert(0, whisper.alias)
    return ServedModel(id=names[0], aliases=tuple(names[1:]))


def _models_in(folder: Path) -> Iterator[tuple[ServedModel, Path]]:
    for config in sorted([*folder.glob("*/config.json"), *folder.glob("*/*/config.json")]):
        if is_whisper(config.parent):
            yield _served(str(config.parent.relative_to(folder)), config.parent), config.parent


def _cached_models(cache: Path | None) -> Iterator[tuple[ServedModel, Path]]:
    try:
        repositories = huggingface_hub.scan_cache_dir(cache).repos
    except huggingface_hub.CacheNotFound:
        return
    for repository in sorted(repositories, key=lambda found: found.repo_id):
        name = repository.repo_id
        folder = repository.repo_type == "model" and _cached_folder(name, cache)
        if folder and is_whisper(folder):
            yield _served(name, folder, aliases=_sizes_of(name)), folder


def _cached_folder(name: str, cache: Path | None) -> Path | None:
    try:
        folder = Path(
            huggingface_hub.snapshot_download(name, cache_dir=cache, local_files_only=True)
        )
    except FileNotFoundError:
        return None
    return None if missing_files(folder) else folder


def is_whisper(folder: Path) -> bool:
    """Tell a Whisper model from others that CTranslate2 runs: it alone has alignment heads."""
    if missing_files(folder):
        return False
    try:
        return "alignment_heads" in json.loads((folder / "config.json").read_bytes())
    except (OSError, ValueError):
        return False


def _served(name: str, folder: Path, aliases: tuple[str, ...] = ()) -> ServedModel:
    owner, slash, _ = name.partition("/")
    return ServedModel(
        id=name,
        aliases=aliases,
        owner=owner if slash else "local",
        created=int((folder / "model.bin").stat().st_mtime),
    )


def _sizes_of(name: str) -> tuple[str, ...]:
    return tuple(size for size, repository in SIZES.items() if repository == name)
