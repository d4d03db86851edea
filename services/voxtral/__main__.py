"""Serves RunPod's contract by HTTP, or works for RunPod where the environment says so."""

import os
import sys

import uvicorn

from services.voxtral.runpod_worker import serve


def main() -> None:
    """Serve; UVICORN_HOST and its like say where."""
    if os.environ.get("RUNPOD_WEBHOOK_GET_JOB"):
        serve()
    else:
        uvicorn.main(["--factory", "services.voxtral.main:create_app", *sys.argv[1:]])


if __name__ == "__main__":
    main()
