"""The README's lines for a server, typed as they stand into a bare Debian that systemd runs.

Replaced, because this machine has neither: `<this repository>` is a clone of the working tree, the
name leads to the machine by /etc/hosts, and certbot is a stand-in that proves the name by the
webroot and signs with an authority of its own. apt, pip, make, nginx, systemd and curl are real.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.booted import Booted, booted
from tests.daemon import ROOT

pytestmark = pytest.mark.timeout(600)

HOST = "whisper.example.com"
REMOTE = "/srv/autostart.git"


def readme_lines() -> list[str]:
    """Return the lines of the first block under "On a server"."""
    section = (ROOT / "README.md").read_text(encoding="utf-8").split("\n## On a server\n")[1]
    block = re.search(r"^```\n(.*?)^```$", section, re.DOTALL | re.MULTILINE)
    assert block is not None
    return block[1].splitlines()


def clone_of_the_working_tree(folder: Path) -> Path:
    """Return a repository whose only commit is what lies here now, but for what git ignores."""
    listing = ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others"]
    done = subprocess.run([*listing, "--exclude-standard"], check=True, capture_output=True)
    tree = folder / "tree"
    for name in done.stdout.decode().split("\0"):
        source = ROOT / name
        if name and (source.is_symlink() or source.is_file()):
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, tree / name, follow_symlinks=False)
    author = ["-c", "user.name=test", "-c", "user.email=test@example.com"]
    for command in (
        ["init", "--quiet", "--initial-branch", "main"],
        ["add", "--all"],
        [*author, "commit", "--quiet", "--message", "as it lies here"],
        ["clone", "--quiet", "--bare", ".", str(folder / "bare")],
    ):
        subprocess.run(["git", "-c", "core.hooksPath=/dev/null", *command], cwd=tree, check=True)
    return folder / "bare"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Booted]:
    """A bare Debian to which the name leads, and what stands in for the world outside."""
    with booted("--add-host", f"{HOST}:127.0.0.1") as here:
        here.copy(clone_of_the_working_tree(tmp_path_factory.mktemp("remote")), REMOTE)
        here.copy(ROOT / "tests/stand_in_certbot.sh", "/usr/local/bin/certbot")
        here.run("chmod 755 /usr/local/bin/certbot; git config --global safe.directory '*' || true")
        yield here


def test_the_readmes_lines_end_in_a_transcript(server: Booted) -> None:
    """From a bare Debian to words over HTTPS, in ten lines."""
    lines = readme_lines()
    typed = "\n".join(["set -e", *lines]).replace("<this repository>", REMOTE)
    said = server.run(typed, seconds=500)
    print(said)

    assert len(lines) <= 10
    assert '{"text":"three one four one five nine",' in said


def test_who_has_no_key_wakes_nothing(server: Booted) -> None:
    """nginx leaves the key to autostart, which refuses before anything is woken."""
    server.run(f"autostart stop {HOST}")
    url = f"https://{HOST}/v1/audio/transcriptions"
    status = server.run(f"curl -sS -o /dev/null -w '%{{http_code}}' -X POST {url}")

    assert "401" == status
    assert "stopped" in server.run("autostart status")


def test_the_certificate_is_renewed_by_the_same_line(server: Booted) -> None:
    """The server blocks leave certbot's folder on port 80, and nginx takes the new certificate."""
    (line,) = (line for line in readme_lines() if line.startswith("certbot"))
    shown = (
        f"openssl s_client -connect {HOST}:443 </dev/null 2>/dev/null | openssl x509 -serial -noout"
    )
    before = server.run(shown)
    server.run(line)
    server.wait_for(f"[ '{before}' != \"$({shown})\" ] && echo renewed", "renewed")


def test_an_upgrade_is_the_same_two_commands(server: Booted) -> None:
    """make install and systemctl restart: the service is taken over, its next answer is warm."""
    key = ". /etc/autostart/environment"
    url = f"https://{HOST}/v1/models"
    ask = f'{key}; curl -sS --fail -D - -o /dev/null -H "Authorization: Bearer $WHISPER_KEYS" {url}'
    cold = server.run(ask)
    server.run(
        "make -C /usr/local/src/autostart install && systemctl restart autostart", seconds=200
    )
    warm = server.run(ask)

    assert "autostart-start: cold" in cold.lower()
    assert "autostart-start" not in warm.lower()
