"""An event loop on which time passes only when nobody has anything else to do.

A story of minutes takes milliseconds, and always the same way: the loop jumps to the next timer as
soon as nothing is ready. A story that waits for what will never happen fails instead of hanging.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import selectors
import sys
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

STARTED_AT = 1000.0
HAS_EAGER_TASKS = sys.version_info >= (3, 12)
TASKS = ("lazy", "eager") if HAS_EAGER_TASKS else ("lazy",)


class _Jumping(selectors.SelectSelector):
    """A selector whose waits are over at once, in no time of this world."""

    loop: VirtualLoop

    def select(self, timeout: float | None = None) -> list[Any]:
        assert timeout is not None, "everybody waits for what will never happen"
        self.loop.pass_time(timeout)
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """A loop whose clock begins at STARTED_AT and jumps."""

    def __init__(self) -> None:
        self._now = STARTED_AT
        selector = _Jumping()
        selector.loop = self
        super().__init__(selector)

    def time(self) -> float:
        return self._now

    def pass_time(self, seconds: float) -> None:
        """Let so many seconds be over."""
        self._now += max(0.0, seconds)


def on_virtual_time(story: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Make a test of a coroutine function: it runs on a VirtualLoop, with lazy and eager tasks."""

    @functools.wraps(story)
    def test(*, tasks: str, **arguments: Any) -> None:
        with asyncio.Runner(loop_factory=VirtualLoop) as runner:
            if tasks == "eager":
                runner.get_loop().set_task_factory(asyncio.eager_task_factory)  # type: ignore[attr-defined]  # Python 3.12
            runner.run(story(**arguments))

    signature = inspect.signature(story)
    tasks = inspect.Parameter("tasks", inspect.Parameter.KEYWORD_ONLY)
    test.__signature__ = signature.replace(  # type: ignore[attr-defined]  # what pytest looks at
        parameters=[*signature.parameters.values(), tasks]
    )
    return pytest.mark.parametrize("tasks", TASKS)(test)
