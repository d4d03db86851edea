"""A recording comes by URL or as base64: whole, within its limits, or not at all."""

import asyncio
import base64
import functools
import gzip
import io
import os
import random
import shutil
import socket
import ssl
import struct
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from services.transcription.audio import RawAudio, decode_audio
from services.transcription.errors import (
    ApiError,
    InvalidRequest,
    UnsupportedMediaType,
    UploadTooLarge,
)
from services.voxtral.addresses import make_session
from services.voxtral.settings import Settings
from services.voxtral.sources import decoded, fetched
from tests.services.sites import (
    INSIDE,
    OUTSIDE,
    Answer,
    Names,
    is_outside,
    redirect,
    response,
    run_site,
    unmeasured,
)
from tests.services.sounds import RECORDING, encode, recording_samples

BYTES_MAX = 300_000
SETTINGS = Settings(
    allow_private_urls=True, max_upload=BYTES_MAX, url_seconds=20.0, request_timeout_seconds=10.0
)
GUARDED = SETTINGS.model_copy(update={"allow_private_urls": False})
NOISE = random.Random(6).randbytes(BYTES_MAX + 1)


Got = tuple[bytes, RawAudio | None]


def held_files() -> int:
    """Count the temporary files of this process, which have no names."""
    return sum("(deleted)" in target for target in descriptors())


def descriptors() -> list[str]:
    """Give what this process holds open, sockets included."""
    targets = []
    for descriptor in Path("/proc/self/fd").iterdir():
        try:
            targets.append(str(descriptor.readlink()))
        except FileNotFoundError:  # the one that lists the others
            continue
    return targets


@pytest.fixture(autouse=True)
async def nothing_left() -> AsyncIterator[None]:
    """After each test, however it went, this process holds nothing that it did not before."""
    before = set(descriptors())
    yield
    for _ in range(200):  # what was closed last is let go of by the event loop
        if not set(descriptors()) - before:
            break
        await asyncio.sleep(0.01)

    assert set(descriptors()) - before == set()


async def fetch(
    url: str, settings: Settings = SETTINGS, **options
) -> tuple[bytes, RawAudio | None]:
    async with fetched(url, settings=settings, **options) as recording:
        return recording.file.read(), recording.raw


async def fetch_from(answers: dict[str, Answer], settings: Settings = SETTINGS):
    """Fetch the path / of such a site."""
    async with run_site(answers) as site:
        return await fetch(f"http://{INSIDE}:{site.port}/", settings)


async def refusal_of(answer: Answer, settings: Settings = SETTINGS) -> ApiError:
    with pytest.raises(ApiError) as raised:
        await fetch_from({"/": answer}, settings)
    assert raised.value.param == "audio_url"
    assert raised.value.message.startswith("audio_url: ")
    return raised.value


def sending(*pieces: bytes, then: str = "stay"):
    """An answer that is sent piece by piece, and then stays away, or breaks off."""

    async def send(writer: asyncio.StreamWriter) -> None:
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
        if then == "reset":
            # With no time to linger, a close is a reset.
            connection = writer.get_extra_info("socket")
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()

    return send


def endless(head: bytes, piece: bytes):
    """An answer that is sent until the client has had enough."""

    async def send(writer: asyncio.StreamWriter) -> None:
        writer.write(head)
        while not writer.is_closing():
            writer.write(piece)
            await writer.drain()

    return send


async def test_a_recording_arrives_whole():
    """It can be decoded, and looked for from its end, as an m4a needs."""
    async with run_site({"/a.wav": response(RECORDING)}) as site:
        async with fetched(f"http://{INSIDE}:{site.port}/a.wav", settings=SETTINGS) as recording:
            samples = decode_audio(recording, seconds_max=60, check=lambda: None)

            assert samples.tobytes() == recording_samples().tobytes()
            assert recording.file.seek(0, io.SEEK_END) == len(RECORDING)

    assert site.requests[0].startswith("GET /a.wav HTTP/1.1\r\n")
    assert "accept-encoding: identity\r\n" in site.requests[0].lower()


@pytest.mark.parametrize("container", ["mp3", "flac", "ogg", "adts", "aiff"])
async def test_any_container_is_taken(container):
    """What it is, is the decoder's to tell."""
    codecs = {"mp3": "libmp3lame", "ogg": "libopus", "adts": "aac", "aiff": "pcm_s16be"}
    codec = codecs.get(container, "flac")
    rate = 48_000 if codec == "libopus" else 16_000
    body = encode(recording_samples()[:16_000], container, codec, rate=rate)

    assert await fetch_from({"/": response(body)}) == (body, None)


async def test_a_file_is_on_disk_without_a_name_while_it_is_used():
    """So a crash leaves nothing behind."""
    before = held_files()
    async with run_site({"/": response(NOISE[:1000])}) as site:
        async with fetched(f"http://{INSIDE}:{site.port}/", settings=SETTINGS):
            assert held_files() == before + 1
        assert held_files() == before


async def test_the_connection_is_closed_before_the_recording_is_used():
    """Transcribing takes minutes, and the server has others to serve."""
    async with run_site({"/": sending(response(NOISE[:1000], Connection="keep-alive"))}) as site:
        async with fetched(f"http://{INSIDE}:{site.port}/", settings=SETTINGS):
            async with asyncio.timeout(5):
                await site.left.wait()


async def test_a_failure_while_the_file_is_in_use_removes_it():
    """Whatever happens in the block, the file ends with it."""
    before = held_files()
    async with run_site({"/": response(NOISE[:1000])}) as site:
        with pytest.raises(ZeroDivisionError):
            async with fetched(f"http://{INSIDE}:{site.port}/", settings=SETTINGS):
                _ = 1 / 0

    assert held_files() == before


def chunked(body: bytes, *, end: bytes = b"0\r\n\r\n") -> bytes:
    head = unmeasured(Transfer_Encoding="chunked")
    return head + b"%x\r\n" % len(body) + body + b"\r\n" + end


@pytest.mark.parametrize("write", [response, chunked, unmeasured])
async def test_a_file_of_just_the_limit_is_taken_and_one_byte_more_is_not(write):
    """Whether its length was told or not."""
    assert await fetch_from({"/": write(NOISE[:BYTES_MAX])}) == (NOISE[:BYTES_MAX], None)

    error = await refusal_of(write(NOISE))
    assert isinstance(error, UploadTooLarge)
    assert error.message == (
        "audio_url: is larger than the 300000 bytes that are allowed (MAX_UPLOAD)"
    )


async def test_a_length_beyond_the_limit_is_refused_before_the_body():
    """Not a byte of it has to come."""
    answer = sending(response(Content_Length=str(BYTES_MAX + 1)))

    assert isinstance(await refusal_of(answer), UploadTooLarge)


@pytest.mark.parametrize(
    "answer",
    [
        endless(unmeasured(), NOISE[:50_000]),
        endless(unmeasured(Transfer_Encoding="chunked"), b"c350\r\n" + NOISE[:50_000] + b"\r\n"),
    ],
)
async def test_an_endless_body_is_refused_at_the_limit(answer):
    """The server is not listened to any longer."""
    assert isinstance(await refusal_of(answer), UploadTooLarge)


@pytest.mark.parametrize("length", ["50001", "-1", "many", "0x10", "50000, 3", "9" * 30, " "])
async def test_a_length_that_is_a_lie_gives_no_half_recording(length):
    """More was promised, or nonsense."""
    error = await refusal_of(response(NOISE[:50_000], Content_Length=length))

    assert (error.status, error.code) in {(400, "url_failed"), (413, "upload_too_large")}


@pytest.mark.parametrize("then", ["close", "reset"])
@pytest.mark.parametrize(
    "begun",
    [
        response(NOISE[:50_000], Content_Length="50001"),
        chunked(NOISE[:50_000], end=b""),
        chunked(NOISE[:50_000], end=b"5\r\nab"),
        chunked(NOISE[:50_000], end=b"no length\r\n"),
        b"",
        b"HTTP/1.1 200",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"HTTP/1.1 200 OK\r\nno header\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nA: " + b"a" * 100_000,
    ],
)
async def test_an_answer_that_breaks_off_is_refused(begun, then):
    """No part of a recording is transcribed as if it were all of it."""
    error = await refusal_of(begun if then == "close" else sending(begun, then="reset"))

    assert (error.status, error.code) == (400, "url_failed")
    assert error.message == f"audio_url: the download from '{INSIDE}' broke off"


def compressed(body: bytes, encoding: str = "gzip") -> bytes:
    return response(gzip.compress(body, mtime=0), Content_Encoding=encoding)


PACKED = gzip.compress(NOISE[:50_000], mtime=0)


async def test_a_compressed_answer_is_taken_though_none_was_asked_for():
    """Some servers keep their files compressed; the recording is what was inside."""
    assert await fetch_from({"/": compressed(NOISE[:50_000])}) == (NOISE[:50_000], None)
    twice = response(PACKED + PACKED, Content_Encoding="X-GZIP")
    assert await fetch_from({"/": twice}) == (NOISE[:50_000] * 2, None)


async def test_what_counts_is_the_size_once_uncompressed():
    """A few kilobytes may be gigabytes inside: they are not written down."""
    assert await fetch_from({"/": compressed(bytes(BYTES_MAX))}) == (bytes(BYTES_MAX), None)
    bomb = compressed(bytes(100_000_000))
    assert len(bomb) < BYTES_MAX

    assert isinstance(await refusal_of(bomb), UploadTooLarge)


@pytest.mark.parametrize("encoding", ["br", "zstd", "deflate", "gzip, gzip", "\xe9" * 50])
async def test_another_compression_is_refused(encoding):
    """It was not asked for, and what cannot be read is named."""
    error = await refusal_of(compressed(NOISE[:5000], encoding))

    assert error.code == "url_failed"
    assert f"compressed as {encoding[:20]!r}" in error.message


async def test_a_page_is_refused_though_compressed():
    """By what is inside, not by what is around it."""
    error = await refusal_of(compressed(HTML))

    assert error.message == "audio_url: is not audio but an HTML page"
    assert (await refusal_of(compressed(b""))).message == "audio_url: is empty"


@pytest.mark.parametrize(
    "body",
    [
        PACKED[:-2000],
        PACKED[:-4],
        PACKED[:5],
        PACKED + b"more",
        PACKED[:-8] + bytes(8),
        PACKED[:1000] + bytes(10) + PACKED[1010:],
        PACKED[:10] + b"\xff" * 100,
        NOISE[:5000],
    ],
)
async def test_a_compressed_answer_that_is_damaged_is_refused(body):
    """Its length was as told, but what is inside is not whole."""
    error = await refusal_of(response(body, Content_Encoding="gzip"))

    assert (error.status, error.code) == (400, "url_failed")


@pytest.mark.parametrize("status", [201, 204, 206, 300, 304, 401, 403, 404, 410, 429, 500, 503])
async def test_another_status_is_named(status):
    """It is what the client can do something about."""
    error = await refusal_of(response(status=status))

    assert (error.status, error.code) == (400, "url_failed")
    assert error.message == f"audio_url: '{INSIDE}' answered with status {status}"


HTML = b"<html><head><title>Sign in</title></head></html>"


@pytest.mark.parametrize(
    ("body", "what"),
    [
        (b"<!DOCTYPE html>" + HTML, "an HTML page"),
        (b"\xef\xbb\xbf\r\n  <!doctype HTML>\n" + HTML, "an HTML page"),
        (HTML, "an HTML page"),
        (HTML + b"\xff\x00" * 5000, "an HTML page"),
        (b"<!-- page -->\n" + HTML, "an HTML page"),
        (b'<?xml version="1.0"?><html xmlns="...">', "an HTML page"),
        (b'<?xml version="1.0"?>\n<Error><Code>AccessDenied</Code></Error>', "XML"),
        (b"<Error/>", "XML"),
        (b'{"error": "expired"}', "JSON"),
        (b'[{"error": "expired"}]', "JSON"),
        (b"not found\n", "text"),
        ("é".encode() * 5000, "text"),
        (b"#EXTM3U\n#EXT-X-VERSION:3\n", "text"),
        (b"ffconcat version 1.0\nfile /etc/passwd\n", "text"),
        (b"%PDF-1.7\n%\xe2\xe3\xcf\xd3", "a PDF file"),
        (b"PK\x03\x04" + bytes(100), "a ZIP archive"),
        (gzip.compress(b"x"), "a gzip archive"),
        (b"\x89PNG\r\n\x1a\n" + bytes(100), "an image"),
        (b"\xff\xd8\xff\xe0\x00\x10JFIF", "an image"),
        (b"GIF89a" + bytes(100), "an image"),
    ],
)
async def test_what_is_no_audio_is_refused_by_its_first_bytes(body, what):
    """A login page comes with status 200, and with whatever content type."""
    error = await refusal_of(response(body, Content_Type="audio/mpeg"))

    assert isinstance(error, UnsupportedMediaType)
    assert error.message == f"audio_url: is not audio but {what}"


async def test_a_beginning_that_comes_in_pieces_is_judged_as_a_whole():
    """Two letters of a recording look like text."""

    async def send(writer: asyncio.StreamWriter) -> None:
        writer.write(unmeasured() + RECORDING[:2])
        await writer.drain()
        for _ in range(100):  # the client runs in this event loop, too
            await asyncio.sleep(0)
        writer.write(RECORDING[2:])
        writer.write_eof()

    assert await fetch_from({"/": send}) == (RECORDING, None)


async def test_a_page_is_refused_before_it_has_ended():
    """However long it is."""
    error = await refusal_of(sending(unmeasured(HTML + b" " * 1000)))

    assert isinstance(error, UnsupportedMediaType)


async def test_an_empty_answer_is_refused():
    """Nothing is to be transcribed."""
    assert (await refusal_of(response())).message == "audio_url: is empty"


@pytest.mark.parametrize(
    "body",
    [
        b"RIFF",
        b"\0",
        b"NIST_1A\n   1024\n" + b"sample_rate -i 16000\n" + b" " * 1000 + NOISE[:1000],
        b"#!AMR\n" + NOISE[:100],
        b"OggS\0" + b"a" * 600,
        b"\x1a\x45\xdf\xa3" + b"a" * 600,
        NOISE[:511],
        NOISE[:512],
        NOISE[:513],
    ],
)
async def test_what_may_be_audio_is_left_to_the_decoder(body):
    """Even where it begins as text does, or is too short to be told."""
    if body == b"RIFF":
        body += NOISE[:4]

    assert await fetch_from({"/": response(body, Content_Type="text/html")}) == (body, None)


async def test_the_content_type_tells_what_samples_without_a_header_are():
    """Nothing else could."""
    samples = recording_samples().tobytes()[:1000]
    answers = {
        "/typed": response(samples, Content_Type="audio/l16; rate=8000; channels=2"),
        "/named.pcm": response(samples, Content_Type="application/octet-stream"),
        "/other.pcm": response(samples, Content_Type="audio/wav"),
        "/wrong": response(samples, Content_Type="audio/pcm; rate=3"),
        "/odd": response(samples, Content_Type="\xe9\xff;;=;rate*=''%zz"),
    }
    async with run_site(answers) as site:
        base = f"http://{INSIDE}:{site.port}"
        assert await fetch(base + "/typed") == (samples, RawAudio("s16be", rate=8000, channels=2))
        assert await fetch(base + "/named.pcm") == (samples, RawAudio("s16le"))
        assert await fetch(base + "/other.pcm") == (samples, None)
        assert await fetch(base + "/odd") == (samples, None)
        with pytest.raises(InvalidRequest, match=r"^audio_url: rate=3 of its content type"):
            await fetch(base + "/wrong")


def chain(steps: int) -> dict[str, Answer]:
    """Redirects, one after the other, to a recording."""
    answers: dict[str, Answer] = {f"/{step}": redirect(f"/{step + 1}") for step in range(1, steps)}
    answers["/"] = redirect("/1")
    answers[f"/{steps}"] = response(RECORDING)
    return answers


async def test_five_redirects_are_followed_and_six_are_not():
    """Storage redirects once or twice; who redirects more goes round in circles."""
    assert (await fetch_from(chain(5)))[0] == RECORDING

    with pytest.raises(InvalidRequest, match="redirects more than 5 times") as raised:
        await fetch_from(chain(6))
    assert raised.value.code == "url_failed"
    with pytest.raises(InvalidRequest, match="redirects more than 5 times"):
        await fetch_from({"/": redirect("/")})


@pytest.mark.parametrize(
    ("location", "code", "problem"),
    [
        ("file:///etc/passwd", "url_refused", "neither http nor https"),
        ("ftp://files.example.com/", "url_refused", "neither http nor https"),
        ("gopher://127.0.0.1:6379/_INFO", "url_refused", "neither http nor https"),
        ("data:audio/wav;base64,UklGRg==", "url_refused", "neither http nor https"),
        ("ws://127.0.0.1/", "url_refused", "neither http nor https"),
        ("http://", "url_failed", "no URL"),
        ("http://[::1", "url_failed", "no URL"),
        ("http://h:99999/", "url_failed", "no URL"),
        ("http://a b/", "url_failed", "'a b' is not known"),
        ("http://" + "a" * 64 + ".example/", "url_failed", "no host"),
        ("http://a..example/", "url_failed", "no host"),
        ("http://a%00b/", "url_failed", "is not known"),
        ("http://\xff\xfe/", "url_failed", "is not known|no URL"),
    ],
)
async def test_a_redirect_to_nowhere_is_refused(location, code, problem):
    """A server can write anything there."""
    error = await refusal_of(redirect(location))

    assert (error.status, error.code) == (400, code)
    assert problem.split("|")[0] in error.message or problem.split("|")[-1] in error.message


async def test_a_redirect_without_a_target_is_a_status():
    """There is nowhere to go."""
    assert "status 302" in (await refusal_of(response(status=302))).message


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "0x7f.1", "user:password@127.0.0.1", "[::ffff:127.0.0.1]"]
)
async def test_a_private_address_is_refused_unless_the_operator_allows_it(host):
    """The message says what the operator can do, and nothing of what is there."""
    async with run_site({"/": response(RECORDING)}) as site:
        messages = []
        for port in (site.port, 9):  # one that is open, and one that is not
            with pytest.raises(InvalidRequest) as raised:
                await fetch(f"http://{host}:{port}/", GUARDED)
            assert (raised.value.code, raised.value.param) == ("url_refused", "audio_url")
            messages.append(raised.value.message)

        assert messages[0] == messages[1]
        assert messages[0].endswith(
            " has no public address; private addresses are refused; "
            "the operator can set ALLOW_PRIVATE_URLS=1"
        )
        assert "password" not in messages[0]
        assert await site.settle() == 0
        if "ffff" not in host:
            assert (await fetch(f"http://{host}:{site.port}/"))[0] == RECORDING


async def test_a_redirect_inside_is_refused_and_names_where_it_led():
    """Without it, nobody would understand the refusal of a public host."""
    async with run_site({"/": response(RECORDING)}) as inside:
        answers = {"/": redirect(f"http://localhost:{inside.port}/")}
        async with run_site(answers, host=OUTSIDE) as outside:
            with pytest.raises(InvalidRequest, match="'localhost' has no public address"):
                await fetch(f"http://{OUTSIDE}:{outside.port}/", GUARDED, open_session=outside_only)

        assert await inside.settle() == 0


async def test_a_public_address_is_reached_without_leave():
    """The check lets through what it should."""
    async with run_site({"/": response(RECORDING)}, host=OUTSIDE) as site:
        url = f"http://{OUTSIDE}:{site.port}/"

        assert (await fetch(url, GUARDED, open_session=outside_only))[0] == RECORDING


outside_only = functools.partial(make_session, may_reach=is_outside)


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("ftp://files.example.com/a.wav", "only http and https"),
        ("file:///etc/passwd", "only http and https"),
        ("data:audio/wav;base64,UklGRg==", "only http and https"),
        ("a.wav", "only http and https"),
        ("http://", "names no host"),
        ("http://a b/", "is no host"),
        ("http://a\r\nHost: b/", "control character"),
        ("http://127.0.0.0.1/", "is no host"),
        ("http://127.256.0.1/", "is no host"),
    ],
)
async def test_what_is_no_url_is_refused(url, problem):
    """Before anything is asked of anybody."""
    with pytest.raises(InvalidRequest, match=problem) as raised:
        await fetch(url)

    assert (raised.value.param, raised.value.code) == ("audio_url", "invalid_url")


async def test_a_host_that_is_not_there_is_refused():
    """Unknown, or not listening."""
    open_session = functools.partial(make_session, resolver=Names())
    with pytest.raises(InvalidRequest, match=r"'files\.example' is not known") as raised:
        await fetch("http://files.example/", open_session=open_session)
    assert raised.value.code == "url_failed"

    with socket.create_server((INSIDE, 0)) as free:
        port = free.getsockname()[1]
    with pytest.raises(InvalidRequest, match=f"'{INSIDE}' cannot be reached") as raised:
        await fetch(f"http://{INSIDE}:{port}/")
    assert raised.value.code == "url_failed"


@pytest.mark.skipif(not shutil.which("openssl"), reason="openssl, which makes certificates")
async def test_a_server_without_a_valid_certificate_is_refused(tmp_path):
    """Nor is it spoken to in the clear."""
    context = self_signed(tmp_path)

    async def accept(_reader, writer) -> None:
        writer.close()

    server = await asyncio.start_server(accept, INSIDE, 0, ssl=context)
    port = server.sockets[0].getsockname()[1]
    with pytest.raises(InvalidRequest, match=f"'{INSIDE}' has no valid certificate") as raised:
        await fetch(f"https://{INSIDE}:{port}/")
    server.close()
    await server.wait_closed()
    assert raised.value.code == "url_failed"


async def test_what_speaks_no_tls_is_refused():
    """http where https was meant."""

    async def answer(_reader, writer) -> None:
        writer.write(response(RECORDING))
        writer.close()

    server = await asyncio.start_server(answer, INSIDE, 0)
    port = server.sockets[0].getsockname()[1]
    with pytest.raises(InvalidRequest, match=f"'{INSIDE}' cannot be reached"):
        await fetch(f"https://{INSIDE}:{port}/")
    server.close()
    await server.wait_closed()


def self_signed(folder: Path) -> ssl.SSLContext:
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    subject = ["-subj", "/CN=files.example", "-days", "1"]
    files = ["-keyout", str(key), "-out", str(certificate)]
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", *subject, *files]
    subprocess.run(command, check=True, capture_output=True)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    return context


@pytest.mark.parametrize(
    "begun", [b"", b"HTTP/1.1 200 OK\r\n", response(NOISE[:1000], Content_Length="5000")]
)
async def test_a_silent_server_is_refused(begun):
    """Wherever in its answer it falls silent."""
    impatient = SETTINGS.model_copy(update={"request_timeout_seconds": 0.1})
    error = await refusal_of(sending(begun), impatient)

    assert (error.status, error.code) == (400, "url_timeout")
    assert error.message == f"audio_url: '{INSIDE}' sent nothing for 0.1 s"


async def test_a_slow_server_is_refused():
    """It sends a byte now and then, but a job cannot wait for ever."""

    async def trickle(writer: asyncio.StreamWriter) -> None:
        writer.write(response(Content_Length="5000"))
        while not writer.is_closing():
            writer.write(b"\0")
            await writer.drain()
            await asyncio.sleep(0.01)

    error = await refusal_of(trickle, SETTINGS.model_copy(update={"url_seconds": 0.2}))

    assert (error.status, error.code) == (400, "url_timeout")
    assert error.message == "audio_url: the download took longer than 0.2 s (URL_SECONDS)"


async def test_a_slow_name_server_is_refused():
    """The limit is for all of it."""

    class Slow(Names):
        async def resolve(self, host, port=0, family=socket.AF_INET):
            await asyncio.Event().wait()

    brief = SETTINGS.model_copy(update={"url_seconds": 0.1})
    open_session = functools.partial(make_session, resolver=Slow())
    with pytest.raises(InvalidRequest, match=r"took longer than 0\.1 s"):
        await fetch("http://a.example/", brief, open_session=open_session)


@pytest.mark.parametrize("begun", [b"", response(NOISE[:200_000], Content_Length="200001")])
async def test_a_download_that_is_cancelled_is_over(begun):
    """The connection and the file are closed."""
    before = held_files()
    async with run_site({"/": sending(begun)}) as site:
        task = asyncio.ensure_future(fetch(f"http://{INSIDE}:{site.port}/"))
        async with asyncio.timeout(5):
            while not site.requests:
                await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        async with asyncio.timeout(5):
            await site.left.wait()

    assert held_files() == before


async def test_no_password_is_told_or_logged(caplog):
    """Of whatever went wrong with a URL that held one."""
    caplog.set_level("DEBUG")
    answers = {
        "/404": response(status=404),
        "/page": response(HTML),
        "/cut": response(b"\0", Content_Length="5"),
        "/round": redirect("/signed?signature=hunter2"),
        "/signed?signature=hunter2": redirect("/signed?signature=hunter2"),
        "/ftp": redirect("ftp://user:hunter2@h/"),
        "/bad": redirect("http://user:hunter2@h:x/"),
    }
    async with run_site(answers) as site:
        urls = [f"http://user:hunter2@{INSIDE}:{site.port}{path}" for path in list(answers)]
        urls += ["http://user:hunter2@h..example/", "http://user:hunter2@127.1/"]
        for url in urls:
            with pytest.raises(ApiError) as raised:
                await fetch(url)
            error = raised.value
            assert "hunter2" not in error.message
            assert error.__cause__ is None
            assert error.__context__ is None or error.__suppress_context__

    assert "hunter2" not in caplog.text


async def decode(text: str, bytes_max: int = BYTES_MAX) -> tuple[bytes, RawAudio | None]:
    async with decoded(text, bytes_max=bytes_max) as recording:
        return recording.file.read(), recording.raw


def lined(text: str, end: str) -> str:
    return end.join(text[start : start + 76] for start in range(0, len(text), 76)) + end


NOISE_TEXT = base64.b64encode(NOISE[:100_000]).decode()


@pytest.mark.parametrize(
    "text",
    [
        NOISE_TEXT,
        NOISE_TEXT.rstrip("="),
        base64.urlsafe_b64encode(NOISE[:100_000]).decode(),
        base64.urlsafe_b64encode(NOISE[:100_000]).decode().rstrip("="),
        lined(NOISE_TEXT, "\n"),
        lined(NOISE_TEXT, "\r\n"),
        "\n \t" + NOISE_TEXT[:-1] + " " + NOISE_TEXT[-1] + "\n\n",
        " ".join(NOISE_TEXT),
        "data:audio/wav;base64," + NOISE_TEXT,
        " DATA:audio/wav;BASE64,\n" + NOISE_TEXT,
        "data:;base64," + NOISE_TEXT,
        "data:application/octet-stream;base64," + NOISE_TEXT,
        "data:audio/webm;codecs=opus;base64," + NOISE_TEXT,
        'data:audio/webm;codecs="opus";name=a%20b.webm ;base64 ,' + NOISE_TEXT,
    ],
)
async def test_base64_is_taken_in_every_spelling(text):
    """Standard or for URLs, padded or not, in lines or not, in a data: URL or not."""
    assert await decode(text) == (NOISE[:100_000], None)


async def test_a_slice_may_end_anywhere():
    """Long texts are decoded slice by slice, whatever stands at the seams."""
    body = NOISE[:1] + random.Random(1).randbytes(2_500_000)
    text = base64.b64encode(body).decode()
    for spaces in range(4):
        assert (await decode(" " * spaces + text, 3_000_000))[0] == body
    assert (await decode(lined(text, "\r\n"), 3_000_000))[0] == body


@pytest.mark.parametrize("length", range(2, 12))
async def test_every_length_is_decoded(length):
    """Whatever is left over of the last group."""
    body = NOISE[:length]
    text = base64.b64encode(b"\0" + body).decode()

    assert (await decode(text))[0] == b"\0" + body
    assert (await decode(text.rstrip("=")))[0] == b"\0" + body


@pytest.mark.parametrize(
    ("media_type", "raw"),
    [
        ("audio/pcm;rate=8000", RawAudio("s16le", rate=8000)),
        ("audio/l16;rate=44100;channels=2", RawAudio("s16be", rate=44_100, channels=2)),
        ("audio/wav", None),
        ("", None),
    ],
)
async def test_a_data_url_tells_what_samples_without_a_header_are(media_type, raw):
    """As a content type does."""
    assert await decode(f"data:{media_type};base64," + NOISE_TEXT) == (NOISE[:100_000], raw)


@pytest.mark.parametrize("padding", ["", "="])
@pytest.mark.parametrize("space", ["", "\n"])
async def test_a_text_of_just_the_limit_is_taken_and_one_byte_more_is_not(padding, space):
    """Spaces and padding do not count."""
    for bytes_max in (999, 1000, 1001):
        exact = space.join(base64.b64encode(NOISE[:bytes_max]).decode().rstrip("=")) + padding
        more = space.join(base64.b64encode(NOISE[: bytes_max + 1]).decode().rstrip("=")) + padding

        assert (await decode(exact, bytes_max))[0] == NOISE[:bytes_max]
        with pytest.raises(UploadTooLarge) as raised:
            await decode(more, bytes_max)
        assert raised.value.param == "audio_base64"
        assert raised.value.message == (
            f"audio_base64: is larger than the {bytes_max} bytes that are allowed (MAX_UPLOAD)"
        )


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "is empty"),
        (" \n", "is empty"),
        ("====", "is empty"),
        ("data:audio/wav;base64,", "is empty"),
        ("A", "is not base64: it breaks off"),
        ("UklGR", "is not base64: it breaks off"),
        ("Ukl!Rg==", "is not base64: character 4 is '!'"),
        ("Ukl\u00e9", r"is not base64: character 4 is 'é'"),
        ("Ukl\0", r"is not base64: character 4 is '\\x00'"),
        ("Ukl\ud800", r"is not base64: character 4 is '\\ud800'"),
        ("Ukl\u00a0GRg", r"is not base64: character 4 is '\\xa0'"),
        ("Uk=lGRg", "is not base64: character 3 is '='"),
        ("UklGRg==UklGRg==", "is not base64: character 7 is '='"),
        ("A" * 1048576 + "A===" + "=" * 1048572 + "A", "is not base64: character 2097153 is 'A'"),
        ("A" * 1048576 + "AA.A", "is not base64: character 1048579 is '.'"),
        ("A" * 1048576 + "AA\u00e9A", "is not base64: character 1048579 is 'é'"),
        ("https://files.example.com/a.wav", "is not base64: character 6 is ':'"),
        ("data:audio/wav,RIFF", "only those with ;base64, are taken"),
        ("data:audio/wav;base64", "only those with ;base64, are taken"),
        ("data:,", "only those with ;base64, are taken"),
        ("data:" + "a" * 2000 + ";base64,UklGRg==", "only those with ;base64, are taken"),
        ("data:audio/wav;base64,Ukl%3D", "is not base64: character 26 is '%'"),
    ],
)
async def test_what_is_not_base64_is_refused(text, problem):
    """The message names where, and shows no more than one character."""
    with pytest.raises(InvalidRequest, match=problem) as raised:
        await decode(text, 10_000_000)

    assert (raised.value.param, raised.value.code) == ("audio_base64", "invalid_base64")
    assert raised.value.message.isprintable()


async def test_what_is_no_audio_in_base64_is_refused():
    """As it is when it comes by URL."""
    with pytest.raises(UnsupportedMediaType, match="audio_base64: is not audio but an HTML page"):
        await decode(base64.b64encode(HTML).decode())
    with pytest.raises(InvalidRequest, match=r"^audio_base64: rate=3 of its content type"):
        await decode("data:audio/pcm;rate=3;base64," + NOISE_TEXT)


async def test_a_decoded_recording_is_audio():
    """From the text to samples."""
    before = held_files()
    async with decoded(base64.b64encode(RECORDING).decode(), bytes_max=BYTES_MAX) as recording:
        samples = decode_audio(recording, seconds_max=60, check=lambda: None)

        assert samples.tobytes() == recording_samples().tobytes()
        assert held_files() == before + 1


async def test_others_are_served_while_a_text_is_decoded():
    """A long one takes a second: not in the event loop's thread."""
    threads = set()

    class Watched(str):
        __slots__ = ()

        def __getitem__(self, key):
            threads.add(threading.get_ident())
            return super().__getitem__(key)

    assert await decode(Watched(NOISE_TEXT)) == (NOISE[:100_000], None)
    assert threads
    assert threading.get_ident() not in threads


async def test_decoding_that_is_cancelled_leaves_no_file():
    """The thread stops at the next slice."""
    before = held_files()
    task = asyncio.ensure_future(decode("A" * 40_000_000, 30_000_000))
    async with asyncio.timeout(5):
        while held_files() == before:
            await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert held_files() == before


def test_nothing_of_a_dead_process_is_left(tmp_path):
    """kill -9 in the middle of the work: $TMPDIR is as it was."""
    program = (
        "import asyncio, os, signal\n"
        "from services.voxtral.sources import decoded\n"
        "async def main():\n"
        "    async with decoded('AAAA' * 100_000, bytes_max=1_000_000) as recording:\n"
        "        assert os.readlink(f'/proc/self/fd/{recording.file.fileno()}')"
        ".startswith(os.environ['TMPDIR'])\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "asyncio.run(main())\n"
    )
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    ended = subprocess.run(
        [sys.executable, "-c", program],
        cwd=Path(__file__).parents[2],
        env=environment,
        check=False,
        capture_output=True,
        timeout=60,
    )

    assert ended.returncode == -9, ended.stderr
    assert list(tmp_path.iterdir()) == []
