"""Training windows: clips of spoken digits with what was said in them, and when.

It knows how speech, pauses and noise are laid out in time; tokens are the transcript's concern.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from services.faster_whisper.digits import noise
from services.faster_whisper.digits.espeak import Samples
from services.faster_whisper.digits.speech import SAMPLES_PER_SECOND, Phrase, Speaker, happens
from services.faster_whisper.digits.vocabulary import LANGUAGES


@dataclass(frozen=True)
class SpokenWord:
    """A digit, in seconds from the start of its window; the end may lie beyond the window's."""

    digit: int
    start: float
    end: float


@dataclass(frozen=True)
class Window:
    """A clip no longer than its window; language is None where nobody speaks."""

    samples: Samples
    language: str | None
    words: tuple[SpokenWord, ...]
    cut: bool  # the speech goes on after the window


@dataclass(frozen=True)
class Hardness:
    """How often a window has what makes it hard: probabilities."""

    empty: float = 0.08
    continuous: float = 0.4  # speech until the window's end, as in a long file
    echo: float = 0.1
    equaliser: float = 0.4
    noise: float = 0.4

    def scale_wear(self, share: float) -> "Hardness":
        """The same with this share of echo, equaliser and noise: 0 for clean sound, 1 for all."""
        return replace(
            self,
            echo=self.echo * share,
            equaliser=self.equaliser * share,
            noise=self.noise * share,
        )


class _Deck:
    """A speaker's phrases in random order, all of them once before any comes again."""

    def __init__(self, rng: np.random.Generator, speaker: Speaker) -> None:
        self._rng = rng
        self._phrases = speaker.phrases
        self._left: list[int] = []

    def draw(self) -> Phrase:
        if not self._left:
            self._left = [int(index) for index in self._rng.permutation(len(self._phrases))]
        return self._phrases[self._left.pop()]


class WindowMaker:
    """Windows without end, mixed from recorded speakers."""

    def __init__(self, rng: np.random.Generator, speakers: Sequence[Speaker]) -> None:
        """Hold on to the speakers; the shelf of noise is made here, once."""
        self._rng = rng
        self._shelf: Mapping[str, Samples] = noise.make_shelf(rng, speakers)
        self._speakers = {
            language: [speaker for speaker in speakers if speaker.voice.language == language]
            for language in LANGUAGES
        }

    def make(self, seconds: float, hardness: Hardness) -> Window:
        """One window of at most this length."""
        if happens(self._rng, hardness.empty):
            clip = noise.make_empty_clip(self._rng, self._shelf, seconds)
            return Window(clip, language=None, words=(), cut=False)
        language = str(self._rng.choice(LANGUAGES))
        window = self._lay_out(language, seconds, happens(self._rng, hardness.continuous))
        return replace(window, samples=self._wear(window.samples, hardness))

    def _lay_out(self, language: str, seconds: float, continuous: bool) -> Window:
        """Phrases of one speaker, or of two, one after another with pauses."""
        rng = self._rng
        decks = [self._draw_deck(language) for _ in range(2 if happens(rng, 0.15) else 1)]
        samples = np.zeros(int(seconds * SAMPLES_PER_SECOND), np.float32)
        if happens(rng, 0.15):
            self._add_tail(samples, decks[0].draw())
        pause_seconds = float(rng.choice([0.3, 0.3, 1.0, 2.5]))
        phrases_left = None if continuous else self._draw_phrase_count()
        words: list[SpokenWord] = []
        end, start = 0.0, self._draw_lead(seconds)
        while start < seconds and phrases_left != 0:
            deck = decks[-1] if happens(rng, 0.4) else decks[0]
            phrase = deck.draw()
            words += _place(samples, phrase, start, gain=rng.uniform(0.5, 1.0))
            end = start + phrase.seconds
            start = end + self._draw_pause(pause_seconds)
            phrases_left = None if phrases_left is None else phrases_left - 1
        if not continuous and end < seconds:
            tail = rng.uniform(0.0, 0.4) if happens(rng, 0.5) else rng.uniform(0.4, 4.0)
            samples = samples[: int((end + tail) * SAMPLES_PER_SECOND)]
        return Window(samples, language, tuple(words), cut=continuous or end >= seconds)

    def _draw_deck(self, language: str) -> _Deck:
        speakers = self._speakers[language]
        return _Deck(self._rng, speakers[int(self._rng.integers(len(speakers)))])

    def _draw_phrase_count(self) -> int:
        few = happens(self._rng, 0.7)
        return int(self._rng.choice([1, 1, 1, 2, 2, 3]) if few else self._rng.integers(1, 10))

    def _draw_lead(self, seconds: float) -> float:
        """Seconds before the first word."""
        shortest, longest = self._rng.choice(
            [(0.0, 0.3), (0.3, 1.5), (1.5, min(8.0, seconds / 2))], p=[0.5, 0.3, 0.2]
        )
        return float(self._rng.uniform(shortest, longest))

    def _draw_pause(self, usual_seconds: float) -> float:
        """Mostly a pause that ends a segment, at times a breath that does not, or a long one."""
        if happens(self._rng, 0.15):
            return float(self._rng.uniform(0.12, 0.3))
        if happens(self._rng, 0.93):
            return float(self._rng.uniform(0.45, 0.45 + usual_seconds))
        return float(self._rng.uniform(2, 6))

    def _add_tail(self, samples: Samples, phrase: Phrase) -> None:
        """Begin with the last of a word that the window before this one had."""
        count = int(self._rng.integers(100, 1000))
        tail = phrase.samples[-count:]
        samples[: len(tail)] += tail * self._rng.uniform(0.2, 1)

    def _wear(self, samples: Samples, hardness: Hardness) -> Samples:
        rng = self._rng
        if happens(rng, hardness.echo):
            samples = noise.echo(rng, samples)
        if happens(rng, hardness.equaliser):
            samples = noise.equalise(rng, samples)
        samples = samples * np.float32(10 ** rng.uniform(-1.6, 0) / (np.abs(samples).max() + 1e-6))
        if happens(rng, hardness.noise):
            background = noise.cut(rng, self._shelf, noise.BACKGROUND, len(samples))
            return noise.add_noise(samples, background, decibels=rng.uniform(8, 35))
        if happens(rng, 0.3):
            hiss = rng.normal(size=len(samples)) * 10 ** rng.uniform(-5, -3.5)
            return np.asarray(samples + hiss, dtype=np.float32)
        return samples


def _place(samples: Samples, phrase: Phrase, start: float, gain: float) -> list[SpokenWord]:
    """Add the phrase at start seconds, as far as it fits; all of its words, fitting or not."""
    first = int(start * SAMPLES_PER_SECOND)
    fitting = phrase.samples[: len(samples) - first]
    samples[first : first + len(fitting)] += fitting * gain
    return [
        SpokenWord(digit, start + word_start, start + word_end)
        for digit, word_start, word_end in zip(
            phrase.digits, phrase.starts, phrase.ends, strict=True
        )
    ]
