"""autostart/supervisor/orders.py: what an operator asked for outlives autostart."""

from __future__ import annotations

import json
import stat
from datetime import timedelta
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from autostart import errors
from autostart.lifecycle import Kept, StartRequested, StopRequested
from autostart.supervisor import Orders
from autostart.supervisor.orders import FILE
from tests.unit.supervisor_stage import HOST, WALL, WHISPER, Stage, StageClock, changed, now, settle
from tests.unit.virtual_time import on_virtual_time

OTHER = changed(host="other.example.com")


def an_hour_later() -> StageClock:
    """Return the clocks after a restart that took an hour."""
    clock = StageClock()
    clock.wall_step = timedelta(hours=1)
    return clock


@on_virtual_time
async def test_hold_outlives_a_restart(tmp_path: Path) -> None:
    """A service that its operator holds is held by the next autostart, until he starts it."""
    async with Stage(orders=Orders(tmp_path)) as stage:
        await stage.ask(StopRequested, hold=True)
    async with Stage(orders=Orders(tmp_path)) as stage:
        refusal = await stage.request().refusal()
        await stage.ask(StartRequested)
        await settle()
        assert "ready" == stage.place()
    async with Stage(orders=Orders(tmp_path)) as stage:
        assert None is stage.service().closed_by

    assert isinstance(refusal, errors.Held)


@on_virtual_time
async def test_keep_outlives_a_restart(tmp_path: Path) -> None:
    """It is started by the next autostart, and kept until the wall clock shows its end."""
    async with Stage(orders=Orders(tmp_path)) as stage:
        await stage.ask(Kept, until=now() + 7200.0)
    async with Stage(orders=Orders(tmp_path), clock=an_hour_later()) as stage:
        await settle()
        left = stage.service().kept_until - now()

        assert "ready" == stage.place()
        assert pytest.approx(3600.0, abs=1.0) == left


@on_virtual_time
async def test_keep_that_has_ended_meanwhile_is_forgotten(tmp_path: Path) -> None:
    """Nothing is started for it."""
    async with Stage(orders=Orders(tmp_path)) as stage:
        await stage.ask(Kept, until=now() + 60.0)
    async with Stage(orders=Orders(tmp_path), clock=an_hour_later()) as stage:
        await settle()

        assert "stopped" == stage.place()


@on_virtual_time
async def test_stop_ends_a_keep_for_good(tmp_path: Path) -> None:
    """What ended before the restart does not come back with it."""
    async with Stage(orders=Orders(tmp_path)) as stage:
        await stage.ask(Kept, until=now() + 7200.0)
        await settle()
        await stage.ask(StopRequested)
    async with Stage(orders=Orders(tmp_path)) as stage:
        await settle()

        assert "stopped" == stage.place()


@on_virtual_time
async def test_shutdown_is_no_order(tmp_path: Path) -> None:
    """An orderly end of autostart neither ends a hold nor makes one."""
    async with Stage(WHISPER, OTHER, orders=Orders(tmp_path)) as stage:
        await stage.ask(StopRequested, hold=True)
        stage.supervisor.begin_shutdown()
    async with Stage(WHISPER, OTHER, orders=Orders(tmp_path)) as stage:
        held = isinstance(stage.service().closed_by, errors.Held)

        assert (True, None) == (held, stage.service(OTHER.host).closed_by)


@on_virtual_time
async def test_order_for_a_host_that_left_the_map_is_dropped(tmp_path: Path) -> None:
    """Whether it leaves by a reload or during a restart, it comes back without its hold."""
    async with Stage(WHISPER, OTHER, orders=Orders(tmp_path)) as stage:
        await stage.ask(StopRequested, hold=True)
        await stage.ask(StopRequested, host=OTHER.host, hold=True)
        stage.reload(WHISPER)
    async with Stage(OTHER, orders=Orders(tmp_path)) as stage:
        assert None is stage.service(OTHER.host).closed_by
    async with Stage(WHISPER, orders=Orders(tmp_path)) as stage:
        assert None is stage.service().closed_by


@on_virtual_time
async def test_held_service_that_runs_is_adopted(tmp_path: Path) -> None:
    """Somebody started it by hand: it is served while it runs, and held once it has stopped."""
    async with Stage(orders=Orders(tmp_path)) as stage:
        await stage.ask(StopRequested, hold=True)
    stage = Stage(orders=Orders(tmp_path))
    stage.machine.appear(HOST)
    async with stage:
        await stage.ready()
        assert 0 == stage.calls("start")


@on_virtual_time
async def test_order_is_written_before_it_is_accepted(tmp_path: Path) -> None:
    """Whoever was told that it is held finds it held, even after kill -9; nobody else reads it."""
    path = tmp_path / FILE
    async with Stage(WHISPER, OTHER, orders=Orders(tmp_path)) as stage:
        await stage.ready()
        assert not path.exists()
        await stage.ask(Kept, host=OTHER.host, until=now() + 60.0)
        await stage.ask(StopRequested, hold=True)
        written = json.loads(path.read_text())

        until = stage.clock.now().wall + timedelta(seconds=60)
        assert [HOST] == written["held"]
        assert until.isoformat(timespec="seconds")[:16] == written["kept"][OTHER.host][:16]
        assert 0o600 == stat.S_IMODE(path.stat().st_mode)
        assert [path] == list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff",
        b"[]",
        b'{"held": 1, "kept": {}}',
        b'{"held": [], "kept": []}',
        b'{"held": ["a"], "kept": {"a": "tomorrow"}}',
        b'{"held": ["a"], "kept": {"a": "2026-06-15T12:00:00"}}',
        b'{"held": ["a"], "kept": {"a": 7}}',
        b'{"held": [["a"]], "kept": {}}',
        b"[" * 100_000,
    ],
    ids=lambda content: content.decode("latin-1")[:40],
)
def test_file_that_cannot_be_used_is_ignored(tmp_path: Path, content: bytes) -> None:
    """One warning, and nothing is held or kept by it."""
    (tmp_path / FILE).write_bytes(content)
    with capture_logs() as logs:
        orders = Orders(tmp_path)

    assert ["orders-unreadable"] == [entry["event"] for entry in logs]
    assert (set(), {}) == (orders.held, orders.kept_until)


def test_folder_in_place_of_the_file_is_survived(tmp_path: Path) -> None:
    """It is neither read nor written, and both say so."""
    (tmp_path / FILE).mkdir()
    with capture_logs() as logs:
        Orders(tmp_path).take(HOST, held=True, kept_until=None)

    assert ["orders-unreadable", "orders-unsaved"] == [entry["event"] for entry in logs]


def test_nothing_to_do_writes_nothing(tmp_path: Path) -> None:
    """What is known already is not written again."""
    orders = Orders(tmp_path)
    orders.take(HOST, held=False, kept_until=None)
    assert [] == list(tmp_path.iterdir())

    orders.take(HOST, held=False, kept_until=WALL)
    (tmp_path / FILE).unlink()
    orders.take(HOST, held=False, kept_until=WALL)
    assert [] == list(tmp_path.iterdir())


def test_without_a_folder_nothing_is_written() -> None:
    """A supervisor may have no state folder; it keeps its orders while it lives."""
    orders = Orders(None)
    orders.take(HOST, held=True, kept_until=None)

    assert {HOST} == orders.held
