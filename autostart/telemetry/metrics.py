"""All of it for Prometheus: counted as it happens, or looked up when somebody asks."""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib.metadata import version
from itertools import pairwise

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Histogram,
    ProcessCollector,
    Summary,
    disable_created_metrics,
)
from prometheus_client.exposition import generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from autostart.errors import Held, StartFailed, StartTimeout
from autostart.lifecycle import Phase, Service, State
from autostart.schedule import Now, idle_due_seconds
from autostart.telemetry import catalogue
from autostart.telemetry.catalogue import Metric
from autostart.telemetry.days import Days
from autostart.telemetry.starts import START_PHASES, phase_seconds, start_outcome
from autostart.telemetry.transition import Clock, Transition

# When each series began is asked by nobody, and would be every tenth line of a scrape.
disable_created_metrics()  # type: ignore[no-untyped-call]  # in its stubs
# From a process that binds at once to a model that is read from a slow disk.
START_BUCKETS_SECONDS = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 40, 60, 120, 300, 600)
# From an answer out of memory to an hour of audio.
REQUEST_BUCKETS_SECONDS = (0.005, 0.025, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800)

# What is looked up when somebody asks: of each service, and of autostart itself.
LOOKED_UP = (
    catalogue.FAILURES,
    catalogue.STOP_FAILURES,
    catalogue.LEASES,
    catalogue.WAITING,
    catalogue.WAITING_MAX,
    catalogue.STATE,
    catalogue.ASLEEP,
    catalogue.AWAKE,
    catalogue.IDLE_DUE,
    catalogue.HELD,
    catalogue.MEMORY,
    catalogue.USUAL_MEMORY,
    catalogue.CPU_SECONDS,
)
# What a service goes through when nothing goes wrong.
ORDINARY = (State.STOPPED, State.STARTING, State.READY, State.STOPPING, State.STOPPED)
OWN = (catalogue.REACHABLE, catalogue.RELOADED, catalogue.BUILD)

Snapshot = Callable[[], Mapping[str, Service]]
Family = GaugeMetricFamily | CounterMetricFamily


class Metrics:
    """The metrics of one fleet, in a registry of their own.

    `days` is whose account of sleep and usage is shown. `reachable` says of each runtime in use
    whether it sees its runs.
    """

    def __init__(
        self,
        snapshot: Snapshot,
        clock: Clock,
        days: Days | None = None,
        reachable: Callable[[], Mapping[str, bool]] = dict,
    ) -> None:
        self._snapshot = snapshot
        self._days = days or Days(None, clock.now())
        self.registry = CollectorRegistry()
        self._transitions = _counter(catalogue.TRANSITIONS, self.registry)
        self._starts = _counter(catalogue.STARTS, self.registry)
        self._start_seconds = _histogram(
            catalogue.START_SECONDS, START_BUCKETS_SECONDS, self.registry
        )
        self._phase_seconds = Summary(
            catalogue.PHASE_SECONDS.name,
            catalogue.PHASE_SECONDS.meaning,
            catalogue.PHASE_SECONDS.labels,
            registry=self.registry,
        )
        self._held_seconds = _histogram(
            catalogue.HELD_SECONDS, START_BUCKETS_SECONDS, self.registry
        )
        self._requests = _counter(catalogue.REQUESTS, self.registry)
        self._request_seconds = _histogram(
            catalogue.REQUEST_SECONDS, REQUEST_BUCKETS_SECONDS, self.registry
        )
        self._was_reloaded = True
        self._shown: set[str] = set()
        self.registry.register(_Fleet(snapshot, clock, self._days))
        self.registry.register(_Own(reachable, lambda: self._was_reloaded))
        ProcessCollector(registry=self.registry)  # memory, processor and files of autostart itself

    def record(self, transition: Transition) -> None:
        """Count a transition."""
        host, before, after = transition.host, transition.before, transition.after
        now = transition.at.monotonic
        self._transitions.labels(host, transition.source, transition.target).inc()
        self._days.sleep.pass_to(transition.at, host, before)
        outcome = start_outcome(before, after)
        if outcome is not None:
            self._starts.labels(host, outcome).inc()
        if outcome == State.READY:
            self._start_seconds.labels(host).observe(now - before.milestones[Phase.STARTING])
            for phase, seconds in phase_seconds(before, now).items():
                self._phase_seconds.labels(host, phase).observe(seconds)
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

    def reload_ended(self, *, taken: bool) -> None:
        """Note whether a map that was read again was taken."""
        self._was_reloaded = taken

    def render(self) -> bytes:
        """Return all of them in Prometheus' text format; may be called in another thread."""
        for host in self._snapshot():
            self._begin_with_nothing(host)
        return generate_latest(self.registry)

    def _begin_with_nothing(self, host: str) -> None:
        """Have what usually happens there from the beginning.

        Of a series that begins with 1 no increase is ever seen; and starts are rare.
        """
        if host in self._shown:
            return
        self._shown.add(host)
        for outcome in (State.READY.value, StartFailed.code, StartTimeout.code):
            self._starts.labels(host, outcome)
        self._start_seconds.labels(host)
        self._requests.labels(host, "2xx", "")
        for phase in START_PHASES:
            self._phase_seconds.labels(host, phase.value)
        for source, target in pairwise(ORDINARY):
            self._transitions.labels(host, source.value, target.value)


class _Fleet(Collector):
    """What a look at the fleet tells, when somebody asks."""

    def __init__(self, snapshot: Snapshot, clock: Clock, days: Days) -> None:
        self._snapshot = snapshot
        self._clock = clock
        self._days = days

    def describe(self) -> Iterable[Family]:
        """Name them without a look: the fleet may not be there yet."""
        return _families(LOOKED_UP).values()

    def collect(self) -> Iterator[Family]:
        now, families = self._clock.now(), _families(LOOKED_UP)
        for host, service in self._snapshot().items():
            for metric, value in self._values(host, service, now):
                if value is not None:
                    families[metric].add_metric([host], value)
            for each in State:
                families[catalogue.STATE].add_metric(
                    [host, each.value], float(service.state is each)
                )
        yield from families.values()

    def _values(
        self, host: str, service: Service, now: Now
    ) -> Iterator[tuple[Metric, float | None]]:
        """Yield the figures of one service; None is not shown."""
        usages = self._days.usages
        asleep_seconds, awake_seconds = self._days.sleep.totals(now, host, service)
        idle_in = idle_due_seconds(service, now)
        yield catalogue.FAILURES, service.failures
        yield catalogue.STOP_FAILURES, service.stop_failures
        yield catalogue.LEASES, len(service.leases)
        yield catalogue.WAITING, len(service.waiting)
        yield catalogue.WAITING_MAX, service.config.max_waiting
        yield catalogue.ASLEEP, asleep_seconds
        yield catalogue.AWAKE, awake_seconds
        yield catalogue.IDLE_DUE, None if idle_in is None else now.wall.timestamp() + idle_in
        yield catalogue.HELD, float(isinstance(service.closed_by, Held))
        yield catalogue.USUAL_MEMORY, usages.usual_memory_bytes(host)
        sample = usages.last.get(host)
        if sample is not None and service.is_running:
            yield catalogue.MEMORY, sample.memory_bytes
            yield catalogue.CPU_SECONDS, sample.cpu_seconds


class _Own(Collector):
    """What concerns autostart itself and not one service."""

    def __init__(
        self, reachable: Callable[[], Mapping[str, bool]], was_reloaded: Callable[[], bool]
    ) -> None:
        self._reachable = reachable
        self._was_reloaded = was_reloaded

    def describe(self) -> Iterable[Family]:
        """Name them without a look."""
        return _families(OWN).values()

    def collect(self) -> Iterator[Family]:
        families = _families(OWN)
        for runtime, sees in self._reachable().items():
            families[catalogue.REACHABLE].add_metric([runtime], float(sees))
        families[catalogue.RELOADED].add_metric([], float(self._was_reloaded()))
        families[catalogue.BUILD].add_metric([version("autostart"), platform.python_version()], 1.0)
        yield from families.values()


def _counter(metric: Metric, registry: CollectorRegistry) -> Counter:
    return Counter(metric.name, metric.meaning, metric.labels, registry=registry)


def _histogram(
    metric: Metric, buckets: tuple[float, ...], registry: CollectorRegistry
) -> Histogram:
    return Histogram(metric.name, metric.meaning, metric.labels, registry=registry, buckets=buckets)


def _families(metrics: Iterable[Metric]) -> dict[Metric, Family]:
    return {metric: _family(metric) for metric in metrics}


def _family(metric: Metric) -> Family:
    kind = CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily
    return kind(metric.name, metric.meaning, labels=metric.labels)
