"""The dashboard over fleets that a test makes up: a hundred that change at once, hostile words."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from tests.browser import drive, require_browser, screenshot
from tests.fakes.operator_api import OperatorApi, cold_start, served, service, slept, transition

COUNT = 100
ROUNDS = 20
ROUND_SECONDS = 0.1
# Usually 100; a machine that tests other things beside it may take a few times as long.
BUSY_MILLISECONDS_MAX = 500

EVIL = "<img src=x onerror=alerted=true>"
EVIL_PATH = "GET /<script>alerted=true</script>"
EVIL_LINE = "\u001b[31m<b onclick=alerted=true>red</b>\u001b[0m"


@pytest.fixture(autouse=True)
def browser() -> None:
    require_browser()


async def see(url: str, scene: str, folder: Path, **wish: Any) -> dict[str, Any]:
    return await asyncio.to_thread(drive, "dashboard", folder, url=url, scene=scene, **wish)


def crowd() -> OperatorApi:
    hosts = [f"s{number:03}.example.com" for number in range(COUNT)]
    api = OperatorApi(*(service(host, name=f"Service {host[1:4]}") for host in hosts))
    starts = [cold_start(7 - day / 3, starting=1.0, loading=2.0) for day in range(20)]
    api.history = [slept(host, 0.9, starts) for host in hosts]
    return api


async def change_all(api: OperatorApi) -> None:
    """Move every service, again and again, ten times a second; end with all of them failed."""
    for turn in range(ROUNDS):
        state = ("starting", "ready", "stopping", "stopped")[turn % 4]
        for host in api.services:
            leases = [{"id": turn, "about": f"GET /{turn}", "age_seconds": 0.0}]
            api.change(host, state=state, leases=leases if state == "ready" else [])
            api.say("transition", transition(host, "stopped", state, "request GET /"))
        await asyncio.sleep(ROUND_SECONDS)
    for host in api.services:
        api.change(host, state="failed", leases=[])


@pytest.mark.parametrize("phone", [False, True], ids=["desk", "phone"])
async def test_a_hundred_that_change_at_once_keep_the_page_usable(tmp_path, phone):
    """A thousand changes a second, five times what autostart sends, never hold the page up."""
    signal, api = tmp_path / "open", crowd()
    async with served(api) as url:
        watching = asyncio.get_running_loop().create_task(
            see(url, "crowd", tmp_path, count=COUNT, signal=str(signal), phone=phone)
        )
        while not signal.exists():
            assert not watching.done(), watching
            await asyncio.sleep(0.05)
        await change_all(api)
        shown = await watching

    longest = max(shown["long"], default=0)
    print(
        f"{COUNT} services, {ROUNDS} rounds: longest task {longest} ms,"
        f" {len(shown['long'])} over 50 ms, 95 % of frames within {shown['p95']:.0f} ms"
    )
    assert longest < BUSY_MILLISECONDS_MAX
    assert [] == shown["complaints"]


async def test_hostile_words_are_shown_and_do_nothing(tmp_path):
    """Names, request paths, failures, output and refusals are text, whatever they hold."""
    host = "evil.example.com"
    failure = {"code": "start-failed", "message": EVIL, "hint": EVIL, "detail": EVIL}
    api = OperatorApi(
        service(
            host,
            "ready",
            name=EVIL,
            aliases=[EVIL],
            leases=[{"id": 1, "about": EVIL_PATH, "age_seconds": 1.0}],
            failure=failure,
            failure_log=[EVIL_LINE],
            device={"kind": "cpu", "reason": EVIL},
            progress=EVIL,
        )
    )
    api.output[host] = [EVIL_LINE]
    api.refusals["stop"] = (409, {"error": {"code": "x"}, "detail": EVIL, "hint": EVIL})
    api.say("transition", transition(host, EVIL, EVIL, EVIL_PATH, failure=failure))
    async with served(api) as url:
        shown = await see(url, "hostile", tmp_path, host=host)

    assert (EVIL, EVIL_PATH) == (shown["name"], shown["lease"])
    assert "<b onclick=alerted=true>red</b>" == shown["line"]
    assert 0 == shown["made"]
    assert not shown["harmed"]
    assert [] == shown["elsewhere"]
    assert [] == shown["complaints"]


async def test_days_of_history_are_drawn_and_told(tmp_path):
    """Cold starts by phase and days asleep are drawings with words, and a table of numbers."""
    host = "whisper.example.com"
    api = OperatorApi(service(host, name="Whisper API"))
    starts = [cold_start(3, queued=0.5, starting=0.5, loading=2.0), cold_start(1, "start-timeout")]
    api.history = [slept(host, 0.75, starts, memory_bytes_usual=2_000_000_000)]
    api.history[0]["memory_saved_gb_hours"] = 252.0
    async with served(api) as url:
        shown = await see(
            url, "history", tmp_path, host=host, screenshot=screenshot("dashboard-charts")
        )

    assert "2 cold starts, 1 did not become ready; usually 3.0 s, at most 3.0 s" == shown["starts"]
    assert ["begun", "outcome", "total", "queued", "preparing", "starting", "loading"] == shown[
        "head"
    ]
    assert ["start-timeout", "ready"] == shown["outcomes"]
    assert shown["days"].startswith("Asleep by day: ")
    assert "Asleep 75 % of 7d. That saved 252 GB·h: it usually takes 2.0 GB." == shown["words"]
    assert "252 GB·h" == shown["sum"]
    assert [] == shown["rules"]
