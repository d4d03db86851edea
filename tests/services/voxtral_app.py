"""services/voxtral with a model that does what a script says, in this process or in one of its own.

All the rest is real: the app, its jobs on disk, the engine, the search for speech. The script is a
file that the model looks at again and again, so a test tells a running service what to do next;
nothing of it is in the product. Jobs are told apart by their language.
"""

import base64
import json
import os
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import httpx
from fastapi import FastAPI

from services.diarization.provision import Provision
from services.transcription.downloads import Downloads
from services.transcription.metrics import Metrics
from services.voxtral.engine import VoxtralEngine
from services.voxtral.main import create_app
from services.voxtral.model import Samples, Written
from services.voxtral.settings import Settings
from tests.services.sounds import long_recording
from tests.services.speech_server import SpeechServer, SpeechService, run_server, wait_for

SCRIPT = "SCRIPT_OF_THE_TESTS"  # a folder

Doing = Literal[
    "write",  # at once
    "wait",  # until told otherwise
    "wait, deaf",  # the same, and nobody can make it give up
    "fail",
    "run out of memory",
    "lose the device",
    "end the process",
]

SPOKEN = "phrase confidentielle du client"
SUMMARY = "résumé confidentiel"


@dataclass(frozen=True)
class Script:
    """What the model does at its load, and for each language; "write" where nothing is said."""

    folder: Path

    def tell(self, **doing: Doing) -> None:
        """Say what to do from now on: `load`, a language's code, or `any` of them."""
        draft = self.folder / "draft.json"
        draft.write_text(json.dumps(self.told() | doing))
        draft.replace(self.folder / "script.json")

    def release(self) -> None:
        """Let all that waits be written."""
        (self.folder / "script.json").unlink(missing_ok=True)

    def told(self) -> dict[str, Doing]:
        try:
            told: dict[str, Doing] = json.loads((self.folder / "script.json").read_text())
        except FileNotFoundError:
            return {}
        return told

    def doing(self, *names: str) -> Doing:
        told = self.told()
        return next((told[name] for name in names if name in told), "write")

    @property
    def begun(self) -> list[str]:
        """What was begun so far, in order: "load", and languages."""
        try:
            return (self.folder / "begun").read_text().split()
        except FileNotFoundError:
            return []

    def perform(self, name: str, *others: str, check: Callable[[], None]) -> None:
        """Do what is told; to be called by the model."""
        with (self.folder / "begun").open("a") as begun:
            begun.write(f"{name}\n")
        while True:
            match self.doing(name, *others):
                case "write":
                    return
                case "wait":
                    check()
                case "wait, deaf":
                    pass
                case "fail":
                    raise RuntimeError("a tensor has no shape")
                case "run out of memory":
                    raise RuntimeError("CUDA out of memory. Tried to allocate 20.00 GiB")
                case "lose the device":
                    raise RuntimeError("CUDA error: an illegal memory access was encountered")
                case "end the process":
                    os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(0.01)


class ScriptedModel:
    """Keeps what services.voxtral.model asks for."""

    device = "cpu"
    alive = True

    def __init__(self, script: Script) -> None:
        self._script = script

    def transcribe(
        self,
        pieces: Sequence[Samples],
        *,
        language: str | None,
        tokens_max: int,
        check: Callable[[], None],
        report: Callable[[int, Written], None],
    ) -> None:
        for number in range(len(pieces)):
            report(number, Written(f"{SPOKEN} {number}", complete=True))
            if number == 0:  # so that a job which waits has given a part of its result
                self._script.perform(language or "any", "any", check=check)

    def chat(
        self,
        prompt: str,
        *,
        tokens_max: int,
        schema: Mapping[str, Any] | None,
        again: bool,
        check: Callable[[], None],
    ) -> Written:
        opinion = {"sentiment": "positif", "score": 0.5, "emotions": ["joie"]}
        opinion["satisfaction_client"] = "satisfait"
        return Written(SUMMARY if schema is None else json.dumps(opinion), complete=True)

    def close(self) -> None:
        pass


def make_engine(
    script: Script, settings: Settings, downloads: Downloads, metrics: Metrics
) -> VoxtralEngine:
    """Give the real engine with the scripted model."""

    def load(check: Callable[[], None]) -> ScriptedModel:
        script.perform("load", check=check)
        return ScriptedModel(script)

    return VoxtralEngine(
        settings,
        Provision(settings, downloads, may_fetch=False),
        load,
        on_load=metrics.model_loaded,
    )


def make_app(script: Script, settings: Settings | None = None) -> FastAPI:
    """Give the app; without settings, as the environment says."""
    return create_app(settings, lambda *needed: make_engine(script, *needed))


def app() -> FastAPI:
    """Give the app to uvicorn."""
    return make_app(Script(Path(os.environ[SCRIPT])))


SCRIPTED_VOXTRAL = SpeechService(
    name="voxtral",
    app="tests.services.voxtral_app:app",
    program=("-m", "uvicorn", "--factory", "tests.services.voxtral_app:app"),
    environment={"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
)


@contextmanager
def run_voxtral(
    folder: Path, environment: Mapping[str, str] | None = None
) -> Iterator[tuple[SpeechServer, Script]]:
    """Run the service in a process of its own; the next one in the same folder has its jobs."""
    run = folder / f"run-{time.monotonic_ns()}"
    run.mkdir()
    state = {"VOXTRAL_STATE": str(folder / "state"), SCRIPT: str(folder)}
    with run_server(SCRIPTED_VOXTRAL, run, state | dict(environment or {})) as server:
        yield server, Script(folder)


@asynccontextmanager
async def client_of(
    folder: Path, **settings: Any
) -> AsyncIterator[tuple[httpx.AsyncClient, Script]]:
    """Run the service in this process, and give a client of it."""
    settings.setdefault("voxtral_state", folder / "state")
    async with client_with(folder, Settings(**settings)) as both:
        yield both


@asynccontextmanager
async def client_with(
    folder: Path, settings: Settings
) -> AsyncIterator[tuple[httpx.AsyncClient, Script]]:
    """The same with settings as they are."""
    script = Script(folder)
    app = make_app(script, settings)
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://service", timeout=30) as client,
    ):
        try:
            yield client, script
        finally:
            script.release()


# What clients send


def spoken(seconds: float = 3.0, **more: Any) -> dict[str, Any]:
    """Give the body of a job with a recording that somebody speaks in."""
    recording = base64_of(long_recording(seconds))
    return {"input": {"audio_base64": recording, **more}}


def base64_of(recording: bytes) -> str:
    """The recording as a job holds it."""
    return base64.b64encode(recording).decode()


def submit(server: SpeechServer, body: Mapping[str, Any] | None = None, path: str = "/run") -> str:
    """Have a job accepted; give its id."""
    response = httpx.post(server.url + path, json=body or spoken(), timeout=30)
    assert response.status_code == 200, response.text
    return str(response.json()["id"])


def status_of(server: SpeechServer, job: str) -> dict[str, Any]:
    """Give where a job stands."""
    response = httpx.get(f"{server.url}/status/{job}", timeout=30)
    assert response.status_code == 200, response.text
    return dict(response.json())


def await_status(
    server: SpeechServer, job: str, *expected: str, seconds_max: float = 30.0
) -> dict[str, Any]:
    """Wait until a job stands there."""
    wait_for(
        lambda: status_of(server, job)["status"] in expected, seconds_max, f"{job}: {expected}"
    )
    return status_of(server, job)
