"""What a job's input, and a form's fields, are read as."""

import pytest

from services.transcription.errors import InvalidRequest
from services.transcription.request import SpeakerTuning
from services.voxtral.request import OTHERS_LANGUAGES, Wanted, parse_input

URL = "https://example.com/a.wav"


def wanted(*, with_summary_default: bool = False, **fields: object) -> Wanted:
    read = parse_input({"audio_url": URL, **fields})
    return read.wanted(with_summary_default=with_summary_default)


def refusal(given: object) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as refused:
        parse_input(given).wanted(with_summary_default=False)
    return refused.value


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, Wanted()),
        ({"task": None, "language": "", "summary": "", "max_new_tokens": ""}, Wanted()),
        ({"task": "summary"}, Wanted("summary", summary=True)),
        ({"task": "summary", "summary": False}, Wanted("summary", summary=True)),
        ({"language": "French", "sentiment": "true"}, Wanted(language="fr", sentiment=True)),
        ({"language": "auto", "max_new_tokens": "64"}, Wanted(max_new_tokens=64)),
        ({"min_speakers": 2, "of_another_worker": 1}, Wanted()),
        (
            {"task": "transcribe_diarized", "min_speakers": 2, "max_speakers": "3"},
            Wanted("transcribe_diarized", speakers=SpeakerTuning(count_min=2, count_max=3)),
        ),
        (
            {"task": "transcribe_diarized", "num_speakers": 2},
            Wanted("transcribe_diarized", speakers=SpeakerTuning(count=2)),
        ),
    ],
)
def test_both_older_workers_words_are_read(fields, expected):
    """What is left out, or empty, or not known here, asks for nothing."""
    assert wanted(**fields) == expected


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"task": "transcribe_diarized"}, True),
        ({"task": "transcribe_diarized", "summary": False}, False),
        ({"task": "transcribe"}, False),
    ],
)
def test_the_operators_default_adds_a_summary_where_speakers_are_told(fields, expected):
    """WITH_SUMMARY_DEFAULT is for that task, and for requests that do not say."""
    assert wanted(with_summary_default=True, **fields).summary is expected


@pytest.mark.parametrize("code", sorted(OTHERS_LANGUAGES))
def test_a_language_that_voxtral_does_not_know_is_refused(code):
    """Before the recording is fetched."""
    error = refusal({"audio_url": URL, "language": code})

    assert (error.status, error.param) == (400, "language")
    assert repr(code) in error.message


@pytest.mark.parametrize(
    ("given", "param", "told"),
    [
        (None, "input", "a JSON object"),
        ([], "input", "a JSON object"),
        ({}, "audio_url", "audio_url or as audio_base64"),
        ({"audio_url": URL, "audio_base64": "UklGRg=="}, "audio_url", "one of them"),
        ({"audio_url": URL, "task": "translate"}, "task", "'translate' is not taken"),
        ({"audio_url": URL, "language": "klingon"}, "language", "'klingon' is not known"),
        ({"audio_url": URL, "summary": "perhaps"}, "summary", "'perhaps' is not taken"),
        ({"audio_url": URL, "max_new_tokens": 0}, "max_new_tokens", "greater than or equal to 1"),
        ({"audio_url": 7}, "audio_url", "7 is not taken"),
        (
            {
                "audio_url": URL,
                "task": "transcribe_diarized",
                "min_speakers": 3,
                "max_speakers": 2,
            },
            "min_speakers",
            "max_speakers is 2",
        ),
        (
            {
                "audio_url": URL,
                "task": "transcribe_diarized",
                "num_speakers": 4,
                "max_speakers": 2,
            },
            "num_speakers",
            "4 is not taken",
        ),
    ],
)
def test_what_is_wrong_is_named(given, param, told):
    """The field, its value, and what is allowed."""
    error = refusal(given)

    assert error.param == param
    assert told in error.message
