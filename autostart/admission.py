"""What a request may ask of its service: wake it, wait for it, count as use.

Decides from the service's `wake`, `asleep` and `mode` and from the head of the request alone. It
does not know whether the service is stopped: the answer travels with the lease request, and
lifecycle applies it with the state in its hand. For a service that is ready every request is
forwarded, and only `counts` matters.

The first row that applies decides:

| the request                      | may_wake | may_wait | counts | otherwise         |
|----------------------------------|----------|----------|--------|-------------------|
| its path is in asleep            | no       | no       | no     | Asleep(status)    |
| GET or HEAD of its docs          | no       | no       | no     | DocsUnknown       |
| its path matches wake.ignore     | no       | yes      | no     | IgnoredPath       |
| its agent is in wake.ignore_agents | no     | yes      | no     | WakeRefused       |
| a browser fetches it ahead       | no       | no       | no     | WakeRefused       |
| OPTIONS or HEAD, not in wake.methods | no   | yes      | no     | WakeRefused       |
| other method not in wake.methods | no       | yes      | yes    | WakeRefused       |
| a browser navigating, mode: page | yes      | no       | yes    |                   |
| anything else                    | yes      | yes      | yes    |                   |

OPTIONS and HEAD ask about a resource without using it, and HEAD is what monitors send: one every
five minutes would keep a service up for ever. Other methods that may not wake are still use:
an operator who lets only POST wake does not want the GET that follows to go uncounted. What a
browser fetches ahead nobody has asked for yet; refused, it asks again when somebody does.

"Its docs" are the path in `docs`, /docs, and what is below /docs/, on services that set `docs`. The
caller answers DocsUnknown from the docs cache where that has something.
"""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import lru_cache
from urllib.parse import unquote

from autostart.config import ServiceConfig
from autostart.errors import Asleep, DocsUnknown, IgnoredPath, Refusal, WakeRefused

# Where a service shows its docs to people, FastAPI's own place; what the page loads is below it.
DOCS_PAGE = "/docs"

_ASKING_METHODS = frozenset({"OPTIONS", "HEAD"})


@dataclass(frozen=True)
class RequestHead:
    """What admission looks at.

    `path` comes from `plain_path`. `agent` is the User-Agent, "" without one. `navigates` says that
    a browser loads a page for a person (Sec-Fetch-Mode: navigate, or an Accept that prefers HTML);
    `is_ahead` that it does so before anybody wants it (Sec-Purpose: prefetch).
    """

    method: str
    path: str
    agent: str = ""
    navigates: bool = False
    is_ahead: bool = False


@dataclass(frozen=True)
class Admission:
    """What one request may ask of its service; `otherwise` is set exactly when it may not wake."""

    may_wake: bool
    may_wait: bool
    counts: bool
    otherwise: Refusal | None = None


def plain_path(target: str) -> str:
    """Return the path of a request target in the one form that globs are compared with.

    Without query; percent-decoded once, after the query was cut off, so that "%3F" stays in the
    path; repeated slashes and dot segments resolved. "//favicon.ico?v=2", "/./favicon.ico" and
    "/%66avicon.ico" are all "/favicon.ico"; "/favicon.ico%2Fx" and "/%2566avicon.ico" are not.
    Only compared, never forwarded. A target that is no path ("*") is returned as it is.
    """
    scheme, separator, rest = target.partition("://")
    if separator and scheme.isalpha():  # absolute-form, as proxies are asked
        target = "/" + rest.partition("/")[2]
    path = unquote(target.partition("?")[0].partition("#")[0])
    if not path.startswith("/"):
        return path
    kept: list[str] = []
    segments = path.split("/")
    for segment in segments:
        if segment == "..":
            del kept[-1:]
        elif segment not in {"", "."}:
            kept.append(segment)
    is_folder = segments[-1] in {"", ".", ".."} and kept
    return "/" + "/".join(kept) + ("/" if is_folder else "")


def is_document(service: ServiceConfig, path: str) -> bool:
    """Say whether a plain path is that of the service's OpenAPI document, with or without a "/"."""
    return service.docs is not None and _bare(path) == _document_path(service.docs)


def is_docs(service: ServiceConfig, path: str) -> bool:
    """Say whether a plain path is read to learn about the service: its document or its page."""
    if service.docs is None:
        return False
    return f"{path}/".startswith(f"{DOCS_PAGE}/") or is_document(service, path)


@lru_cache(maxsize=1024)  # asked at every GET
def _document_path(docs: str) -> str:
    return _bare(plain_path(docs))


def _bare(path: str) -> str:
    return path.rstrip("/") or "/"


def admit(service: ServiceConfig, head: RequestHead) -> Admission:
    """Return what a request may ask of `service`; never raises."""
    asleep_status = service.asleep.get(head.path)
    if asleep_status is not None:
        answer = Asleep(f"{service.host} is asleep", status=asleep_status)
        return Admission(may_wake=False, may_wait=False, counts=False, otherwise=answer)
    if head.method in {"GET", "HEAD"} and is_docs(service, head.path):
        unknown = DocsUnknown(f"{service.host} is not ready and its docs are not known yet")
        return Admission(may_wake=False, may_wait=False, counts=False, otherwise=unknown)
    if any(fnmatchcase(head.path, glob) for glob in service.wake.ignore):
        refusal: Refusal = IgnoredPath(f"{service.host} is stopped and this path does not wake it")
        return Admission(may_wake=False, may_wait=True, counts=False, otherwise=refusal)
    agent = head.agent.lower()
    if any(fnmatchcase(agent, glob.lower()) for glob in service.wake.ignore_agents):
        refusal = WakeRefused(f"{service.host} is stopped and this agent may not wake it")
        return Admission(may_wake=False, may_wait=True, counts=False, otherwise=refusal)
    if head.is_ahead:
        refusal = WakeRefused(f"{service.host} is not ready and fetching ahead does not wake it")
        return Admission(may_wake=False, may_wait=False, counts=False, otherwise=refusal)
    if head.method not in service.wake.methods:
        refusal = WakeRefused(f"{service.host} is stopped and {head.method} may not wake it")
        counts = head.method not in _ASKING_METHODS
        return Admission(may_wake=False, may_wait=True, counts=counts, otherwise=refusal)
    gets_page = service.mode == "page" and head.navigates
    return Admission(may_wake=True, may_wait=not gets_page, counts=True)
