"""What a shell offers at TAB: the scripts as printed, in the shells themselves."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.terminal import terminal

MAP = """\
admin: {listen: "127.0.0.1:9"}
services:
  whisper.example.com: {name: Whisper API, aliases: [stt.example.com], command: [x], port: 9001}
  voxtral.example.com: {command: [x], port: 9002}
"""
ENVIRONMENT = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
# As bash itself fills them in when TAB is pressed at the end of the line.
ASK = """\
set -u
eval "$(autostart completion bash)"
COMP_WORDS=("$@") COMP_CWORD=$(($# - 1)) COMPREPLY=()
_autostart_completion autostart
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a map, and nobody who serves it."""
    (tmp_path / "autostart.yaml").write_text(MAP)
    return tmp_path


def offered(folder: Path, *words: str) -> list[str]:
    """Return what bash offers for the last word."""
    done = subprocess.run(
        ["bash", "--norc", "-c", ASK, "bash", *words],
        cwd=folder,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (0, "") == (done.returncode, done.stderr)
    return done.stdout.split()


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["sta"], ["start", "status"]),
        (["completion", ""], ["bash", "zsh", "fish"]),
        (["start", "w"], ["whisper.example.com"]),
        (["stop", "--drain", "v"], ["voxtral.example.com"]),
        (["logs", ""], ["whisper.example.com", "stt.example.com", "voxtral.example.com"]),
        (["prepare", "s"], ["stt.example.com"]),
        (["keep", "whisper.example.com", "1"], ["15m", "1h", "1d"]),
        (["start", "x"], []),
    ],
)
def test_commands_hosts_and_durations_are_offered(
    folder: Path, words: Sequence[str], found: Sequence[str]
) -> None:
    """From the map alone: no daemon is asked."""
    assert found == offered(folder, "autostart", *words)


@pytest.mark.parametrize("place", ["before", "after"])
def test_the_hosts_are_those_of_the_named_map(tmp_path: Path, place: str) -> None:
    """-c counts wherever it stands."""
    (tmp_path / "other.yaml").write_text(MAP)
    words = {
        "before": ["-c", "other.yaml", "start", "w"],
        "after": ["start", "-c", "other.yaml", "w"],
    }

    assert ["whisper.example.com"] == offered(tmp_path, "autostart", *words[place])


@pytest.mark.parametrize(
    "content",
    [b"services: [", b"\xff", b"- 1", b"services: 3", b"", b"services: {a: 1, b: {aliases: 2}"],
)
def test_a_broken_map_offers_nothing_and_says_nothing(tmp_path: Path, content: bytes) -> None:
    """A line that is being typed is no place for an error."""
    (tmp_path / "autostart.yaml").write_bytes(content)

    assert [] == offered(tmp_path, "autostart", "start", "x")


def test_a_map_with_problems_is_read_as_far_as_it_goes(tmp_path: Path) -> None:
    """Who edits a map still wants to stop a service of it."""
    (tmp_path / "autostart.yaml").write_text("x: 1\nservices: {a.localhost: {port: no}}\n")

    assert ["a.localhost"] == offered(tmp_path, "autostart", "stop", "")


@pytest.mark.parametrize(
    ("typed", "becomes"),
    [
        ("autostart start whi\t", "autostart start whisper.example.com "),
        ("autostart check -c autos\t", "autostart check -c autostart.yaml "),
    ],
)
def test_a_person_presses_tab(folder: Path, typed: str, becomes: str) -> None:
    """In an interactive bash the word is completed in place; files by bash itself."""
    environment = {**ENVIRONMENT, "PS1": "> ", "HOME": str(folder)}
    with terminal(["bash", "--norc", "-i"], environment, folder=folder) as opened:
        opened.type('eval "$(autostart completion bash)"; echo loa""ded\n')
        opened.wait_for("\nloaded")
        mark = len(opened.raw)
        opened.type(typed)

        assert becomes in opened.wait_for(becomes, since=mark)


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_accept_their_script(shell: str) -> None:
    """Where the shell is here, it reads the script without a complaint."""
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    done = subprocess.run(
        [shell, "-n", "/dev/stdin"],
        input=printed(shell),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )

    assert (0, "") == (done.returncode, done.stderr)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_script_asks_autostart(shell: str) -> None:
    """The script of each shell calls the program back in its own way."""
    assert re.search(rf"_AUTOSTART_COMPLETE={shell}_complete", printed(shell))


def printed(shell: str) -> str:
    """Return the script as the installed program prints it."""
    done = subprocess.run(
        ["autostart", "completion", shell],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    return done.stdout
