"""autostart/portal: what is answered to whom, from what is known."""

from __future__ import annotations

import gzip
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from autostart.admission import Admission
from autostart.config import Access, Map, ServiceConfig
from autostart.errors import DocsUnknown, IgnoredPath, UnknownPage
from autostart.lifecycle import Endpoint, Service, State
from autostart.portal import FOLDER, Origin, Page, Portal, Reader
from autostart.portal.cache import Cache

PORTAL = "portal.example.com"
A = ServiceConfig(
    host="a.example.com",
    name="Service A",
    docs="/openapi.json",
    cors=(f"https://{PORTAL}",),
    access=Access(keys_env="KEYS"),
)
B = ServiceConfig(host="*.b.example.com", docs="/v2/openapi.json", cors=("*",))
C = ServiceConfig(host="c.example.com")
DOCUMENT = b'{"openapi": "3.1.0", "info": {"title": "A"}}'
UNKNOWN = DocsUnknown("unknown")


class Granted:
    endpoint = Endpoint("127.0.0.1", 8001, "run-1")


@asynccontextmanager
async def lease(host: str, admission: Admission, about: str) -> AsyncIterator[Granted]:
    """Refuse: no service here is ever ready."""
    assert admission.otherwise is not None
    raise admission.otherwise
    yield Granted()


async def read_nothing(endpoint: Endpoint, service: ServiceConfig, host: str) -> bytes:
    raise AssertionError(service)


def a_map(*services: ServiceConfig) -> Map:
    return Map(
        path=Path("/map.yaml"), portal=PORTAL, services={each.host: each for each in services}
    )


def reader(path: str, host: str = PORTAL, **more: Any) -> Reader:
    return Reader(path=path, host=host, origin=Origin("https"), **more)


@pytest.fixture
async def portal(tmp_path: Path) -> AsyncIterator[Portal]:
    """A portal of A, B and C, of which only A's document is known."""
    Cache(_folder(tmp_path)).write(A.host, DOCUMENT)
    standing = {A.host: Service(A, state=State.READY, usual_start_seconds=12.0)}
    made = Portal(tmp_path, lease=lease, read=read_nothing, snapshot=lambda: standing)
    made.declare(a_map(A, B, C))
    yield made
    await made.close()


def _folder(state: Path) -> Path:
    folder = state / "docs"
    folder.mkdir(exist_ok=True)
    return folder


async def services_of(portal: Portal, host: str = PORTAL) -> dict[str, dict[str, Any]]:
    page = await portal.read(reader(f"{FOLDER}services.json", host))
    return {service["host"]: service for service in json.loads(page.body)["services"]}


@pytest.mark.parametrize("path", ["/", "/api", "/api/"])
async def test_the_page_is_at_the_addresses_of_the_guide(portal, path):
    """The same page at each."""
    page = await portal.read(reader(path))

    assert "text/html; charset=utf-8" == page.content_type
    assert b'data-place="portal"' in page.body


@pytest.mark.parametrize(
    "path",
    [
        "/docs",
        "/openapi.json",
        "/api/x",
        "/index.html",
        "/.autostart/docs",
        "/.autostart/status",
        "/.autostart/wake",
        f"{FOLDER}",
        f"{FOLDER}portal.html",
        f"{FOLDER}../../../../etc/passwd",
        f"{FOLDER}documents/",
        f"{FOLDER}documents/c.example.com",
        f"{FOLDER}documents/unknown.example.com",
        f"{FOLDER}documents/../a.example.com",
        f"{FOLDER}site/portal.js",
    ],
)
async def test_nothing_else_is_there(portal, path):
    """The portal has no other page, and no way out of its folder."""
    with pytest.raises(UnknownPage):
        await portal.read(reader(path))


async def test_the_page_may_load_nothing_foreign(portal):
    """Scripts and styles are ours alone; what may be called is listed, service by service."""
    page = await portal.read(reader("/"))

    policy = dict(
        rule.split(" ", 1) for rule in page.headers["Content-Security-Policy"].split("; ")
    )
    assert {"default-src": "'none'", "script-src": "'self'", "style-src": "'self'"}.items() <= (
        policy.items()
    )
    calls = "connect-src 'self' https://a.example.com https://*.b.example.com"
    assert calls.replace("'", "&#x27;").encode() in page.body
    assert "unsafe" not in page.headers["Content-Security-Policy"]


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("swagger-ui-bundle.js", "text/javascript; charset=utf-8"),
        ("swagger-ui.css", "text/css; charset=utf-8"),
        ("portal.js", "text/javascript; charset=utf-8"),
        ("portal.css", "text/css; charset=utf-8"),
        ("favicon-32x32.png", "image/png"),
    ],
)
async def test_every_file_of_the_page_is_ours(portal, name, kind):
    """It comes from this machine, named in the page with its version, compressed for who can."""
    page = await portal.read(reader("/"))
    plain = await portal.read(reader(FOLDER + name))
    packed = await portal.read(reader(FOLDER + name, takes_gzip=True))

    assert name.endswith(".png") or f'"{FOLDER}{name}?'.encode() in page.body
    assert (kind, True) == (plain.content_type, "immutable" in plain.cache)
    if packed.headers.get("Content-Encoding") == "gzip":
        assert len(packed.body) < len(plain.body)
        assert plain.body == gzip.decompress(packed.body)
    else:
        assert plain.body == packed.body


async def test_the_list_says_what_a_page_of_its_origin_may_do(portal):
    """C has no docs and is not shown; only where the portal is named may logins be sent."""
    found = await services_of(portal)

    assert ["a.example.com", "*.b.example.com"] == list(found)
    a, b = found.values()
    assert ("Service A", "https://a.example.com", "ready", 12.0) == (
        a["name"],
        a["origin"],
        a["state"],
        a["usual_start_seconds"],
    )
    assert (True, True, True, False) == (a["may_call"], a["may_log_in"], a["keys"], a["logins"])
    assert ("stopped", True, False) == (b["state"], b["may_call"], b["may_log_in"])
    assert a["fetched_at"]
    assert b["fetched_at"] is b["version"] is None
    elsewhere = await services_of(portal, "other.example.com")
    assert (False, False) == (
        elsewhere[A.host]["may_call"],
        elsewhere[A.host]["may_log_in"],
    )


async def test_a_document_is_shown_with_the_services_own_address(portal):
    """On the portal the host of the service, on the service's host the one that was asked."""
    there = await portal.read(reader(f"{FOLDER}documents/{A.host}"))
    here = await portal.read_beside(A, reader(f"{FOLDER}documents/{A.host}", "alias.test"))

    assert [["https://a.example.com"], ["https://alias.test"]] == [
        [server["url"] for server in json.loads(page.body)["servers"]] for page in (there, here)
    ]


async def test_an_unknown_document_is_said_to_be_unknown(portal):
    """With an error of its own, not as if there were no such service."""
    with pytest.raises(DocsUnknown):
        await portal.read(reader(f"{FOLDER}documents/{B.host}"))


async def test_a_services_host_shows_only_its_own(portal):
    """Neither the list nor the documents of the others."""
    listed = await portal.read_beside(A, reader(f"{FOLDER}services.json", A.host))

    assert [A.host] == [service["host"] for service in json.loads(listed.body)["services"]]
    for path in (f"{FOLDER}documents/{B.host}", f"{FOLDER}x"):
        with pytest.raises(UnknownPage):
            await portal.read_beside(A, reader(path, A.host))


@pytest.mark.parametrize("path", ["/openapi.json", "/openapi.json/"])
async def test_a_stopped_service_gives_its_document_as_it_was(portal, path):
    """Byte for byte what it answered when it was asked last."""
    page = await portal.read_instead(A, reader(path, A.host), UNKNOWN)

    assert (DOCUMENT, "application/json") == (page.body, page.content_type)
    assert "Autostart-Docs" in page.headers


async def test_a_document_whose_file_is_gone_is_still_shown(portal, tmp_path):
    """From what is in memory."""
    Cache(tmp_path / "docs").path(A.host).unlink()

    page = await portal.read_instead(A, reader("/openapi.json", A.host), UNKNOWN)

    assert {"title": "A"} == json.loads(page.body)["info"]


async def test_a_stopped_service_that_nobody_knows_says_so(portal):
    """The document is refused as admission had it; the page is there and offers a start."""
    with pytest.raises(DocsUnknown) as refused:
        await portal.read_instead(B, reader("/v2/openapi.json", "x.b.example.com"), UNKNOWN)
    page = await portal.read_instead(B, reader("/docs", "x.b.example.com"), UNKNOWN)

    assert UNKNOWN == refused.value
    assert b'data-place="service"' in page.body


@pytest.mark.parametrize("path", ["/docs", "/docs/"])
async def test_a_stopped_service_has_its_page(portal, path):
    """It may call its own host only."""
    page = await portal.read_instead(A, reader(path, A.host), UNKNOWN)

    assert b"<title>Service A</title>" in page.body
    assert b'connect-src &#x27;self&#x27;"' in page.body


async def test_a_services_own_page_keeps_its_files(portal):
    """What it loads is there when the service stops between two requests, and nothing else."""
    style = await portal.read_instead(A, reader("/docs/swagger-ui.css", A.host), UNKNOWN)

    assert ("text/css; charset=utf-8", "") == (style.content_type, style.cache)
    with pytest.raises(IgnoredPath):
        await portal.read_instead(A, reader("/docs/oauth2-redirect", A.host), UNKNOWN)


async def test_a_new_map_forgets_what_it_does_not_have(portal, tmp_path):
    """The documents of services that are gone, or have no docs any more."""
    portal.declare(a_map(B, replace(A, docs=None)))

    assert [B.host] == list(await services_of(portal))
    assert [] == list((tmp_path / "docs").iterdir())


async def test_a_new_map_changes_what_is_asked_for(portal):
    """Access is of the map, not of the document."""
    portal.declare(a_map(replace(A, access=None)))

    page = await portal.read(reader(f"{FOLDER}documents/{A.host}"))

    assert "security" not in json.loads(page.body)


async def test_a_broken_file_is_forgotten_with_a_warning(tmp_path):
    """It is no failure: the next start brings a new one."""
    Cache(_folder(tmp_path)).write(A.host, b"{")
    made = Portal(tmp_path, lease=lease, read=read_nothing, snapshot=dict)

    with capture_logs() as logged:
        made.declare(a_map(A))

    assert [("docs-unreadable", A.host)] == [(line["event"], line["service"]) for line in logged]
    with pytest.raises(DocsUnknown):
        await made.read(reader(f"{FOLDER}documents/{A.host}"))
    await made.close()


async def test_a_title_is_only_text(portal):
    """A name of the map that looks like HTML, or like a word of our template, is shown as it is."""
    strange = replace(A, name="<script>{{calls}}</script>")

    page: Page = await portal.read_instead(strange, reader("/docs", A.host), UNKNOWN)

    assert b"<title>&lt;script&gt;{{calls}}&lt;/script&gt;</title>" in page.body
