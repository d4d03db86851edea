"""The models of a running service: what is listed, loaded, unloaded and downloaded."""

import asyncio
import os
import pty
import shutil
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.services.hub import Hub, run_hub
from tests.services.sounds import RECORDING, WORDS, long_recording
from tests.services.speech_server import (
    DIGITS,
    FASTER_WHISPER,
    ROOT,
    SpeechServer,
    run_server,
    wait_for,
)

MODEL = DIGITS / "model"
MODEL_BYTES = (MODEL / "model.bin").stat().st_size

FETCHED = "Systran/faster-whisper-tiny"


@contextmanager
def server_with(folder: Path, **environment: str) -> Iterator[SpeechServer]:
    """A server with room for two models of three: its own, `second` and `third`."""
    for name in ("second", "third"):
        shutil.copytree(MODEL, folder / "models" / name)
    settings = {
        "WHISPER__FOLDER": str(folder / "models"),
        "WHISPER__MEMORY": str(4 * MODEL_BYTES),  # as estimated for 32 bits
        "MAX_WAITING": "2",
    }
    with run_server(FASTER_WHISPER, folder, settings | environment) as running:
        yield running


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[SpeechServer]:
    with server_with(tmp_path_factory.mktemp("server")) as running:
        yield running


def ask(server: SpeechServer, method: str, path: str) -> httpx.Response:
    return httpx.request(method, server.url + path, timeout=60)


def resident(server: SpeechServer) -> list[str]:
    return ask(server, "GET", "/api/ps").json()["models"]


def transcribe(server: SpeechServer, model: str) -> httpx.Response:
    return httpx.post(
        server.transcriptions,
        files={"file": ("a.wav", RECORDING)},
        data={"model": model},
        timeout=60,
    )


def code(response: httpx.Response) -> tuple[int, str]:
    return response.status_code, response.json()["error"]["code"]


def test_what_is_here_is_listed_and_described(server):
    """The default model first; a name in the folder can be asked for as it is listed."""
    listed = ask(server, "GET", "/v1/models").json()

    assert listed["object"] == "list"
    assert [model["id"] for model in listed["data"]] == ["model", "second", "third"]
    assert ask(server, "GET", "/v1/models/second").json() == listed["data"][1]
    assert set(listed["data"][1]) == {"id", "object", "created", "owned_by"}


def test_the_longest_unused_model_makes_room(server):
    """Two fit; each answers, whoever was there before."""
    for name in ("second", "third", "model", "third"):
        assert transcribe(server, name).json()["text"] == WORDS

    assert resident(server) == ["model", "third"]


def test_a_model_is_loaded_once_and_unloaded_once(server):
    """201 and 409, 200 and 404: who comes second learns that nothing was to be done."""
    ask(server, "DELETE", "/api/ps/second")
    answers = [ask(server, method, "/api/ps/second") for method in ("POST", "POST")]
    answers += [ask(server, method, "/api/ps/second") for method in ("DELETE", "DELETE")]

    assert [answer.status_code for answer in answers] == [201, 409, 200, 404]
    assert code(answers[1]) == (409, "model_loaded")
    assert code(answers[3]) == (404, "model_not_loaded")


@pytest.mark.parametrize("method", ["POST", "DELETE"])
def test_an_unknown_model_is_neither_loaded_nor_unloaded(server, method):
    """It is not here."""
    assert code(ask(server, method, "/api/ps/absent/model")) == (404, "model_not_found")


def test_an_unloaded_service_is_still_ready(server):
    """It loads again when it is asked; /health tells that nothing is resident."""
    for name in resident(server):
        ask(server, "DELETE", f"/api/ps/{name}")
    assert ask(server, "GET", "/health").json() == {"status": "ok", "model_resident": False}
    assert ask(server, "GET", "/ready").status_code == 200

    assert transcribe(server, "whisper-1").json()["text"] == WORDS
    assert resident(server) == ["model"]


async def test_a_model_in_use_is_not_unloaded(server):
    """Neither by the request that runs nor by one that waits; both end well, and it stays."""
    async with httpx.AsyncClient(timeout=60) as client:

        def post(seconds: float, model: str) -> asyncio.Future[httpx.Response]:
            return asyncio.ensure_future(
                client.post(
                    server.transcriptions,
                    files={"file": ("long.wav", long_recording(seconds))},
                    data={"model": model},
                )
            )

        running = post(90, "model")
        await asyncio.to_thread(server.await_upload, len(long_recording(90)))
        waiting = post(1, "second")
        await asyncio.sleep(0.2)
        refused = [
            await client.delete(f"{server.url}/api/ps/{name}") for name in ("model", "second")
        ]
        assert not running.done()
        served = [await running, await waiting]

    assert [code(answer) for answer in refused] == [(409, "model_in_use")] * 2
    assert [answer.status_code for answer in served] == [200, 200]
    assert resident(server) == ["model", "second"]


def test_the_figures_tell_what_was_done(server):
    """For Prometheus: requests, seconds of sound and of work, the queue, the loads."""
    before, _ = figures(server)
    transcribe(server, "model")
    transcribe(server, "absent")
    after, text = figures(server)
    grown = {name: value - before.get(name, 0.0) for name, value in after.items()}
    route = 'method="POST",route="/v1/audio/transcriptions"'

    assert grown[f'speech_requests_total{{{route},status="200"}}'] == 1
    assert grown[f'speech_requests_total{{{route},status="404"}}'] == 1
    assert grown['speech_audio_seconds_total{model="model"}'] == pytest.approx(3.2, abs=0.1)
    assert grown['speech_work_seconds_total{model="model"}'] > 0
    assert grown['speech_realtime_factor_count{model="model"}'] == 1
    assert grown["speech_queue_wait_seconds_count"] == 1
    assert after["speech_queue_places"] == 3
    assert after["speech_queue_places_taken"] == 0
    assert after["speech_models_resident"] >= 1
    assert after['speech_model_loads_total{model="model",result="ok"}'] >= 1
    assert "process_resident_memory_bytes" in text
    assert "absent" not in text


def figures(server: SpeechServer) -> tuple[dict[str, float], str]:
    response = ask(server, "GET", "/metrics")
    assert response.headers["content-type"].startswith("text/plain; version=")
    lines = [line.rpartition(" ") for line in response.text.splitlines() if line[0] != "#"]
    return {name: float(value) for name, _, value in lines}, response.text


# Downloads


@pytest.fixture
def hub() -> Iterator[Hub]:
    with run_hub({FETCHED: MODEL}) as running:
        yield running


def test_a_known_model_is_downloaded_once(tmp_path, hub):
    """201 when it came, 200 when it was here; then it can be asked for by its size, too."""
    with server_with(tmp_path, HF_ENDPOINT=hub.url) as server:
        answers = [ask(server, "POST", "/v1/models/tiny") for _ in range(2)]
        asked = len(hub.asked)
        text = transcribe(server, "tiny").json()["text"]

    assert [answer.status_code for answer in answers] == [201, 200]
    assert answers[0].json() == answers[1].json()
    assert answers[0].json()["id"] == FETCHED
    assert (text, len(hub.asked)) == (WORDS, asked)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("small", (502, "fetch_failed")),  # known, but the stand-in does not have it
        ("ada/whisper", (404, "model_not_found")),  # a stranger's choice
        ("../secret", (404, "not_found")),
    ],
)
def test_what_cannot_be_downloaded_is_refused(tmp_path, hub, name, told):
    """The reason is told; nothing was asked of the Hub that the operator does not allow."""
    with server_with(tmp_path, HF_ENDPOINT=hub.url) as server:
        response = ask(server, "POST", f"/v1/models/{name}")

    assert code(response) == told
    assert bool(hub.asked) == (told[0] == 502)


async def test_a_client_that_leaves_ends_its_download(tmp_path, hub):
    """The process that downloads is gone; one at a time, and the service goes on meanwhile."""
    hub.flows.clear()
    with server_with(tmp_path, HF_ENDPOINT=hub.url) as server:
        async with httpx.AsyncClient(timeout=60) as client:
            first = asyncio.ensure_future(client.post(server.url + "/v1/models/tiny"))
            await asyncio.to_thread(wait_for, lambda: children(server), 20, "the download")
            second = await client.post(server.url + "/v1/models/base")
            text = (await asyncio.to_thread(transcribe, server, "model")).json()["text"]
            first.cancel()
        await asyncio.to_thread(wait_for, lambda: not children(server), 20, "its end")

    assert code(second) == (409, "fetching")
    assert text == WORDS


def test_sigterm_ends_a_download(tmp_path, hub):
    """It goes on another time; until then the service was busy, and did not vanish unasked."""
    hub.flows.clear()
    with (
        server_with(tmp_path, HF_ENDPOINT=hub.url) as server,
        ThreadPoolExecutor() as threads,
    ):
        asked = threads.submit(ask, server, "POST", "/v1/models/tiny")
        wait_for(lambda: children(server), 20, "the download")
        busy = server.is_busy()
        server.terminate()
        answer = asked.result()
        server.process.wait(20)

    assert busy
    assert code(answer) == (503, "stopping")


def children(server: SpeechServer) -> list[str]:
    pid = server.process.pid
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


def fetch(folder: Path, hub: Hub, *names: str, **options) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "services.faster_whisper.fetch", *names],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], "HOME": str(folder), "HF_ENDPOINT": hub.url},
        text=True,
        timeout=60,
        check=False,
        **{"capture_output": True} | options,
    )


def test_models_are_downloaded_ahead(tmp_path, hub):
    """The command tells what came and where; a second time nothing is moved."""
    told = [fetch(tmp_path, hub, "tiny") for _ in range(2)]

    assert [done.returncode for done in told] == [0, 0]
    assert told[0].stdout.startswith(f"tiny: {FETCHED}, 1 MB, in {tmp_path}/.cache/")
    assert len(hub.downloads()) == len(list(MODEL.iterdir()))


def test_a_download_shows_its_progress_on_a_terminal(tmp_path, hub):
    """How much of how much."""
    terminal, end = pty.openpty()
    termios.tcsetwinsize(end, (24, 80))
    done = fetch(tmp_path, hub, "tiny", capture_output=False, stdout=end, stderr=end)
    os.set_blocking(terminal, False)
    shown = os.read(terminal, 100_000).decode()
    os.close(terminal)
    os.close(end)

    assert done.returncode == 0
    assert "100%" in shown


@pytest.mark.parametrize("name", ["small", "gigantic", "ada/../whisper"])
def test_a_download_that_fails_ends_with_one_line(tmp_path, hub, name):
    """The name, and why; no traceback."""
    done = fetch(tmp_path, hub, name)

    assert done.returncode == 1
    assert done.stderr.startswith(f"{name}: cannot be fetched: ")
    assert len(done.stderr.splitlines()) == 1


def test_a_service_downloads_its_own_model_at_its_start(tmp_path, hub):
    """Once; /ready waits for it, and /health does not."""
    environment = {"WHISPER__MODEL": "tiny", "HF_ENDPOINT": hub.url}
    began = time.monotonic()
    with run_server(FASTER_WHISPER, tmp_path, environment) as server:
        assert transcribe(server, "tiny").json()["text"] == WORDS
        assert ask(server, "GET", "/v1/models").json()["data"][0]["id"] == "tiny"

    assert time.monotonic() - began < 60
