"""What `status` shows, and to whom: JSON, plain text, a picture, or one that moves."""

from __future__ import annotations

import json
import sys

import click

from autostart.cli.client import Client
from autostart.cli.progress import can_move
from autostart.cli.table import status_table


def show_status(client: Client, *, as_json: bool, moves: bool) -> None:
    """Show what every service does, once, or again and again until Ctrl-C.

    Raises click.UsageError where it cannot move.
    """
    if moves:
        if not can_move(sys.stdout):
            text = "--watch moves on a terminal only; for programs there is GET /api/events"
            raise click.UsageError(text)
        from autostart.cli.watch import watch  # noqa: PLC0415 - rich is slow to import

        watch(client)
        return
    services = client.services()
    if as_json:
        click.echo(json.dumps(services, indent=2))
    elif sys.stdout.isatty():
        from rich.console import Console  # noqa: PLC0415 - slow to import

        from autostart.cli.picture import Size, picture  # noqa: PLC0415 - as above

        console = Console(highlight=False)
        console.print(picture(services, Size(console.width)), soft_wrap=True)
    else:
        # Where nobody looks, nothing has to be cut.
        click.echo(status_table(services, width=sys.maxsize))
