"""autostart/dashboard: what is served, to whom, and under which policy."""

from __future__ import annotations

import re

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from autostart import dashboard
from autostart.dashboard.page import PAGE, read_assets, wants_page

BROWSER = {"Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}


async def index(_: web.Request) -> web.Response:
    return web.Response(text="the list of calls")


@web.middleware
async def locked(request: web.Request, handler: object) -> web.StreamResponse:
    raise web.HTTPForbidden


@pytest.fixture
async def client():
    application = web.Application()
    application.router.add_get("/", index)
    dashboard.add_to(application)
    async with TestClient(TestServer(application)) as client:
        yield client


async def test_browsers_get_the_page_and_programs_the_list(client) -> None:
    """One address, by what is asked for."""
    page = await client.get("/", headers=BROWSER)
    listed = await client.get("/", headers={"Accept": "*/*"})

    assert ("text/html", "utf-8", "Accept") == (
        page.content_type,
        page.charset,
        page.headers["Vary"],
    )
    assert "the list of calls" == await listed.text()


async def test_the_page_is_there_before_the_login() -> None:
    """It holds no data, so it is answered where everything else is refused."""
    application = web.Application(middlewares=[locked])
    application.router.add_get("/", index)
    dashboard.add_to(application)
    async with TestClient(TestServer(application)) as client:
        assert 200 == (await client.get("/", headers=BROWSER)).status
        assert 200 == (await client.get("/dashboard/main.js")).status
        assert 403 == (await client.get("/")).status
        assert 403 == (await client.post("/", headers=BROWSER)).status
        assert 403 == (await client.get("/dashboard/nosuch.js")).status


async def test_every_part_that_is_named_is_served(client) -> None:
    """What the page, the modules and the style sheet ask for is there."""
    assets = read_assets()
    named = set(re.findall(r'(?:href|src)="dashboard/([^"]+)"', assets[PAGE].content.decode()))
    for name, asset in assets.items():
        if name.endswith(".js"):
            named |= set(re.findall(r'from "\./([^"]+)"', asset.content.decode()))
    answers = {name: (await client.get(f"/dashboard/{name}")).status for name in named}

    assert set(assets) - {PAGE} == named
    assert {200} == set(answers.values())


async def test_types_are_told_and_not_guessed(client) -> None:
    """A browser runs a module only under its type."""
    told = {
        name: (await client.get(f"/dashboard/{name}")).content_type
        for name in ("main.js", "style.css", "icon.svg")
    }

    assert {
        "main.js": "text/javascript",
        "style.css": "text/css",
        "icon.svg": "image/svg+xml",
    } == told


async def test_what_the_browser_has_is_not_sent_again(client) -> None:
    """It asks each time, and is told that nothing has changed."""
    first = await client.get("/dashboard/main.js")
    tag = first.headers["ETag"]
    again = await client.get("/dashboard/main.js", headers={"If-None-Match": f'"x", {tag}'})
    other = await client.get("/dashboard/main.js", headers={"If-None-Match": '"x"'})

    assert "no-cache" == first.headers["Cache-Control"]
    assert (304, b"", tag) == (again.status, await again.read(), again.headers["ETag"])
    assert 200 == other.status


async def test_only_our_own_files_run_and_only_we_are_asked(client) -> None:
    """The policy is the second lock after text that is never taken for HTML."""
    policy = (await client.get("/", headers=BROWSER)).headers["Content-Security-Policy"]

    assert [
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "connect-src 'self'",
        "img-src 'self' data:",
        "frame-ancestors 'none'",
        "base-uri 'none'",
        "form-action 'none'",
        "require-trusted-types-for 'script'",
    ] == policy.split("; ")


@pytest.mark.parametrize(
    "path", ["index.html", "", "page.py", "../page.py", "%2e%2e/page.py", "main.js/", "x/main.js"]
)
async def test_nothing_else_is_served(client, path: str) -> None:
    """Assets are known by name; there is no path to walk."""
    assert 404 == (await client.get(f"/dashboard/{path}")).status


def test_no_part_writes_markup_or_asks_elsewhere() -> None:
    """Text is set as text, and every address is relative: the page works below any prefix."""
    forbidden = re.compile(
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function"
        r"|https?://(?!www\.w3\.org/2000/svg)|[\"'`(]/(?:api|dashboard|login)"
    )
    found = {
        name: forbidden.findall(asset.content.decode())
        for name, asset in read_assets().items()
        if forbidden.search(asset.content.decode())
    }

    assert {} == found


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        (BROWSER["Accept"], True),
        ("text/html", True),
        ("application/json, Text/HTML;q=0.9", True),
        ("*/*", False),
        ("", False),
        ("text/plain", False),
        ("application/json", False),
    ],
)
def test_a_browser_is_known_by_what_it_accepts(accept: str, expected: bool) -> None:
    """Those that load a page name its type."""
    assert expected is wants_page(accept)
