"""What is not speech: background noise, the wear of rooms and microphones, and empty clips.

It knows sound only: no words, no network.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from services.faster_whisper.digits.espeak import Samples
from services.faster_whisper.digits.speech import SAMPLES_PER_SECOND, Speaker, happens

BACKGROUND = ("white", "white", "pink", "pink", "brown", "hum", "babble")  # by weight
EMPTY = ("white", "pink", "brown", "hum", "melody")  # no babble: nothing like speech

_SHELF_SECONDS = 60
_BABBLE_PHRASES = 240  # over a minute: several voices at any time


def make_shelf(rng: np.random.Generator, speakers: Sequence[Speaker]) -> Mapping[str, Samples]:
    """A minute of each kind of noise, of mean power 1, to cut from."""
    count = _SHELF_SECONDS * SAMPLES_PER_SECOND
    hertz = np.fft.rfftfreq(count, 1 / SAMPLES_PER_SECOND)
    slopes = {"white": 0.0, "pink": 0.5, "brown": 1.0}
    shelf = {
        kind: np.fft.irfft(np.fft.rfft(rng.normal(size=count)) / np.maximum(hertz, 20) ** slope)
        for kind, slope in slopes.items()
    }
    shelf["hum"] = _make_hum(rng, count)
    shelf["babble"] = _make_babble(rng, count, speakers)
    shelf["melody"] = _make_melody(rng, count)
    return {kind: (sound / sound.std()).astype(np.float32) for kind, sound in shelf.items()}


def _make_hum(rng: np.random.Generator, count: int) -> npt.NDArray[np.float64]:
    seconds = np.arange(count) / SAMPLES_PER_SECOND
    mains_hertz = 50
    hum = np.sum(
        [
            np.sin(2 * np.pi * mains_hertz * overtone * seconds + rng.uniform(0, 6)) / overtone
            for overtone in (1, 2, 3, 5)
        ],
        axis=0,
    )
    return np.asarray(hum / hum.std() + 0.1 * rng.normal(size=count))


def _make_babble(
    rng: np.random.Generator, count: int, speakers: Sequence[Speaker]
) -> npt.NDArray[np.float64]:
    """Many phrases at once, each backwards, so that no digit can be heard in it."""
    babble = np.zeros(count)
    for _ in range(_BABBLE_PHRASES):
        phrases = speakers[int(rng.integers(len(speakers)))].phrases
        backwards = phrases[int(rng.integers(len(phrases)))].samples[::-1]
        start = int(rng.integers(count - len(backwards)))
        babble[start : start + len(backwards)] += backwards
    return babble


def _make_melody(rng: np.random.Generator, count: int) -> npt.NDArray[np.float64]:
    notes_per_second = 2
    note_samples = SAMPLES_PER_SECOND // notes_per_second
    swell = 0.5 + 0.5 * np.sin(4 * np.pi * np.arange(count) / SAMPLES_PER_SECOND)
    melody = np.zeros(count)
    for _ in range(3):
        semitones = rng.integers(0, 24, count // note_samples)
        hertz = np.repeat(220 * 2 ** (semitones / 12), note_samples)
        melody += np.sin(2 * np.pi * np.cumsum(hertz) / SAMPLES_PER_SECOND) * swell
    return melody


def cut(
    rng: np.random.Generator, shelf: Mapping[str, Samples], kinds: Sequence[str], count: int
) -> Samples:
    """Noise of one of these kinds, of mean power 1."""
    sound = shelf[str(rng.choice(kinds))]
    start = int(rng.integers(len(sound)))
    piece = np.take(sound, np.arange(start, start + count), mode="wrap")
    return np.asarray(piece / max(1e-6, float(piece.std())), dtype=np.float32)


def add_noise(samples: Samples, noise: Samples, decibels: float) -> Samples:
    """The samples with noise of mean power 1, brought this far below them."""
    loudness = np.sqrt(np.mean(samples**2)) * 10 ** (-decibels / 20)
    return np.asarray(samples + noise * loudness, dtype=np.float32)


def echo(rng: np.random.Generator, samples: Samples) -> Samples:
    """The samples as a small room returns them."""
    count = int(rng.uniform(0.05, 0.25) * SAMPLES_PER_SECOND)
    decay = np.exp(-6 * np.arange(count) / count) * rng.uniform(0.02, 0.1)
    response = rng.normal(size=count) * decay
    response[0] = 1
    padded = 1 << (len(samples) + count - 1).bit_length()
    spectrum = np.fft.rfft(samples, padded) * np.fft.rfft(response, padded)
    return np.fft.irfft(spectrum, padded)[: len(samples)].astype(np.float32)


def equalise(rng: np.random.Generator, samples: Samples) -> Samples:
    """The samples as another microphone hears them: tilted, perhaps without highs or lows."""
    spectrum = np.fft.rfft(samples)
    hertz = np.linspace(0, SAMPLES_PER_SECOND / 2, len(spectrum))
    decibels_per_octave = rng.uniform(-6, 6)
    gain = 10 ** (decibels_per_octave * np.log2(np.maximum(hertz, 100) / 1000) / 20)
    if happens(rng, 0.3):
        gain /= 1 + (hertz / rng.uniform(3000, 6000)) ** 8
    if happens(rng, 0.3):
        gain /= 1 + (rng.uniform(80, 300) / np.maximum(hertz, 1)) ** 4
    return np.fft.irfft(spectrum * gain, len(samples)).astype(np.float32)


def make_empty_clip(
    rng: np.random.Generator, shelf: Mapping[str, Samples], seconds_max: float
) -> Samples:
    """A clip without speech: silence, noise, tones, clicks, sweeps; a third under a second."""
    short = happens(rng, 0.35)
    seconds = rng.uniform(0.02, 1.0) if short else rng.uniform(1.0, seconds_max)
    count = int(seconds * SAMPLES_PER_SECOND)
    kind = rng.choice(["silence", "noise", "tones"], p=[0.25, 0.6, 0.15])
    if kind == "silence":
        return np.zeros(count, np.float32)
    clip: npt.NDArray[np.floating]
    clip = _make_tones(rng, count) if kind == "tones" else cut(rng, shelf, EMPTY, count)
    ticks = np.arange(count) / SAMPLES_PER_SECOND
    if happens(rng, 0.3):
        beat = np.sin(2 * np.pi * rng.uniform(0.3, 12) * ticks + rng.uniform(0, 6))
        clip = clip * (1 + rng.uniform(0.2, 1) * beat)
    if happens(rng, 0.25):
        clip = clip + _make_steps(rng, count)
    if happens(rng, 0.15):
        turns = rng.uniform(60, 3000) * ticks + rng.uniform(-100, 100) * ticks**2
        clip = clip + rng.uniform(0.3, 3) * np.sin(2 * np.pi * turns)
    if happens(rng, 0.15):
        burst_samples = SAMPLES_PER_SECOND // 20
        on = rng.random(count // burst_samples + 1) < rng.uniform(0.1, 0.9)
        clip = clip * np.repeat(on, burst_samples)[:count]
    return np.asarray(clip * 10 ** rng.uniform(-4, -0.7), dtype=np.float32)


def _make_tones(rng: np.random.Generator, count: int) -> Samples:
    seconds = np.arange(count) / SAMPLES_PER_SECOND
    hertz = rng.uniform(60, 1200)
    tones = 1e-3 * rng.normal(size=count)
    for overtone in range(1, rng.integers(2, 6)):
        tones += rng.random() ** 2 * np.sin(2 * np.pi * hertz * overtone * seconds + overtone)
    return tones.astype(np.float32)


def _make_steps(rng: np.random.Generator, count: int) -> Samples:
    """Plateaus with hard edges: clicks, when short."""
    steps = np.zeros(count, np.float32)
    for start in rng.integers(0, count, rng.integers(1, 30)):
        steps[start : start + rng.integers(1, SAMPLES_PER_SECOND)] += rng.uniform(-3, 3)
    return steps
