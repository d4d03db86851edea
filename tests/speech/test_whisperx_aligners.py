"""The aligners of services/whisperx: found, downloaded when first needed, or done without.

The Hub is a stand-in; its client and whisperX are real.
"""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from services.transcription.hub import repository_folder
from services.whisperx.aligners import Aligners, NoAlignerError
from tests.services.hub import Hub, run_hub
from tests.services.sounds import FRENCH_RECORDING, WORDS
from tests.services.speech_server import DIGITS
from tests.speech.inside import ONLINE, client_of, transcribe
from tests.speech.pipelines import DUTCH_ALIGNER, fill_cache

# Where they are


@pytest.fixture
def torch_home(tmp_path, monkeypatch) -> Path:
    """Where torchaudio keeps its files."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    checkpoints = Path(torch.hub.get_dir()) / "checkpoints"
    assert checkpoints.is_relative_to(tmp_path)
    checkpoints.mkdir(parents=True)
    return checkpoints


@pytest.mark.parametrize(
    ("language", "file"),
    [
        ("en", "wav2vec2_fairseq_base_ls960_asr_ls960.pth"),
        ("fr", "wav2vec2_voxpopuli_base_10k_asr_fr.pt"),
        ("de", "wav2vec2_voxpopuli_base_10k_asr_de.pt"),
        ("es", "wav2vec2_voxpopuli_base_10k_asr_es.pt"),
        ("it", "wav2vec2_voxpopuli_base_10k_asr_it.pt"),
    ],
)
def test_torchaudios_aligners_are_found_where_it_keeps_them(tmp_path, torch_home, language, file):
    """Five languages' are its own: a file each, by the name that the download has."""
    aligners = Aligners("", tmp_path)
    with pytest.raises(FileNotFoundError):
        aligners.find(language)
    (torch_home / file).write_bytes(bytes(100))

    assert aligners.find(language) == torch_home / file
    assert aligners.size_bytes(language) == 100


def test_an_aligner_of_the_hub_is_found_in_its_cache(tmp_path, aligner):
    """Under the name that whisperX has for the language; it loads without a network."""
    aligners = Aligners("", tmp_path)
    with pytest.raises(FileNotFoundError):
        aligners.find("nl")
    fill_cache(tmp_path, {DUTCH_ALIGNER: aligner})

    assert aligners.find("nl").is_relative_to(repository_folder(DUTCH_ALIGNER, tmp_path))
    assert aligners.size_bytes("nl") == (aligner / "model.safetensors").stat().st_size
    assert aligners.load("nl", "cpu").metadata["language"] == "nl"


def test_a_download_that_broke_off_is_no_aligner(tmp_path, aligner):
    """The weights come last: without them it is downloaded again."""
    fill_cache(tmp_path, {DUTCH_ALIGNER: aligner})
    [weights] = repository_folder(DUTCH_ALIGNER, tmp_path).rglob("model.safetensors")
    weights.unlink()

    with pytest.raises(FileNotFoundError):
        Aligners("", tmp_path).find("nl")


@pytest.mark.parametrize("language", ["en", "nl", "la"])
def test_the_operators_own_aligner_comes_first(tmp_path, aligner, torch_home, language):
    """Be there another or not; also for a language that whisperX has none for."""
    (torch_home / "wav2vec2_fairseq_base_ls960_asr_ls960.pth").touch()
    fill_cache(tmp_path / "cache", {DUTCH_ALIGNER: aligner})
    own = tmp_path / "own" / language
    shutil.copytree(aligner, own)

    assert Aligners(str(tmp_path / "own"), tmp_path / "cache").find(language) == own


def test_a_language_without_an_aligner_is_named(tmp_path):
    """So is what would be one."""
    with pytest.raises(NoAlignerError, match=r"no aligner for 'la'.*ALIGN_FOLDER/la"):
        Aligners("", tmp_path).find("la")


# What is done without them


def make_model_of(folder: Path, language: str) -> Path:
    """A copy of the model that takes its French for another language."""
    shutil.copytree(DIGITS / "model", folder)
    for file in folder.glob("*.json"):
        file.write_text(file.read_text().replace("<|fr|>", f"<|{language}|>"))
    return folder


def expect_words_without_times(body: dict, reason: str, warning: str = "no_aligner") -> None:
    """The words are there, with the times of the passage."""
    assert body["transcript"]
    assert [each["code"] for each in body["warnings"]] == [warning]
    assert reason in body["warnings"][0]["message"]
    assert all(segment["words"] == [] for segment in body["segments"])
    assert all(segment["start"] < segment["end"] for segment in body["segments"])


async def test_a_language_without_an_aligner_has_words_without_times(tmp_path):
    """In whisperX it is an error, in services over it a 500 (suitenumerique/meet#498)."""
    model = make_model_of(tmp_path / "latin", "la")
    own = ONLINE | {"WHISPERX_DEFAULT_MODEL": str(model)}
    async with client_of(tmp_path, **own) as client:
        response = await transcribe(client, FRENCH_RECORDING, words="true")

    assert (response.status_code, response.json()["language"]) == (200, "la")
    expect_words_without_times(response.json(), "there is no aligner for 'la'")


@pytest.fixture
def aligner_hub(aligner) -> Iterator[Hub]:
    with run_hub({DUTCH_ALIGNER: aligner}) as running:
        yield running


async def test_an_aligner_comes_when_it_is_first_needed(tmp_path, aligner_hub):
    """The request waits for it; the next one has it in memory."""
    model = make_model_of(tmp_path / "dutch", "nl")
    own = ONLINE | {"WHISPERX_DEFAULT_MODEL": str(model), "HF_ENDPOINT": aligner_hub.url}
    async with client_of(tmp_path, **own) as client:
        first = (await transcribe(client, FRENCH_RECORDING, words="true")).json()
        asked = len(aligner_hub.asked)
        second = (await transcribe(client, FRENCH_RECORDING, words="true")).json()
        status = (await client.get("/status")).json()

    assert (first["language"], first["warnings"]) == ("nl", [])
    assert all(segment["words"] for segment in first["segments"])
    assert first["segments"] == second["segments"]
    assert len(aligner_hub.asked) == asked
    assert status["aligners"] == ["nl"]


@pytest.mark.parametrize(
    ("environment", "reason"),
    [
        ({"HF_HUB_OFFLINE": "1"}, "python -m services.whisperx.fetch --align nl downloads it"),
        ({"WHISPER__FETCH": "none"}, "python -m services.whisperx.fetch --align nl downloads it"),
        ({"HF_ENDPOINT": "http://127.0.0.1:9"}, "aligner for nl: cannot be fetched"),
    ],
    ids=["offline", "forbidden", "no Hub"],
)
async def test_an_aligner_that_cannot_come_costs_no_word(tmp_path, caplog, environment, reason):
    """A warning says why; the next request does not wait for the same download in vain."""
    caplog.set_level("INFO")
    model = make_model_of(tmp_path / "dutch", "nl")
    own = ONLINE | {"WHISPERX_DEFAULT_MODEL": str(model)}
    async with client_of(tmp_path, **own | environment) as client:
        response = await transcribe(client, FRENCH_RECORDING, words="true")
        again = (await transcribe(client, FRENCH_RECORDING, words="true")).json()

    assert response.status_code == 200
    expect_words_without_times(response.json(), reason)
    expect_words_without_times(again, reason)
    begun = [each for each in caplog.messages if each.startswith("fetching ")]
    assert len(begun) == ("HF_ENDPOINT" in environment)


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("config.json", "{}"),
        ("config.json", "{"),
        ("model.safetensors", "no weights"),
        ("model.safetensors", None),
        ("vocab.json", "[]"),
        ("vocab.json", None),
        ("tokenizer_config.json", "null"),
    ],
)
async def test_a_damaged_aligner_costs_no_word(tmp_path, aligner, file, content):
    """It cannot be loaded, or what it loads cannot align: the words are told, and a warning."""
    damaged = tmp_path / "aligners/en"
    shutil.copytree(aligner, damaged)
    (damaged / file).unlink()
    if content is not None:
        (damaged / file).write_text(content)
    async with client_of(tmp_path, ALIGN_FOLDER=str(damaged.parent)) as client:
        response = await transcribe(client, words="true")
        usual = await transcribe(client, align="false")

    assert response.status_code == 200
    [warning] = response.json()["warnings"]
    expect_words_without_times(response.json(), "", warning["code"])
    assert warning["code"] in {"no_aligner", "alignment_failed"}
    assert (usual.json()["transcript"], usual.json()["warnings"]) == (WORDS, [])
