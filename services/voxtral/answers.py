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
