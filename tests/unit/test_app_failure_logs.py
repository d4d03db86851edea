"""Whose last lines are kept when something fails, and when they are forgotten."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import replace

import pytest
from structlog.testing import capture_logs

from autostart import errors
from autostart.app.failure_logs import LINE_CHARACTERS_MAX, LINES_MAX, READ_SECONDS, FailureLogs
from autostart.config import ServiceConfig
from autostart.lifecycle import Phase, Service, State
from tests.unit.telemetry_transitions import (
    CLEANING,
    FAILURE,
    HOST,
    LOADING,
    READY,
    STARTING,
    STOPPED,
    transition,
)
from tests.unit.virtual_time import on_virtual_time

DIED = replace(STOPPED, failure=errors.StartFailed("ended: exit code 1"))


class Output:
    """A runtime of which only `logs` is asked."""

    name = "fake"

    def __init__(self, *lines: str, error: Exception | None = None, seconds: float = 0) -> None:
        self.lines = list(lines)
        self.error = error
        self.seconds = seconds
        self.asked = 0

    async def logs(
        self, service: ServiceConfig, lines: int, *, follow: bool
    ) -> AsyncGenerator[str]:
        assert not follow
        self.asked += 1
        await asyncio.sleep(self.seconds)
        if self.error is not None:
            raise self.error
        for line in self.lines[-lines:]:
            yield line


async def kept(output: Output, before: Service, after: Service) -> list[str] | None:
    """Return the lines that are kept of this transition, once there was time to read them."""
    logs = FailureLogs(lambda _: output, [])  # type: ignore[arg-type, return-value]  # only its logs
    logs.record(transition(before, after))
    await asyncio.sleep(READ_SECONDS + 1)
    return logs.of(after)


@pytest.mark.parametrize(
    ("before", "after"), [(LOADING, CLEANING), (STARTING, CLEANING), (READY, DIED)]
)
@on_virtual_time
async def test_the_last_lines_of_what_failed_are_kept(before: Service, after: Service) -> None:
    """A start that failed, and a run that died."""
    assert await kept(Output("one", "two"), before, after) == ["one", "two"]


@on_virtual_time
async def test_few_lines_of_bounded_length_are_kept() -> None:
    """They are shown on a page."""
    output = Output(*(f"{number} {'x' * 5_000}" for number in range(100)))
    lines = await kept(output, LOADING, CLEANING)

    assert lines is not None
    assert len(lines) == LINES_MAX
    assert lines[-1].startswith("99 ")
    assert {len(line) for line in lines} == {LINE_CHARACTERS_MAX}


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (STARTING, replace(STOPPED, failure=errors.EngineUnreachable("gone"))),
        (STARTING, replace(CLEANING, failure=errors.PortTaken("taken"))),
        (replace(STARTING, phase=Phase.PREPARING), CLEANING),
        (replace(STARTING, phase=Phase.QUEUED), CLEANING),
        (CLEANING, replace(CLEANING, state=State.FAILED, phase=None)),
        (STOPPED, STARTING),
    ],
)
@on_virtual_time
async def test_where_no_run_failed_nothing_is_read(before: Service, after: Service) -> None:
    """The output is that of an earlier run, or has been read already."""
    output = Output("of an earlier run")

    assert (await kept(output, before, after), output.asked) == (None, 0)


@pytest.mark.parametrize(
    "output",
    [
        Output(),
        Output("late", seconds=READ_SECONDS + 0.5),
        Output(error=errors.EngineUnreachable("gone")),
    ],
)
@on_virtual_time
async def test_output_that_cannot_be_had_is_done_without(output: Output) -> None:
    """It is a convenience, with a deadline."""
    assert await kept(output, LOADING, CLEANING) is None


@on_virtual_time
async def test_a_bug_is_logged_and_nothing_else() -> None:
    """Nobody waits for the lines."""
    with capture_logs() as logs:
        lines = await kept(Output(error=ZeroDivisionError()), LOADING, CLEANING)

    assert lines is None
    assert [line["event"] for line in logs] == ["bug"]


@on_virtual_time
async def test_lines_belong_to_one_failure() -> None:
    """They go with it: when the service is ready again, and while another failure is shown."""
    logs = FailureLogs(lambda _: Output("one"), [])  # type: ignore[arg-type, return-value]  # as above
    logs.record(transition(LOADING, CLEANING))
    await asyncio.sleep(1)
    failed = logs.of(replace(CLEANING, state=State.FAILED, phase=None))
    other = logs.of(replace(CLEANING, failure=errors.StartFailed("another")))
    logs.record(transition(LOADING, READY))

    assert (failed, other) == (["one"], None)
    assert logs.of(CLEANING) is None


@on_virtual_time
async def test_what_left_the_map_is_forgotten() -> None:
    """Lines that are kept, and those that are being read; the others stay."""
    slow, quick = Output("one", seconds=1), Output("one")
    for output in (slow, quick):
        logs = FailureLogs(lambda _, output=output: output, [])  # type: ignore[arg-type, misc, return-value]  # as above
        logs.record(transition(LOADING, CLEANING))
        await asyncio.sleep(0.5)
        logs.keep([HOST])
        logs.keep(["another"])
        await asyncio.sleep(1)

        assert logs.of(CLEANING) is None


@on_virtual_time
async def test_who_watches_the_fleet_is_told_that_lines_have_come() -> None:
    """They come a moment after the failure itself was shown."""
    told: list[str] = []
    logs = FailureLogs(lambda _: Output("one"), [told.append])  # type: ignore[arg-type, return-value]  # as above
    logs.record(transition(LOADING, CLEANING))
    at_once = list(told)
    await asyncio.sleep(1)

    assert (at_once, told) == ([], [HOST])


@on_virtual_time
async def test_the_next_failure_ends_the_reading_of_the_last() -> None:
    """One question at a time for each service."""
    output = Output("one", seconds=1)
    logs = FailureLogs(lambda _: output, [])  # type: ignore[arg-type, return-value]  # as above
    logs.record(transition(LOADING, CLEANING))
    await asyncio.sleep(0.5)
    logs.record(transition(LOADING, replace(CLEANING, failure=errors.StartFailed("again"))))
    await asyncio.sleep(2)
    await logs.close()

    assert output.asked == 2
    assert FAILURE.message == "exit code 3"
    assert logs.of(CLEANING) is None
