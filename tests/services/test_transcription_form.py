"""Form fields become a request: tables of what is taken and what is refused."""

import pytest
from faster_whisper.tokenizer import _LANGUAGE_CODES

from services.faster_whisper.settings import WhisperSettings, served_model
from services.transcription.errors import ApiError
from services.transcription.form import TEMPERATURE_LADDER, UNSUPPORTED, form_schema, parse_form
from services.transcription.formats import ResponseFormat
from services.transcription.languages import LANGUAGES, parse_language
from services.transcription.models import ServedModel

MODEL = ServedModel(id="small", aliases=("Systran/faster-whisper-small",))


def parse(**fields: str):
    return parse_form((("model", "small"), *fields.items()), MODEL)


def test_left_out_fields_have_openai_defaults():
    """Detected language, no prompt, the ladder of temperatures, json."""
    request = parse()

    assert request.language is None
    assert request.prompt is None
    assert request.temperatures == TEMPERATURE_LADDER
    assert request.response_format is ResponseFormat.JSON


def test_given_fields_are_kept():
    """Each field says what it says."""
    request = parse(language="French", prompt="Ada", temperature="0.4", response_format="text")

    assert (request.language, request.prompt) == ("fr", "Ada")
    assert (request.temperatures, request.response_format) == ((0.4,), ResponseFormat.TEXT)


def test_the_last_of_a_repeated_field_counts():
    """As in most form parsers."""
    fields = (("model", "small"), ("language", "fr"), ("language", "en"))

    assert parse_form(fields, MODEL).language == "en"


def test_the_languages_are_those_of_the_library():
    """A language of a newer library must not be refused here."""
    assert set(LANGUAGES) == set(_LANGUAGE_CODES)


@pytest.mark.parametrize(
    ("value", "code"),
    [
        ("en", "en"),
        (" EN ", "en"),
        ("Haitian Creole", "ht"),
        ("castilian", "es"),
        ("yue", "yue"),
        ("", None),
        (" ", None),
    ],
)
def test_a_language_is_known_by_code_and_name(value, code):
    """Case and spaces around do not matter; nothing means "detect it"."""
    assert parse_language(value) == code


@pytest.mark.parametrize("field", UNSUPPORTED)
def test_an_unsupported_field_is_refused_by_name(field):
    """In any of the spellings in which clients send lists and objects."""
    for name in (field, f"{field}[]", f"{field}[key]"):
        with pytest.raises(ApiError) as raised:
            parse(**{name: "anything"})

        assert (raised.value.status, raised.value.param) == (400, field)


@pytest.mark.parametrize("field", UNSUPPORTED)
def test_an_unsupported_field_that_asks_for_nothing_is_taken(field):
    """Empty, or the value that is the default anyway."""
    for value in ("", *UNSUPPORTED[field]):
        assert parse(**{field: value}) == parse()


@pytest.mark.parametrize(
    ("setting", "names"),
    [
        ("small", ["small", "Systran/faster-whisper-small"]),
        ("Systran/faster-whisper-base.en", ["Systran/faster-whisper-base.en", "base.en"]),
        ("somebody/whisper", ["somebody/whisper"]),
        ("/models/mine", ["mine", "/models/mine"]),
    ],
)
def test_a_model_answers_to_its_names_and_openais(setting, names):
    """The first name is shown; size and full name mean the same, and so do OpenAI's."""
    model = served_model(WhisperSettings(model=setting))

    assert model.id == names[0]
    assert all(model.answers_to(name) for name in names)
    assert model.answers_to("whisper-1")
    assert model.answers_to("gpt-4o-mini-transcribe-2025-12-15")
    assert not model.answers_to("gpt-4o")
    assert not model.answers_to("whisper-2")


def test_an_alias_is_the_name_that_is_shown():
    """The operator's name for the model comes first."""
    model = served_model(WhisperSettings(model="small", alias="house-model"))

    assert model.names[:2] == ("house-model", "small")


def test_the_schema_has_every_field_that_is_read():
    """The docs are written by hand, so a test compares them."""
    assert set(form_schema()["properties"]) == {
        "file",
        "language",
        "model",
        "prompt",
        "response_format",
        "temperature",
    }
