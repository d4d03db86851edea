"""Where the parts of a pipeline are: in the operator's folder, or all over the Hub's cache.

What is found is loaded by the real pyannote.audio, without a network.
"""

import shutil
import socket
from pathlib import Path

import pytest
import yaml

from services.diarization.diarizer import Diarizer
from services.diarization.source import MissingError, Source
from services.transcription.hub import repository_folder
from services.transcription.request import SpeakerTuning
from tests.services.sounds import recording_samples
from tests.speech.makers import make_random_diarizer
from tests.speech.pipelines import (
    COMMUNITY,
    EMBEDDING,
    OLDER,
    OLDER_CONFIG,
    SEGMENTATION,
    fill_cache,
    lay_out,
)

FILES = (
    "config.yaml",
    "segmentation/pytorch_model.bin",
    "embedding/pytorch_model.bin",
    "plda/plda.npz",
    "plda/xvec_transform.npz",
)


@pytest.fixture(scope="module")
def community(tmp_path_factory) -> Path:
    """A folder laid out as community-1."""
    folder = tmp_path_factory.mktemp("pipelines") / "community"
    make_random_diarizer(folder)
    return folder


@pytest.fixture
def folder(tmp_path, community) -> Path:
    """A copy of it to be spoiled; its files are links, for they are large."""
    copy = tmp_path / "copy"
    shutil.copytree(community, copy, copy_function=lambda file, to: Path(to).symlink_to(file))
    return copy


@pytest.fixture(scope="module")
def repositories(tmp_path_factory, community) -> dict[str, Path]:
    """What the Hub has."""
    return lay_out(community, tmp_path_factory.mktemp("repositories"))


@pytest.fixture
def no_network(monkeypatch) -> None:
    """Whoever asks the network for something fails, and is seen in the failure."""

    def fail(*arguments: object) -> None:
        raise AssertionError(f"the network was asked: {arguments}")

    for name in ("connect", "connect_ex"):
        monkeypatch.setattr(socket.socket, name, fail)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


def load(source: Source) -> Diarizer:
    return Diarizer(source.config(), device="cpu", batch_size=4)


def diarize(diarizer: Diarizer) -> None:
    found = diarizer.diarize(
        recording_samples(), SpeakerTuning(), check=lambda: None, report=lambda _percent: None
    )
    assert found.counted
    assert all(0 <= turn.start_seconds < turn.end_seconds for turn in found.turns)


def write_config(folder: Path, config: object) -> None:
    (folder / "config.yaml").unlink(missing_ok=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(config))


# A folder


@pytest.mark.usefixtures("no_network")
def test_a_folder_loads(community):
    """Laid out as pyannote/speaker-diarization-community-1; no part is to be downloaded."""
    source = Source(str(community))

    assert source.is_folder
    assert source.repositories() == []
    diarize(load(source))


def test_the_size_of_a_pipeline_is_that_of_its_files(community):
    """For the memory that it takes; each file counts once."""
    told = Source(str(community)).size_bytes()

    assert told == sum(file.stat().st_size for file in community.rglob("*") if file.is_file())


@pytest.mark.parametrize("file", FILES)
def test_what_a_folder_lacks_is_named(folder, file):
    """The file, and whose; not where on this machine, for clients are told it."""
    (folder / file).unlink()

    with pytest.raises(MissingError) as raised:
        Source(str(folder)).config()
    assert f"copy lacks {Path(file).name}" == str(raised.value)


@pytest.mark.parametrize(
    "config",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"a: [b", id="no YAML"),
        pytest.param(b"\xff\xfe\x00config", id="no text"),
        pytest.param(b"pipeline", id="a word"),
        pytest.param(b"- pipeline", id="a list"),
        pytest.param(b"12", id="a number"),
        pytest.param(b"task: {cls: x}", id="of a model"),
        pytest.param(b"pipeline:", id="nothing of a pipeline"),
        pytest.param(b"pipeline: SpeakerDiarization", id="the name alone"),
        pytest.param(b"pipeline: [params]", id="a list in it"),
        pytest.param(b"pipeline: {name: x, params: }", id="no parameters"),
        pytest.param(b"pipeline: {name: x, params: [segmentation]}", id="a list of parameters"),
        pytest.param(b"pipeline: !!python/object:os.system {}", id="an object of Python"),
    ],
)
def test_a_config_that_describes_no_pipeline_is_named(folder, config):
    """One line, and no error of a library."""
    (folder / "config.yaml").unlink()
    (folder / "config.yaml").write_bytes(config)

    with pytest.raises(MissingError, match=r"copy: config\.yaml describes no pipeline"):
        Source(str(folder)).config()


@pytest.mark.parametrize(
    "part", [None, 7, [], "", "/absent", "absent", {}, {"checkpoint": None}, "a/b/c"], ids=repr
)
def test_a_part_that_is_nowhere_is_named(folder, part):
    """Whatever stands in its place."""
    config = yaml.safe_load((folder / "config.yaml").read_text())
    config["pipeline"]["params"]["segmentation"] = part
    write_config(folder, config)

    with pytest.raises(MissingError, match=r"^copy lacks pytorch_model\.bin$"):
        Source(str(folder)).config()


@pytest.mark.parametrize("model", ["/absent/pipeline", "./absent", "~/absent", "absent", "a/b/c"])
def test_what_can_be_no_name_is_a_folder(model):
    """It cannot be downloaded; that it is not there is told."""
    source = Source(model)

    assert source.is_folder
    with pytest.raises(MissingError, match=r"^(pipeline|absent|c) lacks config\.yaml$"):
        source.config()


def test_a_folder_that_is_here_is_no_name(folder, monkeypatch):
    """`models/pipeline` could be one on the Hub."""
    monkeypatch.chdir(folder.parent.parent)

    assert Source(f"{folder.parent.name}/copy").is_folder
    assert not Source("models/pipeline").is_folder


@pytest.mark.usefixtures("no_network")
@pytest.mark.parametrize("where", ["beside", "elsewhere"])
def test_checkpoints_copied_by_hand_load(folder, tmp_path, where):
    """As the guides for 3.x without a network have it: each file under a name of its own."""
    beside = {"beside": folder, "elsewhere": tmp_path}[where]
    (beside / "models").mkdir()
    config = yaml.safe_load((folder / "config.yaml").read_text())
    for part in ("segmentation", "embedding"):
        checkpoint = Path("models") / f"pyannote_{part}-3.0.bin"
        (folder / part / "pytorch_model.bin").rename(beside / checkpoint)
        named = checkpoint if where == "beside" else beside / checkpoint
        config["pipeline"]["params"][part] = str(named)
    write_config(folder, config)

    source = Source(str(folder))
    assert source.repositories() == []
    assert source.size_bytes() > (beside / checkpoint).stat().st_size
    diarize(load(source))


# The Hub's cache


@pytest.fixture
def cache(tmp_path, repositories) -> Path:
    """Everything is there."""
    fill_cache(tmp_path / "hub", repositories)
    return tmp_path / "hub"


def test_a_name_that_is_not_in_the_cache_is_named(tmp_path):
    """Before anything was downloaded."""
    with pytest.raises(MissingError, match=f"^{OLDER} is not here$"):
        Source(OLDER, tmp_path).config()


def test_all_that_an_older_pipeline_needs_is_named(cache):
    """Its own two models, and the PLDA of community-1, which it does not mention."""
    assert Source(OLDER, cache).repositories() == [SEGMENTATION, EMBEDDING, COMMUNITY]
    assert Source(COMMUNITY, cache).repositories() == []


@pytest.mark.usefixtures("no_network")
@pytest.mark.parametrize("model", [OLDER, COMMUNITY])
def test_a_pipeline_of_the_cache_loads(cache, model):
    """Every part is a folder of this machine: the library asks nobody."""
    source = Source(model, cache)
    params = source.config()["pipeline"]["params"]
    parts = [params[name] for name in ("segmentation", "embedding", "plda")]

    assert all(Path(part["checkpoint"]).is_relative_to(cache) for part in parts)
    diarize(load(source))


@pytest.mark.parametrize("missing", [OLDER, SEGMENTATION, EMBEDDING, COMMUNITY])
def test_a_missing_repository_is_named(cache, missing):
    """Whichever of the four it is."""
    shutil.rmtree(repository_folder(missing, cache))

    with pytest.raises(MissingError, match=f"^{missing} is not here$"):
        Source(OLDER, cache).config()


@pytest.mark.parametrize(
    ("repository", "file"),
    [
        (SEGMENTATION, "pytorch_model.bin"),
        (EMBEDDING, "pytorch_model.bin"),
        (COMMUNITY, "xvec_transform.npz"),
        (COMMUNITY, "plda.npz"),
        (OLDER, "config.yaml"),
    ],
)
def test_a_download_that_broke_off_is_noticed(cache, repository, file):
    """The repository is there, and one of its files is not."""
    [found] = repository_folder(repository, cache).rglob(file)
    found.unlink()

    with pytest.raises(MissingError, match=f"^{repository} lacks {file}$"):
        Source(OLDER, cache).config()


@pytest.mark.parametrize("commit", ["../../..", "", "/etc"])
def test_a_reference_that_is_no_commit_is_nothing(cache, commit):
    """The client would not have written it."""
    (repository_folder(SEGMENTATION, cache) / "refs/main").write_text(commit)

    with pytest.raises(MissingError, match=SEGMENTATION):
        Source(OLDER, cache).config()


@pytest.mark.parametrize("name", ["speechbrain/spkrec-ecapa-voxceleb", "nvidia/titanet_large"])
def test_models_of_other_libraries_are_left_to_the_library(cache, name):
    """They are not pyannote's; it says itself what it lacks for them."""
    [config] = repository_folder(OLDER, cache).rglob("config.yaml")
    config.write_text(yaml.safe_dump(OLDER_CONFIG).replace(EMBEDDING, name))
    source = Source(OLDER, cache)

    assert source.repositories() == [SEGMENTATION, COMMUNITY]
    assert source.config()["pipeline"]["params"]["embedding"] == name
    assert source.size_bytes() > 0
