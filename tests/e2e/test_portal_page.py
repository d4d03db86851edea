"""The docs portal and a service's own docs page, in a real browser."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml

from tests.browser import drive, require_browser, screenshot
from tests.daemon import HOST, ROOT, Daemon, running
from tests.e2e import test_portal as reading
from tests.e2e.test_portal import FOLDER, PORTAL, Reading, wake
from tests.services.sounds import WORDS
from tests.services.speech_server import DIGITS

WHISPER = "whisper.localhost"
RECORDING = str(DIGITS / "recording.wav")
DEMO = yaml.safe_load((ROOT / "config/demo.yaml").read_text())["services"][WHISPER]
TRANSCRIBE = {"operation": "/v1/audio/transcriptions", "file": RECORDING}
ECHO = {"operation": "/echo"}
DOCUMENT = {**reading.DOCUMENT, "servers": []}
PHONE = {"viewport": {"width": 390, "height": 844}, "isMobile": True, "hasTouch": True}


def documented(folder: Path, *options: str, **keys: Any) -> dict[str, Any]:
    """Return the map's entry of a plain service whose documented path is one that it has."""
    if not (folder / "openapi.json").exists():
        (folder / "openapi.json").write_text(json.dumps(DOCUMENT))
    return reading.documented(folder, *options, **keys)


async def browse(
    daemon: Daemon, path: str = "/", host: str = PORTAL, **wish: Any
) -> dict[str, Any]:
    """Visit a page of the daemon; the loop goes on meanwhile."""
    url = f"http://{host}:{daemon.port}{path}"
    return await asyncio.to_thread(drive, "portal", daemon.folder, url=url, **wish)


@pytest.fixture
async def speech(tmp_path: Path, client: aiohttp.ClientSession) -> AsyncIterator[Daemon]:
    """The demo's service, whose docs are known, and which is stopped."""
    require_browser()
    service = {**DEMO, "directory": str(ROOT), "idle": "1m", "start_timeout": "60s"}
    other = documented(tmp_path, name="A plain service")
    async with running(tmp_path, {WHISPER: service, HOST: other}, portal=PORTAL) as daemon:
        read = Reading(client, daemon)
        assert 200 == (await read("/v1/models", WHISPER))[0]
        await read.until_known(WHISPER)
        assert 0 == (await daemon.run_cli("stop", WHISPER))[0]
        await daemon.wait_for_state("stopped", WHISPER)
        yield daemon


@pytest.mark.parametrize(
    ("name", "look"),
    [
        ("light", {"colorScheme": "light"}),
        ("dark", {"colorScheme": "dark"}),
        ("phone", PHONE),
        ("phone-dark", {**PHONE, "colorScheme": "dark"}),
    ],
)
async def test_docs_of_a_stopped_service_are_read(speech, name, look):
    """It is still stopped; the page is whole, accessible, fits the screen and needs no network."""
    shown = await browse(speech, f"/#{WHISPER}", look=look, screenshot=screenshot(f"portal-{name}"))

    assert "/v1/audio/transcriptions" in shown["text"]
    assert "asleep" in shown["banner"]
    assert [HOST, WHISPER] == shown["listed"]
    assert ([], []) == (shown["violations"], shown["complaints"])
    width, screen = shown["width"]
    assert width <= screen
    here = f"http://{PORTAL}:{speech.port}/"
    assert [] == [url for url in shown["asked"] if not url.startswith((here, "data:"))]
    assert (1, 0) == (speech.starts(WHISPER), speech.starts())


async def test_a_transcription_is_executed_from_the_portal(speech):
    """The service starts for it, the page says so while it waits, and then shows the words."""
    shown = await browse(
        speech,
        f"/api#{WHISPER}",
        execute={**TRANSCRIBE, "meanwhile": screenshot("portal-starting")},
        screenshot=screenshot("portal-executed"),
    )

    assert "200" == shown["status"]
    assert f'"text": "{WORDS}"' in shown["body"]
    assert any("is asleep and starts now: usually" in banner for banner in shown["banners"])
    assert any("s of usually" in banner for banner in shown["banners"])
    assert shown["banner"].startswith("The service was asleep: started and answered in")
    assert ([], []) == (shown["violations"], shown["complaints"])
    assert 2 == speech.starts(WHISPER)


async def test_a_transcription_is_executed_from_the_services_own_page(speech):
    """/docs of a stopped service is there, works, and is one with the portal in looks."""
    read = await browse(speech, "/docs", WHISPER, screenshot=screenshot("docs-stopped"))
    starts = speech.starts(WHISPER)
    shown = await browse(speech, "/docs", WHISPER, look={"colorScheme": "dark"}, execute=TRANSCRIBE)

    assert (1, [], []) == (starts, read["violations"], read["complaints"])
    assert ("200", True) == (shown["status"], f'"text": "{WORDS}"' in shown["body"])
    assert any("is asleep and starts now" in banner for banner in shown["banners"])
    assert 2 == speech.starts(WHISPER)


async def test_the_first_start_brings_the_docs(tmp_path: Path) -> None:
    """Nobody knows them before; a button starts the service, and then they are there."""
    require_browser()
    async with running(tmp_path, {HOST: documented(tmp_path)}, portal=PORTAL) as daemon:
        before = await browse(daemon, wait="#first", screenshot=screenshot("portal-first"))
        starts = daemon.starts()
        after = await browse(daemon, presses="Start it now")

        assert (0, []) == (starts, before["violations"])
        assert "/echo" in after["text"]
        assert 1 == daemon.starts()


async def test_a_key_is_sent_with_execute(tmp_path: Path, client: aiohttp.ClientSession) -> None:
    """From the portal to a service behind `access`: preflight, key and answer; without it 401."""
    require_browser()
    service = documented(tmp_path, access={"keys_env": "TEST_KEYS"})
    daemon = Daemon(tmp_path, {HOST: service}, portal=PORTAL)
    daemon.environment["TEST_KEYS"] = "open-sesame"
    try:
        await daemon.start()
        key = {"Authorization": "Bearer open-sesame"}
        read = Reading(client, daemon)
        assert 200 == (await read("/echo", HOST, **key))[0]
        await read.until_known()
        assert 0 == (await daemon.run_cli("stop", HOST))[0]
        await daemon.wait_for_state("stopped")
        refused = await browse(daemon, execute=ECHO)
        starts = daemon.starts()
        given = await browse(
            daemon, execute={**ECHO, "key": "open-sesame", "scheme": "autostart-key"}
        )

        assert ("401", 1) == (refused["status"], starts)
        assert "Not answered by the service: unauthorized" in refused["banner"]
        assert ("200", True) == (given["status"], "Bearer open-sesame" in given["body"])
        assert 2 == daemon.starts()
    finally:
        daemon.clean_up()


async def test_a_key_stays_with_its_service(tmp_path: Path, client: aiohttp.ClientSession) -> None:
    """Another whose document names its scheme alike is not sent it."""
    require_browser()
    scheme = {"bearer": {"type": "http", "scheme": "bearer"}}
    document = {**DOCUMENT, "components": {"securitySchemes": scheme}, "security": [{"bearer": []}]}
    (tmp_path / "openapi.json").write_text(json.dumps(document))
    hosts = {host: documented(tmp_path, name=host) for host in ("good.localhost", "evil.localhost")}
    async with running(tmp_path, hosts, portal=PORTAL) as daemon:
        for host in hosts:
            await wake(Reading(client, daemon), host)
        shown = await browse(
            daemon,
            "/#good.localhost",
            execute={**ECHO, "key": "mine-alone", "scheme": "bearer"},
            then={"show": "evil.localhost", "execute": ECHO},
        )

        assert ("200", "200") == (shown["status"], shown["then"]["status"])
        assert ("mine-alone" in shown["body"], "mine-alone" in shown["then"]["body"]) == (
            True,
            False,
        )


@pytest.mark.parametrize("version", ["3.0.3", "3.1.0"])
async def test_a_hostile_document_does_nothing(
    tmp_path: Path, client: aiohttp.ClientSession, version: str
) -> None:
    """It runs no script, wakes nobody, loads nothing foreign, and Execute calls its own service."""
    require_browser()
    victim = "victim.localhost"
    hosts = {HOST: documented(tmp_path), victim: documented(tmp_path)}
    async with running(tmp_path, hosts, portal=PORTAL) as daemon:
        there = f"http://{victim}:{daemon.port}"
        (tmp_path / "openapi.json").write_text(json.dumps(hostile(version, there)))
        await wake(Reading(client, daemon))
        read = [await browse(daemon, "/docs", HOST), await browse(daemon, f"/#{HOST}")]
        starts = daemon.starts()
        shown = await browse(
            daemon, f"/#{HOST}", execute=ECHO, screenshot=screenshot(f"portal-hostile-{version}")
        )

        assert ([], 1) == ([line for page in read for line in page["dialogs"]], starts)
        assert [] == shown["dialogs"]
        assert "<script>alert(1)</script>" in shown["text"]
        assert ("200", True) == (shown["status"], HOST in shown["body"])
        assert (0, 2) == (daemon.starts(victim), daemon.starts())
        ours = tuple(f"http://{host}:{daemon.port}/" for host in (PORTAL, HOST))
        answered = [url for url in shown["asked"] if not url.startswith((*ours, "data:", "blob:"))]
        # What the browser's own policy stopped is told as asked for; nothing answered it.
        assert {there, "https://foreign.test"} >= {url.rpartition("/")[0] for url in answered}


def hostile(version: str, there: str) -> dict[str, Any]:
    """Return a document that tries what a document can."""
    evil = [{"url": there}]
    deep: dict[str, Any] = {}
    for _ in range(40):
        deep = {"type": "object", "properties": {"x": deep}}
    text = f"![x]({there}/x.png) ![y](https://foreign.test/y.png) [z](javascript:alert(1)) "
    text += "![own](/own.png) "
    text += '<img src=x onerror="alert(1)"><style>body {display: none}</style><form action=/ >'
    text += f'<iframe src="{there}/f"></iframe><meta http-equiv=refresh content="0;url={there}/m">'
    return {
        "openapi": version,
        "info": {
            "title": "<script>alert(1)</script>",
            "version": "<b onclick=alert(1)>1</b>",
            "description": text,
            "termsOfService": "javascript:alert(1)",
            "contact": {"url": "javascript:alert(1)"},
        },
        "externalDocs": {"url": "javascript:alert(1)"},
        "servers": [{"url": "javascript:alert(1)"}],
        "paths": {
            "/echo": {
                "servers": evil,
                "get": {
                    "servers": evil,
                    "description": text,
                    "parameters": [{"$ref": f"{there}/parameters#/x"}],
                    "responses": {
                        "200": {
                            "description": text,
                            "content": {
                                "application/json": {"schema": {"$ref": f"{there}/schema.json"}}
                            },
                        },
                        "404": {"$ref": "https://foreign.test/answers.json#/x"},
                    },
                },
            },
            "/more": {"$ref": f"{there}/path.json"},
        },
        "components": {
            "schemas": {"Deep": deep, "Other": {"$ref": f"{there}/schema.json#/Other"}},
            "securitySchemes": {
                "oidc": {"type": "openIdConnect", "openIdConnectUrl": f"{there}/openid"},
                "oauth": {
                    "type": "oauth2",
                    "flows": {"password": {"tokenUrl": f"{there}/token", "scopes": {}}},
                },
            },
        },
        "security": [{"oidc": []}],
    }


async def test_a_hundred_services_are_found(tmp_path: Path, client: aiohttp.ClientSession) -> None:
    """By name or host; the choice is in the address, and nobody is woken."""
    require_browser()
    hosts = {
        f"service-{number:02}.localhost": documented(tmp_path, name=f"Service number {number}")
        for number in range(100)
    }
    async with running(tmp_path, hosts, portal=PORTAL) as daemon:
        read = Reading(client, daemon)
        await wake(read, "service-42.localhost")
        chosen = await browse(
            daemon, "/#service-42.localhost", screenshot=screenshot("portal-hundred")
        )
        found = await browse(
            daemon,
            types="number 42",
            show="service-42.localhost",
            look=PHONE,
            screenshot=screenshot("portal-hundred-phone"),
        )
        _, _, listed = await read(f"{FOLDER}/services.json")

        assert (100, 1) == (len(chosen["listed"]), len(found["listed"]))
        assert "Service number 42: API docs" == chosen["title"] == found["title"]
        assert ([], []) == (chosen["violations"], found["violations"])
        assert 100 == len(json.loads(listed)["services"])
        assert 1 == sum(daemon.starts(host) for host in hosts)


async def test_a_service_that_does_not_name_the_portal_says_so(
    tmp_path: Path, client: aiohttp.ClientSession
) -> None:
    """Its docs are read there all the same; Execute is for its own page."""
    require_browser()
    service = documented(tmp_path, cors=["https://elsewhere.test"])
    async with running(tmp_path, {HOST: service}, portal=PORTAL) as daemon:
        await wake(Reading(client, daemon))
        portal = await browse(daemon)
        own = await browse(daemon, "/docs", HOST, execute=ECHO)

        assert "Execute works only at" in portal["banner"]
        assert "200" == own["status"]


async def test_a_start_that_fails_is_told(tmp_path: Path, client: aiohttp.ClientSession) -> None:
    """With our code, and when to try again."""
    require_browser()
    broken = tmp_path / "broken"
    service = documented(tmp_path, "--exit-if-file", str(broken), name=HOST)
    async with running(tmp_path, {HOST: service}, portal=PORTAL) as daemon:
        await wake(Reading(client, daemon))
        broken.touch()
        shown = await browse(daemon, execute=ECHO, screenshot=screenshot("portal-failed"))

        assert "503" == shown["status"]
        assert "Not answered by the service: start-failed" in shown["banner"]
