"""Measures a digits model on voices that it never heard, and prints a table for its card.

    python -m services.faster_whisper.digits.measure DIR

DIR is a folder that faster_whisper.WhisperModel loads. The clips are made anew by espeak-ng, the
same ones for the same seed. Needs espeak-ng and faster-whisper; no torch.
"""

import argparse
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from faster_whisper import WhisperModel

from services.faster_whisper.digits import noise
from services.faster_whisper.digits.espeak import Espeak, Samples, Voice, call_in_children
from services.faster_whisper.digits.speech import (
    ACCENTS,
    HELD_OUT_ACCENTS,
    HELD_OUT_VARIANTS,
    SAMPLES_PER_SECOND,
    Phrase,
    happens,
    speak,
)
from services.faster_whisper.digits.transcripts import split_segments
from services.faster_whisper.digits.vocabulary import DIGIT_COUNT, LANGUAGES, WORDS
from services.faster_whisper.digits.windows import SpokenWord

SEED = 12345
UTTERANCES, PAUSED_CLIPS, LONG_CLIPS, EMPTY_CLIPS = 160, 40, 20, 30
EDGE_SECONDS = 0.2  # a segment's edge this close to the true one counts as right


@dataclass(frozen=True)
class Clip:
    """A sound and what is to be heard in it; language is None where nobody speaks."""

    samples: Samples
    language: str | None
    words: tuple[SpokenWord, ...] = ()

    @property
    def seconds(self) -> float:
        """How long it lasts."""
        return len(self.samples) / SAMPLES_PER_SECOND


@dataclass(frozen=True)
class Heard:
    """What the model made of one clip; the edges are (start, end) of segments in seconds."""

    language: str
    words: tuple[str, ...]
    edges: tuple[tuple[float, float], ...]


def draw_held_out_voice(rng: np.random.Generator, language: str) -> Voice:
    """A variant that training never heard, at a usual pace; often an accent that is new, too."""
    accents = [*ACCENTS[language], *HELD_OUT_ACCENTS[language] * 3]
    return Voice(
        language=language,
        name=f"{rng.choice(accents)}+{rng.choice(HELD_OUT_VARIANTS)}",
        words_per_minute=int(rng.integers(125, 205)),
        pitch=int(rng.integers(15, 85)),
    )


def _draw_phrase(
    rng: np.random.Generator, espeak: Espeak, voice: Voice, fewest: int, most: int
) -> Phrase | None:
    digits = [int(digit) for digit in rng.integers(0, DIGIT_COUNT, rng.integers(fewest, most + 1))]
    separator, ending = str(rng.choice([" ", " ", ", "])), str(rng.choice(["", "."]))
    return speak(espeak, voice, digits, separator, ending)


def make_utterance(seed: int, language: str) -> Clip:
    """Two to ten digits, clean."""
    rng, espeak = np.random.default_rng(seed), Espeak()
    voice = draw_held_out_voice(rng, language)
    phrase = None
    while phrase is None:
        phrase = _draw_phrase(rng, espeak, voice, 2, 10)
    start = float(rng.uniform(0.0, 0.3))
    samples = np.zeros(int((start + phrase.seconds + 0.3) * SAMPLES_PER_SECOND), np.float32)
    return Clip(samples, language, tuple(_place(samples, phrase, start)))


def make_paused_clip(seed: int, language: str, shortest: float, longest: float) -> Clip:
    """Phrases of one to ten digits with pauses of half a second to three, and a faint hiss."""
    rng, espeak = np.random.default_rng(seed), Espeak()
    voice = draw_held_out_voice(rng, language)
    seconds, start = rng.uniform(shortest, longest), float(rng.uniform(0.0, 0.8))
    samples = np.zeros(int(seconds * SAMPLES_PER_SECOND), np.float32)
    words: list[SpokenWord] = []
    while True:
        phrase = _draw_phrase(rng, espeak, voice, 1, 10)
        if phrase is None:
            continue
        if start + phrase.seconds + 0.3 > seconds:
            break
        words += _place(samples, phrase, start)
        start += phrase.seconds + rng.uniform(0.5, 1.2 if happens(rng, 0.5) else 3.0)
    hiss = rng.normal(size=len(samples)) * 10 ** rng.uniform(-4.5, -2.6)
    return Clip((samples + hiss).astype(np.float32), language, tuple(words))


def _place(samples: Samples, phrase: Phrase, start: float) -> list[SpokenWord]:
    first = int(start * SAMPLES_PER_SECOND)
    samples[first : first + len(phrase.samples)] += 0.5 * phrase.samples
    words = zip(phrase.digits, phrase.starts, phrase.ends, strict=True)
    return [SpokenWord(digit, start + begin, start + end) for digit, begin, end in words]


def disturb(rng: np.random.Generator, clip: Clip, colour: str) -> Clip:
    """The clip with white or brown noise, 12 to 25 dB below it."""
    sound = rng.normal(size=len(clip.samples))
    if colour == "brown":
        spectrum = np.fft.rfft(sound)
        hertz = np.linspace(0, SAMPLES_PER_SECOND / 2, len(spectrum))
        sound = np.fft.irfft(spectrum / np.maximum(hertz, 40), len(sound))
    background = (sound / sound.std()).astype(np.float32)
    samples = noise.add_noise(clip.samples, background, decibels=rng.uniform(12, 25))
    return Clip(samples, clip.language, clip.words)


def make_empty_clip(rng: np.random.Generator, index: int) -> Clip:
    """Silence, hiss, loud hiss, a tone or a rumble, in turn; 0.3 to 45 s."""
    count = int(rng.choice([0.3, 1, 3, 10, 31, 45]) * SAMPLES_PER_SECOND)
    white, seconds = rng.normal(size=count), np.arange(count) / SAMPLES_PER_SECOND
    kinds = (
        np.zeros(count),
        0.003 * white,
        0.05 * white,
        0.1 * np.sin(2 * np.pi * rng.uniform(80, 1000) * seconds),
        np.cumsum(0.001 * white) % 0.2 - 0.1,
    )
    return Clip(kinds[index % len(kinds)].astype(np.float32), language=None)


def make_sets(seed: int) -> Mapping[str, Sequence[Clip]]:
    """All clips, by what makes them hard; espeak-ng's crashes cost a few."""

    def speak_all(
        function: Callable[..., Clip], count: int, first: int, *arguments: float
    ) -> list[Clip]:
        jobs = [
            (seed * 1_000 + first + index, LANGUAGES[index % len(LANGUAGES)], *arguments)
            for index in range(count)
        ]
        return [clip for clip in call_in_children(function, jobs) if clip is not None]

    rng = np.random.default_rng(seed)
    clean = speak_all(make_utterance, UTTERANCES, 0)
    colours = ("brown", "white", "white")
    return {
        "clean, 2 to 10 digits": clean,
        "the same with noise, 12 to 25 dB below": [
            disturb(rng, clip, colours[index % len(colours)]) for index, clip in enumerate(clean)
        ],
        "phrases with pauses, 8 to 28 s": speak_all(make_paused_clip, PAUSED_CLIPS, 300, 8.0, 28.0),
        "phrases with pauses, 45 to 120 s": speak_all(
            make_paused_clip, LONG_CLIPS, 400, 45.0, 120.0
        ),
        "no speech, 0.3 to 45 s": [make_empty_clip(rng, index) for index in range(EMPTY_CLIPS)],
    }


def count_errors(expected: Sequence[str], actual: Sequence[str]) -> int:
    """Words to change, insert or delete (Levenshtein)."""
    row = list(range(len(actual) + 1))
    for index, word in enumerate(expected, start=1):
        above, row = row, [index]
        for column, heard in enumerate(actual, start=1):
            changed = above[column - 1] + (word != heard)
            row.append(min(changed, above[column] + 1, row[column - 1] + 1))
    return row[-1]


def hear(model: WhisperModel, clip: Clip, *, vad_filter: bool = False) -> Heard:
    """What the model hears with faster-whisper's defaults, language detected."""
    segments, information = model.transcribe(clip.samples, vad_filter=vad_filter)
    kept = list(segments)
    return Heard(
        language=information.language,
        words=tuple(" ".join(segment.text for segment in kept).split()),
        edges=tuple((segment.start, segment.end) for segment in kept),
    )


def describe_speech(clips: Sequence[Clip], heard: Sequence[Heard]) -> str:
    """Word error rates, languages and edges as cells of the table."""
    errors, words = dict.fromkeys(LANGUAGES, 0), dict.fromkeys(LANGUAGES, 0)
    languages_right = 0
    edges_right: list[bool] = []
    for clip, result in zip(clips, heard, strict=True):
        assert clip.language is not None, clip
        expected = [WORDS[clip.language][word.digit] for word in clip.words]
        errors[clip.language] += count_errors(expected, result.words)
        words[clip.language] += len(expected)
        languages_right += result.language == clip.language
        edges_right += _compare_edges(clip, result)
    rates = [f"{errors[name] / words[name]:.1%}" for name in LANGUAGES]
    edges = f"{np.mean(edges_right):.0%}"
    return f"{' / '.join(rates)} | {languages_right / len(clips):.1%} | {edges}"


def _compare_edges(clip: Clip, heard: Heard) -> list[bool]:
    """For each true segment, whether one was heard to start where it starts, and to end so."""
    right = []
    for segment in split_segments(clip.words, np.inf):
        for index, edge in enumerate((segment.start, segment.end)):
            distances = [abs(edges[index] - edge) for edges in heard.edges]
            right.append(min(distances, default=np.inf) <= EDGE_SECONDS)
    return right


def measure(folder: Path, seed: int, threads: int) -> str:
    """The table, in Markdown."""
    model = WhisperModel(str(folder), device="cpu", compute_type="int8", cpu_threads=threads)
    lines = [
        "| set | clips | word error rate en / fr | language right | edges within 0.2 s |",
        "|---|---|---|---|---|",
    ]
    sounded = taken = 0.0
    for name, clips in make_sets(seed).items():
        started = time.perf_counter()
        heard = [hear(model, clip) for clip in clips]
        taken += time.perf_counter() - started
        sounded += sum(clip.seconds for clip in clips)
        if clips[0].language is None:
            filtered = [hear(model, clip, vad_filter=True) for clip in clips]
            cells = f"text in {_count_texts(heard)}; with VAD in {_count_texts(filtered)} | - | -"
        else:
            cells = describe_speech(clips, heard)
        lines.append(f"| {name} | {len(clips)} | {cells} |")
    speed = f"{sounded:.0f} s of sound in {taken:.0f} s on {threads} threads"
    return "\n".join([*lines, "", speed, ""])


def _count_texts(heard: Sequence[Heard]) -> int:
    return sum(bool(result.words) for result in heard)


def main() -> None:
    """Print the table of the folder that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path, metavar="DIR")
    parser.add_argument("--seed", type=int, default=SEED, help="of the clips")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    sys.stdout.write(measure(options.folder, options.seed, options.threads))


if __name__ == "__main__":
    main()
