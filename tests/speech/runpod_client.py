"""Runs programs as users of the `runpod` package write them, against a service of ours.

The package reads its address when it is imported, so each program is a process of its own.
"""

import json
import os
import subprocess
import sys
from typing import Any

from tests.services.speech_server import SpeechServer

KEY = "key-of-the-client"
_BEGIN = """
import asyncio, json, sys, time
import aiohttp, requests, runpod
from runpod.endpoint.runner import Job
given = json.load(sys.stdin)
runpod.api_key = given.pop("key")
endpoint = runpod.Endpoint("voxtral")
"""
_END = """
print(json.dumps(told))
"""


def run_program(
    server: SpeechServer, program: str, *, key: str = KEY, seconds_max: float = 90, **given: Any
) -> Any:
    """Run a program that reads `given` and leaves in `told` what is to be known."""
    done = subprocess.run(
        [sys.executable, "-c", _BEGIN + program + _END],
        input=json.dumps({"key": key, **given}),
        env={
            "PATH": os.environ["PATH"],
            "HOME": str(server.temporary),  # without anybody's credentials
            "RUNPOD_ENDPOINT_BASE_URL": f"{server.url}/v2",
        },
        check=False,
        capture_output=True,
        text=True,
        timeout=seconds_max,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])
