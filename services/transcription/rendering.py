"""Writes a transcript in the format that the client asked for."""

from fastapi.responses import PlainTextResponse, Response

from services.transcription.answers import transcription_body, verbose_body
from services.transcription.form import TranscriptionRequest
from services.transcription.subtitles import write_srt, write_tsv, write_vtt
from services.transcription.transcript import Transcript


def render(transcript: Transcript, request: TranscriptionRequest) -> Response:
    """Give the answer that carries a transcript."""
    match request.response_format:
        case "json":
            body = transcription_body(transcript, logprobs=request.logprobs)
            return _json(body.model_dump_json(exclude_none=True))
        case "verbose_json":
            # `words` is null where it was not asked for: clients expect it to be there.
            verbose = verbose_body(transcript, task=request.task, words=request.words)
            return _json(verbose.model_dump_json())
        case "text":
            return PlainTextResponse(transcript.text + "\n")
        case "srt":
            return PlainTextResponse(write_srt(transcript.segments))
        case "vtt":
            return Response(write_vtt(transcript.segments), media_type="text/vtt")
        case "tsv":
            return Response(write_tsv(transcript.segments), media_type="text/tab-separated-values")


def _json(text: str) -> Response:
    return Response(text, media_type="application/json")
