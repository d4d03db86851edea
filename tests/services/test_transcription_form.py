"""Form fields become a request: tables of what is taken and what is refused."""

import pytest
from faster_whisper.tokenizer import _LANGUAGE_CODES

from services.transcription.errors import ApiError
from services.transcription.fields import UNSUPPORTED
from services.transcription.form import SpeechForm, TranscriptionForm, TranslationForm
from services.transcription.formats import FORMATS
from services.transcription.languages import LANGUAGES, parse_language
from services.transcription.request import TEMPERATURE_LADDER, TranscriptionRequest, VadTuning


def parse(*fields: tuple[str, str], form: type[TranslationForm] = TranscriptionForm):
    return form.parse([("model", "small"), *fields]).request()


def refusal(*fields: tuple[str, str]) -> ApiError:
    with pytest.raises(ApiError) as raised:
        parse(*fields)
    return raised.value


def test_left_out_fields_have_openai_defaults():
    """Detected language, no prompt, the ladder of temperatures, json, nothing extra."""
    assert parse() == TranscriptionRequest(
        model="small",
        task="transcribe",
        language=None,
        languages=(),
        prompt=None,
        hotwords=None,
        temperatures=TEMPERATURE_LADDER,
        response_format="json",
        words=False,
        logprobs=False,
        stream=False,
        without_timestamps=False,
        vad=VadTuning(),
    )


def test_an_empty_field_is_one_that_was_left_out():
    """Forms on pages, and spec-driven clients, send every field."""
    names = [name for name in TranscriptionForm.schema_of_form()["properties"] if name != "file"]

    assert parse(*((name, "") for name in names if name != "model")) == parse()


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ([("language", "French")], {"language": "fr"}),
        ([("languages[]", "fr")], {"language": "fr"}),
        ([("languages[]", "fr"), ("languages[]", "French")], {"language": "fr"}),
        ([("languages", "fr"), ("languages", "english")], {"languages": ("fr", "en")}),
        ([("languages[]", "fr"), ("languages[]", "en")], {"languages": ("fr", "en")}),
        ([("languages[]", "fr,en"), ("language", "de")], {"language": "de", "languages": ()}),
        ([("prompt", "Ada")], {"prompt": "Ada"}),
        ([("prompt", "[1,2]")], {"prompt": "[1,2]"}),
        ([("hotwords", "Ada, Babbage")], {"hotwords": "Ada, Babbage"}),
        ([("keywords[]", "Ada"), ("keywords[]", "Bo, Cy")], {"hotwords": "Ada, Bo, Cy"}),
        ([("keywords", '["Ada", "Bo"]')], {"hotwords": "Ada, Bo"}),
        ([("hotwords", "Ada"), ("keywords", "Bo")], {"hotwords": "Ada, Bo"}),
        ([("temperature", "0.0")], {"temperatures": TEMPERATURE_LADDER}),
        ([("temperature", "0.4")], {"temperatures": (0.4,)}),
        ([("task", "translate")], {"task": "translate"}),
        ([("include[]", "logprobs")], {"logprobs": True}),
        ([("include", '["logprobs"]')], {"logprobs": True}),
        ([("include[0]", "logprobs")], {"logprobs": True}),
        ([("stream", "true")], {"stream": True}),
        ([("stream", "True")], {"stream": True}),
        ([("stream", "1")], {"stream": True}),
        ([("stream", "false")], {"stream": False}),
        ([("without_timestamps", "true")], {"without_timestamps": True}),
        ([("vad_filter", "false")], {"vad": VadTuning(enabled=False)}),
        ([("vad_filter", "true")], {"vad": VadTuning(enabled=True)}),
        ([("vad_threshold", "0.3")], {"vad": VadTuning(threshold=0.3)}),
        ([("chunking_strategy", "auto")], {"vad": VadTuning()}),
        ([("user", "somebody"), ("file[]", "x")], {}),
    ],
)
def test_given_fields_are_kept(fields, expected):
    """Each field says what it says, in any spelling of clients."""
    request = vars(parse(*fields))

    assert request == vars(parse()) | expected


@pytest.mark.parametrize("response_format", FORMATS)
def test_every_format_is_taken(response_format):
    """They are OpenAI's, and Whisper's own table."""
    assert parse(("response_format", response_format)).response_format == response_format


@pytest.mark.parametrize(
    "fields",
    [
        [("timestamp_granularities[]", "word")],
        [("timestamp_granularities", "word")],
        [("timestamp_granularities[]", "segment"), ("timestamp_granularities[]", "word")],
        [("timestamp_granularities", '["word","segment"]')],
        [("timestamp_granularities", "segment, word")],
    ],
)
def test_words_are_asked_for_in_any_spelling(fields):
    """With and without brackets, repeated or listed; segments are there anyway."""
    assert parse(("response_format", "verbose_json"), *fields).words


@pytest.mark.parametrize(
    "fields",
    [
        [("chunking_strategy", '{"type": "server_vad", "threshold": 0.3, "prefix_padding_ms": 9}')],
        [
            ("chunking_strategy[type]", "server_vad"),
            ("chunking_strategy[threshold]", "0.3"),
            ("chunking_strategy[prefix_padding_ms]", "9"),
        ],
    ],
)
def test_a_chunking_strategy_tunes_the_detector(fields):
    """As JSON or as bracketed keys: openai's clients send the latter."""
    assert parse(*fields).vad == VadTuning(threshold=0.3, speech_pad_ms=9)


def test_the_detectors_own_names_win():
    """They are the more exact way to say it."""
    fields = [
        ("chunking_strategy", '{"type": "server_vad", "threshold": 0.3, "silence_duration_ms": 7}'),
        ("vad_threshold", "0.6"),
    ]

    assert parse(*fields).vad == VadTuning(threshold=0.6, min_silence_duration_ms=7)


def test_the_last_of_a_repeated_field_counts():
    """As in most form parsers."""
    assert parse(("language", "fr"), ("language", "en")).language == "en"


def test_a_translation_is_into_english():
    """Whatever is spoken: a language is that of the recording."""
    request = parse(("language", "fr"), ("prompt", "Ada"), form=TranslationForm)

    assert (request.task, request.language, request.prompt) == ("translate", "fr", "Ada")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("stream", "true"),
        ("timestamp_granularities[]", "word"),
        ("include[]", "logprobs"),
        ("task", "transcribe"),
    ],
)
def test_what_a_translation_has_not_is_refused(field, value):
    """To ignore it would be to answer another question; the other route is named."""
    with pytest.raises(ApiError, match="/v1/audio/transcriptions takes it") as raised:
        parse((field, value), form=TranslationForm)

    assert raised.value.param == field.removesuffix("[]")


@pytest.mark.parametrize(
    ("fields", "param", "told"),
    [
        ([("language", "klingon")], "language", "fr (french)"),
        ([("languages[]", "klingon")], "languages", "fr (french)"),
        ([("temperature", "1.01")], "temperature", "less than or equal to 1"),
        ([("temperature", "-0.1")], "temperature", "greater than or equal to 0"),
        ([("temperature", "6.8e16")], "temperature", "6.8e16"),
        ([("temperature", "nan")], "temperature", "nan"),
        ([("temperature", "warm")], "temperature", "warm"),
        ([("temperature[]", "[0,1]")], "temperature", "[0,1]"),
        ([("response_format", "docx")], "response_format", "json, text, srt, verbose_json, vtt"),
        ([("response_format", "diarized_json")], "response_format", "services/whisperx"),
        ([("response_format", "rttm")], "response_format", "services/whisperx"),
        ([("task", "sing")], "task", "'transcribe' or 'translate'"),
        ([("stream", "perhaps")], "stream", "perhaps"),
        ([("stream", "true"), ("response_format", "srt")], "stream", "json or text, not srt"),
        ([("include[]", "usage")], "include", "logprobs"),
        ([("timestamp_granularities[]", "word")], "timestamp_granularities", "verbose_json"),
        ([("timestamp_granularities[]", "line")], "timestamp_granularities", "segment, word"),
        ([("chunking_strategy", "manual")], "chunking_strategy", "auto"),
        ([("chunking_strategy", "[1]")], "chunking_strategy", "auto"),
        ([("chunking_strategy", "{}")], "chunking_strategy", "[type] field required"),
        ([("chunking_strategy[type]", "auto")], "chunking_strategy", "[type]"),
        (
            [("chunking_strategy[type]", "server_vad"), ("chunking_strategy[loud]", "1")],
            "chunking_strategy",
            "[loud]",
        ),
        (
            [("chunking_strategy[type]", "server_vad"), ("chunking_strategy[threshold]", "2")],
            "chunking_strategy",
            "[threshold]",
        ),
        ([("hotwords", "x" * 2001)], "hotwords", "at most 2000 characters"),
        ([("vad_filter", "maybe")], "vad_filter", "maybe"),
        ([("vad_threshold", "1.5")], "vad_threshold", "less than or equal to 1"),
        ([("vad_speech_pad_ms", "1.5")], "vad_speech_pad_ms", "integer"),
        ([("vad_max_speech_duration_s", "31")], "vad_max_speech_duration_s", "30"),
        (
            [("vad_max_speech_duration_s", "1"), ("vad_speech_pad_ms", "500")],
            "vad_speech_pad_ms",
            "less than vad_max_speech_duration_s (1 s)",
        ),
    ],
)
def test_a_wrong_value_is_refused_by_name(fields, param, told):
    """The field, the value and what is allowed are named; nothing is ignored."""
    error = refusal(*fields)

    assert (error.status, error.param) == (400, param)
    assert param in error.message
    assert told in error.message


@pytest.mark.parametrize("fields", [[], [("model", "")]])
def test_a_model_must_be_named(fields):
    """As with OpenAI; the error's code says so."""
    with pytest.raises(ApiError, match="model: is required") as raised:
        TranscriptionForm.parse(fields)

    assert (raised.value.param, raised.value.code) == ("model", "missing_required_parameter")


def test_a_long_value_is_not_repeated_whole():
    """An answer is not the place for a megabyte of junk."""
    for field in ("language", "temperature", "response_format", "chunking_strategy", "seed"):
        assert len(refusal((field, "x" * 60_000)).message) < 3_000


@pytest.mark.parametrize("field", UNSUPPORTED)
def test_an_unsupported_field_is_refused_by_name(field):
    """In any of the spellings in which clients send lists and objects."""
    for name in (field, f"{field}[]", f"{field}[key]"):
        error = refusal((name, "anything"))

        assert (error.status, error.param) == (400, field)
        assert error.code == "unsupported_parameter"


@pytest.mark.parametrize("field", UNSUPPORTED)
def test_an_unsupported_field_that_asks_for_nothing_is_taken(field):
    """Empty, or the value that is the default anyway."""
    for value in ("", *UNSUPPORTED[field].harmless):
        assert parse((field, value)) == parse()


def test_who_wants_speakers_is_told_where_they_are():
    """This engine has none, the WhisperX service does."""
    assert "services/whisperx" in refusal(("known_speaker_names[]", "Ada")).message


def test_the_detector_alone_needs_no_model():
    """POST /v1/audio/speech/timestamps takes its tuning and nothing else."""
    assert SpeechForm.parse([("vad_threshold", "0.2")]).vad() == VadTuning(threshold=0.2)


# Languages


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


# The description


@pytest.mark.parametrize("form", [SpeechForm, TranslationForm, TranscriptionForm])
def test_the_schema_needs_nothing_from_elsewhere(form):
    """It stands in the document by itself, so no reference may point out of it."""
    schema = form.schema_of_form()

    assert "$ref" not in str(schema)
    assert schema["required"] == (["file"] if form is SpeechForm else ["file", "model"])


def test_the_schema_spells_lists_as_openai_does():
    """So clients that are made from it work with OpenAI too."""
    properties = TranscriptionForm.schema_of_form()["properties"]
    lists = {name for name in properties if name.endswith("[]")}

    assert lists == {"include[]", "keywords[]", "languages[]", "timestamp_granularities[]"}
