"""What a vLLM server answers, as far as it is used, and what of it is no answer."""

from typing import Annotated, TypeVar

from pydantic import BaseModel, Field, ValidationError

from services.voxtral.model import Written
from services.voxtral.vllm_http import VllmFailed, refusal

M = TypeVar("M", bound=BaseModel)


class _Model(BaseModel):
    id: str


class _Models(BaseModel):
    data: list[_Model]


class _Words(BaseModel):
    content: str | None = None


class _Delta(BaseModel):
    delta: _Words
    finish_reason: str | None = None


class _Refusal(BaseModel):
    message: str
    code: int  # a status


class _Event(BaseModel):
    choices: list[_Delta] = []
    error: _Refusal | None = None


class _Choice(BaseModel):
    message: _Words
    finish_reason: str | None


class _Chat(BaseModel):
    choices: Annotated[list[_Choice], Field(min_length=1)]


def names(body: bytes) -> list[str]:
    """Read under which names models are served; raises VllmFailed."""
    return [model.id for model in _read(_Models, body).data]


def heard(body: bytes) -> Written:
    """Read a transcript that came as server-sent events; raises InvalidRequest or VllmFailed."""
    words: list[str] = []
    finish_reason = None
    for line in body.splitlines():
        if not line.startswith(b"data:"):
            continue
        told = line.removeprefix(b"data:").strip()
        if told == b"[DONE]":
            break
        event = _read(_Event, told)
        if event.error is not None:  # the status was sent before
            raise refusal(event.error.code, event.error.message)
        for choice in event.choices:
            words.append(choice.delta.content or "")
            finish_reason = choice.finish_reason or finish_reason
    return _written("".join(words), finish_reason)


def chatted(body: bytes) -> Written:
    """Read an answer to a prompt; raises VllmFailed."""
    choice = _read(_Chat, body).choices[0]
    return _written(choice.message.content or "", choice.finish_reason)


def _written(text: str, finish_reason: str | None) -> Written:
    # Others ("abort", "error", none at all) are those of a text that nobody should read.
    if finish_reason not in ("stop", "length"):
        raise VllmFailed(f"an answer that ended by {finish_reason!r}")
    return Written(text.strip(), complete=finish_reason == "stop")


def _read(shape: type[M], body: bytes) -> M:
    try:
        return shape.model_validate_json(body)
    except ValidationError as error:
        problem = error.errors(include_url=False, include_context=False, include_input=False)[0]
        raise VllmFailed(
            f"an answer that is no {shape.__name__.strip('_')}: {problem['loc']} {problem['msg']}"
        ) from error
