"""A bare Debian that systemd runs, in a container: what `systemctl` really does.

The container has the rights that systemd needs (all that this machine's root has), a cgroup
namespace of its own with the unified hierarchy, and a network of its own.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import time
import uuid
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from tests.containers import TESTS, docker, require_engine, skip_or_fail

# Named as nothing else is, so that what a killed run left can be found.
PREFIX = "autostart-booted-"
BOOT = "umount -R /sys/fs/cgroup; mount -t cgroup2 cgroup2 /sys/fs/cgroup && exec /sbin/init"
BOOT_SECONDS = 30.0
_UNCONFINED = ("--security-opt", "seccomp=unconfined", "--security-opt", "apparmor=unconfined")
# Some machines' own root has no CAP_SYS_RESOURCE to give; then --privileged is refused.
_RIGHTS = ("--cap-add", "ALL", "--cap-drop", "SYS_RESOURCE", *_UNCONFINED)


class Booted:
    """A running one, by the name of its container."""

    def __init__(self, name: str) -> None:
        self.name = name

    def run(self, command: str, *, seconds: float = 120, check: bool = True) -> str:
        """Run a line of bash as root; return what it prints, on both outputs."""
        done = subprocess.run(
            ["docker", "exec", "--env", "HOME=/root", self.name, "bash", "-c", command],
            check=False,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=seconds,
        )
        assert not check or done.returncode == 0, f"{command}: {done.returncode}\n{done.stdout}"
        return done.stdout.strip()

    def fails(self, command: str) -> str:
        """Run a line that must fail; return what it says."""
        said, _, status = self.run(f"{command}; echo :$?", check=False).rpartition(":")
        assert status != "0", said
        return said

    def copy(self, source: Path, target: str) -> None:
        """Copy a file or a folder into it."""
        docker("cp", str(source), f"{self.name}:{target}")

    def write(self, path: str, text: str) -> None:
        """Write a file, readable by all, and its folders."""
        command = ["docker", "exec", "--interactive", self.name]
        line = f"mkdir -p {Path(path).parent} && cat >{path}"
        subprocess.run([*command, "bash", "-c", line], check=True, input=text, text=True)

    @property
    def address(self) -> str:
        """Where it is reached from here."""
        shown = json.loads(docker("inspect", self.name))[0]
        return str(shown["NetworkSettings"]["IPAddress"])

    def wait_for(self, command: str, expected: str, *, seconds: float = 30) -> None:
        """Wait until a line prints what is expected."""
        deadline = time.monotonic() + seconds
        while (said := self.run(command, check=False)) != expected:
            assert time.monotonic() < deadline, (
                f"{command}: {said}, not {expected}\n{self.journal()}"
            )
            time.sleep(0.1)

    def journal(self) -> str:
        return self.run("journalctl --no-pager -n 40", check=False)


@cache
def image() -> str:
    """Return the name of the image: Debian's with Debian's own systemd, and nothing more."""
    name = "autostart-booted"
    folder = TESTS / "images/booted"
    docker("build", "--quiet", "--network", "host", "--tag", name, str(folder), seconds=600)
    return name


@contextlib.contextmanager
def booted(*options: str) -> Iterator[Booted]:
    """Boot one for the length of the block; skip, or fail, where that is not possible."""
    require_engine()
    here = Booted(f"{PREFIX}{uuid.uuid4().hex[:8]}")
    tmpfs = ("--tmpfs", "/run:exec", "--tmpfs", "/run/lock", "--tmpfs", "/tmp:exec")
    known = ("--detach", "--name", here.name, "--cgroupns", "private", "--env", "container=docker")
    try:
        try:
            docker("run", *known, *_RIGHTS, *tmpfs, *options, image(), "sh", "-c", BOOT)
            here.wait_for("systemctl is-system-running", "running", seconds=BOOT_SECONDS)
        except AssertionError as error:
            skip_or_fail(f"systemd does not boot in a container here: {str(error)[-300:]}")
        yield here
    finally:
        with contextlib.suppress(AssertionError):
            docker("rm", "--force", "--volumes", here.name)
