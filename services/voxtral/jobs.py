"""A job: what is asked for, where it stands, what a client is told of it. Pure.

States, limits and times are RunPod's: https://docs.runpod.io/serverless/endpoints/send-requests
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Any, Self
from uuid import uuid4

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from services.transcription.errors import InvalidRequest
from services.transcription.fields import refusal_of
from services.voxtral.addresses import URL_CHARACTERS_MAX
from services.voxtral.request import JobInput

RUN_BYTES_MAX = 10 * 1024 * 1024
RUNSYNC_BYTES_MAX = 20 * 1024 * 1024
# How long a result is kept after the job has ended.
RUN_KEPT_SECONDS = 30 * 60.0
_RUNSYNC_KEPT_SECONDS = 60.0
_DAY_MS, _WEEK_MS = 86_400_000, 7 * 86_400_000
WAIT_MS_MIN, WAIT_MS_MAX = 1_000, 300_000
WAIT_MS_DEFAULT = 90_000
TTL_MS_MAX = _WEEK_MS
# The process may end in the middle of a job, by whatever cause. A job that makes it end, for want
# of memory, must not do so for ever.
ATTEMPTS_MAX = 3


class Status(StrEnum):
    """Where a job stands."""

    IN_QUEUE = "IN_QUEUE"
    IN_PROGRESS = "IN_PROGRESS"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"
    TIMED_OUT = "TIMED_OUT"

    @property
    def ended(self) -> bool:
        """Whether nothing more will come of it by itself."""
        return self not in (Status.IN_QUEUE, Status.IN_PROGRESS)


class Policy(BaseModel):
    """How long a job may take; milliseconds."""

    model_config = ConfigDict(extra="ignore")

    execution_timeout: int | None = Field(
        default=None,
        alias="executionTimeout",
        ge=5_000,
        le=_WEEK_MS,
        description="While it runs; then it is TIMED_OUT.",
    )
    ttl: int = Field(
        default=_DAY_MS,
        ge=10_000,
        le=TTL_MS_MAX,
        description="From its submission; then it is forgotten.",
    )
    low_priority: bool = Field(
        default=False, alias="lowPriority", description="Taken, and of no effect here."
    )


def _empty_for_none(value: object) -> object:
    return {} if value is None else value


class JobRequest(BaseModel):
    """The body of /run and /runsync."""

    # s3Config is taken, and not kept: it holds a secret, and nothing is uploaded.
    model_config = ConfigDict(extra="ignore")

    input: dict[str, Any] = Field(description="What is asked for: see `JobInput`.")
    webhook: Annotated[str | None, BeforeValidator(lambda value: value or None)] = Field(
        default=None, max_length=URL_CHARACTERS_MAX, description="Where the result is posted, too."
    )
    policy: Annotated[Policy, BeforeValidator(_empty_for_none)] = Policy()

    @classmethod
    def schema_of_body(cls) -> dict[str, Any]:
        """Give the OpenAPI description of the body, with that of its input."""
        schema = cls.model_json_schema(ref_template="#/$defs/{model}")
        schema["properties"]["input"] = JobInput.model_json_schema()
        schema["properties"]["policy"] = Policy.model_json_schema()
        schema.pop("$defs", None)
        return schema

    @classmethod
    def parse(cls, given: object) -> Self:
        """Read the body; raises InvalidRequest, which names what is wrong."""
        if not isinstance(given, Mapping):
            raise InvalidRequest("body: is not a JSON object", code="invalid_value")
        try:
            return cls.model_validate(given)
        except ValidationError as error:
            raise refusal_of(error) from error


@dataclass(frozen=True)
class NewJob:
    """A job as it is accepted; wall-clock times, for they outlive the process."""

    id: str
    given: Mapping[str, Any]  # `input`
    synchronous: bool
    submitted_at: float
    expires_at: float
    execution_seconds: float  # the longest that it may run
    webhook: str | None


@dataclass(frozen=True)
class Job:
    """A job as it stands."""

    id: str
    status: Status
    synchronous: bool
    submitted_at: float
    started_at: float | None
    ended_at: float | None
    expires_at: float
    execution_seconds: float
    output: str | None  # JSON
    error: str | None


@dataclass(frozen=True)
class Webhook:
    """A result to be posted."""

    job: Job
    url: str
    attempts: int  # so far


@dataclass(frozen=True)
class Ending:
    """How a job ended."""

    status: Status
    output: object = None
    error: str | None = None


def accept(request: JobRequest, *, synchronous: bool, now: float, seconds_max: float) -> NewJob:
    """Give the job that a request asks for."""
    asked_ms = request.policy.execution_timeout
    return NewJob(
        id=f"sync-{uuid4()}-u1" if synchronous else f"{uuid4()}-u1",
        given=request.input,
        synchronous=synchronous,
        submitted_at=now,
        expires_at=now + request.policy.ttl / 1000,
        execution_seconds=seconds_max if asked_ms is None else asked_ms / 1000,
        webhook=request.webhook,
    )


def expiry(job: Job, ended_at: float) -> float:
    """Give when a job that ends now is forgotten; its ttl stands beside that."""
    kept = _RUNSYNC_KEPT_SECONDS if job.synchronous else RUN_KEPT_SECONDS
    return min(job.expires_at, ended_at + kept)


def view(job: Job, *, worker_id: str, output: object) -> dict[str, object]:
    """Give the body of /status; `output` is the result, or how far it is."""
    told: dict[str, object] = {"id": job.id, "status": job.status.value}
    if job.started_at is not None:
        told["delayTime"] = _milliseconds(job.started_at - job.submitted_at)
        told["workerId"] = worker_id
        if job.ended_at is not None:
            told["executionTime"] = _milliseconds(job.ended_at - job.started_at)
    if output is not None:
        told["output"] = output
    if job.error is not None:
        told["error"] = job.error
    return told


def _milliseconds(seconds: float) -> int:
    # A clock that was set back tells of no time at all.
    return max(0, round(seconds * 1000))
