"""Downloads ahead what this service would download when it is first needed.

\b
python -m services.whisperx.fetch base medium --align fr --align en --speakers --sentences

A NAME is a model: a size ("base") or a name on the Hub in CTranslate2's format. All goes where the
service looks for it, also without a network: $HF_HOME, $TORCH_HOME, $NLTK_DATA. What was
downloaded before is kept.
"""

import os
import socket
import sys
from collections.abc import Callable
from functools import partial

import click

from services.diarization.fetch import fetch_speakers
from services.faster_whisper.fetch import fetch_models
from services.transcription.app import TELEMETRY_OFF

_SILENCE_SECONDS = 60.0


@click.command(help=__doc__)
@click.argument("names", nargs=-1, metavar="[NAME]…")
@click.option("--align", "languages", multiple=True, metavar="LANGUAGE", help="Its aligner: fr.")
@click.option("--speakers", is_flag=True, help="What tells speakers apart (DIAR_MODEL); HF_TOKEN.")
@click.option("--sentences", is_flag=True, help="NLTK's tables of abbreviations.")
def fetch(
    names: tuple[str, ...], languages: tuple[str, ...], speakers: bool, sentences: bool
) -> None:
    """Download each in turn; ends with 1 and one line if one cannot be had."""
    if not (names or languages or speakers or sentences):
        raise click.UsageError("say what: a NAME, --align, --speakers or --sentences")
    for variable, value in TELEMETRY_OFF.items():
        os.environ.setdefault(variable, value)
    fetch_models(names)
    for language in languages:
        _told(f"aligner for {language}", partial(_fetch_aligner, language))
    if speakers:
        fetch_speakers()
    if sentences:
        _told("sentences", _fetch_sentences)


def _told(what: str, run: Callable[[], str]) -> None:
    try:
        where = run()
    except Exception as error:  # noqa: BLE001 -- three libraries' errors, all for people
        reason = " ".join(str(error).split())[:500]
        raise SystemExit(f"{what}: cannot be fetched: {reason}") from None
    click.echo(f"{what}: in {where}")


def _fetch_aligner(language: str) -> str:
    # It would have the Hub convert weights to another format, by a thread of its own.
    os.environ.setdefault("DISABLE_SAFETENSORS_CONVERSION", "1")
    from transformers.utils.logging import enable_progress_bar  # noqa: PLC0415 -- seconds

    from services.whisperx.aligners import (  # noqa: PLC0415 -- seconds
        Aligners,
        NoAlignerError,
        fetch_aligner,
    )

    # torchaudio's downloads have no limit of their own to how long nothing comes.
    socket.setdefaulttimeout(_SILENCE_SECONDS)
    try:
        if sys.stderr.isatty():
            enable_progress_bar()
        fetch_aligner(language)
    except NoAlignerError as error:
        raise SystemExit(str(error)) from None
    return str(Aligners("").find(language))


def _fetch_sentences() -> str:
    from services.whisperx.sentences import fetch_sentences  # noqa: PLC0415 -- seconds

    return str(fetch_sentences())


if __name__ == "__main__":
    sys.exit(fetch())
