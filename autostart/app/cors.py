"""CORS for services that set `cors`: preflights are answered here, and wake nothing.

The headers are ours alone on such a service: what it says itself is replaced, so that the map is
the only place to look. Pure: request headers in, answer headers out.
"""

from __future__ import annotations

from collections.abc import Mapping

from autostart.config import ServiceConfig

# How long a browser may remember a preflight: Chromium's cap.
PREFLIGHT_MAX_AGE_SECONDS = 7200
# Headers of ours that a page may read.
EXPOSED = "Autostart-Error, Autostart-Start, Retry-After, Server-Timing, X-Request-ID"


def is_preflight(method: str, headers: Mapping[str, str]) -> bool:
    """Say whether a browser asks if it may ask."""
    return (
        method == "OPTIONS" and "Origin" in headers and "Access-Control-Request-Method" in headers
    )


def preflight_headers(service: ServiceConfig, headers: Mapping[str, str]) -> dict[str, str]:
    """Return the answer to a preflight; without allowance if the origin is not on the list."""
    answer = answer_headers(service, headers)
    if "Access-Control-Allow-Origin" not in answer:
        return answer
    answer["Access-Control-Allow-Methods"] = headers["Access-Control-Request-Method"]
    if asked := headers.get("Access-Control-Request-Headers"):
        answer["Access-Control-Allow-Headers"] = asked
    answer["Access-Control-Max-Age"] = str(PREFLIGHT_MAX_AGE_SECONDS)
    answer["Vary"] = "Origin, Access-Control-Request-Method, Access-Control-Request-Headers"
    return answer


def answer_headers(service: ServiceConfig, headers: Mapping[str, str]) -> dict[str, str]:
    """Return the headers of an answer to a request with these headers."""
    if not service.cors:
        return {}
    origin = headers.get("Origin")
    answer = {"Vary": "Origin"}
    if origin is None:
        return answer
    if origin.lower() in service.cors:
        answer["Access-Control-Allow-Origin"] = origin
        answer["Access-Control-Allow-Credentials"] = "true"
        answer["Access-Control-Expose-Headers"] = EXPOSED
    elif "*" in service.cors:
        answer["Access-Control-Allow-Origin"] = "*"
        answer["Access-Control-Expose-Headers"] = EXPOSED
    return answer
