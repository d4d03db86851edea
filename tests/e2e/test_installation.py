"""`autostart install` where nothing may be changed; tests/docker/test_systemd has what changes."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.containers import skip_or_fail
from tests.daemon import HOST, Daemon, free_port, plain


@pytest.fixture
def declared(tmp_path: Path) -> Daemon:
    """A map with a door; nothing is started."""
    return Daemon(tmp_path, {HOST: plain(listen=f"127.0.0.1:{free_port()}")})


def run(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)


def texts_of(said: str) -> dict[str, str]:
    """Return the units that a dry run printed, by name."""
    parts = said.partition("# commands\n")[0].split("# /units/")[1:]
    return {part.partition(" ")[0]: part.partition("\n")[2] for part in parts}


async def test_without_write_it_prints_and_changes_nothing(declared: Daemon) -> None:
    """Both units with this program and this map, the commands, and not one file."""
    before = sorted(declared.folder.iterdir())
    status, said = await declared.run_cli("install", "--user", "root", "--into", "/units")
    units = texts_of(said)

    assert 0 == status
    assert {"autostart.service", "autostart.socket"} == units.keys()
    assert f"AUTOSTART_CONFIG={declared.map_path}" in units["autostart.service"]
    assert f"ListenStream=127.0.0.1:{declared.port}\n" in units["autostart.socket"]
    assert 2 == units["autostart.socket"].count("\nListenStream=")
    assert "systemctl enable --now autostart.socket autostart.service" in said
    assert "nothing was changed" in said
    assert before == sorted(declared.folder.iterdir())


async def test_systemd_verifies_what_is_printed(declared: Daemon, tmp_path: Path) -> None:
    """systemd-analyze finds no fault with the units, and rates the cage as it should be."""
    tool = shutil.which("systemd-analyze")
    skip_or_fail(None if tool else "there is no systemd-analyze: apt install systemd")
    _, said = await declared.run_cli("install", "--user", "root", "--into", "/units")
    paths = []
    for name, text in texts_of(said).items():
        paths.append(tmp_path / name)
        paths[-1].write_text(text)
    verified = run([str(tool), "verify", *map(str, paths)])
    # In tenths; as root, who is here for certain, it counts 0.4 more than as autostart.
    rated = run([str(tool), "security", "--offline=yes", "--threshold=29", str(paths[0])])

    assert (0, "") == (verified.returncode, verified.stderr)
    assert 0 == rated.returncode, rated.stdout[-200:]


async def test_now_without_write_is_refused(declared: Daemon) -> None:
    """Nobody believes that a dry run has started something."""
    status, said = await declared.run_cli("install", "--now")

    assert 2 == status
    assert "give both" in said


async def test_a_map_with_problems_is_not_installed(declared: Daemon) -> None:
    """Its problems are printed; a unit that cannot start is never written."""
    declared.map_path.write_text("services: {a.example.com: {}}")
    status, said = await declared.run_cli("install", "--user", "root", "--into", "/units")

    assert 2 == status
    assert "a.example.com" in said
    assert "ListenStream" not in said


async def test_a_folder_that_is_closed_to_the_user_is_said(declared: Daemon) -> None:
    """A map, or an environment under /root, that the unit's user cannot reach is named with why."""
    declared.folder.chmod(0o700)
    arguments = ("install", "--user", "nobody", "--into", str(declared.folder))
    _, printed = await declared.run_cli(*arguments)
    status, refused = await declared.run_cli(*arguments, "--write")

    assert f"warning: {declared.map_path} cannot be read by the user nobody" in printed
    assert 1 == status
    assert "cannot be read by the user nobody" in refused
    assert "has mode 0700" in refused
    assert not (declared.folder / "autostart.service").exists()
