"""The names of the formats in which a transcript can be had."""

from collections.abc import Sequence
from typing import Literal, get_args

from services.transcription.errors import InvalidRequest

ResponseFormat = Literal[
    "json", "text", "srt", "verbose_json", "vtt", "tsv", "diarized_json", "rttm"
]

# Those that tell who speaks come last.
ALL_FORMATS: tuple[ResponseFormat, ...] = get_args(ResponseFormat)
FORMATS: tuple[ResponseFormat, ...] = ALL_FORMATS[:-2]


def parse_format(value: object, allowed: Sequence[ResponseFormat]) -> ResponseFormat:
    """Give the format of that name."""
    for known in allowed:
        if value == known:
            return known
    listed = ", ".join(allowed)
    message = f"response_format: {str(value)[:100]!r} is not supported here; use one of: {listed}"
    if value in ALL_FORMATS:
        message += ". It tells who speaks, which this model does not know: services/whisperx does"
    raise InvalidRequest(message, param="response_format", code="unsupported_value")
