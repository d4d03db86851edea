"""What is taken for an opinion of what a model writes, and what is not."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.voxtral.answers import Sentiment
from services.voxtral.understanding import parse_sentiment

ANYTHING = settings(max_examples=200, derandomize=True, database=None, deadline=None)

OPINION = {
    "sentiment": "négatif",
    "score": -0.8,
    "emotions": ["colère", "lassitude"],
    "satisfaction_client": "insatisfait",
}


def opinion(**changes: Any) -> str:
    return json.dumps(OPINION | changes, ensure_ascii=False)


@pytest.mark.parametrize(
    ("answer", "changes"),
    [
        pytest.param(opinion(), {}, id="as asked for"),
        pytest.param(json.dumps(OPINION), {}, id="with escapes"),
        pytest.param(f"Voici :\n```json\n{opinion()}\n```\nVoilà.", {}, id="with words around"),
        pytest.param(f"L'objet {{demandé}} : {opinion()}", {}, id="with braces before"),
        pytest.param(opinion() + opinion(score=1), {}, id="the first of two"),
        pytest.param(opinion(sentiment="Negatif"), {}, id="without accents"),
        pytest.param(opinion(sentiment=" NE\u0301GATIF "), {}, id="with accents apart"),
        pytest.param(opinion(sentiment="Positif"), {"sentiment": "positif"}, id="in capitals"),
        pytest.param(
            opinion(satisfaction_client="Satisfait"),
            {"satisfaction_client": "satisfait"},
            id="both",
        ),
        pytest.param(opinion(score=1), {"score": 1.0}, id="a whole number"),
        pytest.param(opinion(score=-1), {"score": -1.0}, id="the least"),
        pytest.param(opinion(emotions=[]), {"emotions": []}, id="no emotions"),
        pytest.param(opinion(confiance=0.9), {}, id="with a field of its own"),
    ],
)
def test_an_opinion_is_read(answer, changes):
    """However a model dresses it."""
    assert parse_sentiment(answer) == Sentiment(**(OPINION | changes))


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param("", id="nothing"),
        pytest.param("Le client est content.", id="words"),
        pytest.param(opinion()[:-1], id="cut off"),
        pytest.param("[1, 2]", id="a list"),
        pytest.param("{}", id="empty"),
        pytest.param(opinion().replace("-0.8", "NaN"), id="not a number"),
        pytest.param(opinion().replace("-0.8", "-Infinity"), id="infinite"),
        pytest.param(opinion().replace("-0.8", "1e999"), id="too large for a number"),
        pytest.param(opinion().replace("-0.8", "1" * 5000), id="digits without end"),
        pytest.param(opinion(score=1.5), id="more than one"),
        pytest.param(opinion(score=-1.01), id="less than the least"),
        pytest.param(opinion(score="0.5"), id="a number in quotes"),
        pytest.param(opinion(score=True), id="no number"),
        pytest.param(opinion(score=None), id="null"),
        pytest.param(opinion(sentiment="mitigé"), id="an unknown word"),
        pytest.param(opinion(sentiment="positive"), id="English"),
        pytest.param(opinion(sentiment="positif|neutre"), id="two words"),
        pytest.param(opinion(sentiment=["positif"]), id="a list of one"),
        pytest.param(opinion(satisfaction_client="content"), id="another unknown word"),
        pytest.param(opinion(emotions="joie"), id="no list"),
        pytest.param(opinion(emotions=[1]), id="a list of numbers"),
        pytest.param(opinion(emotions=["joie"] * 21), id="a list without end"),
        pytest.param(json.dumps({**OPINION, "score": None} | {"score": {}}), id="an object"),
        pytest.param(json.dumps({"sentiment": "positif"}), id="a field alone"),
        pytest.param('{"a":' * 20_000, id="depth without end"),
        pytest.param("{" * 20_000 + opinion(), id="braces without end"),
    ],
)
def test_what_is_no_opinion_is_not_read(answer):
    """And nothing is made up from what is there."""
    assert parse_sentiment(answer) is None


@ANYTHING
@given(st.text(alphabet='{}[]":,0.1-eNaIéposit \n\\', max_size=200))
def test_no_answer_is_too_strange(answer):
    """Whatever a model writes, it is an opinion or none."""
    assert parse_sentiment(answer) is None or isinstance(parse_sentiment(answer), Sentiment)
