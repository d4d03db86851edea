"""Voxtral by vLLM: one that is started here, or one elsewhere (VLLM_URL), over HTTP."""

import asyncio
import io
import logging
import os
import wave
from collections.abc import Callable, Coroutine, Mapping, Sequence
from http import HTTPStatus
from typing import Any, TypeVar

import aiohttp
from yarl import URL

from services.transcription.audio import SAMPLE_RATE
from services.transcription.errors import EngineError, is_out_of_memory, work_failed
from services.voxtral.model import Samples, Written
from services.voxtral.settings import Settings
from services.voxtral.vllm_answers import chatted, heard, names
from services.voxtral.vllm_http import Asking, Check, Vllm, VllmBroken, VllmFailed
from services.voxtral.vllm_server import NotStarted, VllmServer

log = logging.getLogger(__name__)

_BATCH_SIZE = 8
# vLLM's own limits of one recording (0.33): VLLM_MAX_AUDIO_CLIP_FILESIZE_MB, in MiB, and
# VLLM_MAX_AUDIO_DECODE_DURATION_S. Pieces of half a minute, 1 MB, keep far below.
_FILE_BYTES_MAX = 25 * 1024 * 1024
_AUDIO_SECONDS_MAX = 600
# Of the model's card, for chat; what is wanted first is the likeliest.
_AGAIN = {"temperature": 0.2, "top_p": 0.95}
# Between the end of its connections and the end of the process.
_ENDING_SECONDS = 2.0

R = TypeVar("R")
Report = Callable[[int, Written], None]


class Loader:
    """Gives the model, one at a time; to be used in the worker's thread.

    A job that is given up does not take along the vLLM that it waited for, which takes minutes to
    start: the next one waits for the same.
    """

    def __init__(self, settings: Settings, environment: Mapping[str, str] = os.environ) -> None:
        self._settings = settings
        self._environment = environment
        self._starting: VllmServer | None = None

    def __call__(self, check: Check) -> "OnVllm":
        """Give the model when it is ready; raises EngineError, and what `check` raises."""
        try:
            return self._elsewhere(check) if self._settings.vllm_url else self._here(check)
        except NotStarted as error:
            raise EngineError(str(error), code="load_failed") from error

    def close(self) -> None:
        """End what is being started."""
        if self._starting is not None:
            self._starting.close()
            self._starting = None

    def _here(self, check: Check) -> "OnVllm":
        server = self._starting = self._starting or VllmServer(self._settings, self._environment)
        try:
            server.wait(check)
            name = self._ask_name(server.api, check)
        except (NotStarted, VllmFailed) as error:
            self.close()
            raise NotStarted(str(error)) from error
        self._starting = None
        return OnVllm(server.api, name, self._settings, server)

    def _elsewhere(self, check: Check) -> "OnVllm":
        api = Vllm(_address(self._settings.vllm_url))
        try:
            name = self._ask_name(api, check)
        except VllmFailed as error:
            log.error("vllm elsewhere fails url=%s reason=%s", public(api.url), error)
            raise NotStarted("the vLLM of VLLM_URL fails, see the service's log") from error
        return OnVllm(api, name, self._settings, None)

    def _ask_name(self, api: Vllm, check: Check) -> str:
        """Give the model's name on the server; raises VllmFailed."""
        wanted = self._settings.voxtral_model

        async def ask(asking: Asking) -> list[str]:
            try:
                return names(await asking.get("v1/models"))
            except VllmFailed as error:
                if error.status != HTTPStatus.NOT_FOUND:
                    raise
                return []  # a proxy before it may pass on less

        served = api.ask(ask, check)
        name = wanted if wanted in served or not served else served[0]
        if name != wanted:
            log.info("vllm knows the model by another name model=%s name=%s", wanted, name)
        return name


class OnVllm:
    """The model in a vLLM; see `services.voxtral.model.Model`."""

    def __init__(
        self, api: Vllm, name: str, settings: Settings, server: VllmServer | None = None
    ) -> None:
        """Use the model of a name; `server` is None for one elsewhere, which is never closed."""
        self.device = public(api.url)
        self._api = api
        self._name = name
        self._at_once = settings.voxtral_batch_size or _BATCH_SIZE
        self._server = server
        self._doubtful = False

    @property
    def alive(self) -> bool:
        """Whether it is of any use to ask again; if not, it is to be closed and loaded anew."""
        if self._server is None:
            return True
        # After a failure its engine may be dead, and the rest of it is for some seconds more.
        if self._doubtful and self._server.healthy():
            self._doubtful = False
        return not self._doubtful and self._server.exit_status() is None

    def transcribe(
        self,
        pieces: Sequence[Samples],
        *,
        language: str | None,
        tokens_max: int,
        check: Check,
        report: Report,
    ) -> None:
        """Write down what is said in each piece, several at once, reported in order."""
        fields = {
            "model": self._name,
            "response_format": "json",
            # Only a stream tells why it ended: the plain answer has a text, and no more.
            "stream": "true",
            "temperature": "0",
            "max_completion_tokens": str(tokens_max),
        }
        if language is not None:
            fields["language"] = language

        async def hear(asking: Asking, piece: Samples) -> Written:
            form = aiohttp.FormData(fields)
            form.add_field("file", _wav(piece), filename="audio.wav", content_type="audio/wav")
            return heard(await asking.post_form("v1/audio/transcriptions", form))

        async def work(asking: Asking) -> None:
            await _in_order(
                lambda piece: hear(asking, piece), pieces, at_once=self._at_once, report=report
            )

        self._ask(work, check)

    def chat(
        self,
        prompt: str,
        *,
        tokens_max: int,
        schema: Mapping[str, Any] | None,
        again: bool,
        check: Check,
    ) -> Written:
        """Answer a prompt of text; `schema` is enforced."""
        body: dict[str, Any] = {
            "model": self._name,
            "messages": [{"role": "user", "content": prompt}],
            "max_tokens": tokens_max,
            **(_AGAIN if again else {"temperature": 0}),
        }
        if schema is not None:
            described = {"name": "answer", "schema": dict(schema), "strict": True}
            body["response_format"] = {"type": "json_schema", "json_schema": described}

        async def work(asking: Asking) -> Written:
            return chatted(await asking.post_json("v1/chat/completions", body))

        return self._ask(work, check)

    def close(self) -> None:
        """End the server, if it was started here."""
        if self._server is not None:
            self._server.close()

    def _ask(self, work: Callable[[Asking], Coroutine[Any, Any, R]], check: Check) -> R:
        try:
            return self._api.ask(work, check)
        except VllmFailed as error:
            raise self._failed(error) from error

    def _failed(self, error: VllmFailed) -> EngineError:
        """Give what a client is told; the log has the rest."""
        self._doubtful = True
        if is_out_of_memory(error):
            return work_failed(error)
        broken = isinstance(error, VllmBroken)
        status = None
        if self._server is not None:
            status = self._server.exit_status(within_seconds=_ENDING_SECONDS if broken else 0)
        log.error("vllm failed exit_status=%s reason=%s", status, error)
        told = "vLLM failed"
        if status is not None:
            told = f"vLLM ended in the middle of the work, with status {status}"
        elif broken:
            told = "vLLM does not answer"
        return EngineError(f"{told}, see the service's log", code="engine_failed")


def public(url: URL) -> str:
    """Give an address without the password that may be in it."""
    return str(url.with_user(None))


def _address(written: str) -> URL:
    """Read VLLM_URL; raises NotStarted."""
    try:
        url = URL(written.rstrip("/").removesuffix("/v1"))
    except ValueError as error:
        raise NotStarted(f"VLLM_URL: {error}") from error
    if url.scheme not in ("http", "https") or not url.host:
        raise NotStarted("VLLM_URL is no address such as http://vllm:8000")
    return url


async def _in_order(
    hear: Callable[[Samples], Coroutine[Any, Any, Written]],
    pieces: Sequence[Samples],
    *,
    at_once: int,
    report: Report,
) -> None:
    """Work on some pieces at once; the first failure gives up all of them."""
    places = asyncio.Semaphore(at_once)

    async def in_turn(piece: Samples) -> Written:
        async with places:
            return await hear(piece)

    loop = asyncio.get_running_loop()
    tasks = [loop.create_task(in_turn(piece)) for piece in pieces]
    pending, reported = set(tasks), 0
    try:
        while pending:
            done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
            while reported < len(tasks) and tasks[reported].done():
                report(reported, tasks[reported].result())
                reported += 1
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _wav(piece: Samples) -> io.BytesIO:
    assert 0 < len(piece) <= _AUDIO_SECONDS_MAX * SAMPLE_RATE, len(piece)
    written = io.BytesIO()
    with wave.open(written, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE)
        file.writeframes(piece.astype("<i2").tobytes())
    assert written.tell() <= _FILE_BYTES_MAX, written.tell()
    written.seek(0)
    return written
