"""autostart/app/notification: what the service manager is told, and when nothing is."""

from __future__ import annotations

import asyncio
import os

from autostart.app.notification import Notification
from tests.unit.virtual_time import on_virtual_time


class Manager:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[str, str]] = []

    def send(self, address: str, text: str) -> None:
        self.told.append((address, text))

    def notification(self, **environment: str) -> Notification:
        return Notification({"NOTIFY_SOCKET": "/run/manager", **environment}, self.send)

    @property
    def texts(self) -> list[str]:
        return [text for _, text in self.told]


def test_each_field_is_a_line_of_one_message() -> None:
    """READY and STATUS arrive together, at the address that the environment names."""
    manager = Manager()
    manager.notification().tell(READY=1, STATUS="2 ready, 1 stopped")

    assert [("/run/manager", "READY=1\nSTATUS=2 ready, 1 stopped")] == manager.told


def test_without_a_manager_nothing_is_sent() -> None:
    """Outside of systemd every call does nothing."""
    manager = Manager()
    notification = Notification({}, manager.send)
    notification.tell(READY=1)
    notification.beat()
    notification.tell_ending(30.0)
    notification.close()

    assert [] == manager.told


def test_the_variables_are_forgotten() -> None:
    """No child finds them: it could say that we are ready, or keep the watchdog quiet."""
    environment = {
        "NOTIFY_SOCKET": "@manager",
        "WATCHDOG_USEC": "30000000",
        "WATCHDOG_PID": str(os.getpid()),
        "PATH": "/bin",
    }
    Notification(environment, Manager().send)

    assert {"PATH": "/bin"} == environment


@on_virtual_time
async def test_the_watchdog_hears_from_the_loop_twice_within_its_patience() -> None:
    """With a patience of 30 s there is a sign of life every 15 s, and none after the close."""
    manager = Manager()
    notification = manager.notification(WATCHDOG_USEC="30000000")
    notification.beat()
    await asyncio.sleep(31.0)
    heard = len(manager.told)
    notification.close()
    await asyncio.sleep(100.0)

    assert 3 == heard == len(manager.told)
    assert {"WATCHDOG=1"} == set(manager.texts)


@on_virtual_time
async def test_a_watchdog_of_another_process_is_not_ours() -> None:
    """WATCHDOG_PID names who is watched; a patience that is no number counts as none."""
    manager = Manager()
    manager.notification(WATCHDOG_USEC="30000000", WATCHDOG_PID="1").beat()
    manager.notification(WATCHDOG_USEC="soon").beat()
    await asyncio.sleep(100.0)

    assert [] == manager.told


@on_virtual_time
async def test_the_status_changes_at_most_once_a_second() -> None:
    """Many transitions in a second are one message, which says how it stands at its end."""
    manager = Manager()
    notification = manager.notification()
    for ready in range(100):
        notification.tell_soon(f"{ready} ready".format)
        await asyncio.sleep(0.001)
    await asyncio.sleep(5.0)
    notification.tell_soon(lambda: "100 ready")
    await asyncio.sleep(5.0)

    assert ["STATUS=0 ready", "STATUS=100 ready"] == manager.texts


@on_virtual_time
async def test_the_end_asks_for_the_time_that_it_may_take() -> None:
    """A long drain_timeout is granted whatever the unit says, and no status follows."""
    manager = Manager()
    notification = manager.notification()
    notification.tell_soon(lambda: "1 ready")
    notification.tell_ending(600.0)
    await asyncio.sleep(5.0)
    (text,) = manager.texts

    assert "STOPPING=1" in text.splitlines()
    assert "EXTEND_TIMEOUT_USEC=600000000" in text.splitlines()
