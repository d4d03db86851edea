"""Receives a multipart form within its limits: size, number of parts, silence.

The recording lands in a temporary file that has no name, in $TMPDIR once it is larger than 1 MB.
So nothing is left behind however the request ends, `kill -9` included. The file is seekable,
which an m4a whose index comes last needs.
"""

import asyncio
import json
import time
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Callable,
    Coroutine,
    Iterable,
    Iterator,
    Mapping,
)
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any

from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from services.transcription.audio import Recording, raw_audio
from services.transcription.errors import (
    InvalidRequest,
    QueueFull,
    RequestTimeout,
    UnsupportedMediaType,
    UploadTooLarge,
)

# What a body may hold beside the recording: far more than any prompt needs.
FIELDS_BYTES_MAX = 256 * 1024
FIELD_BYTES_MAX = 64 * 1024
FIELDS_MAX = 100
LARGE_FIELDS_MAX = 4
# Of a JSON body. Python's parser holds the interpreter until it is done, and much of Python fails
# where values lie too deep within one another.
JSON_VALUES_MAX = 10_000
JSON_DEPTH_MAX = 50
# A body that any request has room for: a thousand of them are 64 MB.
SMALL_BYTES_MAX = 64 * 1024
# What a telephone sends from where there is hardly a network. Who sends less keeps a place from
# others with a trickle.
RATE_BYTES_MIN = 2000


@dataclass(frozen=True)
class UploadLimits:
    """What one request may send."""

    bytes_max: int  # of the recording
    silence_seconds_max: float
    # Fields that may hold more than others, each time they are sent: bytes, by name.
    large_fields: Mapping[str, int] = field(default_factory=dict)

    @property
    def fields_bytes_max(self) -> int:
        """What all fields may hold; a large one may come `LARGE_FIELDS_MAX` times."""
        return FIELDS_BYTES_MAX + LARGE_FIELDS_MAX * sum(self.large_fields.values())


@dataclass(frozen=True)
class Upload:
    """A form as it was sent: its text fields in order, and the recording."""

    fields: tuple[tuple[str, str], ...]
    recording: Recording
    file_bytes: int


@asynccontextmanager
async def receive_upload(
    request: Request, limits: UploadLimits, *, file_field: str = "file"
) -> AsyncIterator[Upload]:
    """Receive the form, and remove its recording, which is in `file_field`, afterwards.

    Raises ClientDisconnect when the client leaves while sending.
    """
    _check_head(request, limits)
    too_large = _too_large(limits)
    bytes_max = limits.bytes_max + limits.fields_bytes_max
    parser = _FormParser(
        request.headers,
        _limited(request, bytes_max, limits.silence_seconds_max, too_large),
        max_files=1,
        max_fields=FIELDS_MAX,
        max_part_size=max(FIELD_BYTES_MAX, *limits.large_fields.values(), 0),
        fields_bytes_max=limits.fields_bytes_max,
    )
    try:
        try:
            form = await parser.parse()
        except MultiPartException as error:
            raise InvalidRequest(f"form: {error.message}", code="invalid_form") from error
        yield _read_form(form.multi_items(), limits, file_field)
    finally:
        # In a thread: to give back half a gigabyte of disk takes the kernel a while.
        await asyncio.to_thread(parser.close_files)


async def until_gone(request: Request) -> None:
    """Return when the client has left; the body has been received before."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def until_any(*ends: Coroutine[Any, Any, object]) -> None:
    """Return when the first of several has returned; the others are cancelled."""
    tasks = [asyncio.ensure_future(end) for end in ends]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()


class _FormParser(MultiPartParser):
    """Starlette's parser, which by itself forgets the file of a part that never ends.

    It holds fields in memory; here all of them together have a limit.
    """

    def __init__(self, *arguments: Any, fields_bytes_max: int, **options: Any) -> None:  # noqa: ANN401 -- Starlette's
        super().__init__(*arguments, **options)
        self._fields_bytes_max = fields_bytes_max
        self._fields_bytes = 0

    def on_part_data(self, data: bytes, start: int, end: int) -> None:
        """Take a piece of a part."""
        if self._current_part.file is None:
            self._fields_bytes += end - start
            if self._fields_bytes > self._fields_bytes_max:
                raise MultiPartException(_larger(self._fields_bytes_max))
        super().on_part_data(data, start, end)

    @property
    def _charset(self) -> str:
        # What the client names is no concern of ours: browsers send UTF-8, and some codecs of
        # Python's give what is no text.
        return "utf-8"

    @_charset.setter
    def _charset(self, _named: str) -> None:
        pass

    def close_files(self) -> None:
        """Remove every temporary file of this form."""
        for file in self._files_to_close_on_error:
            file.close()


def _check_head(request: Request, limits: UploadLimits) -> None:
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if content_type != "multipart/form-data":
        raise UnsupportedMediaType(
            f"content-type: {content_type!r} is not supported, send multipart/form-data",
            code="unsupported_media_type",
        )
    # The server's parser has refused a length that is no number.
    if int(request.headers.get("content-length", 0)) > limits.bytes_max + limits.fields_bytes_max:
        raise _too_large(limits)


class Bodies:
    """How much of bodies may be in memory at once; belongs to one event loop."""

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._bytes_held = 0

    @contextmanager
    def hold(self) -> Iterator[Callable[[int], None]]:
        """Keep a body until left; give what is to be told of each part's bytes.

        That raises QueueFull where there is no room. A small body always has some.
        """
        received = held = 0

        def take(more: int) -> None:
            nonlocal received, held
            received += more
            wanted = max(0, received - SMALL_BYTES_MAX) - held
            if self._bytes_held + wanted > self._bytes_max:
                raise QueueFull(
                    "other large bodies are being received, try again later",
                    code="queue_full",
                    retry_after_seconds=10,
                )
            held += wanted
            self._bytes_held += wanted

        try:
            yield take
        finally:
            self._bytes_held -= held


async def receive_json(
    request: Request, *, bytes_max: int, silence_seconds_max: float, take: Callable[[int], None]
) -> Any:  # noqa: ANN401 -- that is what JSON is
    """Receive a body of JSON; `take` is told of each part's bytes, and may raise.

    Raises InvalidRequest, UploadTooLarge, UnsupportedMediaType.
    """
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    # A page of another site could send any other type without asking the browser's leave.
    if content_type != "application/json":
        raise UnsupportedMediaType(
            f"content-type: {content_type!r} is not supported, send application/json",
            code="unsupported_media_type",
        )
    too_large = UploadTooLarge(
        f"body: is larger than the {bytes_max} bytes that are allowed", code="body_too_large"
    )
    if int(request.headers.get("content-length", 0)) > bytes_max:
        raise too_large
    body = bytearray()
    async for chunk in _limited(request, bytes_max, silence_seconds_max, too_large):
        take(len(chunk))
        body += chunk
    # In a thread: of 20 MB it takes a tenth of a second.
    return await asyncio.to_thread(_parse_json, body)


def _parse_json(body: bytearray) -> object:
    if body.count(b",") >= JSON_VALUES_MAX:
        raise InvalidRequest(
            f"body: holds more than {JSON_VALUES_MAX} values", code="invalid_value"
        )
    try:
        parsed = json.loads(body)
    except (ValueError, RecursionError):
        raise InvalidRequest("body: is not JSON", code="invalid_json") from None
    level = [parsed]
    for _ in range(JSON_DEPTH_MAX):
        level = [inner for value in level for inner in _inside(value)]
    if level:
        raise InvalidRequest(
            f"body: is nested more than {JSON_DEPTH_MAX} deep", code="invalid_value"
        )
    return parsed


def _inside(value: object) -> Iterable[object]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


async def _limited(
    request: Request, bytes_max: int, silence_seconds_max: float, too_large: UploadTooLarge
) -> AsyncGenerator[bytes, None]:
    """Pass the body on until it is too large, or stays away for too long."""
    received_bytes = 0
    began = time.monotonic()
    chunks = request.stream()
    while True:
        try:
            async with asyncio.timeout(silence_seconds_max):
                chunk = await anext(chunks)
        except StopAsyncIteration:
            return
        except TimeoutError:
            raise RequestTimeout(
                f"nothing was received for {silence_seconds_max:g} s",
                code="request_timeout",
            ) from None
        received_bytes += len(chunk)
        allowed_seconds = silence_seconds_max + received_bytes / RATE_BYTES_MIN
        if time.monotonic() - began > allowed_seconds:
            raise RequestTimeout(
                f"less than {RATE_BYTES_MIN} bytes a second were received", code="request_timeout"
            )
        if received_bytes > bytes_max:
            raise too_large
        yield chunk


def _read_form(
    items: list[tuple[str, UploadFile | str]], limits: UploadLimits, file_field: str
) -> Upload:
    fields = tuple((name, value) for name, value in items if isinstance(value, str))
    files = [(name, value) for name, value in items if isinstance(value, UploadFile)]
    if not files or files[0][0] != file_field:
        raise InvalidRequest(
            f"{file_field}: is required, as an upload with a file name",
            param=file_field,
            code="missing_required_parameter",
        )
    file = files[0][1]
    small = [each for each in fields if each[0].partition("[")[0] not in limits.large_fields]
    if sum(len(name) + len(value) for name, value in small) > FIELDS_BYTES_MAX:
        raise InvalidRequest(f"form: {_larger(FIELDS_BYTES_MAX)}", code="invalid_form")
    file_bytes = file.size or 0
    if file_bytes > limits.bytes_max:
        raise _too_large(limits)
    raw = raw_audio(file.content_type or "", file.filename or "")
    return Upload(fields=fields, recording=Recording(file.file, raw), file_bytes=file_bytes)


def _larger(bytes_max: int) -> str:
    return f"its fields beside the file are larger than {bytes_max} bytes"


def _too_large(limits: UploadLimits) -> UploadTooLarge:
    return UploadTooLarge(
        f"file: is larger than the {limits.bytes_max} bytes that are allowed (MAX_UPLOAD)",
        param="file",
        code="upload_too_large",
    )
