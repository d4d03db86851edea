"""Where a Voxtral's files are: in the operator's folder, or in the Hub's cache.

Nothing here uses the network but `fetch`, and nothing imports torch.
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path

from services.transcription.hub import cache_folder, fetch_snapshot, repository_folder, snapshot

_HUB_NAME = re.compile(r"[A-Za-z0-9_][\w.-]*/[A-Za-z0-9_][\w.-]*", re.ASCII)


class MissingError(Exception):
    """The model is not here, or not all of it; the message names what is missing."""


@dataclass(frozen=True)
class Format:
    """One of the two ways in which Mistral publishes the same weights, side by side."""

    patterns: tuple[str, ...]  # what is downloaded of it
    files: tuple[str, ...]  # what it needs beside the weights
    # In one file of this name, or in several, which an index beside them names.
    weights: str


# What transformers reads. All JSON: what there is of it differs from model to model, and is small.
TRANSFORMERS = Format(
    patterns=("*.json", "model*.safetensors"),
    files=("config.json", "tekken.json"),
    weights="model.safetensors",
)
# What vLLM reads with --config-format, --load-format and --tokenizer-mode mistral.
MISTRAL = Format(
    patterns=("*.json", "consolidated*.safetensors"),
    files=("params.json", "tekken.json"),
    weights="consolidated.safetensors",
)


def is_folder(model: str) -> bool:
    """Tell a folder from a name on the Hub: it exists, or could only be a path."""
    return Path(model).expanduser().is_dir() or not _HUB_NAME.fullmatch(model)


def shown_name(model: str) -> str:
    """Give what clients are told: not where on this machine it is."""
    return Path(model).expanduser().resolve().name if is_folder(model) else model


def find(model: str, format_: Format = TRANSFORMERS, cache: Path | None = None) -> Path:
    """Give the folder of a model that is here, whole; raises MissingError.

    `cache` is the Hub's; None: where its client has it ($HF_HOME).
    """
    if is_folder(model):
        folder = Path(model).expanduser()
        if not folder.is_dir():
            raise MissingError(f"{model}: is no folder, and no name on the Hub")
    else:
        try:
            folder = snapshot(repository_folder(model, cache or cache_folder()))
        except (OSError, ValueError):
            raise MissingError(f"{model} is not here") from None
    if missing := _missing(folder, format_):
        raise MissingError(f"{shown_name(model)} lacks {', '.join(missing)}")
    return folder


def fetch(
    model: str,
    format_: Format = TRANSFORMERS,
    cache: Path | None = None,
    *,
    progress: bool = False,
) -> Path:
    """Download a model of the Hub into its cache, and give its folder; what is there is kept.

    `progress` shows bars on stderr. Raises what the Hub's client raises, MissingError where the
    model is not published in that format.
    """
    fetch_snapshot(model, cache, patterns=format_.patterns, progress=progress)
    return find(model, format_, cache)


def _missing(folder: Path, format_: Format) -> list[str]:
    """Give what a folder lacks: a download that was broken off leaves some of the weights."""
    index = folder / f"{format_.weights}.index.json"
    weights = _indexed(index) if index.is_file() else [format_.weights]
    return [name for name in (*format_.files, *weights) if not (folder / name).is_file()]


def _indexed(index: Path) -> list[str]:
    try:
        return sorted(set(json.loads(index.read_bytes())["weight_map"].values()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise MissingError(f"{index.name} names no files of weights") from error
