"""Who may use the admin listener.

A page of another site can make a browser send requests here, and by rebinding its own name to
127.0.0.1 it could even read the answers. So the Host must be one of ours, and an Origin must be
that same Host. Behind a reverse proxy the Host is its own: then the token says who asks.
"""

from __future__ import annotations

import hmac
from ipaddress import ip_address
from urllib.parse import urlsplit

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from autostart.errors import Forbidden

HEALTH_PATH = "/healthz"
_DEFAULT_PORTS = {"http": 80, "https": 443}
_LOOPBACK_NAMES = ("localhost", "127.0.0.1", "::1")


def make_guard(token: str | None) -> Middleware:
    """Return the middleware that raises Forbidden; with a token everything but health needs it."""

    @web.middleware
    async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
        _check_origin(request)
        if request.path != HEALTH_PATH:
            if token is None:
                _check_host(request)
            else:
                _check_token(request, token)
        return await handler(request)

    return guard


def _check_token(request: web.Request, token: str) -> None:
    scheme, _, presented = request.headers.get("Authorization", "").partition(" ")
    same = hmac.compare_digest(presented.strip().encode("utf-8", "surrogateescape"), token.encode())
    if scheme.lower() != "bearer" or not same:
        raise Forbidden("this admin listener needs its token")


def _check_host(request: web.Request) -> None:
    if _authority("http", request.headers.get("Host", "")) not in _own_names(request):
        raise Forbidden("the Host header is not a name of this admin listener")


def _check_origin(request: web.Request) -> None:
    origin = request.headers.get("Origin")
    if origin is None:
        return
    scheme, _, authority = origin.partition("://")
    host = request.headers.get("Host", "")
    if scheme not in _DEFAULT_PORTS or _authority(scheme, authority) != _authority(scheme, host):
        raise Forbidden("the request comes from a page of another site")


def _own_names(request: web.Request) -> set[tuple[str, int]]:
    """Return the names of the socket that the request came in by."""
    reached = None if request.transport is None else request.transport.get_extra_info("sockname")
    if not isinstance(reached, tuple):
        return {("localhost", _DEFAULT_PORTS["http"])}  # a unix socket; no browser gets here
    address, port = reached[:2]
    return {(name, port) for name in (str(ip_address(address)), *_LOOPBACK_NAMES)}


def _authority(scheme: str, written: str) -> tuple[str, int] | None:
    """Return name and port of `name[:port]`, None for anything else."""
    try:
        parts = urlsplit(f"//{written}")
        port = parts.port
    except ValueError:
        return None
    if parts.hostname is None or parts.netloc != written or parts.username is not None:
        return None
    return parts.hostname, _DEFAULT_PORTS[scheme] if port is None else port
