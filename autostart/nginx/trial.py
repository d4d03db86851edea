"""What the installed nginx says of a text, by `nginx -t` in a scratch folder.

Nothing of the machine's nginx is read, written or reloaded, and any user may do it.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

from autostart.nginx.blocks import Options, Version

# Where Debian puts it, which is on no common user's PATH.
_ELSEWHERE = "/usr/sbin:/usr/local/sbin"
# It reads a few files. Names of upstreams in a snippet of the operator's may need the DNS.
_TRIAL_SECONDS = 60.0
# Below it, ports are root's, who lends them to nginx; a trial opens them and listens on none.
_COMMON_PORT_MIN = 1024
_COMMON_PORT_OFFSET = 20_000

_HAS_EARLY_ERROR_LOG: Version = (1, 19, 5)
_VERSION = re.compile(r"^nginx version: [^/\s]+/([0-9]+(?:\.[0-9]+)*)", re.MULTILINE)
# Before it has opened its log: "nginx: [emerg] …"; then with the date and its process.
_SAID = re.compile(r"(?:nginx:|[0-9/]+ [0-9:]+) \[(?P<level>[a-z]+)\] (?:[0-9#]+: )?(?P<text>.*)")

_SCRATCH = """\
pid {folder}/pid;
error_log stderr;
events {{}}
http {{
    access_log off;
{temporary}
    include {folder}/autostart.conf;
}}
"""


@dataclass(frozen=True)
class Installed:
    """An nginx of this machine."""

    program: str
    version: Version
    built: str
    """What it was built with, as it says."""

    def __str__(self) -> str:
        return "nginx " + ".".join(map(str, self.version))


@dataclass(frozen=True)
class Verdict:
    """What it said, one line each; `works` if it would start."""

    works: bool
    lines: tuple[str, ...]


def installed() -> Installed | None:
    """Return the nginx of this machine, None if there is none that says its version."""
    program = shutil.which("nginx", path=f"{os.environ.get('PATH', os.defpath)}:{_ELSEWHERE}")
    said = None if program is None else _run([program, "-V"])
    return None if program is None or said is None else introduced(program, said.stderr)


def introduced(program: str, said: str) -> Installed | None:
    """Return the nginx that said this to -V; None if it is none, or says no version."""
    match = _VERSION.search(said)
    if match is None:
        return None
    return Installed(program, tuple(map(int, match[1].split("."))), said)


def for_trial(options: Options) -> Options:
    """Return options with which any user may try: on ports that are nobody's privilege."""
    return replace(
        options,
        http_port=_common(options.http_port),
        https_port=_common(options.https_port),
    )


def try_out(text: str, nginx: Installed) -> Verdict:
    """Return what nginx says of a text that `render` gave."""
    with tempfile.TemporaryDirectory(prefix="autostart-nginx-") as folder:
        (Path(folder) / "autostart.conf").write_text(text, encoding="utf-8")
        main = Path(folder) / "nginx.conf"
        main.write_text(
            _SCRATCH.format(folder=folder, temporary=_temporary(folder, nginx)), encoding="utf-8"
        )
        command = [nginx.program, "-t", "-p", folder, "-c", str(main)]
        if nginx.version >= _HAS_EARLY_ERROR_LOG:
            command += ["-e", "stderr"]
        said = _run(command)
    if said is None:
        return Verdict(False, (f"{nginx.program} -t said nothing for {_TRIAL_SECONDS:g} s",))
    lines = [
        f"{match['level']}: {match['text']}".replace(f"{folder}/", "")
        for match in map(_SAID.fullmatch, said.stderr.splitlines())
        # An alert is about its own log, which only root may open.
        if match is not None and match["level"] != "alert"
    ]
    works = said.returncode == 0
    if not works and not lines:
        lines = said.stderr.splitlines()[-1:] or [f"-t ended with {said.returncode}"]
    return Verdict(works, tuple(lines))


def _common(port: int) -> int:
    return port if port >= _COMMON_PORT_MIN else port + _COMMON_PORT_OFFSET


def _temporary(folder: str, nginx: Installed) -> str:
    """Return where it may write: by default where only root may."""
    kinds = ["client_body", "proxy"]
    kinds += [
        kind
        for kind in ("fastcgi", "uwsgi", "scgi")
        if f"--without-http_{kind}_module" not in nginx.built
    ]
    return "\n".join(f"    {kind}_temp_path {folder}/{kind};" for kind in kinds)


def _run(command: list[str]) -> subprocess.CompletedProcess[str] | None:
    try:
        return subprocess.run(  # noqa: S603 - nginx, found on PATH, with words of ours
            command,
            check=False,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_TRIAL_SECONDS,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
