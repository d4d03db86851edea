"""The dashboard on a real autostart, in a real browser."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from tests.browser import ARTEFACTS, drive, require_browser, screenshot
from tests.daemon import HOST, Daemon, plain, running
from tests.front import Nginx, make_certificate, require_nginx

TOKEN = "open-sesame"


@pytest.fixture(autouse=True)
def browser() -> None:
    require_browser()


async def see(daemon: Daemon, scene: str, folder: Path, **wish: Any) -> dict[str, Any]:
    """Play a scene of tests/clients/node/dashboard.mjs while the daemon serves."""
    told = {"url": f"{daemon.admin_url}/", "port": daemon.port, "host": HOST, "scene": scene}
    return await asyncio.to_thread(drive, "dashboard", folder, **{**told, **wish})


def is_clean(shown: dict[str, Any]) -> None:
    """Nothing was asked from elsewhere, and the console has nothing to say."""
    assert [] == shown["elsewhere"]
    assert [] == shown["complaints"]


async def test_a_request_moves_its_row_and_idleness_moves_it_back(tmp_path):
    """Without a reload a row goes from stopped to ready and back, and the timeline says why."""
    async with running(tmp_path, {HOST: plain("--ready-after", "0.6", idle="4s")}) as daemon:
        shown = await see(daemon, "live", tmp_path)

    assert (200, 0) == (shown["status"], shown["before"])
    assert ["stopped", "starting", "ready", "stopping", "stopped"] == shown["seen"]
    assert shown["first"].startswith("in ")
    assert shown["second"].startswith("in ")
    assert any("request GET /hello" in entry for entry in shown["entries"])
    assert "idle for long enough" in "\n".join(shown["entries"])
    assert shown["starts"].startswith("1 cold start; usually")
    is_clean(shown)


async def test_every_button_does_what_it_says(tmp_path):
    """Start, stop, drain, force, hold, keep, restart, prepare and reload; a refusal has words."""
    async with running(tmp_path, {HOST: plain(idle="5m")}) as daemon:
        shown = await see(daemon, "buttons", tmp_path)
        kept = (await daemon.states())[HOST]["kept_until"]

    assert ["stopped", "starting", "ready"] == shown["started_and_stopped"][:3]
    assert "stopped" == shown["started_and_stopped"][-1]
    assert "GET /slow" == shown["lease"].partition("?")[0]
    assert f"Stop {HOST}: refused" in shown["refused"]
    assert "GET /slow" in shown["refused"]
    assert "--drain waits for them" in shown["refused"]
    assert shown["draining"].startswith("draining")
    assert "cuts 1 request" in shown["cuts"]
    assert 502 == shown["cut"]  # it had not begun to answer
    assert 503 == shown["while_held"]
    assert "Allowed: a duration such as 15m" in shown["bad_duration"]
    assert ("kept", "stopping") == (shown["kept"], shown["restarted"])
    assert kept is not None
    assert [] == shown["rules"]
    is_clean(shown)


async def test_output_is_shown_as_it_is_printed(tmp_path):
    """The log goes on by itself, waits while it is paused, and shows only what is asked for."""
    async with running(tmp_path, {HOST: plain(idle="5m")}) as daemon:
        shown = await see(daemon, "log", tmp_path, screenshot=screenshot("dashboard-log"))

    assert "1 new" in shown["paused"]
    assert 0 == shown["unseen"]
    assert ["while-open", "while-paused"] == shown["filtered"]
    assert [] == shown["rules"]
    is_clean(shown)


async def test_a_failed_start_is_shown_with_its_last_lines(tmp_path):
    """What failed, what the service printed last, what to do next and when it is tried again."""
    flag = tmp_path / "no model"
    flag.touch()
    service = plain("--exit-if-file", str(flag))
    async with running(tmp_path, {HOST: service}) as daemon:
        shown = await see(
            daemon,
            "failure",
            tmp_path,
            line=f"exiting because {flag} exists",
            screenshot=screenshot("dashboard-failure"),
        )

    assert "start-failed" in shown["text"]
    assert f"autostart logs {HOST}" in shown["text"]
    assert shown["retry"].startswith("Next try in")
    assert "(1 failed) autostart" == shown["title"]
    assert [] == shown["rules"]
    is_clean(shown)


async def test_a_hundred_services_are_there_at_once(tmp_path):
    """A map of a hundred loads within two seconds, is filtered, sorted and live."""
    services = {f"s{number:03}.localhost": plain(idle="5m") for number in range(100)}
    async with running(tmp_path, services) as daemon:
        shown = await see(
            daemon,
            "many",
            tmp_path,
            host="s042.localhost",
            count=100,
            filter="s09",
            screenshot=screenshot("dashboard-hundred"),
        )

    print(f"a hundred services are shown after {shown['seconds']:.2f} s")
    assert shown["seconds"] < 2
    assert "10 of 100" == shown["filtered"]
    assert "s099.localhost" == shown["last"]
    assert "1 of 100" == shown["ready"]
    assert "ready" == shown["seen"][-1]
    is_clean(shown)


async def test_a_token_is_asked_for_once(tmp_path):
    """Nothing is shown without it; an ended session is renewed in place; logging out ends it."""
    daemon = Daemon(tmp_path, {HOST: plain(idle="5m")}, admin={"token_env": "ADMIN_TOKEN"})
    daemon.environment["ADMIN_TOKEN"] = TOKEN
    try:
        await daemon.start()
        with pytest.raises(AssertionError, match="needs its token"):
            await daemon.states()
        shown = await see(
            daemon, "login", tmp_path, token=TOKEN, screenshot=screenshot("dashboard-login")
        )
        log = daemon.log_path.read_text()
    finally:
        daemon.clean_up()

    (cookie,) = shown["cookies"]
    assert (0, 0) == (shown["before"], shown["after"])
    assert "This is not the token of the admin listener" == shown["problem"]
    assert HOST == shown["opened"]
    assert (True, "Strict") == (cookie["httpOnly"], cookie["sameSite"])
    assert shown["same"]
    assert 403 == shown["ended"]
    assert [] == shown["rules"]
    assert TOKEN not in log
    is_clean(shown)


async def test_the_page_catches_up_after_a_restart_of_autostart(tmp_path):
    """It says that the connection is lost, comes back by itself, and shows what it missed."""
    signal = tmp_path / "open"
    async with running(tmp_path, {HOST: plain(idle="5m")}) as daemon:
        watching = asyncio.get_running_loop().create_task(
            see(
                daemon,
                "restart",
                tmp_path,
                signal=str(signal),
                screenshot=screenshot("dashboard-lost"),
            )
        )
        while not signal.exists():
            assert not watching.done(), watching
            await asyncio.sleep(0.05)
        daemon.kill()
        await asyncio.sleep(1.5)  # long enough for the page to say so
        await daemon.start()
        code, said = await daemon.run_cli("start", HOST)
        shown = await watching

    assert 0 == code, said
    assert shown["entries"] >= 2
    is_clean(shown)


async def test_a_page_of_another_port_can_use_nothing(tmp_path):
    """The browser sends it our cookie along; neither a fetch nor a form starts the service."""
    daemon = Daemon(tmp_path, {HOST: plain(idle="5m")}, admin={"token_env": "ADMIN_TOKEN"})
    daemon.environment["ADMIN_TOKEN"] = TOKEN
    try:
        await daemon.start()
        shown = await see(daemon, "neighbour", tmp_path, token=TOKEN)
        starts = daemon.starts()
    finally:
        daemon.clean_up()

    assert shown["cookie"]
    assert ("refused", "refused", 403) == (
        shown["sent"],
        shown["read"],
        shown["posted"],
    )
    assert 0 == starts
    is_clean(shown)


PREFIXED = """\
server {{
    listen 127.0.0.1:{port} ssl;
    ssl_certificate {folder}/fullchain.pem;
    ssl_certificate_key {folder}/privkey.pem;
    location /autostart/ {{
        proxy_pass http://127.0.0.1:{admin_port}/;
        proxy_http_version 1.1;
        proxy_set_header Host $http_host;
        proxy_set_header X-Forwarded-Proto $scheme;
        proxy_set_header X-Forwarded-For $remote_addr;
    }}
}}
"""


async def test_it_works_behind_nginx_below_a_prefix(tmp_path):
    """As docs/dashboard.md says: https, a token, a path; events come through as they happen."""
    require_nginx()
    daemon = Daemon(tmp_path, {HOST: plain(idle="5m")}, admin={"token_env": "ADMIN_TOKEN"})
    daemon.environment["ADMIN_TOKEN"] = TOKEN
    make_certificate(tmp_path / "certificate", "admin.example.com")
    nginx = Nginx(tmp_path / "nginx")
    ports = {"port": nginx.https_port, "admin_port": daemon.admin_port}
    try:
        await daemon.start()
        nginx.start(PREFIXED.format(**ports, folder=tmp_path / "certificate"))
        url = f"https://127.0.0.1:{nginx.https_port}/autostart/"
        shown = await see(daemon, "prefix", tmp_path, url=url, token=TOKEN)
    finally:
        nginx.stop()
        daemon.clean_up()

    assert (True, "/") == (shown["secure"], shown["path"])
    is_clean(shown)


async def test_it_is_used_with_keys_alone(tmp_path):
    """Filter, walk to a service, open it, close it: the focus goes along and comes back."""
    async with running(tmp_path, {HOST: plain(name="Plain service")}) as daemon:
        shown = await see(daemon, "keys", tmp_path, name="Plain service")

    assert (f"#{HOST}", "Plain service") == (shown["place"], shown["opened"])
    assert "Plain service" == shown["closed"]
    is_clean(shown)


async def test_it_looks_right_and_everybody_can_use_it(tmp_path):
    """Light and dark, desk and phone: axe finds nothing serious, nothing is wider than the page."""
    ARTEFACTS.mkdir(parents=True, exist_ok=True)
    services = {
        HOST: plain(name="Whisper API", idle="5m"),
        "tts.localhost": plain(name="Text to speech", idle="5m"),
        "broken.localhost": plain("--exit-after", "0.1", name="Broken", idle="5m"),
        "ocr.localhost": plain(name="OCR"),
    }
    async with running(tmp_path, services) as daemon:
        for host in (HOST, "tts.localhost", "broken.localhost"):
            await daemon.run_cli("start", host)
        await daemon.run_cli("stop", "ocr.localhost", "--hold")
        await daemon.wait_for_state("failed", "broken.localhost")
        shown = await see(daemon, "looks", tmp_path, pictures=str(ARTEFACTS))

    for view in shown.values():
        assert 0 == view["wide"]
        assert [] == view["rules"]
        is_clean(view)
