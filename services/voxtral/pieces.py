"""Cuts a recording into pieces that Voxtral hears one by one, each with one speaker. Pure.

Voxtral tells no times, so those of a piece are all that there are; and it hears multiples of half a
minute, so a piece of 31 s would cost as much as one of a minute. Within, times are whole samples:
sums of seconds would not meet at the seams.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise

import numpy as np
from numpy.typing import NDArray

from services.transcription.audio import SAMPLE_RATE, quietest
from services.transcription.engine import Span
from services.transcription.transcript import Turn

Samples = NDArray[np.int16]

PIECE_SECONDS_MAX = 30
# Where the speaker stays the same, a longer silence parts two pieces: they are what has times.
_SILENCE_SECONDS_MAX = 1.0
# Too short for a word: asked for one, a model would invent it.
_SCRAP_SECONDS = 0.2
# What has no pause is cut here at the soonest, and leaves so much at the least.
_SHORTEST_SECONDS = 15
_REST_SECONDS = 5


@dataclass(frozen=True)
class Piece:
    """A part of a recording, in seconds from the beginning."""

    start_seconds: float
    end_seconds: float
    speaker: str | None  # None: nobody knows

    def of(self, samples: Samples) -> Samples:
        """Give its part of [samples]; nothing is copied."""
        return samples[_samples(self.start_seconds) : _samples(self.end_seconds)]


@dataclass(frozen=True)
class _Part:
    """The same in samples."""

    start: int
    end: int
    speaker: str | None = None

    @property
    def length(self) -> int:
        return self.end - self.start


def cut(samples: Samples, speech: Sequence[Span], turns: Sequence[Turn] = ()) -> list[Piece]:
    """Give the pieces of a recording, in order, that hold all that is said, and nothing twice.

    `speech` is where somebody speaks, `turns` is who does; they may overlap, and each may know of
    speech that the other does not. None is longer than half a minute.
    """
    total = len(samples)
    spoken = [_part(span.start_seconds, span.end_seconds, total) for span in speech]
    told = [_part(turn.start_seconds, turn.end_seconds, total, turn.speaker) for turn in turns]
    told = sorted((turn for turn in told if turn.length), key=lambda turn: turn.start)
    parts: Sequence[_Part] = _union([*spoken, *told])
    if told:
        parts = _between_speakers(parts, told)
    parts = [short for part in parts for short in _shortened(part, samples)]
    if told:
        parts = _without_scraps(parts)
    # Without speakers, as whisperX does: as much as fits.
    silence_max = _samples(_SILENCE_SECONDS_MAX) if told else total
    return [
        Piece(part.start / SAMPLE_RATE, part.end / SAMPLE_RATE, part.speaker)
        for part in _merged(parts, silence_max)
    ]


def _samples(seconds: float) -> int:
    return round(seconds * SAMPLE_RATE)


def _part(
    start_seconds: float, end_seconds: float, total: int, speaker: str | None = None
) -> _Part:
    start, end = (min(max(_samples(edge), 0), total) for edge in (start_seconds, end_seconds))
    return _Part(start, max(start, end), speaker)


def _union(parts: Iterable[_Part]) -> list[_Part]:
    """Give what any of them holds, without speakers; parts that only touch stay two.

    For where two passages of speech touch, the detector heard a pause.
    """
    joined: list[_Part] = []
    for part in sorted(parts, key=lambda part: (part.start, part.end)):
        if joined and part.start < joined[-1].end:
            joined[-1] = _Part(joined[-1].start, max(joined[-1].end, part.end))
        elif part.length:
            joined.append(_Part(part.start, part.end))
    return joined


def _between_speakers(parts: Sequence[_Part], turns: Sequence[_Part]) -> list[_Part]:
    """Give the parts with the speakers of the nearest turns, cut half way between two of these."""
    ends = accumulate((turn.end for turn in turns), max)  # the first may outlast the second
    changes = [
        ((end + after.start) // 2, after.speaker)
        for end, (before, after) in zip(ends, pairwise(turns), strict=False)
        if before.speaker != after.speaker
    ]
    where = [change for change, _ in changes]
    speakers = [turns[0].speaker, *(speaker for _, speaker in changes)]
    return [
        _Part(start, end, speakers[bisect_right(where, start)])
        for part in parts
        for start, end in pairwise([part.start, *_within(where, part), part.end])
        if start < end
    ]


def _within(where: Sequence[int], part: _Part) -> Sequence[int]:
    return where[bisect_right(where, part.start) : bisect_left(where, part.end)]


def _shortened(part: _Part, samples: Samples) -> Iterator[_Part]:
    """Give a part in pieces that are short enough, each cut in the quietest moment there is."""
    longest = PIECE_SECONDS_MAX * SAMPLE_RATE
    while part.length > longest:
        first = part.start + _SHORTEST_SECONDS * SAMPLE_RATE
        last = min(part.start + longest, part.end - _REST_SECONDS * SAMPLE_RATE)
        middle = first + quietest(samples[first:last])
        yield replace(part, end=middle)
        part = replace(part, start=middle)
    yield part


def _without_scraps(parts: Sequence[_Part]) -> Sequence[_Part]:
    """Give the parts with the scraps joined to a neighbour: of the same speaker, or else touching.

    A scrap that has neither stays alone.
    """
    # Where a scrap has gone to another speaker, those on its two sides may now be neighbours.
    while len(fewer := _with_scraps_joined(parts)) < len(parts):
        parts = fewer
    return parts


def _with_scraps_joined(parts: Sequence[_Part]) -> list[_Part]:
    left, kept = list(parts), list[_Part]()
    for number, part in enumerate(left):
        after = left[number + 1] if number + 1 < len(left) else None
        before = kept[-1] if kept else None
        host = _host(part, before, after)
        if host is None:
            kept.append(part)
        elif host is before:
            kept[-1] = replace(before, end=part.end)
        else:
            left[number + 1] = replace(host, start=part.start)
    return kept


def _host(part: _Part, before: _Part | None, after: _Part | None) -> _Part | None:
    """Give the neighbour that a part is to be joined to, if it is a scrap and there is one."""
    if part.length >= _SCRAP_SECONDS * SAMPLE_RATE:
        return None
    gaps = [
        (other.speaker != part.speaker, gap, other)
        for other, gap in (
            (before, part.start - before.end if before else 0),
            (after, after.start - part.end if after else 0),
        )
        if other is not None and _fits(part, other) and (other.speaker == part.speaker or not gap)
    ]
    return min(gaps, key=lambda found: found[:2])[2] if gaps else None


def _merged(parts: Iterable[_Part], silence_max: int) -> list[_Part]:
    """Join neighbours of one speaker as far as they fit, across silences shorter than that."""
    merged: list[_Part] = []
    for part in parts:
        last = merged[-1] if merged else None
        if (
            last is not None
            and last.speaker == part.speaker
            and part.start - last.end < silence_max
            and _fits(last, part)
        ):
            merged[-1] = replace(last, end=part.end)
        else:
            merged.append(part)
    return merged


def _fits(one: _Part, other: _Part) -> bool:
    length = max(one.end, other.end) - min(one.start, other.start)
    return length <= PIECE_SECONDS_MAX * SAMPLE_RATE
