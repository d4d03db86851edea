"""The last days and the present in figures, as the operator's API answers them."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from autostart import errors
from autostart.admin.openapi import DOCUMENT
from autostart.config import ServiceConfig
from autostart.lifecycle import State
from autostart.telemetry import Sample
from tests.fakes.fleet import Fleet, operated

HOST = "a.localhost"
OTHER = "b.localhost"
HOUR = 3600.0


def service(host: str = HOST, **keys: Any) -> ServiceConfig:
    return ServiceConfig(host, port=9001 if host == HOST else 9002, command=("x",), **keys)


async def answer(fleet: Fleet, path: str) -> Any:
    response = await fleet.client.get(path)
    assert response.status == 200, await response.text()
    return await response.json()


async def test_a_fleet_that_never_started_has_slept() -> None:
    """Every day of the week is there; what no run has shown yet is null."""
    async with operated(service()) as fleet:
        fleet.clock.advance(HOUR)
        history = await answer(fleet, "/api/history")
        days = history["services"][0].pop("days")

        assert history == {
            "since": "2025-12-30T00:00:00.000+00:00",
            "services": [
                {
                    "host": HOST,
                    "asleep_seconds": HOUR,
                    "awake_seconds": 0.0,
                    "memory_bytes_usual": None,
                    "memory_saved_gb_hours": None,
                    "starts": [],
                }
            ],
        }
        assert len(days) == 7
        assert days[-1] == {"date": "2026-01-05", "asleep_seconds": HOUR, "awake_seconds": 0.0}


async def test_a_start_is_shown_with_its_phases() -> None:
    """When, why, how it ended, and where the time went."""
    async with operated(service()) as fleet:
        fleet.runtime.hold("start")
        await fleet.wait(HOST, "POST /asr")
        fleet.clock.advance(3)
        fleet.runtime.let_go("start")
        await fleet.reach(HOST, State.READY)
        history = await answer(fleet, "/api/history?days=1")

        assert history["services"][0]["starts"] == [
            {
                "at": "2026-01-05T12:00:00.000+00:00",
                "cause": "request POST /asr",
                "outcome": "ready",
                "seconds": 3.0,
                "phases": {"queued": 0.0, "preparing": 0.0, "starting": 3.0, "loading": 0.0},
            }
        ]


async def test_a_start_that_failed_is_shown_with_its_code() -> None:
    """The outcome is one of our codes, as in the metrics."""
    async with operated(service()) as fleet:
        fleet.runtime.fail("start", HOST, errors.StartFailed("exit code 3"))
        await fleet.client.post(f"/api/services/{HOST}/start")
        await fleet.reach(HOST, State.FAILED)
        history = await answer(fleet, "/api/history")

        assert [start["outcome"] for start in history["services"][0]["starts"]] == ["start-failed"]


async def test_what_was_saved_is_the_usual_memory_for_the_time_asleep() -> None:
    """In 10⁹ bytes times hours."""
    async with operated(service()) as fleet:
        fleet.days.take(HOST, Sample(fleet.clock.now(), 2_000_000_000, 1.0))
        fleet.clock.advance(10 * HOUR)
        history = await answer(fleet, "/api/history")

        assert history["services"][0]["memory_bytes_usual"] == 2_000_000_000
        assert history["services"][0]["memory_saved_gb_hours"] == 20.0


async def test_only_the_days_that_were_asked_for_count() -> None:
    """Sums, days and starts begin at midnight, UTC, of the first of them."""
    async with operated(service()) as fleet:
        await fleet.start(HOST)
        fleet.clock.advance(24 * HOUR)
        two, one = [
            (await answer(fleet, f"/api/history?days={days}"))["services"][0] for days in (2, 1)
        ]

        assert [len(each["starts"]) for each in (two, one)] == [1, 0]
        assert [each["awake_seconds"] for each in (two, one)] == [24 * HOUR, 12 * HOUR]
        assert [day["date"] for day in two["days"]] == ["2026-01-05", "2026-01-06"]


async def test_history_has_every_service_in_the_order_of_the_map() -> None:
    """Also those that never did anything."""
    async with operated(service(OTHER), service()) as fleet:
        history = await answer(fleet, "/api/history")

        assert [each["host"] for each in history["services"]] == [OTHER, HOST]


@pytest.mark.parametrize("query", ["days=0", "days=8", "days=", "days=1.5", "weeks=1"])
async def test_more_or_less_than_a_week_is_refused(query: str) -> None:
    """With what is allowed."""
    async with operated(service()) as fleet:
        response = await fleet.client.get(f"/api/history?{query}")

        assert response.status == 400
        assert "allowed: " in (await response.json())["detail"]


async def test_usage_is_that_of_everything_that_runs() -> None:
    """One answer for all; what sleeps is not in it."""
    async with operated(service(), service(OTHER)) as fleet:
        await fleet.start(OTHER)
        usage = await answer(fleet, "/api/usage")

        assert usage == [
            {
                "host": OTHER,
                "memory_bytes": 1_000_000,
                "cpu_seconds": 0.5,
                "at": "2026-01-05T12:00:00.000+00:00",
            }
        ]


async def test_an_engine_that_is_away_is_no_error() -> None:
    """Its services are there with null: the page shows the others."""
    async with operated(service()) as fleet:
        await fleet.start(HOST)
        fleet.runtime.fail("usage", HOST, errors.EngineUnreachable("gone"))
        usage = await answer(fleet, "/api/usage")

        assert [(each["memory_bytes"], each["cpu_seconds"]) for each in usage] == [(None, None)]


async def test_the_openapi_document_describes_the_figures() -> None:
    """The schemas have the keys of the answers."""
    schemas = DOCUMENT["components"]["schemas"]
    async with operated(service()) as fleet:
        await fleet.start(HOST)
        past = (await answer(fleet, "/api/history"))["services"][0]
        [sample] = await answer(fleet, "/api/usage")

        assert schemas["Past"]["required"] == list(past)
        assert schemas["Past"]["properties"]["days"]["items"]["required"] == list(past["days"][0])
        described = schemas["Past"]["properties"]["starts"]["items"]
        assert described["required"] == list(past["starts"][0])
        assert described["properties"]["phases"]["required"] == list(past["starts"][0]["phases"])
        assert schemas["Sample"]["required"] == list(sample)


async def test_looking_keeps_nothing_up() -> None:
    """Neither figure is a use of a service."""
    async with operated(service(idle_seconds=60.0)) as fleet:
        await fleet.start(HOST)
        fleet.clock.advance(10)
        await answer(fleet, "/api/usage")
        await answer(fleet, "/api/history")
        shown = await answer(fleet, f"/api/services/{HOST}")

        assert shown["idle_due_seconds"] == 50.0
        assert timedelta(seconds=shown["since_seconds"]) == timedelta(seconds=10)
