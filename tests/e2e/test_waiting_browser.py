"""The waiting page as a person sees it, in a real browser: it comes at once, moves, and arrives."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from itertools import pairwise
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.browser import drive, screenshot
from tests.daemon import Daemon, plain, running

HOST = "files.localhost"
OTHER = "other.localhost"
# What the service's page holds, and no page of ours.
ARRIVED = '"target": "/echo?q=%20'
TARGET = "/echo?q=%20a%26b#part-2"
PHONE = {"viewport": {"width": 360, "height": 640}, "isMobile": True, "deviceScaleFactor": 2}
DARK = {"colorScheme": "dark"}
FRENCH = {"locale": "fr-FR"}
# Chromium says it of every page with this status.
ITS_OWN_STATUS = "the server responded with a status of 503"


def slow(*options: str, **keys: Any) -> dict[str, Any]:
    """Return a service that takes about four seconds, with a page."""
    return plain("--ready-after", "3.5", *options, mode="page", name="Files of the house", **keys)


async def visit(daemon: Daemon, **wish: Any) -> dict[str, Any]:
    """Open the service in a browser, and tell what it showed until it arrived."""
    url = f"http://{HOST}:{daemon.port}{TARGET}"
    known = {"url": url, "until": ARRIVED, "seconds": 40}
    return await asyncio.to_thread(drive, "waiting", daemon.folder, **known | wish)


async def visit_while(
    daemon: Daemon, meanwhile: Callable[[], Coroutine[Any, Any, None]], **wish: Any
) -> dict[str, Any]:
    """Do something while the browser is there."""
    shown, _ = await asyncio.gather(visit(daemon, **wish), meanwhile())
    return shown


def assert_arrived(shown: dict[str, Any], daemon: Daemon, target: str = TARGET) -> None:
    """It ended where it was sent, with query and fragment, and asked nobody else."""
    origin = f"http://{HOST}:{daemon.port}"
    assert origin + target == shown["ended"]["url"], shown["seen"][-1:]
    assert ARRIVED in shown["ended"]["text"]
    assert [url for url in shown["asked"] if not url.startswith(origin)] == []
    assert shown["documents"][-1][0] == 200


def words(shown: dict[str, Any]) -> list[str]:
    """Return the situations in order, each once in a row."""
    seen = [each["situation"] for each in shown["seen"]]
    return [word for index, word in enumerate(seen) if index == 0 or seen[index - 1] != word]


async def learn(daemon: Daemon) -> None:
    """Start the service once, so that its usual time is known."""
    for command in ("start", "stop"):
        assert 0 == (await daemon.run_cli(command, HOST))[0]
        await daemon.wait_for_state("ready" if command == "start" else "stopped", HOST)


LOOKS: dict[str, dict[str, Any]] = {
    "light": {},
    "dark": DARK,
    "phone": PHONE,
    "phone-dark-french": {**PHONE, **DARK, **FRENCH},
    "still": {"reducedMotion": "reduce"},
}


@pytest.mark.parametrize("look", LOOKS)
async def test_page_comes_at_once_moves_and_arrives(tmp_path: Path, look: str) -> None:
    """In light and dark, on a phone, in French: the bar fills, and the address is the asked one."""
    async with running(tmp_path, {HOST: slow()}) as daemon:
        await learn(daemon)
        shots = {"loading": screenshot(f"waiting-{look}")}
        shown = await visit(daemon, options=LOOKS[look], shots=shots, axe=True)

        assert shown["appearedSeconds"] < 1
        assert_arrived(shown, daemon)
        assert 2 == len(shown["documents"])
        assert "loading" in words(shown)
        bars = [each["bar"] for each in shown["seen"] if each["bar"] is not None]
        assert bars[-1] > bars[0] + 30
        assert all(before <= after for before, after in pairwise(bars))
        assert bars[-1] < 100
        moved = {each["elapsed"] for each in shown["seen"]}
        assert len(moved) >= 3
        assert [] == shown["broken"]
        assert not any(each["overflows"] for each in shown["seen"])
        assert [] == [line for line in shown["complaints"] if ITS_OWN_STATUS not in line]
        language = "fr" if "french" in look else "en"
        heading = {"en": "Loading", "fr": "Chargement"}[language]
        loading = next(each for each in shown["seen"] if each["situation"] == "loading")
        assert (language, heading) == (loading["language"], loading["heading"])
        assert f"{heading} · Files of the house" == loading["title"]


async def test_a_tab_that_nobody_sees_holds_no_connection(tmp_path: Path) -> None:
    """Over plain HTTP a browser has six to a host: it asks now and then, and arrives as well."""
    async with running(tmp_path, {HOST: slow()}) as daemon:
        shown = await visit(daemon, unseen=True)

        assert_arrived(shown, daemon)
        paths = [url.partition("/.autostart/")[2] for url in shown["asked"]]
        assert ("status" in paths, "events" in paths) == (True, False)


async def test_page_without_scripts_arrives(tmp_path: Path) -> None:
    """It loads itself again, says each time how far it is, and ends at what was asked for.

    But for the fragment: a browser that is told to come back with it only scrolls.
    """
    async with running(tmp_path, {HOST: slow()}) as daemon:
        shown = await visit(daemon, options={"javaScriptEnabled": False})

        assert shown["appearedSeconds"] < 1
        assert_arrived(shown, daemon, TARGET.partition("#")[0])
        assert len(shown["documents"]) <= 7
        assert not any("events" in url for url in shown["asked"])


async def test_page_arrives_where_the_events_do_not_come_through(tmp_path: Path) -> None:
    """It asks for the status instead."""
    async with running(tmp_path, {HOST: slow()}) as daemon:
        shown = await visit(daemon, block="**/.autostart/events")

        assert_arrived(shown, daemon)
        assert 2 == len(shown["documents"])
        assert any(url.endswith("/.autostart/status") for url in shown["asked"])


async def test_page_arrives_where_nothing_of_ours_comes_through(tmp_path: Path) -> None:
    """A proxy that answers for /.autostart/ itself: it loads itself again, ever more slowly."""
    async with running(tmp_path, {HOST: slow()}) as daemon:
        shown = await visit(daemon, absent="**/.autostart/**")

        assert_arrived(shown, daemon)
        assert len(shown["documents"]) <= 4


async def test_failed_start_says_why_and_recovers(tmp_path: Path) -> None:
    """The reason and the next try; once the cause is gone, it arrives without a hand."""
    broken = tmp_path / "broken"
    broken.touch()
    async with running(tmp_path, {HOST: slow("--exit-if-file", str(broken))}) as daemon:

        async def mend() -> None:
            await daemon.wait_for_state("failed", HOST)
            await asyncio.sleep(2.0)  # the page is looked at meanwhile
            broken.unlink()

        shots = {"failed": screenshot("waiting-failed"), "loading": screenshot("waiting-again")}
        shown = await visit_while(daemon, mend, shots=shots, axe=True)

        assert_arrived(shown, daemon)
        assert 2 == len(shown["documents"])
        failed = [each for each in shown["seen"] if each["situation"] == "failed"]
        assert all(f"{HOST} ended: exit code 1" in each["reason"] for each in failed)
        counted = {each["retry"] for each in failed} - {""}
        assert len(counted) >= 2
        assert all(each.startswith("Next try in ") for each in counted)
        assert "" == shown["seen"][-1]["reason"]
        assert 2 == daemon.starts(HOST)
        assert [] == shown["broken"]


async def test_held_service_opens_when_its_operator_starts_it(tmp_path: Path) -> None:
    """The page says who stopped it, asks for nothing, and goes on by itself."""
    async with running(tmp_path, {HOST: slow()}) as daemon:
        assert 0 == (await daemon.run_cli("stop", HOST, "--hold"))[0]

        async def start() -> None:
            await asyncio.sleep(3.0)
            assert 0 == daemon.starts(HOST)
            await daemon.run_cli("start", HOST)

        shots = {"held": screenshot("waiting-held")}
        shown = await visit_while(daemon, start, shots=shots, options=DARK, axe=True)

        assert_arrived(shown, daemon)
        assert "held" == words(shown)[0]
        assert not any(url.endswith("/wake") for url in shown["asked"])
        assert [] == shown["broken"]


async def test_page_waits_for_its_turn(tmp_path: Path, client: aiohttp.ClientSession) -> None:
    """Behind another of its exclusive name it says so, and arrives after it."""
    services = {
        HOST: slow(exclusive="gpu0"),
        OTHER: plain(exclusive="gpu0"),
    }
    async with running(tmp_path, services) as daemon:

        async def use_other() -> None:
            url = f"{daemon.url}/slow?seconds=3"
            async with client.get(url, headers={"Host": OTHER}) as answer:
                assert 200 == answer.status

        using = asyncio.create_task(use_other())
        await daemon.wait_for_state("ready", OTHER)
        shots = {"queued": screenshot("waiting-queued")}
        shown = await visit(daemon, shots=shots, axe=True)
        await using

        assert_arrived(shown, daemon)
        assert "queued" == words(shown)[0]
        assert "loading" in words(shown)
        assert [] == shown["broken"]


async def test_page_outlives_a_restart_of_autostart(tmp_path: Path) -> None:
    """While nobody answers it stays, and goes on with the next autostart."""
    async with running(tmp_path, {HOST: slow("--listen-after", "3")}) as daemon:

        async def restart() -> None:
            await daemon.wait_for_state("starting", HOST)
            await asyncio.sleep(1.0)
            await asyncio.to_thread(daemon.terminate)
            await asyncio.sleep(2.0)
            await daemon.start()

        shown = await visit_while(daemon, restart)

        assert_arrived(shown, daemon)
        assert 2 == len(shown["documents"])


async def test_own_page_moves_by_our_script(tmp_path: Path) -> None:
    """The example of config/ with one line for the script: it moves and arrives."""
    own = Path(__file__).resolve().parents[2] / "config/waiting.html"
    async with running(tmp_path, {HOST: slow(waiting_page=str(own))}) as daemon:
        await learn(daemon)
        shown = await visit(daemon, shots={"loading": screenshot("waiting-own")}, axe=True)

        assert_arrived(shown, daemon)
        assert shown["seen"][-1]["bar"] > shown["seen"][0]["bar"]
        assert [] == shown["broken"]
        assert [] == [line for line in shown["complaints"] if ITS_OWN_STATUS not in line]
