"""Measures an aligner on voices that it never heard, and prints a table for its card.

    python -m tests.speech.aligner.measure DIR

DIR is a folder that whisperx.load_align_model loads. The clips are the digits' own, made anew by
espeak-ng, the same ones for the same seed. Needs espeak-ng and whisperx.
"""

import argparse
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import nltk
import numpy as np
import torch
import whisperx
from numpy.typing import NDArray
from transformers import Wav2Vec2ForCTC

from services.faster_whisper.digits.espeak import call_in_children
from services.faster_whisper.digits.measure import (
    Clip,
    disturb,
    make_paused_clip,
    make_utterance,
)
from services.faster_whisper.digits.vocabulary import WORDS

SEED = 54321
UTTERANCES, PAUSED_CLIPS = 120, 40
EDGES_SECONDS = (0.05, 0.1, 0.2)  # an edge this close to the true one counts as right
AROUND_SECONDS_MAX = 0.3  # of silence in a segment before its words, and after
PUNKT_FILES = ("collocations.tab", "sent_starters.txt", "abbrev_types.txt", "ortho_context.tab")


@dataclass(frozen=True)
class Aligner:
    """What whisperx loads."""

    network: Wav2Vec2ForCTC
    metadata: Mapping[str, object]


def load(folder: Path) -> Aligner:
    """Load a folder as whisperx does, without asking a hub."""
    network, metadata = whisperx.load_align_model(
        "en", "cpu", model_name=str(folder), model_cache_only=True
    )
    return Aligner(network, metadata)


def align(aligner: Aligner, clip: Clip, start: float, end: float) -> NDArray[np.float64]:
    """How far each word's start and end are from the true ones: seconds [words, 2].

    The clip's words are one segment, from start to end seconds. NaN where whisperx gave no time.
    """
    text = " ".join(WORDS["en"][word.digit] for word in clip.words)
    segment = {"text": f" {text}", "start": start, "end": end}
    result = whisperx.align([segment], aligner.network, aligner.metadata, clip.samples, "cpu")
    found = [
        (word.get("start", np.nan), word.get("end", np.nan)) for word in result["word_segments"]
    ]
    true = [(word.start, word.end) for word in clip.words]
    return np.asarray(found or np.full((len(true), 2), np.nan)) - np.asarray(true)


def make_sets(seed: int) -> Mapping[str, Sequence[Clip]]:
    """All clips, by what makes them hard; espeak-ng's crashes cost a few."""

    def speak_all(function: Callable[..., Clip], count: int, *arguments: float) -> list[Clip]:
        jobs = [(seed * 1_000 + index, "en", *arguments) for index in range(count)]
        return [clip for clip in call_in_children(function, jobs) if clip is not None]

    rng = np.random.default_rng(seed)
    clean = speak_all(make_utterance, UTTERANCES)
    return {
        "clean, 2 to 10 digits": clean,
        "the same with noise, 12 to 25 dB below": [disturb(rng, clip, "white") for clip in clean],
        "phrases with pauses, 8 to 28 s": speak_all(make_paused_clip, PAUSED_CLIPS, 8.0, 28.0),
    }


def measure(folder: Path, seed: int) -> str:
    """The table, in Markdown."""
    aligner, rng = load(folder), np.random.default_rng(seed)
    within = " | ".join(f"within {seconds} s" for seconds in EDGES_SECONDS)
    lines = [
        f"| set | words | {within} | median start / end | worst |",
        "|---|---|" + "---|" * (len(EDGES_SECONDS) + 2),
    ]
    for name, clips in make_sets(seed).items():
        spans = [_draw_span(rng, clip) for clip in clips]
        errors = np.concatenate(
            [align(aligner, clip, *span) for clip, span in zip(clips, spans, strict=True)]
        )
        far = np.abs(np.nan_to_num(errors, nan=np.inf))
        shares = " | ".join(f"{(far <= seconds).mean():.1%}" for seconds in EDGES_SECONDS)
        start, end = np.nanmedian(errors, axis=0)
        medians, worst = f"{start:+.2f} / {end:+.2f} s", f"{far.max():.2f} s"
        lines.append(f"| {name} | {len(errors)} | {shares} | {medians} | {worst} |")
    return "\n".join([*lines, ""])


def _draw_span(rng: np.random.Generator, clip: Clip) -> tuple[float, float]:
    """A segment as Whisper may give it: around the words, with some silence."""
    before, after = rng.uniform(0, AROUND_SECONDS_MAX, 2)
    start = max(0.0, clip.words[0].start - before)
    return round(start, 2), round(min(clip.seconds, clip.words[-1].end + after), 2)


def write_punkt(folder: Path) -> None:
    """Write the files that NLTK wants in order to split sentences; empty ones do."""
    english = folder / "tokenizers/punkt_tab/english"
    english.mkdir(parents=True)
    for name in PUNKT_FILES:
        (english / name).touch()


def main() -> None:
    """Print the table of the folder that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path, metavar="DIR")
    parser.add_argument("--seed", type=int, default=SEED, help="of the clips")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        write_punkt(Path(temporary))
        nltk.data.path.insert(0, temporary)
        sys.stdout.write(measure(options.folder, options.seed))


if __name__ == "__main__":
    main()
