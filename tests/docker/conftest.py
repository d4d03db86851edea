"""Fixtures of what only an engine can show."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.client import client
from tests.containers import docker, remove_projects, require_engine

__all__ = ["client"]


@pytest.fixture(autouse=True)
def engine(tmp_path: Path) -> Iterator[None]:
    """An engine that answers; the test's projects are removed, and nothing of them stays."""
    require_engine()
    yield
    remove_projects(under=tmp_path)
    label = "label=com.docker.compose.project.working_dir"
    shown = docker("ps", "--all", "--filter", label, "--format", "{{.Labels}}")
    assert str(tmp_path) not in shown
