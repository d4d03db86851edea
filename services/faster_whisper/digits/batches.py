"""Batches of training windows as arrays, made in a process beside the one that learns.

It knows how features look to faster-whisper and how rows are padded; it knows no network.
"""

import multiprocessing
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from faster_whisper.feature_extractor import FeatureExtractor

from services.faster_whisper.digits.speech import Speaker, happens
from services.faster_whisper.digits.transcripts import (
    IGNORED,
    Style,
    Transcript,
    invent_previous,
    write,
)
from services.faster_whisper.digits.vocabulary import (
    DIGIT_COUNT,
    END_OF_TEXT,
    LANGUAGES,
    TIMESTAMP_LAST,
)
from services.faster_whisper.digits.windows import Hardness, Window, WindowMaker

FRAMES_PER_SECOND = 50  # of the network; the features have twice as many
BATCHES_READY_MAX = 8
BATCH_SECONDS_MAX = 300.0  # measured: each is made and used within a few seconds

# How often a window has something before it, has times, and is translated into English.
_PREVIOUS, _TIMESTAMPS, _TRANSLATED = 0.4, 0.7, 0.1


@dataclass(frozen=True)
class Stage:
    """A part of the training: so many steps, on windows of one length."""

    steps: int
    batch_size: int
    seconds: float
    scattered: bool  # windows begin anywhere in the 30 s that the network hears, not at 0


@dataclass(frozen=True)
class Batch:
    """The arrays of one step; a span of -1 means that the token is about no place in the sound."""

    features: npt.NDArray[np.float32]  # [batch, 80, 2 * frames]
    offsets: tuple[int, ...]  # frames before each window
    tokens: npt.NDArray[np.int64]  # [batch, tokens]
    labels: npt.NDArray[np.int64]  # [batch, tokens]
    spans: npt.NDArray[np.float32]  # [batch, tokens, 2] in frames
    frame_words: npt.NDArray[np.int64]  # [batch, frames, 2]: class of this word, of the last


class BatchMaker:
    """Batches without end."""

    def __init__(self, rng: np.random.Generator, speakers: Sequence[Speaker]) -> None:
        """Hold on to the speakers."""
        self._rng = rng
        self._windows = WindowMaker(rng, speakers)
        self._extractor = FeatureExtractor()

    def make(self, stage: Stage, hardness_share: float) -> Batch:
        """One batch; worn sounds and text before are as frequent as the share (0 to 1) says."""
        frames = int(stage.seconds * FRAMES_PER_SECOND)
        hardness = Hardness().scale_wear(hardness_share)
        previous = _PREVIOUS * hardness_share * (0.4 if stage.scattered else 1.0)
        windows, features, offsets, transcripts = [], [], [], []
        for _ in range(stage.batch_size):
            window = self._windows.make(stage.seconds, hardness)
            room = TIMESTAMP_LAST - frames
            offset = int(self._rng.integers(0, room + 1)) if stage.scattered else 0
            style = self._draw_style(window, offset, previous)
            windows.append(window)
            offsets.append(offset)
            features.append(self._extract(window, frames))
            transcripts.append(write(self._rng, window, stage.seconds, style))
        tokens, labels, spans = _pad(transcripts, frames)
        return Batch(
            features=np.stack(features),
            offsets=tuple(offsets),
            tokens=tokens,
            labels=labels,
            spans=spans,
            frame_words=np.stack([_label_frames(window, frames) for window in windows]),
        )

    def _draw_style(self, window: Window, offset: int, previous: float) -> Style:
        rng = self._rng
        language = window.language or str(rng.choice(LANGUAGES))
        return Style(
            task="translate" if happens(rng, _TRANSLATED) else "transcribe",
            timestamps=happens(rng, _TIMESTAMPS),
            previous=invent_previous(rng, language) if happens(rng, previous) else (),
            offset=offset,
        )

    def _extract(self, window: Window, frames: int) -> npt.NDArray[np.float32]:
        """The window as transcribe() would show it: log-mel, then zeros up to its length."""
        features = np.zeros((self._extractor.mel_filters.shape[0], 2 * frames), np.float32)
        heard = self._extractor(window.samples)[:, :-1]
        if happens(self._rng, 0.25):
            # The floor follows the loudest moment of a whole file, which may be outside.
            heard = np.maximum(heard, heard.max() + (self._rng.uniform(0, 1) - 8) / 4)
        count = min(heard.shape[1], 2 * frames)
        features[:, :count] = heard[:, :count]
        return features


def _pad(
    transcripts: Sequence[Transcript], frames: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    shape = (len(transcripts), max(len(transcript.inputs) for transcript in transcripts))
    tokens, labels = np.full(shape, END_OF_TEXT), np.full(shape, IGNORED)
    spans = np.full((*shape, 2), -1.0, np.float32)
    for row, transcript in enumerate(transcripts):
        tokens[row, : len(transcript.inputs)] = transcript.inputs
        labels[row, : len(transcript.labels)] = transcript.labels
        for column, span in enumerate(transcript.spans):
            if span is None or span[0] * FRAMES_PER_SECOND >= frames:
                continue
            start, end = max(0.0, span[0]), max(span[1], span[0] + 0.02)
            spans[row, column, 0] = start * FRAMES_PER_SECOND
            spans[row, column, 1] = min(frames - 1, end * FRAMES_PER_SECOND)
    return tokens, labels, spans


def _label_frames(window: Window, frames: int) -> npt.NDArray[np.int64]:
    """The class of the word in each frame, and of the word before it: int64 [frames, 2]."""
    labels = np.zeros((frames, 2), np.int64)
    if window.language is None:
        return labels
    base = 1 + DIGIT_COUNT * LANGUAGES.index(window.language)
    last_class, last_end = 0, -np.inf
    for word in window.words:
        first, end = int(word.start * FRAMES_PER_SECOND), int(word.end * FRAMES_PER_SECOND) + 1
        last_class = last_class if word.start - last_end <= 1.0 else 0
        labels[first:end] = (base + word.digit, last_class)
        last_class, last_end = base + word.digit, word.end
    return labels


def stream(
    speakers: Sequence[Speaker], stages: Sequence[Stage], easy_share: float, seed: int
) -> Iterator[Batch]:
    """The batches of all stages in order, made by a child process ahead of their use.

    The first half of easy_share has clean sound; during the second half the wear grows.
    """
    context = multiprocessing.get_context("fork")  # the speakers are large: shared, not sent
    ready = context.Queue(BATCHES_READY_MAX)

    def fill() -> None:
        maker = BatchMaker(np.random.default_rng(seed), speakers)
        total, step = sum(stage.steps for stage in stages), 0
        for stage in stages:
            for _ in range(stage.steps):
                ramp = (step / total - easy_share / 2) / (easy_share / 2)
                batch = maker.make(stage, float(np.clip(ramp, 0, 1)))
                ready.put(batch, timeout=BATCH_SECONDS_MAX)  # ends the child if nobody takes
                step += 1

    child = context.Process(target=fill, daemon=True)
    child.start()
    try:
        for _ in range(sum(stage.steps for stage in stages)):
            yield ready.get(timeout=BATCH_SECONDS_MAX)
    finally:
        child.kill()
        child.join()
