"""What people read about services: the portal's host, and the docs of a service that is not ready.

Everything is answered from the cache and from what is known here; nothing waits for a service.
"""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

import structlog

from autostart.admission import DOCS_PAGE, is_document
from autostart.config import Map, ServiceConfig
from autostart.errors import DocsUnknown, IgnoredPath, UnknownPage
from autostart.lifecycle import Service, State
from autostart.portal.cache import Cache
from autostart.portal.document import Prepared, parse, prepared, written_host
from autostart.portal.page import JSON, Page, Reader
from autostart.portal.refresh import SETTLE_SECONDS, Lease, Read, Refresh
from autostart.portal.site import FOLDER, Site
from autostart.probe import DocsUnreadable
from autostart.telemetry import Transition

log = structlog.get_logger("autostart")

PORTAL_PATHS = frozenset({"/", "/api", "/api/"})
CACHE_FOLDER = "docs"
_SERVICES = "services.json"
_DOCUMENTS = "documents/"
_NOSNIFF = {"X-Content-Type-Options": "nosniff"}


@dataclass(frozen=True)
class _Known:
    """The document of one service, as it may be shown."""

    prepared: Prepared
    version: str
    fetched_at: datetime

    @property
    def headers(self) -> dict[str, str]:
        return {"Autostart-Docs": self.fetched_at.isoformat(timespec="seconds"), **_NOSNIFF}


class Portal:
    """Made, then told the map; `record` sees every transition. All calls from one event loop."""

    def __init__(
        self,
        state_folder: Path,
        *,
        lease: Lease,
        read: Read,
        snapshot: Callable[[], Mapping[str, Service]],
    ) -> None:
        self._snapshot = snapshot
        self._cache = Cache(state_folder / CACHE_FOLDER)
        self._site = Site()
        self._services: dict[str, ServiceConfig] | None = None
        self._known: dict[str, _Known] = {}
        # One thread, so that a later write never overtakes an earlier one.
        self._threads = ThreadPoolExecutor(max_workers=1, thread_name_prefix="docs")
        self._refresh = Refresh(lease=lease, read=read, take=self._take, threads=self._threads)

    def declare(self, declared: Map) -> None:
        """Take a map: documents of services that are gone are forgotten."""
        former = self._services
        documented = {
            host: service for host, service in declared.services.items() if service.docs is not None
        }
        self._services = documented
        for host in (former or {}).keys() - documented.keys():
            self._refresh.forget(host)
            self._known.pop(host, None)
        for host, service in documented.items():
            was = None if former is None else former.get(host)
            if host not in self._known or was != service:
                self._load(service)
            if former is not None and (was is None or was.docs != service.docs):
                self._refresh.begin(service)
        self._cache.keep_only(documented)

    def record(self, transition: Transition) -> None:
        """Read the document of a service that has just become ready."""
        after = transition.after
        service = (self._services or {}).get(transition.host)
        if service is None or after.state is not State.READY or not transition.is_change_of_state:
            return
        delay = 0.0
        if service.host in self._known:
            idle_seconds = math.inf if service.idle_seconds is None else service.idle_seconds
            delay = min(SETTLE_SECONDS, idle_seconds / 2)
        self._refresh.begin(service, delay_seconds=delay)

    async def close(self) -> None:
        """End what it began."""
        await self._refresh.close()
        self._threads.shutdown(wait=True)

    # What is read.

    async def read(self, reader: Reader) -> Page:
        """Answer on the portal's own host; raises UnknownPage, DocsUnknown."""
        services = list((self._services or {}).values())
        if reader.path in PORTAL_PATHS:
            await self._load_site()
            called = [reader.origin.of(written_host(service)) for service in services]
            return self._site.page(title="API docs", called=called, is_portal=True)
        found = None
        if reader.path.startswith(FOLDER):
            found = await self._read_ours(services, reader, is_portal=True)
        if found is None:
            raise UnknownPage("the portal has no such page")
        return found

    async def read_beside(self, service: ServiceConfig, reader: Reader) -> Page:
        """Answer below our folder on the host of a service; raises UnknownPage, DocsUnknown."""
        found = await self._read_ours([service], reader, is_portal=False)
        if found is None:
            raise UnknownPage(f"{service.host} has no such page of ours")
        return found

    async def read_instead(
        self, service: ServiceConfig, reader: Reader, unknown: DocsUnknown
    ) -> Page:
        """Answer for a service that is not ready; raises IgnoredPath, or `unknown`."""
        if is_document(service, reader.path):
            return await self._document_as_fetched(service, reader, unknown)
        await self._load_site()
        if reader.path.rstrip("/") == DOCS_PAGE:
            return self._site.page(title=service.name, called=(), is_portal=False)
        # What the service's own page loads, if it has become stopped since that was read.
        file = self._site.file(reader.path.removeprefix(f"{DOCS_PAGE}/"), reader, may_stay=False)
        if file is None:
            raise IgnoredPath(f"{service.host} is not ready and this path does not wake it")
        return file

    async def _read_ours(
        self, services: list[ServiceConfig], reader: Reader, *, is_portal: bool
    ) -> Page | None:
        name = reader.path.removeprefix(FOLDER)
        if name == _SERVICES:
            return self._list(services, reader, is_portal=is_portal)
        if name.startswith(_DOCUMENTS):
            host = name.removeprefix(_DOCUMENTS)
            asked = next((service for service in services if service.host == host), None)
            return None if asked is None else self._document(asked, reader, is_portal=is_portal)
        await self._load_site()
        return self._site.file(name, reader, may_stay=True)

    def _document(self, service: ServiceConfig, reader: Reader, *, is_portal: bool) -> Page:
        self._refresh.begin_if_due(service)
        known = self._known.get(service.host)
        if known is None:
            raise DocsUnknown(f"the docs of {service.host} are not known yet")
        host = written_host(service) if is_portal else reader.host
        body = known.prepared.addressed(reader.origin.scheme, reader.origin.authority(host))
        return Page(body, headers=known.headers)

    async def _document_as_fetched(
        self, service: ServiceConfig, reader: Reader, unknown: DocsUnknown
    ) -> Page:
        known = self._known.get(service.host)
        if known is None:
            raise unknown
        loop = asyncio.get_running_loop()
        stored = await loop.run_in_executor(self._threads, self._cache.read, service.host)
        if stored is None:  # the disk was full, or somebody has emptied the folder
            return self._document(service, reader, is_portal=False)
        return Page(stored.body, headers=known.headers)

    def _list(self, services: list[ServiceConfig], reader: Reader, *, is_portal: bool) -> Page:
        standing = self._snapshot()
        here = reader.origin.of(reader.host)
        listed = [
            _listed(
                service,
                self._known.get(service.host),
                standing.get(service.host) or Service(service),
                here=here,
                origin=reader.origin.of(written_host(service)) if is_portal else here,
            )
            for service in services
        ]
        body = json.dumps({"here": here, "services": listed}).encode()
        return Page(body, JSON, headers=_NOSNIFF)

    async def _load_site(self) -> None:
        await asyncio.get_running_loop().run_in_executor(self._threads, self._site.load)

    # What is known.

    def _load(self, service: ServiceConfig) -> None:
        """Take a document from its file, for a service as it is declared now."""
        stored = self._cache.read(service.host)
        if stored is None:
            self._known.pop(service.host, None)
            return
        try:
            self._known[service.host] = _know(service, stored.body, stored.fetched_at)
        except DocsUnreadable as error:
            self._known.pop(service.host, None)
            reason = f"{self._cache.path(service.host)}: {error.message}"
            log.warning("docs-unreadable", service=service.host, reason=reason)

    def _take(self, service: ServiceConfig, body: bytes) -> None:
        """Keep what a service has answered; raises DocsUnreadable. In a thread: it may be big."""
        declared = (self._services or {}).get(service.host)
        if declared is None:
            return  # the map was read again without it
        self._known[service.host] = _know(declared, body, datetime.now(UTC))
        self._cache.write(service.host, body)
        if service.host not in (self._services or {}):
            self._known.pop(service.host, None)
            self._cache.keep_only(self._services or {})


def _listed(
    service: ServiceConfig, known: _Known | None, standing: Service, *, here: str, origin: str
) -> dict[str, object]:
    """Return what a page of the origin `here` shows of a service that is reached at `origin`."""
    access = service.access
    # With cookies and logins browsers call only where their page's origin is named.
    is_named = here in (origin, *service.cors)
    return {
        "host": service.host,
        "name": service.name or service.host,
        "origin": origin,
        "state": standing.state,
        "phase": standing.phase,
        "usual_start_seconds": standing.usual_start_seconds,
        "fetched_at": None if known is None else known.fetched_at.isoformat(timespec="seconds"),
        "version": None if known is None else known.version,
        "may_call": is_named or "*" in service.cors,
        "may_log_in": is_named,
        "keys": access is not None and access.keys_env is not None,
        "logins": access is not None and access.basic_file is not None,
    }


def _know(service: ServiceConfig, body: bytes, fetched_at: datetime) -> _Known:
    version = sha256(body).hexdigest()[:16]
    return _Known(prepared(parse(body), service), version, fetched_at)
