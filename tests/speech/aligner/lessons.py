"""What the aligner learns from: spoken digits, and which letter each frame is to name.

It knows how words lie in time; it knows no network.

whisperx.align takes a word to begin at the frame that names its first letter, and to end at the
frame after its last letter's, or where "|" is named if another word follows. So that is what is
taught: the first letter where the word begins, the last where it ends, the others evenly between,
"|" right after, each for one frame, and the blank everywhere else. Because espeak-ng tells when it
says a word, no times need to be guessed, as CTC's loss would.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from services.faster_whisper.digits import noise
from services.faster_whisper.digits.espeak import Samples, call_in_children
from services.faster_whisper.digits.speech import Phrase, Speaker, happens, record_speaker
from services.faster_whisper.digits.vocabulary import WORDS
from tests.speech.aligner.network import SAMPLES_PER_FRAME, SAMPLES_PER_SECOND
from tests.speech.makers import LABELS

FRAME_SECONDS = SAMPLES_PER_FRAME / SAMPLES_PER_SECOND
WORD_END = LABELS.index("|")


@dataclass(frozen=True)
class Lesson:
    """Sounds of one length, and the label of each frame; 0 is the blank."""

    samples: NDArray[np.float32]  # [batch, samples]
    labels: NDArray[np.int64]  # [batch, frames]


def record_english_speakers(count: int, phrases_each: int, seed: int) -> list[Speaker]:
    """About so many speakers of the digits' training voices; espeak-ng's crashes cost some."""
    jobs = [(seed * 1_000_003 + index, "en", phrases_each) for index in range(count)]
    recorded = call_in_children(record_speaker, jobs)
    return [speaker for speaker in recorded if speaker is not None and speaker.phrases]


class Teacher:
    """Lessons without end."""

    def __init__(self, rng: np.random.Generator, speakers: Sequence[Speaker]) -> None:
        """Hold on to the speakers; the noises are made here, once."""
        self._rng = rng
        self._speakers = speakers
        self._shelf: Mapping[str, Samples] = noise.make_shelf(rng, speakers)

    def teach(self, batch_size: int, seconds: float) -> Lesson:
        """One lesson."""
        rows = [self._make_row(seconds) for _ in range(batch_size)]
        return Lesson(np.stack([sound for sound, _ in rows]), np.stack([line for _, line in rows]))

    def _make_row(self, seconds: float) -> tuple[Samples, NDArray[np.int64]]:
        """Phrases with pauses; the first may have begun before, the last may go on after."""
        rng = self._rng
        samples = np.zeros(int(seconds * SAMPLES_PER_SECOND), np.float32)
        labels = np.zeros(len(samples) // SAMPLES_PER_FRAME, np.int64)
        gain, pause_seconds = rng.uniform(0.3, 1.0), rng.choice([0.2, 0.6, 1.5])
        for start, phrase in self._lay_out(seconds, float(pause_seconds)):
            _add(samples, phrase.samples * np.float32(gain * rng.uniform(0.7, 1.0)), start)
            for digit, begin, end in zip(phrase.digits, phrase.starts, phrase.ends, strict=True):
                _write(labels, WORDS["en"][digit], start + begin, start + end)
        return self._wear(samples), labels

    def _lay_out(self, seconds: float, pause_seconds: float) -> Iterator[tuple[float, Phrase]]:
        """Phrases and when each begins, mostly one speaker's."""
        rng = self._rng
        speaker = self._draw_speaker()
        start = float(rng.uniform(-1.0, 0.0) if happens(rng, 0.3) else rng.uniform(0.0, 1.0))
        while start < seconds:
            phrase = speaker.phrases[int(rng.integers(len(speaker.phrases)))]
            yield start, phrase
            start += phrase.seconds + 0.1 + float(rng.exponential(pause_seconds))
            speaker = self._draw_speaker() if happens(rng, 0.2) else speaker

    def _draw_speaker(self) -> Speaker:
        return self._speakers[int(self._rng.integers(len(self._speakers)))]

    def _wear(self, samples: Samples) -> Samples:
        rng = self._rng
        if happens(rng, 0.1):
            samples = noise.echo(rng, samples)
        if happens(rng, 0.3):
            samples = noise.equalise(rng, samples)
        if happens(rng, 0.4):
            background = noise.cut(rng, self._shelf, noise.BACKGROUND, len(samples))
            samples = noise.add_noise(samples, background, decibels=rng.uniform(12, 40))
        hiss = rng.normal(size=len(samples)) * 10 ** rng.uniform(-5, -3)
        loudness = 10 ** rng.uniform(-1.0, 0.0) / max(1e-3, float(np.abs(samples).max()))
        return np.asarray(samples * loudness + hiss, dtype=np.float32)


def _add(samples: Samples, sound: Samples, start: float) -> None:
    """Add a sound at start seconds, which may be negative, as far as it fits."""
    first = round(start * SAMPLES_PER_SECOND)
    sound = sound[max(0, -first) :]
    first = max(0, first)
    fitting = sound[: len(samples) - first]
    samples[first : first + len(fitting)] += fitting


def _write(labels: NDArray[np.int64], word: str, start: float, end: float) -> None:
    """Name the letters of a word, and its end, in the frames from start to end seconds."""
    first, past = round(start / FRAME_SECONDS), round(end / FRAME_SECONDS)
    letters = [*(LABELS.index(letter) for letter in word.upper()), WORD_END]
    frames = np.linspace(first, past - 1, len(letters)).round().astype(int)
    # The last letter lies right before "|", or a word would seem to end before its last sound.
    frames[-2] = max(past - 2, int(frames[-3]) + 1)
    for frame, letter in zip(frames.tolist(), letters, strict=True):
        if 0 <= frame < len(labels):
            labels[frame] = letter
