"""What each metric means. docs/metrics.md describes them; a test compares the two."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Metric:
    """What one metric means; its name is the one on /metrics."""

    name: str
    kind: Literal["counter", "gauge", "histogram", "summary"]
    labels: tuple[str, ...]
    meaning: str


TRANSITIONS = Metric(
    "autostart_transitions_total",
    "counter",
    ("service", "from", "to"),
    "Changes of state or phase, in the words of the log.",
)
STARTS = Metric(
    "autostart_starts_total",
    "counter",
    ("service", "outcome"),
    "Starts that ended: ready, stopped (by the operator), or the code of what failed.",
)
START_SECONDS = Metric(
    "autostart_start_seconds",
    "histogram",
    ("service",),
    "From start to ready, without pull, build and create.",
)
PHASE_SECONDS = Metric(
    "autostart_start_phase_seconds",
    "summary",
    ("service", "phase"),
    "How long the phases of the starts that became ready took: queued, preparing, starting,"
    " loading.",
)
FAILURES = Metric(
    "autostart_start_failures",
    "gauge",
    ("service",),
    "Starts that have failed since the last one that worked.",
)
STOP_FAILURES = Metric(
    "autostart_stop_failures",
    "gauge",
    ("service",),
    "Stops that have failed since the last one that worked.",
)
HELD_SECONDS = Metric(
    "autostart_held_seconds",
    "histogram",
    ("service",),
    "How long requests that had to wait were held until their service was ready.",
)
REQUESTS = Metric(
    "autostart_requests_total",
    "counter",
    ("service", "status", "error"),
    "Requests that ended, by class of status (2xx); error is our code, empty if the service"
    " answered itself; service is empty for an unknown host.",
)
REQUEST_SECONDS = Metric(
    "autostart_request_seconds",
    "histogram",
    ("service",),
    "From the head of a request to the last byte of its answer, waiting included.",
)
LEASES = Metric("autostart_leases", "gauge", ("service",), "Requests that hold a ready service.")
WAITING = Metric(
    "autostart_waiting", "gauge", ("service",), "Requests that wait for their service."
)
WAITING_MAX = Metric(
    "autostart_waiting_max",
    "gauge",
    ("service",),
    "How many requests may wait for a service at once: max_waiting of the map.",
)
STATE = Metric(
    "autostart_service_state",
    "gauge",
    ("service", "state"),
    "1 for the state that the service is in, 0 for the others.",
)
ASLEEP = Metric(
    "autostart_asleep_seconds_total",
    "counter",
    ("service",),
    "Time without a run: what idling has saved.",
)
AWAKE = Metric(
    "autostart_awake_seconds_total",
    "counter",
    ("service",),
    "Time with a run, from the beginning of its start to the end of its stop.",
)
IDLE_DUE = Metric(
    "autostart_idle_due_timestamp_seconds",
    "gauge",
    ("service",),
    "When a ready service may be stopped if no request comes, in Unix time; not there while it is"
    " in use, or where nothing is due.",
)
HELD = Metric(
    "autostart_service_held",
    "gauge",
    ("service",),
    "1 while an operator keeps the service stopped (stop --hold).",
)
MEMORY = Metric(
    "autostart_service_memory_bytes",
    "gauge",
    ("service",),
    "Resident memory of a run, without the page cache; sampled every minute, only of what runs.",
)
USUAL_MEMORY = Metric(
    "autostart_service_usual_memory_bytes",
    "gauge",
    ("service",),
    "The memory that a run of the service usually takes, running or not.",
)
CPU_SECONDS = Metric(
    "autostart_service_cpu_seconds_total",
    "counter",
    ("service",),
    "Processor time of a run since its start; sampled every minute, only of what runs.",
)
REACHABLE = Metric(
    "autostart_runtime_reachable",
    "gauge",
    ("runtime",),
    "1 while the runtime sees its runs, 0 while its engine does not answer; of those in use.",
)
RELOADED = Metric(
    "autostart_reload_successful",
    "gauge",
    (),
    "1 if the map that was read last was taken, 0 if it was refused and the one before it stays.",
)
BUILD = Metric(
    "autostart_build_info",
    "gauge",
    ("version", "python"),
    "Always 1; its labels say what runs.",
)
METRICS = (
    TRANSITIONS,
    STARTS,
    START_SECONDS,
    PHASE_SECONDS,
    FAILURES,
    STOP_FAILURES,
    HELD_SECONDS,
    REQUESTS,
    REQUEST_SECONDS,
    LEASES,
    WAITING,
    WAITING_MAX,
    STATE,
    ASLEEP,
    AWAKE,
    IDLE_DUE,
    HELD,
    MEMORY,
    USUAL_MEMORY,
    CPU_SECONDS,
    REACHABLE,
    RELOADED,
    BUILD,
)
