"""When silence is called silence."""

from __future__ import annotations

from collections.abc import Callable

from autostart.proxy.silence import SilenceClock


class Loop:
    """A loop whose time is set by hand."""

    def __init__(self) -> None:
        self.now = 100.0
        self.alarms: list[tuple[float, Callable[[], None]]] = []

    def time(self) -> float:
        return self.now

    def call_at(self, when: float, callback: Callable[[], None]) -> Loop:
        self.alarms.append((when, callback))
        return self

    def cancel(self) -> None:
        self.alarms.clear()

    def reach(self, when: float) -> None:
        while self.alarms and min(self.alarms, key=lambda alarm: alarm[0])[0] <= when:
            alarm = min(self.alarms, key=lambda alarm: alarm[0])
            self.alarms.remove(alarm)
            self.now = alarm[0]
            alarm[1]()
        self.now = when


def test_it_rings_after_each_silence() -> None:
    """Once per limit, counted from the last movement."""
    loop = Loop()
    rings: list[float] = []
    clock = SilenceClock(loop, 10.0, lambda: rings.append(loop.now))
    loop.reach(105.0)
    clock.moved()
    loop.reach(114.0)
    assert [] == rings
    loop.reach(130.0)

    assert [115.0, 125.0] == rings


def test_movement_costs_no_alarm() -> None:
    """There is one alarm however often something moves."""
    loop = Loop()
    clock = SilenceClock(loop, 10.0, lambda: None)
    for _ in range(1000):
        clock.moved()

    assert 1 == len(loop.alarms)


def test_a_stopped_clock_is_silent() -> None:
    """It leaves no alarm behind."""
    loop = Loop()
    SilenceClock(loop, 10.0, lambda: None).stop()

    assert [] == loop.alarms
