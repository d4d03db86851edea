"""What the fields of POST /v1/audio/transcriptions mean."""

from dataclasses import dataclass

from services.transcription.errors import InvalidRequest
from services.transcription.formats import ResponseFormat, parse_format
from services.transcription.languages import LANGUAGES, parse_language
from services.transcription.models import ServedModel

# OpenAI's temperature 0 means: begin here, and climb while the result looks wrong.
TEMPERATURE_LADDER = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)

# Fields of OpenAI and of similar servers that are not supported here yet, with the values that
# ask for nothing. To ignore any other value would be to answer another question than was asked.
UNSUPPORTED: dict[str, frozenset[str]] = {
    "chunking_strategy": frozenset({"auto"}),
    "diarize": frozenset({"false"}),
    "hotwords": frozenset(),
    "include": frozenset(),
    "keywords": frozenset(),
    "known_speaker_names": frozenset(),
    "known_speaker_references": frozenset(),
    "languages": frozenset(),
    "max_speakers": frozenset(),
    "min_speakers": frozenset(),
    "num_speakers": frozenset(),
    "stream": frozenset({"false"}),
    "task": frozenset({"transcribe"}),
    "timestamp_granularities": frozenset({"segment"}),
    "vad_filter": frozenset({"true"}),
    "without_timestamps": frozenset(),
}


@dataclass(frozen=True)
class TranscriptionRequest:
    """What a client wants done with its recording."""

    language: str | None  # None: detect it
    prompt: str | None
    temperatures: tuple[float, ...]  # tried in this order
    response_format: ResponseFormat


def parse_form(fields: tuple[tuple[str, str], ...], model: ServedModel) -> TranscriptionRequest:
    """Give what the fields ask for, or refuse the first that is wrong.

    An empty optional field is one that was left out; of a repeated one the last counts. Fields
    that nobody has heard of are ignored.
    """
    for name, value in fields:
        _refuse_unsupported(name, value)
    values = dict(fields)
    model.check(values.get("model"))
    return TranscriptionRequest(
        language=parse_language(values.get("language", "")),
        prompt=values.get("prompt") or None,
        temperatures=parse_temperature(values.get("temperature", "")),
        response_format=parse_format(values.get("response_format", "")),
    )


def parse_temperature(value: str) -> tuple[float, ...]:
    """Give the temperatures to try: OpenAI's ladder for 0 and for nothing, else only that one."""
    if not value.strip():
        return TEMPERATURE_LADDER
    try:
        temperature = float(value)
    except ValueError:
        temperature = float("nan")
    if not 0 <= temperature <= 1:  # true for NaN too
        raise InvalidRequest(
            f"temperature: {value!r} is not a number from 0 to 1",
            param="temperature",
            code="invalid_value",
        )
    return TEMPERATURE_LADDER if temperature == 0 else (temperature,)


def _refuse_unsupported(name: str, value: str) -> None:
    # Lists arrive as `name[]`, with or without the brackets, and objects as `name[key]`.
    field = name.partition("[")[0]
    if field not in UNSUPPORTED or not value or value.lower() in UNSUPPORTED[field]:
        return
    raise InvalidRequest(
        f"{field}: {value[:100]!r} is not supported by this service; leave it out",
        param=field,
        code="unsupported_parameter",
    )


def form_schema() -> dict[str, object]:
    """Give the OpenAPI description of the form, for the route that reads it by itself."""
    properties: dict[str, object] = {
        "file": {
            "type": "string",
            "format": "binary",
            "description": "The recording, in any format that FFmpeg reads: "
            "flac, m4a, mp3, mp4, ogg, wav, webm and many more.",
        },
        "model": {"type": "string", "description": "As in `GET /v1/models`, or `whisper-1`."},
        "language": {
            "type": "string",
            "description": "A code or an English name. Empty: detect it.",
            "examples": [*list(LANGUAGES)[:3], "french"],
        },
        "prompt": {
            "type": "string",
            "description": "Text that precedes the recording: names, spelling, style.",
        },
        "response_format": {"type": "string", "enum": list(ResponseFormat), "default": "json"},
        "temperature": {
            "type": "number",
            "minimum": 0,
            "maximum": 1,
            "default": 0,
            "description": "0 begins at 0 and climbs while the result looks wrong.",
        },
    }
    return {"type": "object", "required": ["file", "model"], "properties": properties}
