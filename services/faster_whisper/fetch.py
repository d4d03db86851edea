"""Downloads models ahead: `python -m services.faster_whisper.fetch NAME…`, with progress bars
on a terminal.

A NAME is a size ("small") or a model on the Hugging Face Hub in CTranslate2's format. It goes
into the Hub's cache ($HF_HOME), where the service finds it, also without a network. What was
downloaded before is kept, and a download that was broken off goes on.
"""

import os
import sys
from collections.abc import Sequence

import click

from services.faster_whisper.library import SIZES, fetch_model, hub_name
from services.transcription.app import TELEMETRY_OFF


@click.command(help=__doc__, epilog=f"Sizes: {', '.join(SIZES)}.")
@click.argument("names", nargs=-1, required=True, metavar="NAME…")
def fetch(names: tuple[str, ...]) -> None:
    """Download each model in turn; ends with 1 and one line if one cannot be had."""
    for name, value in TELEMETRY_OFF.items():
        os.environ.setdefault(name, value)
    fetch_models(names)


def fetch_models(names: Sequence[str]) -> None:
    """Download models, and tell of each; raises SystemExit with one line for one that cannot."""
    for name in names:
        try:
            folder = fetch_model(name, progress=sys.stderr.isatty())
        except Exception as error:  # noqa: BLE001 -- the Hub's client has a dozen, all for people
            reason = " ".join(str(error).split())
            raise SystemExit(f"{name}: cannot be fetched: {reason}") from None
        megabytes = sum(file.stat().st_size for file in folder.rglob("*")) / 1e6
        click.echo(f"{name}: {hub_name(name)}, {megabytes:.0f} MB, in {folder}")


if __name__ == "__main__":
    sys.exit(fetch())
