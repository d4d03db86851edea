"""What takes time: asked of the daemon, then waited for until it is done, failed or overdue.

The daemon does it whether or not somebody waits; these only watch.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

from autostart.cli.client import Client
from autostart.cli.failure import CommandFailed
from autostart.config import Map, ServiceConfig, format_duration

Answer = dict[str, Any]
# Called with the service each time that it is looked at.
Show = Callable[[Answer], None]

POLL_SECONDS = 0.1
# What our own work may take beyond what the service is granted.
GRACE_SECONDS = 20.0
# Requests of an hour are usual (an hour of audio); a drain that takes longer is reported.
DRAIN_SECONDS = 2 * 3600.0


def _nobody(_: Answer) -> None:
    """Show it to nobody."""


def start(client: Client, host: str, timeout_seconds: float, show: Show = _nobody) -> str:
    """Start a service and wait until it is ready; return what to print."""
    began = time.monotonic()
    answer = client.command(host, "start")
    host = answer["host"]
    if answer["state"] == "ready":
        return f"{host}: already ready"
    _await_ready(client, host, timeout_seconds, lambda _: True, show)
    return f"{host}: ready in {time.monotonic() - began:.1f} s"


def stop(
    client: Client, host: str, timeout_seconds: float, show: Show = _nobody, **options: bool
) -> str:
    """Stop a service and wait until it is stopped; return what to print."""
    began = time.monotonic()
    answer = client.command(host, "stop", **options)
    host, attempt = answer["host"], answer["attempt"]
    for answer in _watched(client, host, timeout_seconds, show):
        if answer["attempt"] != attempt:
            return f"{host}: stopped, and wanted again at once; --hold keeps it stopped"
        if answer["state"] == "stopped":
            held = ", held until autostart start" if answer["closed_by"] == "held" else ""
            return f"{host}: stopped in {time.monotonic() - began:.1f} s{held}"
        if answer["state"] == "ready":
            text = f"{host} is still ready"
            raise CommandFailed(text, f"autostart logs {host}; the log of autostart serve says why")
    raise _overdue(answer, "stopped", timeout_seconds)


def restart(
    client: Client, host: str, timeout_seconds: float, show: Show = _nobody, *, force: bool
) -> str:
    """Stop and start a service, and wait until its new run is ready; return what to print."""
    began = time.monotonic()
    before = client.service(host)["endpoint"]
    host = client.command(host, "restart", force=force)["host"]
    _await_ready(client, host, timeout_seconds, lambda answer: answer["endpoint"] != before, show)
    return f"{host}: ready in {time.monotonic() - began:.1f} s"


def prepare(
    client: Client,
    host: str,
    timeout_seconds: float,
    tell: Callable[[str], None],
    show: Show = _nobody,
) -> str:
    """Pull, build and create, telling each line of progress; return what to print."""
    began = time.monotonic()
    answer = client.command(host, "prepare")
    host, shown = answer["host"], None
    for answer in _watched(client, host, timeout_seconds, show):
        line, preparation = answer["progress"], answer["preparation"]
        if line is not None and line != shown:
            tell(f"{host}: {line}")
            shown = line
        if not preparation["running"]:
            if preparation["failure"] is not None:
                raise _failed(preparation["failure"])
            return f"{host}: prepared in {time.monotonic() - began:.1f} s"
    raise _overdue(answer, "prepared", timeout_seconds)


def start_seconds(declared: Map | None, host: str) -> float:
    """Return how long a start may take: what the map grants it, to create and to start."""
    service = _service(declared, host)
    return service.create_timeout_seconds + service.start_timeout_seconds + GRACE_SECONDS


def stop_seconds(declared: Map | None, host: str, *, drain: bool) -> float:
    """Return how long a stop may take."""
    if drain:
        return DRAIN_SECONDS
    return _service(declared, host).stop_timeout_seconds + GRACE_SECONDS


def _service(declared: Map | None, host: str) -> ServiceConfig:
    services = () if declared is None else declared.services.values()
    for service in services:
        if host in (service.host, *service.aliases):
            return service
    return ServiceConfig(host)


def _await_ready(
    client: Client,
    host: str,
    timeout_seconds: float,
    is_new: Callable[[Answer], bool],
    show: Show,
) -> None:
    for answer in _watched(client, host, timeout_seconds, show):
        state = answer["state"]
        if state == "ready" and is_new(answer):
            return
        if state == "failed" or (state == "stopped" and answer["failure"] is not None):
            raise _failed(answer["failure"])
        if state == "stopped":
            raise CommandFailed(f"{host} was stopped meanwhile", f"autostart start {host}")
    raise _overdue(answer, "ready", timeout_seconds)


def _watched(client: Client, host: str, timeout_seconds: float, show: Show) -> Iterator[Answer]:
    """Yield the service again and again, at least once, until the time is over."""
    deadline = time.monotonic() + timeout_seconds
    while True:
        answer = client.service(host)
        show(answer)
        yield answer
        if time.monotonic() >= deadline:
            return
        time.sleep(POLL_SECONDS)


def _failed(failure: Answer) -> CommandFailed:
    return CommandFailed(failure["message"], failure["hint"], detail=failure["detail"])


def _overdue(answer: Answer, wanted: str, timeout_seconds: float) -> CommandFailed:
    host, stands = answer["host"], answer["phase"] or answer["state"]
    in_use = len(answer["leases"])
    requests = f", {in_use} requests use it" if in_use else ""
    return CommandFailed(
        f"{host} is not {wanted} after {format_duration(timeout_seconds)} ({stands}{requests})",
        f"it goes on without you: autostart status; autostart logs {host}",
    )
