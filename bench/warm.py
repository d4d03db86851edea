"""Warm requests and large bodies: through autostart, through nginx, and to the service itself.

All on loopback, in turn within each round. autostart is the installed CLI with everything on; both
proxies open a fresh connection to the service for each request. Needs wrk, curl and nginx.
"""

from __future__ import annotations

import asyncio
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import urllib.request
from collections import defaultdict
from pathlib import Path

import psutil

from bench.raw_service import BODY_BYTES
from tests.daemon import Daemon, free_port

ROUNDS = 3
WRK_SECONDS = 5
CONNECTIONS = 32
RAW_SERVICE = Path(__file__).with_name("raw_service.py")

NGINX = """
daemon off; worker_processes 1; pid {folder}/pid; error_log {folder}/error.log;
events {{ worker_connections 1024; }}
http {{
    access_log off; client_max_body_size 0; client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u;
    scgi_temp_path {folder}/s;
    server {{
        listen 127.0.0.1:{port};
        location / {{
            proxy_pass http://127.0.0.1:{service};
            proxy_http_version 1.1; proxy_set_header Connection close;
            proxy_buffering off; proxy_request_buffering off;
        }}
    }}
}}
"""

Figures = dict[str, dict[str, list[float]]]


def measure_rate(port: int) -> dict[str, float]:
    """Return requests per second, p50 and p99 in milliseconds, of a six-byte answer."""
    options = [f"-c{CONNECTIONS}", f"-d{WRK_SECONDS}s", "-t1", "--latency"]
    command = ["wrk", *options, f"http://127.0.0.1:{port}/"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "Non-2xx" not in printed, printed
    found = re.search(r"Requests/sec:\s+([\d.]+)", printed)
    assert found, printed
    latency = {f"p{percent} ms": _milliseconds(printed, percent) for percent in (50, 99)}
    return {"requests/s": float(found[1]), **latency}


def _milliseconds(printed: str, percent: int) -> float:
    found = re.search(rf"\b{percent}%\s+([\d.]+)(us|ms|s)\b", printed)
    assert found, printed
    return float(found[1]) * {"us": 0.001, "ms": 1.0, "s": 1000.0}[found[2]]


def measure_body(port: int, process: psutil.Process, upload: Path) -> dict[str, float]:
    """Return seconds, and CPU seconds of the process, for BODY_BYTES down and up."""
    figures = {}
    for name, options in (("down", []), ("up", ["-T", str(upload), "-H", "Expect:"])):
        before = _cpu_seconds(process)
        command = ["curl", "-sf", "-o", "/dev/null", "-w", "%{time_total}", *options]
        url = f"http://127.0.0.1:{port}/big"
        printed = subprocess.run([*command, url], capture_output=True, text=True, check=True)
        figures[f"{name} s"] = float(printed.stdout)
        figures[f"{name} cpu s"] = _cpu_seconds(process) - before
    return figures


def _cpu_seconds(process: psutil.Process) -> float:
    return sum(
        sum(each.cpu_times()[:2])
        for each in (process, *process.children())
        if "raw_service" not in " ".join(each.cmdline())
    )


async def measure() -> Figures:
    """Return every figure of every round, by who served."""
    figures: Figures = defaultdict(lambda: defaultdict(list))
    service_port, nginx_port = free_port(), free_port()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        upload = folder / "upload"
        with upload.open("wb") as file:
            file.truncate(BODY_BYTES)
        service = {
            "command": ["{python}", str(RAW_SERVICE), "{port}"],
            "port": service_port,
            "idle": "never",
            "max_body": "1GB",
        }
        (folder / "nginx.conf").write_text(
            NGINX.format(folder=folder, port=nginx_port, service=service_port)
        )
        daemon = Daemon(folder, {"127.0.0.1": service})
        nginx = subprocess.Popen(["nginx", "-p", name, "-c", f"{name}/nginx.conf"])
        try:
            await daemon.start()
            await daemon.wait_for_state("ready", "127.0.0.1")
            await asyncio.to_thread(_warm_up, daemon.port, nginx_port)
            assert daemon.process is not None
            run = (await daemon.states())["127.0.0.1"]["endpoint"]["run"]
            sides = {
                "service": (service_port, psutil.Process(int(run.partition(".")[0]))),
                "nginx": (nginx_port, psutil.Process(nginx.pid)),
                "autostart": (daemon.port, psutil.Process(daemon.process.pid)),
            }
            for _ in range(ROUNDS):
                for side, (port, process) in sides.items():
                    rate = await asyncio.to_thread(measure_rate, port)
                    body = await asyncio.to_thread(measure_body, port, process, upload)
                    for what, figure in {**rate, **body}.items():
                        figures[side][what].append(figure)
        finally:
            nginx.terminate()
            nginx.wait()
            daemon.clean_up()
    return figures


def _warm_up(*ports: int) -> None:
    for port in ports:
        urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=10).read()


def report() -> None:
    """Measure and print the median of each figure, and autostart's as a ratio."""
    missing = [tool for tool in ("wrk", "curl", "nginx") if shutil.which(tool) is None]
    if missing:
        sys.exit(f"bench: {', '.join(missing)} must be installed")
    figures = asyncio.run(measure())
    print(f"warm, {CONNECTIONS} connections, and {BODY_BYTES // 10**6} MB; medians of {ROUNDS}")
    print(f"  {'':12}{'service':>10}{'nginx':>10}{'autostart':>11}   autostart / nginx")
    for what in figures["autostart"]:
        service, nginx, ours = (
            statistics.median(figures[side][what]) for side in ("service", "nginx", "autostart")
        )
        ratio = f"{ours / nginx:.2f}" if nginx else "-"
        print(f"  {what:12}{service:10.2f}{nginx:10.2f}{ours:11.2f}   {ratio}")


if __name__ == "__main__":
    report()
