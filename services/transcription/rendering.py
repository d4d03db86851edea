"""Writes a transcript in the format that the client asked for."""

from fastapi.responses import PlainTextResponse, Response

from services.transcription.answers import diarized_body, transcription_body, verbose_body
from services.transcription.errors import SpeakersUnavailable
from services.transcription.request import TranscriptionRequest
from services.transcription.subtitles import (
    spoken_line,
    write_rttm,
    write_srt,
    write_tsv,
    write_vtt,
)
from services.transcription.transcript import Transcript, Turn

# Their codes: not every format has room for them.
WARNINGS_HEADER = "Transcription-Warnings"


def render(transcript: Transcript, request: TranscriptionRequest) -> Response:
    """Give the answer that carries a transcript."""
    match request.response_format:
        case "json":
            body = transcription_body(transcript, logprobs=request.logprobs)
            response = json_response(body.model_dump_json(exclude_none=True))
        case "verbose_json":
            # `words` is null where it was not asked for: clients expect it to be there.
            verbose = verbose_body(transcript, task=request.task, words=request.words)
            without = None if transcript.warnings else {"warnings"}
            response = json_response(verbose.model_dump_json(exclude=without))
        case "diarized_json":
            diarized = diarized_body(transcript, task=request.task)
            response = json_response(diarized.model_dump_json(exclude_none=True))
        case "rttm":
            response = PlainTextResponse(write_rttm(told_turns(transcript)))
        case "text":
            response = PlainTextResponse(_lines(transcript))
        case "srt":
            response = PlainTextResponse(write_srt(transcript.segments))
        case "vtt":
            response = Response(write_vtt(transcript.segments), media_type="text/vtt")
        case "tsv":
            media_type = "text/tab-separated-values"
            response = Response(write_tsv(transcript.segments), media_type=media_type)
    return with_warnings(response, transcript)


def with_warnings(response: Response, transcript: Transcript) -> Response:
    """Add the codes of the warnings to an answer."""
    if transcript.warnings:
        codes = dict.fromkeys(warned.code for warned in transcript.warnings)
        response.headers[WARNINGS_HEADER] = ", ".join(codes)
    return response


def json_response(text: str) -> Response:
    """Give an answer whose body is JSON already."""
    return Response(text, media_type="application/json")


def told_turns(transcript: Transcript) -> tuple[Turn, ...]:
    """Give who speaks when; raises SpeakersUnavailable where nothing else was asked for."""
    if transcript.turns is None:
        reasons = [warned.message for warned in transcript.warnings]
        raise SpeakersUnavailable(
            "; ".join(reasons) or "speakers cannot be told", code="speakers_unavailable"
        )
    return transcript.turns


def _lines(transcript: Transcript) -> str:
    """Give the text; a line for each segment where it is known who speaks."""
    if not any(segment.speaker for segment in transcript.segments):
        return transcript.text + "\n"
    return "".join(f"{spoken_line(segment)}\n" for segment in transcript.segments)
