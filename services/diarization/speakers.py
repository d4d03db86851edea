"""Who says which word: joins the turns of speakers with the words of a transcript. Pure."""

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from services.transcription.transcript import Segment, Turn, Word

Voice = NDArray[np.float64]


class Speakers:
    """Answers who speaks; the turns do not overlap."""

    def __init__(self, turns: Sequence[Turn]) -> None:
        self._turns = sorted(turns, key=lambda turn: turn.start_seconds)
        self._ends = [turn.end_seconds for turn in self._turns]

    def of(self, start_seconds: float, end_seconds: float) -> str | None:
        """Give who speaks most of a passage, or nearest to it; None if nobody ever speaks."""
        first = bisect_left(self._ends, start_seconds)
        shares: dict[str, float] = {}
        for turn in self._turns[first:]:
            if turn.start_seconds >= end_seconds:
                break
            shared = min(turn.end_seconds, end_seconds) - max(turn.start_seconds, start_seconds)
            shares[turn.speaker] = shares.get(turn.speaker, 0.0) + shared
        if any(share > 0 for share in shares.values()):
            return max(shares, key=lambda speaker: shares[speaker])
        beside = self._turns[max(first - 1, 0) : first + 1]
        if not beside:
            return None
        return min(beside, key=lambda turn: _gap(turn, start_seconds, end_seconds)).speaker


def attribute(segments: Sequence[Segment], turns: Sequence[Turn]) -> tuple[Segment, ...]:
    """Give the segments with their speakers, cut where the speaker changes between two words."""
    speakers = Speakers(turns)
    return tuple(piece for segment in segments for piece in _attributed(segment, speakers))


def _attributed(segment: Segment, speakers: Speakers) -> list[Segment]:
    if not segment.words:
        speaker = speakers.of(segment.start_seconds, segment.end_seconds)
        return [replace(segment, speaker=speaker)]
    words = _told(segment.words, speakers)
    groups = [tuple(group) for _, group in groupby(words, key=lambda word: word.speaker)]
    if len(groups) == 1:
        return [replace(segment, words=words, speaker=words[0].speaker)]
    # The words keep the segment's own edges where it begins and ends.
    starts = [segment.start_seconds, *(group[0].start_seconds for group in groups[1:])]
    ends = [*(group[-1].end_seconds for group in groups[:-1]), segment.end_seconds]
    return [
        replace(
            segment,
            start_seconds=start,
            end_seconds=max(start, end),
            text="".join(word.text for word in group),
            words=group,
            speaker=group[0].speaker,
            # Of the whole segment: nobody knows which are whose.
            tokens=segment.tokens if number == 0 else (),
        )
        for number, (group, start, end) in enumerate(zip(groups, starts, ends, strict=True))
    ]


def _told(words: Sequence[Word], speakers: Speakers) -> tuple[Word, ...]:
    """Give the words with their speakers; one whose times are guessed goes with its neighbour."""
    told: list[Word] = []
    for word in words:
        sure = word.probability is not None or not told
        speaker = speakers.of(word.start_seconds, word.end_seconds) if sure else told[-1].speaker
        told.append(replace(word, speaker=speaker))
    return tuple(told)


def _gap(turn: Turn, start_seconds: float, end_seconds: float) -> float:
    return max(turn.start_seconds - end_seconds, start_seconds - turn.end_seconds)


def name_voices(
    voices: Mapping[str, Voice], known: Mapping[str, Voice], *, alike_min: float
) -> dict[str, str]:
    """Give the known name of each speaker who has one: each name once, the likest first.

    `alike_min` is the least cosine between two recordings of one voice.
    """
    alike = {
        (label, name): _cosine(voice, other)
        for label, voice in voices.items()
        for name, other in known.items()
    }
    # Not the assignment that is best in total: that gives up a sure pair for two doubtful ones.
    found: dict[str, str] = {}
    for label, name in sorted(alike, key=lambda pair: -alike[pair]):
        if alike[label, name] < alike_min:
            break
        if label not in found and name not in found.values():
            found[label] = name
    return found


def _cosine(one: Voice, other: Voice) -> float:
    size = float(np.linalg.norm(one) * np.linalg.norm(other))
    return float(one @ other) / size if size else -1.0


def rename(turns: Sequence[Turn], names: Mapping[str, str]) -> tuple[Turn, ...]:
    """Give the turns with the names of those who have one."""
    return tuple(replace(turn, speaker=names.get(turn.speaker, turn.speaker)) for turn in turns)
