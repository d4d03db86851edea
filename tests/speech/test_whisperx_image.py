"""The image of services/whisperx, as far as no service runs, and the files that go with it."""

from __future__ import annotations

import json
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tests.containers import docker, require_engine
from tests.daemon import ROOT
from tests.docker.conftest import engine

__all__ = ["engine"]

SERVICE = ROOT / "services/whisperx"
IMAGE = "autostart-test/whisperx"
BYTES_MAX = 2.5e9  # with Debian's Python, which counts for a sixth of it
SITE = "/opt/venv/lib/python3.11/site-packages"
PROFILES = ("pytorch", "chatserver")
# Each container's port and default model.
CONTAINERS = {
    "whisperx": ("8002", "base"),
    "transcription-pytorch": ("8000", "medium"),
    "chatserver": ("8003", "large-v3-turbo"),
}


@pytest.fixture(scope="module")
def image() -> str:
    """The CPU's image, built from this checkout."""
    require_engine()
    dockerfile = str(SERVICE / "Dockerfile")
    command = ("build", "--quiet", "--network", "host", "--tag", IMAGE, "--file", dockerfile)
    docker(*command, str(ROOT), seconds=900)
    return IMAGE


def run(image: str, *command: str) -> str:
    """Run a command in the image, without a network or rights; return what it prints."""
    options = ("--rm", "--network", "none", "--cap-drop", "ALL", "--read-only")
    tmp = ("--tmpfs", "/tmp")
    return docker("run", *options, *tmp, image, *command)


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
    assert "None cpu" == run(image, "python", "-c", torch)


async def test_the_libraries_load(image: str) -> None:
    """What was left out of the packages is not missed: not by the libraries, not by our modules."""
    script = """
import importlib, os, pkgutil
import torch, whisperx, pyannote.audio, whisperx.diarize
import services.diarization, services.whisperx
for package in (services.diarization, services.whisperx):
    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"{package.__name__}.{module.name}")
print(os.getuid())
"""
    assert "10001" == run(image, "python", "-W", "ignore", "-c", script).splitlines()[-1]


async def test_the_speech_detector_works(image: str) -> None:
    """whisperx's own voice detector, with its weights from the wheel, hears none in noise."""
    script = """
import numpy, torch, whisperx.vads
vad = whisperx.vads.Pyannote(torch.device("cpu"), vad_onset=0.5, vad_offset=0.363)
noise = numpy.random.default_rng(0).standard_normal(48_000).astype(numpy.float32) / 100
scores = vad({"waveform": torch.from_numpy(noise)[None], "sample_rate": 16_000})
print(whisperx.vads.Pyannote.merge_chunks(scores, 30, onset=0.5, offset=0.363))
"""
    assert "[]" == run(image, "python", "-W", "ignore", "-c", script).splitlines()[-1]


async def test_it_starts_compiled(image: str) -> None:
    """No module is compiled when it is imported: that takes seconds, and cannot be kept."""
    load = "import torch, whisperx, pyannote.audio, whisperx.diarize, services.transcription.app"
    # What -v says of a module that was compiled just now; of one that was before, in quotes: …pyc.
    compiled = f"python -v -W ignore -c '{load}' 2>&1 | grep '^# code object from /.*[.]py$'"

    assert "" == run(image, "sh", "-c", f"{compiled} || test $? = 1")


async def test_only_models_is_writable(image: str) -> None:
    """Its user may write to the volume, not to the programs."""
    script = (
        "for path in /models /app /app/services /opt/venv /; do test -w $path && echo $path; done"
    )

    assert "/models" == docker("run", "--rm", image, "sh", "-c", f"{script}; true")


async def test_only_the_services_are_in_the_image(image: str) -> None:
    """No test, no example, no setting of this machine."""
    listed = run(image, "find", "/app", "-name", "__pycache__", "-prune", "-o", "-print")
    ours = ("diarization", "faster_whisper", "transcription", "whisperx")
    folders = {"/app", "/app/services", *(f"/app/services/{name}" for name in ours)}
    others = {path for path in listed.splitlines() if not path.endswith(".py")}

    assert folders == others


def pins(path: Path) -> set[str]:
    """Return the pins of a file, in one spelling."""
    lines = path.read_text().splitlines()
    pinned = (line.partition(";")[0].strip() for line in lines if "==" in line)
    return {pin.lower().replace("_", "-") for pin in pinned if not pin.startswith("#")}


async def test_every_pin_is_that_of_the_project() -> None:
    """The image holds the versions that the project is tested with, and all of faster_whisper's."""
    mine = pins(SERVICE / "requirements.txt")

    assert mine <= pins(ROOT / "requirements.lock")
    assert pins(ROOT / "services/faster_whisper/requirements.txt") <= mine


async def test_both_devices_have_one_torch() -> None:
    """The GPU's list names the same version of PyTorch, without the CPU build."""

    def torch(file: str) -> Iterable[str]:
        return [
            line.replace("===", "==")
            for line in (SERVICE / file).read_text().splitlines()
            if line.startswith("torch=")
        ]

    assert torch("requirements.txt") == torch("requirements.cuda.txt")


@cache
def composed(*files: str) -> dict[str, Any]:
    """Return the containers that `docker compose config` makes of files of the service."""
    options = [word for file in files for word in ("--file", str(SERVICE / file))]
    options += [word for profile in PROFILES for word in ("--profile", profile)]
    done = docker("compose", *options, "config", "--format", "json")
    return dict(json.loads(done)["services"])


async def test_each_container_has_its_port_and_model() -> None:
    """Three containers differ by port, default model and profile alone."""
    containers = composed("compose.yaml")
    told = {}
    for name, container in containers.items():
        (port,) = container["ports"]
        assert "127.0.0.1" == port["host_ip"]
        told[name] = (port["published"], container["environment"]["WHISPERX_DEFAULT_MODEL"])
    kept = [
        {key: value for key, value in container.items() if key not in own}
        | {"environment": {**container["environment"], "WHISPERX_DEFAULT_MODEL": None}}
        for own in [{"ports", "profiles"}]
        for container in containers.values()
    ]

    assert told == CONTAINERS
    assert [kept[0]] * 3 == kept
    assert [None, ["pytorch"], ["chatserver"]] == [
        containers[name].get("profiles") for name in CONTAINERS
    ]


@pytest.mark.parametrize("name", CONTAINERS)
async def test_the_files_are_valid_for_cpu_and_gpu(name: str) -> None:
    """Compose accepts both; the GPU's adds a device, its own image, and changes nothing else."""
    cpu = composed("compose.yaml")[name]
    gpu = composed("compose.yaml", "compose.gpu.yaml")[name]

    def told(container: dict[str, Any]) -> tuple[str, ...]:
        settings = container["environment"]
        kinds = ("WHISPER__INFERENCE_DEVICE", "WHISPER__COMPUTE_TYPE", "WHISPERX_DEFAULT_MODEL")
        return (container["image"], *(settings[kind] for kind in kinds))

    model = CONTAINERS[name][1]
    assert ("autostart/whisperx", "cpu", "int8", model) == told(cpu)
    assert ("autostart/whisperx:cuda", "cuda", "float16", model) == told(gpu)
    assert {"DEVICE": "cuda"} == gpu["build"]["args"]
    (device,) = gpu["deploy"]["resources"]["reservations"]["devices"]
    assert ("nvidia", ["gpu"]) == (device["driver"], device["capabilities"])
    changed = {"image", "environment", "build", "deploy"}
    assert {key: cpu[key] for key in cpu.keys() - changed} == {
        key: gpu[key] for key in gpu.keys() - changed
    }
