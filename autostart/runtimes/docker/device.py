"""CPU or GPU: whether this machine can give a container an NVIDIA GPU, and the reason in words.

Two questions: does the engine know how (its NVIDIA runtime, or CDI devices), and does a GPU really
answer (nvidia-smi: a driver that was updated under a running kernel, or a card that fell off the
bus, is listed everywhere and works nowhere). The choice is pure; asking takes a second and is done
off the request path.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autostart.config import ServiceConfig
from autostart.errors import AutostartError, StartFailed
from autostart.runtimes.base import IN_CONTAINER_VARIABLE, Device
from autostart.runtimes.docker.engine import Engine

# nvidia-smi takes 0.1 to 2 s, and hangs when the driver does.
ASK_SECONDS = 5.0
# A GPU that comes, goes or breaks is noticed this late, or when the engine restarts.
ASK_AGAIN_SECONDS = 300.0
NOT_ASKED = Device("cpu", "nobody has asked this machine yet")
ANSWER_BYTES_MAX = 64 * 1024
KIND = "nvidia.com/gpu"  # how CDI names the devices, NVIDIA container toolkit
# Where nvidia-smi is when it is not on the path: Windows' subsystem for Linux.
ELSEWHERE = "/usr/lib/wsl/lib"
# What lets autostart see a GPU from its own container.
LET_SEE = "start it with config/docker/compose.gpu.yaml"
SETUP = "nvidia-ctk runtime configure --runtime=docker, then restart the engine"


@dataclass(frozen=True)
class EngineInfo:
    """What of the engine's account of itself bears on GPUs."""

    runtimes: frozenset[str]
    cdi_devices: tuple[str, ...]  # as engines from 28.2 list them
    cdi_folders: tuple[Path, ...]  # where engines from 25 look for specifications

    @property
    def way(self) -> str | None:
        """How the engine would give a container a GPU."""
        if "nvidia" in self.runtimes:
            return "the nvidia runtime"
        if any(device.startswith(KIND) for device in self.cdi_devices):
            return "CDI devices"
        return None


@dataclass(frozen=True)
class GpuAnswer:
    """What nvidia-smi says: the names of the GPUs, or why there are none."""

    names: tuple[str, ...] = ()
    failure: str = ""


def parse_info(document: Mapping[str, Any]) -> EngineInfo:
    """Read the engine's `info`."""
    devices = document.get("DiscoveredDevices") or ()
    return EngineInfo(
        runtimes=frozenset(document.get("Runtimes") or ()),
        cdi_devices=tuple(str(each.get("ID", "")) for each in devices),
        cdi_folders=tuple(Path(each) for each in document.get("CDISpecDirs") or ()),
    )


def choose(info: EngineInfo, gpu: GpuAnswer) -> Device:
    """Return what this machine can give a container, and why."""
    names = ", ".join(gpu.names)
    if info.way is None and gpu.names:
        cannot = "but the engine has neither the nvidia runtime nor CDI devices"
        return Device("cpu", f"{names} answers, {cannot}: {SETUP}")
    if info.way is None:
        return Device("cpu", f"no GPU: {gpu.failure}")
    if not gpu.names:
        return Device("cpu", f"the engine has {info.way}, but no GPU answers: {gpu.failure}")
    return Device("gpu", f"{names} answers, and the engine has {info.way}")


def choose_for(service: ServiceConfig, machine: Device) -> Device:
    """Return what a service computes on where the machine can give this.

    Raises StartFailed where the map insists on a GPU and there is none.
    """
    if service.device == "cpu":
        return Device("cpu", "device: cpu in the map")
    if service.device == "gpu":
        if machine.kind != "gpu":
            raise StartFailed(f"device: gpu, but {machine.reason}")
        return machine
    if service.gpu_compose is None:
        return Device("cpu", "no gpu_compose in the map")
    return machine


def depends_on_machine(service: ServiceConfig) -> bool:
    """Say whether the machine has to be asked at all."""
    return service.device == "gpu" or (service.device == "auto" and service.gpu_compose is not None)


class Machine:
    """What this machine can give containers, asked now and then, remembered in between."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._known: Device | None = None  # until it was asked
        self._ask_again = asyncio.Event()

    def known(self, service: ServiceConfig) -> Device | None:
        """Return what the next start would compute on; None without a choice, or not yet known."""
        if service.device == "auto" and service.gpu_compose is None:
            return None
        if depends_on_machine(service) and self._known is None:
            return None
        try:
            return choose_for(service, self._known or NOT_ASKED)
        except StartFailed as error:
            return Device("cpu", error.message)

    async def of(self, service: ServiceConfig) -> Device:
        """Return what a start computes on. Raises StartFailed, EngineUnreachable."""
        machine = self._known or NOT_ASKED
        if self._known is None and depends_on_machine(service):
            machine = await self.ask()
        return choose_for(service, machine)

    async def ask(self) -> Device:
        """Ask, and remember. Raises EngineUnreachable."""
        info = parse_info(await self._engine.info())
        self._known = choose(info, await ask_gpu(info))
        return self._known

    def ask_soon(self) -> None:
        """Have `keep_asking` ask now: the engine is another, or the map."""
        self._ask_again.set()

    async def keep_asking(self, services: Callable[[], Iterable[ServiceConfig]]) -> None:
        """Ask for as long as a service depends on it, until cancelled."""
        while True:
            if any(map(depends_on_machine, services())):
                try:
                    await self.ask()
                except AutostartError:
                    self._known = None  # asked by the next start, or when the engine answers
            self._ask_again.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(ASK_AGAIN_SECONDS):
                    await self._ask_again.wait()


async def ask_gpu(
    info: EngineInfo,
    *,
    program: str | None = None,
    environment: Mapping[str, str] = os.environ,
) -> GpuAnswer:
    """Ask nvidia-smi, `program`, which GPUs answer. Never raises, takes ASK_SECONDS at most."""
    program = program or shutil.which("nvidia-smi") or shutil.which("nvidia-smi", path=ELSEWHERE)
    if program is None and environment.get(IN_CONTAINER_VARIABLE):
        return GpuAnswer(failure=f"nvidia-smi is not in autostart's container: {LET_SEE}")
    if program is None:
        return GpuAnswer(failure="nvidia-smi is not installed" + _specified(info))
    query = [program, "--query-gpu=name", "--format=csv,noheader"]
    try:
        process = await asyncio.create_subprocess_exec(
            *query,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
        )
    except OSError as error:
        return GpuAnswer(failure=f"{program} cannot be run: {error.strerror}")
    assert process.stdout is not None
    try:
        async with asyncio.timeout(ASK_SECONDS):
            said = await process.stdout.read(ANSWER_BYTES_MAX)
            status = await process.wait()
    except TimeoutError:
        return GpuAnswer(failure=f"nvidia-smi was silent for {ASK_SECONDS:.0f} s")
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    return read_answer(said.decode(errors="replace"), status)


def read_answer(said: str, status: int) -> GpuAnswer:
    """Read what nvidia-smi printed."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    if status != 0:
        text = lines[0] if lines else f"exit code {status}"
        return GpuAnswer(failure=f"nvidia-smi fails: {text}")
    # Some versions say so and exit with 0. A card in trouble has its name replaced.
    names = tuple(
        line for line in lines if not line.startswith(("No devices", "[", "ERR!", "Unable"))
    )
    if not names:
        text = lines[0] if lines else "it lists none"
        return GpuAnswer(failure=f"nvidia-smi finds no usable GPU: {text}")
    return GpuAnswer(names)


def _specified(info: EngineInfo) -> str:
    """Say whether somebody has at least prepared a GPU for the engine."""
    for folder in info.cdi_folders:
        with contextlib.suppress(OSError):
            if any("nvidia" in file.name for file in folder.iterdir()):
                return f", though {folder} describes a GPU: is its driver installed?"
    return ""
