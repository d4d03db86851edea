"""Whether the daemon of the map answers: `python -m autostart.cli.health`, for a container's check.

Exit status 0 or 1, and one line. Asks /healthz, which needs no token and wakes nothing.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

import click

from autostart.cli.client import Client
from autostart.cli.failure import FAILED
from autostart.cli.location import CONFIG_VARIABLE, Location
from autostart.errors import AutostartError


def health(environ: Mapping[str, str] = os.environ) -> int:
    """Print what is wrong, if anything; return the exit status."""
    named = environ.get(CONFIG_VARIABLE)
    try:
        Client(*Location(Path(named) if named else None).admin(environ)).health()
    except AutostartError as error:
        click.echo(f"error: {error.for_operator}", err=True)
        return FAILED
    click.echo("ok")
    return 0


if __name__ == "__main__":
    sys.exit(health())
