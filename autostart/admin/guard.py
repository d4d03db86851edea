"""Who may use the admin listener.

A page of another site can make a browser send requests here, and by rebinding its own name to
127.0.0.1 it could even read the answers. So the Host must be one of ours, and an Origin must be
that same Host. Behind a reverse proxy the Host is its own: then the token says who asks.

A browser presents the token once, at the login, and a cookie from then on. Cookies do not separate
the ports of a host: to a browser the page of a service on 127.0.0.1:8001 and this listener are the
same site, and SameSite keeps nothing from it. So what changes something by a cookie has to prove
that a page of ours sent it, by its Origin or by Sec-Fetch-Site, which no page can forge.
"""

from __future__ import annotations

import hmac
from ipaddress import ip_address
from urllib.parse import urlsplit

from aiohttp import web
from aiohttp.typedefs import Handler

from autostart.admin.attempts import Attempts, who_asks
from autostart.admin.sessions import AGE_SECONDS_MAX, Session, Sessions
from autostart.errors import Forbidden, TooManyAttempts
from autostart.telemetry import Clock

HEALTH_PATH = "/healthz"
LOGIN_PATH = "/login"
# Asked before there is anything to show.
_PUBLIC = frozenset({HEALTH_PATH, LOGIN_PATH})
_SAFE = frozenset({"GET", "HEAD"})
_DEFAULT_PORTS = {"http": 80, "https": 443}
_LOOPBACK_NAMES = ("localhost", "127.0.0.1", "::1")
# What the answer's head will carry.
_COOKIE = web.RequestKey("cookie", str)
_NEEDED = "this admin listener needs its token"


class Guard:
    """Lets a request through, or raises Forbidden; with a token everything but health needs it."""

    def __init__(self, token: str | None, clock: Clock) -> None:
        self._token = token
        self._clock = clock
        self._attempts = Attempts()
        self._sessions = None if token is None else Sessions(token)

    @property
    def needs_token(self) -> bool:
        """Whether a token is set."""
        return self._token is not None

    @web.middleware
    async def check(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Pass on what may be asked by whoever asks."""
        check_origin(request)
        if self._token is None:
            if request.path != HEALTH_PATH:
                _check_host(request)
        elif request.path not in _PUBLIC and not self.is_open_to(request):
            raise Forbidden(_NEEDED)
        return await handler(request)

    def is_open_to(self, request: web.Request) -> bool:
        """Whether the request carries the token, or the cookie of a session.

        Raises Forbidden for a wrong token, and for a command by cookie that may be another page's;
        TooManyAttempts.
        """
        if self._sessions is None:
            return True
        scheme, _, presented = request.headers.get("Authorization", "").partition(" ")
        # Basic is a reverse proxy's own, passed on; browsers send it with every request.
        if scheme.lower() == "bearer":
            self.check_token(request, presented.strip())
            return True
        session = self.session(request)
        if session is None:
            return False
        if request.method not in _SAFE and not _is_from_a_page_of_ours(request):
            raise Forbidden("the request does not say that a page of this listener sent it")
        renewed = session.used(self._clock.now().wall.timestamp())
        if renewed is not None:
            request[_COOKIE] = self._cookie(request, renewed)
        return True

    def check_token(self, request: web.Request, presented: str) -> None:
        """Raise Forbidden unless this is the token; TooManyAttempts without a look at it."""
        assert self._token is not None
        who, now = who_asked(request), self._clock.now().monotonic
        wait_seconds = self._attempts.wait_seconds(who, now)
        if wait_seconds > 0:
            text = f"too many wrong tokens from {who}"
            raise TooManyAttempts(text, retry_after_seconds=wait_seconds)
        # Headers and JSON may hold surrogates; those differ like anything else.
        if hmac.compare_digest(presented.encode("utf-8", "surrogatepass"), self._token.encode()):
            return
        self._attempts.note_wrong(who, now)
        raise Forbidden(_NEEDED if not presented else "this is not the token of the admin listener")

    def session(self, request: web.Request) -> Session | None:
        """Return the session that the request's cookie stands for."""
        if self._sessions is None:
            return None
        now = self._clock.now().wall.timestamp()
        written = read_cookie(request.headers.getall("Cookie", []), self._sessions.cookie)
        return None if written is None else self._sessions.read(written, now)

    def open_session(self, request: web.Request) -> None:
        """Send the browser a session with the answer."""
        assert self._sessions is not None
        session = self._sessions.open(self._clock.now().wall.timestamp())
        request[_COOKIE] = self._cookie(request, session)

    def end_session(self, request: web.Request) -> None:
        """Forget the session, and have the browser forget it."""
        session = self.session(request)
        if self._sessions is not None and session is not None:
            self._sessions.end(session)
            request[_COOKIE] = self._cookie(request, None)

    async def complete_head(self, request: web.Request, response: web.StreamResponse) -> None:
        """Add what every answer carries, and a new or renewed session; for on_response_prepare."""
        # Output of a service is not taken for a page, and pages elsewhere embed none of it.
        response.headers.setdefault("X-Content-Type-Options", "nosniff")
        response.headers.setdefault("Cross-Origin-Resource-Policy", "same-origin")
        # nginx passes events and lines on as they come, whatever its proxy_buffering says.
        response.headers.setdefault("X-Accel-Buffering", "no")
        if _COOKIE in request:
            response.headers.add("Set-Cookie", request[_COOKIE])

    def _cookie(self, request: web.Request, session: Session | None) -> str:
        assert self._sessions is not None
        value = "" if session is None else self._sessions.write(session)
        seconds = 0 if session is None else AGE_SECONDS_MAX
        # A proxy on the way tells; whoever forges it spoils their own cookie only.
        by_https = request.secure or request.headers.get("X-Forwarded-Proto", "") == "https"
        kept = f"Max-Age={seconds}; Path=/; HttpOnly; SameSite=Strict"
        return f"{self._sessions.cookie}={value}; {kept}{'; Secure' if by_https else ''}"


def check_origin(request: web.Request) -> None:
    """Raise Forbidden for what a page of another site or port sent.

    A link that was followed to here is fine: the answer is shown to the operator alone.
    """
    origin = request.headers.get("Origin")
    if origin is None:
        from_elsewhere = request.headers.get("Sec-Fetch-Site", "") in {"cross-site", "same-site"}
        if from_elsewhere and not _is_followed_link(request):
            raise Forbidden("the request comes from a page of another site")
        return
    scheme, _, authority = origin.partition("://")
    host = request.headers.get("Host", "")
    if scheme not in _DEFAULT_PORTS or _authority(scheme, authority) != _authority(scheme, host):
        raise Forbidden(f"the request comes from a page of another site: {origin}, not {host}")


def read_cookie(headers: list[str], name: str) -> str | None:
    """Return the value of the first cookie of that name; None if there is none."""
    for header in headers:
        for pair in header.split(";"):
            written, _, value = pair.strip().partition("=")
            if written == name:
                return value
    return None


def _is_followed_link(request: web.Request) -> bool:
    """Whether a person went here, in a window of its own."""
    asked = request.headers
    mode, place = asked.get("Sec-Fetch-Mode"), asked.get("Sec-Fetch-Dest")
    return request.method in _SAFE and (mode, place) == ("navigate", "document")


def _is_from_a_page_of_ours(request: web.Request) -> bool:
    """Whether the browser says so; an Origin was compared with the Host already."""
    return "Origin" in request.headers or request.headers.get("Sec-Fetch-Site") == "same-origin"


def who_asked(request: web.Request) -> str | None:
    """Return the address that a wrong token is counted by, None for this machine itself."""
    peer = None if request.transport is None else request.transport.get_extra_info("peername")
    address = str(peer[0]) if isinstance(peer, tuple) else None
    return who_asks(address, request.headers.get("X-Forwarded-For"))


def _check_host(request: web.Request) -> None:
    if _authority("http", request.headers.get("Host", "")) not in _own_names(request):
        raise Forbidden("the Host header is not a name of this admin listener")


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
