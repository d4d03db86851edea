"""The `docker compose` command: what files mean, and the making of containers.

Each call is a process group of its own, killed when its caller is cancelled; what it prints is
bounded. Asked on the way to a start only when something may have to be created.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import time
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog

from autostart.config import ServiceConfig
from autostart.errors import EngineUnreachable, StartFailed
from autostart.runtimes.docker.project import Project

log = structlog.get_logger("autostart")

# `config` reads files and takes 50 ms.
ASK_SECONDS = 30.0
# The resolved model of a project: a hundred services are half a megabyte.
ANSWER_BYTES_MAX = 8 * 1024 * 1024
# What an operator is shown of a pull or build that failed.
DETAIL_LINES = 20
# One line of it: BuildKit prints commands of any length.
LINE_MAX = 500
# What a client is told: one line.
MESSAGE_MAX = 300
# After SIGTERM compose waits for what it has begun; what it has done stays done.
KILL_SECONDS = 5.0

ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
# How the CLI says that there is no engine to talk to.
NO_ENGINE = re.compile(
    r"cannot connect to the docker daemon|is the docker daemon running|error during connect",
    re.IGNORECASE,
)
# What lines hold that say why.
ERROR = re.compile(r"error|failed|validating|no such service|denied|not found", re.IGNORECASE)


@dataclass(frozen=True)
class Model:
    """What the files mean, as compose resolves them."""

    name: str
    services: Mapping[str, Mapping[str, Any]]

    def images(self, names: Collection[str] | None) -> dict[str, str]:
        """Return the image of each service; None means all services."""
        return {
            service: str(entry.get("image") or f"{self.name}-{service}")
            for service, entry in self.services.items()
            if names is None or service in names
        }


class Compose:
    """Calls the command with `environment`, but for `hidden` names. `calls` counts."""

    def __init__(
        self,
        environment: Mapping[str, str],
        *,
        hidden: Collection[str] = (),
        docker_host: str | None = None,
    ) -> None:
        self._environment = environment
        self._hidden = hidden
        self._docker_host = docker_host
        self.calls = 0

    async def version(self) -> str:
        """Return compose's version. Raises StartFailed where there is none."""
        return (await self._ask(["docker", "compose", "version", "--short"])).strip()

    async def model(self, project: Project, service: ServiceConfig) -> Model:
        """Return what the files mean for this service.

        Raises StartFailed in compose's words where they mean nothing.
        """
        command = [*_base(project), "config", "--format", "json", *(service.containers or ())]
        document = json.loads(await self._ask(command, project.folder))
        return Model(str(document["name"]), document.get("services") or {})

    async def create(
        self,
        project: Project,
        progress: Callable[[str], None],
        names: Collection[str] | None,
        *options: str,
    ) -> None:
        """Pull and build what is missing, make the containers what the files say; start nothing.

        `names` are compose services, None means all. May be cancelled; what is done stays done.
        Raises StartFailed, EngineUnreachable.
        """
        command = [*_base(project, "--progress", "plain"), "up", "--no-start", *options]
        began = time.monotonic()
        lines: deque[str] = deque(maxlen=DETAIL_LINES)

        def take(line: str) -> None:
            if line := ANSI.sub("", line).strip():
                lines.append(line[:LINE_MAX])
                progress(lines[-1])

        status = await self._run([*command, *(names or ())], take, folder=project.folder)
        log.info(
            "compose",
            project=project.name,
            command="create",
            seconds=round(time.monotonic() - began, 3),
            status=status,
        )
        if status != 0:
            raise _failure(list(lines), status)

    # The process.

    async def _ask(self, command: Sequence[str], folder: Path | None = None) -> str:
        """Return what the command prints. Raises StartFailed with what it says instead."""
        answer: list[str] = []
        said: deque[str] = deque(maxlen=DETAIL_LINES)
        try:
            async with asyncio.timeout(ASK_SECONDS):
                status = await self._run(command, said.append, answer.append, folder=folder)
        except TimeoutError as error:
            text = f"docker compose was silent for {ASK_SECONDS:.0f} s"
            raise EngineUnreachable(text) from error
        if status != 0:
            raise _failure([ANSI.sub("", line) for line in said], status)
        return "".join(answer)

    async def _run(
        self,
        command: Sequence[str],
        tell: Callable[[str], None],
        take: Callable[[str], None] | None = None,
        *,
        folder: Path | None = None,
    ) -> int:
        """Run to the end; `tell` gets what it says, `take` what it answers (else that too).

        In the project's folder, as an operator would: COMPOSE_FILE is relative to it.
        """
        self.calls += 1
        try:
            process = await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                env=self._inherited(),
                cwd=folder,
                start_new_session=True,
                limit=ANSWER_BYTES_MAX,
            )
        except OSError as error:
            text = f"the docker command cannot be run: {error.strerror}; install Docker's CLI"
            raise StartFailed(text) from error
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(_read(process.stdout, take or tell))
                group.create_task(_read(process.stderr, tell))
            return await process.wait()
        finally:
            await asyncio.shield(_end(process))

    def _inherited(self) -> dict[str, str]:
        kept = {k: v for k, v in self._environment.items() if k not in self._hidden}
        # The engine that the SDK talks to, and no other that a CLI context might name.
        if self._docker_host is not None:
            kept["DOCKER_HOST"] = self._docker_host
        return kept


def _base(project: Project, *options: str) -> list[str]:
    command = ["docker", "compose", *options, "--project-directory", str(project.folder)]
    if not project.implicit:
        for file in project.files:
            command += ["--file", str(file)]
    for profile in project.profiles:
        command += ["--profile", profile]
    return command


async def _read(stream: asyncio.StreamReader, take: Callable[[str], None]) -> None:
    while line := await stream.readline():
        take(line.decode(errors="replace"))


async def _end(process: asyncio.subprocess.Process) -> None:
    """Leave no process behind, whatever happened."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        if process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(KILL_SECONDS):
                await process.wait()


def _failure(lines: Sequence[str], status: int) -> StartFailed | EngineUnreachable:
    said = [line.strip() for line in lines if line.strip()]
    if any(NO_ENGINE.search(line) for line in said):
        return EngineUnreachable("the engine cannot be reached by docker compose")
    if any("is not a docker command" in line or "unknown shorthand flag" in line for line in said):
        return StartFailed("docker compose is not installed; install Docker's compose plugin")
    errors = (
        [line for line in said if ERROR.search(line)]
        or said[-1:]
        or [f"exit code {status}, without a word"]
    )
    # Compose quotes the files: a password that is written badly stands in its complaint.
    private = errors[-1].removeprefix("Error response from daemon: ")[:MESSAGE_MAX]
    detail = "\n".join(said[-DETAIL_LINES:])
    return StartFailed("docker compose failed", private=private, detail=detail)
