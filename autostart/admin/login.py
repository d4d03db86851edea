"""How a browser presents the token: once, for a session."""

from __future__ import annotations

import json

import structlog
from aiohttp import web

from autostart.admin.guard import LOGIN_PATH, Guard, who_asked
from autostart.errors import BadCommand, Forbidden

log = structlog.get_logger("autostart")

_FORM = "application/x-www-form-urlencoded"


class Login:
    """The handlers of /login and /logout."""

    def __init__(self, guard: Guard) -> None:
        self._guard = guard

    def add_to(self, application: web.Application) -> None:
        """Add the routes, and the cookie to the answers."""
        application.on_response_prepare.append(self._guard.complete_head)
        application.router.add_get(LOGIN_PATH, self.standing)
        application.router.add_post(LOGIN_PATH, self.login)
        application.router.add_post("/logout", self.logout)

    async def standing(self, request: web.Request) -> web.Response:
        """Say whether a token is needed, and whether this browser has shown it."""
        is_open = not self._guard.needs_token or self._guard.session(request) is not None
        return web.json_response({"token_needed": self._guard.needs_token, "open": is_open})

    async def login(self, request: web.Request) -> web.Response:
        """Take the token, in a form or in JSON, and open a session."""
        presented = await _read_token(request)
        if self._guard.needs_token:
            try:
                self._guard.check_token(request, presented)
            except Forbidden as error:
                address = who_asked(request) or "this machine"
                log.warning("login-refused", address=address, reason=error.message)
                raise
            self._guard.open_session(request)
        return web.json_response({"token_needed": self._guard.needs_token, "open": True})

    async def logout(self, request: web.Request) -> web.Response:
        """End the session of this browser."""
        self._guard.end_session(request)
        needed = self._guard.needs_token
        return web.json_response({"token_needed": needed, "open": not needed})


async def _read_token(request: web.Request) -> str:
    if request.content_type == _FORM:
        try:
            presented: object = (await request.post()).get("token")
        except (LookupError, ValueError) as error:  # a charset that nobody knows, or has
            raise BadCommand(f"the form cannot be read: {error}") from error
    else:
        try:
            body = json.loads(await request.read())
        except (ValueError, RecursionError) as error:
            raise BadCommand(f"the body is not JSON: {error}") from error
        presented = body.get("token") if isinstance(body, dict) else None
    if not isinstance(presented, str):
        raise BadCommand('the body has no token; allowed: {"token": "…"}, or a form with it')
    return presented.strip()
