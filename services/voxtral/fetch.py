"""Downloads ahead what this service would download when it is first needed.

\b
python -m services.voxtral.fetch
python -m services.voxtral.fetch mistralai/Voxtral-Small-24B-2507 --speakers

A NAME is a model on the Hub; without one it is VOXTRAL_MODEL (or MODEL_ID), by default
mistralai/Voxtral-Mini-3B-2507: 9.4 GB. All goes where the service looks for it, also without a
network: $HF_HOME. What was downloaded before is kept, and a download that was broken off goes on.
"""

import os
import sys

import click

from services.diarization.fetch import fetch_speakers
from services.transcription.app import TELEMETRY_OFF
from services.transcription.hub import refusal, use_token
from services.voxtral.files import MISTRAL, TRANSFORMERS, Format, MissingError, is_folder
from services.voxtral.files import fetch as fetch_files
from services.voxtral.settings import MINI


@click.command(help=__doc__)
@click.argument("name", default="")
@click.option("--speakers", is_flag=True, help="What tells speakers apart (DIAR_MODEL), too.")
@click.option(
    "--vllm", is_flag=True, help="In vLLM's format; so, too, if VOXTRAL_ENGINE says vllm."
)
def fetch(name: str, *, speakers: bool, vllm: bool) -> None:
    """Download the model; ends with 1 and one line if it cannot be had."""
    for variable, value in TELEMETRY_OFF.items():
        os.environ.setdefault(variable, value)
    model = name or os.environ.get("VOXTRAL_MODEL") or os.environ.get("MODEL_ID") or MINI
    vllm = vllm or os.environ.get("VOXTRAL_ENGINE") == "vllm"
    # With a model of the operator's own only the speakers are left to be downloaded.
    if name or not (speakers and is_folder(model)):
        _fetch_model(model, MISTRAL if vllm else TRANSFORMERS)
    if speakers:
        fetch_speakers()


def _fetch_model(model: str, format_: Format) -> None:
    if is_folder(model):
        raise SystemExit(f"{model}: is a folder, there is nothing to download")
    with_token = use_token()
    try:
        folder = fetch_files(model, format_, progress=sys.stderr.isatty())
    except MissingError as error:
        raise SystemExit(f"{model} is no Voxtral in the format asked for: {error}") from None
    except Exception as error:  # noqa: BLE001 -- the Hub's client has a dozen, all for people
        raise SystemExit(refusal(error, model, with_token=with_token)) from None
    megabytes = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / 1e6
    click.echo(f"{model}: {megabytes:.0f} MB, in {folder}")


if __name__ == "__main__":
    sys.exit(fetch())
