"""Downloads a pyannote pipeline ahead: `python -m services.diarization.fetch [NAME]`.

All that it consists of goes into the Hub's cache ($HF_HOME). What is gated needs the token of an
account that has accepted the conditions, in HF_TOKEN or HUGGINGFACE_TOKEN.
"""

import os
import sys
from pathlib import Path

import click

from services.diarization.settings import COMMUNITY
from services.diarization.source import MissingError, Source
from services.transcription.app import TELEMETRY_OFF
from services.transcription.hub import fetch_snapshot, refusal, use_token


def fetch_pipeline(model: str, cache: Path | None = None, *, progress: bool = False) -> Path:
    """Download a pipeline and every model that it is made of, and give its folder.

    Raises SystemExit with one line that says what the operator must do.
    """
    source = Source(model, cache)
    if source.is_folder:
        raise SystemExit(f"{model}: is a folder, there is nothing to download")
    _fetch(model, cache, progress=progress)
    try:
        for repository in source.repositories():
            _fetch(repository, cache, progress=progress)
        source.config()
        return source.folder()
    except MissingError as error:
        raise SystemExit(str(error)) from None


def _fetch(name: str, cache: Path | None, *, progress: bool) -> None:
    with_token = use_token()
    try:
        fetch_snapshot(name, cache, progress=progress)
    except Exception as error:  # noqa: BLE001 -- the Hub's client has a dozen, all for people
        raise SystemExit(refusal(error, name, with_token=with_token)) from None


def fetch_speakers(model: str = "") -> None:
    """Download a pipeline, by default that of DIAR_MODEL, and tell of it; raises SystemExit."""
    model = model or os.environ.get("DIAR_MODEL") or COMMUNITY
    folder = fetch_pipeline(model, progress=sys.stderr.isatty())
    click.echo(f"{model}: in {folder}")


@click.command(help=__doc__)
@click.argument("name", default=COMMUNITY)
def fetch(name: str) -> None:
    """Download one pipeline; ends with 1 and one line if it cannot be had."""
    for variable, value in TELEMETRY_OFF.items():
        os.environ.setdefault(variable, value)
    fetch_speakers(name)


if __name__ == "__main__":
    sys.exit(fetch())
