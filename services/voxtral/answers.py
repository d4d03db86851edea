"""What the service answers about a recording: the union of what two older workers did."""

from typing import Literal

from pydantic import BaseModel, Field

from services.voxtral.request import Task


class SpokenSegment(BaseModel):
    """A passage of one speaker; times in seconds from the beginning."""

    speaker: str | None = Field(description="`SPEAKER_00`, …; null: not asked for, or not known.")
    start: float
    end: float
    text: str


class Sentiment(BaseModel):
    """How the customer feels."""

    sentiment: Literal["positif", "neutre", "négatif"]
    score: float = Field(ge=-1, le=1, description="-1: as bad as can be, 1: as good.")
    emotions: list[str] = Field(max_length=20)
    satisfaction_client: Literal["satisfait", "neutre", "insatisfait"]


class Caveat(BaseModel):
    """What was asked for and could not be had, for people and (`code`) for programs."""

    code: str
    message: str


class Answer(BaseModel):
    """The output of a job. What was not asked for is null."""

    task: Task
    language: str | None = Field(description="As the request said; null: the model found out.")
    duration: float = Field(description="Of the recording, in seconds.")
    transcriptions: list[SpokenSegment]
    segments: list[SpokenSegment] = Field(description="The same as `transcriptions`.")
    transcript: str = Field(description="All of it; with `SPEAKER_00: ` before each turn, or not.")
    summary: str | None
    sentiment: Sentiment | None
    model: str
    processing_time: float = Field(description="Seconds of work.")
    warnings: list[Caveat]


class QueuedBody(BaseModel):
    """A job that was accepted, or put in line again."""

    id: str
    status: str


class StatusBody(BaseModel):
    """A job as it stands; times in milliseconds."""

    id: str
    status: Literal["IN_QUEUE", "IN_PROGRESS", "COMPLETED", "FAILED", "CANCELLED", "TIMED_OUT"]
    delay_time: int | None = Field(default=None, alias="delayTime", description="In the line.")
    execution_time: int | None = Field(default=None, alias="executionTime")
    worker_id: str | None = Field(default=None, alias="workerId")
    output: Answer | dict[str, object] | None = Field(
        default=None, description="The answer; while it runs, `phase` and `percent`."
    )
    error: str | None = Field(default=None, description="Why it failed, for people.")


class Chunk(BaseModel):
    """A part of a job's result."""

    output: SpokenSegment


class StreamBody(BaseModel):
    """What was not given before; each part is given once."""

    status: str
    stream: list[Chunk]


class PurgedBody(BaseModel):
    """How many jobs were taken out of the line."""

    removed: int
    status: Literal["completed"]


class JobFigures(BaseModel):
    """How many jobs there are, and were."""

    completed: int
    failed: int
    in_progress: int = Field(alias="inProgress")
    in_queue: int = Field(alias="inQueue")
    retried: int


class HealthBody(BaseModel):
    """RunPod's figures."""

    jobs: JobFigures
    workers: dict[str, int]
