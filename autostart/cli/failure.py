"""How a command that fails says so: one line, a hint, an exit status, never a traceback.

Exit status: 0 done, 1 failed, 2 called wrongly or with a map that cannot be used, 130 interrupted.
"""

from __future__ import annotations

import os
import sys
import traceback
from typing import Any, NoReturn

import click

from autostart.errors import AutostartError, ConfigError

FAILED = 1
MISUSED = 2
INTERRUPTED = 130  # 128 + SIGINT, as shells have it

DEBUG_VARIABLE = "AUTOSTART_DEBUG"


class CommandFailed(Exception):
    """A command could not do what it was asked for."""

    def __init__(
        self, message: str, hint: str = "", status: int = FAILED, *, detail: str = ""
    ) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.status = status
        self.detail = detail  # lines of output that say more


class Commands(click.Group):
    """A group that ends as this module says, run from a shell or from a test."""

    def main(self, *args: Any, **options: Any) -> NoReturn:  # noqa: ANN401 - as click has it
        """Run a command and leave the process."""
        try:
            status = super().main(*args, **{**options, "standalone_mode": False})
            sys.stdout.flush()
        except BrokenPipeError:
            # Whoever read us, `head` for one, has enough. Python would complain at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            status = FAILED
        except (click.Abort, KeyboardInterrupt):
            status = INTERRUPTED
        except Exception as error:  # noqa: BLE001 - the last line of defence: bugs are told apart below
            status = _tell(error)
        sys.exit(status if isinstance(status, int) else 0)


def _tell(error: Exception) -> int:
    """Print what went wrong and return the exit status."""
    match error:
        case click.exceptions.NoArgsIsHelpError():
            click.echo(error.ctx.get_help())
            return MISUSED
        case click.UsageError():
            command = error.ctx.command_path if error.ctx else "autostart"
            return _print(error.format_message(), f"{command} --help", MISUSED)
        case click.ClickException():
            return _print(error.format_message(), "", FAILED)
        case ConfigError():
            return _print(error.message, error.hint, MISUSED)
        case AutostartError():
            return _print(error.for_operator, error.hint, FAILED)
        case CommandFailed():
            for line in error.detail.splitlines():
                click.echo(f"  {line}", err=True)
            return _print(error.message, error.hint, error.status)
    if os.environ.get(DEBUG_VARIABLE):
        traceback.print_exception(error)
    return _print(
        f"bug: {type(error).__name__}: {error}".replace("\n", " "),
        f"{DEBUG_VARIABLE}=1 shows where; the log of autostart serve may say more",
        FAILED,
    )


def _print(message: str, hint: str, status: int) -> int:
    click.echo(message if message.startswith("bug: ") else f"error: {message}", err=True)
    if hint:
        click.echo(f"hint: {hint}", err=True)
    return status
