"""One answer to somebody who reads docs, and what is known about who reads.

Values only: whoever has the request makes the one and sends the other.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from autostart.portal.document import Origin

HTML = "text/html; charset=utf-8"
JSON = "application/json"


@dataclass(frozen=True)
class Reader:
    """`path` is plain; `host` is the name that was asked, without its port."""

    path: str
    host: str
    origin: Origin
    takes_gzip: bool = False


@dataclass(frozen=True)
class Page:
    """`cache` says how long a browser may keep it; "" = not at all."""

    body: bytes
    content_type: str = JSON
    cache: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
