"""Services and transitions, as tests of telemetry use them."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from autostart import errors
from autostart.config import ServiceConfig
from autostart.lifecycle import Endpoint, Phase, Service, State
from autostart.schedule import Now
from autostart.telemetry import Transition

HOST = "a.localhost"
NOON = datetime(2026, 1, 5, 12, tzinfo=UTC)
START = 1_000.0  # what the set clock begins with

STOPPED = Service(ServiceConfig(HOST), since=START)
STARTING = replace(
    STOPPED,
    state=State.STARTING,
    phase=Phase.STARTING,
    attempt=1,
    milestones={Phase.QUEUED: START, Phase.STARTING: START},
)
LOADING = replace(
    STARTING,
    phase=Phase.LOADING,
    endpoint=Endpoint("127.0.0.1", 9001, "run-1"),
    milestones={**STARTING.milestones, Phase.LOADING: START + 1},
)
READY = replace(LOADING, state=State.READY, phase=None, since=START + 4, usual_start_seconds=4.0)
ADOPTED = replace(LOADING, milestones={Phase.LOADING: START + 1})
FAILURE = errors.StartFailed("exit code 3")
CLEANING = replace(LOADING, state=State.STOPPING, phase=Phase.CLEANING, failure=FAILURE)


def transition(before: Service, after: Service, seconds: float = 0.0) -> Transition:
    """Return a transition so long after the beginning."""
    at = Now(START + seconds, NOON + timedelta(seconds=seconds))
    return Transition(HOST, before, after, "test", at)
