"""Finds the times of words by the sound: whisperX's aligner, held to what clients rely on.

whisperX may leave out times, words, or whole sentences, may give them in another order, and raises
what its libraries raise (m-bain/whisperX#15, #77, #402, #412). What comes out here has every
word of the passage, in order, with times that are within it and do not run backwards; where that
cannot be had, the passage stays as it was.
"""

import logging
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import whisperx
from faster_whisper.transcribe import get_compression_ratio
from numpy.typing import NDArray

from services.transcription.transcript import Segment, Word
from services.whisperx.aligners import Aligner

log = logging.getLogger(__name__)

_FRAMES_PER_SECOND = 100  # of `seek`
# Two digits are what Whisper's own times have, and what SRT cannot show as nothing.
_SHORTEST_SECONDS = 0.01
# Within a word ("U.S.A.'s", "at 5 p.m.:"), whisperX may take such a mark for the end of a sentence
# and then tells the letter after it in both. To the aligner, one such mark is as good as another.
_END_WITHIN_WORD = re.compile(r"""[.?!](?=\S*[^\s"')\]}])""")


@dataclass(frozen=True)
class Passage:
    """What the model heard in one window; times in seconds from the beginning."""

    start_seconds: float
    end_seconds: float
    text: str  # it begins with a space where the language has spaces; no space is doubled
    tokens: tuple[int, ...]
    avg_logprob: float


def unaligned(passage: Passage) -> Segment:
    """Give a passage with the times of its window."""
    return Segment(
        start_seconds=passage.start_seconds,
        end_seconds=max(passage.end_seconds, passage.start_seconds + _SHORTEST_SECONDS),
        text=passage.text,
        seek=round(passage.start_seconds * _FRAMES_PER_SECOND),
        tokens=passage.tokens,
        temperature=0.0,
        avg_logprob=passage.avg_logprob,
        compression_ratio=float(get_compression_ratio(passage.text)),
        no_speech_prob=0.0,
        words=None,
    )


def align(
    passage: Passage, aligner: Aligner, samples: NDArray[np.float32]
) -> tuple[Segment, ...] | None:
    """Give a passage as sentences with words, or None if it cannot be aligned.

    `samples` is the sound of the passage alone, float32 [samples], 16 kHz, mono.
    """
    length_seconds = passage.end_seconds - passage.start_seconds
    text = _END_WITHIN_WORD.sub(",", passage.text)
    spoken = {"start": 0.0, "end": length_seconds, "text": text}
    try:
        found = whisperx.align([spoken], aligner.model, aligner.metadata, samples, aligner.device)[
            "segments"
        ]
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        log.warning("a passage cannot be aligned reason=%s", type(error).__name__)
        return None
    return _checked(passage, text, found)


def _checked(
    passage: Passage, spoken: str, found: Sequence[dict[str, Any]]
) -> tuple[Segment, ...] | None:
    """Give the passage in the sentences that were found; `spoken` is as long as its own text."""
    texts = cut(spoken, [str(sentence["text"]) for sentence in found])
    if texts is None:
        return None
    position = 0
    told: list[tuple[str, dict[str, Any]]] = []
    for text, sentence in zip(texts, found, strict=True):
        words = sentence.get("words") or []
        pieces = cut(text, [str(word["word"]) for word in words])
        if pieces is None:
            return None
        for piece, word in zip(pieces, words, strict=True):
            told.append((passage.text[position : position + len(piece)], word))
            position += len(piece)
    timed = _timed(told, passage)
    if timed is None:
        return None
    remaining = iter(timed)
    return tuple(
        _sentence(passage, number, tuple(next(remaining) for _ in sentence["words"]))
        for number, sentence in enumerate(found)
    )


def _sentence(passage: Passage, number: int, words: tuple[Word, ...]) -> Segment:
    text = "".join(word.text for word in words)
    start = words[0].start_seconds
    return Segment(
        start_seconds=start,
        end_seconds=max(words[-1].end_seconds, start + _SHORTEST_SECONDS),
        text=text,
        seek=round(passage.start_seconds * _FRAMES_PER_SECOND),
        # The model's tokens are the passage's; nobody knows which are whose.
        tokens=passage.tokens if number == 0 else (),
        temperature=0.0,
        avg_logprob=passage.avg_logprob,
        compression_ratio=float(get_compression_ratio(text)),
        no_speech_prob=0.0,
        words=words,
    )


def cut(text: str, parts: Sequence[str]) -> list[str] | None:
    """Cut a text so that each piece holds one part and all pieces joined are the text.

    None if the parts are not in it in this order, or something is left over between them.
    """
    pieces: list[str] = []
    begin = position = 0
    for number, part in enumerate(parts):
        found = text.find(part.strip(), position)
        if not part.strip() or found < 0 or text[position:found].strip():
            return None
        if number:
            pieces.append(text[begin:position])
            begin = position
        position = found + len(part.strip())
    if not pieces and not parts:
        return None
    if text[position:].strip():
        return None
    return [*pieces, text[begin:]]


def _timed(told: Iterable[tuple[str, dict[str, Any]]], passage: Passage) -> list[Word] | None:
    """Give the words with their times in the recording; None if none has a time of its own.

    A word without one gets what is between its neighbours.
    """
    words = list(told)
    starts = [_moment(word.get("start"), passage) for _, word in words]
    ends = [_moment(word.get("end"), passage) for _, word in words]
    if all(start is None for start in starts):
        return None
    timed: list[Word] = []
    started = ended = passage.start_seconds  # the word before
    for number, (text, word) in enumerate(words):
        start, end = starts[number], ends[number]
        begin = max(started, ended if start is None else start)
        if end is None:
            later = (moment for moment in starts[number + 1 :] if moment is not None)
            end = next(later, passage.end_seconds)
        stop = max(end, begin)
        score = _finite(word.get("score"))
        probability = None if score is None else min(max(score, 0.0), 1.0)
        timed.append(Word(text, round(begin, 3), round(stop, 3), probability))
        started, ended = begin, stop
    return timed


def _moment(seconds: object, passage: Passage) -> float | None:
    """Give a moment of the recording for one of the passage, within it."""
    told = _finite(seconds)
    if told is None:
        return None
    return min(passage.start_seconds + max(told, 0.0), passage.end_seconds)


def _finite(value: object) -> float | None:
    # NaN is how whisperX's tables say "none", and numpy's numbers are no floats to JSON.
    if isinstance(value, int | float | np.floating) and math.isfinite(value):
        return float(value)
    return None
