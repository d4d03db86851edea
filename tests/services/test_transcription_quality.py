"""How right the words and their times are, on voices that the tiny model never heard.

`python -m bench.accuracy` prints the figures of more clips.
"""

import io
import shutil

import numpy as np
import pytest

from bench.accuracy import Accuracy, hear, paused_clips
from services.faster_whisper.engine import WhisperEngine
from services.transcription.audio import Recording
from services.transcription.request import TranscriptionRequest
from services.transcription.worker import Cancellation
from tests.services.sounds import SAMPLE_RATE, WORDS, encode, long_recording
from tests.services.test_faster_whisper_engine import engine_of

pytestmark = pytest.mark.skipif(
    shutil.which("espeak-ng") is None, reason="espeak-ng is not installed"
)


@pytest.fixture(scope="module", params=[1, 4], ids=["one by one", "in batches"])
def engine(request) -> WhisperEngine:
    return engine_of(batch_size=request.param)


@pytest.fixture(scope="module")
def accuracy(engine) -> Accuracy:
    """Of both languages together, over six minutes of phrases and pauses."""
    return hear(engine, paused_clips(seed=4711, count=4, shortest=70, longest=110))


def test_nineteen_words_of_twenty_are_right(accuracy):
    """Of those that were said, counting what was invented."""
    assert accuracy.word_error_rate < 0.05


def test_the_language_is_right(accuracy):
    """Detected in every clip."""
    assert accuracy.languages_right == 1.0


def test_nine_edges_of_ten_are_within_a_fifth_of_a_second(accuracy):
    """Starts and ends of segments, against the truth of the synthesiser."""
    assert accuracy.edges_right > 0.9


def test_most_words_begin_when_they_are_said(accuracy):
    """Within two fifths of a second: the library is early with this model."""
    assert accuracy.word_starts_right > 0.85


@pytest.mark.parametrize("kind", ["zeros", "hiss", "hum"])
def test_silence_gives_no_text(engine, kind):
    """Whisper invents words where nobody speaks; here it is not asked."""
    seconds = np.arange(90 * SAMPLE_RATE) / SAMPLE_RATE
    rng = np.random.default_rng(1)
    sound = {
        "zeros": 0 * seconds,
        "hiss": rng.normal(size=len(seconds)) * 300,
        "hum": np.sin(2 * np.pi * 50 * seconds) * 3000,
    }[kind]
    recording = Recording(io.BytesIO(encode(sound.astype(np.int16), "flac", "flac")))
    request = TranscriptionRequest(model="model")
    transcript = engine.transcribe(recording, request, Cancellation(), lambda _: None)

    assert transcript.segments == ()


def test_three_minutes_are_heard_to_their_end(engine):
    """Nothing is missing in the middle."""
    recording = Recording(io.BytesIO(long_recording(180)))
    request = TranscriptionRequest(model="model", language="en")
    transcript = engine.transcribe(recording, request, Cancellation(), lambda _: None)

    spoken = 180 / 3.2 * len(WORDS.split())
    assert len(transcript.text.split()) == pytest.approx(spoken, rel=0.03)
    assert transcript.segments[-1].end_seconds == pytest.approx(179, abs=2)
