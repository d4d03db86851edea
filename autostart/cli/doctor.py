"""What `autostart doctor` looks at: the map, this machine's runtimes, the daemon."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import replace

import click

from autostart.cli.client import Client
from autostart.cli.location import Location
from autostart.config import load, warnings
from autostart.errors import ConfigError, DaemonUnreachable
from autostart.runtimes.base import Diagnosis, Runtime

DIAGNOSE_SECONDS = 30.0


def examine(location: Location, runtimes: Sequence[Runtime]) -> list[Diagnosis]:
    """Return everything that was looked at."""
    return [
        *_examine_map(location),
        *asyncio.run(_examine_runtimes(runtimes)),
        _examine_daemon(location),
    ]


def report(findings: Sequence[Diagnosis]) -> str:
    """Return the findings as text, hints beneath what does not work."""
    lines = []
    for finding in findings:
        detail = f": {finding.detail}" if finding.detail else ""
        lines.append(f"{'ok  ' if finding.works else 'FAIL'}  {finding.subject}{detail}")
        if finding.hint and not finding.works:
            lines.append(f"      hint: {finding.hint}")
    return "\n".join(lines)


def _examine_map(location: Location) -> Iterator[Diagnosis]:
    try:
        declared = load(location.path)
    except click.UsageError as error:
        yield Diagnosis("map", works=False, detail=error.message)
    except ConfigError as error:
        for problem in error.problems:
            yield Diagnosis("map", works=False, detail=problem, hint=error.hint)
    else:
        doubts = warnings(declared)
        doubtful = f", {len(doubts)} warnings (autostart check)" if doubts else ""
        services = f"{len(declared.services)} services{doubtful}"
        yield Diagnosis("map", works=True, detail=f"{declared.path}, {services}")


async def _examine_runtimes(runtimes: Sequence[Runtime]) -> list[Diagnosis]:
    findings = []
    for runtime in runtimes:
        try:
            async with asyncio.timeout(DIAGNOSE_SECONDS):
                found = await runtime.diagnose()
        except TimeoutError:
            text = f"no answer within {DIAGNOSE_SECONDS:g} s"
            found = [Diagnosis("diagnosis", works=False, detail=text)]
        findings += [replace(each, subject=f"{runtime.name}: {each.subject}") for each in found]
        await runtime.close()
    return findings


def _examine_daemon(location: Location) -> Diagnosis:
    """Say whether a daemon answers; none is no fault: this may be looked at before it serves."""
    address, token = location.admin()
    try:
        services = Client(address, token).services()
    except DaemonUnreachable as error:
        return Diagnosis("daemon", works=True, detail=error.message)
    return Diagnosis("daemon", works=True, detail=f"serves {len(services)} services on {address}")
