"""Three quarters of an hour in pieces: all of it once, in a memory that does not grow with it."""

import threading
import wave
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import psutil
import pytest

from services.transcription.audio import Recording
from services.transcription.transcript import Progress
from services.transcription.worker import Cancellation
from services.voxtral.answers import SpokenSegment
from services.voxtral.model import Samples
from services.voxtral.on_transformers import OnTransformers
from services.voxtral.request import Wanted
from tests.services.sounds import SAMPLE_RATE
from tests.speech.voices import converse_in_digits
from tests.speech.voxtral_bench import WORDS, Bench, Listening, bench_of, wav

LONG_SECONDS = 45 * 60
# What finding speech in five minutes takes, and decoding: the samples once more. Measured: 0.28 to
# 0.36 GB for 45 minutes, which are 0.09 GB; 0.55 GB for two and a half hours, which are 0.29 GB.
WORK_BYTES_MAX = 250_000_000
# Of that, what is left when the model begins, and what it takes.
WRITING_BYTES_MAX = 100_000_000


@pytest.fixture(scope="module")
def loaded(voxtral_model) -> OnTransformers:
    return OnTransformers(voxtral_model, device="cpu", batch_size=2)


@pytest.fixture
def bench(loaded) -> Bench:
    return bench_of(Listening(loaded))


class Watch:
    """The most memory that this process takes while it is watched."""

    def __init__(self) -> None:
        self._process = psutil.Process()
        self.before = self.most = self.now()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    @property
    def growth(self) -> int:
        return self.most - self.before

    def now(self) -> int:
        return self._process.memory_info().rss

    def __enter__(self) -> "Watch":
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._ended.wait(0.02):
            self.most = max(self.most, self.now())


@dataclass(frozen=True)
class Long:
    """A conversation again and again, as a file, and when each word of it is heard."""

    path: Path
    samples: Samples
    words: list[tuple[float, float]]


@pytest.fixture(scope="module")
def long(tmp_path_factory) -> Long:
    once = converse_in_digits(turns=6, digits_each=9, seed=4)
    count = int(LONG_SECONDS / once.seconds)
    words = [
        (word.start + number * once.seconds, word.end + number * once.seconds)
        for number in range(count)
        for word in once.words
    ]
    samples = np.tile(once.samples, count)
    path = tmp_path_factory.mktemp("long") / "long.wav"
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE)
        file.writeframes(samples.tobytes())
    return Long(path, samples, words)


def test_forty_five_minutes_are_done_in_pieces(bench, long):
    """In order, in little more memory than the samples; no word is lost, or in two pieces."""
    bench.work(wav(long.samples[: 600 * SAMPLE_RATE]))  # what libraries take at their first use
    bench.reported.clear()
    bench.model.pieces.clear()
    while_writing: list[int] = []

    def report(told: Progress | SpokenSegment) -> None:
        bench.reported.append(told)
        while_writing.append(watch.now() - watch.before)

    with Watch() as watch, long.path.open("rb") as file:
        answer = bench.engine.work(Recording(file), Wanted(), Cancellation(), report)
    segments = answer.segments

    assert answer.duration == pytest.approx(len(long.samples) / SAMPLE_RATE)
    assert len(segments) > LONG_SECONDS / 30
    assert answer.segments == bench.segments
    assert answer.transcript == " ".join([WORDS] * len(segments))
    assert 0 <= segments[0].start
    assert segments[-1].end <= answer.duration
    assert all(0 < segment.end - segment.start <= 30 for segment in segments)
    assert all(one.end <= other.start for one, other in pairwise(segments))
    # What is said is heard once: each word lies within one piece.
    starts = np.array([segment.start for segment in segments])
    ends = np.array([segment.end for segment in segments])
    for start, end in long.words:
        holding = (starts <= start + 0.05) & (ends >= end - 0.05)
        assert holding.sum() == 1, (start, end)
    # And each piece is that part of the recording; times are rounded to a millisecond.
    for segment, piece in zip(segments, bench.model.pieces, strict=True):
        assert is_part(long.samples, piece, segment.start)
        assert len(piece) / SAMPLE_RATE == pytest.approx(segment.end - segment.start, abs=2e-3)
    assert max(while_writing) < long.samples.nbytes + WRITING_BYTES_MAX
    assert watch.growth < 2 * long.samples.nbytes + WORK_BYTES_MAX


def is_part(samples: Samples, piece: Samples, start_seconds: float) -> bool:
    """Tell whether a piece begins there in the recording, within a millisecond."""
    begin, millisecond = round(start_seconds * SAMPLE_RATE), SAMPLE_RATE // 1000
    return any(
        np.array_equal(piece, samples[first : first + len(piece)])
        for first in range(max(begin - millisecond, 0), begin + millisecond + 1)
    )
