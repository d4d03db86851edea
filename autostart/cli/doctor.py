"""What `autostart doctor` looks at: the map, this machine's runtimes, the services, the daemon."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import replace

import click

from autostart.cli.client import Client
from autostart.cli.location import Location
from autostart.config import Map, ServiceConfig, load, warnings
from autostart.errors import ConfigError, DaemonUnreachable
from autostart.runtimes.base import Diagnosis, Doubt, Runtime

DIAGNOSE_SECONDS = 30.0
# Each examination is a subprocess or two.
SERVICES_AT_ONCE = 4


def examine(location: Location, runtimes: Sequence[Runtime]) -> list[Diagnosis]:
    """Return everything that was looked at, and close the runtimes."""
    return [
        *_examine_map(location),
        *asyncio.run(_examine_machine(location.declared(), runtimes)),
        _examine_daemon(location),
    ]


def doubts(declared: Map) -> list[str]:
    """Return what is legal but doubtful in the map, and in the pages that it names."""
    from autostart import waiting  # noqa: PLC0415 - slow to import

    pages = {
        f"services.{service.host}.{doubt}"
        for service in declared.services.values()
        for doubt in waiting.doubts(service)
    }
    return [*warnings(declared), *sorted(pages)]


def examine_services(declared: Map, runtimes: Sequence[Runtime]) -> list[tuple[str, Doubt]]:
    """Return what the runtimes find wrong or doubtful, by host, and close the runtimes."""

    async def look() -> list[tuple[str, Doubt]]:
        found = await _examine_services(list(declared.services.values()), runtimes)
        for runtime in runtimes:
            await runtime.close()
        return found

    return asyncio.run(look())


def report(findings: Sequence[Diagnosis]) -> str:
    """Return the findings as text, hints beneath what does not work."""
    lines = []
    for finding in findings:
        detail = f": {finding.detail}" if finding.detail else ""
        verdict = "warn" if finding.is_doubtful else "ok  " if finding.works else "FAIL"
        lines.append(f"{verdict}  {finding.subject}{detail}")
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
        count = len(doubts(declared))
        doubtful = f", {count} warnings (autostart check)" if count else ""
        services = f"{len(declared.services)} services{doubtful}"
        yield Diagnosis("map", works=True, detail=f"{declared.path}, {services}")


async def _examine_machine(declared: Map | None, runtimes: Sequence[Runtime]) -> list[Diagnosis]:
    services = [] if declared is None else list(declared.services.values())
    used = {_runtime_for(service, runtimes).name for service in services}
    findings: list[Diagnosis] = []
    for runtime in runtimes:
        if runtime.name in used or not services:
            findings += await _diagnose(runtime)
    for host, doubt in await _examine_services(services, runtimes):
        subject = f"services.{host}"
        findings.append(
            Diagnosis(subject, not doubt.fatal, doubt.text, is_doubtful=not doubt.fatal)
        )
    for service in services:
        if device := _runtime_for(service, runtimes).device(service):
            subject = f"services.{service.host} computes on the {device.kind.upper()}"
            findings.append(Diagnosis(subject, works=True, detail=device.reason))
    for runtime in runtimes:
        await runtime.close()
    return findings


async def _examine_services(
    services: Sequence[ServiceConfig], runtimes: Sequence[Runtime]
) -> list[tuple[str, Doubt]]:
    turn = asyncio.Semaphore(SERVICES_AT_ONCE)

    async def examine_one(service: ServiceConfig) -> list[Doubt]:
        async with turn:
            try:
                async with asyncio.timeout(DIAGNOSE_SECONDS):
                    return await _runtime_for(service, runtimes).examine(service)
            except TimeoutError:
                return [Doubt(f"not examined within {DIAGNOSE_SECONDS:g} s", fatal=True)]

    found = await asyncio.gather(*map(examine_one, services))
    return [
        (service.host, doubt)
        for service, doubts in zip(services, found, strict=True)
        for doubt in doubts
    ]


async def _diagnose(runtime: Runtime) -> list[Diagnosis]:
    try:
        async with asyncio.timeout(DIAGNOSE_SECONDS):
            found = await runtime.diagnose()
    except TimeoutError:
        text = f"no answer within {DIAGNOSE_SECONDS:g} s"
        found = [Diagnosis("diagnosis", works=False, detail=text)]
    return [replace(each, subject=f"{runtime.name}: {each.subject}") for each in found]


def _runtime_for(service: ServiceConfig, runtimes: Sequence[Runtime]) -> Runtime:
    from autostart.app.serving import runtime_for  # noqa: PLC0415 - slow to import

    return runtime_for(service, runtimes)


def _examine_daemon(location: Location) -> Diagnosis:
    """Say whether a daemon answers; none is no fault: this may be looked at before it serves."""
    address, token = location.admin()
    try:
        services = Client(address, token).services()
    except DaemonUnreachable as error:
        return Diagnosis("daemon", works=True, detail=error.message)
    return Diagnosis("daemon", works=True, detail=f"serves {len(services)} services on {address}")
