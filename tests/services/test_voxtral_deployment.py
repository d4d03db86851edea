"""What goes with services/voxtral: settings in the compose file and README, samples, pins."""

import base64
import io
import json
import re
from pathlib import Path

import pytest
import yaml

from services.transcription.audio import SAMPLE_RATE, Recording, decode_audio
from services.voxtral.jobs import RUN_BYTES_MAX, JobRequest
from services.voxtral.request import parse_input
from services.voxtral.settings import Settings
from tests.daemon import ROOT

SERVICE = ROOT / "services/voxtral"
README = (SERVICE / "README.md").read_text()
NOTHING = "\N{EN DASH}"
# Sizes are written as people do, secrets not at all; the image has a folder of its own.
SAID = {
    "API_KEY": NOTHING,
    "HF_TOKEN": NOTHING,
    "HUGGINGFACE_TOKEN": NOTHING,
    "MAX_UPLOAD": "500MB",
    "VOXTRAL_STATE": "/models/voxtral-state",
}


def variables() -> dict[str, tuple[str, ...]]:
    """Each setting's environment variables, by its field."""
    return {
        name: tuple(
            str(alias).upper()
            for alias in (field.validation_alias.choices if field.validation_alias else [name])
        )
        for name, field in Settings.model_fields.items()
    }


def default(name: str) -> str:
    """Give a setting's default as the README writes it."""
    value = Settings.model_fields[name].default
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value) or NOTHING


@pytest.mark.parametrize("known_as", variables().values())
def test_every_setting_reaches_the_container(known_as):
    """A variable in .env is passed on; a second name for a setting, by way of the first."""
    service = yaml.safe_load((SERVICE / "compose.yaml").read_text())["services"]["voxtral"]
    first = known_as[0]

    assert service["environment"][first].startswith(f"${{{first}:-")
    for alias in known_as[1:]:
        assert f"${{{alias}:-" in service["environment"][first]


@pytest.mark.parametrize(("name", "known_as"), variables().items())
def test_the_readme_tells_every_setting(name, known_as):
    """With all its names, and its default."""
    rows = [line for line in README.splitlines() if line.startswith("| ")]
    [row] = [line for line in rows if f"`{known_as[0]}`" in line.split("|")[1]]
    names, said = row.split("|")[1:3]

    assert all(f"`{alias}`" in names for alias in known_as)
    expected = SAID.get(known_as[0], default(name))
    assert expected in re.split(r"[` ]+", said), (known_as, expected, said)


@pytest.mark.parametrize(
    ("name", "seconds"), [("transcribe", 5), ("summary", 12), ("transcribe_diarized", 19)]
)
def test_a_sample_is_a_job(name, seconds):
    """As it stands, by `curl -d @sample_….json`; of the length that the README says."""
    body = (SERVICE / f"sample_{name}.json").read_bytes()
    given = parse_input(JobRequest.parse(json.loads(body)).input)
    recording = Recording(io.BytesIO(base64.b64decode(given.audio_base64 or "", validate=True)))
    samples = decode_audio(recording, seconds_max=60, check=lambda: None)

    assert (given.task, given.language) == (name, "fr")
    assert seconds == round(len(samples) / SAMPLE_RATE)
    assert len(body) < 50_000 < RUN_BYTES_MAX
    assert f"@sample_{name}.json" in README


def pins(path: Path) -> dict[str, str]:
    """Give the versions that a file pins, by name in one spelling."""
    pairs = [line.split("==") for line in path.read_text().splitlines() if "==" in line]
    return {
        name.lower().replace("_", "-"): version.strip("=")
        for name, version in pairs
        if not name.startswith("#")
    }


def test_every_pin_is_that_of_the_project():
    """The image holds the versions that the project is tested with."""
    mine = pins(SERVICE / "requirements.txt")
    lines = (SERVICE / "requirements.txt").read_text().splitlines()

    assert mine.items() <= pins(ROOT / "requirements.lock").items()
    assert len(mine) == len([line for line in lines if not line.startswith("#")])


def test_both_devices_have_one_torch():
    """The GPU's list names the same version of PyTorch, and never the CPU's build of it."""
    cuda = (SERVICE / "requirements.cuda.txt").read_text().splitlines()
    version = pins(SERVICE / "requirements.txt")["torch"]

    assert [f"torch==={version}"] == [line for line in cuda if line.startswith("torch")]


def test_vllm_keeps_what_is_its_own():
    """Its image gets the versions of the other, but never another PyTorch or transformers."""
    added = pins(SERVICE / "requirements.vllm.txt")
    mine = pins(SERVICE / "requirements.txt")

    # The latter is vLLM's own wish for recordings, and of no use to transformers.
    assert added.keys() - mine.keys() == {"soxr"}
    assert added.items() - mine.items() == {("soxr", added["soxr"])}
    assert not added.keys() & {"torch", "torchaudio", "transformers", "numpy", "mistral-common"}
    assert added.keys() >= {"faster-whisper", "pyannote-audio", "runpod", "soundfile"}
