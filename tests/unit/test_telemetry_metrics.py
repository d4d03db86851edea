"""What is counted from transitions, and looked up in the fleet."""

from __future__ import annotations

from dataclasses import replace

import pytest
from prometheus_client.parser import text_string_to_metric_families

from autostart import errors
from autostart.lifecycle import Lease, Phase, Service, State
from autostart.telemetry import METRICS, STARTS, TRANSITIONS, Days, Metrics, Sample
from tests.fakes.fleet import SetClock
from tests.unit.telemetry_transitions import (
    ADOPTED,
    CLEANING,
    HOST,
    LOADING,
    NOON,
    READY,
    START,
    STARTING,
    STOPPED,
    transition,
)


def samples(metrics: Metrics, name: str) -> dict[tuple[str, ...], float]:
    """Return the samples of that name by the values of their labels, without the service's."""
    return {
        tuple(
            value for label, value in sorted(sample.labels.items()) if label != "service"
        ): sample.value
        for family in text_string_to_metric_families(metrics.render().decode())
        for sample in family.samples
        if sample.name == name
    }


def metrics_of(service: Service = STOPPED, clock: SetClock | None = None) -> Metrics:
    return Metrics(lambda: {HOST: service}, clock or SetClock())


def sampled(memory_bytes: int | None, cpu_seconds: float | None) -> Days:
    """Return days in which the service was sampled once."""
    now = SetClock().now()
    days = Days(None, now)
    days.take(HOST, Sample(now, memory_bytes, cpu_seconds))
    return days


def test_every_metric_is_documented_and_every_documented_one_is_there() -> None:
    """Name, kind, labels and meaning in METRICS are those of /metrics, both ways."""
    days = sampled(memory_bytes=7, cpu_seconds=0.5)
    metrics = Metrics(lambda: {HOST: READY}, SetClock(), days, lambda: {"docker": False})
    metrics.record(transition(STOPPED, STARTING))
    held = {1: Lease(1, "GET /", START)}
    metrics.record(transition(replace(LOADING, waiting=held), replace(READY, leases=held), 4))
    metrics.request_ended(HOST, 200, None, 0.1)
    families = {
        family.name: family
        for family in text_string_to_metric_families(metrics.render().decode())
        if family.name.startswith("autostart_")
    }

    assert set(families) == {metric.name.removesuffix("_total") for metric in METRICS}
    for metric in METRICS:
        family = families[metric.name.removesuffix("_total")]
        labels = {*family.samples[0].labels} - {"le"}
        shown = (family.type, family.documentation)
        assert shown == (metric.kind, metric.meaning)
        assert labels <= set(metric.labels), metric


def test_transitions_are_counted_in_the_words_of_the_log() -> None:
    """Between states the states are named, within a state the phases."""
    metrics = metrics_of()
    metrics.record(transition(STOPPED, STARTING))
    metrics.record(transition(STARTING, LOADING, 1))
    metrics.record(transition(LOADING, READY, 4))

    counted = {key: value for key, value in samples(metrics, TRANSITIONS.name).items() if value}

    assert counted == {
        ("stopped", "starting"): 1.0,
        ("starting", "loading"): 1.0,
        ("starting", "ready"): 1.0,
    }


@pytest.mark.parametrize(
    ("before", "after", "outcome"),
    [
        (LOADING, READY, "ready"),
        (LOADING, CLEANING, "start-failed"),
        (
            STARTING,
            replace(STOPPED, failure=errors.EngineUnreachable("gone")),
            "engine-unreachable",
        ),
        (LOADING, replace(LOADING, state=State.STOPPING, phase=Phase.STOPPING), "stopped"),
        (LOADING, replace(READY, state=State.STOPPING, phase=Phase.DRAINING), "ready"),
        (STARTING, LOADING, None),
        (ADOPTED, READY, None),
        (READY, CLEANING, None),
        (replace(STARTING, milestones={Phase.QUEUED: START}), STOPPED, None),
    ],
)
def test_a_start_is_counted_once_by_how_it_ended(
    before: Service, after: Service, outcome: str | None
) -> None:
    """Ready, stopped, or the code of the failure; what is adopted or never begun is no start."""
    metrics = metrics_of()
    metrics.record(transition(before, after, 4))
    counted = {key for key, value in samples(metrics, STARTS.name).items() if value}

    assert counted == (set() if outcome is None else {(outcome,)})


def test_what_is_counted_is_there_before_it_happens() -> None:
    """The usual outcomes begin with 0: of a series that begins with 1 no increase is ever seen."""
    metrics = metrics_of()

    assert samples(metrics, STARTS.name) == {
        ("ready",): 0.0,
        ("start-failed",): 0.0,
        ("start-timeout",): 0.0,
    }
    assert samples(metrics, "autostart_requests_total") == {("", "2xx"): 0.0}
    assert samples(metrics, "autostart_start_seconds_count") == {(): 0.0}
    assert samples(metrics, TRANSITIONS.name)["stopping", "stopped"] == 0.0


def test_the_phases_of_a_start_are_timed() -> None:
    """Each phase of a start that became ready is summed up; of one that failed none is."""
    metrics = metrics_of()
    metrics.record(transition(LOADING, READY, 4))
    metrics.record(transition(LOADING, CLEANING, 9))

    assert samples(metrics, "autostart_start_phase_seconds_sum") == {
        ("queued",): 0.0,
        ("preparing",): 0.0,
        ("starting",): 1.0,
        ("loading",): 3.0,
    }


def test_the_idle_date_is_there_while_there_is_one() -> None:
    """A ready service shows when it may be stopped; one in use, stopped or kept up does not."""
    lease = {1: Lease(1, "GET /", START)}
    never = replace(READY, config=replace(READY.config, idle_seconds=None))
    used = replace(READY, last_use=START)
    shown = [
        samples(metrics_of(service), "autostart_idle_due_timestamp_seconds")
        for service in (used, replace(used, leases=lease), STOPPED, never)
    ]

    assert shown == [{(): NOON.timestamp() + 900}, {}, {}, {}]


def test_what_a_run_uses_is_shown_while_it_runs() -> None:
    """The last sample stands for what runs; of what sleeps only the usual memory is told."""
    days = sampled(memory_bytes=7, cpu_seconds=0.5)
    names = (
        "autostart_service_memory_bytes",
        "autostart_service_cpu_seconds_total",
        "autostart_service_usual_memory_bytes",
    )
    fleet = {HOST: READY}
    metrics = Metrics(lambda: fleet, SetClock(), days)
    awake = [samples(metrics, name) for name in names]
    fleet[HOST] = STOPPED

    assert awake == [{(): 7.0}, {(): 0.5}, {(): 7.0}]
    assert [samples(metrics, name) for name in names] == [{}, {}, {(): 7.0}]


def test_a_run_that_nobody_could_ask_about_has_no_usage() -> None:
    """An engine that does not answer leaves a gap, not a zero."""
    metrics = Metrics(lambda: {HOST: READY}, SetClock(), sampled(None, None))

    assert samples(metrics, "autostart_service_memory_bytes") == {}


def test_a_refused_map_is_seen_until_one_is_taken() -> None:
    """Whether the map that was read last was taken."""
    metrics = metrics_of()
    shown = []
    for taken in (True, False, True):
        metrics.reload_ended(taken=taken)
        shown += samples(metrics, "autostart_reload_successful").values()

    assert shown == [1.0, 0.0, 1.0]


def test_a_held_service_and_its_failures_are_shown() -> None:
    """What an operator keeps stopped, and how often a start has failed in a row."""
    held = replace(STOPPED, closed_by=errors.Held("held"), failures=3, stop_failures=2)
    metrics = metrics_of(held)

    assert samples(metrics, "autostart_service_held") == {(): 1.0}
    assert samples(metrics, "autostart_start_failures") == {(): 3.0}
    assert samples(metrics, "autostart_stop_failures") == {(): 2.0}


def test_a_start_is_timed_to_readiness() -> None:
    """The histogram has the seconds from start to ready."""
    metrics = metrics_of()
    metrics.record(transition(LOADING, READY, 4))

    assert samples(metrics, "autostart_start_seconds_sum") == {(): 4.0}


def test_held_requests_are_timed_when_they_are_granted() -> None:
    """Each request that waited counts from when it asked; those that did not wait do not count."""
    metrics = metrics_of()
    held = Lease(1, "GET /", START + 1)
    here = Lease(2, "GET /", START)
    before = replace(LOADING, waiting={1: held}, leases={2: here})
    metrics.record(transition(before, replace(READY, leases={1: held, 2: here}), 4))

    assert samples(metrics, "autostart_held_seconds_sum") == {(): 3.0}
    assert samples(metrics, "autostart_held_seconds_count") == {(): 1.0}


def test_requests_are_counted_by_class_of_status_and_our_error() -> None:
    """An answer of ours carries its code, one of the service none."""
    metrics = metrics_of()
    metrics.request_ended(HOST, 200, None, 0.1)
    metrics.request_ended(HOST, 503, "start-failed", 0.2)
    metrics.request_ended(HOST, 503, None, 0.2)

    assert samples(metrics, "autostart_requests_total") == {
        ("", "2xx"): 1.0,
        ("start-failed", "5xx"): 1.0,
        ("", "5xx"): 1.0,
    }


def test_a_host_that_a_client_made_up_is_no_label() -> None:
    """Clients choose hosts: each would be a series that never ends."""
    metrics = metrics_of()
    metrics.request_ended("made.up", 404, "unknown-host", 0.1)
    text = metrics.render().decode()

    assert "made.up" not in text
    assert 'service="",status="4xx"' in text


def test_leases_waiting_and_state_are_those_of_the_moment() -> None:
    """Gauges are read from the fleet when somebody asks."""
    lease = Lease(1, "GET /", START)
    metrics = metrics_of(replace(READY, leases={1: lease}, waiting={2: lease, 3: lease}))

    assert samples(metrics, "autostart_leases") == {(): 1.0}
    assert samples(metrics, "autostart_waiting") == {(): 2.0}
    assert samples(metrics, "autostart_service_state") == {
        (state.value,): float(state is State.READY) for state in State
    }


def test_time_asleep_and_awake_includes_the_present() -> None:
    """Both counters go on between transitions, each while it applies."""
    clock = SetClock()
    fleet = {HOST: STOPPED}
    metrics = Metrics(lambda: fleet, clock)
    clock.advance(10)
    asleep = samples(metrics, "autostart_asleep_seconds_total")
    clock.advance(5)
    metrics.record(transition(STOPPED, STARTING, 15))
    fleet[HOST] = replace(STARTING, since=START + 15)
    clock.advance(7)

    assert asleep == {(): 10.0}
    assert samples(metrics, "autostart_asleep_seconds_total") == {(): 15.0}
    assert samples(metrics, "autostart_awake_seconds_total") == {(): 7.0}
