"""Forms are received within their limits, and leave no file behind."""

import asyncio
import io
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from starlette.requests import ClientDisconnect, Request

from services.transcription.errors import (
    ApiError,
    InvalidRequest,
    RequestTimeout,
    UnsupportedMediaType,
    UploadTooLarge,
)
from services.transcription.uploads import FIELDS_BYTES_MAX, UploadLimits, receive_upload

LIMITS = UploadLimits(bytes_max=3_000_000, silence_seconds_max=10.0)
MULTIPART = "multipart/form-data; boundary=b"


def part(name: str, value: bytes, filename: str | None = None) -> bytes:
    suffix = f'; filename="{filename}"' if filename else ""
    head = f'--b\r\nContent-Disposition: form-data; name="{name}"{suffix}\r\n\r\n'
    return head.encode() + value + b"\r\n"


END = b"--b--\r\n"


def request_of(*chunks: bytes, end: str = "complete", **headers: str) -> Request:
    """A request whose body comes in these chunks, and then ends, stays away, or breaks off."""
    messages = [{"type": "http.request", "body": chunk, "more_body": True} for chunk in chunks]

    async def receive() -> dict:
        if messages:
            return messages.pop(0)
        if end == "silent":
            await asyncio.Event().wait()
        if end == "gone":
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": b"", "more_body": False}

    headers = {"content_type": MULTIPART} | headers
    raw = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return Request({"type": "http", "method": "POST", "headers": raw}, receive)


async def receive(request: Request, limits: UploadLimits = LIMITS):
    async with receive_upload(request, limits) as upload:
        return upload.fields, upload.recording.file.read(), upload.file_bytes


@pytest.fixture
def open_files() -> AsyncIterator:
    """Count the temporary files of this process, which have no names."""

    def count() -> int:
        paths = []
        for descriptor in Path("/proc/self/fd").iterdir():
            try:
                paths.append(str(descriptor.readlink()))
            except FileNotFoundError:
                continue
        return sum("(deleted)" in path for path in paths)

    return count


async def test_fields_and_file_arrive():
    """In order, and however the body is cut."""
    body = part("model", b"small") + part("file", b"abc" * 1000, "a.wav") + part("n[]", b"1") + END
    pieces = [body[start : start + 7] for start in range(0, len(body), 7)]

    assert await receive(request_of(*pieces)) == (
        (("model", "small"), ("n[]", "1")),
        b"abc" * 1000,
        3000,
    )


async def test_a_large_file_is_on_disk_and_seekable(open_files):
    """So memory stays constant, and an m4a can be read from its end; afterwards it is gone."""
    before = open_files()
    request = request_of(part("file", bytes(2_500_000), "a.wav"), END)
    async with receive_upload(request, LIMITS) as upload:
        assert open_files() == before + 1
        assert upload.recording.file.seek(-1, io.SEEK_END) == 2_499_999

    assert open_files() == before


async def test_a_file_of_just_the_limit_is_taken():
    """The limit counts the recording, not what surrounds it."""
    exact = request_of(part("file", bytes(LIMITS.bytes_max), "a.wav"), END)
    over = request_of(part("file", bytes(LIMITS.bytes_max + 1), "a.wav"), END)

    assert (await receive(exact))[2] == LIMITS.bytes_max
    with pytest.raises(UploadTooLarge, match="3000000 bytes"):
        await receive(over)


async def test_an_announced_length_is_refused_before_the_body():
    """Nothing is read, so nothing is sent by a client that waits for 100 Continue."""

    async def unread() -> dict:
        raise AssertionError("the body was read")

    length = str(LIMITS.bytes_max + FIELDS_BYTES_MAX + 1).encode()
    headers = [(b"content-type", MULTIPART.encode()), (b"content-length", length)]
    with pytest.raises(UploadTooLarge):
        await receive(Request({"type": "http", "method": "POST", "headers": headers}, unread))


@pytest.mark.parametrize(
    ("chunks", "error"),
    [
        pytest.param([END], InvalidRequest, id="no part"),
        pytest.param([part("model", b"small"), END], InvalidRequest, id="no file"),
        pytest.param([part("file", b"text"), END], InvalidRequest, id="file as text"),
        pytest.param([part("sound", b"a", "a.wav"), END], InvalidRequest, id="other name"),
        pytest.param([part("file", b"a", "a")] * 2 + [END], InvalidRequest, id="two files"),
        pytest.param([part("prompt", bytes(70_000)), END], InvalidRequest, id="long field"),
        pytest.param([part("x", b"")] * 101 + [END], InvalidRequest, id="many fields"),
        pytest.param([part("file", b"a", "a.wav")], InvalidRequest, id="no end"),
        pytest.param([b"junk"], InvalidRequest, id="no boundary"),
        pytest.param([b"--b\r\n\r\n\r\n", END], InvalidRequest, id="nameless part"),
        pytest.param([b"--b\r\n" + bytes(100), END], InvalidRequest, id="junk header"),
    ],
)
async def test_a_wrong_form_is_refused(chunks, error, open_files):
    """With a 4xx, and without leaving a file open."""
    before = open_files()
    with pytest.raises(error):
        await receive(request_of(*chunks))

    assert open_files() == before


@pytest.mark.parametrize(
    "content_type",
    ["", "application/json", "application/x-www-form-urlencoded", "multipart/mixed; boundary=b"],
)
async def test_another_content_type_is_refused(content_type):
    """The message says what to send."""
    with pytest.raises(UnsupportedMediaType, match="send multipart/form-data"):
        await receive(request_of(content_type=content_type))


@pytest.mark.parametrize("content_type", ["multipart/form-data", "multipart/form-data; boundary="])
async def test_a_missing_boundary_is_refused(content_type):
    """It is a mistake of the client's, so no 500."""
    with pytest.raises(ApiError) as raised:
        await receive(request_of(END, content_type=content_type))

    assert raised.value.status == 400


async def test_a_silent_client_is_refused(open_files):
    """A wait has a deadline: the place is needed by others."""
    before = open_files()
    request = request_of(part("file", bytes(2_000_000), "a.wav")[:-2], end="silent")
    with pytest.raises(RequestTimeout, match=r"nothing was received for 0\.05 s"):
        await receive(request, UploadLimits(bytes_max=3_000_000, silence_seconds_max=0.05))

    assert open_files() == before


async def test_a_client_that_leaves_ends_the_upload(open_files):
    """What it sent so far is removed."""
    before = open_files()
    request = request_of(part("file", bytes(2_000_000), "a.wav")[:-2], end="gone")
    with pytest.raises(ClientDisconnect):
        await receive(request)

    assert open_files() == before


async def test_a_failure_while_the_file_is_in_use_removes_it(open_files):
    """Whatever happens in the block, the file ends with it."""
    before = open_files()
    with pytest.raises(ZeroDivisionError):
        async with receive_upload(request_of(part("file", bytes(2_000_000), "a.wav"), END), LIMITS):
            _ = 1 / 0

    assert open_files() == before


async def test_fields_that_are_large_together_are_refused():
    """Each may be as large as a prompt, all of them may not: to read them takes the event loop."""
    fields = [part(f"f{number}", b"x" * 60_000) for number in range(5)]
    with pytest.raises(InvalidRequest, match="fields beside the file are larger"):
        await receive(request_of(*fields, part("file", b"abc", "a.wav"), END))


async def test_a_trickle_is_refused():
    """Who sends a byte now and then is not silent, but keeps a place from others."""
    sent = 0

    async def trickle() -> dict:
        nonlocal sent
        sent += 1
        await asyncio.sleep(0.01)
        body = part("file", b"", "a.wav").removesuffix(b"\r\n") if sent == 1 else b"x"
        return {"type": "http.request", "body": body, "more_body": True}

    headers = [(b"content-type", MULTIPART.encode())]
    request = Request({"type": "http", "method": "POST", "headers": headers}, trickle)
    limits = UploadLimits(bytes_max=LIMITS.bytes_max, silence_seconds_max=0.1)
    with pytest.raises(RequestTimeout, match="less than 2000 bytes a second"):
        async with asyncio.timeout(10):
            await receive(request, limits)


@pytest.mark.parametrize(
    "charset", ["undefined", "punycode", "unicode_escape", "utf-16", "latin-1"]
)
async def test_a_charset_that_is_named_changes_nothing(charset):
    """Browsers send UTF-8; some of Python's codecs give what is no text."""
    body = part("prompt", "caf\u00e9 \\ud800".encode()) + part("file", b"abc", "a.wav") + END
    fields, *_ = await receive(request_of(body, content_type=f"{MULTIPART}; charset={charset}"))

    assert fields == (("prompt", "caf\u00e9 \\ud800"),)
