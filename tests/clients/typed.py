"""Runs what a guide told its readers to type, as they do."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from tests.containers import skip_or_fail


def run_as_typed(command: str, folder: Path, **environment: str) -> str:
    """Run a line with curl in it, in a folder; return what it prints."""
    if shutil.which("curl") is None:
        skip_or_fail("there is no curl command")
    return run(["bash", "-c", command], folder, **environment)


def run(command: list[str], folder: Path, **environment: str) -> str:
    """Run a command in a folder; return what it prints, fail with what it says."""
    done = subprocess.run(
        command,
        cwd=folder,
        env={"PATH": os.environ["PATH"], **environment},
        check=False,
        capture_output=True,
        text=True,
        timeout=90,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
