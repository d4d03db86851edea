"""A real browser, driven by a script of tests/clients/node: what its page showed comes back."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

from tests.clients.installed import CLIENTS, node
from tests.containers import skip_or_fail

BROWSER = shutil.which("chromium") or ""
ARTEFACTS = Path(
    os.environ.get("AUTOSTART_ARTEFACTS", Path(__file__).resolve().parents[1] / "artefacts")
)
"""Where screenshots are kept, to be looked at; git ignores it."""
SECONDS_MAX = 120


def require_browser() -> None:
    """Skip the calling test, or fail it in CI, where no page can be looked at."""
    if not BROWSER:
        skip_or_fail("there is no chromium")
    for package in ("playwright-core", "axe-core"):
        if not (CLIENTS / "node/node_modules" / package).exists():
            skip_or_fail(f"{package} is not there; make test installs it")


def screenshot(name: str) -> str:
    """Return the path of a screenshot called NAME.png."""
    ARTEFACTS.mkdir(parents=True, exist_ok=True)
    return str(ARTEFACTS / f"{name}.png")


def drive(script: str, folder: Path, **wish: Any) -> dict[str, Any]:
    """Run tests/clients/node/SCRIPT.mjs with a wish; return the JSON that it prints."""
    require_browser()
    done = subprocess.run(
        [str(node()), str(CLIENTS / f"node/{script}.mjs")],
        input=json.dumps({"browser": BROWSER, **wish}),
        env={"PATH": os.environ["PATH"], "HOME": str(folder)},
        check=False,
        capture_output=True,
        text=True,
        timeout=SECONDS_MAX,
    )
    assert done.returncode == 0, done.stderr
    shown: dict[str, Any] = json.loads(done.stdout)
    return shown
