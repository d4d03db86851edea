"""Turns of speakers and words meet: each word has the right voice, and no letter is lost."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.diarization.speakers import Speakers, attribute, name_voices, rename
from services.transcription.transcript import Segment, Turn, Word

ANYTHING = settings(max_examples=300, derandomize=True, database=None, deadline=None)

A_THEN_B = (Turn("A", 1.0, 3.0), Turn("B", 5.0, 6.0))


def word(text: str, start: float, end: float, probability: float | None = 0.9) -> Word:
    return Word(text, start, end, probability)


def segment(words: Sequence[Word] | None, start: float = 0.0, end: float = 10.0) -> Segment:
    text = " nothing" if words is None else "".join(word.text for word in words)
    return Segment(
        start_seconds=start,
        end_seconds=end,
        text=text,
        seek=0,
        tokens=(7, 8),
        temperature=0.0,
        avg_logprob=-0.1,
        compression_ratio=1.0,
        no_speech_prob=0.0,
        words=None if words is None else tuple(words),
    )


# Who speaks


@pytest.mark.parametrize(
    ("start", "end", "speaker"),
    [
        pytest.param(1.5, 2.5, "A", id="within a turn"),
        pytest.param(2.0, 2.0, "A", id="of no length"),
        pytest.param(2.5, 5.4, "A", id="more of the first"),
        pytest.param(2.8, 5.4, "B", id="more of the second"),
        pytest.param(0.0, 9.0, "A", id="over both"),
        pytest.param(0.0, 0.1, "A", id="before all"),
        pytest.param(8.0, 9.0, "B", id="after all"),
        pytest.param(3.1, 3.4, "A", id="between, nearer to the first"),
        pytest.param(4.7, 4.9, "B", id="between, nearer to the second"),
        pytest.param(3.0, 5.0, "A", id="exactly between"),
        pytest.param(3.0, 3.0, "A", id="at an end"),
        pytest.param(5.0, 5.0, "B", id="at a beginning"),
    ],
)
def test_who_speaks_most_of_it_or_nearest(start, end, speaker):
    """The greatest share decides; where nobody speaks, the nearest voice."""
    assert speaker == Speakers(A_THEN_B).of(start, end)


def test_shares_of_one_speaker_add_up():
    """Two short turns of one are more than one longer turn of another."""
    turns = [Turn("A", 0, 1), Turn("B", 1, 2.5), Turn("A", 2.5, 3.5)]

    assert Speakers(turns).of(0, 3.5) == "A"


def test_nobody_speaks():
    """Then there is no speaker, and the words are as they were."""
    pieces = attribute([segment([word(" a", 0, 1), word(" b", 1, 2)]), segment(None)], ())

    assert [(piece.text, piece.speaker) for piece in pieces] == [(" a b", None), (" nothing", None)]


@st.composite
def turns_of(draw) -> list[Turn]:
    """Turns one after another, in any order."""
    edges = sorted(draw(st.lists(st.integers(0, 100), unique=True, max_size=12)))
    found = [
        Turn(draw(st.sampled_from("ABC")), start / 10, end / 10)
        for start, end in list(pairwise(edges))[:: draw(st.sampled_from([1, 2]))]
    ]
    return draw(st.permutations(found))


@ANYTHING
@given(turns_of(), st.integers(-5, 105), st.integers(0, 30))
def test_no_other_speaker_has_a_better_claim(turns, start, length):
    """By looking at every turn, as the code does not."""
    begin, end = start / 10, (start + length) / 10
    shares: dict[str, float] = {}
    for turn in turns:
        shared = min(turn.end_seconds, end) - max(turn.start_seconds, begin)
        shares[turn.speaker] = shares.get(turn.speaker, 0.0) + max(shared, 0.0)
    gaps = {
        speaker: min(
            max(turn.start_seconds - end, begin - turn.end_seconds, 0.0)
            for turn in turns
            if turn.speaker == speaker
        )
        for speaker in shares
    }
    chosen = Speakers(turns).of(begin, end)

    if not turns:
        assert chosen is None
    elif max(shares.values()) > 1e-9:
        assert shares[chosen] == pytest.approx(max(shares.values()))
    else:
        assert gaps[chosen] == pytest.approx(min(gaps.values()))


# Segments


def test_a_segment_is_cut_where_the_speaker_changes():
    """Each piece has one speaker, its own words and times; the tokens stand once."""
    words = [word(" a", 1.0, 2.0), word(" b,", 2.0, 3.0), word(" c", 5.0, 6.0)]
    first, second = attribute([segment(words, 0.5, 6.5)], A_THEN_B)

    assert (first.text, first.speaker, first.start_seconds, first.end_seconds) == (
        " a b,",
        "A",
        0.5,
        3.0,
    )
    assert (second.text, second.speaker, second.start_seconds, second.end_seconds) == (
        " c",
        "B",
        5.0,
        6.5,
    )
    assert (first.tokens, second.tokens) == ((7, 8), ())
    assert [each.speaker for piece in (first, second) for each in piece.words] == ["A", "A", "B"]


def test_a_segment_without_words_has_the_speaker_of_most_of_it():
    """It cannot be cut: nobody knows which words are whose."""
    [piece] = attribute([segment(None, 0.0, 5.5)], A_THEN_B)

    assert piece == replace(segment(None, 0.0, 5.5), speaker="A")


def test_a_word_whose_time_is_guessed_goes_with_the_word_before():
    """The guess fills the gap to the next speaker; it does not make the speaker change."""
    words = [
        word(" a", 1.0, 2.0),
        word(" 7", 5.0, 6.0, probability=None),
        word(" b", 5.0, 6.0),
    ]
    pieces = attribute([segment(words)], A_THEN_B)

    assert [(piece.text, piece.speaker) for piece in pieces] == [(" a 7", "A"), (" b", "B")]


def test_a_first_word_whose_time_is_guessed_has_a_speaker_too():
    """There is no word before it."""
    [piece] = attribute([segment([word(" a", 5.0, 6.0, probability=None)])], A_THEN_B)

    assert (piece.speaker, piece.words[0].speaker) == ("B", "B")


@st.composite
def segments_of(draw) -> list[Segment]:
    """Segments with words in order, as alignment gives them, or without words."""
    made, now = [], 0
    for _ in range(draw(st.integers(0, 4))):
        begin = now
        words = []
        for text in draw(st.lists(st.sampled_from([" a", " b.", "c", " "]), max_size=5)):
            start = now + draw(st.integers(0, 10))
            now = start + draw(st.integers(0, 10))
            words.append(word(text, start / 10, now / 10, draw(st.sampled_from([None, 0.0, 0.9]))))
        made.append(segment(words or None, begin / 10, max(now, begin + 1) / 10))
        now = max(now, begin + 1)
    return made


@ANYTHING
@given(segments_of(), turns_of())
def test_nothing_is_lost_where_segments_are_cut(segments, turns):
    """Texts and words joined are those of before, in order; each piece has one speaker."""
    pieces = attribute(segments, turns)
    before = [each for whole in segments for each in whole.words or ()]
    after = [each for piece in pieces for each in piece.words or ()]

    assert "".join(piece.text for piece in pieces) == "".join(whole.text for whole in segments)
    assert before == [replace(each, speaker=None) for each in after]
    for piece in pieces:
        assert (piece.speaker is None) == (not turns)
        assert {each.speaker for each in piece.words or ()} <= {piece.speaker}
        assert piece.start_seconds <= piece.end_seconds
    assert all(one.start_seconds <= other.start_seconds for one, other in pairwise(pieces))
    assert sum(len(piece.tokens) for piece in pieces) == 2 * len(segments)


# Names


def voice(*numbers: float) -> np.ndarray:
    return np.array(numbers, dtype=np.float64)


EAST, NORTH, WEST = voice(2, 0, 0), voice(0, 3, 0), voice(-1, 0, 0)
NORTH_EAST = voice(1, 1, 0)


@pytest.mark.parametrize(
    ("voices", "known", "expected"),
    [
        pytest.param({}, {"Ada": EAST}, {}, id="nobody spoke"),
        pytest.param({"0": EAST}, {}, {}, id="nobody is known"),
        pytest.param({"0": EAST}, {"Ada": voice(9, 0, 0)}, {"0": "Ada"}, id="loudness"),
        pytest.param({"0": EAST}, {"Ada": NORTH}, {}, id="another voice"),
        pytest.param({"0": EAST}, {"Ada": WEST}, {}, id="the opposite"),
        pytest.param({"0": EAST}, {"Ada": voice(0, 0, 0)}, {}, id="no voice"),
        pytest.param(
            {"0": EAST, "1": NORTH},
            {"Ada": NORTH, "Bo": EAST},
            {"0": "Bo", "1": "Ada"},
            id="two of two",
        ),
        pytest.param(
            {"0": NORTH_EAST, "1": EAST}, {"Ada": EAST}, {"1": "Ada"}, id="the likest of two"
        ),
        pytest.param(
            {"0": EAST}, {"Ada": NORTH_EAST, "Bo": EAST}, {"0": "Bo"}, id="the likest name"
        ),
        pytest.param({"0": NORTH_EAST}, {"Ada": EAST}, {"0": "Ada"}, id="0.71 is enough"),
    ],
)
def test_each_voice_has_the_name_of_the_likest(voices, known, expected):
    """By the cosine, and only from the threshold on."""
    assert expected == name_voices(voices, known, alike_min=0.5)


def test_a_sure_name_is_not_given_up_for_two_doubtful_ones():
    """The pair of 0.9 stays, though two pairs of 0.4 would be more in total."""
    ada, bo = voice(1, 0, 0), voice(0, 1, 0)
    like_ada = voice(0.9, 0.4, 0.17)
    like_nobody = voice(0.4, -0.5, 0.77)

    assert {"0": "Ada"} == name_voices(
        {"0": like_ada, "1": like_nobody}, {"Ada": ada, "Bo": bo}, alike_min=0.5
    )


VOICES = st.dictionaries(
    st.sampled_from("ABCD"),
    st.lists(st.integers(-3, 3), min_size=3, max_size=3).map(lambda numbers: voice(*numbers)),
)


@ANYTHING
@given(VOICES, VOICES, st.floats(-0.9, 1))
def test_names_are_given_once_and_never_against_the_threshold(voices, known, alike_min):
    """Who stays without a name is like nobody whose name is left, and like nobody more than it."""

    def alike(label: str, name: str) -> float:
        size = np.linalg.norm(voices[label]) * np.linalg.norm(known[name])
        return float(voices[label] @ known[name]) / size if size else -1.0

    found = name_voices(voices, known, alike_min=alike_min)

    assert len(set(found.values())) == len(found)
    for label in voices:
        for name in known:
            if found.get(label) == name:
                assert alike(label, name) >= alike_min
            elif alike(label, name) >= alike_min:
                taken = [pair for pair in found.items() if pair[0] == label or pair[1] == name]
                assert max(alike(*pair) for pair in taken) >= alike(label, name)


def test_turns_are_told_by_name():
    """Those who have one."""
    assert rename(A_THEN_B, {"B": "Ada"}) == (A_THEN_B[0], Turn("Ada", 5.0, 6.0))
