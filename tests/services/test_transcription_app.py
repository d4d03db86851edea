"""What the app owes around an engine: states, shapes of refusal, silence towards the outside."""

import asyncio
import logging
import os
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest
from fastapi import FastAPI

from services.faster_whisper.engine import WhisperEngine
from services.faster_whisper.library import Library
from services.faster_whisper.settings import Settings, WhisperSettings
from services.transcription.app import TELEMETRY_OFF, Service, configure_logging, create_app
from services.transcription.catalogue import Catalogue, ServedModel
from tests.services.hub import run_hub
from tests.services.sounds import RECORDING, WORDS
from tests.services.speech_server import DIGITS, FASTER_WHISPER, ROOT, run_server

WHISPER = WhisperSettings(model=str(DIGITS / "model"), inference_device="cpu")


def load_digits() -> WhisperEngine:
    return WhisperEngine(WHISPER, Library(WHISPER), audio_seconds_max=60)


@asynccontextmanager
async def client_of(
    load=load_digits, on_failure=lambda: None, **settings
) -> AsyncIterator[httpx.AsyncClient]:
    """A client of an app that runs in this process."""
    service = Service(
        title="Test",
        description="",
        version="1",
        catalogue=Catalogue(ServedModel(id="model", aliases=("digits",))),
        load=lambda _metrics: load(),
    )
    app = create_app(service, Settings(**settings), on_failure=on_failure)
    add_broken_routes(app)
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://service") as client,
    ):
        yield client


def add_broken_routes(app: FastAPI) -> None:
    @app.get("/bug")
    async def bug() -> None:
        raise ZeroDivisionError("a secret of the inside")

    @app.get("/number")
    async def number(value: int) -> int:
        return value


async def until_status(client: httpx.AsyncClient, path: str, status: int) -> httpx.Response:
    async with asyncio.timeout(20):
        while (response := await client.get(path)).status_code != status:
            await asyncio.sleep(0.01)
    return response


async def test_ready_tells_when_the_model_is_resident():
    """503 with a Retry-After during the load, 200 afterwards; health is 200 throughout."""
    go_on = threading.Event()

    def load() -> WhisperEngine:
        go_on.wait(20)
        return load_digits()

    async with client_of(load) as client:
        loading = await client.get("/ready")
        assert (await client.get("/health")).json() == {"status": "ok", "model_resident": False}
        assert (await client.get("/busy")).json() == {"busy": False}
        go_on.set()
        ready = await until_status(client, "/ready", 200)

    assert loading.status_code == 503
    assert loading.json()["error"]["code"] == "loading"
    assert loading.headers["retry-after"] == "1"
    assert ready.json() == {"ready": True}


async def test_a_request_during_the_load_is_served():
    """It waits in the queue instead of being refused."""
    go_on = threading.Event()

    def load() -> WhisperEngine:
        go_on.wait(20)
        return load_digits()

    async with client_of(load) as client:
        early = asyncio.ensure_future(
            client.post(
                "/v1/audio/transcriptions",
                files={"file": ("a.wav", RECORDING)},
                data={"model": "digits"},
            )
        )
        while not (await client.get("/busy")).json()["busy"]:
            await asyncio.sleep(0)
        go_on.set()

        assert (await early).json()["text"] == WORDS


async def test_a_load_that_fails_is_told_and_ends_the_process():
    """/ready says that waiting is in vain, and the app asks for its end."""
    told = asyncio.Event()

    def load() -> WhisperEngine:
        raise OSError("no such model")

    async with client_of(load, told.set) as client:
        await asyncio.wait_for(told.wait(), 20)
        response = await client.get("/ready")

    assert response.status_code == 503
    assert response.json()["error"]["code"] == "load_failed"


@pytest.mark.parametrize(
    ("path", "status", "error_type", "code", "param"),
    [
        ("/absent", 404, "invalid_request_error", "not_found", None),
        ("/v1/audio/transcriptions", 405, "invalid_request_error", "method_not_allowed", None),
        ("/number?value=five", 400, "invalid_request_error", "invalid_value", "value"),
        ("/number", 400, "invalid_request_error", "invalid_value", "value"),
        ("/bug", 500, "server_error", "internal_error", None),
    ],
)
async def test_refusals_of_the_framework_have_openais_shape(path, status, error_type, code, param):
    """Validation is 400, not 422; a bug tells nothing of the inside."""
    async with client_of() as client:
        response = await client.get(path)

    error = response.json()["error"]
    assert response.status_code == status
    assert (error["type"], error["code"], error["param"]) == (error_type, code, param)
    assert response.json()["detail"] == error["message"]
    assert response.headers["x-should-retry"] == "false"
    assert "secret" not in response.text


async def test_a_refused_method_names_the_allowed_one():
    """As HTTP demands."""
    async with client_of() as client:
        response = await client.get("/v1/audio/transcriptions")

    assert response.headers["allow"] == "POST"


async def test_bugs_and_strange_methods_are_counted():
    """An alert on 5xx must see bugs; what a client invents makes no new lines."""
    async with client_of() as client:
        await client.get("/bug")
        for number in range(5):
            await client.request(f"INVENTED{number}", "/health")
        text = (await client.get("/metrics")).text

    assert 'speech_requests_total{method="GET",route="/bug",status="500"} 1.0' in text
    assert 'speech_requests_total{method="other",route="/health",status="405"} 5.0' in text
    assert "INVENTED" not in text


@pytest.mark.parametrize("name", TELEMETRY_OFF)
async def test_libraries_may_not_report_home(name):
    """Their switches are thrown before they are loaded."""
    async with client_of():
        assert os.environ[name] == TELEMETRY_OFF[name]


def test_addresses_of_downloads_stay_out_of_the_log(tmp_path):
    """They may hold a token: the Hub's client writes each of them, and redirects to signed ones."""
    with run_hub({"Systran/faster-whisper-tiny": DIGITS / "model"}) as hub:
        environment = {"WHISPER__MODEL": "tiny", "HF_ENDPOINT": hub.url}
        with run_server(FASTER_WHISPER, tmp_path, environment) as server:
            written = server.log.read_text()

    assert "fetching model=tiny" in written
    assert hub.url not in written


def test_probes_are_kept_out_of_the_access_log():
    """The filter knows uvicorn's arguments, and lets everything else pass."""
    configure_logging("info")
    log = logging.getLogger("uvicorn.access")

    def passes(path: str) -> bool:
        arguments = ("127.0.0.1:5", "GET", path, "1.1", 200)
        return bool(
            log.filter(log.makeRecord(log.name, logging.INFO, "", 0, "%s", arguments, None))
        )

    assert [passes(path) for path in ("/health", "/ready", "/busy")] == [False] * 3
    assert passes("/v1/models")


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"WHISPER__MODEL": "/absent/model"}, "'/absent/model' lacks model.bin, tokenizer.json"),
        ({"WHISPER__MODEL": "gigantic"}, "'gigantic' is neither a folder nor one of: tiny"),
        ({"MAX_UPLOAD": "huge"}, "MAX_UPLOAD: 'huge' is not allowed"),
    ],
)
def test_a_service_that_cannot_work_ends_with_one_line(environment, message, tmp_path):
    """The process does not stay up unready: whoever started it sees the exit, and the log why."""
    finished = subprocess.run(
        [sys.executable, "-m", "uvicorn", FASTER_WHISPER.app, "--port", "0"],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
        | FASTER_WHISPER.environment
        | environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert finished.returncode != 0
    assert message in finished.stderr
    assert "Traceback" not in finished.stderr
