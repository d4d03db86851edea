"""Requests to a vLLM server: their deadlines, their limits, and what went wrong in plain words.

The worker's thread blocks in `ask`, which runs an event loop of its own there. To give a request
up is to close its connection: vLLM then stops to generate.
"""

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from http import HTTPStatus
from typing import Any, TypeVar

import aiohttp
from pydantic import BaseModel, ValidationError
from yarl import URL

from services.transcription.errors import InvalidRequest

R = TypeVar("R")
Check = Callable[[], None]

# From sending a request to the end of its answer. The longest summary, 8192 tokens at 15 a second.
ANSWER_SECONDS_MAX = 600.0
_CONNECT_SECONDS_MAX = 10.0
# 8192 events of a token each, with half a kilobyte around it, are 4 MiB.
ANSWER_BYTES_MAX = 16 * 1024 * 1024
_CHECK_SECONDS = 0.1
_REASON_CHARACTERS_MAX = 300


class VllmFailed(Exception):
    """No answer, or none of use. The text is for the log: it may name addresses and folders.

    `status` is what the server answered, if it did.
    """

    def __init__(self, reason: str, *, status: int | None = None) -> None:
        super().__init__(reason)
        self.status = status


class VllmBroken(VllmFailed):
    """The connection could not be made, or broke: the server may be dead."""


class Vllm:
    """A server by the address of its API, without /v1: "http://127.0.0.1:8001".

    `key` is what its /v1 asks for; None: nothing.
    """

    def __init__(
        self, url: URL, key: str | None = None, *, answer_seconds_max: float = ANSWER_SECONDS_MAX
    ) -> None:
        self.url = url
        self._headers = {"Accept-Encoding": "identity"}
        if key is not None:
            self._headers["Authorization"] = f"Bearer {key}"
        self._seconds_max = answer_seconds_max

    def ask(self, work: Callable[["Asking"], Coroutine[Any, Any, R]], check: Check) -> R:
        """Give the result of some requests; what `check` raises ends them, and is raised here.

        Raises InvalidRequest where the server says so, VllmFailed for any other failure.
        """
        return asyncio.run(self._ask(work, check))

    async def _ask(self, work: Callable[["Asking"], Coroutine[Any, Any, R]], check: Check) -> R:
        check()
        async with aiohttp.ClientSession(
            # A connection that was kept may be closed just as it is used again, and then nobody
            # knows whether the request was taken.
            connector=aiohttp.TCPConnector(limit=0, force_close=True),
            timeout=aiohttp.ClientTimeout(
                total=self._seconds_max, sock_connect=_CONNECT_SECONDS_MAX
            ),
            headers=self._headers,
        ) as session:
            task = asyncio.get_running_loop().create_task(work(Asking(self.url, session)))
            try:
                while not task.done():
                    await asyncio.wait({task}, timeout=_CHECK_SECONDS)
                    check()
            finally:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
            return task.result()


class Asking:
    """A session with the server: requests may be made at once, and none is made twice."""

    def __init__(self, url: URL, session: aiohttp.ClientSession) -> None:
        self._url = url
        self._session = session

    async def status(self, path: str) -> int:
        """Give the status of a GET; raises VllmFailed if there is no answer."""
        status, _ = await self._exchange("GET", path)
        return status

    async def get(self, path: str) -> bytes:
        """Give the body of an answer to GET; raises InvalidRequest or VllmFailed."""
        return _accepted(*await self._exchange("GET", path))

    async def post_form(self, path: str, form: aiohttp.FormData) -> bytes:
        """Give the body of an answer to a form; raises InvalidRequest or VllmFailed."""
        return _accepted(*await self._exchange("POST", path, form=form))

    async def post_json(self, path: str, body: Mapping[str, Any]) -> bytes:
        """Give the body of an answer to JSON; raises InvalidRequest or VllmFailed."""
        return _accepted(*await self._exchange("POST", path, json=body))

    async def _exchange(
        self,
        method: str,
        path: str,
        *,
        form: aiohttp.FormData | None = None,
        json: Mapping[str, Any] | None = None,
    ) -> tuple[int, bytes]:
        try:
            async with self._session.request(
                method, self._url.joinpath(path), data=form, json=json, allow_redirects=False
            ) as answer:
                return answer.status, await _read(answer.content)
        except TimeoutError as error:
            raise VllmFailed(f"{method} /{path}: no answer in time: {error}") from error
        except (aiohttp.ClientError, OSError) as error:
            reason = f"{type(error).__name__}: {error}"
            raise VllmBroken(f"{method} /{path}: {reason}") from error


async def _read(content: aiohttp.StreamReader) -> bytes:
    read = bytearray()
    async for part in content.iter_any():
        read += part
        if len(read) > ANSWER_BYTES_MAX:
            raise VllmFailed(f"an answer of more than {ANSWER_BYTES_MAX} bytes")
    return bytes(read)


def _accepted(status: int, body: bytes) -> bytes:
    if status != HTTPStatus.OK:
        raise refusal(status, _reason(body))
    return body


def refusal(status: int, reason: str) -> InvalidRequest | VllmFailed:
    """Give what a status and the server's words mean: whose fault it is."""
    told = " ".join(reason.split())[:_REASON_CHARACTERS_MAX]
    if status == HTTPStatus.BAD_REQUEST:
        return InvalidRequest(f"the model refuses: {told}", code="refused_by_model")
    return VllmFailed(f"status {status}: {told}", status=status)


class _Refused(BaseModel):
    message: str


class _RefusedBody(BaseModel):
    error: _Refused


def _reason(body: bytes) -> str:
    try:
        return _RefusedBody.model_validate_json(body).error.message
    except ValidationError:  # of a proxy before it, or {"error": "Unauthorized"}
        return body[:_REASON_CHARACTERS_MAX].decode(errors="replace")
