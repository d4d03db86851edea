"""The docs portal as a browser meets it in production: behind nginx, with TLS and with logins."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.browser import drive, require_browser, screenshot
from tests.daemon import ROOT
from tests.e2e.test_portal import FOLDER
from tests.e2e.test_portal_page import DEMO, ECHO, TRANSCRIBE, documented
from tests.front import LOGIN, Front, fronted, htpasswd_line
from tests.services.sounds import WORDS

PORTAL = "portal.example.com"
WHISPER = "whisper.example.com"  # nginx asks for the login
LOCKED = "locked.example.com"  # autostart does: access.basic_file
OF_THE_MAP = ("bob", "of the map")


async def browse(front: Front, path: str, login: tuple[str, str] = LOGIN, **wish: Any) -> Any:
    """Visit a page of the portal at port 443; `login` is what the reader says when asked."""
    user, password = login
    look = {
        "ignoreHTTPSErrors": True,
        "httpCredentials": {"username": user, "password": password},
    }
    args = [f"--host-resolver-rules=MAP *:443 127.0.0.1:{front.nginx.https_port}"]
    url = f"https://{PORTAL}{path}"
    return await asyncio.to_thread(
        drive, "portal", front.nginx.folder, url=url, look=look, args=args, **wish
    )


@pytest.fixture
async def front(tmp_path: Path) -> AsyncIterator[Front]:
    """nginx before autostart with two services, whose docs are known and which are stopped."""
    require_browser()
    logins = tmp_path / "logins"
    logins.write_text(htpasswd_line(*OF_THE_MAP))
    services = {
        WHISPER: {**DEMO, "directory": str(ROOT), "idle": "1m", "start_timeout": "60s"},
        LOCKED: documented(tmp_path, access={"basic_file": str(logins)}),
    }
    async with fronted(tmp_path, services, portal=PORTAL) as front:
        for host, login in ((WHISPER, LOGIN), (LOCKED, OF_THE_MAP)):
            assert 200 == (await front.curl("/ready", host=host, login=login)).status
            deadline = time.monotonic() + 10
            while (await front.curl(f"{FOLDER}/documents/{host}", host=PORTAL)).status != 200:
                assert time.monotonic() < deadline, front.daemon.tail()
                await asyncio.sleep(0.05)
            assert 0 == (await front.daemon.run_cli("stop", host))[0]
            await front.daemon.wait_for_state("stopped", host)
        yield front


async def test_a_transcription_is_executed_behind_the_login_of_nginx(front: Front) -> None:
    """Reading wakes nothing; Execute goes to another host, past its login, and starts it."""
    read = await browse(front, f"/#{WHISPER}")
    starts = front.daemon.starts(WHISPER)
    shown = await browse(
        front,
        f"/#{WHISPER}",
        execute=TRANSCRIBE,
        screenshot=screenshot("portal-nginx"),
    )

    assert ("asleep" in read["banner"], 1, []) == (True, starts, read["complaints"])
    assert ("200", True) == (shown["status"], f'"text": "{WORDS}"' in shown["body"])
    assert shown["banner"].startswith("The service was asleep: started and answered in")
    assert [] == shown["complaints"]
    assert 2 == front.daemon.starts(WHISPER)


async def test_a_login_of_the_map_is_given_by_authorize(front: Front) -> None:
    """access.basic_file: nginx asks nothing there, and the browser's login for nginx stays away."""
    shown = await browse(
        front,
        f"/#{LOCKED}",
        execute={**ECHO, "login": list(OF_THE_MAP), "scheme": "autostart-login"},
        screenshot=screenshot("portal-nginx-login"),
    )

    assert "200" == shown["status"]
    assert json.dumps(f"https://{PORTAL}") in shown["body"]
    assert (0, 2) == (len(shown["complaints"]), front.daemon.starts(LOCKED))


async def test_a_login_that_is_refused_wakes_nothing_and_says_where(front: Front) -> None:
    """nginx's 401 tells a page of another host nothing; ours says where the login is asked for."""
    shown = await browse(
        front,
        f"/#{WHISPER}",
        ("anna", "not for this one"),
        first=f"https://{':'.join(LOGIN)}@{PORTAL}/api",
        execute=TRANSCRIBE,
        screenshot=screenshot("portal-nginx-refused"),
    )

    assert f"give it once at https://{WHISPER}/docs" in shown["banner"]
    assert 1 == front.daemon.starts(WHISPER)
