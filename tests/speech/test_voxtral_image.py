"""The image of services/voxtral: what is in it, what it does, and the files that go with it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import httpx
import pytest

from services.voxtral.settings import Settings
from tests.containers import docker, inspect, require_engine
from tests.daemon import ROOT, free_port
from tests.docker.conftest import engine
from tests.services.speech_server import wait_for
from tests.speech.runpod_broker import run_broker
from tests.speech.voxtral_maker import HEARD

__all__ = ["engine"]

SERVICE = ROOT / "services/voxtral"
IMAGE = "autostart-test/voxtral"
VLLM_IMAGE = "autostart-test/voxtral:vllm"
BYTES_MAX = 2.5e9  # with Debian's Python, which counts for a sixth of it
SITE = "/opt/venv/lib/python3.11/site-packages"
KILLED = 137  # by SIGKILL: it did not heed SIGTERM
READY_SECONDS_MAX = 60
WORDS = "".join(HEARD).strip()
# Of vLLM's image this has what matters to the steps that follow: root, a Python with pip, an entry
# point of its own; most of the packages, not all, and one in another version.
OTHER_VERSION = "5.9"
STAND_IN = f"""
FROM {IMAGE}
USER root
RUN python3 -m ensurepip \\
 && rm -r {SITE}/julius* \\
 && sed -i 's/^Version: .*/Version: {OTHER_VERSION}/' {SITE}/colorlog-*.dist-info/METADATA \\
 && userdel --remove speech
ENTRYPOINT ["vllm", "serve"]
"""


def build(dockerfile: Path, tag: str, *options: str, context: Path = ROOT) -> None:
    """Build an image from this checkout."""
    command = ("build", "--quiet", "--network", "host", "--tag", tag, "--file", str(dockerfile))
    docker(*command, *options, str(context), seconds=900)


@pytest.fixture(scope="module")
def image() -> str:
    """The CPU's image."""
    require_engine()
    build(SERVICE / "Dockerfile", IMAGE)
    return IMAGE


@pytest.fixture(scope="module")
def vllm_image(image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """What Dockerfile.vllm makes of a stand-in for vLLM's image."""
    folder = tmp_path_factory.mktemp("stand-in")
    (folder / "Dockerfile").write_text(STAND_IN)
    stand_in = "vllm/vllm-openai:autostart-test"
    build(folder / "Dockerfile", stand_in, context=folder)
    build(SERVICE / "Dockerfile.vllm", VLLM_IMAGE, "--build-arg", "VLLM_TAG=autostart-test")
    yield VLLM_IMAGE
    docker("rmi", stand_in, VLLM_IMAGE)


def run(image: str, *command: str) -> str:
    """Run a command in the image, without a network or rights; return what it prints."""
    options = ("--rm", "--network", "none", "--cap-drop", "ALL", "--read-only")
    return docker("run", *options, "--tmpfs", "/tmp", image, *command)


def python(image: str, script: str) -> list[str]:
    """Run a script there; return the lines that it prints."""
    return run(image, "python3", "-W", "ignore", "-c", script).splitlines()


# What is in it


@pytest.mark.timeout(900)  # the image is built first
async def test_it_is_small(image: str) -> None:
    """PyTorch's CPU build, and nothing for its developers."""
    size_bytes = int(docker("image", "inspect", "--format", "{{.Size}}", image))

    assert size_bytes < BYTES_MAX


async def test_nothing_in_it_is_for_a_gpu(image: str) -> None:
    """No library of CUDA, and no build that asks for one, came in through a dependency."""
    names = ("libcud*", "libcublas*", "libnv*.so*", "nvidia*", "triton-*")
    either = [word for name in names for word in ("-o", "-iname", name)][1:]
    torch = "import torch; print(torch.version.cuda, torch.__version__.partition('+')[2])"

    assert "" == run(image, "find", SITE, *either)
    assert ["None cpu"] == python(image, torch)


LOADED = """
import importlib, os, pkgutil
import services.diarization, services.voxtral
for package in (services.diarization, services.voxtral):
    for module in pkgutil.iter_modules(package.__path__):
        if module.name != "__main__":
            importlib.import_module(f"{package.__name__}.{module.name}")
import runpod.serverless.worker
print(os.getuid())
"""


async def test_the_libraries_load(image: str) -> None:
    """What was left out of the packages is not missed: not by the libraries, not by our modules."""
    assert "10001" == python(image, LOADED)[-1]


async def test_it_writes_recordings_for_the_processor(image: str) -> None:
    """libsndfile comes with its package; Debian's is not there."""
    script = """
import io, numpy, soundfile
file = io.BytesIO()
soundfile.write(file, numpy.zeros(16_000, numpy.float32), 16_000, format="WAV")
print(len(file.getvalue()))
"""
    assert ["32044"] == python(image, script)


async def test_it_starts_compiled(image: str) -> None:
    """No module is compiled when it is imported: that takes seconds, and cannot be kept."""
    load = "import services.voxtral.main, services.voxtral.engine, services.voxtral.on_transformers"
    load += ", services.diarization.diarizer, runpod.serverless.worker"
    # What -v says of a module that was compiled just now; of one that was before, in quotes: …pyc.
    compiled = f"python -v -W ignore -c '{load}' 2>&1 | grep '^# code object from /.*[.]py$'"

    assert "" == run(image, "sh", "-c", f"{compiled} || test $? = 1")


async def test_only_models_and_home_are_writable(image: str) -> None:
    """Its user may write to the volume and to a home, where libraries keep things, not to code."""
    places = "/models $HOME /app /app/services /opt/venv /"
    script = f"for path in {places}; do test -w $path && echo $path; done; true"

    assert ["/models", "/home/speech"] == docker("run", "--rm", image, "sh", "-c", script).split()


async def test_only_the_services_are_in_the_image(image: str) -> None:
    """No test, no sample, no setting of this machine."""
    listed = run(image, "find", "/app", "-name", "__pycache__", "-prune", "-o", "-print")
    ours = ("diarization", "faster_whisper", "transcription", "voxtral")
    folders = {"/app", "/app/services", *(f"/app/services/{name}" for name in ours)}
    others = {path for path in listed.splitlines() if not path.endswith(".py")}

    assert folders == others


# What it does


def start(image: str, model: Path, *options: str, **environment: str) -> str:
    """Start a container as RunPod does, without an init, but with fewer rights; return its id."""
    for path in (model, *model.iterdir()):
        path.chmod(0o755)  # it is another user who reads them
    settings = {"VOXTRAL_MODEL": "/mine/voxtral", "HF_HUB_OFFLINE": "1", **environment}
    words = [word for pair in settings.items() for word in ("--env", "=".join(pair))]
    mount = ("--volume", f"{model}:/mine/voxtral:ro")
    rights = ("--cap-drop", "ALL", "--security-opt", "no-new-privileges:true")
    return docker("run", "--detach", *rights, *mount, *words, *options, image)


def stop(container: str) -> None:
    """Stop it as Docker does, and expect that it heeds that."""
    docker("stop", "--time", "20", container)
    state = inspect(container)["State"]
    assert KILLED != state["ExitCode"], docker("logs", container)


@pytest.fixture
def url(image: str, voxtral_model: Path) -> Iterator[str]:
    """A container that serves, by its address; no other address can be reached from it."""
    network = docker("network", "create", "--internal", f"autostart-test-{free_port()}")
    container = start(image, voxtral_model, "--network", network)
    try:
        networks = inspect(container)["NetworkSettings"]["Networks"]
        address = next(iter(networks.values()))["IPAddress"]
        url = f"http://{address}:8000"
        wait_for(lambda: _is_ready(url), READY_SECONDS_MAX, "/ready")
        yield url
        stop(container)
    finally:
        docker("rm", "--force", "--volumes", container)
        docker("network", "rm", network)


def _is_ready(url: str) -> bool:
    try:
        return httpx.get(url + "/ready").status_code == 200
    except httpx.TransportError:
        return False


def runsync(url: str, body: bytes) -> dict[str, Any]:
    """Send a job as the older guides do, and give its output."""
    headers = {"Content-Type": "application/json"}
    told = httpx.post(url + "/runsync", content=body, headers=headers, timeout=90).json()
    assert "COMPLETED" == told["status"], told
    return dict(told["output"])


async def test_it_answers_the_calls_of_the_older_guides(url: str) -> None:
    """Ping and the three samples, without a network; without a pipeline the words come alone."""
    pong = runsync(url, b'{"input": {"ping": true}}')
    names = ("transcribe", "summary", "transcribe_diarized")
    answers = {name: runsync(url, (SERVICE / f"sample_{name}.json").read_bytes()) for name in names}

    assert (True, False) == (pong["pong"], pong["model_resident"])
    assert {name: (name, "fr") for name in names} == {
        name: (answer["task"], answer["language"]) for name, answer in answers.items()
    }
    assert all(answer["transcript"].startswith(WORDS) for answer in answers.values())
    assert answers["summary"]["summary"]
    (warning,) = answers["transcribe_diarized"]["warnings"]
    assert "speakers_unavailable" == warning["code"]


async def test_it_is_a_worker_where_runpod_says_so(image: str, voxtral_model: Path) -> None:
    """Then it takes jobs from RunPod's queue, and listens to nobody."""
    sample = json.loads((SERVICE / "sample_transcribe.json").read_bytes())["input"]
    with run_broker() as broker:
        port = free_port()
        options = ("--network", "host", "--env", f"UVICORN_PORT={port}")
        container = start(image, voxtral_model, *options, **broker.environment())
        try:
            pong = broker.await_result(broker.submit({"ping": True}))
            told = broker.await_result(broker.submit(sample))
            with pytest.raises(httpx.ConnectError):
                httpx.get(f"http://127.0.0.1:{port}/health")
            broker.close()
            stop(container)
        finally:
            docker("rm", "--force", "--volumes", container)

    assert pong["output"]["pong"] is True
    assert told["output"]["transcript"].startswith(WORDS)
    assert [] == broker.complaints


# On vLLM


@pytest.mark.timeout(900)  # two images are built first
async def test_vllms_image_becomes_ours(vllm_image: str) -> None:
    """Its entry point is gone, its user is not root, and the service finds its settings."""
    described = json.loads(docker("image", "inspect", vllm_image))[0]["Config"]
    script = "from services.voxtral.settings import Settings; own = Settings()"
    script += "\nprint(own.voxtral_engine, own.voxtral_state)"

    assert not described["Entrypoint"]
    assert ["python3", "-m", "services.voxtral"] == described["Cmd"]
    assert "speech" == described["User"]
    assert ["vllm /models/voxtral-state"] == python(vllm_image, script)


async def test_what_vllms_image_lacks_is_added(vllm_image: str) -> None:
    """Its own packages stay as they are, and the rest suffices for all of our modules."""
    listed = (SERVICE / "requirements.vllm.txt").read_text().splitlines()
    pins = dict(line.split("==") for line in listed if "==" in line)
    script = "from importlib.metadata import version"
    script += "; print(*map(version, ('julius', 'soxr', 'colorlog')))"

    assert OTHER_VERSION != pins["colorlog"]
    assert [f"{pins['julius']} {pins['soxr']} {OTHER_VERSION}"] == python(vllm_image, script)
    assert "10001" == python(vllm_image, LOADED)[-1]


# The files that go with it


@cache
def composed(*files: str) -> dict[str, Any]:
    """Return the container that `docker compose config` makes of files of the service."""
    options = [word for file in files for word in ("--file", str(SERVICE / file))]
    # Not the operator's own settings: those of the file.
    done = docker("compose", "--env-file", "/dev/null", *options, "config", "--format", "json")
    return dict(json.loads(done)["services"]["voxtral"])


async def test_the_file_changes_no_default(monkeypatch: pytest.MonkeyPatch) -> None:
    """But for the device, which another file decides, and the folder, which is on the volume."""
    mine = Settings()
    for name, value in composed("compose.yaml")["environment"].items():
        monkeypatch.setenv(name, value or "")
    changed = {name for name, value in Settings() if value != getattr(mine, name)}

    assert {"voxtral_device", "voxtral_state"} == changed


async def test_only_this_machine_gets_in() -> None:
    """nginx and autostart are here; and whatever the service does, it has no rights."""
    container = composed("compose.yaml")
    (port,) = container["ports"]

    assert ("127.0.0.1", "8004", 8000) == (port["host_ip"], port["published"], port["target"])
    assert ["ALL"] == container["cap_drop"]
    assert ["no-new-privileges:true"] == container["security_opt"]
    assert "never" == container["pull_policy"]


@pytest.mark.parametrize(
    ("file", "image", "engine_name", "build_of"),
    [
        pytest.param(
            "compose.gpu.yaml",
            "autostart/voxtral:cuda",
            "transformers",
            {"dockerfile": "services/voxtral/Dockerfile", "args": {"DEVICE": "cuda"}},
            id="transformers",
        ),
        pytest.param(
            "compose.vllm.yaml",
            "autostart/voxtral:vllm",
            "vllm",
            {"dockerfile": "services/voxtral/Dockerfile.vllm"},
            id="vllm",
        ),
    ],
)
async def test_the_files_are_valid_for_cpu_and_gpu(
    file: str, image: str, engine_name: str, build_of: dict[str, Any]
) -> None:
    """Compose accepts each; it adds a device and its own image, and changes nothing else."""
    cpu, gpu = composed("compose.yaml"), composed("compose.yaml", file)

    def told(container: dict[str, Any]) -> tuple[str, ...]:
        settings = container["environment"]
        return container["image"], settings["VOXTRAL_ENGINE"], settings["VOXTRAL_DEVICE"]

    assert ("autostart/voxtral", "transformers", "cpu") == told(cpu)
    assert (image, engine_name, "cuda") == told(gpu)
    assert {"context": str(ROOT), **build_of} == gpu["build"]
    assert (SERVICE.parents[1] / build_of["dockerfile"]).is_file()
    (device,) = gpu["deploy"]["resources"]["reservations"]["devices"]
    assert ("nvidia", ["gpu"], 1) == (device["driver"], device["capabilities"], device["count"])
    changed = {"image", "environment", "build", "deploy", "shm_size"}
    assert {key: cpu[key] for key in cpu.keys() - changed} == {
        key: gpu[key] for key in gpu.keys() - changed
    }
