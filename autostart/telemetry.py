"""What happened: transitions, kept for people and counted for machines.

Knows services as values and a clock. Changes nothing, decides nothing; never blocks its caller.
"""

from __future__ import annotations

import json
import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import structlog
from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector
from prometheus_client.exposition import generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from autostart.lifecycle import Phase, Service, State
from autostart.schedule import Now

log = structlog.get_logger("autostart")

# Transitions kept for people: a busy day of a dozen services, and less than a megabyte.
HISTORY_MAX = 1_000
LEARNED_FILE = "learned.json"
# From a process that binds at once to a model that is read from a slow disk.
START_BUCKETS_SECONDS = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 40, 60, 120, 300, 600)
# From an answer out of memory to an hour of audio.
REQUEST_BUCKETS_SECONDS = (0.005, 0.025, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800)


class Clock(Protocol):
    """Where `now` comes from."""

    def now(self) -> Now:
        """Return monotonic seconds and wall time."""


@dataclass(frozen=True, slots=True)
class Transition:
    """One change of state or phase, for those who show, count or keep it."""

    host: str
    before: Service
    after: Service
    cause: str
    at: Now

    @property
    def is_change_of_state(self) -> bool:
        """Whether the state changed, not only the phase within it."""
        return self.after.state is not self.before.state

    @property
    def source(self) -> str:
        """Where the service stood, in the word of the log: its state; within one, its phase."""
        return str(self.before.state if self.is_change_of_state else self.before.phase)

    @property
    def target(self) -> str:
        """Where it stands now, in the word of the log."""
        return str(self.after.state if self.is_change_of_state else self.after.phase)


# For people.


@dataclass(frozen=True, slots=True)
class Entry:
    """What happened, as it is shown: words and numbers.

    `id` grows, also over restarts of autostart (it is wall time in milliseconds, pushed on where
    two entries share one), so that a reader who saw an earlier one knows what it has missed. What
    is not kept has none.
    """

    id: int | None
    fields: Mapping[str, object]
    kind: Literal["transition", "progress"] = "transition"


class History:
    """The last transitions of the fleet, and what its starts usually take.

    `state_folder` None keeps nothing on disk.
    """

    def __init__(self, state_folder: Path | None, *, entries_max: int = HISTORY_MAX) -> None:
        self._path = None if state_folder is None else state_folder / LEARNED_FILE
        self._entries: deque[tuple[int, Entry]] = deque(maxlen=entries_max)
        self._last_id = 0
        self._learned = {} if self._path is None else _read_learned(self._path)
        # One thread, so that a later write never overtakes an earlier one.
        self._writer = ThreadPoolExecutor(max_workers=1, thread_name_prefix="history")
        self.observers: list[Callable[[Entry], None]] = []

    def usual_start_seconds(self) -> dict[str, float]:
        """Return what starts usually take, by host: what the supervisor begins with."""
        return dict(self._learned)

    def record(self, transition: Transition) -> None:
        """Keep a transition, and tell those who follow."""
        self._last_id = max(self._last_id + 1, int(transition.at.wall.timestamp() * 1000))
        entry = Entry(self._last_id, _fields(transition))
        self._entries.append((self._last_id, entry))
        self._tell(entry)
        usual = transition.after.usual_start_seconds
        if transition.after.state is State.READY and usual is not None:
            self._learn(transition.host, usual)

    def after(self, last_id: int) -> list[Entry]:
        """Return the kept entries that came after that id, oldest first."""
        return [entry for id_, entry in self._entries if id_ > last_id]

    def pass_on(self, host: str, progress: str | None, at: Now) -> None:
        """Tell those who follow how far a pull or build is, None once it ended; keep nothing."""
        fields = {"at": at.wall.isoformat(timespec="milliseconds"), "service": host}
        self._tell(Entry(None, {**fields, "progress": progress}, "progress"))

    def close(self) -> None:
        """Wait until what was learned is written."""
        self._writer.shutdown(wait=True)

    def _tell(self, entry: Entry) -> None:
        for observer in list(self.observers):
            observer(entry)

    def _learn(self, host: str, seconds: float) -> None:
        if self._learned.get(host) == seconds:
            return
        self._learned[host] = seconds
        if self._path is not None:
            self._writer.submit(_write_learned, self._path, dict(self._learned))


def _fields(transition: Transition) -> dict[str, object]:
    before, after = transition.before, transition.after
    failed = after.failure is not None and after.failure is not before.failure
    failure = after.failure if failed else None
    return {
        "at": transition.at.wall.isoformat(timespec="milliseconds"),
        "service": transition.host,
        "from": transition.source,
        "to": transition.target,
        "state": after.state.value,
        "phase": after.phase.value if after.phase else None,
        "cause": transition.cause,
        "attempt": after.attempt,
        "seconds": round(transition.at.monotonic - before.since, 3),
        "failure": None
        if failure is None
        else {
            "code": failure.code,
            "message": failure.for_operator,
            "hint": failure.hint.replace("HOST", transition.host),
        },
    }


def _read_learned(path: Path) -> dict[str, float]:
    """Return what the file says; a file that cannot be used costs a few guesses, no more."""
    try:
        written = json.loads(path.read_text(encoding="utf-8"))
        return {
            str(host): float(seconds)
            for host, seconds in written["usual_start_seconds"].items()
            if math.isfinite(seconds) and seconds >= 0
        }
    except FileNotFoundError:
        return {}  # the first start with this state folder
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        log.warning("learned-unreadable", path=str(path), error=str(error))
        return {}


def _write_learned(path: Path, learned: Mapping[str, float]) -> None:
    """Replace the file at once. Not synced: after a power cut an old or empty one will do."""
    text = json.dumps({"usual_start_seconds": learned}, indent=2, sort_keys=True)
    scratch = path.with_name(f"{path.name}.new")
    try:
        scratch.write_text(f"{text}\n", encoding="utf-8")
        scratch.replace(path)
    except OSError as error:
        log.warning("learned-unsaved", path=str(path), error=str(error))


# For machines.


@dataclass(frozen=True, slots=True)
class Metric:
    """What one metric means; its name is the one on /metrics."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
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
METRICS = (
    TRANSITIONS,
    STARTS,
    START_SECONDS,
    HELD_SECONDS,
    REQUESTS,
    REQUEST_SECONDS,
    LEASES,
    WAITING,
    STATE,
    ASLEEP,
    AWAKE,
)


class Metrics:
    """The metrics of one fleet, in a registry of their own."""

    def __init__(self, snapshot: Callable[[], Mapping[str, Service]], clock: Clock) -> None:
        self._snapshot = snapshot
        self.registry = CollectorRegistry()
        self._transitions = _counter(TRANSITIONS, self.registry)
        self._starts = _counter(STARTS, self.registry)
        self._start_seconds = _histogram(START_SECONDS, START_BUCKETS_SECONDS, self.registry)
        self._held_seconds = _histogram(HELD_SECONDS, START_BUCKETS_SECONDS, self.registry)
        self._requests = _counter(REQUESTS, self.registry)
        self._request_seconds = _histogram(REQUEST_SECONDS, REQUEST_BUCKETS_SECONDS, self.registry)
        self._sleep = _Sleep()
        self.registry.register(_Fleet(snapshot, clock, self._sleep))
        ProcessCollector(registry=self.registry)  # memory, processor and files of autostart itself

    def record(self, transition: Transition) -> None:
        """Count a transition."""
        host, before, after = transition.host, transition.before, transition.after
        now = transition.at.monotonic
        self._transitions.labels(host, transition.source, transition.target).inc()
        self._sleep.pass_to(now, host, before)
        outcome = _start_outcome(before, after)
        if outcome is not None:
            self._starts.labels(host, outcome).inc()
        if outcome == State.READY:
            self._start_seconds.labels(host).observe(now - before.milestones[Phase.STARTING])
        for key, lease in before.waiting.items():
            if key in after.leases:
                self._held_seconds.labels(host).observe(now - lease.requested_at)

    def request_ended(self, host: str, status: int, error_code: str | None, seconds: float) -> None:
        """Count a request; `error_code` is set if the answer was ours.

        A host that no service has is not a label: clients choose it.
        """
        known = host if host in self._snapshot() else ""
        self._requests.labels(known, f"{status // 100}xx", error_code or "").inc()
        self._request_seconds.labels(known).observe(seconds)

    def render(self) -> bytes:
        """Return all of them in Prometheus' text format."""
        return generate_latest(self.registry)


def _start_outcome(before: Service, after: Service) -> str | None:
    """Return how a start ended, None if none did; what is adopted or probed again is no start."""
    if before.state is not State.STARTING or after.state is State.STARTING:
        return None
    if Phase.STARTING not in before.milestones:
        return None
    if after.state is State.READY or after.phase is Phase.DRAINING:
        return State.READY.value  # ready and, asked to stop meanwhile, on its way down
    if after.failure is not None and after.failure is not before.failure:
        return after.failure.code
    return State.STOPPED.value


class _Sleep:
    """How long each service was asleep and awake, up to its last transition."""

    def __init__(self) -> None:
        self.asleep_seconds: dict[str, float] = {}
        self.awake_seconds: dict[str, float] = {}
        self._counted_to: dict[str, float] = {}

    def pass_to(self, now: float, host: str, service: Service) -> None:
        """Count what has passed since the last time in favour of what the service was until now."""
        seconds = now - self._counted_to.get(host, service.since)
        self._counted_to[host] = now
        counted = self.awake_seconds if service.is_running else self.asleep_seconds
        counted[host] = counted.get(host, 0.0) + max(0.0, seconds)


class _Fleet(Collector):
    """What a look at the fleet tells, when somebody asks."""

    def __init__(
        self, snapshot: Callable[[], Mapping[str, Service]], clock: Clock, sleep: _Sleep
    ) -> None:
        self._snapshot = snapshot
        self._clock = clock
        self._sleep = sleep

    def describe(self) -> Iterable[GaugeMetricFamily | CounterMetricFamily]:
        """Name them without a look: the fleet may not be there yet."""
        yield from (_gauge(metric) for metric in (LEASES, WAITING, STATE))
        yield from (_total(metric) for metric in (ASLEEP, AWAKE))

    def collect(self) -> Iterator[GaugeMetricFamily | CounterMetricFamily]:
        leases, waiting, state = _gauge(LEASES), _gauge(WAITING), _gauge(STATE)
        asleep, awake = _total(ASLEEP), _total(AWAKE)
        now = self._clock.now().monotonic
        for host, service in self._snapshot().items():
            leases.add_metric([host], len(service.leases))
            waiting.add_metric([host], len(service.waiting))
            for each in State:
                state.add_metric([host, each.value], float(service.state is each))
            self._sleep.pass_to(now, host, service)
            asleep.add_metric([host], self._sleep.asleep_seconds.get(host, 0.0))
            awake.add_metric([host], self._sleep.awake_seconds.get(host, 0.0))
        yield from (leases, waiting, state, asleep, awake)


def _counter(metric: Metric, registry: CollectorRegistry) -> Counter:
    return Counter(metric.name, metric.meaning, metric.labels, registry=registry)


def _histogram(
    metric: Metric, buckets: tuple[float, ...], registry: CollectorRegistry
) -> Histogram:
    return Histogram(metric.name, metric.meaning, metric.labels, registry=registry, buckets=buckets)


def _gauge(metric: Metric) -> GaugeMetricFamily:
    return GaugeMetricFamily(metric.name, metric.meaning, labels=metric.labels)


def _total(metric: Metric) -> CounterMetricFamily:
    return CounterMetricFamily(metric.name, metric.meaning, labels=metric.labels)
