"""What runs use, and what they usually take."""

from __future__ import annotations

import pytest

from autostart.schedule import Now
from autostart.telemetry.usage import Sample, Usages
from tests.unit.telemetry_transitions import HOST, NOON, START

NOW = Now(START, NOON)


def sample(memory_bytes: int | None) -> Sample:
    return Sample(NOW, memory_bytes, None)


def test_the_first_sample_is_the_usual_one() -> None:
    """Until more is known; before that nothing is."""
    usages = Usages()
    before = usages.usual_memory_bytes(HOST)
    usages.take(HOST, sample(100))

    assert (before, usages.usual_memory_bytes(HOST)) == (None, 100)


def test_a_new_sample_moves_the_usual_one_a_little() -> None:
    """One peak is not what is usual; an hour of it is."""
    usages = Usages({HOST: 100})
    usages.take(HOST, sample(200))
    once = usages.usual_memory_bytes(HOST)
    for _ in range(59):
        usages.take(HOST, sample(200))

    assert (once, usages.usual_memory_bytes(HOST)) == (110, 200)


def test_a_sample_that_nobody_could_take_changes_nothing_usual() -> None:
    """It is the last one all the same: what it was before is not what it is now."""
    usages = Usages({HOST: 100})
    usages.take(HOST, sample(None))

    assert usages.usual() == {HOST: 100}
    assert usages.last[HOST].memory_bytes is None


@pytest.mark.parametrize("kept", [{HOST: -1}, {HOST: float("inf")}, {HOST: "7"}])
def test_what_is_no_memory_is_refused(kept: dict[str, float]) -> None:
    """With an error that whoever reads the file expects."""
    with pytest.raises((ValueError, TypeError)):
        Usages(kept)
