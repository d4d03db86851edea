"""Pulls and builds before a start, and what goes wrong with them."""

from __future__ import annotations

import asyncio
import contextlib
import time
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import aiohttp

from tests.containers import contained, docker, plain_container, plain_image, write_compose
from tests.daemon import HOST, Daemon, free_port, running
from tests.docker.test_engine_away import with_engine
from tests.private_engine import private_engine, small_filesystem

OTHER = "other.localhost"


async def ask(
    client: aiohttp.ClientSession, daemon: Daemon, host: str = HOST
) -> tuple[int, dict[str, Any], int]:
    """Return status, answer, and Retry-After."""
    async with client.get(f"{daemon.url}/echo", headers={"Host": host}) as response:
        retry_after = int(response.headers.get("Retry-After", 0))
        return response.status, await response.json(), retry_after


@contextlib.asynccontextmanager
async def building(folder: Path, script: str) -> AsyncIterator[dict[str, Any]]:
    """Write a project whose image has to be built, by a script that nobody has run before."""
    image, port = f"autostart-test-built:{uuid.uuid4().hex[:10]}", free_port()
    build = {"context": ".", "network": "host"}
    write_compose(folder, {"web": plain_container(port, image=image, build=build)})
    (folder / "Dockerfile").write_text(
        f"FROM {plain_image()}\nRUN echo {uuid.uuid4()} && {script}\n"
    )
    try:
        yield {"compose": str(folder), "port": port, "ready": "/ready", "stop_timeout": "5s"}
    finally:
        with contextlib.suppress(AssertionError):  # it was not built
            docker("rmi", "--force", image)


async def test_a_build_is_not_waited_for_and_not_cancelled(
    tmp_path: Path, client: aiohttp.ClientSession
) -> None:
    """Clients get 503 preparing at once; one that leaves cancels nothing; then it is served."""
    async with building(tmp_path / "plain", "sleep 6") as service:
        async with running(tmp_path, {HOST: service}) as daemon:
            began = time.monotonic()
            status, refusal, retry_after = await ask(client, daemon)
            seconds = time.monotonic() - began
            leaving = asyncio.create_task(ask(client, daemon))
            await asyncio.sleep(0.01)
            leaving.cancel()
            progress = None
            while time.monotonic() - began < 5:
                progress = progress or (await daemon.states())[HOST]["progress"]
                await asyncio.sleep(0.1)
            await daemon.wait_for_state("ready", seconds=60)
            served, _, _ = await ask(client, daemon)
            starts = daemon.starts()

    assert (503, "preparing", 200) == (status, refusal["error"]["code"], served)
    assert 1 <= retry_after <= 120
    assert seconds < 3
    assert progress
    assert 1 == starts


async def test_prepare_builds_ahead(tmp_path: Path, client: aiohttp.ClientSession) -> None:
    """autostart prepare shows the build; the first request then starts without one."""
    async with building(tmp_path / "plain", "echo the step is taken") as service:
        async with running(tmp_path, {HOST: service}) as daemon:
            check, doubts = await daemon.run_cli("check")
            status, text = await daemon.run_cli("prepare", HOST)
            served, _, _ = await ask(client, daemon)

    assert (0, True) == (check, "is built first" in doubts)
    assert (0, 200) == (status, served)
    assert "prepared in" in text


async def test_a_build_that_fails_says_why_to_the_operator(
    tmp_path: Path, client: aiohttp.ClientSession
) -> None:
    """The client hears one line without the build's output; the operator sees its last lines."""
    async with building(tmp_path / "plain", "echo s3cret && exit 7") as service:
        async with running(tmp_path, {HOST: service}) as daemon:
            await ask(client, daemon)
            await daemon.wait_for_state("failed", seconds=60)
            status, refusal, _ = await ask(client, daemon)
            failure = (await daemon.states())[HOST]["failure"]

    assert (503, "backing-off") == (status, refusal["error"]["code"])
    assert "exit code: 7" in failure["message"]
    assert "s3cret" in failure["detail"]
    assert "docker compose failed" in refusal["detail"]
    assert "s3cret" not in str(refusal)


async def test_an_image_that_cannot_be_pulled_is_named(
    tmp_path: Path, client: aiohttp.ClientSession
) -> None:
    """No image and no build: the reason is told, and another service is served meanwhile."""
    folder, port = tmp_path / "plain", free_port()
    write_compose(folder, {"web": plain_container(port, image="registry.invalid/none:1")})
    missing = {"compose": str(folder), "port": port}
    services = {HOST: missing, OTHER: contained(tmp_path / "other", free_port())}
    async with running(tmp_path, services) as daemon:
        first = await ask(client, daemon)
        other = await ask(client, daemon, OTHER)
        await daemon.wait_for_state("failed", seconds=60)
        _, shown = await daemon.run_cli("status")

    assert (503, "preparing") == (first[0], first[1]["error"]["code"])
    assert 200 == other[0]
    assert "start-failed: docker compose failed: " in shown
    assert "registry.invalid" in shown


async def test_a_broken_file_after_a_reload_breaks_one_service(
    tmp_path: Path, client: aiohttp.ClientSession
) -> None:
    """The others keep working; the broken one says where it is broken; mended, it works again."""
    folder, port = tmp_path / "plain", free_port()
    services = {
        HOST: contained(folder, port, idle="60s"),
        OTHER: contained(tmp_path / "other", free_port(), idle="60s"),
    }
    async with running(tmp_path, services) as daemon:
        before = [(await ask(client, daemon, host))[0] for host in services]
        good = (folder / "compose.yaml").read_text()
        (folder / "compose.yaml").write_text(good + "services: [\n")
        await daemon.run_cli("reload")
        still_up = (await ask(client, daemon))[0]
        await daemon.run_cli("stop", HOST)
        broken = await ask(client, daemon)
        other = (await ask(client, daemon, OTHER))[0]
        status, text = await daemon.run_cli("check")
        (folder / "compose.yaml").write_text(good)
        await daemon.run_cli("start", HOST)
        mended = (await ask(client, daemon))[0]

    assert [200, 200] == before
    assert (200, 200, 200) == (still_up, other, mended)
    assert (503, "start-failed") == (broken[0], broken[1]["error"]["code"])
    assert "not valid YAML" in broken[1]["detail"]
    assert (2, True) == (status, "compose.yaml: line" in text)


async def test_a_full_disk_is_told_and_leaves_the_rest_working(tmp_path: Path) -> None:
    """No space for a new container: the operator is told; what is ready is served."""
    with TemporaryDirectory(prefix="engine") as short:
        folder = Path(short)
        with small_filesystem(folder / "disk", 1500) as disk:
            with private_engine(folder / "engine", data_root=disk / "docker") as engine:
                engine.load_plain_image()
                services = {
                    HOST: contained(tmp_path / "plain", free_port()),
                    OTHER: contained(tmp_path / "other", free_port()),
                }
                async with with_engine(engine, tmp_path, services) as daemon:
                    async with daemon.session() as client:
                        made = await _ask_inside(client, OTHER)
                        filler = disk / "filler"
                        _fill(filler)
                        full = await _ask_inside(client, HOST)
                        failure = (await daemon.states())[HOST]["failure"]["message"]
                        ready = await _ask_inside(client, OTHER)
                        filler.unlink()
                        await daemon.run_cli("start", HOST)
                        again = await _ask_inside(client, HOST)

    assert (200, 200, 200) == (made[0], ready[0], again[0])
    assert (503, "start-failed") == (full[0], full[1]["error"]["code"])
    assert "no space left on device" in failure


async def _ask_inside(client: aiohttp.ClientSession, host: str) -> tuple[int, dict[str, Any]]:
    async with client.get("http://localhost/echo", headers={"Host": host}) as response:
        return response.status, await response.json()


def _fill(file: Path) -> None:
    """Take all the space there is."""
    with file.open("wb", buffering=0) as filler, contextlib.suppress(OSError):
        while filler.write(bytes(1024 * 1024)):
            pass
    with file.open("ab", buffering=0) as filler, contextlib.suppress(OSError):
        while filler.write(bytes(512)):
            pass
