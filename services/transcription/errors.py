"""Every way in which a speech service says no, in the shape that OpenAI's clients read.

ApiError
├── InvalidRequest        400  this request can never work
├── InvalidKey            401
├── ModelNotFound         404
├── RequestTimeout        408  the client fell silent while sending
├── Conflict              409  the model is in use, or resident already
├── UploadTooLarge        413
├── UnsupportedMediaType  415  no form, or no audio in it
├── QueueFull             429  later it will work
├── EngineError           500  the model failed on this recording
├── FetchFailed           502  the Hub did not give the model
├── NotReady              503  the model is loading, or could not be loaded
└── SpeakersUnavailable   503  who speaks cannot be told, and nothing else was asked for
"""

import logging
from typing import Any, ClassVar

from pydantic import BaseModel

log = logging.getLogger(__name__)


class ApiError(Exception):
    """A refusal that the client is told about; `param` is the form field at fault, if one is."""

    status: ClassVar[int]
    type: ClassVar[str] = "invalid_request_error"
    # openai's clients try 408, 409, 429 and 5xx again unless told that it is in vain.
    worth_retrying: ClassVar[bool] = False

    def __init__(
        self,
        message: str,
        *,
        code: str,
        param: str | None = None,
        retry_after_seconds: int | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.param = param
        self.retry_after_seconds = retry_after_seconds


class InvalidRequest(ApiError):
    """The request is wrong, and stays wrong however often it is sent."""

    status = 400


class InvalidKey(ApiError):
    """The operator asks for a key, and the request has none or a wrong one."""

    status = 401


class ModelNotFound(ApiError):
    """The request names a model that this service does not have."""

    status = 404


class RequestTimeout(ApiError):
    """The client sent nothing for too long in the middle of its request."""

    status = 408
    worth_retrying = True


class Conflict(ApiError):
    """The model's state does not allow it now."""

    status = 409


class UploadTooLarge(ApiError):
    """The request is larger than the operator allows."""

    status = 413


class UnsupportedMediaType(ApiError):
    """The body is not the multipart form that the API takes, or its file is no audio."""

    status = 415


class QueueFull(ApiError):
    """Every place in the queue is taken."""

    status = 429
    type = "rate_limit_error"
    worth_retrying = True


class EngineError(ApiError):
    """The model failed on this recording, and would again: users report endless retries of 5xx."""

    status = 500
    type = "server_error"


class FetchFailed(ApiError):
    """The Hub did not give the model: no network, no such model, no right to it."""

    status = 502
    type = "server_error"


class NotReady(ApiError):
    """The model is not resident."""

    status = 503
    type = "server_error"
    worth_retrying = True


class SpeakersUnavailable(ApiError):
    """What tells speakers apart is not here; the message says what the operator must do."""

    status = 503
    type = "server_error"


def is_out_of_memory(error: Exception) -> bool:
    """Tell whether a library ran out of memory; most have no other type than RuntimeError."""
    told = str(error).lower()
    # The second is what PyTorch says on a CPU.
    return isinstance(error, MemoryError) or "out of memory" in told or "allocate memory" in told


def is_device_lost(error: Exception) -> bool:
    """Tell whether a GPU failed so that nothing in this process can use it any more.

    CUDA says the same of every call that follows.
    """
    return "cuda error" in str(error).lower() and not is_out_of_memory(error)


def work_failed(error: Exception) -> EngineError:
    """Give what a client is told when the model fails on its recording; the log has the rest."""
    log.error("the model failed", exc_info=error)
    if is_out_of_memory(error):
        return EngineError("out of memory: the recording is too long", code="out_of_memory")
    if is_device_lost(error):
        return EngineError("the GPU failed, see the service's log", code="device_lost")
    return EngineError("the model failed on this recording", code="engine_failed")


def load_failed(error: Exception, model: str) -> EngineError:
    """Give what a client is told when a model cannot be loaded; the log has the rest."""
    log.error("a model cannot be loaded model=%s", model, exc_info=error)
    if is_out_of_memory(error):
        told = f"out of memory: the model {model!r} is too large"
        return EngineError(told, code="out_of_memory")
    told = f"the model {model!r} could not be loaded, see the service's log"
    return EngineError(told, code="load_failed")


class ErrorFields(BaseModel):
    """What OpenAI's clients read."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorBody(BaseModel):
    """The body of every refusal; `detail` repeats the message for clients of other servers."""

    error: ErrorFields
    detail: str


_DESCRIPTIONS = {
    400: "A field is wrong, or the recording cannot be used.",
    401: "A key is needed, and this is none.",
    404: "There is no such model.",
    408: "Nothing was received for too long.",
    409: "The model's state does not allow it now.",
    413: "The recording is too large.",
    415: "That is no form, or no audio.",
    429: "Too many requests wait already; Retry-After says when to come again.",
    500: "The model failed on this recording.",
    502: "The Hub did not give the model.",
    503: "The service cannot work.",
}


def refusals(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Describe a route's refusals for /openapi.json."""
    return {
        status: {"model": ErrorBody, "description": _DESCRIPTIONS[status]} for status in statuses
    }


def error_body(
    message: str, *, error_type: str, code: str | None, param: str | None = None
) -> dict[str, object]:
    """Give the JSON body of a refusal."""
    fields = ErrorFields(message=message, type=error_type, param=param, code=code)
    return ErrorBody(error=fields, detail=message).model_dump()
