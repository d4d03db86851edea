"""Between the portal, which knows no requests, and those who read docs through the gateway."""

from __future__ import annotations

from collections.abc import Mapping

from aiohttp import web

from autostart import proxy
from autostart.config import Map, ServiceConfig
from autostart.portal import Origin, Page, Reader
from autostart.portal.document import exact_host
from autostart.routes import hostname

READING_METHODS = frozenset({"GET", "HEAD"})
_PORTS = {"http": 80, "https": 443}


def reader_of(
    request: web.BaseRequest, declared: Map, path: str, service: ServiceConfig | None = None
) -> Reader:
    """Return who reads: what is asked, and as what the browser knows us."""
    written = request.headers.get("Host", "")
    host = hostname(written)
    if not host and service is not None:  # a door of its own takes any Host header, or none
        host = exact_host(service)
    return Reader(
        path=path,
        host=host,
        origin=origin_of(request, declared, written if hostname(written) else ""),
        takes_gzip="gzip" in request.headers.get("Accept-Encoding", "").lower(),
    )


def origin_of(request: web.BaseRequest, declared: Map, host_header: str) -> Origin:
    """Return scheme and port of the address that was asked, as far as the proxy before us says."""
    peer = proxy.peer(request.protocol.peername, declared.proxy.trusted_proxies)
    said = request.headers.get("X-Forwarded-Proto", "").strip().lower()
    scheme = said if peer.trusted and said in _PORTS else "http"
    digits = host_header.rpartition(":")[2] if not host_header.endswith("]") else ""
    port = int(digits) if digits.isdecimal() and ":" in host_header else None
    return Origin(scheme, None if port == _PORTS[scheme] else port)


def answer(request: web.BaseRequest, page: Page, headers: Mapping[str, str]) -> proxy.Answer:
    """Return the page as an answer of ours."""
    return proxy.own_answer(
        request,
        200,
        page.body,
        page.content_type,
        headers={**headers, **page.headers, "X-Request-ID": proxy.request_id(request)}.items(),
        cache=page.cache or "no-store",
    )
