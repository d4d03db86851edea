"""What comes into services/whisperx, and what goes: models by their sizes, and all in one memory.

The Hub is a stand-in; its client, whisperX and pyannote.audio are real.
"""

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from services.diarization.source import Source
from services.whisperx.aligners import Aligners
from tests.services.hub import Hub, run_hub
from tests.services.sounds import RECORDING, WORDS
from tests.services.speech_server import DIGITS, ROOT, SpeechServer, run_server, wait_for
from tests.speech.inside import ONLINE, client_of, code, environment_of, transcribe
from tests.speech.pipelines import DUTCH_ALIGNER
from tests.speech.service import ALIGNERS, WHISPERX

MODEL = DIGITS / "model"
# Where nothing listens: what is not asked of the stand-in is asked in vain.
NOWHERE = {"https_proxy": "http://127.0.0.1:9", "HTTPS_PROXY": "http://127.0.0.1:9"}


def hub_name(size: str) -> str:
    return f"Systran/faster-whisper-{size}"


# Models, asked for by their sizes


@pytest.fixture(scope="module")
def hub() -> Iterator[Hub]:
    with run_hub({hub_name(size): MODEL for size in ("tiny", "small", "medium")}) as running:
        yield running


@pytest.fixture(scope="module")
def server(tmp_path_factory, hub) -> Iterator[SpeechServer]:
    """A service that may download what clients ask for."""
    folder = tmp_path_factory.mktemp("models")
    with run_server(WHISPERX, folder, ONLINE | {"HF_ENDPOINT": hub.url}) as running:
        yield running


def children(server: SpeechServer) -> list[str]:
    """The processes that it has started: downloads."""
    tasks = Path(f"/proc/{server.process.pid}/task").iterdir()
    return [child for task in tasks for child in (task / "children").read_text().split()]


def post(
    server: SpeechServer, client: httpx.AsyncClient, model: str, path: str = "/transcribe"
) -> asyncio.Future[httpx.Response]:
    files = {"file": ("a.wav", RECORDING)}
    return asyncio.ensure_future(
        client.post(server.url + path, files=files, data={"model": model}, timeout=60)
    )


async def test_a_size_comes_unasked_and_once_for_all_who_wait(server, hub):
    """Two clients ask for it at once, one of them as OpenAI's do; a third is served meanwhile."""
    hub.flows.clear()
    hub.asked.clear()
    async with httpx.AsyncClient() as client:
        first = post(server, client, "tiny")
        await asyncio.to_thread(wait_for, hub.downloads, 20, "the download")
        second = post(server, client, "tiny", "/v1/audio/transcriptions")
        third = await post(server, client, "base")
        assert not first.done()
        hub.flows.set()
        answers = [await first, await second]

    assert third.json()["model_used"] == "whisper-base"
    assert [answer.status_code for answer in answers] == [200, 200]
    assert answers[0].json()["transcript"] == answers[1].json()["text"] == WORDS
    assert answers[0].json()["model_used"] == "whisper-tiny"
    assert len(hub.downloads()) == len(list(MODEL.iterdir()))


async def test_a_client_that_leaves_ends_its_download(server, hub):
    """Its process is gone; who waited for the same model downloads it then."""
    hub.flows.clear()
    hub.asked.clear()
    async with httpx.AsyncClient() as staying, httpx.AsyncClient() as leaving:
        first = post(server, leaving, "small")
        await asyncio.to_thread(wait_for, hub.downloads, 20, "the download")
        [process] = children(server)
        second = post(server, staying, "small")
        await asyncio.to_thread(wait_for, lambda: places(server) == 2, 20, "the second client")
        first.cancel()
        await asyncio.to_thread(wait_for, lambda: process not in children(server), 20, "its end")
        hub.flows.set()
        answer = await second

    assert answer.json()["transcript"] == WORDS
    assert children(server) == []
    assert not server.is_busy()


def places(server: SpeechServer) -> int:
    lines = httpx.get(server.url + "/metrics").text.splitlines()
    [taken] = [line for line in lines if line.startswith("speech_queue_places_taken ")]
    return int(float(taken.split()[1]))


@pytest.mark.parametrize(
    ("model", "refused"),
    [
        ("large-v3", (502, "fetch_failed")),  # known, but this Hub does not have it
        ("ada/whisper", (404, "model_not_found")),  # a stranger's choice
        ("../../etc", (404, "model_not_found")),
    ],
)
def test_what_cannot_be_downloaded_is_refused(server, hub, model, refused):
    """The Hub is asked only for what the operator allows; retries would be in vain."""
    hub.asked.clear()
    response = httpx.post(
        server.url + "/transcribe",
        files={"file": ("a.wav", RECORDING)},
        data={"model": model},
        timeout=60,
    )

    assert code(response) == refused
    assert response.headers["x-should-retry"] == "false"
    assert "Traceback" not in response.text
    assert bool(hub.asked) == (refused[0] == 502)


@pytest.mark.parametrize(
    ("environment", "refused"),
    [
        pytest.param({"WHISPER__FETCH": "none"}, (404, "model_not_found"), id="forbidden"),
        pytest.param({"HF_HUB_OFFLINE": "1"}, (502, "fetch_failed"), id="offline"),
    ],
)
async def test_nothing_is_asked_of_the_hub_against_the_operators_will(
    tmp_path, hub, environment, refused
):
    """The client learns that the model is not here, and what is."""
    hub.asked.clear()
    own = ONLINE | {"HF_ENDPOINT": hub.url} | environment
    async with client_of(tmp_path, **own) as client:
        response = await transcribe(client, model="medium")
        usual = await transcribe(client)

    assert code(response) == refused
    assert hub.asked == []
    assert usual.json()["transcript"] == WORDS


# One memory for all


async def test_models_aligners_and_the_pipeline_share_one_memory(tmp_path, diarizer):
    """What was longest unused makes room, whatever it is; each request has what it needs."""
    sizes = {
        "model": (MODEL / "model.bin").stat().st_size,
        "aligner": Aligners(str(ALIGNERS)).size_bytes("en"),
        "pipeline": Source(str(diarizer)).size_bytes(),
    }
    seen = []
    own = {"DIAR_MODEL": str(diarizer), "WHISPER__MEMORY": str(sum(sizes.values()) - 1)}
    async with client_of(tmp_path, **own) as client:
        for diarize in ("false", "true", "false"):
            answer = (await transcribe(client, diarize=diarize, words="true")).json()
            assert (answer["transcript"], answer["warnings"]) == (WORDS, [])
            assert all(segment["words"] for segment in answer["segments"])
            assert all(
                bool(segment["speaker"]) == (diarize == "true") for segment in answer["segments"]
            )
            status = (await client.get("/status")).json()
            seen.append((status["models"], status["aligners"]))

    # The pipeline takes the model's place, and gives it back.
    assert seen == [(["base"], ["en"]), ([], ["en"]), (["base"], ["en"])]


async def test_a_memory_too_small_for_anything_is_no_error(tmp_path, diarizer):
    """Each is alone in its phase then."""
    own = {"DIAR_MODEL": str(diarizer), "WHISPER__MEMORY": "1"}
    async with client_of(tmp_path, **own) as client:
        answer = (await transcribe(client, diarize="true", words="true")).json()
        status = (await client.get("/status")).json()

    assert (answer["transcript"], answer["warnings"]) == (WORDS, [])
    assert answer["segments"][0]["speaker"] == "SPEAKER_00"
    assert (status["models"], status["aligners"]) == ([], [])


async def test_only_models_are_listed_as_models(tmp_path, diarizer):
    """Nobody unloads an aligner by its name in memory, or asks for it."""
    async with client_of(tmp_path, DIAR_MODEL=str(diarizer)) as client:
        await transcribe(client, diarize="true")
        resident = (await client.get("/api/ps")).json()
        refused = [
            await client.delete("/api/ps/align:en"),
            await client.delete("/api/ps/speakers:"),
            await transcribe(client, model="align:en"),
        ]

    assert resident == {"models": ["base"]}
    assert [code(answer) for answer in refused] == [(404, "model_not_found")] * 3


# Ahead, by the operator


def fetch(home: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "services.whisperx.fetch", *arguments],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], "HOME": str(home)} | NOWHERE | environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_what_is_to_be_fetched_must_be_said(tmp_path):
    """Nothing is downloaded by mistake."""
    done = fetch(tmp_path)

    assert done.returncode == 2
    assert "say what: a NAME, --align, --speakers or --sentences" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["gigantic"], "gigantic: cannot be fetched: 'gigantic' is neither"),
        (["--align", "la"], "there is no aligner for 'la'; use one of: en, fr, de, es, it, ja"),
        (["--align", "fr"], "aligner for fr: cannot be fetched: "),
        (["--sentences"], "sentences: cannot be fetched: NLTK's punkt_tab cannot be downloaded"),
        (["--speakers"], "pyannote/speaker-diarization-community-1 is not here, and the Hub"),
    ],
    ids=str,
)
def test_a_fetch_that_fails_ends_with_one_line(tmp_path, arguments, told):
    """What, and why; no traceback."""
    done = fetch(tmp_path, *arguments, HF_ENDPOINT="http://127.0.0.1:9")

    assert done.returncode == 1
    assert told in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


def test_all_that_a_service_needs_is_fetched_ahead(tmp_path, aligner, diarizer):
    """A model, an aligner and a pipeline by one command; each is where the service finds it."""
    repositories = {hub_name("tiny"): MODEL, DUTCH_ALIGNER: aligner, "ada/pipeline": diarizer}
    with run_hub(repositories) as hub:
        done = fetch(
            tmp_path,
            *("tiny", "--align", "nl", "--speakers"),
            HF_ENDPOINT=hub.url,
            DIAR_MODEL="ada/pipeline",
        )
    cache = tmp_path / ".cache/huggingface/hub"

    assert (done.returncode, done.stderr) == (0, "")
    assert [line.partition(":")[0] for line in done.stdout.splitlines()] == [
        "tiny",
        "aligner for nl",
        "ada/pipeline",
    ]
    with environment_of(tmp_path, {}):
        assert Aligners("").find("nl").is_relative_to(cache)
        assert Source("ada/pipeline").config()
