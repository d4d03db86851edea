"""How the dashboard words numbers, causes and lines of output: its pure module, run by Node."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.clients.installed import node

WORDS = Path(__file__).resolve().parents[2] / "autostart/dashboard/static/words.js"
SAID: list[tuple[str, list[Any], Any]] = [
    ("duration", [0], "0 ms"),
    ("duration", [0.0874], "87 ms"),
    ("duration", [0.9999], "1.0 s"),
    ("duration", [3.21], "3.2 s"),
    ("duration", [42.9], "42 s"),
    ("wholeDuration", [-1], "0 s"),
    ("wholeDuration", [59.9], "59 s"),
    ("wholeDuration", [125], "2m 05s"),
    ("wholeDuration", [3_600], "1h 00m"),
    ("wholeDuration", [86_399], "23h 59m"),
    ("wholeDuration", [86_400], "1d"),
    ("wholeDuration", [190_000], "2d 4h"),
    ("bytes", [83_000], "83 kB"),
    ("bytes", [83_400_000], "83 MB"),
    ("bytes", [2_430_000_000], "2.4 GB"),
    ("bytes", [24_300_000_000], "24 GB"),
    ("gigabyteHours", [0], "0 GB·h"),
    ("gigabyteHours", [0.001], "< 0.01 GB·h"),
    ("gigabyteHours", [0.25], "0.25 GB·h"),
    ("gigabyteHours", [40.31], "40.3 GB·h"),
    ("gigabyteHours", [2740.6], "2,741 GB·h"),
    ("percent", [0], "0 %"),
    ("percent", [0.001], "< 1 %"),
    ("percent", [0.5], "50 %"),
    ("percent", [0.999], "> 99 %"),
    ("percent", [1], "100 %"),
    ("percent", [1.85], "185 %"),
    ("plural", [1, "lease"], "1 lease"),
    ("plural", [2, "lease"], "2 leases"),
    ("because", ["idle"], "idle for long enough"),
    ("because", ["exited: exit code 3"], "its run ended: exit code 3"),
    ("because", ["request GET /x"], "request GET /x"),
    ("because", ["constructor"], "constructor"),
    ("isDuration", ["1h30m"], True),
    ("isDuration", [" 90s "], True),
    ("isDuration", ["2"], False),
    ("isDuration", ["0s"], False),
    ("isDuration", [""], False),
    ("plainLine", ["\u001b[1;31mred\u001b[0m"], "red"),
    ("plainLine", ["\u001b]8;;https://x\u0007link\u001b]8;;\u0007"], "link"),
    ("plainLine", [" 10 %\r 20 %\r 30 %"], " 30 %"),
    ("plainLine", ["windows\r"], "windows"),
    ("plainLine", ["x" * 5_000], f"{'x' * 4_000} … (5000 characters)"),
]
PROGRAM = """
const words = await import(process.argv[1]);
const calls = JSON.parse(process.argv[2]);
console.log(JSON.stringify(calls.map(([name, said]) => words[name](...said))));
"""


@pytest.fixture(scope="module")
def answers() -> list[Any]:
    calls = json.dumps([[name, arguments] for name, arguments, _ in SAID])
    command = [str(node()), "--input-type=module", "--no-warnings", "-e", PROGRAM]
    done = subprocess.run(
        [*command, WORDS.as_uri(), calls], check=False, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    told: list[Any] = json.loads(done.stdout)
    return told


@pytest.mark.parametrize("index", range(len(SAID)), ids=lambda index: f"{SAID[index][0]}-{index}")
def test_words_are_those_of_people(answers, index):
    """Each value has one spelling, short and never misleading."""
    assert SAID[index][2] == answers[index]
