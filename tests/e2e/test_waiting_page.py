"""Who gets the waiting page, what it says, and the events that it follows; black box."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.daemon import HOST, Daemon, plain, running

OTHER = "other.localhost"
EVENTS = "/.autostart/events"
CHROMIUM = {
    "Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
    "Sec-Fetch-Mode": "navigate",
    "Sec-Fetch-Dest": "document",
    "Sec-Fetch-Site": "none",
    "Sec-Fetch-User": "?1",
    "Upgrade-Insecure-Requests": "1",
}
# What Chromium sends to another machine over plain HTTP, and older browsers everywhere.
OLDER = {"Accept": CHROMIUM["Accept"], "Upgrade-Insecure-Requests": "1"}


def page_service(*options: str, **keys: Any) -> dict[str, Any]:
    return plain(*options, mode="page", **keys)


def get(
    client: aiohttp.ClientSession, daemon: Daemon, path: str = "/", *, host: str = HOST, **sent: Any
) -> Any:
    """Return the request's context; `method` and headers by name."""
    method = sent.pop("method", "GET")
    headers = {"Host": host, **sent.pop("headers", {})}
    return client.request(method, daemon.url + path, headers=headers, **sent)


class Followed:
    """The events of one stream."""

    def __init__(self, answer: aiohttp.ClientResponse) -> None:
        self.answer = answer
        self.told: list[dict[str, Any]] = []

    async def next(self) -> dict[str, Any] | None:
        """Return the next status; None where the stream ends."""
        lines: list[str] = []
        async with asyncio.timeout(20):
            async for raw in self.answer.content:
                line = raw.decode().rstrip("\n")
                if line:
                    lines.append(line)
                elif "event: status" in lines:
                    self.told.append(json.loads(lines[-1].removeprefix("data: ")))
                    return self.told[-1]
                else:
                    lines = []
        return None

    async def until(self, state: str, phase: str | None = None) -> dict[str, Any]:
        while (status := await self.next()) is not None:
            if (status["state"], status["phase"]) == (state, phase):
                return status
        raise AssertionError(f"the stream ended before {state}: {self.told}")

    @property
    def places(self) -> list[tuple[str, str | None]]:
        return [(status["state"], status["phase"]) for status in self.told]


@contextlib.asynccontextmanager
async def following(
    client: aiohttp.ClientSession, daemon: Daemon, host: str = HOST, **headers: str
) -> AsyncIterator[Followed]:
    async with get(client, daemon, EVENTS, host=host, headers=headers) as answer:
        assert 200 == answer.status, await answer.text()
        yield Followed(answer)


# Who gets it.


@pytest.mark.parametrize("headers", [CHROMIUM, OLDER], ids=["chromium", "older"])
async def test_browser_gets_the_page_at_once(
    tmp_path: Path, client: aiohttp.ClientSession, headers: dict[str, str]
) -> None:
    """While a service needs seconds: 503 with Retry-After, never cached, and the service starts."""
    service = page_service("--ready-after", "5", name="Files")
    async with running(tmp_path, {HOST: service}) as daemon:
        began = time.monotonic()
        async with get(client, daemon, "/a?b=c", headers=headers) as answer:
            page = await answer.text()
            seconds = time.monotonic() - began
        sent = dict(answer.headers)

        assert 503 == answer.status
        assert seconds < 1
        assert {
            "Cache-Control": "no-store",
            "Autostart-Error": "starting",
            "Retry-After": "5",
            "Content-Type": "text/html; charset=utf-8",
            "Content-Length": str(len(page.encode())),
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "same-origin",
        } == {
            name: content
            for name, content in sent.items()
            if name not in {"Date", "X-Request-ID", "Content-Security-Policy"}
        }
        assert sent["Content-Security-Policy"].startswith("default-src 'none'; style-src 'sha256-")
        assert "Files" in page
        assert [("stopped", "starting")] == daemon.transitions()


HELD = {
    "curl": {"Accept": "*/*", "User-Agent": "curl/8.5.0"},
    "openai": {"Accept": "application/json", "User-Agent": "OpenAI/Python 2.0"},
    "wget": {"Accept": "*/*", "User-Agent": "Wget/1.21"},
    "no accept": {"Accept": ""},
    "fetch": {**CHROMIUM, "Sec-Fetch-Mode": "cors", "Sec-Fetch-Dest": "empty"},
    "fetch of html": {"Accept": "text/html", "Sec-Fetch-Mode": "same-origin"},
    "script": {"Accept": "*/*", "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "script"},
    "jquery": {"Accept": "text/html, */*; q=0.01", "X-Requested-With": "XMLHttpRequest"},
    "older fetch of another site": {**OLDER, "Origin": "https://portal.example.com"},
    "frame": {**CHROMIUM, "Sec-Fetch-Dest": "iframe"},
    "json first": {"Accept": "application/json, text/html"},
}


async def test_programs_are_held_and_served(tmp_path: Path, client: aiohttp.ClientSession) -> None:
    """Who does not navigate never sees the page: one start, and the service's own answer to all."""
    service = page_service("--ready-after", "1")
    async with running(tmp_path, {HOST: service}) as daemon:

        async def ask(method: str, headers: dict[str, str]) -> tuple[int, str | None, str]:
            async with get(client, daemon, "/x", method=method, headers=headers) as answer:
                text = await answer.text()
                code = answer.headers.get("Autostart-Error")
                return answer.status, code, text.split()[0] if text else ""

        asked = [ask("GET", headers) for headers in HELD.values()]
        asked += [ask(method, CHROMIUM) for method in ("POST", "PUT", "PATCH", "DELETE")]
        answers = await asyncio.gather(*asked)

        assert [(200, None, "plain")] * len(asked) == list(answers)
        assert 1 == daemon.starts()


@pytest.mark.parametrize(
    ("path", "method", "headers", "expected"),
    [
        ("/favicon.ico", "GET", CHROMIUM, (404, "ignored-path")),
        ("/", "HEAD", CHROMIUM, (403, "wake-refused")),
        ("/", "GET", {**CHROMIUM, "User-Agent": "UptimeRobot/2"}, (403, "wake-refused")),
        ("/", "GET", {**CHROMIUM, "Sec-Purpose": "prefetch"}, (403, "wake-refused")),
        ("/", "GET", {**CHROMIUM, "Sec-Purpose": "prefetch;prerender"}, (403, "wake-refused")),
        ("/", "GET", {**OLDER, "Purpose": "prefetch"}, (403, "wake-refused")),
        ("/health", "GET", CHROMIUM, (200, "asleep")),
        (EVENTS, "GET", CHROMIUM, (401, "unauthorized")),
        ("/", "GET", CHROMIUM, (401, "unauthorized")),
    ],
)
async def test_who_may_not_wake_gets_no_page(
    tmp_path: Path,
    client: aiohttp.ClientSession,
    path: str,
    method: str,
    headers: dict[str, str],
    expected: tuple[int, str],
) -> None:
    """The answer is as in mode hold, also for a browser, and nothing starts."""
    keys: dict[str, Any] = {
        "wake": {"ignore_agents": ["UptimeRobot*"]},
        "asleep": {"/health": 200},
    }
    if expected[0] == 401:
        keys["access"] = {"keys_env": "NOBODY_SET_THIS"}
    async with running(tmp_path, {HOST: page_service(**keys)}) as daemon:
        async with get(client, daemon, path, method=method, headers=headers) as answer:
            page = await answer.text()

        assert expected == (answer.status, answer.headers["Autostart-Error"])
        assert "data-autostart" not in page
        assert [] == daemon.transitions()


async def test_head_that_may_wake_gets_no_page(
    tmp_path: Path, client: aiohttp.ClientSession
) -> None:
    """It is held, and answered by the service."""
    service = page_service(wake={"methods": ["GET", "HEAD"]})
    async with running(tmp_path, {HOST: service}) as daemon:
        async with get(client, daemon, method="HEAD", headers=CHROMIUM) as answer:
            assert (200, "") == (answer.status, await answer.text())


async def test_ready_service_answers_itself(tmp_path: Path, client: aiohttp.ClientSession) -> None:
    """The page is only for the time before; a browser in mode hold never gets it."""
    services = {HOST: page_service(), OTHER: plain()}
    async with running(tmp_path, services) as daemon:
        async with get(client, daemon) as first:
            assert 200 == first.status
        async with get(client, daemon, headers=CHROMIUM) as answer:
            assert (200, None) == (answer.status, answer.headers.get("Autostart-Error"))
        async with get(client, daemon, host=OTHER, headers=CHROMIUM) as held:
            assert 200 == held.status


async def test_page_says_what_stands_in_the_way(
    tmp_path: Path, client: aiohttp.ClientSession
) -> None:
    """The reason of a failed start and the rest of its back-off; that the operator holds it."""
    broken = tmp_path / "broken"
    broken.touch()
    async with running(tmp_path, {HOST: page_service("--exit-if-file", str(broken))}) as daemon:

        async def ask(language: str) -> tuple[int, str, int, str]:
            headers = {**CHROMIUM, "Accept-Language": language}
            async with get(client, daemon, headers=headers) as answer:
                code, retry = (answer.headers[name] for name in ("Autostart-Error", "Retry-After"))
                return answer.status, code, int(retry), await answer.text()

        await ask("en")
        await daemon.wait_for_state("failed")
        status, code, retry, page = await ask("fr-FR,fr;q=0.9,en;q=0.8")

        assert (503, "backing-off") == (status, code)
        assert 1 <= retry <= 5
        assert '<html lang="fr" data-situation="failed">' in page
        assert "Le démarrage a échoué" in page
        assert "Prochain essai dans" in page
        assert "exiting because" not in page  # what it printed is its operator's

        assert 0 == (await daemon.run_cli("stop", HOST, "--hold"))[0]
        status, code, retry, page = await ask("en")
        assert (503, "held", 120) == (status, code, retry)
        assert '<html lang="en" data-situation="held">' in page
        assert '<meta http-equiv="refresh" content="5; url=./">' in page


# The events.


async def test_events_tell_every_step_in_order(
    tmp_path: Path, client: aiohttp.ClientSession
) -> None:
    """From sleep to sleep; who follows neither wakes the service nor keeps it up."""
    service = page_service("--ready-after", "0.4", idle="500ms", name="Files")
    async with running(tmp_path, {HOST: service}) as daemon:
        async with following(client, daemon) as followed:
            first = await followed.next()
            assert [] == daemon.transitions()
            assert {
                "host": HOST,
                "name": "Files",
                "state": "stopped",
                "phase": None,
                "elapsed_seconds": None,
                "usual_start_seconds": None,
                "failure": None,
                "retry_in_seconds": None,
            } == first
            async with get(client, daemon, headers=CHROMIUM) as answer:
                assert 503 == answer.status
            ready = await followed.until("ready")
            await followed.until("stopped")

            assert [
                ("stopped", None),
                ("starting", "starting"),
                ("starting", "loading"),
                ("ready", None),
                ("stopping", "stopping"),
                ("stopped", None),
            ] == followed.places
            assert 0.4 < ready["usual_start_seconds"] < 3
            async with get(client, daemon, "/.autostart/status") as status:
                assert followed.told[-1] == await status.json()
            assert "text/event-stream" == followed.answer.headers["Content-Type"]
            assert "no-store" == followed.answer.headers["Cache-Control"]
            assert "no" == followed.answer.headers["X-Accel-Buffering"]


async def test_events_reach_an_http_1_0_client(
    tmp_path: Path, client: aiohttp.ClientSession
) -> None:
    """As nginx is without proxy_http_version: no chunks, the end of the connection is the end."""
    async with running(tmp_path, {HOST: page_service()}) as daemon:
        reader, writer = await asyncio.open_connection("127.0.0.1", daemon.port)
        writer.write(f"GET {EVENTS} HTTP/1.0\r\nHost: {HOST}\r\n\r\n".encode())
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
        first = await asyncio.wait_for(reader.readuntil(b"}\n\n"), 10)
        daemon.terminate()
        rest = await asyncio.wait_for(reader.read(), 10)
        writer.close()

        assert b"\r\nConnection: close\r\n" in head
        assert b"chunked" not in head
        assert first.startswith(b"retry: 2000\n\nevent: status\ndata: {")
        assert b"" == rest


async def test_head_of_the_events_ends(tmp_path: Path, client: aiohttp.ClientSession) -> None:
    """HEAD gets the head, and nothing is followed."""
    async with running(tmp_path, {HOST: page_service()}) as daemon:
        async with get(client, daemon, EVENTS, method="HEAD") as answer:
            assert (200, "") == (answer.status, await answer.text())
        assert [] == daemon.transitions()


async def test_events_need_the_key_of_the_service(
    tmp_path: Path, client: aiohttp.ClientSession
) -> None:
    """They are behind access, and readable by pages of the origins in cors."""
    origin = "https://portal.example.com"
    service = page_service(access={"keys_env": "TEST_KEYS"}, cors=[origin])
    daemon = Daemon(tmp_path, {HOST: service})
    daemon.environment["TEST_KEYS"] = "sesame"
    try:
        await daemon.start()
        async with get(client, daemon, EVENTS) as refused:
            assert 401 == refused.status
        headers = {"Authorization": "Bearer sesame", "Origin": origin}
        async with following(client, daemon, **headers) as followed:
            assert "stopped" == (await followed.next() or {})["state"]
            assert origin == followed.answer.headers["Access-Control-Allow-Origin"]
        assert [] == daemon.transitions()
    finally:
        daemon.clean_up()


async def test_so_many_follow_one_service_and_no_more(
    tmp_path: Path, client: aiohttp.ClientSession
) -> None:
    """256 are told everything; the next is refused until one of them leaves."""
    services = {HOST: page_service("--ready-after", "1"), OTHER: page_service()}
    async with running(tmp_path, services) as daemon:
        async with contextlib.AsyncExitStack() as stack:
            crowd = [await stack.enter_async_context(following(client, daemon)) for _ in range(256)]
            async with get(client, daemon, EVENTS) as refused:
                await refused.read()
            assert (503, "queue-full") == (refused.status, refused.headers["Autostart-Error"])
            assert "5" == refused.headers["Retry-After"]
            async with following(client, daemon, OTHER) as other:
                assert await other.next()

            async with get(client, daemon, headers=CHROMIUM) as page:
                assert 503 == page.status
            await asyncio.gather(*(each.until("ready") for each in crowd))
            expected = [
                ("stopped", None),
                ("starting", "starting"),
                ("starting", "loading"),
                ("ready", None),
            ]
            assert all(expected == each.places for each in crowd)

            crowd[0].answer.close()
            async with asyncio.timeout(10):
                while True:
                    async with get(client, daemon, EVENTS) as again:
                        if again.status == 200:
                            break
                    await asyncio.sleep(0.02)
        assert 200 == again.status


async def test_streams_do_not_delay_the_end(tmp_path: Path, client: aiohttp.ClientSession) -> None:
    """At SIGTERM a hundred streams end as they should, long before drain_timeout."""
    async with (
        running(tmp_path, {HOST: page_service()}, proxy={"drain_timeout": "20s"}) as daemon,
        contextlib.AsyncExitStack() as stack,
    ):
        crowd = [await stack.enter_async_context(following(client, daemon)) for _ in range(100)]
        for each in crowd:
            await each.next()
        began = time.monotonic()
        status = await asyncio.to_thread(daemon.terminate)
        seconds = time.monotonic() - began

        assert 0 == status
        assert seconds < 5
        # A whole chunked body, not a connection that broke.
        assert [None] * 100 == [await each.next() for each in crowd]


async def test_stream_of_a_removed_service_ends(
    tmp_path: Path, client: aiohttp.ClientSession
) -> None:
    """A reload without it lets who follows go."""
    services = {HOST: page_service(), OTHER: page_service()}
    async with running(tmp_path, services) as daemon:
        async with following(client, daemon) as gone, following(client, daemon, OTHER) as kept:
            await gone.next()
            await kept.next()
            daemon.write_map({OTHER: services[OTHER]})
            assert 0 == (await daemon.run_cli("reload"))[0]

            assert await gone.next() is None
            assert 0 == (await daemon.run_cli("start", OTHER))[0]
            assert await kept.until("ready")


async def test_streams_are_no_slow_requests(tmp_path: Path, client: aiohttp.ClientSession) -> None:
    """They are in no count of requests: each would last minutes and end with a client that left."""
    async with running(tmp_path, {HOST: page_service()}) as daemon:
        async with following(client, daemon) as followed:
            await followed.next()
        async with get(client, daemon, "/.autostart/status") as status:
            assert 200 == status.status
        async with client.get(f"{daemon.admin_url}/metrics") as metrics:
            counted = [
                line
                for line in (await metrics.text()).splitlines()
                if line.startswith("autostart_requests_total{") and HOST in line
            ]

        assert 1 == len(counted)
        assert 'status="2xx"' in counted[0]


# Those who share a place.


async def test_two_who_wait_for_one_place_are_both_served(
    tmp_path: Path, client: aiohttp.ClientSession
) -> None:
    """Each of two browsers arrives, after one start of each service; following evicts nobody."""
    services = {
        host: page_service("--ready-after", "0.5", exclusive="gpu0") for host in (HOST, OTHER)
    }
    async with running(tmp_path, services) as daemon:

        async def visit(host: str) -> int:
            """As the page's script does."""
            pages = 0
            while True:
                async with get(client, daemon, host=host, headers=CHROMIUM) as answer:
                    if answer.status == 200:
                        return pages
                pages += 1
                async with following(client, daemon, host) as followed:
                    await followed.until("ready")

        async with asyncio.timeout(30):
            pages = await asyncio.gather(visit(HOST), visit(OTHER))

        assert [1, 1] == pages
        assert [1, 1] == [daemon.starts(HOST), daemon.starts(OTHER)]


# An operator's own.


async def test_own_page_replaces_ours(tmp_path: Path, client: aiohttp.ClientSession) -> None:
    """As its file is at each request; one that does not work is warned of once, and left aside."""
    own = tmp_path / "own.html"
    own.write_text("<p>{{ name }} is {{ situation }}</p>{{ script }}")
    service = page_service("--ready-after", "8", name="Files", waiting_page="own.html")
    async with running(tmp_path, {HOST: service}) as daemon:

        async def ask() -> tuple[str, str | None]:
            async with get(client, daemon, headers=CHROMIUM) as answer:
                assert (503, "starting") == (answer.status, answer.headers["Autostart-Error"])
                return await answer.text(), answer.headers.get("Content-Security-Policy")

        page, policy = await ask()
        assert page.startswith(("<p>Files is starting</p>", "<p>Files is loading</p>"))
        assert "EventSource" in page
        assert policy is None
        code, text = await daemon.run_cli("check")
        assert (0, False) == (code, "waiting_page" in text)

        own.write_text("<p>\n{{ nmae }}</p>")
        pages = [await ask() for _ in range(3)]
        assert all("data-autostart" in page and policy for page, policy in pages)
        warned = [entry for entry in daemon.log() if entry["event"] == "waiting-page-unusable"]
        reason = f"{own}:2: 'nmae' is undefined"
        assert [(reason, HOST)] == [(each["reason"], each["service"]) for each in warned]
        code, text = await daemon.run_cli("check")
        assert 0 == code
        assert f"warning: services.{HOST}.waiting_page: {reason}; browsers get" in text

        own.unlink()
        page, policy = await ask()
        assert "data-autostart" in page
        own.write_text("works again")
        assert ("works again", None) == await ask()
