"""Files become samples: real encoders, real damage, real attacks."""

import contextlib
import io
import random
import threading
import wave

import av
import numpy as np
import pytest

from services.transcription.audio import (
    STRETCH_SECONDS,
    RawAudio,
    Recording,
    decode_audio,
    raw_audio,
    split_at_pauses,
)
from services.transcription.errors import ApiError, InvalidRequest, UnsupportedMediaType
from tests.services.sounds import RECORDING, SAMPLE_RATE, encode, recording_samples

FORMATS = [
    # container, codec, rate in Hz, layout
    ("wav", "pcm_s16le", 44_100, "stereo"),
    ("wav", "pcm_f32le", 16_000, "mono"),
    ("wav", "pcm_u8", 8_000, "mono"),
    ("flac", "flac", 96_000, "stereo"),
    ("mp3", "libmp3lame", 44_100, "stereo"),
    ("ogg", "libopus", 48_000, "mono"),
    ("webm", "libopus", 48_000, "stereo"),
    ("ipod", "aac", 44_100, "stereo"),  # m4a, its index last
    ("mp4", "aac", 44_100, "5.1"),
    ("adts", "aac", 22_050, "mono"),
]


def nothing() -> None:
    """Never give up."""


def decode(recording: bytes, seconds_max: float = 60.0) -> np.ndarray:
    return decode_audio(Recording(io.BytesIO(recording)), seconds_max=seconds_max, check=nothing)


def wav(samples: np.ndarray, rate: int = SAMPLE_RATE, channels: int = 1) -> bytes:
    target = io.BytesIO()
    with wave.open(target, "wb") as file:
        file.setparams((channels, samples.itemsize, rate, 0, "NONE", ""))
        file.writeframes(samples.tobytes())
    return target.getvalue()


@pytest.mark.parametrize(("container", "codec", "rate", "layout"), FORMATS)
def test_every_usual_format_is_decoded(container, codec, rate, layout):
    """Whatever the format, rate and layout: 16-bit samples, mono, 16 kHz, of the right length."""
    samples = decode(encode(recording_samples(), container, codec, rate=rate, layout=layout))

    assert samples.dtype == np.int16
    assert len(samples) == pytest.approx(len(recording_samples()), abs=0.1 * SAMPLE_RATE)
    assert samples.std() > 0.25 * recording_samples().std()  # stereo and 5.1 are mixed softer


def test_samples_survive_where_nothing_needs_converting():
    """A mono 16 kHz WAV file gives its own samples."""
    assert np.array_equal(decode(RECORDING), recording_samples())


def test_a_float_file_with_nan_and_infinity_is_decoded():
    """What no number is must not reach the model: the answer would hold it too."""
    floats = recording_samples().astype(np.float32) / 32768
    floats[100:200], floats[300], floats[301] = np.nan, np.inf, -np.inf
    plain = encode(recording_samples(), "wav", "pcm_f32le")
    samples = decode(plain[: -floats.nbytes] + floats.tobytes())

    assert np.array_equal(samples[400:], recording_samples()[400:])


def test_a_rate_that_changes_half_way_is_followed():
    """Chained streams are one recording; each part is resampled by its own rate."""
    first = encode(recording_samples(), "mp3", "libmp3lame", rate=44_100, layout="stereo")
    second = encode(recording_samples(), "mp3", "libmp3lame", rate=48_000, layout="mono")
    samples = decode(first + second)

    assert len(samples) == pytest.approx(2 * len(recording_samples()), rel=0.1)


@pytest.mark.parametrize(
    ("recording", "message"),
    [
        pytest.param(b"", "cannot be decoded", id="empty"),
        pytest.param(bytes(5000), "cannot be decoded", id="zeros"),
        pytest.param(RECORDING[:30], "cannot be decoded", id="half a header"),
        pytest.param(b"#EXTM3U\n#EXTINF:5,\nfile:a.wav\n#EXT-X-ENDLIST", "cannot", id="HLS"),
        pytest.param(b"[{" * 3000, "no audio track", id="JSON"),
    ],
)
def test_what_is_no_audio_is_refused(recording, message):
    """The refusal says that the file is at fault, and in what way."""
    with pytest.raises(UnsupportedMediaType, match=message) as raised:
        decode(recording)

    assert (raised.value.param, raised.value.code) == ("file", "not_audio")


def test_a_header_without_samples_is_refused():
    """It is audio, but there is nothing to be heard."""
    with pytest.raises(InvalidRequest, match="no audio samples"):
        decode(RECORDING[:44])


def test_a_playlist_cannot_read_a_file_of_the_server(tmp_path, monkeypatch):
    """FFmpeg would follow the name to a real recording; here it may open nothing."""
    (tmp_path / "secret.wav").write_bytes(RECORDING)
    monkeypatch.chdir(tmp_path)

    with pytest.raises(UnsupportedMediaType):
        decode(b"ffconcat version 1.0\nfile secret.wav\n")


def test_a_picture_has_no_audio_track():
    """A picture can be opened, so it is refused for what it lacks."""
    picture = b"P5 2 2 255\n\0\1\2\3"

    with pytest.raises(UnsupportedMediaType):
        decode(picture)


def test_an_absurd_sample_rate_is_refused():
    """A header may claim 1 GHz, for which a resampler takes gigabytes."""
    with pytest.raises(InvalidRequest, match="sample rate of 939000000 Hz"):
        decode(wav(recording_samples(), rate=939_000_000))


@pytest.mark.parametrize("container", ["wav", "flac", "mp3"])
def test_a_file_that_breaks_off_gives_what_it_holds(container):
    """Half a recording is worth more than a refusal."""
    codec = {"wav": "pcm_s16le", "flac": "flac", "mp3": "libmp3lame"}[container]
    whole = encode(recording_samples(), container, codec)
    samples = decode(whole[: len(whole) // 2])

    assert 0.3 < len(samples) / len(recording_samples()) < 0.6


def test_a_recording_longer_than_the_limit_is_refused():
    """The limit is in seconds and is named."""
    with pytest.raises(InvalidRequest, match=r"longer than the 2\.5 s .*MAX_AUDIO_SECONDS"):
        decode(RECORDING, seconds_max=2.5)


@pytest.mark.parametrize("container", ["wav", "flac", "ipod", "ogg"])
def test_a_length_told_by_the_header_is_refused_before_decoding(container):
    """Ten hours of silence are a small file, and a long time for a decoder."""
    codec = {"wav": "pcm_s16le", "flac": "flac", "ipod": "aac", "ogg": "libopus"}[container]
    rate = 48_000 if container == "ogg" else SAMPLE_RATE
    recording = encode(recording_samples(), container, codec, rate=rate)

    def decoded() -> None:
        raise AssertionError

    with pytest.raises(InvalidRequest, match="longer than"):
        decode_audio(Recording(io.BytesIO(recording)), seconds_max=2.5, check=decoded)


def test_a_length_that_is_only_guessed_does_not_count():
    """An MP3 that begins with few bytes a second is guessed to be longer than it is."""
    silence = np.zeros(20 * SAMPLE_RATE, dtype=np.int16)
    options = {"write_xing": "0"}
    slow = encode(silence, "mp3", "libmp3lame", rate=8_000, options=options)
    fast = encode(recording_samples(), "mp3", "libmp3lame", rate=48_000, options=options)
    recording = slow + 5 * fast
    with av.open(io.BytesIO(recording)) as container:
        assert container.duration / av.time_base > 100  # FFmpeg's guess

    assert len(decode(recording, seconds_max=60)) == pytest.approx(36 * SAMPLE_RATE, rel=0.05)


# Samples without a header


@pytest.mark.parametrize(
    ("content_type", "name", "raw"),
    [
        ("audio/pcm", "a", RawAudio("s16le")),
        ("Audio/RAW; foo=bar", "a.wav", RawAudio("s16le")),
        ("audio/pcm;rate=8000;channels=2", "a", RawAudio("s16le", rate=8000, channels=2)),
        ('audio/L16; rate="44100"', "a", RawAudio("s16be", rate=44_100)),
        ("application/octet-stream", "a.PCM", RawAudio("s16le")),
        ("", "a.raw", RawAudio("s16le")),
        ("application/octet-stream", "a.wav", None),
        ("audio/wav", "a.pcm", None),
        ("", "", None),
        ("nonsense", "a.mp3", None),
    ],
)
def test_raw_audio_is_known_by_its_type_or_else_its_name(content_type, name, raw):
    """16 kHz, mono, 16 bits, unless the type says otherwise."""
    assert raw_audio(content_type, name) == raw


@pytest.mark.parametrize("wrong", ["rate=0", "rate=fast", "rate=-1", "channels=0", "channels=99"])
def test_an_impossible_parameter_of_raw_audio_is_refused(wrong):
    """The message names it and what is allowed."""
    with pytest.raises(InvalidRequest, match=wrong):
        raw_audio(f"audio/pcm;{wrong}", "a")


@pytest.mark.parametrize(
    ("content_type", "rate", "channels", "order"),
    [
        ("audio/pcm", SAMPLE_RATE, 1, "<"),
        ("audio/pcm;rate=48000;channels=2", 48_000, 2, "<"),
        ("audio/L16;rate=8000", 8_000, 1, ">"),
    ],
)
def test_raw_audio_is_decoded(content_type, rate, channels, order):
    """The samples are those that were sent, brought to 16 kHz and mono."""
    seconds = np.arange(rate) / rate
    tone = (8000 * np.sin(2 * np.pi * 440 * seconds)).astype(f"{order}i2")
    sent = np.repeat(tone, channels).tobytes()
    recording = Recording(io.BytesIO(sent), raw_audio(content_type, "a"))
    samples = decode_audio(recording, seconds_max=60, check=nothing)

    loudest = np.abs(np.fft.rfft(samples[:SAMPLE_RATE])).argmax()
    assert len(samples) == pytest.approx(SAMPLE_RATE, abs=100)
    assert loudest == pytest.approx(440, abs=2)


def test_decoding_is_given_up_when_asked():
    """Whoever decodes looks up from time to time."""

    class Enough(Exception):
        """Raised by the check below."""

    def check() -> None:
        raise Enough

    with pytest.raises(Enough):
        decode_audio(Recording(io.BytesIO(RECORDING)), seconds_max=60, check=check)


def test_damage_is_refused_or_survived():
    """Random damage ends in samples or in a refusal, never in another error."""
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    recordings = [
        encode(recording_samples(), container, codec, rate=rate, layout=layout)
        for container, codec, rate, layout in FORMATS
    ]
    for _ in range(300):
        damaged = bytearray(rng.choice(recordings))
        for _ in range(rng.choice([1, 10, 100])):
            damaged[rng.randrange(rng.choice([64, len(damaged)]))] = rng.randrange(256)
        with contextlib.suppress(ApiError):
            assert len(decode(bytes(damaged[: rng.randrange(len(damaged))]))) > 0


def test_no_thread_is_left_behind():
    """Decoders of FFmpeg may start threads; they end with the file."""
    before = threading.active_count()
    decode(RECORDING)

    assert threading.active_count() == before


# Stretches


def speech_with_pauses(seconds: float, pauses: list[float]) -> np.ndarray:
    """Noise, with half a second of silence at each of these times."""
    rng = np.random.default_rng(1)
    samples = rng.integers(-3000, 3000, int(seconds * SAMPLE_RATE), dtype=np.int16)
    for pause in pauses:
        samples[int(pause * SAMPLE_RATE) : int((pause + 0.5) * SAMPLE_RATE)] = 0
    return samples


@pytest.mark.parametrize("seconds", [0.01, 3.0, 300.0, 329.9])
def test_a_short_recording_is_one_stretch(seconds):
    """Nothing is cut that the model can take at once."""
    samples = speech_with_pauses(seconds, [])
    ((offset, stretch),) = split_at_pauses(samples)

    assert offset == 0
    assert stretch.dtype == np.float32
    assert np.array_equal(stretch * 32768, samples)


def test_stretches_are_cut_in_pauses():
    """Each cut is in the pause of the half minute before the stretch is full."""
    samples = speech_with_pauses(900, [100, 285.25, 301, 571])
    offsets, stretches = zip(*split_at_pauses(samples), strict=True)
    ends = np.cumsum([len(stretch) for stretch in stretches]) / SAMPLE_RATE

    assert ends[0] == pytest.approx(285.5, abs=0.2)
    assert ends[1] == pytest.approx(571.25, abs=0.2)
    assert [0, *(ends[:-1] * SAMPLE_RATE)] == list(offsets)
    assert np.array_equal(np.concatenate(stretches) * 32768, samples)


@pytest.mark.parametrize("seconds", [331, 700, 1500])
def test_stretches_without_a_pause_are_cut_too(seconds):
    """No pause is no reason for a stretch of any length."""
    stretches = split_at_pauses(speech_with_pauses(seconds, []))

    lengths = [len(stretch) / SAMPLE_RATE for _, stretch in stretches]
    assert sum(lengths) == pytest.approx(seconds)
    assert max(lengths) <= STRETCH_SECONDS + 30
    assert min(lengths) >= 30
