"""One line on a terminal that moves while something takes long: phase, time, last words.

On stderr, and gone when it is over; nothing at all where nobody looks.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

import click

from autostart.cli.table import Answer


def can_move(*streams: TextIO) -> bool:
    """Whether these all go to a person's terminal, and that can move its cursor."""
    is_able = os.environ.get("TERM", "dumb") not in {"dumb", "unknown"}
    return is_able and all(stream.isatty() for stream in streams)


def lines_unless_moving() -> Callable[[str], None]:
    """Return what prints a line of a pull or a build, or drops it where the moving line has it."""
    return _drop if _is_looked_at() else click.echo


@contextmanager
def moving_line() -> Iterator[Callable[[Answer], None]]:
    """Give something to call with the service again and again, which draws it if anybody looks."""
    if not _is_looked_at():
        yield _drop
        return
    # Here: a tenth of a second, which commands that print a line do not need.
    from rich.console import Console  # noqa: PLC0415 - see above
    from rich.live import Live  # noqa: PLC0415 - see above

    from autostart.cli.picture import progress_line  # noqa: PLC0415 - see above

    began = time.monotonic()
    console = Console(stderr=True)
    with Live(console=console, auto_refresh=False, transient=True) as live:

        def show(service: Answer) -> None:
            elapsed_seconds = time.monotonic() - began
            is_ascii = console.options.ascii_only
            drawn = progress_line(service, elapsed_seconds, is_ascii=is_ascii)
            live.update(drawn, refresh=True)

        yield show


def _is_looked_at() -> bool:
    # Both: where one is a file or a pipe, the line would stand between what the other prints.
    return can_move(sys.stdout, sys.stderr)


def _drop(_: object) -> None:
    """Do nothing with it."""
