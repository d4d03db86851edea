"""A vLLM of our own: its command, its environment, its port, its start and its end."""

import asyncio
import json
import logging
import os
import secrets
import shlex
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from http import HTTPStatus

from yarl import URL

from services.voxtral import leash
from services.voxtral.settings import Settings
from services.voxtral.vllm_http import Asking, Check, Vllm, VllmFailed

log = logging.getLogger(__name__)

HOST = "127.0.0.1"
_PORT_MAX = 65535
_APP_PORT = "8000"  # uvicorn's default
_POLL_SECONDS = 0.2
_HEALTH_SECONDS_MAX = 5.0
# Between asking it to end and killing it, as `docker stop` does. It took two.
_TERM_SECONDS = 10
_CLOSE_SECONDS_MAX = _TERM_SECONDS + 5.0
# What vLLM must not see. VLLM_PORT means something else to it: where its inner ports begin; of
# what it does not know it warns; and the keys are not its own.
_WITHHELD = (
    "API_KEY",
    "HUGGINGFACE_TOKEN",
    "RUNPOD_AI_API_KEY",
    "VLLM_ARGS",
    "VLLM_PORT",
    "VLLM_START_SECONDS",
    "VLLM_URL",
)
# vLLM reports its use to its makers unless it is told not to.
_TELEMETRY_OFF = {"VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"}


class NotStarted(Exception):
    """There is no server, and why: for an operator."""


def command(program: str, settings: Settings, port: int) -> list[str]:
    """Give the command line; of two flags of a name vLLM heeds the later: the operator's.

    But not for the address, which is how it is found. Raises NotStarted.
    """
    try:
        added = shlex.split(settings.vllm_args)
    except ValueError as error:
        raise NotStarted(f"VLLM_ARGS: {error}") from error
    # The layout of Mistral's own repositories, with params.json and tekken.json.
    mistral = ["--tokenizer-mode", "mistral", "--config-format", "mistral"]
    return [
        *[program, "serve", settings.voxtral_model],
        *[*mistral, "--load-format", "mistral"],
        *["--max-model-len", "32768"],
        *["--gpu-memory-utilization", "0.9"],
        *["--limit-mm-per-prompt", json.dumps({"audio": 1})],
        *added,
        *["--host", HOST, "--port", str(port)],
    ]


def environment(given: Mapping[str, str], *, token: str, key: str) -> dict[str, str]:
    """Give what vLLM sees of the environment; `token` is for the Hub, "" for none."""
    seen = _TELEMETRY_OFF | {name: value for name, value in given.items() if name not in _WITHHELD}
    if token:
        seen["HF_TOKEN"] = token
    return seen | {"VLLM_API_KEY": key}


def choose_port(settings: Settings, given: Mapping[str, str]) -> int:
    """Give VLLM_PORT, or the next if it is the app's own; raises NotStarted if it is taken."""
    port = settings.vllm_port
    if str(port) == given.get("UVICORN_PORT", _APP_PORT):
        port += 1 if port < _PORT_MAX else -1
        log.info("vllm moves: its port is the service's vllm_port=%d", port)
    with socket.socket() as taken:
        # As uvicorn does: what an older server's connections left is no hindrance.
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            taken.bind((HOST, port))
        except OSError as error:
            raise NotStarted(
                f"port {port} is taken by another program, set VLLM_PORT to a free one: {error}"
            ) from error
    return port


class VllmServer:
    """A `vllm serve`, from its start to its end; it ends with this process at the latest.

    To be used in the worker's thread; `close` in any.
    """

    def __init__(self, settings: Settings, given: Mapping[str, str]) -> None:
        """Start one, `given` the environment; raises NotStarted."""
        program = shutil.which("vllm", path=given.get("PATH", os.defpath))
        if program is None:
            raise NotStarted(
                "vllm is not installed: the image of Dockerfile.vllm has it, or set VLLM_URL"
            )
        port = choose_port(settings, given)
        written = command(program, settings, port)
        # Only the server that was started with this key takes it: nobody else's is talked to.
        key = secrets.token_urlsafe()
        self.api = Vllm(URL.build(scheme="http", host=HOST, port=port), key)
        self._unkeyed = Vllm(self.api.url, answer_seconds_max=_HEALTH_SECONDS_MAX)
        self._closing = threading.Lock()
        self._seconds_max = settings.vllm_start_seconds
        self._began = time.monotonic()
        log.info("starting %s", shlex.join(written))
        try:
            self._process = subprocess.Popen(  # noqa: S603 -- our own program
                [sys.executable, "-I", leash.__file__, str(_TERM_SECONDS), *written],
                stdin=subprocess.PIPE,
                # Its output is log, too, and not ours to change.
                stdout=sys.__stderr__,
                stderr=sys.__stderr__,
                env=environment(given, token=settings.token, key=key),
                start_new_session=True,
            )
        except OSError as error:
            raise NotStarted(f"vllm could not be started: {error}") from error

    def wait(self, check: Check) -> None:
        """Return when it is ready; what `check` raises ends the waiting, not the start.

        Raises NotStarted if it has ended, is late, or its port is answered by another server;
        VllmFailed if it does not answer after all.
        """
        self._unkeyed.ask(self._until_ready, check)
        status = self.api.ask(lambda asking: asking.status("v1/models"), check)
        if status == HTTPStatus.UNAUTHORIZED:
            raise NotStarted(
                f"port {self.api.url.port} is answered by another server, set VLLM_PORT,"
                " or VLLM_ARGS sets a key"
            )
        log.info("vllm is ready seconds=%.2f", time.monotonic() - self._began)

    def healthy(self) -> bool:
        """Tell whether it runs, and its engine does, which is a process of its own."""
        if self.exit_status() is not None:
            return False
        try:
            status = self._unkeyed.ask(lambda asking: asking.status("health"), lambda: None)
        except VllmFailed:
            return False
        return status == HTTPStatus.OK

    def exit_status(self, *, within_seconds: float = 0.0) -> int | None:
        """Give its exit status; None if it still runs after so long."""
        with suppress(subprocess.TimeoutExpired):
            return self._process.wait(within_seconds)
        return None

    def close(self) -> None:
        """End it and all that it started; returns when they have ended."""
        with self._closing:
            assert self._process.stdin is not None, "it is a pipe"
            self._process.stdin.close()
            if self.exit_status(within_seconds=_CLOSE_SECONDS_MAX) is None:
                log.error("vllm does not end pid=%d", self._process.pid)
                return
        log.info("vllm has ended status=%d", self._process.returncode)

    async def _until_ready(self, asking: Asking) -> None:
        while not await self._answers(asking):
            if (status := self.exit_status()) is not None:
                raise NotStarted(f"vllm ended with status {status}, see the service's log")
            if time.monotonic() - self._began > self._seconds_max:
                raise NotStarted(
                    f"vllm was not ready after {self._seconds_max:.0f} s (VLLM_START_SECONDS)"
                )
            await asyncio.sleep(_POLL_SECONDS)

    async def _answers(self, asking: Asking) -> bool:
        """Tell whether it is ready; raises NotStarted where that who answers is another server."""
        try:
            if await asking.status("health") != HTTPStatus.OK:
                return False
            status = await asking.status("v1/models")
        except VllmFailed:  # nobody listens yet, or only just
            return False
        # vLLM takes its port only after seconds: another program may have been faster.
        if status != HTTPStatus.UNAUTHORIZED:
            raise NotStarted(
                f"port {self.api.url.port} is answered by another server, set VLLM_PORT"
            )
        return True
