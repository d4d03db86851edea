"""The files that a page of ours loads: its own, and Swagger UI as its makers release it.

Swagger UI comes from a package that is installed with us; nothing is loaded from anywhere else. The
page is one for the portal and for a service's own /docs.
"""

from __future__ import annotations

import base64
import gzip
import re
from collections.abc import Iterable
from hashlib import sha256
from html import escape
from importlib.util import find_spec
from pathlib import Path

from autostart.portal.page import HTML, Page, Reader

# Everything of ours is below this on every host that has docs; no service gets to see it.
FOLDER = "/.autostart/docs/"

_ICON = "favicon-32x32.png"
_SWAGGER = ("swagger-ui-bundle.js", "swagger-ui.css", _ICON)
_OWN = ("portal.js", "portal.css")
_TEMPLATE = "portal.html"
_TYPES = {".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8"}
_PNG = "image/png"
# The bundle of 1.7 MB becomes 0.5 MB; a higher level takes longer and gives no more.
_GZIP_LEVEL = 6
# Their addresses change with their content. Private: a service's may be behind its credentials.
_FOR_EVER = "private, max-age=31536000, immutable"
_NOSNIFF = {"X-Content-Type-Options": "nosniff"}

# For what a document might smuggle in: no script, style, frame or form but ours. What may be called
# stands in the page itself (_CALLS), for a hundred origins are more than nginx takes in a header.
_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        # Not even 'self': on a service's own page, a picture in its document would wake it.
        "img-src data: blob:",
        "media-src blob:",
        "connect-src http: https:",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
_PAGE_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    **_NOSNIFF,
}


class Site:
    """The files, read when the first is asked for: a daemon whose docs nobody reads has none."""

    def __init__(self) -> None:
        self._files: dict[str, tuple[bytes, bytes]] = {}
        self._template = ""

    def load(self) -> None:
        """Read and compress every file, a tenth of a second; more than once does no harm."""
        if self._template:
            return
        own = Path(__file__).parent / "site"
        swagger = _swagger_folder()
        loaded = {name: _compressed(swagger / name) for name in _SWAGGER}
        loaded |= {name: _compressed(own / name) for name in _OWN}
        self._files = loaded
        # The same files in every process: a page of one daemon may load what the next one serves.
        digest = sha256(b"".join(plain for plain, _ in loaded.values())).hexdigest()[:12]
        template = (own / _TEMPLATE).read_text(encoding="utf-8")
        icon = base64.b64encode(loaded[_ICON][0]).decode()
        self._template = template.replace("{{version}}", digest).replace("{{icon}}", icon)

    def file(self, name: str, reader: Reader, *, may_stay: bool) -> Page | None:
        """Return a file by its name, None if there is none; `load` comes first."""
        found = self._files.get(name)
        if found is None:
            return None
        plain, compressed = found
        is_smaller = reader.takes_gzip and len(compressed) < len(plain)
        headers = {**_NOSNIFF, "Vary": "Accept-Encoding"}
        return Page(
            compressed if is_smaller else plain,
            _TYPES.get(f".{name.rpartition('.')[2]}", _PNG),
            cache=_FOR_EVER if may_stay else "",
            headers={**headers, "Content-Encoding": "gzip"} if is_smaller else headers,
        )

    def page(self, *, title: str, called: Iterable[str], is_portal: bool) -> Page:
        """Return the page; `called` are the origins that it may call beside its own."""
        words = {
            "title": title,
            "calls": " ".join(("connect-src 'self'", *called)),
            "place": "portal" if is_portal else "service",
        }
        text = re.sub(r"{{(\w+)}}", lambda word: escape(words[word[1]]), self._template)
        return Page(text.encode(), HTML, headers=_PAGE_HEADERS)


def _swagger_folder() -> Path:
    """Return where the package holds Swagger UI; it is not imported, for that imports FastAPI."""
    spec = find_spec("fastapi_swagger")
    assert spec is not None, "fastapi-swagger is one of our dependencies"
    assert spec.origin is not None, spec
    return Path(spec.origin).parent / "resources"


def _compressed(file: Path) -> tuple[bytes, bytes]:
    plain = file.read_bytes()
    return plain, gzip.compress(plain, _GZIP_LEVEL, mtime=0)
