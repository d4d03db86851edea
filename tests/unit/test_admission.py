"""autostart/admission.py: what a request may ask of its service."""

from __future__ import annotations

from dataclasses import replace

import pytest

from autostart.admission import Admission, RequestHead, admit, plain_path
from autostart.config import ServiceConfig, Wake
from autostart.errors import Asleep, DocsUnknown, IgnoredPath, WakeRefused

HOST = "whisper.example.com"
SERVICE = ServiceConfig(
    host=HOST,
    wake=Wake(
        ignore=("/favicon.ico", "/static/*", "/robots.txt"),
        ignore_agents=("UptimeRobot*", "*bot/2.?"),
    ),
    asleep={"/health": 200, "/static/health": 204},
)
PAGE = ServiceConfig(host=HOST, mode="page", wake=SERVICE.wake, asleep=SERVICE.asleep)
ONLY_POST = ServiceConfig(host=HOST, wake=Wake(methods=("POST",)))
HEAD_WAKES = ServiceConfig(host=HOST, wake=Wake(methods=("GET", "HEAD", "OPTIONS")))
DEFAULTS = ServiceConfig(host=HOST)
DOCUMENTED = ServiceConfig(
    host=HOST,
    mode="page",
    docs="/api/openapi.json?v=3",
    wake=Wake(methods=("POST",), ignore=("/docs",), ignore_agents=("UptimeRobot*",)),
    asleep={"/docs/health": 200},
)

WAKES = Admission(may_wake=True, may_wait=True, counts=True)
GETS_PAGE = Admission(may_wake=True, may_wait=False, counts=True)
PATH_IGNORED = Admission(
    may_wake=False,
    may_wait=True,
    counts=False,
    otherwise=IgnoredPath(f"{HOST} is stopped and this path does not wake it"),
)
AGENT_IGNORED = Admission(
    may_wake=False,
    may_wait=True,
    counts=False,
    otherwise=WakeRefused(f"{HOST} is stopped and this agent may not wake it"),
)
READS_DOCS = Admission(
    may_wake=False,
    may_wait=False,
    counts=False,
    otherwise=DocsUnknown(f"{HOST} is not ready and its docs are not known yet"),
)
AHEAD = Admission(
    may_wake=False,
    may_wait=False,
    counts=False,
    otherwise=WakeRefused(f"{HOST} is not ready and fetching ahead does not wake it"),
)


def answered(status: int) -> Admission:
    answer = Asleep(f"{HOST} is asleep", status=status)
    return Admission(may_wake=False, may_wait=False, counts=False, otherwise=answer)


def refused(method: str, *, counts: bool) -> Admission:
    refusal = WakeRefused(f"{HOST} is stopped and {method} may not wake it")
    return Admission(may_wake=False, may_wait=True, counts=counts, otherwise=refusal)


def head(
    method: str = "GET", path: str = "/", agent: str = "curl/8", *, navigates: bool = False
) -> RequestHead:
    return RequestHead(method=method, path=path, agent=agent, navigates=navigates)


TABLE = {
    # anything else
    "get": (SERVICE, head(), WAKES),
    "post": (SERVICE, head("POST", "/v1/audio/transcriptions"), WAKES),
    "put": (SERVICE, head("PUT"), WAKES),
    "patch": (SERVICE, head("PATCH"), WAKES),
    "delete": (SERVICE, head("DELETE"), WAKES),
    "no agent": (SERVICE, head(agent=""), WAKES),
    "navigation in hold mode": (SERVICE, head(navigates=True), WAKES),
    "api client in page mode": (PAGE, head("POST"), WAKES),
    "path below an ignored one": (SERVICE, head(path="/favicon.ico/x"), WAKES),
    "path above an ignored one": (SERVICE, head(path="/x/favicon.ico"), WAKES),
    "path in other letters": (SERVICE, head(path="/Favicon.ico"), WAKES),
    "folder of ignored paths": (SERVICE, head(path="/static"), WAKES),
    "path below an asleep one": (SERVICE, head(path="/health/live"), WAKES),
    "agent that only resembles": (SERVICE, head(agent="My UptimeRobot"), WAKES),
    "method made to wake": (HEAD_WAKES, head("HEAD"), WAKES),
    "options made to wake": (HEAD_WAKES, head("OPTIONS"), WAKES),
    # a browser navigating, mode: page
    "navigation in page mode": (PAGE, head(navigates=True), GETS_PAGE),
    # a browser fetches it ahead
    "fetched ahead": (SERVICE, replace(head(), is_ahead=True), AHEAD),
    "page fetched ahead": (PAGE, replace(head(navigates=True), is_ahead=True), AHEAD),
    "head fetched ahead": (SERVICE, replace(head("HEAD"), is_ahead=True), AHEAD),
    "agent before fetched ahead": (
        SERVICE,
        replace(head(agent="UptimeRobot"), is_ahead=True),
        AGENT_IGNORED,
    ),
    # method
    "head": (SERVICE, head("HEAD"), refused("HEAD", counts=False)),
    "options": (SERVICE, head("OPTIONS"), refused("OPTIONS", counts=False)),
    "unknown method": (SERVICE, head("PROPFIND"), refused("PROPFIND", counts=True)),
    "method in other letters": (SERVICE, head("get"), refused("get", counts=True)),
    "method that may not wake": (ONLY_POST, head("GET"), refused("GET", counts=True)),
    "method before page": (
        PAGE,
        head("HEAD", navigates=True),
        refused("HEAD", counts=False),
    ),
    # agent
    "agent": (SERVICE, head(agent="UptimeRobot/2.0"), AGENT_IGNORED),
    "agent in other letters": (SERVICE, head(agent="uptimerobot/2.0"), AGENT_IGNORED),
    "agent in the middle": (SERVICE, head(agent="Nice Bot/2.1"), AGENT_IGNORED),
    "agent before method": (SERVICE, head("HEAD", agent="UptimeRobot"), AGENT_IGNORED),
    "agent before page": (PAGE, head(agent="UptimeRobot", navigates=True), AGENT_IGNORED),
    # path
    "favicon by default": (DEFAULTS, head(path="/favicon.ico"), PATH_IGNORED),
    "robots by default": (DEFAULTS, head(path="/robots.txt"), PATH_IGNORED),
    "glob crosses slashes": (SERVICE, head(path="/static/a/b.css"), PATH_IGNORED),
    "path before agent": (SERVICE, head(path="/favicon.ico", agent="UptimeRobot"), PATH_IGNORED),
    "path before method": (SERVICE, head("HEAD", "/favicon.ico"), PATH_IGNORED),
    "path before page": (PAGE, head(path="/favicon.ico", navigates=True), PATH_IGNORED),
    # docs
    "document": (DOCUMENTED, head(path="/api/openapi.json"), READS_DOCS),
    "document with a slash": (DOCUMENTED, head(path="/api/openapi.json/"), READS_DOCS),
    "page of docs": (DOCUMENTED, head(path="/docs"), READS_DOCS),
    "page of docs with a slash": (DOCUMENTED, head(path="/docs/"), READS_DOCS),
    "below the page of docs": (DOCUMENTED, head(path="/docs/swagger-ui.css"), READS_DOCS),
    "head of docs": (DOCUMENTED, head("HEAD", "/docs"), READS_DOCS),
    "docs before path, agent and page": (
        DOCUMENTED,
        head(path="/docs", agent="UptimeRobot", navigates=True),
        READS_DOCS,
    ),
    "post to the document": (DOCUMENTED, head("POST", "/api/openapi.json"), WAKES),
    "path that only begins so": (DOCUMENTED, head("POST", "/docsearch"), WAKES),
    "docs of a service without": (SERVICE, head(path="/docs"), WAKES),
    "docs in other letters": (SERVICE, head(path="/Docs"), WAKES),
    # asleep
    "asleep before docs": (DOCUMENTED, head(path="/docs/health"), answered(200)),
    "asleep": (SERVICE, head(path="/health"), answered(200)),
    "asleep for every method": (SERVICE, head("HEAD", "/health"), answered(200)),
    "asleep before path": (SERVICE, head(path="/static/health"), answered(204)),
    "asleep before agent": (SERVICE, head(path="/health", agent="UptimeRobot"), answered(200)),
    "asleep before page": (PAGE, head(path="/health", navigates=True), answered(200)),
}


@pytest.mark.parametrize(("service", "request_head", "expected"), TABLE.values(), ids=TABLE)
def test_admission_is_the_first_row_that_applies(
    service: ServiceConfig, request_head: RequestHead, expected: Admission
) -> None:
    """The table of the module's docstring, row by row and row against row."""
    assert expected == admit(service, request_head)


@pytest.mark.parametrize(("service", "request_head", "_expected"), TABLE.values(), ids=TABLE)
def test_refusal_stands_ready_exactly_when_it_may_not_wake(
    service: ServiceConfig, request_head: RequestHead, _expected: Admission
) -> None:
    """A request that may not wake always has an answer of ours, one that may never."""
    admission = admit(service, request_head)

    assert admission.may_wake == (admission.otherwise is None)


@pytest.mark.parametrize(
    ("target", "path"),
    [
        ("/favicon.ico", "/favicon.ico"),
        ("/favicon.ico?v=2", "/favicon.ico"),
        ("/favicon.ico?", "/favicon.ico"),
        ("/favicon.ico#top", "/favicon.ico"),
        ("//favicon.ico", "/favicon.ico"),
        ("/./favicon.ico", "/favicon.ico"),
        ("/x/../favicon.ico", "/favicon.ico"),
        ("/../favicon.ico", "/favicon.ico"),
        ("/%66avicon%2Eico", "/favicon.ico"),
        ("/x/%2e%2E/favicon.ico", "/favicon.ico"),
        ("/%2566avicon.ico", "/%66avicon.ico"),
        ("/favicon.ico%3Fv=2", "/favicon.ico?v=2"),
        ("/favicon.ico%2Fx", "/favicon.ico/x"),
        ("/favicon.ico/", "/favicon.ico/"),
        ("/favicon.ico/..", "/"),
        ("/a/b/..", "/a/"),
        ("/a/.", "/a/"),
        ("/a//", "/a/"),
        ("/", "/"),
        ("//", "/"),
        ("/?x=/favicon.ico", "/"),
        ("/caf%C3%A9", "/café"),
        ("/%FF", "/\N{REPLACEMENT CHARACTER}"),
        ("*", "*"),
        ("", ""),
    ],
)
def test_spellings_of_one_path_are_one(target: str, path: str) -> None:
    """No spelling dodges a glob, and no other path is taken for one that matches."""
    assert path == plain_path(target)
