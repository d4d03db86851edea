"""A pipeline comes from the Hub, or one clear line tells what its operator must do.

The Hub's client is real, the Hub is a stand-in that refuses as the Hub does.
"""

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from services.diarization.provision import Provision, UnavailableError
from services.diarization.settings import DiarizationSettings
from services.diarization.source import Source
from services.transcription import downloads as downloads_module
from services.transcription.downloads import Downloads
from services.transcription.hub import TOKENS_PAGE, repository_folder
from tests.services.hub import Hub, run_hub
from tests.services.sounds import RECORDING, WORDS
from tests.services.speech_server import ROOT, run_server, wait_for
from tests.speech.inside import client_of, code, environment_of, transcribe
from tests.speech.pipelines import COMMUNITY, EMBEDDING, OLDER, SEGMENTATION, lay_out
from tests.speech.service import WHISPERX

# Tokens of accounts; each is a secret that must not be told.
ACCEPTED, NEWCOMER, NARROW, WITHDRAWN = (
    f"hf_{name}secret" for name in ("accepted", "newcomer", "narrow", "withdrawn")
)
GATED = {COMMUNITY, OLDER, SEGMENTATION}


def page(name: str) -> str:
    return f"https://huggingface.co/{name}"


NO_TOKEN = (
    f"{COMMUNITY} needs a token: accept its conditions at {page(COMMUNITY)}, make a token at"
    f" {TOKENS_PAGE} and set HF_TOKEN"
)
REFUSED_TOKEN = f"the Hub refuses the token: make a new one at {TOKENS_PAGE} and set HF_TOKEN"
NARROW_TOKEN = (
    f"the token may not read {COMMUNITY}: allow it to read gated repositories at {TOKENS_PAGE}"
)


def not_accepted(name: str) -> str:
    return (
        f"the conditions of {name} are not accepted by the token's account: accept them at"
        f" {page(name)}"
    )


@pytest.fixture(scope="module")
def repositories(tmp_path_factory, diarizer) -> dict[str, Path]:
    """What the stand-in has: pipelines that tell voices apart truly."""
    return lay_out(diarizer, tmp_path_factory.mktemp("repositories"))


@pytest.fixture
def hub(repositories) -> Iterator[Hub]:
    with run_hub(repositories) as running:
        running.gated = set(GATED)
        running.accounts = {ACCEPTED: set(GATED), NEWCOMER: set(), NARROW: set(GATED)}
        running.narrow = {NARROW}
        yield running


def assert_no_secret(told: str) -> None:
    assert "secret" not in told
    assert "Traceback" not in told


# Ahead, by the operator


def fetch(home: Path, hub_url: str, *names: str, **environment: str) -> tuple[int, str, str]:
    """Run the command; give how it ended and what it wrote."""
    done = subprocess.run(
        [sys.executable, "-m", "services.diarization.fetch", *names],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], "HOME": str(home), "HF_ENDPOINT": hub_url} | environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert_no_secret(done.stdout + done.stderr)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize(
    ("name", "environment", "told"),
    [
        pytest.param(COMMUNITY, {}, NO_TOKEN, id="no token"),
        pytest.param(COMMUNITY, {"HF_TOKEN": WITHDRAWN}, REFUSED_TOKEN, id="refused token"),
        pytest.param(COMMUNITY, {"HF_TOKEN": NARROW}, NARROW_TOKEN, id="narrow token"),
        pytest.param(
            COMMUNITY, {"HF_TOKEN": NEWCOMER}, not_accepted(COMMUNITY), id="conditions not accepted"
        ),
        pytest.param(
            "ada/absent", {"HF_TOKEN": ACCEPTED}, "Repository Not Found", id="an unknown name"
        ),
        pytest.param(
            COMMUNITY,
            {"HF_HUB_OFFLINE": "1"},
            f"{COMMUNITY} is not here, and the Hub cannot be reached",
            id="without a network by choice",
        ),
        pytest.param("./absent", {}, "./absent: is a folder", id="a folder"),
    ],
)
def test_a_refusal_is_one_line(tmp_path, hub, name, environment, told):
    """What to do, and on which page; no traceback, and no token."""
    status, written, complaint = fetch(tmp_path, hub.url, name, **environment)

    assert (status, written) == (1, "")
    assert told in complaint
    assert len(complaint.splitlines()) == 1
    assert hub.downloads() == []


def test_a_hub_that_does_not_answer_is_one_line(tmp_path):
    """Nobody listens there."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"http://127.0.0.1:{listener.getsockname()[1]}"
    status, _, complaint = fetch(tmp_path, address, COMMUNITY)

    assert status == 1
    assert complaint == f"{COMMUNITY} is not here, and the Hub cannot be reached\n"


@pytest.mark.parametrize("missing", [OLDER, SEGMENTATION, COMMUNITY])
def test_the_conditions_of_every_part_are_asked_for(tmp_path, hub, missing):
    """Who has accepted those of the pipeline may have forgotten those of a model in it."""
    hub.accounts[ACCEPTED].remove(missing)
    status, _, complaint = fetch(tmp_path, hub.url, OLDER, HF_TOKEN=ACCEPTED)

    assert (status, complaint) == (1, not_accepted(missing) + "\n")


@pytest.mark.parametrize("variable", ["HF_TOKEN", "HUGGINGFACE_TOKEN"])
def test_a_pipeline_is_downloaded_ahead(tmp_path, hub, repositories, variable):
    """By default community-1, with all its files; either name of the token is read."""
    status, written, complaint = fetch(tmp_path, hub.url, **{variable: ACCEPTED})
    cache = tmp_path / ".cache/huggingface/hub"
    folder = Source(COMMUNITY, cache).folder()

    assert (status, complaint) == (0, "")
    assert written == f"{COMMUNITY}: in {folder}\n"
    assert {file.relative_to(folder) for file in folder.rglob("*") if file.is_file()} == {
        file.relative_to(repositories[COMMUNITY])
        for file in repositories[COMMUNITY].rglob("*")
        if file.is_file()
    }


def test_an_older_pipeline_is_downloaded_with_all_that_it_needs(tmp_path, hub):
    """Its own models and the PLDA of community-1; a second time no file is moved."""
    told = [fetch(tmp_path, hub.url, OLDER, HF_TOKEN=ACCEPTED)[0]]
    downloads = len(hub.downloads())
    told.append(fetch(tmp_path, hub.url, OLDER, HF_TOKEN=ACCEPTED)[0])
    cache = tmp_path / ".cache/huggingface/hub"
    params = Source(OLDER, cache).config()["pipeline"]["params"]

    assert told == [0, 0]
    assert downloads == len(hub.downloads()) == 10
    assert str(repository_folder(EMBEDDING, cache)) in params["embedding"]["checkpoint"]
    assert str(repository_folder(COMMUNITY, cache)) in params["plda"]["checkpoint"]


def test_the_hub_is_not_told_what_is_installed(tmp_path, hub):
    """Its client would tell the version of each library with every request."""
    fetch(tmp_path, hub.url, HF_TOKEN=ACCEPTED)

    assert hub.agents
    assert [agent for agent in hub.agents if "torch" in agent] == []


def test_the_libraries_of_the_service_report_to_nobody(tmp_path):
    """Their switches are thrown before they are imported: pyannote.audio reports by default."""
    program = (
        "from services.whisperx.main import app\n"
        "import services.whisperx.engine\n"
        "from huggingface_hub import constants\n"
        "from pyannote.audio.telemetry.metrics import is_metrics_enabled\n"
        "print(is_metrics_enabled(), constants.HF_HUB_DISABLE_TELEMETRY)"
    )
    told = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    ).stdout

    assert told == "False True\n"


# When it is first needed


@pytest.fixture
def downloads() -> Iterator[Downloads]:
    running = Downloads()
    yield running
    running.stop()


@pytest.fixture
def provision(tmp_path, hub, downloads) -> Iterator[Provision]:
    """As the service has it, with a token that is refused until the test accepts conditions."""
    with environment_of(tmp_path, {"HF_ENDPOINT": hub.url, "HF_TOKEN": NEWCOMER}):
        yield Provision(DiarizationSettings(), downloads, may_fetch=True)


def make_ready(provision: Provision) -> str | None:
    """Give why it cannot be made ready; None if it was."""
    try:
        provision.make_ready(lambda: None)
    except UnavailableError as error:
        return str(error)
    return None


def test_a_refusal_is_remembered_for_a_while(provision, hub):
    """The status tells it, and the Hub is not asked again for each request."""
    assert provision.status().available
    assert "downloaded when it is first needed" in provision.status().reason
    first = make_ready(provision)
    asked = len(hub.asked)

    assert first == not_accepted(COMMUNITY)
    assert (provision.status().available, provision.status().reason) == (False, first)
    assert make_ready(provision) == first
    assert len(hub.asked) == asked


def test_who_has_accepted_the_conditions_need_not_restart(provision, hub, monkeypatch):
    """Once the while is over, or at once if it has come by another way."""
    make_ready(provision)
    hub.accounts[NEWCOMER] = set(GATED)
    assert make_ready(provision) == not_accepted(COMMUNITY)
    monkeypatch.setattr(downloads_module, "RETRY_SECONDS", 0.0)

    assert make_ready(provision) is None
    assert (provision.status().available, provision.status().reason) == (True, None)


def test_what_came_by_another_way_is_taken_at_once(provision, hub, tmp_path):
    """The operator has downloaded it meanwhile."""
    make_ready(provision)
    assert fetch(tmp_path, hub.url, HF_TOKEN=ACCEPTED)[0] == 0

    assert make_ready(provision) is None
    assert (provision.status().available, provision.status().reason) == (True, None)


def test_a_client_that_leaves_does_not_end_the_download(provision, downloads, hub):
    """It goes on for the next, who does not wait for it either; then it is there."""
    hub.accounts[NEWCOMER] = set(GATED)
    hub.flows.clear()

    class GoneError(Exception):
        """The client has left."""

    def check() -> None:
        if hub.downloads():
            raise GoneError

    with pytest.raises(GoneError):
        provision.make_ready(check)
    busy = downloads.busy
    told = make_ready(provision)
    hub.flows.set()
    wait_for(lambda: not downloads.busy, 20, "the download")

    assert busy
    assert "is being downloaded, try again later" in told
    assert make_ready(provision) is None


def test_nobody_waits_long_for_a_download(provision, downloads, hub, monkeypatch):
    """Others wait behind who waits; what comes later is there for who comes later."""
    monkeypatch.setattr(downloads_module, "WAIT_SECONDS_MAX", 0.5)
    hub.accounts[NEWCOMER] = set(GATED)
    hub.flows.clear()
    told = make_ready(provision)
    hub.flows.set()
    wait_for(lambda: not downloads.busy, 20, "the download")

    assert "is being downloaded, try again later" in told
    assert make_ready(provision) is None


# In the service


def expect_words_without_speakers(body: dict, reason: str) -> None:
    """All but the speakers is there."""
    [warning] = body["warnings"]
    assert (body["transcript"], body["speakers"]) == (WORDS, [])
    assert {segment["speaker"] for segment in body["segments"]} == {None}
    assert warning["code"] == "speakers_unavailable"
    assert reason in warning["message"]


OFFLINE = "HF_HUB_OFFLINE is set; python -m services.diarization.fetch"


@pytest.mark.parametrize(
    ("environment", "reason", "asks"),
    [
        pytest.param({}, f"no token: accept the conditions at {page(COMMUNITY)}", False, id="none"),
        pytest.param({"HF_TOKEN": WITHDRAWN}, REFUSED_TOKEN, True, id="refused token"),
        pytest.param(
            {"HUGGINGFACE_TOKEN": NEWCOMER}, not_accepted(COMMUNITY), True, id="not accepted"
        ),
        pytest.param({"HF_TOKEN": ACCEPTED, "HF_HUB_OFFLINE": "1"}, OFFLINE, False, id="offline"),
        pytest.param(
            {"HF_TOKEN": ACCEPTED, "WHISPER__FETCH": "none"},
            "python -m services.diarization.fetch",
            False,
            id="not allowed",
        ),
        pytest.param(
            {"DIAR_MODEL": "/absent"}, "DIAR_MODEL: absent lacks config.yaml", False, id="no folder"
        ),
    ],
)
async def test_without_a_pipeline_the_words_are_there(tmp_path, hub, environment, reason, asks):
    """A warning says why, and so does the status; what is nothing without speakers is a 503."""
    own = {"HF_HUB_OFFLINE": "0", "HF_ENDPOINT": hub.url}
    async with client_of(tmp_path, **own | environment) as client:
        answer = await transcribe(client, diarize="true")
        diarization = (await client.get("/status")).json()["diarization"]
        refused = [
            await transcribe(client, response_format="rttm"),
            await client.post("/v1/audio/diarization", files={"file": ("a.wav", b"RIFF")}),
            await client.post(
                "/v1/audio/diarization",
                files={"file": ("a.pcm", bytes(32_000))},
                data={"response_format": "rttm"},
            ),
        ]

    assert answer.status_code == 200
    assert answer.headers["transcription-warnings"] == "speakers_unavailable"
    expect_words_without_speakers(answer.json(), reason)
    assert diarization["available"] is False
    assert reason in diarization["reason"]
    assert code(refused[1]) == (415, "not_audio")
    for response in (refused[0], refused[2]):
        assert code(response) == (503, "speakers_unavailable")
        assert response.headers["x-should-retry"] == "false"
        assert reason in response.json()["error"]["message"]
    assert bool(hub.asked) == asks
    for response in (answer, *refused):
        assert_no_secret(response.text)


async def test_a_service_need_not_be_restarted(tmp_path, hub, monkeypatch):
    """The operator accepts the conditions; the next request downloads the pipeline and has it."""
    monkeypatch.setattr(downloads_module, "RETRY_SECONDS", 0.0)
    own = {"HF_HUB_OFFLINE": "0", "HF_ENDPOINT": hub.url, "HF_TOKEN": NEWCOMER}
    async with client_of(tmp_path, **own) as client:
        before = (await transcribe(client, diarize="true")).json()
        hub.accounts[NEWCOMER] = set(GATED)
        after = (await transcribe(client, diarize="true")).json()
        diarization = (await client.get("/status")).json()["diarization"]

    expect_words_without_speakers(before, not_accepted(COMMUNITY))
    assert (after["transcript"], after["warnings"]) == (WORDS, [])
    assert {segment["speaker"] for segment in after["segments"]} == {"SPEAKER_00"}
    assert diarization == {"available": True, "model": COMMUNITY, "reason": None}


async def test_a_pipeline_that_cannot_be_loaded_is_told(tmp_path, diarizer):
    """It is all there, and one of its files is damaged; once it is mended, it is taken."""
    folder = tmp_path / "pipeline"
    shutil.copytree(diarizer, folder)
    weights = folder / "segmentation/pytorch_model.bin"
    weights.write_bytes(b"no weights")
    async with client_of(tmp_path, DIAR_MODEL=str(folder)) as client:
        damaged = (await transcribe(client, diarize="true")).json()
        told = (await client.get("/status")).json()["diarization"]
        shutil.copy(diarizer / "segmentation/pytorch_model.bin", weights)
        mended = (await transcribe(client, diarize="true")).json()
        mended_told = (await client.get("/status")).json()["diarization"]

    expect_words_without_speakers(damaged, "could not be loaded")
    assert (told["available"], mended_told["available"]) == (False, True)
    assert "could not be loaded" in told["reason"]
    assert mended["warnings"] == []
    assert mended["segments"][0]["speaker"] == "SPEAKER_00"


def test_sigterm_ends_a_download_and_not_the_request(tmp_path, hub):
    """It goes on another time; the words are told without speakers, before anybody is killed."""
    hub.flows.clear()
    own = {"HF_HUB_OFFLINE": "0", "HF_ENDPOINT": hub.url, "HF_TOKEN": ACCEPTED}
    with (
        run_server(WHISPERX, tmp_path, own) as server,
        ThreadPoolExecutor() as threads,
    ):
        asked = threads.submit(
            httpx.post,
            server.url + "/transcribe",
            files={"file": ("a.wav", RECORDING)},
            data={"diarize": "true"},
            timeout=60,
        )
        wait_for(hub.downloads, 20, "the download")
        assert server.is_busy()
        server.terminate()
        server.process.wait(8)  # seconds; Docker kills after 10
        answer = asked.result()

    assert answer.status_code == 200
    expect_words_without_speakers(answer.json(), "speakers were not identified")
