"""A recording in pieces: all that is said is in one of them, with the right speaker, and once."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.transcription.audio import SAMPLE_RATE
from services.transcription.engine import Span
from services.transcription.transcript import Turn
from services.voxtral.pieces import PIECE_SECONDS_MAX, Piece, cut

ANYTHING = settings(max_examples=200, derandomize=True, database=None, deadline=None)

# All times of made-up recordings are whole steps, so that each step is spoken or is not.
STEP_SECONDS = 0.05
STEP = round(STEP_SECONDS * SAMPLE_RATE)
STEPS_MAX = 3000  # two and a half minutes
SCRAP_STEPS = 4  # 0.2 s


def sound(seconds: float) -> np.ndarray:
    return np.zeros(round(seconds * SAMPLE_RATE), np.int16)


def spans(*edges: tuple[float, float]) -> list[Span]:
    return [Span(start, end) for start, end in edges]


def times(pieces: list[Piece]) -> list[tuple[float, float]]:
    return [(piece.start_seconds, piece.end_seconds) for piece in pieces]


def spoken(pieces: list[Piece]) -> list[tuple[float, float, str | None]]:
    return [(piece.start_seconds, piece.end_seconds, piece.speaker) for piece in pieces]


# Without speakers


@pytest.mark.parametrize(
    ("speech", "pieces"),
    [
        pytest.param([], [], id="nobody speaks"),
        pytest.param([(1, 2)], [(1, 2)], id="once"),
        pytest.param([(1, 2), (5, 9), (20, 31)], [(1, 31)], id="as much as fits"),
        pytest.param([(1, 2), (5, 9), (20, 31.1)], [(1, 9), (20, 31.1)], id="and no more"),
        pytest.param([(1, 20), (20, 40)], [(1, 20), (20, 40)], id="the detector's own pause"),
        pytest.param([(1, 5), (3, 9)], [(1, 9)], id="overlapping"),
        pytest.param([(5, 9), (1, 2)], [(1, 9)], id="in any order"),
        pytest.param([(-1, 2), (58, 99), (70, 80)], [(0, 2), (58, 60)], id="past the edges"),
        pytest.param([(3, 3), (5, 4)], [], id="of no length"),
    ],
)
def test_neighbours_share_a_piece_as_far_as_they_fit(speech, pieces):
    """Half a minute costs the model as much as a second."""
    assert times(cut(sound(60), spans(*speech))) == pieces


def test_nobody_has_a_name_where_nobody_was_told_apart():
    """A speaker is null, not a guess."""
    assert [piece.speaker for piece in cut(sound(60), spans((1, 2), (40, 50)))] == [None, None]


def test_what_has_no_pause_is_cut_in_its_quietest_moment():
    """Half a second of near silence, in which nobody's word is cut in two."""
    loud = np.full(70 * SAMPLE_RATE, 9000, np.int16)
    for quiet in (22, 45):
        loud[int((quiet - 0.25) * SAMPLE_RATE) : int((quiet + 0.25) * SAMPLE_RATE)] = 3
    pieces = cut(loud, spans((0, 70)))
    seams = [piece.start_seconds for piece in pieces[1:]]

    assert seams == pytest.approx([22, 45], abs=0.1)
    assert times(pieces)[0][0] == 0
    assert times(pieces)[-1][1] == 70


def test_no_mere_scrap_is_left_of_what_has_no_pause():
    """The rest of 30.5 s is long enough for words, though it would be quieter further on."""
    loud = np.full(31 * SAMPLE_RATE, 9000, np.int16)
    loud[28 * SAMPLE_RATE :] = 3
    pieces = cut(loud, spans((0, 30.5)))

    assert len(pieces) == 2
    assert all(piece.end_seconds - piece.start_seconds > 5 for piece in pieces)


def test_a_piece_holds_its_own_samples():
    """Times go there and back without the loss of a sample."""
    samples = np.arange(3 * SAMPLE_RATE, dtype=np.int16)
    pieces = cut(samples, spans((0.1234567, 1.7654321)))
    [piece] = [piece.of(samples) for piece in pieces]

    assert (piece == samples[round(0.1234567 * SAMPLE_RATE) : round(1.7654321 * SAMPLE_RATE)]).all()
    assert np.shares_memory(piece, samples)


# With speakers

A_THEN_B = [Turn("A", 1, 4), Turn("B", 5, 8)]


@pytest.mark.parametrize(
    ("speech", "turns", "pieces"),
    [
        pytest.param([], A_THEN_B, [(1, 4, "A"), (5, 8, "B")], id="turns alone are speech"),
        pytest.param(
            [(0, 10)], A_THEN_B, [(0, 4.5, "A"), (4.5, 10, "B")], id="half way between two turns"
        ),
        pytest.param(
            [(0.5, 2), (6, 9), (20, 21)],
            A_THEN_B,
            [(0.5, 4, "A"), (5, 9, "B"), (20, 21, "B")],
            id="what lies beside goes to the nearest",
        ),
        pytest.param(
            [],
            [Turn("A", 1, 4), Turn("A", 4.9, 8), Turn("A", 9.1, 10)],
            [(1, 8, "A"), (9.1, 10, "A")],
            id="a longer silence parts two pieces",
        ),
        pytest.param(
            [],
            [Turn("A", 1, 4), Turn("A", 4.5, 31.5)],
            [(1, 4, "A"), (4.5, 31.5, "A")],
            id="but half a minute is the most",
        ),
        pytest.param(
            [],
            [Turn("A", 1, 4), Turn("B", 4, 4.1), Turn("A", 4.1, 8)],
            [(1, 8, "A")],
            id="a scrap joins what it touches",
        ),
        pytest.param(
            [],
            [Turn("A", 1, 4), Turn("B", 4, 4.2), Turn("A", 4.2, 8)],
            [(1, 4, "A"), (4, 4.2, "B"), (4.2, 8, "A")],
            id="no scrap",
        ),
        pytest.param(
            [],
            [Turn("A", 1, 4), Turn("B", 4, 4.1), Turn("B", 6, 8)],
            [(1, 4, "A"), (4, 8, "B")],
            id="but rather its own speaker",
        ),
        pytest.param(
            [],
            [Turn("B", 1, 4), Turn("B", 6, 6.1), Turn("B", 7.5, 9)],
            [(1, 4, "B"), (6, 9, "B")],
            id="the nearer of two",
        ),
        pytest.param(
            [],
            [Turn("A", 1, 4), Turn("B", 6, 6.1), Turn("A", 9, 10)],
            [(1, 4, "A"), (6, 6.1, "B"), (9, 10, "A")],
            id="a scrap that touches nobody stays alone",
        ),
        pytest.param(
            [],
            [Turn("A", 0, 30), Turn("B", 30, 30.1), Turn("A", 30.1, 59)],
            [(0, 30, "A"), (30, 59, "A")],
            id="a scrap joins where it fits",
        ),
        pytest.param(
            [(0, 9)],
            [Turn("A", 1, 8), Turn("B", 2, 3)],
            [(0, 5, "A"), (5, 9, "B")],
            id="turns that overlap lose nothing",
        ),
    ],
)
def test_a_piece_has_one_speaker(speech, turns, pieces):
    """It is cut where the speaker changes, and only joined to what the same one says."""
    assert spoken(cut(sound(60), spans(*speech), turns)) == pieces


def test_one_speaker_without_a_pause_is_cut_like_anybody():
    """Half a minute is the most that the model hears at once."""
    pieces = cut(sound(100), [], [Turn("A", 0, 90)])

    assert {piece.speaker for piece in pieces} == {"A"}
    assert [before.end_seconds for before in pieces[:-1]] == [
        after.start_seconds for after in pieces[1:]
    ]


# Whatever is said


@st.composite
def passages(draw, *, overlap: bool) -> list[tuple[int, int]]:
    """Passages by their first and last step, one after another or anyhow."""
    if overlap:
        edges = st.tuples(st.integers(0, STEPS_MAX), st.integers(0, STEPS_MAX)).map(sorted)
        return [tuple(edge) for edge in draw(st.lists(edges, max_size=8))]
    lengths = draw(
        st.lists(st.tuples(st.integers(0, 80), st.integers(1, 900)), min_size=0, max_size=12)
    )
    found, now = [], 0
    for silence, length in lengths:
        start, end = now + silence, min(now + silence + length, STEPS_MAX)
        if start < end:
            found.append((start, end))
        now = end
    return found


@st.composite
def short_turns(draw) -> list[tuple[int, int]]:
    """Turns of a second or so, scraps among them, as a pipeline finds them."""
    found, now = [], 0
    for silence, length in draw(
        st.lists(st.tuples(st.integers(0, 30), st.integers(1, 25)), max_size=40)
    ):
        found.append((now + silence, now + silence + length))
        now += silence + length
    return found


@st.composite
def by_somebody(draw, edges) -> list[tuple[int, int, str]]:
    """The same, each by one of three."""
    return [(start, end, draw(st.sampled_from("ABC"))) for start, end in draw(edges)]


def steps_of(edges: list[tuple[int, int]]) -> np.ndarray:
    """Which steps are within any of the passages."""
    told = np.zeros(STEPS_MAX, bool)
    for start, end in edges:
        told[start:end] = True
    return told


def assert_sound(pieces: list[Piece], said: np.ndarray) -> None:
    """Nothing is lost, nothing is there twice, and all is in order and short enough."""
    held = np.zeros(STEPS_MAX * STEP, np.uint8)
    for piece in pieces:
        start, end = (round(edge * SAMPLE_RATE) for edge in times([piece])[0])
        assert 0 <= start < end <= len(held)
        assert end - start <= PIECE_SECONDS_MAX * SAMPLE_RATE
        held[start:end] += 1

    assert held.max(initial=0) <= 1
    assert held.reshape(-1, STEP).min(axis=1)[said].all()
    assert all(one.end_seconds <= other.start_seconds for one, other in pairwise(pieces))
    # A piece begins and ends with speech: silence is only heard between two passages.
    for piece in pieces:
        first = int(piece.start_seconds / STEP_SECONDS + 1e-6)
        last = int(np.ceil(piece.end_seconds / STEP_SECONDS - 1e-6)) - 1
        assert said[first], piece
        assert said[last], piece


@ANYTHING
@given(passages(overlap=True) | passages(overlap=False))
def test_all_speech_is_in_one_piece(speech):
    """Wherever a detector hears it."""
    edges = [(start * STEP_SECONDS, end * STEP_SECONDS) for start, end in speech]
    pieces = cut(sound(STEPS_MAX * STEP_SECONDS), spans(*edges))

    assert_sound(pieces, steps_of(speech))
    # Greedy: no two neighbours would have fitted into one.
    joined = [after.end_seconds - before.start_seconds for before, after in pairwise(pieces)]
    assert all(seconds > PIECE_SECONDS_MAX for seconds in joined)


def nearest_speakers(turns: list[tuple[int, int, str]]) -> list[str]:
    """Who is nearest to the middle of each step, by looking at every turn."""
    middles = np.arange(STEPS_MAX) + 0.5
    gaps = [np.maximum(np.maximum(start - middles, middles - end), 0) for start, end, _ in turns]
    return [turns[number][2] for number in np.argmin(gaps, axis=0)]


def scrap_steps(said: np.ndarray, nearest: list[str]) -> np.ndarray:
    """Which steps are within so short a run of one speaker that it may go to another."""
    scraps = np.zeros(STEPS_MAX, bool)
    begin = 0
    for step in range(1, STEPS_MAX + 1):
        if step == STEPS_MAX or (said[step], nearest[step]) != (said[begin], nearest[begin]):
            scraps[begin:step] = said[begin] and step - begin <= SCRAP_STEPS
            begin = step
    return scraps


@ANYTHING
@given(
    passages(overlap=True) | passages(overlap=False),
    by_somebody(passages(overlap=False) | short_turns()),
)
def test_all_speech_is_in_one_piece_of_its_speaker(speech, turns):
    """However a detector and a pipeline disagree about where somebody speaks."""
    pieces = cut(
        sound(STEPS_MAX * STEP_SECONDS),
        spans(*((start * STEP_SECONDS, end * STEP_SECONDS) for start, end in speech)),
        [Turn(who, start * STEP_SECONDS, end * STEP_SECONDS) for start, end, who in turns],
    )
    said = steps_of([*speech, *((start, end) for start, end, _ in turns)])
    assert_sound(pieces, said)
    if not turns:
        assert {piece.speaker for piece in pieces} <= {None}
        return
    nearest = nearest_speakers(turns)
    exempt = scrap_steps(said, nearest)
    # A change half way between two turns may lie within a step.
    for piece in pieces:
        first = int(np.ceil(piece.start_seconds / STEP_SECONDS - 1e-6))
        last = int(piece.end_seconds / STEP_SECONDS + 1e-6)
        wrong = [
            step
            for step in range(first, last)
            if said[step] and not exempt[step] and nearest[step] != piece.speaker
        ]

        assert not wrong, (piece, wrong)


@ANYTHING
@given(by_somebody(short_turns()))
def test_a_scrap_never_stands_beside_a_piece_that_has_room(told):
    """Alone it would only be guessed at."""
    turns = [Turn(who, start * STEP_SECONDS, end * STEP_SECONDS) for start, end, who in told]
    pieces = cut(sound(STEPS_MAX * STEP_SECONDS), [], turns)
    for before, after in pairwise(pieces):
        shorter = min(piece.end_seconds - piece.start_seconds for piece in (before, after))
        scrap = shorter < 0.2 - STEP_SECONDS / 2
        fits = after.end_seconds - before.start_seconds <= PIECE_SECONDS_MAX
        touching = after.start_seconds == before.end_seconds
        alike = after.speaker == before.speaker

        assert not (scrap and fits and (touching or alike)), (before, after)
