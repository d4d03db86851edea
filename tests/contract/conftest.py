"""Fixtures of the runtime suite."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from autostart.runtimes.base import Runtime
from tests.contract.workbenches import ENGINES, HOST, OTHER, WORKBENCHES, Workbench


@pytest.fixture(params=WORKBENCHES)
async def bench(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Workbench]:
    async with {**WORKBENCHES, **ENGINES}[request.param](tmp_path) as workbench:
        yield workbench


@pytest.fixture
async def make(bench: Workbench) -> AsyncIterator[Callable[[], Runtime]]:
    """Make runtimes that know HOST and OTHER, and are closed at the end."""
    made: list[Runtime] = []

    def make_runtime() -> Runtime:
        made.append(bench.runtime())
        made[-1].declare([bench.service(HOST), bench.service(OTHER)])
        return made[-1]

    yield make_runtime
    for runtime in made:
        await runtime.close()


@pytest.fixture
def runtime(make: Callable[[], Runtime]) -> Runtime:
    return make()
