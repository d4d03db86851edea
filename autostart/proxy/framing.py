"""Which request heads are refused although aiohttp's parser lets them pass.

Everything here could make us and a service, or a proxy before us, see different requests in the
same bytes. `tests/e2e/test_framing.py` holds the whole table, with what the parser refuses itself.
"""

from __future__ import annotations

import re

from aiohttp import HttpVersion10, HttpVersion11, web

from autostart.errors import BadRequest, Refusal, UpgradeUnsupported
from autostart.proxy.headers import tokens

# RFC 9110 and the WebDAV family; what else llhttp knows belongs to RTSP (DESCRIBE, PLAY, …), ICE
# (SOURCE) and HTTP/2's preface (PRI).
_METHODS = (
    "ACL BIND CHECKOUT CONNECT COPY DELETE GET HEAD LINK LOCK M-SEARCH MERGE MKACTIVITY MKCALENDAR "
    "MKCOL MOVE NOTIFY OPTIONS PATCH POST PROPFIND PROPPATCH PURGE PUT QUERY REBIND REPORT SEARCH "
    "SUBSCRIBE TRACE UNBIND UNLINK UNLOCK UNSUBSCRIBE"
)
METHODS = frozenset(_METHODS.split())

_AUTHORITY = re.compile(r"(?:[A-Za-z0-9._~-]*|\[[0-9A-Fa-f:.]+\])(?::[0-9]{0,5})?")
_ABSOLUTE = re.compile(r"https?://([^/?]+)(?:[/?].*)?", re.IGNORECASE | re.DOTALL)
_LENGTH = re.compile(r"[0-9]{1,18}")  # below 2**63: no reader overflows


def is_websocket(request: web.BaseRequest) -> bool:
    """Whether the request asks to become a WebSocket."""
    upgrade = request.headers.get("Upgrade")
    return upgrade is not None and upgrade.lower() == "websocket" and _wants_upgrade(request)


def is_chunked(request: web.BaseRequest) -> bool:
    """Whether the body comes in chunks (the head was found good)."""
    return "Transfer-Encoding" in request.headers


def head_refusal(request: web.BaseRequest) -> Refusal | None:
    """Why this head is not acted upon; None if it is good."""
    if request.method == "CONNECT":
        return UpgradeUnsupported("CONNECT is not supported")
    return (
        _line_refusal(request)
        or _host_refusal(request)
        or _body_refusal(request)
        or _upgrade_refusal(request)
    )


def _line_refusal(request: web.BaseRequest) -> Refusal | None:
    if request.version not in (HttpVersion10, HttpVersion11):
        return BadRequest("only HTTP/1.0 and HTTP/1.1 are spoken here")
    if request.method not in METHODS:
        return BadRequest("the method is not one of HTTP")
    target = request.raw_path
    if "#" in target:
        return BadRequest("the request target has a fragment")
    if not target.startswith("/") and not (target == "*" and request.method == "OPTIONS"):
        return _absolute_refusal(request)
    return None


def _absolute_refusal(request: web.BaseRequest) -> Refusal | None:
    absolute = _ABSOLUTE.fullmatch(request.raw_path)
    if absolute is None:
        return BadRequest("the request target is neither a path nor an http url")
    host = request.headers.get("Host")
    if host is None or absolute[1].lower() != host.lower():
        return BadRequest("the request target names another host than the Host header")
    return None


def _host_refusal(request: web.BaseRequest) -> Refusal | None:
    hosts = request.headers.getall("Host", [])
    if len(hosts) > 1 or (not hosts and request.version >= HttpVersion11):
        return BadRequest("exactly one Host header is needed")
    if hosts and _AUTHORITY.fullmatch(hosts[0]) is None:
        return BadRequest("the Host header is not a host name")
    return None


def _body_refusal(request: web.BaseRequest) -> Refusal | None:
    codings = request.headers.getall("Transfer-Encoding", [])
    lengths = request.headers.getall("Content-Length", [])
    if codings and lengths:
        return BadRequest("Transfer-Encoding and Content-Length exclude each other")
    if codings and request.version < HttpVersion11:
        return BadRequest("Transfer-Encoding is not part of HTTP/1.0")
    if len(codings) > 1 or (codings and codings[0].lower() != "chunked"):
        return BadRequest("the only Transfer-Encoding understood is chunked")
    if len(lengths) > 1 or (lengths and _LENGTH.fullmatch(lengths[0]) is None):
        return BadRequest("the Content-Length is not one decimal number")
    return None


def _upgrade_refusal(request: web.BaseRequest) -> Refusal | None:
    if "Upgrade" not in request.headers or not _wants_upgrade(request):
        return None  # Without the connection option it asks for nothing (RFC 9110, 7.8).
    if not is_websocket(request):
        return UpgradeUnsupported("only upgrades to websocket are relayed")
    if request.version < HttpVersion11:
        return UpgradeUnsupported("a websocket needs HTTP/1.1 (nginx: proxy_http_version 1.1)")
    if request.method != "GET":
        return UpgradeUnsupported("a websocket is opened with GET")
    if request.body_exists:
        return BadRequest("a websocket is opened without a body")
    return None


def _wants_upgrade(request: web.BaseRequest) -> bool:
    return b"upgrade" in tokens(request.raw_headers, b"connection")
