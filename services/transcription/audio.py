"""Turns an uploaded file into the samples that a model hears.

FFmpeg, bundled in PyAV, does the decoding. It is given an open file and nothing else: a playlist
(`ffconcat`, HLS, DASH) that names other files or addresses must not make it open them.

A long recording is held as 16-bit samples, 115 MB an hour, and given to the model in stretches of
minutes. Given whole, faster-whisper needs 4 GB for an hour and holds Python's lock for 0.2 s at a
time while it copies (measured with 1.2.1).
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from email.message import Message
from pathlib import PurePath
from typing import BinaryIO

import av
import numpy as np
from av.audio.frame import AudioFrame
from av.audio.resampler import AudioResampler
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.packet import Packet
from numpy.typing import NDArray

from services.transcription.errors import InvalidRequest, UnsupportedMediaType

SAMPLE_RATE = 16_000  # Hz; what Whisper, Voxtral and pyannote were trained on
_SAMPLE_BYTES = 2
# Of a file: telephones sample at 8 kHz, the best converters at 768 kHz. A header may claim any
# number, and a resampler for 1 GHz takes seconds and gigabytes.
_SOURCE_RATES = range(1_000, 768_001)
# No protocol has this name, so none is allowed; "" would mean FFmpeg's default.
_NO_PROTOCOL = "none"
# Containers that tell their true length at the beginning. Others (MP3, ADTS) are only guessed at
# from the bit rate of their first frame, which may be far off.
_TELLING_CONTAINERS = frozenset(
    {"aiff", "flac", "matroska,webm", "mov,mp4,m4a,3gp,3g2,mj2", "ogg", "w64", "wav"}
)

# Samples without a header, by media type: FFmpeg's name. L16 is big-endian (RFC 2586).
_RAW_TYPES = {"audio/pcm": "s16le", "audio/raw": "s16le", "audio/l16": "s16be"}
_RAW_SUFFIXES = (".pcm", ".raw")
_RAW_CHANNELS = range(1, 9)
# In a row: each skips what it stumbled over, an Ogg page or so.
_STUMBLES_MAX = 100

# Long enough that a cut in the wrong place is rare, short enough for 0.5 GB of memory.
STRETCH_SECONDS = 300
# How far before the end of a stretch a pause is looked for: the length of Whisper's window.
_SEARCH_SECONDS = 30
_FRAME_SECONDS = 0.02
_PAUSE_FRAMES = 20  # 0.4 s: shorter pauses are the gaps within words


class _TooLong(Exception):
    """The recording is longer than it may be, by its header or by its samples."""


@dataclass(frozen=True)
class RawAudio:
    """Samples of 16 bits without a header; 16 kHz and mono unless their media type says more."""

    format: str  # FFmpeg's name
    rate: int = SAMPLE_RATE
    channels: int = 1


@dataclass(frozen=True)
class Recording:
    """An uploaded file, seekable and open."""

    file: BinaryIO
    raw: RawAudio | None = None  # None: the file tells by itself what it is


def raw_audio(content_type: str, file_name: str) -> RawAudio | None:
    """Give how to read samples without a header, or None for what describes itself.

    Both come from the client. The name decides only where the type says nothing. Raises
    InvalidRequest for a rate or a number of channels that nothing is recorded in.
    """
    header = Message()
    header["content-type"] = content_type
    media_type = header.get_content_type()
    name = _RAW_TYPES.get(media_type)
    if name is None:
        unknown = not content_type or media_type == "application/octet-stream"
        named_raw = PurePath(file_name).suffix.lower() in _RAW_SUFFIXES
        return RawAudio("s16le") if unknown and named_raw else None
    return RawAudio(
        name,
        rate=_parameter(header, "rate", SAMPLE_RATE, _SOURCE_RATES),
        channels=_parameter(header, "channels", 1, _RAW_CHANNELS),
    )


def _parameter(header: Message, name: str, default: int, allowed: range) -> int:
    value = str(header.get_param(name, str(default)))
    if not value.isdecimal() or int(value) not in allowed:
        raise InvalidRequest(
            f"file: {name}={value[:20]} of its content type is not {allowed[0]} to {allowed[-1]}",
            param="file",
            code="invalid_audio",
        )
    return int(value)


def decode_audio(
    recording: Recording,
    *,
    seconds_max: float,
    check: Callable[[], None],
    limit: str = "MAX_AUDIO_SECONDS",
) -> NDArray[np.int16]:
    """Give the first audio track as int16 [samples], mono, 16 kHz.

    `check` is called for every packet, and may raise to give up. Raises UnsupportedMediaType for
    what is no audio, InvalidRequest for what has no sample or is longer than `seconds_max`, which
    the operator knows as `limit`. A file that breaks off gives what it holds up to there.
    """
    samples = bytearray()
    bytes_max = int(seconds_max * SAMPLE_RATE) * _SAMPLE_BYTES
    try:
        for block in _decode(recording, seconds_max, check):
            samples += block
            if len(samples) > bytes_max:
                raise _TooLong
    except _TooLong:
        raise _too_long(seconds_max, limit) from None
    except av.error.FFmpegError as error:
        # What was decoded before the damage is worth more than a refusal.
        if not samples:
            raise _not_audio("cannot be decoded as audio") from error
    if not samples:
        raise _invalid("holds no audio samples")
    return np.frombuffer(samples, dtype=np.int16)


def check_header(recording: Recording, *, seconds_max: float, limit: str) -> None:
    """Refuse at once what tells of itself to be no audio, or too long; raises as `decode_audio`."""
    try:
        with _open(recording, seconds_max):
            pass
    except _TooLong:
        raise _too_long(seconds_max, limit) from None
    except av.error.FFmpegError as error:
        raise _not_audio("cannot be decoded as audio") from error


def split_at_pauses(samples: NDArray[np.int16]) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """Give a recording in stretches of five minutes or less, as float32 [samples] in -1..1.

    Beside each stretch stands where it begins, in samples. Each cut is in the quietest 0.4 s of
    the stretch's last half minute. The last stretch may be half a minute longer, so that none is a
    mere scrap.
    """
    stretch, search = STRETCH_SECONDS * SAMPLE_RATE, _SEARCH_SECONDS * SAMPLE_RATE
    start = 0
    while len(samples) - start > stretch + search:
        searched = start + stretch - search
        cut = searched + quietest(samples[searched : start + stretch])
        yield start, _to_float(samples[start:cut])
        start = cut
    yield start, _to_float(samples[start:])


def _to_float(samples: NDArray[np.int16]) -> NDArray[np.float32]:
    return samples.astype(np.float32) / np.float32(32768.0)


def quietest(samples: NDArray[np.int16]) -> int:
    """Give the middle of the quietest pause, in samples."""
    frame = int(_FRAME_SECONDS * SAMPLE_RATE)
    whole = samples[: len(samples) // frame * frame].reshape(-1, frame)
    loudness = np.abs(whole.astype(np.float32)).mean(axis=1)
    pauses = np.convolve(loudness, np.ones(_PAUSE_FRAMES, dtype=np.float32), mode="valid")
    return (int(pauses.argmin()) + _PAUSE_FRAMES // 2) * frame


def _decode(
    recording: Recording, seconds_max: float, check: Callable[[], None]
) -> Iterator[memoryview]:
    with _open(recording, seconds_max) as container:
        yield from _resample(_frames(container, check))


@contextmanager
def _open(recording: Recording, seconds_max: float) -> Iterator[InputContainer]:
    recording.file.seek(0)
    raw = recording.raw
    with av.open(
        recording.file,
        mode="r",
        format=raw.format if raw else None,
        options={"sample_rate": str(raw.rate), "ch_layout": f"{raw.channels}C"} if raw else {},
        metadata_errors="ignore",
        container_options={"protocol_whitelist": _NO_PROTOCOL},
    ) as container:
        if not container.streams.audio:
            raise _not_audio("has no audio track")
        if _told_seconds(container) > seconds_max:
            raise _TooLong
        yield container


def _told_seconds(container: InputContainer) -> float:
    """Give the length that the header tells, 0 if it can only be guessed."""
    if container.format.name not in _TELLING_CONTAINERS:
        return 0.0
    return (container.duration or 0) / av.time_base


def _frames(container: InputContainer, check: Callable[[], None]) -> Iterator[AudioFrame]:
    for packet in _packets(container):
        check()
        try:
            frames = packet.decode()
        except av.error.FFmpegError:
            continue  # one damaged packet; its neighbours are usually fine
        for frame in frames:
            assert isinstance(frame, AudioFrame), frame
            if frame.sample_rate not in _SOURCE_RATES:
                raise _invalid(f"has a sample rate of {frame.sample_rate} Hz")
            frame.pts = None  # or a gap in the time stamps would be refused
            yield frame


def _packets(container: InputContainer) -> "Iterator[Packet[AudioStream]]":
    """Give the packets on both sides of damage: a reader that stumbles is asked to go on."""
    stumbles = 0
    while True:
        try:
            for packet in container.demux(container.streams.audio[0]):
                stumbles = 0
                yield packet
        except av.error.FFmpegError:
            stumbles += 1
            if stumbles > _STUMBLES_MAX:
                raise
        else:
            return


def _resample(frames: Iterator[AudioFrame]) -> Iterator[memoryview]:
    # A stream may change its rate or layout half way (chained Ogg, some MP3): a resampler
    # refuses that, so each stretch gets its own. 16 bits, as Whisper's own loader has it: a
    # float file may hold NaN and infinity, and these do not survive the conversion.
    resampler: AudioResampler | None = None
    stretch: tuple[str, str, int] | None = None
    for frame in frames:
        found = (frame.format.name, frame.layout.name, frame.sample_rate)
        if resampler is None or found != stretch:
            yield from _flush(resampler)
            resampler = AudioResampler(format="s16", layout="mono", rate=SAMPLE_RATE)
            stretch = found
        for resampled in resampler.resample(frame):
            yield _samples_of(resampled)
    yield from _flush(resampler)


def _flush(resampler: AudioResampler | None) -> Iterator[memoryview]:
    if resampler is None:
        return
    for resampled in resampler.resample(None):
        yield _samples_of(resampled)


def _samples_of(frame: AudioFrame) -> memoryview:
    """Give the samples of a mono frame of 16 bits; its buffer may be longer than they are."""
    return memoryview(frame.planes[0])[: frame.samples * _SAMPLE_BYTES]


def _not_audio(problem: str) -> UnsupportedMediaType:
    return UnsupportedMediaType(f"file: {problem}", param="file", code="not_audio")


def _invalid(problem: str) -> InvalidRequest:
    return InvalidRequest(f"file: {problem}", param="file", code="invalid_audio")


def _too_long(seconds_max: float, limit: str) -> InvalidRequest:
    return InvalidRequest(
        f"file: is longer than the {seconds_max:g} s that are allowed ({limit})",
        param="file",
        code="audio_too_long",
    )
