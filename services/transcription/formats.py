"""The names of the formats in which a transcript can be had."""

from typing import Literal, get_args

from services.transcription.errors import InvalidRequest

ResponseFormat = Literal["json", "text", "srt", "verbose_json", "vtt", "tsv"]

FORMATS: tuple[ResponseFormat, ...] = get_args(ResponseFormat)

_OF_SPEAKERS = ("diarized_json", "rttm")


def parse_format(value: str) -> ResponseFormat:
    """Give the format of that name."""
    for known in FORMATS:
        if value == known:
            return known
    listed = ", ".join(FORMATS)
    message = f"response_format: {value[:100]!r} is not supported here; use one of: {listed}"
    if value in _OF_SPEAKERS:
        message += ". It tells who speaks, which this model does not know: services/whisperx does"
    raise InvalidRequest(message, param="response_format", code="unsupported_value")
