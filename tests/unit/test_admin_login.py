"""Who may use the admin listener from a browser: login, sessions, pages of other ports."""

from __future__ import annotations

from typing import Any

import pytest
from aiohttp import ClientResponse
from multidict import CIMultiDict

from autostart.admin.attempts import SECONDS_EACH, WRONG_MAX
from autostart.admin.guard import read_cookie
from autostart.admin.sessions import RENEW_SECONDS, UNUSED_SECONDS_MAX
from tests.fakes.fleet import Fleet, operated

TOKEN = "sesame"
# What a browser sends along with a request of a page of the listener itself.
OURS = {"Sec-Fetch-Site": "same-origin", "Sec-Fetch-Mode": "cors", "Sec-Fetch-Dest": "empty"}
FORM = "application/x-www-form-urlencoded"


async def log_in(fleet: Fleet, token: str = TOKEN, **headers: str) -> ClientResponse:
    return await fleet.client.post("/login", json={"token": token}, headers=headers)


async def session(fleet: Fleet, **headers: str) -> str:
    """Return the Cookie header of a browser that has logged in."""
    response = await log_in(fleet, **headers)
    assert 200 == response.status
    return response.headers["Set-Cookie"].partition(";")[0]


async def status(fleet: Fleet, method: str, path: str, **headers: str) -> int:
    fleet.client.session.cookie_jar.clear()
    return (await fleet.client.request(method, path, headers=headers)).status


async def code(response: ClientResponse) -> str:
    return str((await response.json())["error"]["code"])


# Logging in.


@pytest.mark.parametrize("said", [{"json": {"token": TOKEN}}, {"data": {"token": f" {TOKEN}\n"}}])
async def test_the_token_opens_a_session(said: dict[str, Any]) -> None:
    """In JSON or in a form; the cookie is out of reach of scripts and of other sites."""
    async with operated(token=TOKEN) as fleet:
        response = await fleet.client.post("/login", **said)
        _, _, kept = response.headers["Set-Cookie"].partition("; ")

        assert {"token_needed": True, "open": True} == await response.json()
        assert "Max-Age=2592000; Path=/; HttpOnly; SameSite=Strict" == kept
        assert TOKEN not in response.headers["Set-Cookie"]


async def test_over_https_the_cookie_stays_there() -> None:
    """A reverse proxy says how it was reached."""
    async with operated(token=TOKEN) as fleet:
        response = await log_in(fleet, **{"X-Forwarded-Proto": "https"})

        assert response.headers["Set-Cookie"].endswith("; SameSite=Strict; Secure")


async def test_a_session_stands_for_the_token() -> None:
    """What needs the token takes the cookie in its place; nothing less does."""
    async with operated(token=TOKEN) as fleet:
        cookie = await session(fleet)
        name = cookie.partition("=")[0]

        assert 200 == await status(fleet, "GET", "/api/services", Cookie=cookie)
        assert 200 == await status(fleet, "GET", "/metrics", Cookie=f"a=b; {cookie}; c")
        assert 403 == await status(fleet, "GET", "/api/services", Cookie=f"{name}=x")
        assert 403 == await status(fleet, "GET", "/api/services")


@pytest.mark.parametrize("token", ["wrong", "", f"{TOKEN}{TOKEN}", "sésame", "\ud800"])
async def test_a_wrong_token_opens_nothing(token: str) -> None:
    """It is refused in words, without a cookie."""
    async with operated(token=TOKEN) as fleet:
        response = await log_in(fleet, token)

        assert (403, "forbidden") == (response.status, await code(response))
        assert "Set-Cookie" not in response.headers


@pytest.mark.parametrize(
    "said",
    [
        {"data": b"{"},
        {"data": b"\xff"},
        {"data": b"[" * 50_000},
        {"json": TOKEN},
        {"json": {}},
        {"json": {"token": 1}},
        {"data": {"password": TOKEN}},
        {"data": b"", "headers": {"Content-Type": FORM}},
        {"data": b"token=\xff", "headers": {"Content-Type": FORM}},
        {"data": b"token=a", "headers": {"Content-Type": f"{FORM}; charset=nope"}},
    ],
)
async def test_a_login_without_a_token_says_what_it_wants(said: dict[str, Any]) -> None:
    """Whatever is sent, the answer is ours."""
    async with operated(token=TOKEN) as fleet:
        response = await fleet.client.post("/login", **said)

        assert (400, "bad-command") == (response.status, await code(response))


async def test_how_a_browser_stands_can_be_asked_by_all() -> None:
    """The page asks before it shows a login; it learns nothing else."""
    async with operated(token=TOKEN) as fleet:
        before = await (await fleet.client.get("/login")).json()
        cookie = await session(fleet)
        fleet.client.session.cookie_jar.clear()
        after = await (await fleet.client.get("/login", headers={"Cookie": cookie})).json()

        assert {"token_needed": True, "open": False} == before
        assert {"token_needed": True, "open": True} == after


async def test_without_a_token_nobody_logs_in() -> None:
    """The listener is open to its own pages; login and logout change nothing."""
    async with operated() as fleet:
        stands = await (await fleet.client.get("/login")).json()
        response = await log_in(fleet, "anything")
        left = await fleet.client.post("/logout")

        assert {"token_needed": False, "open": True} == stands == await response.json()
        assert stands == await left.json()
        assert "Set-Cookie" not in response.headers


# Its end.


async def test_logging_out_ends_the_session() -> None:
    """The browser forgets the cookie, and who has kept it has nothing."""
    async with operated(token=TOKEN) as fleet:
        cookie = await session(fleet)
        fleet.client.session.cookie_jar.clear()
        response = await fleet.client.post("/logout", headers={"Cookie": cookie, **OURS})

        assert "Max-Age=0" in response.headers["Set-Cookie"]
        assert {"token_needed": True, "open": False} == await response.json()
        assert 403 == await status(fleet, "GET", "/api/services", Cookie=cookie)


async def test_a_session_that_is_not_used_ends() -> None:
    """After half a day the token is asked for again."""
    async with operated(token=TOKEN) as fleet:
        cookie = await session(fleet)
        fleet.clock.advance(UNUSED_SECONDS_MAX)

        assert 403 == await status(fleet, "GET", "/api/services", Cookie=cookie)


async def test_a_session_that_is_used_goes_on() -> None:
    """Use renews the cookie, also in the head of a stream."""
    async with operated(token=TOKEN) as fleet:
        cookie = await session(fleet)
        fleet.client.session.cookie_jar.clear()
        young = await fleet.client.get("/api/services", headers={"Cookie": cookie})
        fleet.clock.advance(RENEW_SECONDS)
        stream = await fleet.client.get("/api/events", headers={"Cookie": cookie})
        renewed = stream.headers["Set-Cookie"].partition(";")[0]
        fleet.clock.advance(UNUSED_SECONDS_MAX - 1)

        assert "Set-Cookie" not in young.headers
        assert 200 == await status(fleet, "GET", "/api/services", Cookie=renewed)
        assert 403 == await status(fleet, "GET", "/api/services", Cookie=cookie)


# Pages of others: what a browser says of them, and what becomes of it.

OWN = "http://127.0.0.1:{port}"


@pytest.mark.parametrize(
    ("method", "headers", "expected"),
    [
        # Our page.
        ("POST", {**OURS, "Origin": OWN}, 200),
        ("POST", OURS, 200),
        ("POST", {"Origin": OWN}, 200),  # a browser without Sec-Fetch-Site
        ("GET", OURS, 200),
        ("GET", {}, 200),
        # A command that does not say where it comes from.
        ("POST", {}, 403),
        ("POST", {"Sec-Fetch-Site": "none"}, 403),
        # A service on another port of this host: the same site, and it has the cookie too.
        ("POST", {"Sec-Fetch-Site": "same-site"}, 403),
        ("POST", {"Sec-Fetch-Site": "same-site", "Origin": "http://127.0.0.1:8001"}, 403),
        ("POST", {"Sec-Fetch-Site": "same-site", "Origin": "null"}, 403),
        ("POST", {"Origin": "http://localhost:{port}"}, 403),
        ("POST", {"Origin": "https://127.0.0.1"}, 403),
        ("GET", {"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "no-cors"}, 403),
        # Another site, whatever else it says.
        ("POST", {"Sec-Fetch-Site": "cross-site"}, 403),
        ("POST", {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}, 403),
        ("GET", {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Dest": "image"}, 403),
        ("GET", {"Sec-Fetch-Site": "cross-site", "Origin": "https://evil.example"}, 403),
    ],
)
async def test_a_cookie_works_from_our_pages_alone(
    method: str, headers: dict[str, str], expected: int
) -> None:
    """Cookies do not separate ports, so what changes something proves that our page sent it."""
    async with operated(token=TOKEN) as fleet:
        sent = {name: value.format(port=fleet.client.port) for name, value in headers.items()}
        path = "/api/reload" if method == "POST" else "/api/services"

        assert expected == await status(fleet, method, path, **sent, Cookie=await session(fleet))


NAVIGATED = {"Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}


@pytest.mark.parametrize(
    ("method", "headers", "expected"),
    [
        ("GET", {"Sec-Fetch-Site": "cross-site", **NAVIGATED}, 200),
        ("GET", {"Sec-Fetch-Site": "same-site", **NAVIGATED}, 200),
        ("GET", {"Sec-Fetch-Site": "cross-site", **NAVIGATED, "Sec-Fetch-Dest": "iframe"}, 403),
        ("GET", {"Sec-Fetch-Site": "same-site", "Sec-Fetch-Dest": "script"}, 403),
        ("GET", {"Sec-Fetch-Site": "none", **NAVIGATED}, 200),
        ("POST", {"Sec-Fetch-Site": "cross-site", **NAVIGATED}, 403),
        ("POST", {"Sec-Fetch-Site": "same-site"}, 403),
        ("POST", {"Sec-Fetch-Site": "same-origin"}, 200),
        ("POST", {}, 200),  # the CLI
    ],
)
async def test_without_a_token_other_pages_are_refused_too(
    method: str, headers: dict[str, str], expected: int
) -> None:
    """A link may lead here; a page of another site or port gets nothing and changes nothing."""
    async with operated() as fleet:
        path = "/api/reload" if method == "POST" else "/api/services"

        assert expected == await status(fleet, method, path, **headers)


async def test_another_page_cannot_log_in() -> None:
    """Nobody is logged in by a page that is not ours, with the right token neither."""
    async with operated(token=TOKEN) as fleet:
        response = await log_in(fleet, Origin="https://evil.example")

        assert 403 == response.status
        assert "Set-Cookie" not in response.headers


async def test_a_token_needs_no_page() -> None:
    """Programs present it as before, beside whatever login a proxy before us asks for."""
    async with operated(token=TOKEN) as fleet:
        cookie = await session(fleet)
        basic = "Basic b3BlcmF0b3I6c2VjcmV0"

        assert 200 == await status(fleet, "POST", "/api/reload", Authorization=f"Bearer {TOKEN}")
        assert 200 == await status(
            fleet, "GET", "/api/services", Authorization=basic, Cookie=cookie
        )
        assert 403 == await status(fleet, "GET", "/api/services", Authorization=basic)
        assert 403 == await status(
            fleet, "GET", "/api/services", Authorization="Bearer wrong", Cookie=cookie
        )


# Guessing.


async def test_guessing_is_slowed_down_by_address() -> None:
    """After ten wrong tokens an address waits, right or wrong; another one does not."""
    guesser, operator = {"X-Forwarded-For": "192.0.2.1"}, {"X-Forwarded-For": "192.0.2.2"}
    async with operated(token=TOKEN) as fleet:
        for _ in range(WRONG_MAX):
            assert 403 == (await log_in(fleet, "wrong", **guesser)).status
        refused = await log_in(fleet, TOKEN, **guesser)
        bearer = {"Authorization": f"Bearer {TOKEN}", **guesser}

        assert (429, "too-many-attempts") == (refused.status, await code(refused))
        assert "2" == refused.headers["Retry-After"]
        assert 429 == await status(fleet, "GET", "/api/services", **bearer)
        assert 200 == (await log_in(fleet, TOKEN, **operator)).status
        assert 200 == (await log_in(fleet, TOKEN)).status
        fleet.clock.advance(SECONDS_EACH)
        assert 200 == (await log_in(fleet, TOKEN, **guesser)).status


async def test_a_session_is_not_slowed_down() -> None:
    """Who is logged in stays so, whoever guesses from the same address."""
    async with operated(token=TOKEN) as fleet:
        cookie = await session(fleet)
        guesser = {"X-Forwarded-For": "192.0.2.1"}
        for _ in range(WRONG_MAX + 1):
            await log_in(fleet, "wrong", **guesser)

        assert 200 == await status(fleet, "GET", "/api/services", Cookie=cookie, **guesser)


# Small print.


async def test_answers_are_no_pages_and_no_parts_of_pages() -> None:
    """Output is not taken for HTML, and nothing is embedded elsewhere."""
    async with operated() as fleet:
        response = await fleet.client.get("/api/services")

        assert "nosniff" == response.headers["X-Content-Type-Options"]
        assert "same-origin" == response.headers["Cross-Origin-Resource-Policy"]


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ([], None),
        (["a=1"], "1"),
        (["b=2; a=1"], "1"),
        (["b=2;a=1;c"], "1"),
        (["b=2", "a=1"], "1"),
        (["a=1; a=2"], "1"),
        (["aa=1; a"], ""),
        (["a=x=y"], "x=y"),
        ([";;=;"], None),
    ],
)
def test_a_cookie_is_found_in_what_browsers_send(headers: list[str], expected: str | None) -> None:
    """The first one of that name; cookies of others do not matter."""
    sent = CIMultiDict(("Cookie", header) for header in headers)

    assert expected == read_cookie(sent.getall("Cookie", []), "a")
