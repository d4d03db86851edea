"""Brings in a recording that a job names by URL or holds as base64 text.

Either way it lands in a temporary file without a name, in $TMPDIR, so nothing is left behind
however the job ends, `kill -9` included. Files are written and closed in threads, and decoding is
done there, too: the event loop has others to serve.

Half a recording is never given on: a body that breaks off is refused. Only where a server tells
no length and then closes the connection in good order, nobody can know.
"""

import asyncio
import binascii
import codecs
import gzip
import re
import tempfile
import zlib
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import BinaryIO

import aiohttp
from aiohttp import ClientResponse, ClientSession, ClientTimeout
from yarl import URL

from services.transcription.audio import RawAudio, Recording, raw_audio
from services.transcription.errors import (
    ApiError,
    InvalidRequest,
    UnsupportedMediaType,
    UploadTooLarge,
)
from services.voxtral.addresses import (
    HOST_SHOWN_CHARACTERS_MAX,
    check_url,
    is_refusal,
    make_session,
    shown_host,
)
from services.voxtral.request import named
from services.voxtral.settings import Settings

REDIRECTS_MAX = 5
_OK = 200
# Fewer, larger steps: each goes to a thread and back.
_PIECE_BYTES = 512 * 1024
_SLICE_CHARACTERS = 1024 * 1024
# Enough to tell a page from audio; a page that is shorter is told at its end.
_HEAD_BYTES = 512

_URL_FIELD, _TEXT_FIELD = "audio_url", "audio_base64"

# What arrives in place of audio most often, by its first bytes.
_OTHER_FILES = (
    (b"%PDF-", "a PDF file"),
    (b"PK\x03\x04", "a ZIP archive"),
    (b"\x1f\x8b\x08", "a gzip archive"),
    (b"\x89PNG\r\n", "an image"),
    (b"\xff\xd8\xff", "an image"),
    (b"GIF8", "an image"),
)
_HTML = re.compile(rb"<(!doctype\s+html|html|head|body)\b", re.IGNORECASE)
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_NOT_IN_TEXT = re.compile(r"[\x00-\x08\x0e-\x1f\x7f]")
# NIST SPHERE, in which old collections of speech are kept, begins with 1024 bytes of text.
_SPHERE = b"NIST_1A\n"

_SPACE = b" \t\n\r\f\v"
_ALPHABET = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
_TO_STANDARD = bytes.maketrans(b"-_", b"+/")  # from the alphabet for URLs
_LETTERS_IN_GROUP = 4  # they stand for three bytes
# What no base64 holds: a foreign character, or anything after the padding.
_FOREIGN = re.compile(r"[^A-Za-z0-9+/_\-= \t\n\r\f\v]|=(?=[= \t\n\r\f\v]*[^= \t\n\r\f\v])")
_NO_PADDING = re.compile(r"[^= \t\n\r\f\v]")
_DATA_URL = re.compile(r"\s*data:(?:([^,]{0,1000}),)?", re.IGNORECASE)
_DATA_ENCODING = ";base64"


@asynccontextmanager
async def fetched(
    url: str,
    *,
    settings: Settings,
    open_session: Callable[..., ClientSession] = make_session,
) -> AsyncIterator[Recording]:
    """Download a recording, and remove it afterwards.

    `open_session` takes what `make_session` must be told. Raises ApiError for what cannot or may
    not be had, and OSError where the disk is full.
    """
    target = check_url(url, field=_URL_FIELD)
    async with _temporary_file() as file:
        try:
            async with (
                asyncio.timeout(settings.url_seconds),
                open_session(allow_private=settings.allow_private_urls) as session,
            ):
                raw = await _download(session, target, file, settings)
        except aiohttp.ServerTimeoutError:
            silence = f"sent nothing for {settings.request_timeout_seconds:g} s"
            raise _url_error(f"{shown_host(target)} {silence}", "url_timeout") from None
        except TimeoutError:
            slow = f"the download took longer than {settings.url_seconds:g} s (URL_SECONDS)"
            raise _url_error(slow, "url_timeout") from None
        except (aiohttp.ClientError, UnicodeError) as error:
            # Without its cause, which may hold the URL, and so a password or a signature.
            raise _failure(error, target) from None
        await asyncio.to_thread(file.seek, 0)
        yield Recording(file, raw)


@asynccontextmanager
async def decoded(text: str, *, bytes_max: int) -> AsyncIterator[Recording]:
    """Decode base64, of either alphabet, or a data: URL; the file is removed afterwards.

    Raises ApiError for what is neither or too large, and OSError where the disk is full.
    """
    async with _temporary_file() as file:
        raw = await asyncio.to_thread(_decode, text, file, bytes_max)
        yield Recording(file, raw)


@asynccontextmanager
async def _temporary_file() -> AsyncIterator[BinaryIO]:
    # The outer close counts where this task is cancelled while the inner one waits for a thread.
    with tempfile.TemporaryFile() as file:
        try:
            yield file
        finally:
            # In a thread: to give back half a gigabyte of disk takes the kernel a while.
            await asyncio.to_thread(file.close)


async def _download(
    session: ClientSession, target: URL, file: BinaryIO, settings: Settings
) -> RawAudio | None:
    silence_seconds = settings.request_timeout_seconds
    async with session.get(
        target,
        headers={"Accept-Encoding": "identity"},
        # Credentials in the URL are for its host: aiohttp drops them on the way to another.
        allow_redirects=True,
        max_redirects=REDIRECTS_MAX + 1,  # aiohttp counts the answers, not the steps
        timeout=ClientTimeout(total=None, sock_connect=silence_seconds, sock_read=silence_seconds),
        read_bufsize=_PIECE_BYTES,
        auto_decompress=False,  # aiohttp's does not notice when half of it is missing
    ) as response:
        if response.status != _OK:
            answer = f"{shown_host(response.url)} answered with status {response.status}"
            raise _url_error(answer, "url_failed")
        if (response.content_length or 0) > settings.max_upload:
            raise _too_large(_URL_FIELD, settings.max_upload)
        try:
            raw = raw_audio(response.headers.get("Content-Type", ""), response.url.name)
        except ApiError as error:
            raise named(error, _URL_FIELD) from error
        if not _is_packed(response):
            await _receive(response, file, settings.max_upload, check=_refuse_page)
            return raw
        async with _temporary_file() as archive:
            await _receive(response, archive, settings.max_upload, check=lambda _: None)
            await asyncio.to_thread(_unpack, archive, file, settings.max_upload)
        return raw


def _is_packed(response: ClientResponse) -> bool:
    """Tell whether the body is compressed, as some servers keep their files."""
    encoding = response.headers.get("Content-Encoding", "").strip().lower()
    if encoding in {"", "identity"}:
        return False
    if encoding in {"gzip", "x-gzip"}:
        return True
    told = f"{shown_host(response.url)} sent the file compressed as {encoding[:20]!r}, unasked"
    raise _url_error(told, "url_failed")


async def _receive(
    response: ClientResponse, file: BinaryIO, bytes_max: int, *, check: Callable[[bytes], None]
) -> None:
    """Write the body into the file; `check` is given how it begins, and may raise."""
    try:
        piece = await response.content.readexactly(_HEAD_BYTES)
    except asyncio.IncompleteReadError as end:
        piece = end.partial
    check(piece)
    received_bytes = 0
    while piece:
        received_bytes += len(piece)
        if received_bytes > bytes_max:
            raise _too_large(_URL_FIELD, bytes_max)
        await asyncio.to_thread(file.write, piece)
        piece = await response.content.read(_PIECE_BYTES)


def _unpack(archive: BinaryIO, file: BinaryIO, bytes_max: int) -> None:
    """Write what a gzip archive holds into the file: never more than a piece too much."""
    archive.seek(0)
    try:
        with gzip.open(archive) as inside:
            while piece := inside.read(_PIECE_BYTES):
                file.write(piece)
                if file.tell() > bytes_max:
                    raise _too_large(_URL_FIELD, bytes_max)
    except (EOFError, gzip.BadGzipFile, zlib.error):
        raise _url_error("the file was sent compressed, and is damaged", "url_failed") from None
    file.seek(0)
    _refuse_page(file.read(_HEAD_BYTES))


def _failure(error: aiohttp.ClientError | UnicodeError, target: URL) -> InvalidRequest:
    """Give what a client is told when no answer came, or only a part of one."""
    host = shown_host(target)
    if isinstance(error, aiohttp.ClientConnectorError) and error.host != target.raw_host:
        host = repr(error.host[:HOST_SHOWN_CHARACTERS_MAX])  # a redirect has led there
    if is_refusal(error):
        refusal = (
            f"{host} has no public address; private addresses are refused; "
            "the operator can set ALLOW_PRIVATE_URLS=1"
        )
        return _url_error(refusal, "url_refused")
    match error:
        case aiohttp.NonHttpUrlRedirectClientError():
            return _url_error(f"{host} redirects to what is neither http nor https", "url_refused")
        case aiohttp.InvalidUrlRedirectClientError():
            return _url_error(f"{host} redirects to what is no URL", "url_failed")
        case UnicodeError():  # Python's own encoding of names refuses some that yarl takes
            return _url_error(f"{host} redirects to what is no host", "url_failed")
        case aiohttp.InvalidURL():
            return _url_error(f"{host} is no host", "invalid_url")
        case aiohttp.TooManyRedirects():
            return _url_error(f"{host} redirects more than {REDIRECTS_MAX} times", "url_failed")
        case aiohttp.ClientConnectorDNSError():
            return _url_error(f"{host} is not known", "url_failed")
        case aiohttp.ClientConnectorCertificateError():
            return _url_error(f"{host} has no valid certificate", "url_failed")
        case aiohttp.ClientConnectorError():
            return _url_error(f"{host} cannot be reached", "url_failed")
    return _url_error(f"the download from {host} broke off", "url_failed")


def _decode(text: str, file: BinaryIO, bytes_max: int) -> RawAudio | None:
    start, raw = 0, None
    header = _DATA_URL.match(text)
    if header:
        start, raw = header.end(), _raw_of_data_url(header[1])
    if (len(text) - start) * 3 // 4 > bytes_max:
        letters = sum(len(each.rstrip(b"=")) for _, each in _letters(text, start))
        if letters * 3 // 4 > bytes_max:
            raise _too_large(_TEXT_FIELD, bytes_max)
    _write_decoded(text, start, file)
    if not file.tell():
        raise _not_base64("is empty")
    file.seek(0)
    _refuse_other(file.read(_HEAD_BYTES), _TEXT_FIELD)
    file.seek(0)
    return raw


def _raw_of_data_url(header: str | None) -> RawAudio | None:
    described = (header or "").rstrip()
    if not described.lower().endswith(_DATA_ENCODING):
        raise _not_base64("of data: URLs only those with ;base64, are taken")
    try:
        return raw_audio(described[: -len(_DATA_ENCODING)], "")
    except ApiError as error:
        raise named(error, _TEXT_FIELD) from error


def _write_decoded(text: str, start: int, file: BinaryIO) -> None:
    rest = b""
    ended = False
    for position, letters in _letters(text, start):
        body, padding, after = letters.partition(b"=")
        if (ended and body) or after.strip(b"=") or body.translate(None, _ALPHABET):
            found = (_NO_PADDING if ended else _FOREIGN).search(text, position)
            assert found, position
            raise _foreign(text, found.start())
        ended = ended or bool(padding)
        rest += body
        whole = len(rest) // _LETTERS_IN_GROUP * _LETTERS_IN_GROUP
        file.write(binascii.a2b_base64(rest[:whole]))
        rest = rest[whole:]
    if len(rest) == 1:
        raise _not_base64("is not base64: it breaks off")
    file.write(binascii.a2b_base64(rest + b"=" * (-len(rest) % _LETTERS_IN_GROUP)))


def _letters(text: str, start: int) -> Iterator[tuple[int, bytes]]:
    """Give the text in slices, without its spaces and in the standard alphabet.

    Beside each stands where in the text it begins.
    """
    for position in range(start, len(text), _SLICE_CHARACTERS):
        try:
            written = text[position : position + _SLICE_CHARACTERS].encode("ascii")
        except UnicodeEncodeError as error:
            raise _foreign(text, position + error.start) from None
        yield position, written.translate(_TO_STANDARD, _SPACE)


def _refuse_other(head: bytes, field: str) -> None:
    """Raise UnsupportedMediaType for a page or a document; what audio it is, the decoder tells."""
    if not head:
        raise InvalidRequest(f"{field}: is empty", param=field, code="invalid_audio")
    other = _other_than_audio(head)
    if other:
        raise UnsupportedMediaType(
            f"{field}: is not audio but {other}", param=field, code="not_audio"
        )


def _refuse_page(head: bytes) -> None:
    _refuse_other(head, _URL_FIELD)


def _other_than_audio(head: bytes) -> str | None:
    """Tell what begins so; None for what may be audio. Content types are not to be trusted."""
    for beginning, name in _OTHER_FILES:
        if head.startswith(beginning):
            return name
    text = head.removeprefix(_BYTE_ORDER_MARK).lstrip()
    if _HTML.match(text):
        return "an HTML page"
    if head.startswith(_SPHERE) or not _is_text(head):
        return None
    if text.startswith(b"<"):
        return "an HTML page" if _HTML.search(text) else "XML"
    return "JSON" if text.startswith((b"{", b"[")) else "text"


def _is_text(head: bytes) -> bool:
    try:
        # Not its end: a character may be cut in two.
        text = codecs.getincrementaldecoder("utf-8")().decode(head)
    except UnicodeDecodeError:
        return False
    return not _NOT_IN_TEXT.search(text)


def _foreign(text: str, position: int) -> InvalidRequest:
    return _not_base64(f"is not base64: character {position + 1} is {text[position]!r}")


def _not_base64(problem: str) -> InvalidRequest:
    return InvalidRequest(f"{_TEXT_FIELD}: {problem}", param=_TEXT_FIELD, code="invalid_base64")


def _url_error(problem: str, code: str) -> InvalidRequest:
    # 400 whatever the reason: to send the same again would mean another long download.
    return InvalidRequest(f"{_URL_FIELD}: {problem}", param=_URL_FIELD, code=code)


def _too_large(field: str, bytes_max: int) -> UploadTooLarge:
    return UploadTooLarge(
        f"{field}: is larger than the {bytes_max} bytes that are allowed (MAX_UPLOAD)",
        param=field,
        code="upload_too_large",
    )
