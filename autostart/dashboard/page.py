"""Serves the page and what it is made of.

They hold no data, so they are answered to whoever reaches the listener, before it asks for its
token: the page then asks the API, and that asks for the token.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib.resources import files

from aiohttp import web
from aiohttp.typedefs import Handler

FOLDER = "/dashboard/"
PAGE = "index.html"
_TYPES = {
    ".html": "text/html",
    ".css": "text/css",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
}
# Names of services, paths and lines of output are anybody's. The page writes them as text alone;
# this is the second lock: only our own files run, and only our own listener is asked.
_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "connect-src 'self'",
        "img-src 'self' data:",
        "frame-ancestors 'none'",
        "base-uri 'none'",
        "form-action 'none'",
        "require-trusted-types-for 'script'",
    )
)
_HEADERS = {
    # Kept by the browser, asked about each time: after an update no old part meets a new one.
    "Cache-Control": "no-cache",
    "Content-Security-Policy": _POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


@dataclass(frozen=True, slots=True)
class Asset:
    """One file, read once."""

    content: bytes
    content_type: str
    tag: str


def read_assets() -> dict[str, Asset]:
    """Return what a browser may ask for, by name."""
    found = {}
    for entry in files("autostart.dashboard").joinpath("static").iterdir():
        content_type = _TYPES.get(entry.name[entry.name.rfind(".") :])
        if content_type is not None:
            content = entry.read_bytes()
            tag = hashlib.sha256(content).hexdigest()[:32]
            found[entry.name] = Asset(content, content_type, tag)
    return found


def add_to(application: web.Application) -> None:
    """Serve the page at / to browsers, and its parts below /dashboard/."""
    assets = read_assets()

    @web.middleware
    async def page(request: web.Request, handler: Handler) -> web.StreamResponse:
        asset = assets.get(_name(request))
        return await handler(request) if asset is None else _answer(request, asset)

    # The first one is the outermost: before the guard.
    application.middlewares.insert(0, page)


def wants_page(accept: str) -> bool:
    """Whether an Accept header is a browser's that loads a page; curl and programs send none."""
    kinds = [kind.partition(";")[0].strip().lower() for kind in accept.split(",")]
    return "text/html" in kinds


def _name(request: web.Request) -> str:
    """Return the name of the asset that is asked for, "" for none."""
    if request.method not in {"GET", "HEAD"}:
        return ""
    if request.path == "/":
        return PAGE if wants_page(request.headers.get("Accept", "")) else ""
    if request.path.startswith(FOLDER):
        name = request.path.removeprefix(FOLDER)
        # Its addresses are relative to /, so that it works below any prefix.
        return "" if name == PAGE else name
    return ""


def _answer(request: web.Request, asset: Asset) -> web.Response:
    headers = {**_HEADERS, "ETag": f'"{asset.tag}"'}
    if request.path == "/":
        headers["Vary"] = "Accept"  # curl gets the list of calls there
    known = request.if_none_match or ()
    if any(tag.value in {asset.tag, "*"} for tag in known):
        return web.Response(status=304, headers=headers)
    return web.Response(
        body=asset.content, content_type=asset.content_type, charset="utf-8", headers=headers
    )
