"""`python -m bench.accuracy`: how right the words and times are, on voices never heard before.

Clips by espeak-ng, which tells what it said and when; our engine hears them as the service would,
in its two ways. The model is the tiny one for digits: the figures say that nothing is lost between
the model and the answer, not how well a real model hears.
"""

import io
import wave
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from services.faster_whisper.digits import measure
from services.faster_whisper.digits.transcripts import split_segments
from services.faster_whisper.digits.vocabulary import WORDS
from services.faster_whisper.engine import WhisperEngine
from services.faster_whisper.library import Library
from services.faster_whisper.settings import WhisperSettings
from services.transcription.audio import SAMPLE_RATE, Recording
from services.transcription.request import TranscriptionRequest
from services.transcription.transcript import Transcript
from services.transcription.worker import Cancellation

MODEL = "services/faster_whisper/digits/model"
# Segments begin and end where the model says; words where its attention turns to them, which for
# this model is a median of 0.15 s early, in the library alone as well.
EDGE_SECONDS = 0.2
WORD_SECONDS = 0.4


@dataclass(frozen=True)
class Accuracy:
    """Figures over some clips, 0 to 1."""

    clips: int
    word_error_rate: float
    languages_right: float
    edges_right: float  # of segments, within EDGE_SECONDS
    word_starts_right: float  # of words, within WORD_SECONDS; one that was misheard is wrong


def paused_clips(seed: int, count: int, shortest: float, longest: float) -> Iterator[measure.Clip]:
    """Give phrases of digits with pauses, each in one voice, English and French in turn."""
    for number in range(count):
        yield measure.make_paused_clip(seed + number, ("en", "fr")[number % 2], shortest, longest)


def hear(engine: WhisperEngine, clips: Iterable[measure.Clip]) -> Accuracy:
    """Let an engine hear clips, and compare."""
    errors = said = languages = 0
    edges: list[bool] = []
    starts: list[bool] = []
    clips = list(clips)
    for clip in clips:
        assert clip.language is not None, clip
        transcript = _transcribe(engine, clip, words=False)
        expected = [WORDS[clip.language][word.digit] for word in clip.words]
        errors += measure.count_errors(expected, transcript.text.split())
        said += len(expected)
        languages += transcript.language == clip.language
        edges += _edges_right(clip, transcript)
        starts += _starts_right(clip, expected, _transcribe(engine, clip, words=True))
    return Accuracy(
        clips=len(clips),
        word_error_rate=errors / said,
        languages_right=languages / len(clips),
        edges_right=float(np.mean(edges)),
        word_starts_right=float(np.mean(starts)),
    )


def _transcribe(engine: WhisperEngine, clip: measure.Clip, *, words: bool) -> Transcript:
    samples = (np.clip(clip.samples, -1, 1) * 32767).astype(np.int16)
    file = io.BytesIO()
    with wave.open(file, "wb") as target:
        target.setparams((1, 2, SAMPLE_RATE, 0, "NONE", ""))
        target.writeframes(samples.tobytes())
    request = TranscriptionRequest(model="model", words=words)
    return engine.transcribe(Recording(file), request, Cancellation(), lambda _: None)


def _edges_right(clip: measure.Clip, transcript: Transcript) -> list[bool]:
    heard = [(item.start_seconds, item.end_seconds) for item in transcript.segments]
    return [
        any(abs(edges[index] - truth) <= EDGE_SECONDS for edges in heard)
        for segment in split_segments(clip.words, np.inf)
        for index, truth in enumerate((segment.start, segment.end))
    ]


def _starts_right(clip: measure.Clip, expected: list[str], transcript: Transcript) -> list[bool]:
    return [
        any(
            word.text.strip() == written and abs(word.start_seconds - said.start) <= WORD_SECONDS
            for word in transcript.words
        )
        for said, written in zip(clip.words, expected, strict=True)
    ]


def engine_of(batch_size: int) -> WhisperEngine:
    """Give the service's engine with the tiny model."""
    settings = WhisperSettings(model=MODEL, inference_device="cpu", batch_size=batch_size)
    return WhisperEngine(settings, Library(settings), audio_seconds_max=3600)


def report() -> None:
    """Print a table."""
    print("accuracy on unseen voices: the digits model, English and French")
    print("| way | clips | word error rate | language | edges within 0.2 s | words within 0.4 s |")
    print("|---|---|---|---|---|---|")
    sets = {"8-28 s": (40, 8.0, 28.0), "45-120 s": (20, 45.0, 120.0)}
    for batch_size, way in ((1, "window by window"), (8, "8 windows at once")):
        engine = engine_of(batch_size)
        for name, (clips, shortest, longest) in sets.items():
            found = hear(engine, paused_clips(1000, clips, shortest, longest))
            print(
                f"| {way}, {name} | {found.clips} | {found.word_error_rate:.1%}"
                f" | {found.languages_right:.0%} | {found.edges_right:.0%}"
                f" | {found.word_starts_right:.0%} |"
            )


if __name__ == "__main__":
    report()
