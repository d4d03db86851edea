"""Spoken digits: speakers, and phrases with the time of each word.

It knows which voices there are and how a phrase is cut; it does not know what is trained on them.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from services.faster_whisper.digits.espeak import Espeak, Samples, Voice, call_in_children
from services.faster_whisper.digits.vocabulary import DIGIT_COUNT, LANGUAGES, WORDS

SAMPLES_PER_SECOND = 16_000

ACCENTS = {
    "en": (
        *("en-us", "en", "en-gb-x-rp", "en-gb-x-gbclan"),
        *("en-gb-x-gbcwmd", "en-us-nyc", "en-029"),
    ),
    "fr": ("fr", "fr-be"),
}

# Never used in training: measure.py and the bundled recordings speak with these.
HELD_OUT_ACCENTS = {"en": ("en-gb-scotland",), "fr": ("fr-ch",)}
HELD_OUT_VARIANTS = (
    *("f4", "m5", "m7", "Andrea", "Michael", "max", "Annie", "Denis", "robert", "Hugo", "linda"),
    *("norbert", "steph", "steph2", "steph3", "klatt4", "iven", "iven2", "iven3", "iven4"),
    *("victor", "marcelo", "grandma", "pablo"),
)

_QUIET_DECIBELS = -38  # this far below the loudest 10 ms of a phrase, a word is over
_STEPS_PER_SECOND = 100
_WORD_COUNTS = (1, 1, 2, 2, 3, 3, 4, 5, 6, 7, 8, 10, 12)


@dataclass(frozen=True)
class Phrase:
    """Digits said in one breath; the words' times are in seconds from the first sample."""

    digits: tuple[int, ...]
    samples: Samples
    starts: tuple[float, ...]
    ends: tuple[float, ...]

    @property
    def seconds(self) -> float:
        """How long the phrase lasts."""
        return len(self.samples) / SAMPLES_PER_SECOND


@dataclass(frozen=True)
class Speaker:
    """A voice and what was recorded of it."""

    voice: Voice
    phrases: tuple[Phrase, ...]


def happens(rng: np.random.Generator, probability: float) -> bool:
    """Whether something of this probability happens now."""
    return bool(rng.random() < probability)


def record_speakers(count: int, phrases_each: int, seed: int) -> list[Speaker]:
    """About count speakers for training, languages in turn; espeak-ng's crashes cost some."""
    jobs = [
        (seed * 1_000_003 + index, LANGUAGES[index % len(LANGUAGES)], phrases_each)
        for index in range(count)
    ]
    recorded = call_in_children(record_speaker, jobs)
    return [speaker for speaker in recorded if speaker is not None and speaker.phrases]


def record_speaker(seed: int, language: str, phrase_count: int) -> Speaker:
    """One speaker of training; fewer phrases if the times of some are not known."""
    rng, espeak = np.random.default_rng(seed), Espeak()
    variants = sorted(set(espeak.list_variants()) - set(HELD_OUT_VARIANTS))
    voice = draw_voice(rng, language, ACCENTS[language], ["", *variants])
    phrases = []
    for _ in range(phrase_count):
        # One phrase in five has few digits to draw from, so that repeats are common.
        few = rng.permutation(DIGIT_COUNT)[: rng.integers(1, 4)]
        pool = few if happens(rng, 0.2) else np.arange(DIGIT_COUNT)
        digits = [int(digit) for digit in rng.choice(pool, rng.choice(_WORD_COUNTS))]
        separator = ", " if happens(rng, 0.2) else " "
        ending = str(rng.choice(["", ".", "?", "!"]))
        phrases.append(speak(espeak, voice, digits, separator, ending))
    return Speaker(voice, tuple(phrase for phrase in phrases if phrase is not None))


def draw_voice(
    rng: np.random.Generator, language: str, accents: Sequence[str], variants: Sequence[str]
) -> Voice:
    """A voice of one of these accents and variants; the empty variant is the plain accent."""
    accent, variant = str(rng.choice(accents)), str(rng.choice(variants))
    return Voice(
        language=language,
        name=f"{accent}+{variant}" if variant else accent,
        words_per_minute=int(rng.uniform(115, 225)),
        pitch=int(np.clip(rng.normal(50, 25), 0, 99)),
        pitch_range=int(rng.uniform(15, 85)),
        word_gap=int(rng.choice([0, 0, 0, 1, 3, 6, 12])),
        warp=float(rng.uniform(0.9, 1.12)),
    )


def speak(
    espeak: Espeak, voice: Voice, digits: Sequence[int], separator: str = " ", ending: str = ""
) -> Phrase | None:
    """Digits in a voice, cut close, loudest sample 1; None where a word's time is not known."""
    positions, text = [], ""
    for digit in digits:
        text += separator if text else ""
        positions.append(len(text) + 1)
        text += WORDS[voice.language][digit]
    samples, word_seconds = espeak.say(text + ending, voice)
    if any(position not in word_seconds for position in positions):
        return None
    samples = resample(samples, espeak.samples_per_second, SAMPLES_PER_SECOND / voice.warp)
    spans = _find_audible_spans(samples, [word_seconds[place] / voice.warp for place in positions])
    if spans is None:
        return None
    first = max(0, int((spans[0][0] - 0.02) * SAMPLES_PER_SECOND))
    last = min(len(samples), int((spans[-1][1] + 0.03) * SAMPLES_PER_SECOND))
    offset_seconds = first / SAMPLES_PER_SECOND
    return Phrase(
        digits=tuple(digits),
        samples=samples[first:last] / max(1e-4, float(np.abs(samples).max())),
        starts=tuple(start - offset_seconds for start, _ in spans),
        ends=tuple(end - offset_seconds for _, end in spans),
    )


def _find_audible_spans(
    samples: Samples, starts: Sequence[float]
) -> list[tuple[float, float]] | None:
    """Seconds between which each word is audible; None where one is not at all."""
    hop = SAMPLES_PER_SECOND // _STEPS_PER_SECOND
    step_count = len(samples) // hop
    if step_count == 0:
        return None
    power = (samples[: step_count * hop].reshape(step_count, hop) ** 2).mean(1)
    audible = power > power.max() * 10 ** (_QUIET_DECIBELS / 10)
    edges = [max(0, int(start * _STEPS_PER_SECOND)) for start in starts]
    spans: list[tuple[float, float]] = []
    for edge, next_edge in zip(edges, [*edges[1:], step_count], strict=True):
        steps = edge + np.flatnonzero(audible[edge:next_edge])
        if len(steps) == 0:
            return None
        first, last = steps[[0, -1]].tolist()
        spans.append((first / _STEPS_PER_SECOND, (last + 1) / _STEPS_PER_SECOND))
    return spans


def resample(samples: Samples, source_hertz: float, target_hertz: float) -> Samples:
    """The same sound at another rate, by its spectrum, tapered where the new one ends."""
    count = round(len(samples) * target_hertz / source_hertz)
    padded = -(-len(samples) // 2048) * 2048  # a length that the FFT is quick at
    target_padded = round(padded * target_hertz / source_hertz)
    spectrum = np.fft.rfft(samples, padded)
    kept = target_padded // 2 + 1
    if kept <= len(spectrum):
        spectrum = spectrum[:kept].copy()
        taper = max(1, kept // 30)
        spectrum[-taper:] *= np.linspace(1, 0, taper)
    else:
        spectrum = np.pad(spectrum, (0, kept - len(spectrum)))
    sound = np.fft.irfft(spectrum, target_padded) * (target_padded / padded)
    return sound.astype(np.float32)[:count]
