"""Reading docs: from the cache, on the portal and on each service's host, and it wakes nothing."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp

from tests.daemon import HOST, Daemon, free_port, plain, running

PORTAL = "portal.localhost"
FOLDER = "/.autostart/docs"
DOCUMENT = {
    "openapi": "3.1.0",
    "info": {"title": "Plain", "version": "1"},
    "servers": [{"url": "http://localhost:8000/v1"}],
    "paths": {"/echo": {"get": {"responses": {"200": {"description": "what came"}}}}},
}


def documented(folder: Path, *options: str, **keys: Any) -> dict[str, Any]:
    """Return the map's entry of a plain service with docs, which stand in folder/openapi.json."""
    file = folder / "openapi.json"
    if not file.exists():
        file.write_text(json.dumps(DOCUMENT))
    return plain("--openapi", str(file), *options, docs="/openapi.json", **keys)


class Reading:
    """What somebody reads through one daemon, and in which words."""

    def __init__(self, client: aiohttp.ClientSession, daemon: Daemon) -> None:
        self.client, self.daemon = client, daemon

    async def __call__(
        self, path: str, host: str = PORTAL, method: str = "GET", **headers: str
    ) -> tuple[int, str | None, bytes]:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        async with self.client.request(
            method,
            # As it stands: a client would resolve //, .. and %64 before it asks.
            aiohttp.client.URL(self.daemon.url + path, encoded=True),
            headers={"Host": f"{host}:{self.daemon.port}", **named},
            allow_redirects=False,
        ) as response:
            body = await response.read()
            return response.status, response.headers.get("Autostart-Error"), body

    async def until(self, path: str, holds: Callable[[bytes], bool], host: str = PORTAL) -> bytes:
        """Read again until what is read is as it should be."""
        deadline = time.monotonic() + 10
        while True:
            status, _, body = await self(path, host)
            if status == 200 and holds(body):
                return body
            assert time.monotonic() < deadline, (status, body[:500], self.daemon.tail())
            await asyncio.sleep(0.05)

    async def until_known(self, host: str = HOST) -> bytes:
        return await self.until(f"{FOLDER}/documents/{host}", lambda body: True)


async def wake(read: Reading, host: str = HOST) -> None:
    """Start the service, wait until its docs are known, and stop it."""
    assert (200, None) == (await read("/echo", host))[:2]
    await read.until_known(host)
    assert 0 == (await read.daemon.run_cli("stop", host))[0]
    await read.daemon.wait_for_state("stopped", host)


async def test_reading_wakes_nothing(tmp_path: Path, client: aiohttp.ClientSession) -> None:
    """However it is read, with which method and in which spelling, also before the first start."""
    service = documented(tmp_path, mode="page", wake={"methods": ["GET", "HEAD", "POST"]})
    portal_reads = [
        "/",
        "/api",
        "/api/",
        "//",
        "/%61pi",
        "/?host=x",
        "/x",
        "/docs",
        "/openapi.json",
    ]
    service_reads = [
        "/docs",
        "/docs/",
        "/%64ocs",
        "//docs",
        "/./docs",
        "/x/../docs",
        "/docs?x=1",
        "/docs/swagger-ui.css",
        "/docs/nothing",
        "/docs/%2e%2e/docs",
        "/openapi.json",
        "/openapi.json?x=1",
        "/openapi.json/",
        "/openapi%2Ejson",
        f"{FOLDER}/services.json",
        f"{FOLDER}/documents/{HOST}",
        f"{FOLDER}/portal.js",
        f"{FOLDER}/nothing",
        f"{FOLDER}/",
    ]
    async with running(tmp_path, {HOST: service}, portal=PORTAL) as daemon:
        read = Reading(client, daemon)
        for known in (False, True):
            for method in ("GET", "HEAD"):
                for host, paths in ((PORTAL, portal_reads), (HOST, service_reads)):
                    for path in paths:
                        browser = {"Sec_Fetch_Mode": "navigate", "Accept": "text/html"}
                        status, _, _ = await read(path, host, method, **browser)
                        assert status in {200, 404}, (method, host, path, status)
            for path in ("/", f"{FOLDER}/services.json", f"{FOLDER}/documents/{HOST}", "/docs"):
                for method in ("POST", "PUT", "DELETE", "OPTIONS", "PROPFIND"):
                    assert (404, "unknown-page") == (await read(path, PORTAL, method))[:2]

            assert int(known) == daemon.starts(), daemon.tail()
            if not known:
                await wake(read)


async def test_the_docs_of_a_stopped_service_are_its_own(
    tmp_path: Path, client: aiohttp.ClientSession
) -> None:
    """Its document byte for byte, its page, and on the portal one that calls the service."""
    async with running(tmp_path, {HOST: documented(tmp_path)}, portal=PORTAL) as daemon:
        read = Reading(client, daemon)
        unknown = await read("/openapi.json", HOST)
        await wake(read)

        assert (404, "docs-unknown") == unknown[:2]
        assert (tmp_path / "openapi.json").read_bytes() == (await read("/openapi.json", HOST))[2]
        assert b"<title>plain.localhost</title>" in (await read("/docs", HOST))[2]
        portal = json.loads((await read(f"{FOLDER}/documents/{HOST}"))[2])
        assert [{"url": f"http://{HOST}:{daemon.port}/v1"}] == portal["servers"]
        assert 1 == daemon.starts()


async def test_docs_survive_a_restart(tmp_path: Path, client: aiohttp.ClientSession) -> None:
    """Of autostart, also by kill -9; and a run that is adopted is read again."""
    async with running(tmp_path, {HOST: documented(tmp_path)}, portal=PORTAL) as daemon:
        read = Reading(client, daemon)
        await wake(read)
        daemon.kill()
        await daemon.start()
        kept = await read("/openapi.json", HOST)
        starts = daemon.starts()

        assert (200, (tmp_path / "openapi.json").read_bytes()) == (kept[0], kept[2])
        assert 1 == starts

        assert 200 == (await read("/echo", HOST))[0]
        daemon.kill()
        (tmp_path / "openapi.json").write_text(json.dumps({**DOCUMENT, "x-new": True}))
        await daemon.start()
        await read.until(f"{FOLDER}/documents/{HOST}", lambda body: b'"x-new":true' in body)


async def test_a_changed_document_is_known_after_the_next_start(
    tmp_path: Path, client: aiohttp.ClientSession
) -> None:
    """A broken one is not: the old one stays, with one warning."""
    file = tmp_path / "openapi.json"
    async with running(tmp_path, {HOST: documented(tmp_path)}, portal=PORTAL) as daemon:
        read = Reading(client, daemon)
        await wake(read)
        file.write_text(json.dumps({**DOCUMENT, "info": {"title": "Newer", "version": "2"}}))
        assert 200 == (await read("/echo", HOST))[0]
        await read.until(f"{FOLDER}/documents/{HOST}", lambda body: b"Newer" in body)
        assert 0 == (await daemon.run_cli("stop", HOST))[0]
        good = file.read_bytes()

        file.write_text("<!doctype html>")
        for count in (1, 1):
            assert 200 == (await read("/echo", HOST))[0]
            await daemon.wait_for_log("docs-unreadable", count=count)
            assert 0 == (await daemon.run_cli("stop", HOST))[0]
            await daemon.wait_for_state("stopped")

        assert good == (await read("/openapi.json", HOST))[2]
        complaints = [entry for entry in daemon.log() if entry["event"] == "docs-unreadable"]
        assert [("warning", HOST)] == [(entry["level"], entry["service"]) for entry in complaints]


async def test_reading_docs_keeps_nothing_up(tmp_path: Path, client: aiohttp.ClientSession) -> None:
    """Docs of a ready service come from it, and do not count as use: it falls asleep on time."""
    service = documented(tmp_path, idle="1500ms")
    async with running(tmp_path, {HOST: service}, portal=PORTAL) as daemon:
        read = Reading(client, daemon)
        assert 200 == (await read("/echo", HOST))[0]
        began = time.monotonic()
        reads = 0
        while ("ready", "stopping") not in daemon.transitions():
            for host in (HOST, PORTAL):
                assert (await read("/docs", host))[0] in {200, 404}
            await read.until_known()
            reads += 1
            assert time.monotonic() < began + 10, daemon.tail()
            await asyncio.sleep(0.05)

        assert reads > 10
        assert time.monotonic() - began < 4


async def test_a_slow_document_is_read_to_its_end(
    tmp_path: Path, client: aiohttp.ClientSession
) -> None:
    """The run is not stopped while it is read: the lease holds it, past its idle date."""
    service = {**documented(tmp_path, idle="500ms"), "docs": "/openapi.json?wait=2"}
    async with running(tmp_path, {HOST: service}, portal=PORTAL) as daemon:
        read = Reading(client, daemon)
        assert 200 == (await read("/echo", HOST))[0]
        await read.until_known()
        await daemon.wait_for_state("stopped")

        assert 1 == daemon.starts()
        assert [] == [entry for entry in daemon.log() if entry["event"] == "docs-unreadable"]


async def test_a_service_that_is_gone_loses_its_docs(
    tmp_path: Path, client: aiohttp.ClientSession
) -> None:
    """After a reload without it; one that gets docs by a reload while it is ready has them."""
    other = "other.localhost"
    services = {
        HOST: documented(tmp_path),
        other: plain("--openapi", str(tmp_path / "openapi.json")),
    }
    async with running(tmp_path, services, portal=PORTAL) as daemon:
        read = Reading(client, daemon)
        await wake(read)
        assert 200 == (await read("/echo", other))[0]
        assert ["plain.localhost.json"] == [each.name for each in (daemon.state / "docs").iterdir()]

        services[other]["docs"] = "/openapi.json"
        daemon.write_map({other: services[other]})
        assert 0 == (await daemon.run_cli("reload"))[0]
        await read.until_known(other)

        assert ["other.localhost.json"] == [each.name for each in (daemon.state / "docs").iterdir()]
        assert (404, "unknown-page") == (await read(f"{FOLDER}/documents/{HOST}"))[:2]


async def test_docs_are_behind_the_services_credentials(
    tmp_path: Path, client: aiohttp.ClientSession
) -> None:
    """On its own host; the portal shows the document to whoever reaches it, and no secret."""
    daemon = Daemon(
        tmp_path,
        {HOST: documented(tmp_path, access={"keys_env": "TEST_KEYS"})},
        portal=PORTAL,
    )
    daemon.environment["TEST_KEYS"] = "open-sesame"
    try:
        await daemon.start()
        read = Reading(client, daemon)
        key = {"Authorization": "Bearer open-sesame"}
        assert 200 == (await read("/echo", HOST, **key))[0]
        shown = await read.until_known()
        assert 0 == (await daemon.run_cli("stop", HOST))[0]
        await daemon.wait_for_state("stopped")

        for path in ("/docs", "/openapi.json", f"{FOLDER}/documents/{HOST}", f"{FOLDER}/portal.js"):
            assert (401, "unauthorized") == (await read(path, HOST))[:2]
            assert 200 == (await read(path, HOST, **key))[0]
        assert [{"autostart-key": []}] == json.loads(shown)["security"]
        assert b"sesame" not in shown
        assert b"TEST_KEYS" not in shown
        assert 1 == daemon.starts()
    finally:
        daemon.clean_up()


async def test_https_is_believed_from_the_trusted_proxy_alone(
    tmp_path: Path, client: aiohttp.ClientSession
) -> None:
    """nginx says so, and addresses have no port then; others are not listened to."""
    async with running(tmp_path, {HOST: documented(tmp_path)}, portal=PORTAL) as daemon:
        read = Reading(client, daemon)
        await wake(read)
        answers = {}
        for trusted in (True, False):
            networks = ["127.0.0.1/32"] if trusted else []
            daemon.write_map({HOST: documented(tmp_path)}, proxy={"trusted_proxies": networks})
            assert 0 == (await daemon.run_cli("reload"))[0]
            path = f"{FOLDER}/documents/{HOST}"
            headers = {"Host": PORTAL, "X-Forwarded-Proto": "https"}
            async with client.get(daemon.url + path, headers=headers) as response:
                answers[trusted] = json.loads(await response.read())["servers"][0]["url"]

        assert {True: f"https://{HOST}/v1", False: f"http://{HOST}/v1"} == answers


async def test_a_door_of_its_own_shows_the_docs(
    tmp_path: Path, client: aiohttp.ClientSession
) -> None:
    """Whatever Host header comes there, it is the service; and not the portal."""
    port = free_port()
    service = documented(tmp_path, listen=f"127.0.0.1:{port}")
    async with running(tmp_path, {HOST: service}, portal=PORTAL) as daemon:
        await wake(Reading(client, daemon))
        for host in (PORTAL, "127.0.0.1", "other.test:1"):
            found = {}
            for path in ("/docs", "/openapi.json", f"{FOLDER}/documents/{HOST}"):
                url = f"http://127.0.0.1:{port}{path}"
                async with client.get(url, headers={"Host": host}) as response:
                    found[path] = response.status, await response.read()
            assert {200} == {status for status, _ in found.values()}
            assert b'data-place="service"' in found["/docs"][1]
        assert 1 == daemon.starts()


async def test_the_admin_listener_has_no_portal(
    tmp_path: Path, client: aiohttp.ClientSession
) -> None:
    """Its OpenAPI document stays there, and the portal has none of it."""
    async with running(tmp_path, {HOST: documented(tmp_path)}, portal=PORTAL) as daemon:
        async with client.get(
            f"{daemon.admin_url}/", headers={"Host": f"{PORTAL}:{daemon.admin_port}"}
        ) as response:
            assert response.status in {403, 404}
        async with client.get(f"{daemon.admin_url}/openapi.json") as response:
            admin = await response.json()
        _, _, listed = await Reading(client, daemon)(f"{FOLDER}/services.json")

        assert "/api/services" in admin["paths"]
        assert [HOST] == [service["host"] for service in json.loads(listed)["services"]]


async def test_a_document_that_is_too_large_is_not_taken(
    tmp_path: Path, client: aiohttp.ClientSession
) -> None:
    """Beyond 5 MB nothing is kept of it; the log says so."""
    service = {**documented(tmp_path), "docs": "/bytes?size=5000001"}
    async with running(tmp_path, {HOST: service}, portal=PORTAL) as daemon:
        assert 200 == (await Reading(client, daemon)("/echo", HOST))[0]
        await daemon.wait_for_log("docs-unreadable")

        complaint = next(entry for entry in daemon.log() if entry["event"] == "docs-unreadable")
        assert "more than 5000000 bytes" in complaint["reason"]
        assert not (daemon.state / "docs").exists()
