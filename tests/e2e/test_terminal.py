"""What the commands do on a real terminal, and that nothing of it reaches a pipe."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import signal
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import pytest
from rich.console import Console
from rich.text import Text

from tests.browser import drive, require_browser, screenshot
from tests.daemon import HOST, Daemon, plain, running
from tests.terminal import (
    ALTERNATE_OFF,
    ALTERNATE_ON,
    CURSOR_OFF,
    CURSOR_ON,
    Terminal,
    terminal,
)

SLOW = ("--ready-after", "1.5")


@contextlib.contextmanager
def typed(daemon: Daemon, *words: str, **options: object) -> Iterator[Terminal]:
    """Run a command of autostart on a terminal."""
    environment = {"AUTOSTART_STATE": str(daemon.state), **options.pop("environment", {})}
    with terminal([*daemon.command, *words], environment, **options) as opened:
        yield opened


async def seen(opened: Terminal, *words: str, since: int = 0) -> str:
    """Wait for words without holding up the loop."""
    return await asyncio.to_thread(opened.wait_for, *words, since=since)


async def ended(opened: Terminal) -> int:
    return await asyncio.to_thread(opened.wait)


async def test_status_on_a_terminal_is_one_picture(tmp_path: Path) -> None:
    """Coloured, and then it ends; NO_COLOR takes the colours; a pipe gets the plain table."""
    async with running(tmp_path, {HOST: plain()}) as daemon:
        await daemon.run_cli("start", HOST)
        with typed(daemon, "status") as opened:
            coloured = await ended(opened), opened.raw
        with typed(daemon, "status", environment={"NO_COLOR": "1"}) as opened:
            plainly = await ended(opened), opened.raw
        with typed(daemon, "status", columns=40) as opened:
            narrow = await ended(opened), opened.text()
        piped = await daemon.run_cli("status")
        as_json = await daemon.run_cli("status", "--json")

    assert [0, 0, 0, 0, 0] == [each[0] for each in (coloured, plainly, narrow, piped, as_json)]
    assert "\x1b[32mready" in coloured[1]
    assert ALTERNATE_ON not in coloured[1]
    assert "\x1b[32m" not in plainly[1]
    assert "ready" in plainly[1]
    assert narrow[1].split("\n")[0].split() == ["HOST", "STATE", "SINCE", "IDLE", "IN"]
    assert "\x1b" not in piped[1] + as_json[1]
    assert piped[1].startswith("HOST             STATE  SINCE  LEASES  WAITING  IDLE IN  ATTEMPT\n")
    assert "ready" == json.loads(as_json[1])[0]["state"]


async def test_a_watched_fleet_moves(tmp_path: Path, client: aiohttp.ClientSession) -> None:
    """Every change is seen as it happens, seconds pass, Ctrl-C leaves the terminal as it was."""
    async with running(tmp_path, {HOST: plain(*SLOW)}) as daemon:
        with typed(daemon, "status", "-w") as opened:
            await seen(opened, "1 service: 1 stopped", HOST, "Ctrl-C ends")
            mark = len(opened.raw)
            asking = asyncio.ensure_future(client.get(daemon.url, headers={"Host": HOST}))
            await seen(opened, "loading", since=mark)
            await seen(opened, "1 service: 1 ready", since=mark)
            (await asking).release()
            mark = len(opened.raw)
            await seen(opened, "14m58s", "14m57s", since=mark)
            mark = len(opened.raw)
            opened.resize(40, 10)
            await seen(opened, "STATE  SINCE  IDLE IN", since=mark)
            opened.interrupt()
            status = await ended(opened)

    assert 0 == status
    assert opened.raw.startswith(ALTERNATE_ON)
    assert ALTERNATE_OFF in opened.raw[-200:]
    assert CURSOR_ON in opened.raw[opened.raw.rindex(CURSOR_OFF) :]
    assert "Traceback" not in opened.raw


async def test_a_watched_daemon_may_restart(tmp_path: Path) -> None:
    """While it is away that is said, and when it is back the picture is its own again."""
    async with running(tmp_path, {HOST: plain()}) as daemon:
        with typed(daemon, "status", "--watch") as opened:
            await seen(opened, "1 service: 1 stopped")
            mark = len(opened.raw)
            await asyncio.to_thread(daemon.terminate)
            await seen(
                opened, f"no autostart serves on 127.0.0.1:{daemon.admin_port}, for", since=mark
            )
            mark = len(opened.raw)
            await daemon.start()
            await daemon.run_cli("start", HOST)
            await seen(opened, "1 service: 1 ready", since=mark)
            opened.interrupt()
            status = await ended(opened)

    assert 0 == status


async def test_a_watch_that_is_terminated_leaves_the_terminal_as_it_was(tmp_path: Path) -> None:
    """SIGTERM ends it in order, with the status that shells give it."""
    async with running(tmp_path, {HOST: plain()}) as daemon:
        with typed(daemon, "status", "-w") as opened:
            await seen(opened, "1 stopped")
            opened.process.send_signal(signal.SIGTERM)
            status = await ended(opened)

    assert 143 == status
    assert ALTERNATE_OFF in opened.raw[-200:]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--watch",), "--watch moves on a terminal only; for programs there is GET /api/events"),
        (("-w", "--json"), "--json is printed once: for programs there is GET /api/events"),
    ],
)
async def test_what_cannot_move_says_so(tmp_path: Path, words: tuple[str, ...], said: str) -> None:
    """A pipe is not filled with pictures."""
    daemon = Daemon(tmp_path, {HOST: plain()})
    status, text = await daemon.run_cli("status", *words)

    assert (2, f"error: {said}") == (status, text.splitlines()[0])


async def test_without_a_daemon_there_is_nothing_to_watch(tmp_path: Path) -> None:
    """The first look fails as that of any command."""
    with typed(Daemon(tmp_path, {HOST: plain()}), "status", "-w") as opened:
        status = await ended(opened)

    assert 1 == status
    assert opened.text().startswith("error: no autostart serves on 127.0.0.1:")
    assert ALTERNATE_ON not in opened.raw


async def test_a_start_shows_how_far_it_is(tmp_path: Path) -> None:
    """One line moves: what it does, how long, and, once known, how long it usually takes."""
    async with running(tmp_path, {HOST: plain(*SLOW)}) as daemon:
        with typed(daemon, "start", HOST) as opened:
            first = await ended(opened), opened.text()
        await daemon.run_cli("stop", HOST)
        with typed(daemon, "start", HOST) as opened:
            second = await ended(opened), opened.text()
        raw = opened.raw
        with typed(daemon, "restart", HOST) as opened:
            third = await ended(opened), opened.text()

    assert [0, 0, 0] == [first[0], second[0], third[0]]
    assert f"⠋ {HOST}  " in first[1]
    assert "loading" in first[1]
    assert "of usually" not in first[1]
    assert "of usually 1s" in second[1]
    assert "━" in second[1]
    # The line is gone: what stays is the one that a pipe gets.
    assert f"{HOST}: ready in" in raw[raw.rindex("\x1b[2K") :]
    assert "of usually 1s" in third[1]
    assert CURSOR_ON in raw[raw.rindex(CURSOR_OFF) :]


async def test_a_drain_shows_whom_it_waits_for(
    tmp_path: Path, client: aiohttp.ClientSession
) -> None:
    """The requests that still use it are counted; Ctrl-C leaves the drain to go on."""
    async with running(tmp_path, {HOST: plain()}) as daemon:
        url = f"{daemon.url}/slow?seconds=30"
        asking = asyncio.ensure_future(client.get(url, headers={"Host": HOST}))
        await daemon.wait_for_state("ready")
        with typed(daemon, "stop", "--drain", HOST) as opened:
            await seen(opened, "draining", "used by 1 request")
            opened.interrupt()
            status = await ended(opened)
        state = (await daemon.states())[HOST]["phase"]
        asking.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asking

    assert 130 == status
    assert "draining" == state
    assert CURSOR_ON in opened.raw[opened.raw.rindex(CURSOR_OFF) :]


async def test_a_failure_stands_alone(tmp_path: Path) -> None:
    """The line that moved is gone before the error is told."""
    entry = {"command": ["sh", "-c", "sleep 0.5; exit 3"], "port": 0}
    async with running(tmp_path, {HOST: entry}) as daemon:
        with typed(daemon, "start", HOST) as opened:
            status = await ended(opened)

    assert 1 == status
    last = opened.raw[opened.raw.rindex("\x1b[2K") :]
    assert "error: " in last
    assert HOST not in last.split("error: ")[0]


async def test_a_dumb_terminal_gets_plain_lines(tmp_path: Path) -> None:
    """Where the cursor cannot move nothing tries to move it."""
    async with running(tmp_path, {HOST: plain()}) as daemon:
        with typed(daemon, "start", HOST, environment={"TERM": "dumb"}) as opened:
            status = await ended(opened)

    assert 0 == status
    assert opened.raw.startswith(f"{HOST}: ready in ")
    assert "\x1b" not in opened.raw


async def test_a_fleet_in_every_state_can_be_read(
    tmp_path: Path, client: aiohttp.ClientSession
) -> None:
    """Kept as a screenshot, to be looked at."""
    require_browser()
    failing = {"command": ["sh", "-c", "echo no model; exit 3"], "port": 0}
    services = {
        "whisper.localhost": plain(),
        "voxtral.localhost": plain(*SLOW),
        "whisperx.localhost": failing,
        "tts.localhost": plain(),
        "docs.localhost": plain(),
    }
    async with running(tmp_path, services) as daemon:
        await daemon.run_cli("start", "voxtral.localhost")
        await daemon.run_cli("stop", "voxtral.localhost")
        await daemon.run_cli("keep", "tts.localhost", "2h")
        await daemon.run_cli("stop", "docs.localhost", "--hold")
        url = f"{daemon.url}/slow?seconds=30"
        headers = [{"Host": "whisper.localhost"}, {"Host": "voxtral.localhost"}]
        await client.get(daemon.url, headers={"Host": "whisperx.localhost"})
        asking = [asyncio.ensure_future(client.get(url, headers=each)) for each in headers]
        with typed(daemon, "status", "-w") as opened:
            await seen(opened, "1 failed", "loading", "of usually", "kept until", "closed: held")
            opened.interrupt()
            await ended(opened)
        drawings = opened.raw.replace("\r\n", "\n").split("\x1b[H")
        drawn = next(each for each in reversed(drawings) if "of usually" in each)
        for each in asking:
            each.cancel()
        await asyncio.gather(*asking, return_exceptions=True)

    console = Console(record=True, width=100, file=io.StringIO(), force_terminal=True)
    console.print(Text.from_ansi(drawn.rstrip()))
    svg = console.export_svg(title="autostart status --watch")
    drive("terminal", tmp_path, svg=svg, picture=screenshot("status-watch"))
    words = Text.from_ansi(drawn).plain

    assert "5 services: 1 failed, 2 ready, 1 starting, 1 stopped" in words
    assert "last failure: next try in" in words
