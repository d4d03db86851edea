"""Which names mean which model: the default one, the operator's folder, the Hub's cache."""

import json
import os
import shutil
from pathlib import Path

import faster_whisper.utils
import pytest

from services.faster_whisper.library import SIZES, Library, find_model, hub_name, is_whisper
from services.faster_whisper.settings import WhisperSettings
from services.transcription.catalogue import Catalogue
from services.transcription.errors import InvalidRequest, ModelNotFound
from tests.services.speech_server import DIGITS

MODEL = DIGITS / "model"


@pytest.fixture
def cache(tmp_path) -> Path:
    """The place of the cache of the Hub's client."""
    return tmp_path / "cache"


def put_into_cache(cache: Path, name: str) -> Path:
    """Put the tiny model where the Hub's client would have put it."""
    repository = cache / f"models--{name.replace('/', '--')}"
    folder = Path(shutil.copytree(MODEL, repository / "snapshots/abc"))
    (repository / "refs").mkdir()
    (repository / "refs/main").write_text("abc")
    return folder


def library(cache: Path = Path("/absent"), **settings) -> Library:
    return Library(WhisperSettings(**{"model": str(MODEL)} | settings), cache)


def catalogue(cache: Path = Path("/absent"), **settings) -> Catalogue:
    return library(cache, **settings).catalogue()


@pytest.mark.parametrize(
    ("setting", "names"),
    [
        ("small", ("small", "Systran/faster-whisper-small")),
        ("Systran/faster-whisper-base.en", ("Systran/faster-whisper-base.en", "base.en")),
        ("somebody/whisper", ("somebody/whisper",)),
        ("/models/mine", ("mine", "/models/mine")),
    ],
)
def test_a_model_answers_to_its_names_and_openais(setting, names):
    """The first name is shown; size and full name mean the same, and so do OpenAI's."""
    found = catalogue(model=setting)

    assert found.default.names == names
    for name in (*names, "whisper-1", "gpt-transcribe", "gpt-4o-mini-transcribe-2025-12-15"):
        assert found.find(name) == found.default


def test_an_alias_is_the_name_that_is_shown():
    """The operator's name for the model comes first."""
    assert catalogue(model="small", alias="house").default.names[:2] == ("house", "small")


@pytest.mark.parametrize("name", ["gpt-4o", "whisper-2", "tiny", "../model", "x" * 5000])
def test_a_name_of_no_model_is_refused_with_what_is_there(name):
    """The message lists the names, shortly."""
    with pytest.raises(ModelNotFound, match=r"available: model, .*, whisper-1") as raised:
        catalogue().find(name)

    assert len(raised.value.message) < 1000


@pytest.mark.parametrize("name", ["", "  "])
def test_an_empty_name_is_a_missing_one(name):
    """The client forgot it; the default model is named."""
    with pytest.raises(InvalidRequest, match="use 'model'"):
        catalogue().find(name)


def test_models_in_the_folder_are_known_by_their_path(tmp_path):
    """One or two levels deep: name, or owner/name. They may come while the service runs."""
    found = catalogue(folder=str(tmp_path / "mine"))
    assert [model.id for model in found.models()] == ["model"]
    for name in ("french", "ada/digits"):
        shutil.copytree(MODEL, tmp_path / "mine" / name)

    assert [model.id for model in found.models()] == ["model", "ada/digits", "french"]
    assert found.find("ada/digits").owner == "ada"
    assert found.find("french").created == int((MODEL / "model.bin").stat().st_mtime)


@pytest.mark.parametrize("missing", ["model.bin", "tokenizer.json", "config.json"])
def test_an_incomplete_model_is_not_there(tmp_path, missing):
    """It is still being copied, or was forgotten."""
    folder = shutil.copytree(MODEL, tmp_path / "mine/half")
    (folder / missing).unlink()

    assert len(catalogue(folder=str(tmp_path / "mine")).models()) == 1


def test_another_kind_of_model_is_not_there(tmp_path):
    """CTranslate2 runs translators too; their files have the same names."""
    folder = Path(shutil.copytree(MODEL, tmp_path / "translator"))
    assert is_whisper(folder)
    (folder / "config.json").write_text(json.dumps({"bos_token": "<s>"}))

    assert not is_whisper(folder)


def test_models_in_the_cache_are_known_by_name_and_size(cache):
    """A model card is not needed for that."""
    put_into_cache(cache, "Systran/faster-whisper-tiny")
    put_into_cache(cache, "ada/whisper")
    found = catalogue(cache)

    assert [model.id for model in found.models()] == [
        "model",
        "Systran/faster-whisper-tiny",
        "ada/whisper",
    ]
    assert found.find("tiny").id == "Systran/faster-whisper-tiny"


def test_the_default_model_is_listed_once(cache):
    """Though it is in the cache, too."""
    put_into_cache(cache, "Systran/faster-whisper-small")

    assert [model.id for model in catalogue(cache, model="small").models()] == ["small"]


def test_a_broken_cache_is_no_reason_to_fail(cache):
    """A download that broke off leaves a folder without a model."""
    (cache / "models--ada--half/snapshots").mkdir(parents=True)
    (cache / "models--nonsense").mkdir()

    assert len(catalogue(cache).models()) == 1


def cached(cache: Path, name: str) -> Path:
    """An empty place of a repository in the cache."""
    (cache / name).mkdir(parents=True)
    return cache / name


ODD = {
    "a name that is none": lambda cache, _: cached(cache, "models--a--b--c"),
    "a way up": lambda cache, _: cached(cache, "models--..--x"),
    "a folder for a reference": lambda cache, _: cached(cache, "models--a--b/refs/main"),
    "a reference that leads out": lambda cache, _: (
        cached(cache, "models--a--b/refs") / "main"
    ).write_text("../../../../mine/good"),
    "no JSON object": lambda _, mine: odd_config(mine, "5"),
    "nothing in the JSON": lambda _, mine: odd_config(mine, "null"),
    "deep JSON": lambda _, mine: odd_config(mine, "[" * 100_000),
    "bytes that are no JSON": lambda _, mine: odd_config(mine, "\0"),
    "a name that is no text": lambda _, mine: shutil.copytree(
        MODEL, mine / os.fsdecode(b"caf\xe9")
    ),
    "a link to itself": lambda _, mine: (mine / "loop").symlink_to(mine / "loop"),
    "a link to the folder": lambda _, mine: (mine / "inside").symlink_to(mine),
}


def odd_config(mine: Path, text: str) -> None:
    folder = Path(shutil.copytree(MODEL, mine / "odd"))
    (folder / "config.json").write_text(text)


@pytest.mark.parametrize("odd", ODD)
def test_one_odd_folder_hides_no_other(cache, tmp_path, odd):
    """Others write to the cache, too; what cannot be read is no model, and no reason to fail."""
    mine = tmp_path / "mine"
    shutil.copytree(MODEL, mine / "good")
    put_into_cache(cache, "ada/whisper")
    ODD[odd](cache, mine)
    names = [model.id for model in catalogue(cache, folder=str(mine)).models()]

    assert {"model", "good", "ada/whisper"} <= set(names)
    assert not {"odd", "a/b", "a/b/c", "../x"} & set(names)
    assert json.dumps(names).encode()


@pytest.mark.parametrize("place", ["cache", "mine"])
def test_a_file_in_place_of_a_folder_is_empty(tmp_path, place):
    """The default model is still there."""
    (tmp_path / place).write_text("")
    found = catalogue(tmp_path / "cache", folder=str(tmp_path / "mine"))

    assert len(found.models()) == 1


def test_every_size_of_the_default_model_means_it(cache):
    """The Hub has one repository for two sizes."""
    put_into_cache(cache, "mobiuslabsgmbh/faster-whisper-large-v3-turbo")
    found = catalogue(cache, model="turbo")

    for name in ("turbo", "large-v3-turbo", "mobiuslabsgmbh/faster-whisper-large-v3-turbo"):
        assert found.find(name).id == "turbo"
    assert len(found.models()) == 1


def test_the_default_model_is_not_looked_for_elsewhere_once_it_has_gone(cache):
    """Whoever asks for it then is told; only the start of the service downloads."""
    folder = put_into_cache(cache, "Systran/faster-whisper-tiny")
    found = library(cache, model="tiny")
    assert found.folder("tiny") == folder
    shutil.rmtree(folder)

    with pytest.raises(FileNotFoundError):
        found.folder("tiny")


def test_the_folder_of_a_model_is_found_by_its_id(cache, tmp_path):
    """Wherever it is; one that has gone is told."""
    shutil.copytree(MODEL, tmp_path / "mine/french")
    folder = put_into_cache(cache, "ada/whisper")
    found = library(cache, folder=str(tmp_path / "mine"))

    assert found.folder("model") == MODEL
    assert found.folder("french") == tmp_path / "mine/french"
    assert found.folder("ada/whisper") == folder
    with pytest.raises(FileNotFoundError, match="'gone' is not here"):
        found.folder("gone")


@pytest.mark.parametrize("missing", ["model.bin", "tokenizer.json"])
def test_an_incomplete_default_folder_is_named_with_what_it_lacks(tmp_path, missing):
    """Above all the tokenizer, which the library would fetch from another model."""
    folder = shutil.copytree(MODEL, tmp_path / "model")
    (folder / missing).unlink()

    with pytest.raises(FileNotFoundError, match=rf"WHISPER__MODEL: '.*/model' lacks {missing}$"):
        find_model(str(folder), tmp_path)


@pytest.mark.parametrize(
    ("fetch", "allowed", "refused"),
    [
        ("known", ["small", "Systran/faster-whisper-tiny.en"], ["ada/whisper", "/models/x"]),
        (
            "any",
            ["small", "ada/whisper"],
            ["/models/x", "../x", "a/b/c", "x" * 300, "a/b\0", "--help", "services/..", "a/ b"],
        ),
        ("none", [], ["small", "ada/whisper"]),
    ],
)
def test_the_operator_says_what_clients_may_have_downloaded(fetch, allowed, refused):
    """Known models by default: a stranger's choice could fill the disk."""
    found = catalogue(fetch=fetch)

    assert [name for name in [*allowed, *refused] if found.may_fetch(name)] == allowed


def test_the_sizes_are_those_of_the_library():
    """A size of a newer library must not be refused here."""
    assert faster_whisper.utils._MODELS == SIZES


def test_an_unknown_size_is_refused_with_those_that_exist():
    """It cannot be fetched, so the network is not asked."""
    with pytest.raises(ValueError, match="'gigantic' is neither a folder nor one of: tiny, base"):
        hub_name("gigantic")
