"""What is counted, kept and learned from transitions."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from structlog.testing import capture_logs

from autostart import errors
from autostart.config import ServiceConfig
from autostart.lifecycle import Endpoint, Lease, Phase, Service, State
from autostart.schedule import Now
from autostart.telemetry import (
    LEARNED_FILE,
    METRICS,
    STARTS,
    TRANSITIONS,
    History,
    Metrics,
    Transition,
)
from tests.fakes.fleet import SetClock

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


def samples(metrics: Metrics, name: str) -> dict[tuple[str, ...], float]:
    """Return the samples of that name by the values of their labels, without the service's."""
    return {
        tuple(value for label, value in sample.labels.items() if label != "service"): sample.value
        for family in text_string_to_metric_families(metrics.render().decode())
        for sample in family.samples
        if sample.name == name
    }


def metrics_of(service: Service = STOPPED, clock: SetClock | None = None) -> Metrics:
    return Metrics(lambda: {HOST: service}, clock or SetClock())


# Metrics.


def test_every_metric_is_documented_and_every_documented_one_is_there() -> None:
    """Name, kind, labels and meaning in METRICS are those of /metrics, both ways."""
    metrics = metrics_of(READY)
    metrics.record(transition(STOPPED, STARTING))
    held = {1: Lease(1, "GET /", START)}
    metrics.record(transition(replace(LOADING, waiting=held), replace(READY, leases=held), 4))
    metrics.request_ended(HOST, 200, None, 0.1)
    families = {
        family.name: family
        for family in text_string_to_metric_families(metrics.render().decode())
        if family.name.startswith("autostart_") and not family.name.endswith("_created")
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

    assert samples(metrics, TRANSITIONS.name) == {
        ("stopped", "starting"): 1.0,
        ("starting", "loading"): 1.0,
        ("starting", "ready"): 1.0,
    }


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (LOADING, READY, {("ready",): 1.0}),
        (LOADING, CLEANING, {("start-failed",): 1.0}),
        (
            STARTING,
            replace(STOPPED, failure=errors.EngineUnreachable("gone")),
            {("engine-unreachable",): 1.0},
        ),
        (
            LOADING,
            replace(LOADING, state=State.STOPPING, phase=Phase.STOPPING),
            {("stopped",): 1.0},
        ),
        (
            LOADING,
            replace(READY, state=State.STOPPING, phase=Phase.DRAINING),
            {("ready",): 1.0},
        ),
        (STARTING, LOADING, {}),
        (ADOPTED, READY, {}),
        (READY, CLEANING, {}),
        (replace(STARTING, milestones={Phase.QUEUED: START}), STOPPED, {}),
    ],
)
def test_a_start_is_counted_once_by_how_it_ended(
    before: Service, after: Service, expected: Mapping[tuple[str, ...], float]
) -> None:
    """Ready, stopped, or the code of the failure; what is adopted or never begun is no start."""
    metrics = metrics_of()
    metrics.record(transition(before, after, 4))

    assert samples(metrics, STARTS.name) == expected


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


# History.


def test_a_history_keeps_the_last_transitions() -> None:
    """It is bounded: the oldest go first."""
    history = History(None, entries_max=2)
    for seconds in (1, 2, 3):
        history.record(transition(STOPPED, STARTING, seconds))

    assert [entry.fields["at"] for entry in history.after(0)] == [
        "2026-01-05T12:00:02.000+00:00",
        "2026-01-05T12:00:03.000+00:00",
    ]


def test_ids_grow_whatever_the_wall_clock_does() -> None:
    """Two transitions of one millisecond, or a clock set back, never share or shrink an id."""
    history = History(None)
    for seconds in (1.0, 1.0, -3600.0, 2.0):
        history.record(transition(STOPPED, STARTING, seconds))
    ids = [entry.id for entry in history.after(0)]

    assert ids == sorted(set(ids))
    assert history.after(ids[1])[0].id == ids[2]


def test_an_entry_has_the_fields_of_the_log() -> None:
    """What is shown later is what was logged then."""
    history = History(None)
    history.record(transition(LOADING, CLEANING, 4))

    assert history.after(0)[0].fields == {
        "at": "2026-01-05T12:00:04.000+00:00",
        "service": HOST,
        "from": "starting",
        "to": "stopping",
        "state": "stopping",
        "phase": "cleaning",
        "cause": "test",
        "attempt": 1,
        "seconds": 4.0,
        "failure": {
            "code": "start-failed",
            "message": "exit code 3",
            "hint": f"autostart logs {HOST}",
        },
    }


def test_a_failure_is_told_once() -> None:
    """The transitions after the one that brought it do not repeat it."""
    history = History(None)
    history.record(transition(CLEANING, replace(CLEANING, state=State.FAILED, phase=None)))

    assert history.after(0)[0].fields["failure"] is None


def test_observers_are_told_each_entry() -> None:
    """Whoever follows gets the entry that is kept; one may leave while it is told."""
    history = History(None)
    told: list[Any] = []

    def once(entry: Any) -> None:
        told.append(entry)
        history.observers.remove(once)

    history.observers += [once, told.append]
    history.record(transition(STOPPED, STARTING))

    assert told == [history.after(0)[0]] * 2


def test_start_times_are_learned_across_restarts(tmp_path: Path) -> None:
    """What a ready service usually takes is known to the next autostart."""
    history = History(tmp_path)
    history.record(transition(LOADING, READY, 4))
    history.close()

    assert History(tmp_path).usual_start_seconds() == {HOST: 4.0}
    assert [path.name for path in tmp_path.iterdir()] == [LEARNED_FILE]


def test_a_later_start_replaces_what_was_learned(tmp_path: Path) -> None:
    """The newest value is the one on disk."""
    history = History(tmp_path)
    for seconds in (4.0, 3.0, 2.5):
        history.record(transition(LOADING, replace(READY, usual_start_seconds=seconds)))
    history.close()

    assert History(tmp_path).usual_start_seconds() == {HOST: 2.5}


def test_an_adopted_run_teaches_nothing(tmp_path: Path) -> None:
    """Without a start there is nothing to save."""
    history = History(tmp_path)
    history.record(transition(ADOPTED, replace(READY, usual_start_seconds=None)))
    history.close()

    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "7", '{"usual_start_seconds": 7}', '{"usual_start_seconds": {"a": "x"}}'],
)
def test_a_broken_file_costs_only_what_was_learned(tmp_path: Path, text: str) -> None:
    """It is told in the log, and autostart begins without."""
    (tmp_path / LEARNED_FILE).write_text(text)
    with capture_logs() as logs:
        history = History(tmp_path)

    assert history.usual_start_seconds() == {}
    assert [line["event"] for line in logs] == ["learned-unreadable"]


def test_impossible_times_are_not_learned(tmp_path: Path) -> None:
    """A time that is negative or no number would spoil every Retry-After."""
    text = json.dumps({"usual_start_seconds": {"a": -1, "b": float("nan"), "c": 2}})
    (tmp_path / LEARNED_FILE).write_text(text)

    assert History(tmp_path).usual_start_seconds() == {"c": 2.0}


def test_a_folder_that_cannot_be_written_is_told_in_the_log(tmp_path: Path) -> None:
    """Learning is a convenience: that it fails stops nothing."""
    history = History(tmp_path / "missing")
    with capture_logs() as logs:
        history.record(transition(LOADING, READY, 4))
        history.close()

    assert [line["event"] for line in logs] == ["learned-unsaved"]
