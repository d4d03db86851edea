"""How a transcript is written for the client that asked."""

import math
from enum import StrEnum

from fastapi.responses import JSONResponse, PlainTextResponse, Response

from services.transcription.errors import InvalidRequest
from services.transcription.transcript import Transcript


class ResponseFormat(StrEnum):
    """The formats that can be asked for."""

    JSON = "json"
    TEXT = "text"


def parse_format(value: str) -> ResponseFormat:
    """Give the format of that name; "" is OpenAI's default."""
    if not value:
        return ResponseFormat.JSON
    try:
        return ResponseFormat(value)
    except ValueError:
        allowed = ", ".join(ResponseFormat)
        raise InvalidRequest(
            f"response_format: {value!r} is not supported here; use one of: {allowed}",
            param="response_format",
            code="unsupported_value",
        ) from None


def render(transcript: Transcript, response_format: ResponseFormat) -> Response:
    """Give the answer that carries a transcript."""
    match response_format:
        case ResponseFormat.JSON:
            return JSONResponse({"text": transcript.text, "usage": _usage(transcript)})
        case ResponseFormat.TEXT:
            return PlainTextResponse(transcript.text + "\n")


def _usage(transcript: Transcript) -> dict[str, object]:
    # Whole seconds, rounded up, as OpenAI and vLLM count.
    return {"type": "duration", "seconds": math.ceil(transcript.duration_seconds)}
