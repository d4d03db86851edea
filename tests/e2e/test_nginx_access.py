"""Who gets in through nginx: logins that nginx asks for, keys that autostart asks for."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.daemon import plain
from tests.front import HOST, LOGIN, Front, fronted, htpasswd_line

LOCKED = "locked.example.com"
PORTAL = "https://portal.example.com"
ORIGIN = ("--header", f"Origin: {PORTAL}")
ASKS = ("--header", "Access-Control-Request-Method: POST")


def options(*words: str) -> tuple[str, ...]:
    return ("--request", "OPTIONS", *words)


async def test_without_a_login_nothing_is_woken(tmp_path: Path) -> None:
    """nginx answers 401 to no login and to a wrong one, and lets the right one through."""
    async with fronted(tmp_path, {HOST: plain()}) as front:
        refused = [
            await front.curl("/", login=None),
            await front.curl("/upload", "--data", "x", login=None),
            await front.curl("/", login=("anna", "wrong")),
            await front.curl("/", "--header", "Authorization: Bearer dummy", login=None),
        ]
        starts = front.daemon.starts(HOST)
        let_in = await front.curl("/")

    assert ([401] * 4, 0) == ([answer.status for answer in refused], starts)
    assert 200 == let_in.status


@pytest.mark.parametrize("version", ["--http1.1", "--http2"])
async def test_a_preflight_needs_no_login_and_wakes_nothing(tmp_path: Path, version: str) -> None:
    """A browser cannot send a login with it; autostart allows the map's origins."""
    async with fronted(tmp_path, {HOST: plain(cors=[PORTAL])}) as front:
        answer = await front.curl("/", *options(*ORIGIN, *ASKS, version), login=None)

        assert (204, PORTAL) == (answer.status, answer.header("Access-Control-Allow-Origin"))
        assert 0 == front.daemon.starts(HOST)


@pytest.mark.parametrize(
    "words",
    [
        options(),
        options(*ORIGIN),
        options(*ASKS),
        options(*ORIGIN, "--header", "Access-Control-Request-Method;"),
        options("--header", "Origin;", *ASKS),
        options("--header", "Origin;", "--header", "Access-Control-Request-Method: A B"),
        options("--header", "Origin: a b", "--header", "Access-Control-Request-Method;"),
        (*ORIGIN, *ASKS),
        ("--request", "POST", *ORIGIN, *ASKS),
        ("--request", "OPTIONS_X", *ORIGIN, *ASKS),
    ],
    ids=lambda words: " ".join(words).replace("--header ", "").replace("--request ", ""),
)
async def test_nothing_but_a_preflight_passes_without_a_login(
    tmp_path: Path, words: tuple[str, ...]
) -> None:
    """What lacks a part of one, or is another method, gets no answer of the service's."""
    async with fronted(tmp_path, {HOST: plain(cors=[PORTAL])}) as front:
        answers = [
            await front.curl("/", *words, version, login=None)
            for version in ("--http1.1", "--http2")
        ]

        assert {answer.status for answer in answers} <= {400, 401}, answers
        assert 0 == front.daemon.starts(HOST)


async def test_a_service_that_answers_preflights_itself_is_behind_the_login(
    tmp_path: Path,
) -> None:
    """Without cors in the map a preflight would reach the service, so it needs a login."""
    async with fronted(tmp_path, {HOST: plain()}) as front:
        answer = await front.curl("/", *options(*ORIGIN, *ASKS), login=None)

        assert (401, 0) == (answer.status, front.daemon.starts(HOST))


async def test_the_portal_is_behind_the_login(tmp_path: Path) -> None:
    """Its host has a server of its own, also for preflights."""
    portal = "portal.example.com"
    async with fronted(tmp_path, {HOST: plain()}, portal=portal) as front:
        refused = [
            await front.curl("/", host=portal, login=None),
            await front.curl("/", *options(*ORIGIN, *ASKS), host=portal, login=None),
        ]

    assert [401, 401] == [answer.status for answer in refused]


async def test_a_key_is_autostarts_to_check(tmp_path: Path) -> None:
    """A service with access: nginx asks nothing; a wrong key wakes nothing, a right one does."""
    service = plain(access={"keys_env": "PLAIN_KEYS"})
    async with fronted(tmp_path, {HOST: service}) as front:
        await restart_with(front, PLAIN_KEYS="right")
        refused = [
            await front.curl("/", login=None),
            await front.curl("/", "--header", "Authorization: Bearer dummy", login=None),
            await front.curl("/"),
        ]
        starts = front.daemon.starts(HOST)
        let_in = await front.curl("/", "--header", "Authorization: Bearer right", login=None)

    assert [(401, "unauthorized")] * 3 == [
        (answer.status, answer.header("Autostart-Error")) for answer in refused
    ]
    assert (0, 200) == (starts, let_in.status)


async def test_a_login_of_the_map_goes_through_nginx(tmp_path: Path) -> None:
    """access.basic_file: the same file and the same logins, asked for by autostart."""
    logins = tmp_path / "logins"
    logins.write_text(htpasswd_line("bob", "of the map"))
    service = plain(access={"basic_file": str(logins)})
    async with fronted(tmp_path, {HOST: service}) as front:
        wrong = await front.curl("/")
        right = await front.curl("/", login=("bob", "of the map"))

    assert (401, 200) == (wrong.status, right.status)


@pytest.mark.parametrize("version", ["--http1.1", "--http2"])
async def test_the_name_of_one_service_opens_no_other(tmp_path: Path, version: str) -> None:
    """Two names in one request: the one that nginx asked a login for is the one that is served."""
    services = {HOST: plain(access={"keys_env": "PLAIN_KEYS"}), LOCKED: plain()}
    async with fronted(tmp_path, services) as front:
        await restart_with(front, PLAIN_KEYS="key")
        words = (version, "--header", "Authorization: Bearer key", "--header", f"Host: {LOCKED}")
        target = ("--request-target", f"https://{HOST}/echo") if "1.1" in version else ()
        answer = await front.curl("/echo", *words, *target, login=None)

        assert 0 == front.daemon.starts(LOCKED)
        if "1.1" in version:
            assert HOST == dict(json.loads(answer.body)["headers"])["Host"]
        else:
            assert 401 == answer.status


async def restart_with(front: Front, **environment: str) -> None:
    """Start autostart again with variables of the environment."""
    front.daemon.terminate()
    front.daemon.environment.update(environment)
    await front.daemon.start()


async def test_no_basic_auth_asks_nobody(tmp_path: Path) -> None:
    """--no-basic-auth is for services that are for everybody."""
    async with fronted(tmp_path, {HOST: plain()}, "--no-basic-auth") as front:
        answer = await front.curl("/", login=None)

    assert 200 == answer.status


async def test_a_login_that_is_added_gets_in_at_once(tmp_path: Path) -> None:
    """nginx reads the file at each request; without it everybody gets 403."""
    async with fronted(tmp_path, {HOST: plain()}) as front:
        file = front.nginx.folder / "htpasswd"
        file.unlink()
        without = await front.curl("/")
        file.write_text(htpasswd_line(*LOGIN))
        added = await front.curl("/")

    assert (403, 200) == (without.status, added.status)
