"""A Voxtral comes from the Hub in the format asked for, or one line tells the operator why not.

The Hub's client is real, the Hub is a stand-in with files as Mistral's repositories have them.
"""

import json
import os
import pty
import subprocess
import sys
import termios
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.diarization.settings import COMMUNITY
from services.diarization.source import Source
from services.transcription.hub import TOKENS_PAGE, repository_folder, snapshot
from services.voxtral.files import MISTRAL, TRANSFORMERS, MissingError, find, shown_name
from services.voxtral.settings import MINI
from tests.daemon import ROOT
from tests.services.hub import Hub, run_hub

SMALL = "mistralai/Voxtral-Small-24B-2507"
OTHER = "ada/whisper"  # another kind of model
TOKEN = "hf_secret"
PARTS = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
BOTH = {"config.json", "generation_config.json", "preprocessor_config.json", "params.json"} | {
    "tekken.json",
    "model.safetensors.index.json",
}
PIPELINE = (
    "segmentation/pytorch_model.bin",
    "embedding/pytorch_model.bin",
    "plda/plda.npz",
    "plda/xvec_transform.npz",
)


def write(folder: Path, *names: str) -> Path:
    """Make a repository of small files."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"{{{json.dumps(name)}: 1}}")
    return folder


@pytest.fixture(scope="module")
def repositories(tmp_path_factory) -> dict[str, Path]:
    """What the stand-in has, by name."""
    root = tmp_path_factory.mktemp("repositories")
    names = (*sorted(BOTH), *PARTS, "consolidated.safetensors", "README.md")
    voxtral = write(root / "voxtral", *names)
    index = {"metadata": {}, "weight_map": {"a": PARTS[0], "b": PARTS[1], "c": PARTS[1]}}
    (voxtral / "model.safetensors.index.json").write_text(json.dumps(index))
    community = write(root / "community", *PIPELINE)
    parts = {part: {"checkpoint": "$model/" + part} for part in ("segmentation", "embedding")}
    params = {**{part: f"$model/{part}" for part in parts}, "plda": "$model/plda"}
    (community / "config.yaml").write_text(json.dumps({"pipeline": {"params": params}}))
    whisper = write(root / "whisper", "config.json", "model.safetensors")
    return {MINI: voxtral, SMALL: voxtral, OTHER: whisper, COMMUNITY: community}


@pytest.fixture
def hub(repositories) -> Iterator[Hub]:
    with run_hub(repositories) as running:
        running.gated = {COMMUNITY}
        running.accounts = {TOKEN: {COMMUNITY}}
        yield running


def command(home: Path, hub: Hub, *arguments: str, **environment: str) -> tuple[int, str, str]:
    """Run the command; give how it ended and what it wrote."""
    own = {"PATH": os.environ["PATH"], "HOME": str(home), "HF_ENDPOINT": hub.url}
    done = subprocess.run(
        [sys.executable, "-m", "services.voxtral.fetch", *arguments],
        cwd=ROOT,
        env=own | environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "secret" not in done.stdout + done.stderr
    return done.returncode, done.stdout, done.stderr


def on_a_terminal(home: Path, hub: Hub) -> str:
    """Run the command; give what a terminal shows of it."""
    terminal, end = pty.openpty()
    termios.tcsetwinsize(end, (24, 80))
    subprocess.run(
        [sys.executable, "-m", "services.voxtral.fetch"],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], "HOME": str(home), "HF_ENDPOINT": hub.url},
        stdout=end,
        stderr=end,
        timeout=60,
        check=True,
    )
    os.set_blocking(terminal, False)
    shown = os.read(terminal, 100_000).decode()
    os.close(terminal)
    os.close(end)
    return shown


def cache(home: Path) -> Path:
    return home / ".cache/huggingface/hub"


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("arguments", "environment", "name", "weights"),
    [
        pytest.param((), {}, MINI, set(PARTS), id="by default"),
        pytest.param((SMALL,), {}, SMALL, set(PARTS), id="by name"),
        pytest.param((), {"VOXTRAL_MODEL": SMALL}, SMALL, set(PARTS), id="as one worker had it"),
        pytest.param((), {"MODEL_ID": SMALL}, SMALL, set(PARTS), id="as the other worker had it"),
        pytest.param(("--vllm",), {}, MINI, {"consolidated.safetensors"}, id="for vLLM"),
        pytest.param(
            (), {"VOXTRAL_ENGINE": "vllm"}, MINI, {"consolidated.safetensors"}, id="in vLLM's image"
        ),
    ],
)
def test_the_files_of_one_format_are_downloaded(
    tmp_path, hub, arguments, environment, name, weights
):
    """The weights are published twice; only those that are read come, and all of them."""
    status, written, complaint = command(tmp_path, hub, *arguments, **environment)
    folder = snapshot(repository_folder(name, cache(tmp_path)))

    assert (status, complaint) == (0, "")
    assert written == f"{name}: 0 MB, in {folder}\n"
    assert files(folder) == BOTH | weights
    format_ = TRANSFORMERS if weights == set(PARTS) else MISTRAL
    assert find(name, format_, cache(tmp_path)) == folder


def test_a_download_shows_its_progress_on_a_terminal(tmp_path, hub):
    """How much of how much."""
    assert "100%" in on_a_terminal(tmp_path, hub)


def test_what_is_here_is_not_downloaded_again(tmp_path, hub):
    """Nor is it by the other format, but for its weights."""
    command(tmp_path, hub)
    first = len(hub.downloads())
    command(tmp_path, hub)
    second = len(hub.downloads())
    command(tmp_path, hub, "--vllm")

    assert (first, second) == (len(BOTH) + 2, first)
    assert len(hub.downloads()) == first + 1


def test_what_tells_speakers_apart_comes_along(tmp_path, hub):
    """With the token, for it is gated; its older name is read, too."""
    status, written, complaint = command(tmp_path, hub, "--speakers", HUGGINGFACE_TOKEN=TOKEN)
    folder = Source(COMMUNITY, cache(tmp_path)).folder()

    assert (status, complaint) == (0, "")
    assert written.splitlines()[1] == f"{COMMUNITY}: in {folder}"
    assert files(folder) == {"config.yaml", *PIPELINE}


def test_only_the_speakers_come_where_the_model_is_a_folder(tmp_path, hub, repositories):
    """The operator's own, named in the environment: nothing of it is on the Hub."""
    own = {"VOXTRAL_MODEL": str(repositories[MINI]), "HF_TOKEN": TOKEN}
    status, written, complaint = command(tmp_path, hub, "--speakers", **own)

    assert (status, complaint) == (0, "")
    assert written.startswith(f"{COMMUNITY}: in ")
    assert command(tmp_path, hub, **own)[0] == 1


def test_speakers_without_a_token_are_one_line(tmp_path, hub):
    """The model is there by then, and is kept."""
    status, written, complaint = command(tmp_path, hub, "--speakers")

    assert status == 1
    assert written.startswith(f"{MINI}: ")
    assert complaint.startswith(f"{COMMUNITY} needs a token: accept its conditions at https://")
    assert complaint.endswith(f"make a token at {TOKENS_PAGE} and set HF_TOKEN\n")


@pytest.mark.parametrize(
    ("arguments", "environment", "told"),
    [
        pytest.param(("./absent",), {}, "./absent: is a folder", id="a folder"),
        pytest.param(("ada/absent",), {"HF_TOKEN": TOKEN}, "Repository Not Found", id="no name"),
        pytest.param((MINI,), {"HF_TOKEN": "hf_old_secret"}, "refuses the token", id="bad token"),
        pytest.param(
            (OTHER,),
            {},
            f"{OTHER} is no Voxtral in the format asked for: {OTHER} lacks tekken.json",
            id="another kind of model",
        ),
        pytest.param(
            (OTHER, "--vllm"),
            {},
            f"{OTHER} lacks params.json, tekken.json, consolidated.safetensors",
            id="not for vLLM",
        ),
        pytest.param(
            (),
            {"HF_HUB_OFFLINE": "1"},
            f"{MINI} is not here, and the Hub cannot be reached",
            id="without a network by choice",
        ),
    ],
)
def test_a_refusal_is_one_line(tmp_path, hub, arguments, environment, told):
    """It names the model and what to do; no traceback, and no token."""
    status, written, complaint = command(tmp_path, hub, *arguments, **environment)

    assert (status, written) == (1, "")
    assert told in complaint
    assert len(complaint.splitlines()) == 1


def test_the_hub_is_not_told_what_is_installed(tmp_path, hub):
    """Its client would tell the version of each library with every request."""
    command(tmp_path, hub)

    assert hub.agents
    assert [agent for agent in hub.agents if "torch" in agent] == []


def test_a_folder_is_found_as_it_is(repositories):
    """The operator's own; clients are told its name, not where it is."""
    folder = repositories[MINI]

    assert find(str(folder)) == find(str(folder), MISTRAL) == folder
    assert shown_name(str(folder)) == "voxtral"
    assert shown_name(MINI) == MINI


@pytest.mark.parametrize(
    ("lost", "format_", "told"),
    [
        (PARTS[1], TRANSFORMERS, f"voxtral lacks {PARTS[1]}"),
        ("tekken.json", TRANSFORMERS, "voxtral lacks tekken.json"),
        ("consolidated.safetensors", MISTRAL, "voxtral lacks consolidated.safetensors"),
        ("model.safetensors.index.json", TRANSFORMERS, "voxtral lacks model.safetensors"),
    ],
)
def test_what_is_missing_is_named(tmp_path, repositories, lost, format_, told):
    """Some of the weights are no model."""
    folder = tmp_path / "voxtral"
    folder.mkdir()
    for name in files(repositories[MINI]) - {lost}:
        (folder / name).symlink_to(repositories[MINI] / name)

    with pytest.raises(MissingError, match=f"^{told}$"):
        find(str(folder), format_)


def test_an_index_that_is_none_is_told(tmp_path, repositories):
    """Cut off by a full disk, perhaps."""
    folder = tmp_path / "voxtral"
    write(folder, *BOTH, *PARTS)

    with pytest.raises(MissingError, match="names no files of weights"):
        find(str(folder))


def test_a_download_that_was_broken_off_is_not_taken_for_a_model(tmp_path, hub, monkeypatch):
    """The Hub's client leaves what it has; the next one goes on."""
    command(tmp_path, hub)
    folder = find(MINI, TRANSFORMERS, cache(tmp_path))
    (folder / PARTS[0]).unlink()
    with pytest.raises(MissingError, match=f"{MINI} lacks {PARTS[0]}"):
        find(MINI, TRANSFORMERS, cache(tmp_path))
    command(tmp_path, hub)

    assert find(MINI, TRANSFORMERS, cache(tmp_path)) == folder


@pytest.mark.parametrize("model", ["ada/absent", "/absent", "absent"])
def test_a_model_that_is_not_here_is_told(tmp_path, model):
    """A name of the Hub, a path, and what is neither."""
    with pytest.raises(MissingError, match=f"^{model}"):
        find(model, TRANSFORMERS, tmp_path)


def test_only_what_is_asked_for_is_fetched_at_all():
    """No import of these modules brings torch, which takes seconds."""
    program = "import sys, services.voxtral.fetch; print('torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )

    assert done.stdout == "False\n"
