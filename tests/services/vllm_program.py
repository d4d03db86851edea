"""The stub of vLLM as a program named vllm, which reads its flags as strictly as vLLM does."""

import argparse
import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path

from aiohttp import web

from tests.services.vllm_stub import Handlers, State

ROOT = Path(__file__).parents[2]


def install(folder: Path) -> dict[str, str]:
    """Put a program named vllm into a folder; gives the PATH on which it is found."""
    program = folder / "bin/vllm"
    program.parent.mkdir(parents=True)
    program.write_text(
        f"#!{sys.executable}\n"
        f"import sys\nsys.path.insert(0, {str(ROOT)!r})\n"
        "from tests.services.vllm_program import main\nmain()\n"
    )
    program.chmod(0o755)
    return {"PATH": f"{program.parent}{os.pathsep}{os.environ['PATH']}"}


@dataclass(frozen=True)
class Plan:
    """What the program does; in its environment as STUB_PLAN, in JSON."""

    diary: str  # a file to which every start adds a line of JSON
    ready_file: str = ""  # it is ready when the file is there
    status: int | None = None  # it ends at once
    listens: bool = True
    deaf: bool = False  # to SIGTERM
    troubles: tuple[str | None, ...] = ()

    def environment(self) -> dict[str, str]:
        return {"STUB_PLAN": json.dumps(self.__dict__)}


def main() -> None:
    """`vllm serve MODEL ...`, with the flags that the service uses, and some that operators may."""
    parser = argparse.ArgumentParser("vllm", allow_abbrev=False)
    serve = parser.add_subparsers(required=True).add_parser("serve", allow_abbrev=False)
    serve.add_argument("model_tag")
    for flag in ("--tokenizer-mode", "--config-format"):
        serve.add_argument(flag, choices=["auto", "hf", "mistral"], default="auto")
    serve.add_argument("--load-format", choices=["auto", "mistral", "dummy"], default="auto")
    serve.add_argument("--max-model-len", type=int, default=None)
    serve.add_argument("--gpu-memory-utilization", type=float, default=0.92)
    serve.add_argument("--limit-mm-per-prompt", type=json.loads, default={})
    serve.add_argument("--tensor-parallel-size", type=int, default=1)
    serve.add_argument("--served-model-name", default=None)
    serve.add_argument("--host", default=None)
    serve.add_argument("--port", type=int, default=8000)
    flags = parser.parse_args()
    plan = Plan(**json.loads(os.environ["STUB_PLAN"]))
    # As vLLM's engine: in the same group, and it does not end by itself.
    engine = subprocess.Popen(["sleep", "600"])
    with Path(plan.diary).open("a") as diary:
        pids = {"pid": os.getpid(), "engine": engine.pid, "leash": os.getppid()}
        print(json.dumps(pids | {"flags": vars(flags)}), file=diary, flush=True)
    if plan.status is not None:
        sys.exit(plan.status)
    if plan.deaf:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if not plan.listens:
        time.sleep(600)
    asyncio.run(_serve(flags, plan))


async def _serve(flags: argparse.Namespace, plan: Plan) -> None:
    state = State(
        key=os.environ.get("VLLM_API_KEY"),
        name=flags.served_model_name or flags.model_tag,
        ready=lambda: not plan.ready_file or Path(plan.ready_file).exists(),
        tokens_max=flags.max_model_len,
        plan=deque(plan.troubles),
    )
    runner = web.AppRunner(Handlers(state).app(), handler_cancellation=True)
    await runner.setup()
    await web.TCPSite(runner, flags.host, flags.port).start()
    await asyncio.Event().wait()
