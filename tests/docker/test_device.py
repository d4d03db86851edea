"""CPU or GPU: which files a service is made from, and what is said about it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import aiohttp

from tests.containers import contained, docker, name_of
from tests.daemon import HOST, Daemon, free_port
from tests.docker.test_engine_away import ask, with_engine
from tests.private_engine import private_engine

GPU_FILE = "services: {web: {runtime: nvidia, labels: {made-for: gpu}}}\n"


def nvidia_smi(folder: Path, script: str) -> str:
    """Put a stand-in for nvidia-smi before everything else; return PATH."""
    folder.mkdir(exist_ok=True)
    program = folder / "nvidia-smi"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    return f"{folder}:{os.environ['PATH']}"


def with_gpu_file(folder: Path, **keys: Any) -> dict[str, Any]:
    entry = contained(folder, free_port(), **keys)
    (folder / "compose.gpu.yaml").write_text(GPU_FILE)
    return {**entry, "gpu_compose": str(folder / "compose.gpu.yaml")}


@contextlib.asynccontextmanager
async def on_path(tmp_path: Path, entry: dict[str, Any], path: str) -> AsyncIterator[Daemon]:
    """Run autostart on this machine's engine, with this PATH."""
    daemon = Daemon(tmp_path, {HOST: entry})
    daemon.environment = {"PATH": path}
    try:
        await daemon.start()
        yield daemon
    finally:
        daemon.clean_up()


async def test_a_gpu_that_is_ordered_and_not_there(
    tmp_path: Path, client: aiohttp.ClientSession
) -> None:
    """The request is refused with the reason, and status, check and doctor have it too."""
    entry = with_gpu_file(tmp_path / "plain", device="gpu")
    path = nvidia_smi(tmp_path / "bin", "echo 'No devices were found'; exit 6")
    async with on_path(tmp_path, entry, path) as daemon:
        async with client.get(daemon.url, headers={"Host": HOST}) as response:
            refusal = await response.json()
        said = {word: await daemon.run_cli(word) for word in ("status", "check", "doctor")}

    reason = "device: gpu, but no GPU: nvidia-smi fails: No devices were found"
    assert (503, "start-failed") == (response.status, refusal["error"]["code"])
    assert reason in refusal["detail"]
    assert {"status": 0, "check": 2, "doctor": 1} == {word: rc for word, (rc, _) in said.items()}
    for _, text in said.values():
        assert reason in text


async def test_without_a_gpu_the_cpu_serves(tmp_path: Path, client: aiohttp.ClientSession) -> None:
    """`device: auto`: the same service, from its plain file; status says why."""
    folder = tmp_path / "plain"
    path = nvidia_smi(tmp_path / "bin", "exit 9")
    async with on_path(tmp_path, with_gpu_file(folder), path) as daemon:
        async with client.get(daemon.url, headers={"Host": HOST}) as response:
            status = response.status
        _, shown = await daemon.run_cli("status")

    assert 200 == status
    assert "    device: CPU: no GPU: nvidia-smi fails: exit code 9" in shown
    label = '{{.Label "made-for"}}'
    assert "" == docker("ps", "--filter", f"name={name_of(folder)}", "--format", label)


async def test_a_gpu_is_taken_and_given_up(tmp_path: Path) -> None:
    """An engine with the nvidia runtime and a GPU that answers: gpu_compose; later without it."""
    runtime = f"--add-runtime=nvidia={shutil.which('runc')}"
    folder, label = tmp_path / "plain", '{{.Label "made-for"}}'
    entry = with_gpu_file(folder)
    path = nvidia_smi(tmp_path / "bin", "echo NVIDIA L4")
    with TemporaryDirectory(prefix="engine") as short:
        with private_engine(Path(short), options=[runtime]) as engine:
            engine.load_plain_image()

            def made_for() -> str:
                ours = f"name={name_of(folder)}"
                return docker("ps", "--filter", ours, "--format", label, host=engine.host)

            async with with_engine(engine, tmp_path, {HOST: entry}, PATH=path) as daemon:
                answers = [await ask(daemon)]
                made = [made_for()]
                _, shown = await daemon.run_cli("status")
                status, text = await daemon.run_cli("stop", HOST)
                assert status == 0, text
                nvidia_smi(tmp_path / "bin", "exit 9")
                await asyncio.to_thread(daemon.terminate)
                await daemon.start()
                answers.append(await ask(daemon))
                made.append(made_for())

    assert [(200, None)] * 2 == answers
    assert ["gpu", ""] == made
    assert "    device: GPU: NVIDIA L4 answers, and the engine has the nvidia runtime" in shown
