"""A second Docker engine, for tests that hang one, stop one or fill its disk.

Nothing is shared with the machine's engine, not even the network: two in one would take away each
other's bridge. Its containers' ports are on the loopback of its own network namespace, so whoever
calls them runs there too (`inside`), and is reached from here by unix sockets.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path

import psutil

from tests.containers import docker, missing, plain_image, skip_or_fail

NEEDED = ("dockerd", "containerd", "ip", "nsenter", "mount")
ANSWERS_SECONDS = 30.0


def require_private_engine() -> None:
    """Skip the calling test, or fail it in CI, where a second engine cannot be started."""
    reason = missing()
    if reason is None and os.geteuid() != 0:
        reason = "only root can start a second engine"
    lacking = [program for program in NEEDED if shutil.which(program) is None]
    if reason is None and lacking:
        reason = f"a second engine needs {', '.join(lacking)}"
    skip_or_fail(reason)


class PrivateEngine:
    """One dockerd. `host` is for DOCKER_HOST."""

    def __init__(self, folder: Path, *, data_root: Path | None, options: Sequence[str]) -> None:
        self.folder = folder
        self.data_root = data_root or folder / "data"
        self.options = options
        self.name = f"autostart-{uuid.uuid4().hex[:8]}"  # its network namespace
        # Not `ip netns exec`, which hides the cgroups.
        self.inside = ["nsenter", f"--net=/run/netns/{self.name}"]
        self.host = f"unix://{folder}/docker.sock"
        self.process: subprocess.Popen[bytes] | None = None
        self.containerd: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it on what it has, and wait until it answers."""
        self._start_containerd()
        command = [
            *self.inside,
            "dockerd",
            *("--data-root", str(self.data_root), "--exec-root", str(self.folder / "exec")),
            *("--pidfile", str(self.folder / "pid"), "--host", self.host),
            *("--containerd", str(self.folder / "containerd.sock")),
            *self.options,
        ]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log)
        deadline = time.monotonic() + ANSWERS_SECONDS
        while not self.answers():
            assert time.monotonic() < deadline, (self.folder / "log").read_text()[-3000:]
            time.sleep(0.05)

    def _start_containerd(self) -> None:
        """Start what outlives the engine, as a service of its own does."""
        if self.containerd is not None:
            return
        paths = {"root": "lib", "state": "run", "address": "containerd.sock"}
        options = [f"--{name}={self.folder / path}" for name, path in paths.items()]
        with (self.folder / "log").open("ab") as log:
            self.containerd = subprocess.Popen(["containerd", *options], stdout=log, stderr=log)
        deadline = time.monotonic() + ANSWERS_SECONDS
        while not (self.folder / "containerd.sock").exists():
            assert time.monotonic() < deadline, (self.folder / "log").read_text()[-3000:]
            time.sleep(0.02)

    def answers(self) -> bool:
        try:
            docker("version", "--format", "{{.Server.Version}}", host=self.host, seconds=5)
        except (AssertionError, subprocess.TimeoutExpired):
            return False
        return True

    def load_plain_image(self) -> str:
        """Give it the image of the plain service; return its name."""
        name = plain_image()
        environment = {**os.environ, "DOCKER_HOST": self.host}
        with subprocess.Popen(["docker", "save", name], stdout=subprocess.PIPE) as saved:
            subprocess.run(
                ["docker", "load", "--quiet"], stdin=saved.stdout, env=environment, check=True
            )
        return name

    def freeze(self) -> None:
        """Hang it: it accepts connections and says nothing; what runs goes on."""
        self._dockerd().send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._dockerd().send_signal(signal.SIGCONT)

    def stop(self) -> None:
        """End it in order; without live-restore it stops its containers first."""
        self._dockerd().terminate()
        self._dockerd().wait(30)

    def kill(self) -> None:
        """End it at once; containers stay, docker-proxy does not."""
        self._dockerd().kill()
        self._dockerd().wait(10)

    def _processes(self) -> list[psutil.Process]:
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if any(str(self.folder) in word for word in process.cmdline()):
                    found.append(process)
        return found

    def _dockerd(self) -> subprocess.Popen[bytes]:
        assert self.process is not None
        return self.process

    def clean_up(self) -> None:
        """Leave nothing: no process, no mount, no bridge."""
        if self.process is not None and self.process.poll() is None:
            self.thaw()
            if self.answers():
                for container in docker("ps", "--all", "--quiet", host=self.host).split():
                    docker("rm", "--force", "--volumes", container, host=self.host)
                docker("network", "prune", "--force", host=self.host)
            self.stop()
        if self.containerd is not None:
            self.containerd.terminate()
            self.containerd.wait(10)
        for process in self._processes():
            with contextlib.suppress(psutil.Error):
                process.kill()
        for line in reversed(Path("/proc/mounts").read_text().splitlines()):
            if (mounted := line.split()[1]).startswith(str(self.folder)):
                subprocess.run(["umount", "--lazy", mounted], check=False)


@contextlib.contextmanager
def private_engine(
    folder: Path, *, data_root: Path | None = None, options: Sequence[str] = ()
) -> Iterator[PrivateEngine]:
    """Run a second engine for the length of the block, with these options of dockerd's.

    `folder` has a short path, for sockets.
    """
    require_private_engine()
    folder.mkdir(parents=True, exist_ok=True)
    engine = PrivateEngine(folder, data_root=data_root, options=options)
    _ip("netns", "add", engine.name)
    try:
        _ip("-netns", engine.name, "link", "set", "lo", "up")
        engine.start()
        yield engine
    finally:
        engine.clean_up()
        _ip("netns", "delete", engine.name)
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def small_filesystem(folder: Path, megabytes: int) -> Iterator[Path]:
    """Mount a file system of this size for the length of the block."""
    require_private_engine()
    folder.mkdir(parents=True)
    image = folder.with_suffix(".img")
    with image.open("wb") as file:
        file.truncate(megabytes * 1024 * 1024)
    subprocess.run(["mkfs.ext4", "-q", str(image)], check=True)
    subprocess.run(["mount", "-o", "loop", str(image), str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)
