"""CPU or GPU, and why: what engines and nvidia-smi say, and what is chosen from it."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from autostart.config import ServiceConfig
from autostart.errors import EngineUnreachable, StartFailed
from autostart.runtimes.base import Device
from autostart.runtimes.docker import device
from autostart.runtimes.docker.device import (
    EngineInfo,
    GpuAnswer,
    Machine,
    ask_gpu,
    choose,
    choose_for,
    parse_info,
)

RECORDED = Path(__file__).parent / "docker_info"
SERVICE = ServiceConfig("a.localhost", compose=Path("/srv/a"), port=8001)
GPU_SERVICE = replace(SERVICE, gpu_compose=Path("/srv/a/compose.gpu.yaml"))
L4 = GpuAnswer(("NVIDIA L4",))
NONE = GpuAnswer(failure="nvidia-smi is not installed")
PLAIN = EngineInfo(frozenset({"runc"}), (), ())
ABLE = EngineInfo(frozenset({"runc", "nvidia"}), (), ())


def recorded(name: str) -> EngineInfo:
    return parse_info(json.loads((RECORDED / f"{name}.json").read_text()))


@pytest.mark.parametrize(
    ("name", "way"),
    [
        ("engine-20.10", None),
        ("engine-24.0-nvidia", "the nvidia runtime"),
        ("engine-28.2-desktop", "the nvidia runtime"),
        ("engine-28.3-cdi", "CDI devices"),
        ("engine-28.3-rootless-intel", None),
        ("podman-5", None),
    ],
)
def test_each_engine_says_how_it_gives_a_gpu(name: str, way: str | None) -> None:
    """With a GPU that answers, what counts is whether the engine can hand it on."""
    chosen = choose(recorded(name), L4)

    assert way == recorded(name).way
    if way:
        assert chosen == Device("gpu", f"NVIDIA L4 answers, and the engine has {way}")
    else:
        assert chosen.kind == "cpu"
        assert "nvidia-ctk runtime configure" in chosen.reason


def test_every_recorded_answer_is_used() -> None:
    """No file lies there for nothing."""
    mark = next(mark for mark in test_each_engine_says_how_it_gives_a_gpu.pytestmark if mark.args)
    assert {path.stem for path in RECORDED.glob("*.json")} == {row[0] for row in mark.args[1]}


def test_a_runtime_without_a_gpu_is_no_gpu() -> None:
    """Docker Desktop has the nvidia runtime on machines without one; only nvidia-smi knows."""
    chosen = choose(recorded("engine-28.2-desktop"), NONE)

    assert chosen.kind == "cpu"
    assert chosen.reason == (
        "the engine has the nvidia runtime, but no GPU answers: nvidia-smi is not installed"
    )


def test_neither_is_told_as_no_gpu() -> None:
    """The usual small server."""
    expected = Device("cpu", "no GPU: nvidia-smi is not installed")
    assert choose(recorded("engine-20.10"), NONE) == expected


@pytest.mark.parametrize(
    ("service", "machine", "chosen"),
    [
        (SERVICE, choose(ABLE, L4), Device("cpu", "no gpu_compose in the map")),
        (GPU_SERVICE, choose(ABLE, L4), choose(ABLE, L4)),
        (GPU_SERVICE, choose(PLAIN, NONE), choose(PLAIN, NONE)),
        (
            replace(GPU_SERVICE, device="cpu"),
            choose(ABLE, L4),
            Device("cpu", "device: cpu in the map"),
        ),
        (replace(SERVICE, device="gpu"), choose(ABLE, L4), choose(ABLE, L4)),
    ],
)
def test_the_map_may_choose(service: ServiceConfig, machine: Device, chosen: Device) -> None:
    """`auto` takes what there is where the map has a file for it; `cpu` and `gpu` are orders."""
    assert choose_for(service, machine) == chosen


def test_a_gpu_that_is_ordered_and_not_there_is_a_failure() -> None:
    """A service that was meant for a GPU does not silently run a hundred times slower."""
    with pytest.raises(StartFailed, match="device: gpu, but no GPU: nvidia-smi is not installed"):
        choose_for(replace(GPU_SERVICE, device="gpu"), choose(PLAIN, NONE))


# Asking.


def stand_in(folder: Path, script: str) -> str:
    """Return a program in place of nvidia-smi."""
    path = folder / "nvidia-smi"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return str(path)


@pytest.mark.parametrize(
    ("script", "answer"),
    [
        ("echo NVIDIA L4; echo NVIDIA L4", GpuAnswer(("NVIDIA L4", "NVIDIA L4"))),
        ("echo 'NVIDIA H100 80GB HBM3'", GpuAnswer(("NVIDIA H100 80GB HBM3",))),
        (
            "echo 'Failed to initialize NVML: Driver/library version mismatch'; exit 18",
            GpuAnswer(
                failure="nvidia-smi fails: Failed to initialize NVML: "
                "Driver/library version mismatch"
            ),
        ),
        ("exit 9", GpuAnswer(failure="nvidia-smi fails: exit code 9")),
        (
            "echo 'No devices were found'",
            GpuAnswer(failure="nvidia-smi finds no usable GPU: No devices were found"),
        ),
        ("true", GpuAnswer(failure="nvidia-smi finds no usable GPU: it lists none")),
        (
            "echo '[Unknown Error]'; echo NVIDIA L4",
            GpuAnswer(("NVIDIA L4",)),
        ),
        (
            "echo 'Unable to determine the device handle for GPU0: Unknown Error'; echo; exit 0",
            GpuAnswer(
                failure="nvidia-smi finds no usable GPU: "
                "Unable to determine the device handle for GPU0: Unknown Error"
            ),
        ),
    ],
)
async def test_what_nvidia_smi_says(tmp_path: Path, script: str, answer: GpuAnswer) -> None:
    """A GPU counts when it is named; everything else is the reason why there is none."""
    assert await ask_gpu(PLAIN, program=stand_in(tmp_path, script)) == answer


async def test_nvidia_smi_that_hangs_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As it does when the driver does: the answer comes in time, the process is gone."""
    monkeypatch.setattr(device, "ASK_SECONDS", 0.3)
    alive = tmp_path / "alive"
    program = stand_in(tmp_path, f"trap '' TERM; while :; do date >{alive}; sleep 0.05; done")
    answer = await ask_gpu(PLAIN, program=program)
    await asyncio.sleep(0.2)
    alive.unlink(missing_ok=True)
    await asyncio.sleep(0.2)

    assert answer.failure.startswith("nvidia-smi was silent for")
    assert not alive.exists()


async def test_a_program_that_cannot_be_run_is_told(tmp_path: Path) -> None:
    """Not executable is not installed badly: the system's word is passed on."""
    path = tmp_path / "nvidia-smi"
    path.write_text("")

    assert "cannot be run" in (await ask_gpu(PLAIN, program=str(path))).failure


async def test_in_a_container_the_next_step_is_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the image lacks nvidia-smi, the machine may have it: the way to it is named."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(device, "ELSEWHERE", str(tmp_path))
    nowhere = {"AUTOSTART_IN_CONTAINER": "1"}

    assert (await ask_gpu(PLAIN, environment=nowhere)).failure == (
        "nvidia-smi is not in autostart's container: start it with config/docker/compose.gpu.yaml"
    )


async def test_a_specification_without_a_driver_is_mentioned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who wrote a CDI file meant to have a GPU."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(device, "ELSEWHERE", str(tmp_path))
    (tmp_path / "nvidia.yaml").touch()
    info = replace(PLAIN, cdi_folders=(tmp_path / "gone", tmp_path))

    assert (await ask_gpu(info)).failure == (
        f"nvidia-smi is not installed, though {tmp_path} describes a GPU: is its driver installed?"
    )


# Remembering.


class FakeEngine:
    """Answers `info` and counts."""

    def __init__(self) -> None:
        self.asked = 0
        self.answers = True

    async def info(self) -> dict[str, Any]:
        self.asked += 1
        if not self.answers:
            raise EngineUnreachable("the engine does not answer")
        return {"Runtimes": {"nvidia": {}, "runc": {}}}


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeEngine:
    stand_in(tmp_path, "echo NVIDIA L4")
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    return FakeEngine()


async def test_a_start_asks_once(engine: FakeEngine) -> None:
    """The answer is kept; a service without a choice does not ask at all."""
    machine = Machine(engine)  # type: ignore[arg-type]  # as much of an engine as it asks
    assert machine.known(SERVICE) is machine.known(GPU_SERVICE) is None
    assert (await machine.of(SERVICE)).kind == "cpu"
    asked = [engine.asked]
    chosen = [await machine.of(GPU_SERVICE) for _ in range(3)]
    asked.append(engine.asked)

    assert asked == [0, 1]
    assert {each.kind for each in chosen} == {"gpu"}
    assert machine.known(GPU_SERVICE) == chosen[0]
    assert machine.known(SERVICE) is None


async def test_an_order_that_cannot_be_met_is_shown_beforehand(
    engine: FakeEngine, tmp_path: Path
) -> None:
    """`status` says why the next start would fail."""
    stand_in(tmp_path, "exit 9")
    machine = Machine(engine)  # type: ignore[arg-type]  # as much of an engine as it asks
    await machine.ask()

    shown = machine.known(replace(GPU_SERVICE, device="gpu"))
    assert shown is not None
    assert shown.reason.startswith("device: gpu, but the engine has the nvidia runtime")


async def test_it_is_asked_again_when_the_engine_returns(engine: FakeEngine) -> None:
    """What was known of an engine that is gone is forgotten; asking goes on by itself."""
    machine = Machine(engine)  # type: ignore[arg-type]  # as much of an engine as it asks
    asking = asyncio.ensure_future(machine.keep_asking(lambda: [GPU_SERVICE]))
    known = []
    for answers in (True, False, True):
        engine.answers, asked = answers, engine.asked
        machine.ask_soon()
        deadline = time.monotonic() + 10
        while engine.asked == asked or (machine.known(GPU_SERVICE) is not None) != answers:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.01)
        known.append(machine.known(GPU_SERVICE))
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)

    assert [one and one.kind for one in known] == ["gpu", None, "gpu"]
