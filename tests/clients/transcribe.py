"""Asks as an unmodified program does, with the openai package that PYTHONPATH names.

Reads wishes from stdin and prints what came of each, both as JSON; transcribe.mjs does the same.
Every answer is held against the package's own models, strictly: the package itself does not.
"""

import json
import sys
from pathlib import Path

import openai
from openai.types.audio import TranscriptionStreamEvent
from pydantic import BaseModel, TypeAdapter, ValidationError

EVENT = TypeAdapter(TranscriptionStreamEvent)


def main() -> None:
    wishes = json.load(sys.stdin)
    answers = {wish["name"]: fulfil(wish) for wish in wishes}
    json.dump({"version": openai.__version__, "answers": answers}, sys.stdout)


def fulfil(wish: dict) -> dict:
    client = openai.OpenAI(base_url=wish["url"], api_key=wish["key"], **wish["settings"])
    endpoint = getattr(client.audio, wish["call"])
    with client, Path(wish["file"]).open("rb") as recording:
        options = {"file": recording, "model": wish["model"], **wish["options"]}
        try:
            return stream(endpoint, options) if "stream" in options else ask(endpoint, options)
        except openai.APIStatusError as error:
            return {
                "exception": type(error).__name__,
                "status": error.status_code,
                "code": error.code,
                "param": error.param,
                "type": error.type,
                "headers": dict(error.response.headers),
            }


def ask(endpoint, options: dict) -> dict:
    response = endpoint.with_raw_response.create(**options)
    answer = response.parse()
    told = {"headers": dict(response.headers), "kind": type(answer).__name__}
    if isinstance(answer, BaseModel):
        wrong = complaint(type(answer).model_validate_json, response.text)
        return {**told, "text": answer.text, "body": json.loads(response.text), "wrong": wrong}
    return {**told, "text": answer, "body": None, "wrong": None}


def stream(endpoint, options: dict) -> dict:
    """Read the events as programs do, then a second time as they are sent."""
    with endpoint.create(**options) as events:
        read = [event.to_dict() for event in events]
    options["file"].seek(0)
    with endpoint.with_streaming_response.create(**options) as response:
        sent = [line.removeprefix("data: ") for line in response.iter_lines() if line]
        headers = dict(response.headers)
    complaints = [complaint(EVENT.validate_json, line) for line in sent]
    wrong = next((told for told in complaints if told), None)
    return {"headers": headers, "events": read, "wrong": wrong}


def complaint(validate, text: str) -> str | None:
    try:
        validate(text, strict=True)
    except ValidationError as error:
        return str(error)
    return None


if __name__ == "__main__":
    main()
