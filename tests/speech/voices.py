"""Recordings of espeak-ng voices that take turns, and who really says what when.

It knows voices, pauses and the truth; it knows no model.

espeak-ng may crash, and its library is global to a process: hold_conversation speaks in a child.
"""

import importlib.util
import io
import wave
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from services.faster_whisper.digits.espeak import Espeak, Samples, Voice, call_in_children
from services.faster_whisper.digits.speech import SAMPLES_PER_SECOND, resample, speak
from services.faster_whisper.digits.vocabulary import DIGIT_COUNT, WORDS

PAUSE_SECONDS = 0.5
PEAK = 0.5  # of full scale
HISS = 1e-4  # of full scale: a recording is never quite silent
AUDIBLE = 0.01  # of the loudest sample; what is quieter at the ends of a turn is cut


def _speaker(name: str, words_per_minute: int, pitch: int) -> Voice:
    """A voice whose pitch hardly moves, so that the pitch tells it from others."""
    return Voice("en", name, words_per_minute=words_per_minute, pitch=pitch, pitch_range=15)


# Variants that no model trained here heard (HELD_OUT_VARIANTS of the digits), far from each other
# in pitch.
PAIRS: tuple[tuple[Voice, Voice], ...] = (
    (_speaker("en-us+m7", 150, pitch=15), _speaker("en-us+f4", 160, pitch=80)),
    (_speaker("en-gb-scotland+Michael", 150, pitch=30), _speaker("en-us+Annie", 160, pitch=70)),
    (_speaker("en-us+robert", 155, pitch=25), _speaker("en-gb-x-rp+linda", 160, pitch=75)),
)
# Three are told apart by make_diarizer's pipeline if turns last three seconds: sentences do, eight
# digits do, five do not.
THREE: tuple[Voice, Voice, Voice] = (
    _speaker("en-us+m7", 150, pitch=15),
    _speaker("en-us+m5", 155, pitch=75),
    _speaker("en-us+f4", 160, pitch=99),
)

SENTENCES = (
    "Good morning, I speak first at our little meeting.",
    "Hello there, I come second, and my voice is another one.",
    "We take turns for a while, so that a machine may tell us apart.",
    "I hope that it does, or all of this would be of little use.",
    "One more sentence of mine, and then we are nearly done.",
    "And a last one of mine, with thanks to everybody who listens.",
)


@dataclass(frozen=True)
class SpokenWord:
    """A word and when it is heard, in seconds from the start of the recording."""

    text: str
    start: float
    end: float


@dataclass(frozen=True)
class Turn:
    """One speaker's words without a break; the words are known for digits only."""

    who: str
    text: str
    start: float
    end: float
    words: tuple[SpokenWord, ...] = ()


@dataclass(frozen=True)
class Conversation:
    """A recording, int16 [samples], mono, 16 kHz, and the truth about it."""

    samples: NDArray[np.int16]
    turns: tuple[Turn, ...]

    @property
    def seconds(self) -> float:
        """How long it lasts."""
        return len(self.samples) / SAMPLES_PER_SECOND

    @property
    def words(self) -> tuple[SpokenWord, ...]:
        """All words of all turns."""
        return tuple(word for turn in self.turns for word in turn.words)

    def to_floats(self) -> NDArray[np.float32]:
        """The samples from -1 to 1, as models hear them."""
        return self.samples.astype(np.float32) / np.float32(32768)

    def to_wav(self) -> bytes:
        """The samples as a WAV file."""
        target = io.BytesIO()
        with wave.open(target, "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(SAMPLES_PER_SECOND)
            file.writeframes(self.samples.tobytes())
        return target.getvalue()


@dataclass(frozen=True)
class _Part:
    """What is said in one breath, cut close; its words are in seconds from its first sample."""

    text: str
    samples: Samples
    start: float
    end: float
    words: tuple[SpokenWord, ...] = ()


def converse_in_sentences(
    voices: Sequence[Voice] = PAIRS[0], sentences: Sequence[str] = SENTENCES
) -> Conversation:
    """The voices in turn say a sentence each; speakers are named A, B, C."""
    return _converse(voices, sentences)


def converse_in_digits(
    voices: Sequence[Voice] = PAIRS[0], turns: int = 6, digits_each: int = 5, seed: int = 0
) -> Conversation:
    """The voices in turn say random digits, with the time of each word."""
    rng = np.random.default_rng(seed)
    digits = rng.integers(0, DIGIT_COUNT, (turns, digits_each)).tolist()
    return _converse(voices, [tuple(each) for each in digits])


def _converse(voices: Sequence[Voice], lines: Sequence[str | tuple[int, ...]]) -> Conversation:
    [parts] = call_in_children(_say_all, [(voices, lines)])
    assert parts is not None, f"espeak-ng crashed, or knows not when a word is said: {voices}"
    rng = np.random.default_rng(0)
    pause = np.zeros(int(PAUSE_SECONDS * SAMPLES_PER_SECOND), np.float32)
    pieces, turns, first = [pause], [], len(pause)
    for who, part in zip(cycle("ABCDEFGH"[: len(voices)]), parts, strict=False):
        pieces += [part.samples * PEAK, pause]
        turns.append(_place(part, who, first / SAMPLES_PER_SECOND))
        first += len(part.samples) + len(pause)
    sound = np.concatenate(pieces)
    sound += rng.normal(size=len(sound)).astype(np.float32) * HISS
    return Conversation((sound * 32767).astype(np.int16), tuple(turns))


def _place(part: _Part, who: str, offset: float) -> Turn:
    words = tuple(
        SpokenWord(word.text, round(word.start + offset, 3), round(word.end + offset, 3))
        for word in part.words
    )
    start, end = round(part.start + offset, 3), round(part.end + offset, 3)
    return Turn(who, part.text, start, end, words)


def _say_all(voices: Sequence[Voice], lines: Sequence[str | tuple[int, ...]]) -> list[_Part]:
    espeak = Espeak()
    return [_say(espeak, voice, line) for voice, line in zip(cycle(voices), lines, strict=False)]


def _say(espeak: Espeak, voice: Voice, line: str | tuple[int, ...]) -> _Part:
    if isinstance(line, str):
        samples, _ = espeak.say(line, voice)
        samples = resample(samples, espeak.samples_per_second, SAMPLES_PER_SECOND / voice.warp)
        samples = samples / np.abs(samples).max()
        audible = np.flatnonzero(np.abs(samples) > AUDIBLE)
        samples = samples[audible[0] : audible[-1] + 1]
        return _Part(line, samples, 0.0, len(samples) / SAMPLES_PER_SECOND)
    phrase = speak(espeak, voice, line)
    assert phrase is not None, (voice, line)
    texts = [WORDS[voice.language][digit] for digit in phrase.digits]
    words = tuple(map(SpokenWord, texts, phrase.starts, phrase.ends))
    return _Part(" ".join(texts), phrase.samples, words[0].start, words[-1].end, words)


@dataclass(frozen=True)
class SampleRecording:
    """Half a minute of two people on the telephone, and who speaks when."""

    path: Path
    turns: tuple[Turn, ...]


def find_sample() -> SampleRecording:
    """The recording that comes with pyannote.audio; it is found without importing the library."""
    found = importlib.util.find_spec("pyannote.audio")
    assert found is not None, "pyannote.audio is not installed"
    assert found.origin is not None, found
    folder = Path(found.origin).parent / "sample"
    turns = [_read_turn(line) for line in (folder / "sample.rttm").read_text().splitlines()]
    return SampleRecording(folder / "sample.wav", tuple(turns))


def _read_turn(line: str) -> Turn:
    # https://github.com/nryant/dscore#rttm
    _, _, _, start, seconds, _, _, who, *_ = line.split()
    return Turn(who, "", float(start), round(float(start) + float(seconds), 3))
