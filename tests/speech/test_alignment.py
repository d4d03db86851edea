"""Whatever whisperX makes of a passage: its words come out whole, in order, with times to rely on.

The library and a tiny aligner are real where it does by itself what is asked of it here; what it
does rarely is made up, in the shape that it gives (whisperx 3.8.6).
"""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.transcription.transcript import Segment
from services.whisperx.aligners import Aligner, Aligners
from services.whisperx.alignment import Passage, align, cut, unaligned
from services.whisperx.sentences import provide_sentences
from tests.services.sounds import SAMPLE_RATE, recording_samples
from tests.speech.makers import make_random_aligner

# What a segment may last beyond its words, so that it lasts at all.
SHORTEST_SECONDS = 0.01
NAN = math.nan


@pytest.fixture(scope="module")
def aligner(tmp_path_factory) -> Aligner:
    """The real library's, with English letters and random weights."""
    provide_sentences()
    folder = tmp_path_factory.mktemp("aligners")
    make_random_aligner(folder / "en")
    return Aligners(str(folder)).load("en", "cpu")


@pytest.fixture(scope="module")
def chinese(aligner) -> Aligner:
    """The same model for a language without spaces: some of its letters are Chinese now."""
    letters = {"<pad>": 0, **{letter: 5 + number for number, letter in enumerate("你好世界再见")}}
    return Aligner(
        aligner.model, {"language": "zh", "dictionary": letters, "type": "huggingface"}, "cpu"
    )


def passage_of(text: str, start_seconds: float = 100.0, seconds: float = 3.0) -> Passage:
    return Passage(start_seconds, round(start_seconds + seconds, 3), text, (1, 2, 3), -0.25)


def sound_of(passage: Passage) -> np.ndarray:
    """Real speech, as long as the passage."""
    count = round((passage.end_seconds - passage.start_seconds) * SAMPLE_RATE)
    return np.resize(recording_samples(), count).astype(np.float32) / np.float32(32768)


def align_really(passage: Passage, aligner: Aligner) -> tuple[Segment, ...] | None:
    return align(passage, aligner, sound_of(passage))


def assert_faithful(passage: Passage, segments: Sequence[Segment]) -> None:
    """All that clients rely on: no letter is lost, no time runs backwards or leaves the passage."""
    assert "".join(segment.text for segment in segments) == passage.text
    for segment in segments:
        assert segment.words, segment
        assert "".join(word.text for word in segment.words) == segment.text
        assert segment.start_seconds == segment.words[0].start_seconds
        last = segment.words[-1].end_seconds
        assert last <= segment.end_seconds <= max(last, segment.start_seconds + SHORTEST_SECONDS)
    words = [word for segment in segments for word in segment.words]
    for word in words:
        assert type(word.start_seconds) is float
        assert type(word.end_seconds) is float
        assert (
            passage.start_seconds <= word.start_seconds <= word.end_seconds <= passage.end_seconds
        )
        assert word.probability is None or 0 <= word.probability <= 1
    assert all(one.start_seconds <= other.start_seconds for one, other in pairwise(words))


def words_of(segments: Sequence[Segment]) -> list[str]:
    return [word.text.strip() for segment in segments for word in segment.words]


# What the library really does


@pytest.mark.parametrize(
    "text",
    [
        " one two three",
        " Dr. Ada Lovelace lives at No. 5. Charles Babbage does not! Does he? He doesn't.",
        " It was 1984, at 9:30; 100 % of 12,000.50 were there.",
        " A & B = 5 $ § ½ \u2013 “quoted” … * #1",
        " 7",
        " !",
        " 你好 world, 再见",
        " İstanbul'da ΣΊΣΥΦΟΣ straße ﬁn",
        " שלום مرحبا e\u0301te\u0301 👩‍💻",
        " a | b || c|d",
        " <pad> <unk> </s>",
        " one.two!three?four (five.) six.",
        ' He said: "One. Two." (Three.) Four',
        " a" * 40,
        " doubled  spaces   all  over ",
        " a tab\there, a line\nend, a hard\u00a0space",
    ],
    ids=repr,
)
def test_every_text_comes_out_whole(aligner, text):
    """Digits, symbols, other scripts, the aligner's own marks: each word, once, in order."""
    passage = passage_of(text)
    segments = align_really(passage, aligner)

    assert segments is not None
    assert_faithful(passage, segments)
    assert [word for word in text.split(" ") if word] == words_of(segments)


@pytest.mark.parametrize(
    "text",
    [
        " He lives at the U.S.A.'s edge, since Yahoo!'s end.",
        " Be there at 5 p.m.: it begins.",
        ' "Stop!"she said. (Really?)(Yes.) No',
        " wait...what? Hm.)x a.*b (etc.);then",
    ],
)
def test_the_end_of_a_sentence_within_a_word_costs_nothing(aligner, text):
    """whisperX tells the letter after it twice; whole passages were left without words for it."""
    passage = passage_of(text)
    segments = align_really(passage, aligner)

    assert segments is not None
    assert_faithful(passage, segments)
    assert text.split() == words_of(segments)


def test_every_sentence_is_a_segment(aligner):
    """With the figures of the passage; its tokens stand once, in the first."""
    passage = passage_of(" One is here. Two is there! Is three?")
    segments = align_really(passage, aligner)

    assert [segment.text for segment in segments] == [
        " One is here.",
        " Two is there!",
        " Is three?",
    ]
    assert [segment.tokens for segment in segments] == [(1, 2, 3), (), ()]
    assert {segment.avg_logprob for segment in segments} == {-0.25}
    assert {segment.seek for segment in segments} == {10_000}


@pytest.mark.parametrize(
    "text", ["你好世界", "你好,世界!再见。", "你好 world 世界 2026", "龘", " 你好"]
)
def test_a_language_without_spaces_has_a_word_for_each_letter(chinese, text):
    """As whisperX has it; letters that the aligner does not know are no worse."""
    passage = passage_of(text)
    segments = align_really(passage, chinese)

    assert_faithful(passage, segments)
    assert list(text.replace(" ", "")) == words_of(segments)


def test_more_letters_than_frames_stay_as_heard(aligner):
    """Nobody speaks so fast: whisperX gives the text without words ("backtrack failed")."""
    assert align_really(passage_of(" abc" * 300, seconds=0.5), aligner) is None


@pytest.mark.parametrize("samples", [0, 1, 399, 400, 401, 800])
def test_a_passage_without_sound_stays_as_heard_or_is_whole(aligner, samples):
    """The model wants 400 samples; a passage at the very end may have none."""
    passage = passage_of(" a", seconds=samples / SAMPLE_RATE)
    segments = align(passage, aligner, sound_of(passage)[:samples])

    if samples == 0:
        assert segments is None
    if segments is not None:
        assert_faithful(passage, segments)


def test_a_text_that_holds_nothing_to_align_stays_as_heard(aligner):
    """Nothing but the mark for spaces, which whisperX does not look for."""
    assert align_really(passage_of(" "), aligner) is None


def test_a_passage_that_is_not_aligned_lasts(aligner):
    """What is shown without words has a time that can be seen, be the window of no length."""
    segment = unaligned(passage_of(" one", seconds=0.0))

    assert (segment.text, segment.words) == (" one", None)
    assert segment.end_seconds - segment.start_seconds == pytest.approx(SHORTEST_SECONDS)


# What it does rarely

Told = dict[str, object]
MakeUp = Callable[[list[Told]], None]


@pytest.fixture
def made_up(monkeypatch) -> MakeUp:
    """Let whisperX answer what the test says."""

    def make_up(found: list[Told]) -> None:
        monkeypatch.setattr("whisperx.align", lambda *_, **__: {"segments": found})

    return make_up


def word(text: str, *times: object) -> Told:
    """A word as whisperX tells it; what it does not know is not there."""
    named = zip(("start", "end", "score"), times, strict=False)
    return {"word": text} | {name: time for name, time in named if time is not None}


def sentence(text: str, *words: Told) -> Told:
    return {"text": text, "start": 0.0, "end": 1.0, "words": list(words)}


def align_made_up(text: str) -> tuple[Segment, ...] | None:
    passage = passage_of(text)
    segments = align(passage, Aligner(None, {}, "cpu"), sound_of(passage))
    if segments is not None:
        assert_faithful(passage, segments)
    return segments


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        pytest.param(
            [("a", 0.5, 1.0, 0.9), ("b",), ("c", 2.0, 2.5, 0.8)],
            [(100.5, 101.0, 0.9), (101.0, 102.0, None), (102.0, 102.5, 0.8)],
            id="none in the middle",
        ),
        pytest.param(
            [("a",), ("b", 1.0, 1.5, 0.9), ("c",)],
            [(100.0, 101.0, None), (101.0, 101.5, 0.9), (101.5, 103.0, None)],
            id="none at the ends",
        ),
        pytest.param(
            [("a", 1.0, 1.5, 0.9), ("b",), ("c",)],
            [(101.0, 101.5, 0.9), (101.5, 103.0, None), (103.0, 103.0, None)],
            id="two without in a row",
        ),
        pytest.param(
            [("a", 0.5, None, 0.9), ("b", None, 1.5, 0.9), ("c", 2.0, 2.5)],
            [(100.5, 102.0, 0.9), (102.0, 102.0, 0.9), (102.0, 102.5, None)],
            id="half a time",
        ),
        pytest.param(
            [("a", NAN, NAN, NAN), ("b", 1.0, NAN, 0.9), ("c", NAN, 2.5, NAN)],
            [(100.0, 101.0, None), (101.0, 103.0, 0.9), (103.0, 103.0, None)],
            id="NaN",
        ),
        pytest.param(
            [("a", 0.5, math.inf, 0.9), ("b", -math.inf, 1.5, 0.9), ("c", 2, 3, 1)],
            [(100.5, 102.0, 0.9), (102.0, 102.0, 0.9), (102.0, 103.0, 1.0)],
            id="infinity",
        ),
        pytest.param(
            [("a", -1.0, 0.5, -0.5), ("b", 2.9, 7.0, 1.5), ("c", 8.0, 9.0, 0.0)],
            [(100.0, 100.5, 0.0), (102.9, 103.0, 1.0), (103.0, 103.0, 0.0)],
            id="beyond the passage",
        ),
        pytest.param(
            [("a", 2.0, 1.0, 0.9), ("b", 1.0, 1.5, 0.9), ("c", 1.2, 2.5, 0.9)],
            [(102.0, 102.0, 0.9), (102.0, 102.0, 0.9), (102.0, 102.5, 0.9)],
            id="backwards",
        ),
        pytest.param(
            [("a", np.float64(0.5), np.float32(1.0), np.float64(0.9)), ("b", "1.0"), ("c", None)],
            [(100.5, 101.0, 0.9), (101.0, 103.0, None), (103.0, 103.0, None)],
            id="other types",
        ),
    ],
)
def test_every_word_gets_a_time(made_up, told, expected):
    """A word without one has what is between its neighbours, and tells that it is guessed."""
    made_up([sentence(" a b c", *(word(*each) for each in told))])
    [segment] = align_made_up(" a b c")

    assert expected == [
        (each.start_seconds, each.end_seconds, each.probability) for each in segment.words
    ]


A_B = [word("a", 0.5, 1.0, 0.9), word("b", 1.0, 1.5, 0.9)]
C_D = [word("c.", 1.5, 2.0, 0.9), word("d", 2.0, 2.5, 0.9)]


@pytest.mark.parametrize(
    "found",
    [
        pytest.param([], id="nothing"),
        pytest.param([sentence(" a b c. d")], id="no words"),
        pytest.param([{"text": " a b c. d"}], id="no list of words"),
        pytest.param([sentence("a b", *A_B)], id="the last sentence lost"),
        pytest.param([sentence("c. d", *C_D)], id="the first sentence lost"),
        pytest.param([sentence("c. d", *C_D), sentence("a b", *A_B)], id="another order"),
        pytest.param(
            [sentence("a b", *A_B), sentence("a b", *A_B), sentence("c. d", *C_D)], id="one twice"
        ),
        pytest.param([sentence(" a b  c. d", *A_B, *C_D)], id="doubled space"),
        pytest.param([sentence(" A b c. d", *A_B, *C_D)], id="another text"),
        pytest.param([sentence(" a b c. d", *A_B, *C_D[:1])], id="a word lost"),
        pytest.param([sentence(" a b c. d", *A_B, *reversed(C_D))], id="words in another order"),
        pytest.param([sentence(" a b c. d", *A_B, *A_B, *C_D)], id="words twice"),
        pytest.param([sentence(" a b c. d", word(""), *A_B, *C_D)], id="an empty word"),
        pytest.param([sentence(""), sentence(" a b c. d", *A_B, *C_D)], id="an empty sentence"),
        pytest.param(
            [sentence(" a b c. d", *(word(each["word"]) for each in A_B + C_D))], id="no times"
        ),
        pytest.param(
            [sentence(" a b c. d", *(word(each["word"], NAN, NAN, NAN) for each in A_B + C_D))],
            id="NaN alone",
        ),
    ],
)
def test_a_passage_that_does_not_come_out_whole_stays_as_heard(made_up, found):
    """Words that are lost, doubled or moved would be a transcript that nobody has spoken."""
    made_up(found)

    assert align_made_up(" a b c. d") is None


def test_spaces_at_the_edges_do_not_matter(made_up):
    """whisperX drops those around sentences and words; each piece gets the one before it."""
    made_up([sentence("a b", *A_B), sentence("c. d", *C_D)])
    first, second = align_made_up(" a b c. d ")

    assert (first.text, second.text) == (" a b", " c. d ")
    assert [each.text for each in second.words] == [" c.", " d "]


@pytest.mark.parametrize(
    "error",
    [
        IndexError("list index out of range"),
        KeyError("start"),
        ValueError("No objects to concatenate"),
        TypeError("ufunc 'isnan' not supported"),
        AttributeError("'float' object has no attribute"),
        ZeroDivisionError(),
    ],
    ids=repr,
)
def test_a_failure_of_the_library_leaves_the_passage_as_heard(monkeypatch, error):
    """Users of whisperX report each of these (m-bain/whisperX#412, #77, #120)."""

    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("whisperx.align", fail)

    assert align_made_up(" one two") is None


def test_a_failure_of_the_machine_is_not_hidden(monkeypatch):
    """Memory that ran out is no property of this passage: the caller must know."""

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("CUDA out of memory")

    monkeypatch.setattr("whisperx.align", fail)

    with pytest.raises(RuntimeError, match="out of memory"):
        align_made_up(" one two")


# Whatever it does

WORDS = st.text("ab,1漢|", min_size=1, max_size=3)
TIMES = st.one_of(st.none(), st.floats(-1, 5), st.just(NAN), st.floats(), st.integers(-1, 4))
ANYTHING = settings(max_examples=300, derandomize=True, database=None, deadline=None)


@st.composite
def answers(draw, *, honest: bool) -> tuple[str, list[Told]]:
    """Make up a text and what whisperX says of it; honest: no word is lost, doubled or moved."""
    spoken = draw(st.lists(st.lists(WORDS, min_size=1, max_size=4), min_size=1, max_size=4))
    joint = draw(st.sampled_from([" ", "  "]))
    text = " " + joint.join(joint.join(words) for words in spoken)
    found = [
        sentence(joint.join(words), *(word(each, *draw(st.tuples(*[TIMES] * 3))) for each in words))
        for words in spoken
    ]
    if not honest:
        found = draw(st.permutations([*found, *draw(st.lists(st.sampled_from(found), max_size=2))]))
        found = found[: draw(st.integers(0, len(found)))]
        for told in found:
            if draw(st.booleans()):
                told["words"] = draw(st.permutations(told["words"]))
    return text, found


@ANYTHING
@given(answers(honest=False))
def test_whatever_comes_back_is_faithful_or_refused(answer):
    """All words in order exactly once, or the passage stays as it was heard."""
    text, found = answer
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("whisperx.align", lambda *_, **__: {"segments": found})
        segments = align_made_up(text)

    if segments is not None:  # align_made_up has checked that it is faithful
        told = [each["word"] for sentence in found for each in sentence["words"]]
        assert text.split() == told == words_of(segments)


@ANYTHING
@given(answers(honest=True))
def test_whole_answers_are_taken(answer):
    """Words that came back whole are used if there is as much as one time among them."""
    text, found = answer
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("whisperx.align", lambda *_, **__: {"segments": found})
        segments = align_made_up(text)
    starts = [each.get("start") for sentence in found for each in sentence["words"]]

    assert (segments is not None) == any(
        start is not None and math.isfinite(start) for start in starts
    )


@settings(ANYTHING, max_examples=150)
@given(
    st.lists(
        st.text(st.sampled_from(""".!?.!?()"'[]{}*:;…”»-|ab1漢é"""), min_size=1, max_size=6),
        min_size=1,
        max_size=8,
    )
)
def test_whatever_is_written_is_aligned_whole(aligner, words):
    """By the real library: marks of all sorts, in any order, cost no passage its words."""
    passage = passage_of(f" {' '.join(words)}")
    segments = align_really(passage, aligner)

    assert segments is not None
    assert_faithful(passage, segments)
    assert words == words_of(segments)


@ANYTHING
@given(st.lists(st.text("ab ", max_size=4), max_size=4), st.text("ab ", max_size=8))
def test_a_text_is_cut_without_loss_or_not_at_all(parts, text):
    """Each piece holds its part, and all pieces joined are the text; if the words agree, it is."""
    pieces = cut(text, parts)
    words = [word for part in parts for word in part.split()]

    if pieces is None:
        assert not words or words != text.split() or not all(part.strip() for part in parts)
    else:
        assert "".join(pieces) == text
        assert [piece.strip() for piece in pieces] == [part.strip() for part in parts]
