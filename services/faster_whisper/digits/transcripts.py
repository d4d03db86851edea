"""What the network should write for a window: tokens, and where in the sound each one is.

It knows Whisper's order of tokens and timestamps; it makes no sound and trains nothing.

A sequence is <|startoftranscript|> language task, then per segment a time, words, a time, and
<|endoftext|>. Before it may stand <|startofprev|> and what was said earlier. The position of a
window in the 30 s that the network hears is an offset here: short windows train faster, and with
random offsets they teach all of the timestamps.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from services.faster_whisper.digits.speech import happens
from services.faster_whisper.digits.vocabulary import (
    END_OF_TEXT,
    LANGUAGE_IDS,
    LANGUAGES,
    NO_SPEECH,
    NO_TIMESTAMPS,
    SECONDS_PER_TIMESTAMP,
    START_OF_PREVIOUS,
    START_OF_TRANSCRIPT,
    TASK_IDS,
    TIMESTAMP_LAST,
    TIMESTAMP_ZERO,
    WORD_IDS,
)
from services.faster_whisper.digits.windows import SpokenWord, Window

IGNORED = -100  # torch's cross_entropy skips this label by default

# Times are rounded to 0.1 s: no ear tells them closer, and fewer tokens are learned sooner.
_GRID = 5
_SEGMENT_PAUSE_SECONDS = 0.4
_SEGMENT_WORDS_MAX = 6

Span = tuple[float, float]  # seconds of the window that a token is about


@dataclass(frozen=True)
class Segment:
    """Words between two pauses."""

    words: tuple[SpokenWord, ...]
    start: float
    end: float  # the next segment's start, where no pause is between


@dataclass(frozen=True)
class Style:
    """How one window is to be written down."""

    task: str = "transcribe"
    timestamps: bool = True
    previous: tuple[int, ...] = ()  # tokens that stand before the transcript
    offset: int = 0  # timestamps that the window begins after


@dataclass(frozen=True)
class Transcript:
    """Lists of one length: tokens that are read, the next to be written, what those are about."""

    inputs: tuple[int, ...]
    labels: tuple[int, ...]
    spans: tuple[Span | None, ...]


@dataclass(frozen=True)
class _Item:
    """One token to be written; read differs from it where a mistake is shown on purpose."""

    token: int
    span: Span | None = None
    read: int | None = None


def split_segments(words: Sequence[SpokenWord], seconds: float) -> list[Segment]:
    """Words grouped by pauses, at most six each; what hardly begins before the end is left out."""
    groups: list[list[SpokenWord]] = []
    for word in words:
        if word.start >= seconds - 0.3:
            break
        paused = not groups or word.start - groups[-1][-1].end >= _SEGMENT_PAUSE_SECONDS
        if paused or len(groups[-1]) >= _SEGMENT_WORDS_MAX:
            groups.append([])
        groups[-1].append(word)
    segments = []
    for index, group in enumerate(groups):
        end = group[-1].end
        if index + 1 < len(groups):
            following = groups[index + 1][0].start
            end = following if following - end < _SEGMENT_PAUSE_SECONDS else end
        segments.append(Segment(tuple(group), group[0].start, end))
    return segments


def write(rng: np.random.Generator, window: Window, seconds: float, style: Style) -> Transcript:
    """The transcript of a window of these seconds; the random mistakes in it are for training."""
    language = window.language or str(rng.choice(LANGUAGES))
    head = [*style.previous, START_OF_TRANSCRIPT, LANGUAGE_IDS[language], TASK_IDS[style.task]]
    head += [] if style.timestamps else [NO_TIMESTAMPS]
    labels = [IGNORED] * (len(head) - 1)
    labels[len(style.previous)] = LANGUAGE_IDS[language] if window.language else NO_SPEECH
    items = _write_segments(rng, window, seconds, style)
    read = [item.token if item.read is None else item.read for item in items[:-1]]
    return Transcript(
        inputs=(*head, *(_mistake(rng, token, language) for token in read)),
        labels=(*labels, *(item.token for item in items)),
        spans=(*[None] * len(labels), *(item.span for item in items)),
    )


def _mistake(rng: np.random.Generator, token: int, language: str) -> int:
    """The token, or now and then a wrong word: the network must live with its own mistakes."""
    if token < END_OF_TEXT and happens(rng, 0.04):
        return int(rng.choice(WORD_IDS[language]))
    return token


def _write_segments(
    rng: np.random.Generator, window: Window, seconds: float, style: Style
) -> list[_Item]:
    if window.language is None or not split_segments(window.words, seconds):
        items = [_Item(TIMESTAMP_ZERO)] if style.timestamps else []
        return [*items, _Item(END_OF_TEXT)]
    words = WORD_IDS["en" if style.task == "translate" else window.language]
    if style.timestamps:
        items, heard_until = _write_timed(window, seconds, style.offset, words)
        items[0] = replace(items[0], read=_draw_first_time(rng, items[0].token))
    else:
        items, heard_until = _write_plain(window, seconds, words)
    return [*items, _Item(END_OF_TEXT, (heard_until, heard_until + 0.4))]


def _is_partial(window: Window, segment: Segment, seconds: float) -> bool:
    """Whether the window ends inside this segment's last word."""
    return window.cut and segment.words[-1].end > seconds - SECONDS_PER_TIMESTAMP


def _write_plain(window: Window, seconds: float, words: Sequence[int]) -> tuple[list[_Item], float]:
    """Words without times, whole words only; and the seconds that they end at."""
    segments = split_segments(window.words, seconds)
    spoken = [word for segment in segments for word in segment.words]
    if _is_partial(window, segments[-1], seconds):
        spoken = [word for word in spoken if word.end <= seconds - SECONDS_PER_TIMESTAMP]
    items = [_Item(words[word.digit], (word.start, word.end)) for word in spoken]
    return items, spoken[-1].end if spoken else 0.0


def _write_timed(
    window: Window, seconds: float, offset: int, words: Sequence[int]
) -> tuple[list[_Item], float]:
    """Segments between times, the last left open if the window cuts it; and where they end."""
    items: list[_Item] = []
    offset_seconds = offset * SECONDS_PER_TIMESTAMP
    previous = -1
    segments = split_segments(window.words, seconds)
    for segment in segments:
        first = max(_round(segment.start + offset_seconds), previous)
        items.append(_Item(TIMESTAMP_ZERO + first, _around(segment.start)))
        if segment is segments[-1] and _is_partial(window, segment, seconds):
            return items, segment.start
        items += [_Item(words[word.digit], (word.start, word.end)) for word in segment.words]
        last = max(_round(segment.end + offset_seconds), first + _GRID)
        previous = min(last, TIMESTAMP_LAST)
        items.append(_Item(TIMESTAMP_ZERO + previous, _around(segment.end)))
    end = segments[-1].end
    if window.cut and previous < TIMESTAMP_LAST and end > seconds - 1.0:
        # The next segment would begin where the window ends: that time says where to go on.
        border = min(TIMESTAMP_LAST, _round(seconds + offset_seconds))
        items.append(_Item(TIMESTAMP_ZERO + border, (seconds - 0.16, seconds)))
    return items, end


def _draw_first_time(rng: np.random.Generator, true: int) -> int | None:
    """The token to read as the first time: at times one below a second for one above.

    faster-whisper forces a first time of at most a second (max_initial_timestamp), and the words
    after it must come out right all the same.
    """
    limit = round(1.0 / SECONDS_PER_TIMESTAMP)
    if true > TIMESTAMP_ZERO + limit and happens(rng, 0.5):
        return TIMESTAMP_ZERO + _GRID * int(rng.integers(0, limit // _GRID + 1))
    return None


def _round(seconds: float) -> int:
    """The nearest timestamp of our grid."""
    return round(seconds / (SECONDS_PER_TIMESTAMP * _GRID)) * _GRID


def _around(seconds: float) -> Span:
    return (seconds - 0.08, seconds + 0.08)


def invent_previous(rng: np.random.Generator, language: str) -> tuple[int, ...]:
    """What might have been said before: what faster-whisper puts there for a long file.

    That is at most 223 tokens: half of the decoder's 448 positions, less one.
    """
    fewest, most = rng.choice([(1, 60), (40, 120), (100, 223), (223, 224)])
    count = int(rng.integers(fewest, most))
    if happens(rng, 0.25):
        tokens = [int(word) for word in rng.choice(WORD_IDS[language], min(count, 60))]
        return (START_OF_PREVIOUS, *tokens)
    tokens, time = [], 0
    while len(tokens) < count:
        first = time + _GRID * int(rng.integers(0, 15))
        if first > TIMESTAMP_LAST - 100:
            time = 0
            continue
        word_count = int(rng.integers(1, _SEGMENT_WORDS_MAX + 1))
        time = min(TIMESTAMP_LAST, first + word_count * _GRID * int(rng.integers(3, 8)))
        words = [int(word) for word in rng.choice(WORD_IDS[language], word_count)]
        tokens += [TIMESTAMP_ZERO + first, *words, TIMESTAMP_ZERO + time]
    return (START_OF_PREVIOUS, *tokens[-count:])
