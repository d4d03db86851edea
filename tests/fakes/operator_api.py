"""The operator's API as the dashboard asks it, over a fleet that a test makes up.

For what a real fleet cannot be brought to in a test: a hundred services that change at once, days
of history, failures and hostile words.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

from aiohttp import web
from aiohttp.test_utils import TestServer

from autostart import dashboard

Answer = dict[str, Any]


def service(host: str, state: str = "stopped", **keys: Any) -> Answer:
    """Return the answer about one service."""
    told: Answer = {
        "host": host,
        "name": host,
        "aliases": [],
        "runtime": "process",
        "state": state,
        "phase": None,
        "since": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "since_seconds": 0.0,
        "attempt": 0,
        "endpoint": None,
        "leases": [],
        "waiting": [],
        "idle_due_seconds": None,
        "kept_until": None,
        "phases": [],
        "usual_start_seconds": None,
        "failure": None,
        "failure_log": None,
        "failures": 0,
        "retry_in_seconds": None,
        "closed_by": None,
        "device": None,
        "progress": None,
        "preparation": None,
    }
    return {**told, **keys}


def transition(host: str, source: str, target: str, cause: str, **keys: Any) -> Answer:
    """Return one change of state."""
    return {
        "at": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "service": host,
        "from": source,
        "to": target,
        "state": target,
        "phase": None,
        "cause": cause,
        "attempt": 1,
        "seconds": 1.0,
        "failure": None,
        **keys,
    }


def slept(host: str, asleep: float, starts: list[Answer] | None = None, **keys: Any) -> Answer:
    """Return the last seven days of a service that slept this share of each."""
    today = datetime.now(UTC).date()
    days = [
        {
            "date": (today - timedelta(days=6 - day)).isoformat(),
            "asleep_seconds": asleep * 86_400,
            "awake_seconds": (1 - asleep) * 86_400,
        }
        for day in range(7)
    ]
    told = {
        "host": host,
        "asleep_seconds": asleep * 604_800,
        "awake_seconds": (1 - asleep) * 604_800,
        "memory_bytes_usual": None,
        "memory_saved_gb_hours": None,
        "days": days,
        "starts": starts or [],
    }
    return {**told, **keys}


def cold_start(days_ago: float, outcome: str = "ready", **phases: float) -> Answer:
    """Return one start, its phases in seconds."""
    at = datetime.now(UTC) - timedelta(days=days_ago)
    took = {
        phase: phases.get(phase, 0.0) for phase in ("queued", "preparing", "starting", "loading")
    }
    return {
        "at": at.isoformat(timespec="milliseconds"),
        "cause": "request POST /v1/audio/transcriptions",
        "outcome": outcome,
        "seconds": sum(took.values()),
        "phases": took,
    }


class OperatorApi:
    """Answers as the admin listener does; `say` sends an event to every page."""

    def __init__(self, *services: Answer) -> None:
        self.services = {each["host"]: each for each in services}
        self.history: list[Answer] = []
        self.usage: list[Answer] = []
        self.output: dict[str, list[str]] = {}
        self.asked: list[str] = []
        self.refusals: dict[str, tuple[int, Answer]] = {}
        self._past: list[str] = []
        self._pages: set[asyncio.Queue[str]] = set()

    def say(self, kind: str, fields: Answer) -> None:
        """Send an event; a transition is kept for those who come later."""
        id_line = f"id: {len(self._past) + 1}\n" if kind == "transition" else ""
        text = f"{id_line}event: {kind}\ndata: {json.dumps(fields)}\n\n"
        if kind == "transition":
            self._past.append(text)
        for page in self._pages:
            page.put_nowait(text)

    def change(self, host: str, **keys: Any) -> None:
        """Change a service and tell every page."""
        self.services[host] = {**self.services[host], **keys}
        self.say("service", self.services[host])

    @property
    def pages(self) -> int:
        """How many pages follow."""
        return len(self._pages)

    def application(self) -> web.Application:
        application = web.Application()
        add = application.router.add_route
        add("GET", "/", self._index)
        add("GET", "/login", self._standing)
        add("GET", "/api/services", self._list)
        add("GET", "/api/usage", self._usage)
        add("GET", "/api/history", self._history)
        add("GET", "/api/events", self._events)
        add("GET", "/api/services/{host}/logs", self._logs)
        add("POST", "/api/services/{host}/{verb}", self._command)
        dashboard.add_to(application)
        return application

    async def _index(self, _: web.Request) -> web.Response:
        return web.Response(text="the list of calls")

    async def _standing(self, _: web.Request) -> web.Response:
        return web.json_response({"token_needed": False, "open": True})

    async def _list(self, _: web.Request) -> web.Response:
        return web.json_response(list(self.services.values()))

    async def _usage(self, _: web.Request) -> web.Response:
        return web.json_response(self.usage)

    async def _history(self, _: web.Request) -> web.Response:
        since = datetime.now(UTC) - timedelta(days=7)
        return web.json_response({"since": since.isoformat(), "services": self.history})

    async def _events(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        page: asyncio.Queue[str] = asyncio.Queue()
        await response.prepare(request)
        after = int(request.query.get("last_event_id", 0))
        await response.write("".join(["retry: 2000\n\n", *self._past[after:]]).encode())
        self._pages.add(page)
        try:
            while True:
                await response.write((await page.get()).encode())
        finally:
            self._pages.discard(page)

    async def _logs(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/plain; charset=utf-8"})
        await response.prepare(request)
        lines = self.output.get(request.match_info["host"], [])
        sent = 0
        while True:
            await response.write("".join(f"{line}\n" for line in lines[sent:]).encode())
            sent = len(lines)
            await asyncio.sleep(0.05)

    async def _command(self, request: web.Request) -> web.Response:
        host, verb = request.match_info["host"], request.match_info["verb"]
        self.asked.append(f"{verb} {host} {json.dumps(await request.json())}")
        status, answer = self.refusals.get(verb, (200, self.services[host]))
        return web.json_response(answer, status=status)


@asynccontextmanager
async def served(api: OperatorApi) -> AsyncIterator[str]:
    """Serve it for the length of the block; gives its URL."""
    server = TestServer(api.application(), handler_cancellation=True)
    await server.start_server()
    try:
        yield str(server.make_url("/"))
    finally:
        await server.close()
