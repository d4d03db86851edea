"""The aligners of this machine: which there is for a language, where it is, how it comes here.

whisperX names one for each of 40 languages: five of torchaudio's, the others on the Hub. The
library would download them when they are first loaded, in the midst of a request, without a limit
of time; here it is given nothing that is not on the disk.
"""

import logging
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torchaudio
from transformers.utils.logging import disable_progress_bar
from whisperx import alignment

from services.transcription.hub import (
    cache_folder,
    fetch_snapshot,
    repository_folder,
    snapshot,
)

log = logging.getLogger(__name__)

CONFIG = "config.json"
_WEIGHTS = (".bin", ".pth", ".pt", ".safetensors")


# Its bars are drawn into the log.
disable_progress_bar()


class NoAlignerError(Exception):
    """There is none for the language, or it is not here."""


@dataclass(frozen=True)
class Aligner:
    """An aligner in memory, as whisperX loads it."""

    model: torch.nn.Module
    metadata: dict[str, Any]
    device: str


class Aligners:
    """Finds aligners; `folder` is the operator's own, `cache` the Hub's."""

    def __init__(self, folder: str, cache: Path | None = None) -> None:
        self._folder = Path(folder).expanduser() if folder else None
        if self._folder and not self._folder.is_dir():
            log.warning("ALIGN_FOLDER: %s is no folder", self._folder)
        self._cache = cache or cache_folder()

    def find(self, language: str) -> Path:
        """Give the folder or file of an aligner; raises NoAlignerError, FileNotFoundError."""
        if self._folder and (self._folder / language / CONFIG).is_file():
            return self._folder / language
        if language in alignment.DEFAULT_ALIGN_MODELS_TORCH:
            found = _torch_file(language)
            there = found.is_file()
        elif language in alignment.DEFAULT_ALIGN_MODELS_HF:
            name = alignment.DEFAULT_ALIGN_MODELS_HF[language]
            found = snapshot(repository_folder(name, self._cache))
            # The weights come last; a download that broke off left the rest.
            there = bool(_weights(found))
        else:
            raise NoAlignerError(
                f"there is no aligner for {language!r}: words have no times of their own"
                f" (a folder ALIGN_FOLDER/{language} would be one)"
            )
        if not there:
            raise FileNotFoundError(f"{found} is not there, or not complete")
        return found

    def size_bytes(self, language: str) -> int:
        """Give about what an aligner takes in memory."""
        found = self.find(language)
        if found.is_file():
            return found.stat().st_size
        # A folder may hold the same weights in two formats; one is loaded.
        return max((file.stat().st_size for file in _weights(found)), default=0)

    def load(self, language: str, device: str) -> Aligner:
        """Load an aligner from the disk."""
        found = self.find(language)
        model, metadata = alignment.load_align_model(
            language,
            device,
            model_name=str(found) if found.is_dir() else None,
            model_cache_only=True,
        )
        return Aligner(model.eval(), metadata, device)


def fetch_command(language: str) -> list[str]:
    """Give the command that downloads an aligner."""
    return [sys.executable, "-m", "services.whisperx.fetch", "--align", language]


def fetch_aligner(language: str) -> None:
    """Download an aligner where `Aligners` finds it; raises what the libraries raise."""
    known = alignment.DEFAULT_ALIGN_MODELS_TORCH | alignment.DEFAULT_ALIGN_MODELS_HF
    if language not in known:
        raise NoAlignerError(
            f"there is no aligner for {language!r}; use one of: {', '.join(known)}"
        )
    if language in alignment.DEFAULT_ALIGN_MODELS_HF:
        # It fails at once where nobody answers; transformers asks for minutes, for file after file.
        fetch_snapshot(alignment.DEFAULT_ALIGN_MODELS_HF[language], patterns=[CONFIG])
    alignment.load_align_model(language, "cpu")


def _weights(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return [file for file in folder.iterdir() if file.suffix in _WEIGHTS and file.is_file()]


def _torch_file(language: str) -> Path:
    bundle = getattr(torchaudio.pipelines, alignment.DEFAULT_ALIGN_MODELS_TORCH[language])
    # Where torchaudio itself will look: it has no word for the name but this one.
    return Path(torch.hub.get_dir()) / "checkpoints" / Path(bundle._path).name  # noqa: SLF001 -- see above
