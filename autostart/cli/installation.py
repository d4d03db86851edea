"""`autostart install`: this autostart, with this map, as a service of the machine.

It says what it would do; `--write` does it. Doing it twice changes nothing the second time.
"""

from __future__ import annotations

import grp
import os
import pwd
import shlex
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from autostart.cli import units
from autostart.cli.failure import CommandFailed
from autostart.cli.location import Location
from autostart.config import Map, load

UNIT_FOLDER = Path("/etc/systemd/system")
ENVIRONMENT_FILE = Path("/etc/autostart/environment")
STATE_FOLDER = Path("/var/lib/autostart")
USER = "autostart"
DOCKER_GROUP = "docker"
# systemd's own mark of a machine that it runs; sd_booted(3).
SYSTEMD_RUNS = Path("/run/systemd/system")
# Type=notify: `systemctl start` ends when autostart serves, at the latest after TimeoutStartSec.
COMMAND_SECONDS = 180


@dataclass(frozen=True)
class Unit:
    """A file to write."""

    path: Path
    text: str

    @property
    def is_new(self) -> bool:
        return not self.path.exists()

    @property
    def is_same(self) -> bool:
        return not self.is_new and self.path.read_text(encoding="utf-8") == self.text

    @property
    def was_edited(self) -> bool:
        if self.is_new or self.is_same:
            return False
        return units.is_edited(self.path.read_text(encoding="utf-8"))


@click.command()
@click.option("--write", is_flag=True, help="Do it; needs root.")
@click.option("--now", is_flag=True, help="With --write: also start it, now and with the machine.")
@click.option("--user", default=USER, show_default=True, help="As whom it runs; made if missing.")
@click.option("--force", is_flag=True, help="Replace edited units; they are kept as *.old.")
@click.option(
    "--into",
    type=click.Path(path_type=Path, file_okay=False),
    default=UNIT_FOLDER,
    show_default=True,
    help="The folder of the units.",
)
@click.pass_obj
def install(
    location: Location, *, write: bool, now: bool, user: str, force: bool, into: Path
) -> None:
    """Make autostart a service of systemd.

    Prints the units and commands; nothing is changed without --write.
    """
    if now and not write:
        raise click.UsageError("--now starts what --write writes: give both")
    path = location.path.absolute()
    declared = load(path, {**_environment(ENVIRONMENT_FILE), **os.environ})
    program = _own_program()
    for problem, hint in _closed(declared, program, user):
        if write and hint:
            raise CommandFailed(problem, hint)
        _warn(problem)
    planned = [Unit(into / name, text) for name, text in _texts(declared, program, user).items()]
    if not write:
        _print(planned, user)
        return
    if not os.access(into, os.W_OK):
        raise CommandFailed(f"you may not write to {into}", "sudo autostart install --write")
    for unit in planned:
        if unit.was_edited and not force:
            text = f"{unit.path} was edited, or is not from autostart install"
            hint = f"move your changes to a drop-in (systemctl edit {unit.path.name}), then --force"
            raise CommandFailed(text, hint)
    _make_user(user)
    changed = [_write(unit) for unit in planned]
    _run("systemctl", "daemon-reload")
    if now:
        _start(*changed)


def _texts(declared: Map, program: Path, user: str) -> dict[str, str]:
    groups = []
    if any(service.compose is not None for service in declared.services.values()):
        if _has_group(DOCKER_GROUP):
            groups = [DOCKER_GROUP]
        else:
            _warn(f"no group {DOCKER_GROUP}: install Docker, then run this again")
    return {
        units.SERVICE: units.service_unit(declared, program=program, user=user, groups=groups),
        units.SOCKET: units.socket_unit(declared, user=user),
    }


# What it would do.


def _print(planned: Sequence[Unit], user: str) -> None:
    for unit in planned:
        new = "new" if unit.is_new else "unchanged" if unit.is_same else "replaced"
        if unit.was_edited:
            new = "edited by hand: replaced only with --force"
        click.echo(f"# {unit.path} ({new})\n{unit.text}")
    commands = [] if _has_user(user) else [_user_command(user)]
    commands += [("systemctl", "daemon-reload"), *_start_commands(was_active=False)]
    click.echo("# commands")
    for command in commands:
        click.echo(shlex.join(command))
    click.echo("nothing was changed: autostart install --write --now does all of it", err=True)


# Doing it.


def _make_user(user: str) -> None:
    if not _has_user(user):
        _run(*_user_command(user))


def _user_command(user: str) -> tuple[str, ...]:
    home = ("--home-dir", str(STATE_FOLDER), "--no-create-home")
    return ("useradd", "--system", "--user-group", *home, "--shell", "/usr/sbin/nologin", user)


def _write(unit: Unit) -> bool:
    """Write a unit, if it is not there already; return whether anything changed."""
    if unit.is_same:
        click.echo(f"unchanged {unit.path}")
        return False
    try:
        if unit.was_edited:
            kept = unit.path.with_name(f"{unit.path.name}.old")
            unit.path.replace(kept)
            click.echo(f"kept {kept}")
        fresh = unit.path.with_name(f".{unit.path.name}.new")
        fresh.write_text(unit.text, encoding="utf-8")
        fresh.chmod(0o644)
        fresh.replace(unit.path)
    except OSError as error:
        raise CommandFailed(f"{unit.path}: {error.strerror}") from error
    click.echo(f"wrote {unit.path}")
    return True


def _start(service_changed: bool, socket_changed: bool) -> None:
    was_active = _run("systemctl", "is-active", "--quiet", units.SERVICE, must_work=False)
    commands = _start_commands(was_active=was_active)
    if was_active and socket_changed:
        # In one go: systemd stops the service first, and starts the socket first.
        commands.append(("systemctl", "restart", units.SOCKET, units.SERVICE))
    elif was_active and service_changed:
        commands.append(("systemctl", "restart", units.SERVICE))
    for command in commands:
        _run(*command)


def _start_commands(*, was_active: bool) -> list[tuple[str, ...]]:
    now = () if was_active else ("--now",)
    return [("systemctl", "enable", *now, units.SOCKET, units.SERVICE)]


def _run(*command: str, must_work: bool = True) -> bool:
    """Run a command that has something to say in its own words; return whether it worked."""
    shown = shlex.join(command)
    if must_work:
        click.echo(shown)
    if shutil.which(command[0]) is None:
        raise CommandFailed(f"there is no {command[0]} on this machine", f"it was to run: {shown}")
    if command[0] == "systemctl" and not SYSTEMD_RUNS.is_dir():
        hint = "the units are written; a machine that systemd runs takes them when it starts"
        raise CommandFailed("systemd does not run this machine", hint)
    try:
        done = subprocess.run(command, check=False, timeout=COMMAND_SECONDS)  # noqa: S603 - our own words
    except subprocess.TimeoutExpired as error:
        text = f"{shown}: no end within {COMMAND_SECONDS} s"
        raise CommandFailed(text, f"journalctl -u {units.SERVICE} -n 20") from error
    if must_work and done.returncode != 0:
        hint = f"journalctl -u {units.SERVICE} -n 20" if "--now" in command else ""
        raise CommandFailed(f"{shown}: exit status {done.returncode}", hint)
    return done.returncode == 0


# What it needs.


def _own_program() -> Path:
    """Return the program that this is, as an absolute path that stays."""
    program = Path(sys.executable).absolute().parent / "autostart"
    if not os.access(program, os.X_OK):
        text = f"{program} is not here: this autostart was not installed by pip"
        raise CommandFailed(text, "make install, or: pip install . in a virtual environment")
    return program


def _closed(declared: Map, program: Path, user: str) -> Iterator[tuple[str, str]]:
    """Yield what the unit's user cannot read; with a hint where nothing works without it."""
    needed = [
        (program, "install it where all may read: make install PREFIX=/opt/autostart"),
        (Path(sys.executable).resolve(), "use a python that all may read: /usr/bin/python3"),
        (declared.path.resolve(), f"put it where {user} may read it: {ENVIRONMENT_FILE.parent}"),
        *((path.resolve(), "") for path in sorted(set(_needed(declared)))),
    ]
    for path, hint in needed:
        if path.exists() and (closed := closed_at(path, user)):
            yield f"{path} cannot be read by the user {user}: {closed}", hint


def _needed(declared: Map) -> Iterator[Path]:
    for service in declared.services.values():
        yield from (path for path in (service.compose, service.gpu_compose) if path is not None)
        if service.command is not None:
            yield service.directory
        if service.access is not None and service.access.basic_file is not None:
            yield service.access.basic_file


def closed_at(path: Path, user: str) -> str | None:
    """Say which folder on the way, or the file, keeps a user out; None if nothing does.

    Goes by modes alone. Who is not there yet has no more rights than anybody.
    """
    try:
        entry = pwd.getpwnam(user)
        uid, groups = entry.pw_uid, set(os.getgrouplist(user, entry.pw_gid))
    except KeyError:
        uid, groups = -1, set()
    if uid == 0:
        return None
    for each in (*reversed(path.parents), path):
        status = each.stat()
        wanted = stat.S_IXOTH if stat.S_ISDIR(status.st_mode) else stat.S_IROTH
        if status.st_uid == uid:
            wanted <<= 6
        elif status.st_gid in groups:
            wanted <<= 3
        if not status.st_mode & wanted:
            return f"{each} has mode {stat.S_IMODE(status.st_mode):04o}"
    return None


def _environment(path: Path) -> dict[str, str]:
    """Return what the unit's environment file will set: a map may need a token of it."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        return {}
    pairs = [
        line.split("=", 1) for line in lines if "=" in line and not line.startswith(("#", ";"))
    ]
    return {key.strip(): value.strip().strip("\"'") for key, value in pairs}


def _has_user(user: str) -> bool:
    try:
        pwd.getpwnam(user)
    except KeyError:
        return False
    return True


def _has_group(group: str) -> bool:
    try:
        grp.getgrnam(group)
    except KeyError:
        return False
    return True


def _warn(text: str) -> None:
    click.echo(f"warning: {text}", err=True)
