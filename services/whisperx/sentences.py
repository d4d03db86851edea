"""Where sentences end, for whisperX's aligner: NLTK's Punkt, with or without its trained tables.

Without tables Punkt takes every full stop for an end but those that it can tell by rule; whisperX
would download them (from raw.githubusercontent.com) in the midst of a request.
"""

import contextlib
import os
import tempfile
from pathlib import Path

import nltk
from whisperx.utils import PUNKT_LANGUAGES

PACKAGE = "punkt_tab"
_TABLES = ("abbrev_types.txt", "collocations.tab", "ortho_context.tab", "sent_starters.txt")


def provide_sentences() -> None:
    """Make sure that nothing is downloaded: empty tables stand where there are no others."""
    folder = _folder()
    for language in {"english", *PUNKT_LANGUAGES.values()}:
        tables = folder / "tokenizers" / PACKAGE / language
        tables.mkdir(parents=True, exist_ok=True)
        for name in _TABLES:
            (tables / name).touch()
    # Looked at last: an operator's own come first.
    nltk.data.path.append(str(folder))


def _folder() -> Path:
    """Give one folder for all starts: who is ended by SIGTERM removes none."""
    folder = Path(tempfile.gettempdir()) / f"whisperx-sentences-{os.getuid()}"
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    if folder.lstat().st_uid != os.getuid():  # somebody else's, with tables of their own
        return Path(tempfile.mkdtemp(prefix=f"{folder.name}-"))
    return folder


def fetch_sentences() -> Path:
    """Download the trained tables into $NLTK_DATA, or where NLTK keeps them; OSError if in vain."""
    folder = Path(os.environ.get("NLTK_DATA") or Path.home() / "nltk_data")
    if not nltk.download(PACKAGE, download_dir=str(folder), quiet=True):
        raise OSError(f"NLTK's {PACKAGE} cannot be downloaded")
    return folder
