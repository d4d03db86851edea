"""Recordings for the tests: real speech, repeated and written in real formats."""

import io
import wave
from functools import cache

import av
import numpy as np
from numpy.typing import NDArray

from tests.services.speech_server import DIGITS

SAMPLE_RATE = 16_000
RECORDING = (DIGITS / "recording.wav").read_bytes()
WORDS = (DIGITS / "recording.txt").read_text().strip()
FRENCH_RECORDING = (DIGITS / "french.wav").read_bytes()
FRENCH_WORDS = (DIGITS / "french.txt").read_text().strip()


def recording_samples() -> NDArray[np.int16]:
    """The recording's samples, mono, 16 kHz."""
    return wav_samples(RECORDING)


def wav_samples(recording: bytes) -> NDArray[np.int16]:
    """The samples of a WAV file, mono, 16 kHz."""
    with wave.open(io.BytesIO(recording)) as file:
        assert (file.getframerate(), file.getnchannels()) == (SAMPLE_RATE, 1)
        return np.frombuffer(file.readframes(file.getnframes()), dtype=np.int16)


@cache
def long_recording(seconds: float) -> bytes:
    """The recording again and again, as a WAV file of that length."""
    return encode(np.resize(recording_samples(), int(seconds * SAMPLE_RATE)), "wav", "pcm_s16le")


def encode(
    samples: NDArray[np.int16],
    container: str,
    codec: str,
    *,
    rate: int = SAMPLE_RATE,
    layout: str = "mono",
    options: dict[str, str] | None = None,
) -> bytes:
    """Write samples (mono, 16 kHz) as a file of another format."""
    target = io.BytesIO()
    with av.open(target, "w", format=container, container_options=options) as output:
        stream = output.add_stream(codec, rate=rate, layout=layout)
        frame = av.AudioFrame.from_ndarray(samples[None, :], format="s16", layout="mono")
        frame.sample_rate = SAMPLE_RATE
        resampler = av.AudioResampler(
            stream.format, layout, rate, frame_size=stream.codec_context.frame_size
        )
        for resampled in [*resampler.resample(frame), *resampler.resample(None)]:
            output.mux(stream.encode(resampled))
        output.mux(stream.encode(None))
    return target.getvalue()
