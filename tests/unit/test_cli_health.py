"""What a container's check says of the daemon."""

from __future__ import annotations

from pathlib import Path

import pytest

from autostart.cli.health import health
from autostart.config import ServiceConfig
from tests.fakes.daemon import serving

SERVICE = ServiceConfig("a.localhost", port=9001, command=("x",))


def written(folder: Path, listen: str) -> dict[str, str]:
    """Write a map whose admin listener is there; return the variable that names it."""
    path = folder / "autostart.yaml"
    path.write_text(f"admin: {{listen: '{listen}'}}\nservices: {{}}\n")
    return {"AUTOSTART_CONFIG": str(path)}


def test_a_daemon_that_answers_is_healthy(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also without the token that everything else needs."""
    with serving(SERVICE, token="sesame") as daemon:
        status = health(written(tmp_path, daemon.listen))

    assert (0, "ok\n") == (status, capsys.readouterr().out)


def test_no_daemon_is_not_healthy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One line says what was asked."""
    status = health(written(tmp_path, "127.0.0.1:9"))

    assert (1, "error: no autostart serves on 127.0.0.1:9\n") == (status, capsys.readouterr().err)


def test_no_map_is_not_healthy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A folder that was not mounted is told."""
    status = health({"AUTOSTART_CONFIG": str(tmp_path / "gone.yaml")})

    assert 1 == status
    assert "gone.yaml" in capsys.readouterr().err
