"""Files as they really arrive: odd, broken off, lying, endless or no audio at all.

Each is transcribed rightly or refused clearly, and the service is none the worse for it.
"""

import io
import struct
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import av
import httpx
import numpy as np
import psutil
import pytest

from tests.services.sounds import RECORDING, SAMPLE_RATE, WORDS, encode, recording_samples
from tests.services.speech_server import FASTER_WHISPER, SpeechServer, run_server

AUDIO_SECONDS_MAX = 600.0
LIMITS = {"MAX_AUDIO_SECONDS": str(AUDIO_SECONDS_MAX), "MAX_UPLOAD": "50MB"}
HOURS = 10
# Beside the samples, 19 MB until the limit is reached; one hour of float samples is 230 MB.
GROWTH_BYTES_MAX = 100_000_000

WAV_HEADER_BYTES = 44
PNG = (
    b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\1\0\0\0\1\x08\6\0\0\0\x1f\x15\xc4\x89"
    b"\0\0\0\nIDATx\x9cc\0\1\0\0\5\0\1\r\n-\xb4\0\0\0\0IEND\xaeB`\x82"
)


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[SpeechServer]:
    """One process for all files: what one of them breaks, the next one shows."""
    with run_server(FASTER_WHISPER, tmp_path_factory.mktemp("uploads"), LIMITS) as running:
        yield running


def send(
    server: SpeechServer,
    recording: bytes,
    content_type: str = "application/octet-stream",
    name: str = "recording",
    **fields: str,
) -> httpx.Response:
    return httpx.post(
        server.transcriptions,
        files={"file": (name, recording, content_type)},
        data={"model": "whisper-1", **fields},
        timeout=60,
    )


def hear(response: httpx.Response) -> str:
    """Give the words of an answer."""
    assert response.status_code == 200, response.text
    return response.json()["text"]


def refusal(response: httpx.Response) -> tuple[int, str, str]:
    """Give status, field and code of a refusal, once its shape is right."""
    body = response.json()
    assert set(body) == {"error", "detail"}, body
    assert set(body["error"]) == {"message", "type", "param", "code"}, body
    assert body["error"]["message"] == body["detail"]
    assert body["error"]["type"] == "invalid_request_error"
    assert response.headers["x-should-retry"] == "false"
    return response.status_code, body["error"]["param"], body["error"]["code"]


# Files


def zip_archive() -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        archive.writestr("recording.wav", RECORDING)
    return target.getvalue()


def twice(container: str, codec: str, **options: str) -> bytes:
    """The recording two times in one file: half of it is the words."""
    return encode(
        np.tile(recording_samples(), 2), container, codec, rate=48_000, options=options or None
    )


def first_half(file: bytes) -> bytes:
    return file[: len(file) // 2]


def from_browser() -> bytes:
    """A WebM file as MediaRecorder writes it: clusters without a size, no length, no index."""
    file = encode(recording_samples(), "webm", "libopus", rate=48_000, options={"live": "1"})
    with av.open(io.BytesIO(file)) as container:
        assert container.duration is None
    return file


def index_last() -> bytes:
    """An m4a file as most encoders write it: to be read, it must be seekable."""
    file = encode(recording_samples(), "ipod", "aac", rate=44_100)
    assert file.index(b"mdat") < file.index(b"moov")
    return file


def piped_wav(size: int = 0xFFFFFFFF) -> bytes:
    """A WAV file as ffmpeg writes it to a pipe: both lengths are as large as can be."""
    told = struct.pack("<I", size)
    return (
        RECORDING[:4] + told + RECORDING[8:40] + told + recording_samples().astype("<i2").tobytes()
    )


def raw(byte_order: str = "<", rate: int = SAMPLE_RATE, channels: int = 1) -> bytes:
    """Samples of 16 bits without a header."""
    samples = recording_samples()
    if rate != SAMPLE_RATE:
        file = encode(samples, "wav", "pcm_s16le", rate=rate)
        samples = np.frombuffer(file[file.index(b"data") + 8 :], dtype="<i2")
    return np.repeat(samples, channels).astype(f"{byte_order}i2").tobytes()


SOUND: dict[str, Callable[[], bytes]] = {
    "8 kHz, 8 bits": lambda: encode(recording_samples(), "wav", "pcm_u8", rate=8_000),
    "8 kHz, A-law": lambda: encode(recording_samples(), "wav", "pcm_alaw", rate=8_000),
    "5.1 channels": lambda: encode(recording_samples(), "ipod", "aac", rate=48_000, layout="5.1"),
    "index last": index_last,
    "fragments": lambda: encode(
        recording_samples(),
        "mp4",
        "aac",
        rate=48_000,
        options={"movflags": "frag_keyframe+empty_moov"},
    ),
    "of a browser": from_browser,
    "of a pipe": piped_wav,
    "of a pipe, no length": lambda: piped_wav(0),
    "junk at the end": lambda: RECORDING + bytes(range(256)) * 40,
}

HALVES: dict[str, Callable[[], bytes]] = {
    "mp3": lambda: first_half(twice("mp3", "libmp3lame")),
    "wav": lambda: first_half(twice("wav", "pcm_s16le")),
    "flac": lambda: first_half(twice("flac", "flac")),
    "ogg": lambda: first_half(twice("ogg", "libopus")),
    "webm": lambda: first_half(twice("webm", "libopus", live="1")),
    "mp4 in fragments": lambda: first_half(twice("mp4", "aac", movflags="empty_moov+dash")),
}

NO_AUDIO: dict[str, bytes] = {
    "empty": b"",
    "one byte": b"R",
    "zip": zip_archive(),
    "png": PNG,
    "text": b"hello, world\n" * 100,
    "html": b"<!doctype html><title>Log in</title>" * 20,
    "half a header": RECORDING[:20],
    "playlist": b"#EXTM3U\n#EXTINF:5,\nhttp://127.0.0.1/a.wav\n#EXT-X-ENDLIST\n",
}


# What is heard


@pytest.mark.parametrize("name", SOUND)
def test_an_odd_file_is_heard(server, name):
    """However it was written: if it holds the recording, the words are those of the recording."""
    assert hear(send(server, SOUND[name]())) == WORDS


@pytest.mark.parametrize(
    ("content_type", "recording"),
    [
        ("audio/pcm", raw()),
        ("audio/raw", raw()),
        ("AUDIO/PCM", raw()),
        ("audio/pcm", raw() + b"\1"),
        ("audio/pcm;rate=8000", raw(rate=8_000)),
        ("audio/pcm; rate=48000; channels=2", raw(rate=48_000, channels=2)),
        ("audio/L16", raw(">")),
        ("audio/l16;rate=8000", raw(">", rate=8_000)),
        ("audio/L16;rate=44100;channels=2", raw(">", rate=44_100, channels=2)),
    ],
)
def test_samples_without_a_header_are_heard(server, content_type, recording):
    """The media type tells how the samples are to be read."""
    assert hear(send(server, recording, content_type)) == WORDS


@pytest.mark.parametrize("name", ["recording.pcm", "recording.raw", "RECORDING.PCM"])
def test_a_name_tells_samples_without_a_header(server, name):
    """Where the media type says nothing, the file's name does."""
    assert hear(send(server, raw(), "application/octet-stream", name)) == WORDS


@pytest.mark.parametrize("name", ["recording.mp3", "recording.txt", "r\u00e9union.wav", "a/../b"])
def test_a_wrong_name_does_not_matter(server, name):
    """What a file is, it tells by itself."""
    assert hear(send(server, RECORDING, "video/mp4", name)) == WORDS


@pytest.mark.parametrize("name", HALVES)
def test_what_is_there_of_half_a_file_is_heard(server, name):
    """An upload of what broke off is worth its first half."""
    heard = hear(send(server, HALVES[name]()))

    assert heard.startswith(WORDS)
    assert len(heard.split()) <= len(WORDS.split()) + 1


@pytest.mark.parametrize(
    ("container", "codec"),
    [
        ("adts", "aac"),
        ("flac", "flac"),
        ("mp3", "libmp3lame"),
        ("ogg", "libopus"),
        ("webm", "libopus"),
    ],
)
@pytest.mark.parametrize("part", [0.01, 0.3])
def test_damage_in_the_middle_costs_only_the_middle(server, container, codec, part):
    """What comes before a damaged passage is heard, and so is what comes after it."""
    repeats = 9
    sound = np.tile(recording_samples(), repeats)
    file = bytearray(encode(sound, container, codec, rate=48_000))
    begin, end = (int(len(file) * (0.5 + side * part / 2)) for side in (-1, 1))
    file[begin:end] = np.random.default_rng(seed=0).bytes(end - begin)

    heard = hear(send(server, bytes(file)))
    # Of the repetitions, one at each edge of the damage may be misheard.
    assert heard.startswith(WORDS)
    assert heard.count(WORDS) >= int(repeats * (1 - part)) - 2


# What is refused


@pytest.mark.parametrize("name", NO_AUDIO)
def test_what_is_no_audio_is_refused(server, name):
    """Other kinds of files are told apart, and trying again is in vain."""
    assert (415, "file", "not_audio") == refusal(send(server, NO_AUDIO[name]))


def test_what_is_no_audio_is_no_stream(server):
    """A refusal of the file comes as a status, not as an event of a stream that began well."""
    assert (415, "file", "not_audio") == refusal(send(server, PNG, stream="true"))


def test_video_without_sound_is_refused(server):
    """A film without an audio track is no audio."""
    target = io.BytesIO()
    with av.open(target, "w", format="mp4") as output:
        stream = output.add_stream("mpeg4", rate=10, width=64, height=64, pix_fmt="yuv420p")
        for _ in range(10):
            output.mux(stream.encode(av.VideoFrame(64, 64, "yuv420p")))
        output.mux(stream.encode(None))

    assert (415, "file", "not_audio") == refusal(send(server, target.getvalue()))


@pytest.mark.parametrize(
    ("recording", "content_type"),
    [
        pytest.param(
            RECORDING[:40] + bytes(4), "application/octet-stream", id="header without samples"
        ),
        pytest.param(b"", "audio/pcm", id="no samples"),
        pytest.param(b"\1", "audio/pcm", id="half a sample"),
        pytest.param(raw(), "audio/pcm;rate=0", id="no rate"),
        pytest.param(raw(), "audio/pcm;rate=1000000000", id="rate too high"),
        pytest.param(raw(), "audio/L16;rate=-8000", id="rate below zero"),
        pytest.param(raw(), "audio/L16;rate=8k", id="rate is no number"),
        pytest.param(raw(), "audio/L16;channels=1000", id="too many channels"),
    ],
)
def test_audio_that_cannot_be_used_is_refused(server, recording, content_type):
    """It is audio, but nothing can be heard of it; that is the request's fault."""
    assert (400, "file", "invalid_audio") == refusal(send(server, recording, content_type))


# What never ends


def silent_frames(seconds: float) -> Iterator[av.AudioFrame]:
    """Silence in the largest frames that FLAC takes."""
    length = 65_535
    frame = av.AudioFrame.from_ndarray(np.zeros((1, length), np.int16), "s16", "mono")
    frame.sample_rate = SAMPLE_RATE
    for number in range(int(seconds * SAMPLE_RATE) // length + 1):
        frame.pts = number * length
        yield frame


def endless_flac() -> bytes:
    """Hours of silence in 200 kB."""
    target = io.BytesIO()
    options = {"frame_size": "65535", "compression_level": "0"}
    with av.open(target, "w", format="flac") as output:
        stream = output.add_stream("flac", rate=SAMPLE_RATE, layout="mono", options=options)
        for frame in silent_frames(HOURS * 3600):
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return target.getvalue()


def without_length(flac: bytes) -> bytes:
    """The same as it is written to a pipe: its header tells no number of samples."""
    # 36 bits of STREAMINFO, which follows the mark and the block's own header (RFC 9639, 8.2).
    total = flac.index(b"fLaC") + 8 + 13
    file = flac[:total] + bytes([flac[total] & 0xF0]) + bytes(4) + flac[total + 5 :]
    with av.open(io.BytesIO(file)) as container:
        assert container.duration is None
    return file


def endless_mp3() -> bytes:
    """Hours of silence in 36 MB: a minute, again and again; no header tells how often."""
    minute = encode(
        np.zeros(60 * SAMPLE_RATE, np.int16),
        "mp3",
        "libmp3lame",
        rate=8_000,
        options={"write_xing": "0", "id3v2_version": "0"},
    )
    return minute * (HOURS * 60)


@dataclass(frozen=True)
class Refused:
    """What the refusal of an endless recording cost."""

    response: httpx.Response
    seconds: float
    growth_bytes: int  # from before, to the most that was ever resident


@pytest.fixture(scope="module", params=["flac", "flac without length", "mp3"])
def endless(request, tmp_path_factory) -> Refused:
    """Each in a process of its own, so that the most it ever held is of this request."""
    match request.param:
        case "flac":
            recording = endless_flac()
        case "flac without length":
            recording = without_length(endless_flac())
        case _:
            recording = endless_mp3()
    with run_server(FASTER_WHISPER, tmp_path_factory.mktemp("endless"), LIMITS) as server:
        hear(send(server, RECORDING))  # its libraries are in memory from now on
        before = psutil.Process(server.process.pid).memory_info().rss
        began = time.monotonic()
        response = send(server, recording)
        seconds = time.monotonic() - began
        return Refused(response, seconds, most_resident_bytes(server) - before)


def most_resident_bytes(server: SpeechServer) -> int:
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    told = next(line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(told.split()[1]) * 1024  # "VmHWM:  123 kB"


def test_a_recording_of_hours_is_refused(endless):
    """Whether its header tells the length or decoding finds it out."""
    assert (400, "file", "audio_too_long") == refusal(endless.response)


def test_a_recording_of_hours_is_refused_fast(endless):
    """It is not decoded further than the limit, if at all."""
    assert endless.seconds < 3.0


def test_a_recording_of_hours_takes_no_memory(endless):
    """A small file that holds hours cannot fill the machine's memory."""
    assert endless.growth_bytes < GROWTH_BYTES_MAX


# After all of them


def test_nothing_is_left_open(server):
    """Refused or not, no file of a request outlives it, and the next request is heard."""
    for upload in (*NO_AUDIO.values(), first_half(twice("wav", "pcm_s16le")), bytes(2_000_000)):
        send(server, upload)

    assert server.open_uploads() == []
    assert list(server.temporary.iterdir()) == []
    assert hear(send(server, RECORDING)) == WORDS
