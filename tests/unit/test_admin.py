"""What the operator's API answers, over a real supervisor and a fake runtime."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from aiohttp import ClientError, ClientResponse
from aiohttp.test_utils import TestClient

from autostart import errors
from autostart.admin import application
from autostart.admin.openapi import DOCUMENT
from autostart.config import ServiceConfig, WarmWindow
from autostart.lifecycle import State
from autostart.runtimes.base import Device
from autostart.telemetry import QUEUE_MAX, Transition
from tests.fakes.fleet import Fleet, operated

HOST = "a.localhost"
OTHER = "b.localhost"
TOKEN = "sesame"


def service(host: str = HOST, **keys: Any) -> ServiceConfig:
    return ServiceConfig(host, port=9001 if host == HOST else 9002, command=("x",), **keys)


async def answer(fleet: Fleet, path: str = f"/api/services/{HOST}") -> Any:
    return await (await fleet.client.get(path)).json()


async def refusal(client: TestClient[Any, Any], method: str, path: str, **keys: Any) -> Any:
    """Return (status, code) of an answer that says no, after checking its shape."""
    response = await client.request(method, path, **keys)
    body = await response.json()
    assert body["detail"] == body["error"]["message"] != ""
    assert body["error"]["param"] is None
    assert body["hint"]
    return response.status, body["error"]["code"]


# What a service looks like.


async def test_a_stopped_service_has_no_endpoint_and_no_dates() -> None:
    """A stopped service shows null for everything that only a run has."""
    async with operated(service(name="A", aliases=("c.localhost",))) as fleet:
        fleet.clock.advance(5)

        assert await answer(fleet) == {
            "host": HOST,
            "name": "A",
            "aliases": ["c.localhost"],
            "runtime": "fake",
            "state": "stopped",
            "phase": None,
            "since": "2026-01-05T12:00:00.000+00:00",
            "since_seconds": 5.0,
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


async def test_a_ready_service_shows_its_run_and_when_it_idles() -> None:
    """A ready service without leases shows endpoint, idle date and the phases of its start."""
    async with operated(service(idle_seconds=60.0)) as fleet:
        await fleet.start(HOST)
        fleet.clock.advance(10)
        shown = await answer(fleet)

        assert shown["endpoint"] == {"address": "127.0.0.1", "port": 9001, "run": "run-1"}
        assert shown["idle_due_seconds"] == 50.0
        assert [phase["phase"] for phase in shown["phases"]] == ["queued", "starting", "loading"]
        assert [phase["seconds"] for phase in shown["phases"]] == [0.0, 0.0, 0.0]
        assert shown["usual_start_seconds"] == 0.0


async def test_leases_and_waiting_requests_are_named_with_their_age() -> None:
    """Who uses a service and who waits for it is shown with method, path and age."""
    async with operated(service(), service(OTHER)) as fleet:
        fleet.runtime.hold("start")
        await fleet.wait(OTHER, "POST /asr")
        fleet.clock.advance(3)
        waiting = (await answer(fleet, f"/api/services/{OTHER}"))["waiting"]
        fleet.runtime.let_go("start")
        async with fleet.request(HOST, "GET /x"):
            fleet.clock.advance(2)
            shown = await answer(fleet)

        assert waiting == [{"id": 1, "about": "POST /asr", "age_seconds": 3.0}]
        assert shown["leases"] == [{"id": 2, "about": "GET /x", "age_seconds": 2.0}]
        assert shown["idle_due_seconds"] is None


async def test_the_phase_under_way_shows_how_long_it_takes_so_far() -> None:
    """While it starts, the last phase counts up to now."""
    async with operated(service()) as fleet:
        fleet.runtime.hold("start")
        await fleet.wait(HOST)
        fleet.clock.advance(7)
        shown = await answer(fleet)

        assert (shown["state"], shown["phase"]) == ("starting", "starting")
        assert shown["phases"][-1] == {"phase": "starting", "seconds": 7.0}


async def test_a_failed_service_says_why_and_when_it_is_tried_again() -> None:
    """A failure carries code, message and the next step with the host filled in."""
    async with operated(service()) as fleet:
        failure = errors.StartFailed("exit code 3", detail="line 1\nline 2")
        fleet.runtime.fail("start", HOST, failure)
        await fleet.client.post(f"/api/services/{HOST}/start")
        await fleet.reach(HOST, State.FAILED)
        fleet.clock.advance(1)
        shown = await answer(fleet)

        assert shown["failure"] == {
            "code": "start-failed",
            "message": "exit code 3",
            "hint": f"autostart logs {HOST}",
            "detail": "line 1\nline 2",
        }
        assert (shown["failures"], shown["retry_in_seconds"]) == (1, 4.0)


async def test_a_service_that_never_idles_has_no_idle_date() -> None:
    """idle: never and an open warm window both mean that nothing is due."""
    noon = WarmWindow("0 12 * * *", 3600.0, "UTC")
    async with operated(service(idle_seconds=None), service(OTHER, warm=(noon,))) as fleet:
        await fleet.reach(HOST, State.READY)
        await fleet.reach(OTHER, State.READY)

        assert [each["idle_due_seconds"] for each in await answer(fleet, "/api/services")] == [
            None,
            None,
        ]


async def test_services_stand_in_the_order_of_the_map() -> None:
    """The list has every service, in the order in which the map declares them."""
    async with operated(service(OTHER), service()) as fleet:
        assert [each["host"] for each in await answer(fleet, "/api/services")] == [OTHER, HOST]


async def test_an_alias_leads_to_its_service() -> None:
    """A service answers to its aliases here as it does in the proxy."""
    async with operated(service(aliases=("c.localhost",))) as fleet:
        assert (await answer(fleet, "/api/services/C.localhost."))["host"] == HOST


# Commands.


async def test_start_answers_at_once_and_the_start_goes_on() -> None:
    """A start is answered with the service as it stands, not when it is ready."""
    async with operated(service()) as fleet:
        fleet.runtime.hold("start")
        response = await fleet.client.post(f"/api/services/{HOST}/start")
        stands = (await response.json())["state"]
        fleet.runtime.let_go("start")
        await fleet.reach(HOST, State.READY)

        assert (response.status, stands) == (200, "starting")


async def test_stop_with_leases_is_refused_naming_them() -> None:
    """Without drain or force a stop never touches a request."""
    async with operated(service()) as fleet:
        await fleet.start(HOST)
        async with fleet.request(HOST, "POST /asr"):
            response = await fleet.client.post(f"/api/services/{HOST}/stop")
            body = await response.json()

        assert response.status == 409
        assert body["error"]["code"] == "service-leased"
        assert "POST /asr" in body["detail"]
        assert HOST in body["hint"]


@pytest.mark.parametrize("said", [{"json": {"drain": True}}, {"params": {"drain": "1"}}])
async def test_drain_waits_for_the_leases(said: dict[str, Any]) -> None:
    """Options may stand in the body or in the query; drain stops once the requests have ended."""
    async with operated(service()) as fleet:
        await fleet.start(HOST)
        async with fleet.request(HOST):
            await fleet.client.post(f"/api/services/{HOST}/stop", **said)
            during = (await answer(fleet))["phase"]
        await fleet.reach(HOST, State.STOPPED)

        assert during == "draining"


async def test_a_held_service_says_so_until_started() -> None:
    """hold closes the service to requests; start opens it."""
    async with operated(service()) as fleet:
        await fleet.client.post(f"/api/services/{HOST}/stop", json={"hold": True})
        held = (await answer(fleet))["closed_by"]
        await fleet.start(HOST)

        assert (held, (await answer(fleet))["closed_by"]) == ("held", None)


async def test_restart_brings_up_another_run() -> None:
    """A restart ends the run and begins the next attempt."""
    async with operated(service()) as fleet:
        await fleet.start(HOST)
        await fleet.client.post(f"/api/services/{HOST}/restart")
        await fleet.until(lambda: fleet.runtime.machine.started == 2)
        await fleet.reach(HOST, State.READY)

        assert (await answer(fleet))["endpoint"]["run"] == "run-2"


async def test_keep_starts_it_and_holds_idling_off() -> None:
    """A kept service shows until when, and is not due before."""
    async with operated(service(idle_seconds=60.0)) as fleet:
        await fleet.client.post(f"/api/services/{HOST}/keep", json={"for": "2h"})
        await fleet.reach(HOST, State.READY)
        shown = await answer(fleet)

        assert shown["kept_until"] == "2026-01-05T14:00:00.000+00:00"
        assert shown["idle_due_seconds"] == 7200.0


async def test_prepare_is_begun_and_seen_in_the_service() -> None:
    """prepare answers 202; how it stands is part of the service."""
    async with operated(service()) as fleet:
        fleet.runtime.hold("prepare")
        response = await fleet.client.post(f"/api/services/{HOST}/prepare")
        begun = (await response.json())["preparation"]
        await fleet.client.post(f"/api/services/{HOST}/prepare")
        fleet.runtime.let_go("prepare")
        await fleet.until(lambda: not fleet.supervisor.progress)
        await fleet.until(lambda: fleet.runtime.calls.count(("prepare", HOST)) == 1)

        assert response.status == 202
        assert begun == {"running": True, "failure": None}
        assert (await answer(fleet))["preparation"] == {"running": False, "failure": None}


async def test_a_failed_prepare_says_why() -> None:
    """What a pull or build failed with stays visible until the next one."""
    async with operated(service()) as fleet:
        fleet.runtime.fail("prepare", HOST, errors.StartFailed("no space left"))
        await fleet.client.post(f"/api/services/{HOST}/prepare")
        await fleet.until(lambda: ("prepare", HOST) in fleet.runtime.calls)
        preparation = (await answer(fleet))["preparation"]

        assert preparation["failure"]["message"] == "no space left"


async def test_reload_answers_what_was_taken() -> None:
    """A reload that is taken lists what has changed."""

    async def reload() -> list[str]:
        return [HOST]

    async with operated(reload=reload) as fleet:
        response = await fleet.client.post("/api/reload")

        assert (response.status, await response.json()) == (200, {"taken": [HOST]})


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (errors.ConfigError(["map:1: x: unknown key", "map:2: y: unknown key"]), 400),
        (errors.NeedsRestart("map:1: x: unknown key\nmap:2: y: unknown key"), 409),
    ],
)
async def test_a_refused_map_is_answered_with_every_problem(
    error: errors.AutostartError, status: int
) -> None:
    """All problems are listed, so that one round of corrections is enough."""

    async def reload() -> list[str]:
        raise error

    async with operated(reload=reload) as fleet:
        response = await fleet.client.post("/api/reload")
        body = await response.json()

        assert (response.status, body["error"]["code"]) == (status, error.code)
        assert body["problems"] == ["map:1: x: unknown key", "map:2: y: unknown key"]


# Saying no.


@pytest.mark.parametrize(
    ("method", "path", "said", "expected"),
    [
        ("GET", "/nosuch", {}, (404, "bad-command")),
        ("GET", "/api/services/nosuch", {}, (404, "unknown-service")),
        ("POST", "/api/services/nosuch/start", {}, (404, "unknown-service")),
        ("GET", f"/api/services/{HOST}/start", {}, (405, "bad-command")),
        ("DELETE", "/api/services", {}, (405, "bad-command")),
        ("POST", f"/api/services/{HOST}/stop", {"data": b"{"}, (400, "bad-command")),
        ("POST", f"/api/services/{HOST}/stop", {"data": b"\xff"}, (400, "bad-command")),
        ("POST", f"/api/services/{HOST}/stop", {"data": b"[" * 60_000}, (400, "bad-command")),
        ("POST", f"/api/services/{HOST}/stop", {"json": [1]}, (400, "bad-command")),
        ("POST", f"/api/services/{HOST}/stop", {"json": {"now": 1}}, (400, "bad-command")),
        ("POST", f"/api/services/{HOST}/stop", {"json": {"drain": "x"}}, (400, "bad-command")),
        (
            "POST",
            f"/api/services/{HOST}/stop",
            {"json": {"drain": True, "force": True}},
            (400, "bad-command"),
        ),
        ("POST", f"/api/services/{HOST}/keep", {}, (400, "bad-command")),
        ("POST", f"/api/services/{HOST}/keep", {"json": {"for": "2"}}, (400, "bad-command")),
        ("POST", f"/api/services/{HOST}/keep", {"json": {"for": "0s"}}, (400, "bad-command")),
        ("POST", f"/api/services/{HOST}/stop", {"data": b" " * 70_000}, (413, "bad-command")),
        ("GET", f"/api/services/{HOST}/logs?lines=-1", {}, (400, "bad-command")),
        ("GET", f"/api/services/{HOST}/logs?lines=99999", {}, (400, "bad-command")),
    ],
)
async def test_errors_have_one_shape(
    method: str, path: str, said: dict[str, Any], expected: tuple[int, str]
) -> None:
    """Whatever is wrong with a call, the answer is JSON with status, code, message and hint."""
    async with operated(service()) as fleet:
        assert await refusal(fleet.client, method, path, **said) == expected


async def test_a_wrong_method_names_the_right_ones() -> None:
    """405 carries Allow, as HTTP wants it."""
    async with operated() as fleet:
        response = await fleet.client.get("/api/reload")

        assert response.headers["Allow"] == "POST"


async def test_a_bug_shows_no_traceback() -> None:
    """What went wrong inside stays in the log."""

    async def reload() -> list[str]:
        raise RuntimeError("secret")

    async with operated(reload=reload) as fleet:
        response = await fleet.client.post("/api/reload")
        text = await response.text()

        assert response.status == 500
        assert json.loads(text)["error"]["code"] == "error"
        assert "secret" not in text


# Who may ask.


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1", "[::1]"])
async def test_the_listener_has_its_own_names(name: str) -> None:
    """The Host header may be a literal loopback address or localhost, with the right port."""
    async with operated() as fleet:
        headers = {"Host": f"{name}:{fleet.client.port}"}

        assert (await fleet.client.get("/api/services", headers=headers)).status == 200


@pytest.mark.parametrize("host", ["evil.example", "evil.example:{port}", "127.0.0.1:1", "", "a b"])
async def test_a_foreign_host_is_refused(host: str) -> None:
    """A name that was rebound to 127.0.0.1 reads nothing here."""
    async with operated() as fleet:
        headers = {"Host": host.format(port=fleet.client.port)}

        assert await refusal(fleet.client, "GET", "/metrics", headers=headers) == (
            403,
            "forbidden",
        )


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "null", "http://localhost:1", "https://127.0.0.1"]
)
@pytest.mark.parametrize("path", ["/healthz", "/api/reload"])
async def test_a_page_of_another_site_is_refused(origin: str, path: str) -> None:
    """No request with a foreign Origin is answered, whatever it asks for."""
    async with operated() as fleet:
        method = "GET" if path == "/healthz" else "POST"

        assert await refusal(fleet.client, method, path, headers={"Origin": origin}) == (
            403,
            "forbidden",
        )


async def test_a_page_of_ours_may_give_commands() -> None:
    """The Origin of the listener itself is accepted."""
    async with operated() as fleet:
        origin = f"http://127.0.0.1:{fleet.client.port}"
        response = await fleet.client.post("/api/reload", headers={"Origin": origin})

        assert response.status == 200


@pytest.mark.parametrize(
    "authorization", [None, "Bearer wrong", f"Basic {TOKEN}", "Bearer", "Bearer sésame"]
)
async def test_a_token_is_needed_where_one_is_set(authorization: str | None) -> None:
    """With a token, whoever does not present it gets 403, under our own names too."""
    async with operated(token=TOKEN) as fleet:
        headers = {} if authorization is None else {"Authorization": authorization}

        assert await refusal(fleet.client, "GET", "/metrics", headers=headers) == (
            403,
            "forbidden",
        )


async def test_a_token_opens_the_listener_under_any_name() -> None:
    """Behind a reverse proxy the token says who asks, and the page's Origin is the proxy's name."""
    async with operated(token=TOKEN) as fleet:
        headers = {
            "Authorization": f"Bearer {TOKEN}",
            "Host": "admin.example.com",
            "Origin": "https://admin.example.com",
        }

        assert (await fleet.client.post("/api/reload", headers=headers)).status == 200


async def test_an_empty_token_is_none() -> None:
    """A variable that is set to nothing asks for nothing."""
    async with operated(token=" ") as fleet:
        assert (await fleet.client.get("/api/services")).status == 200


async def test_health_needs_no_token() -> None:
    """A monitor needs no secret to see that autostart is there."""
    async with operated(token=TOKEN) as fleet:
        response = await fleet.client.get("/healthz", headers={"Host": "anything"})

        assert (response.status, await response.json()) == (200, {"status": "ok"})


# Streams.


async def next_event(response: ClientResponse, *, skip: str = "service") -> dict[str, str]:
    """Return the fields of the next server-sent event of another kind; a comment's name is ""."""
    event: dict[str, str] = {"event": skip}
    async with asyncio.timeout(5):
        while event.get("event") == skip:
            event = {}
            while line := (await response.content.readline()).decode().rstrip("\n"):
                name, _, value = line.partition(": ")
                event[name.rstrip(":") or ""] = value
    return event


async def follow(fleet: Fleet, **headers: str) -> ClientResponse:
    """Return a stream of events whose first, the retry interval, was read."""
    response = await fleet.client.get("/api/events", headers=headers)
    assert await next_event(response) == {"retry": "2000"}
    return response


async def test_transitions_are_sent_as_they_happen() -> None:
    """Each transition is one event with the fields of the log."""
    async with operated(service()) as fleet:
        response = await follow(fleet)
        await fleet.start(HOST)
        events = [await next_event(response) for _ in range(3)]
        sent = [json.loads(event["data"]) for event in events]

        assert response.content_type == "text/event-stream"
        assert {event["event"] for event in events} == {"transition"}
        assert [(each["from"], each["to"]) for each in sent] == [
            ("stopped", "starting"),
            ("starting", "loading"),
            ("starting", "ready"),
        ]
        assert sent[0] == {
            "at": "2026-01-05T12:00:00.000+00:00",
            "service": HOST,
            "from": "stopped",
            "to": "starting",
            "state": "starting",
            "phase": "starting",
            "cause": "start-requested",
            "attempt": 1,
            "seconds": 0.0,
            "failure": None,
        }


async def test_progress_is_sent_and_not_kept() -> None:
    """A line of a build is an event without id; who comes back does not get it again."""
    async with operated(service()) as fleet:
        response = await follow(fleet)
        fleet.runtime.machine.unprepared.add(HOST)
        await fleet.client.post(f"/api/services/{HOST}/prepare")
        begun, ended = [await next_event(response) for _ in range(2)]

        assert set(begun) == {"event", "data"}
        assert begun["event"] == ended["event"] == "progress"
        at = "2026-01-05T12:00:00.000+00:00"
        line = {"at": at, "service": HOST, "progress": f"building {HOST}"}
        assert json.loads(begun["data"]) == line
        assert json.loads(ended["data"]) == {**line, "progress": None}
        assert fleet.history.after(0) == []


async def test_a_client_that_comes_back_gets_what_it_missed() -> None:
    """Last-Event-ID replays what is kept after it, then the stream goes on."""
    async with operated(service()) as fleet:
        await fleet.start(HOST)
        first = fleet.history.after(0)[0]
        response = await follow(fleet, **{"Last-Event-ID": str(first.id)})
        missed = [json.loads((await next_event(response))["data"])["to"] for _ in range(2)]
        await fleet.client.post(f"/api/services/{HOST}/stop")
        following = json.loads((await next_event(response))["data"])["to"]

        assert (missed, following) == (["loading", "ready"], "stopping")


@pytest.mark.parametrize("last_id", ["0", "none of ours", "9" * 30])
async def test_an_unknown_last_event_replays_all_that_is_kept(last_id: str) -> None:
    """A reader that knows nothing of ours gets everything."""
    async with operated(service()) as fleet:
        await fleet.start(HOST)
        response = await follow(fleet, **{"Last-Event-ID": last_id})

        assert json.loads((await next_event(response))["data"])["from"] == "stopped"


async def test_a_browser_names_the_last_event_in_the_query() -> None:
    """Its EventSource cannot set a header at first; when it comes back, the header is newer."""
    async with operated(service()) as fleet:
        await fleet.start(HOST)
        first, second, third = fleet.history.after(0)
        fresh = await fleet.client.get("/api/events?last_event_id=0")
        back = await fleet.client.get(
            "/api/events?last_event_id=0", headers={"Last-Event-ID": str(second.id)}
        )
        seen = []
        for response in (fresh, back):
            await next_event(response)
            seen.append((await next_event(response))["id"])

        assert seen == [str(first.id), str(third.id)]


async def test_events_take_no_other_option() -> None:
    """A misspelt one would be missed transitions."""
    async with operated() as fleet:
        assert await refusal(fleet.client, "GET", "/api/events?since=0") == (400, "bad-command")


async def test_whoever_follows_sees_every_service_and_what_changes() -> None:
    """Events named service have what the API answers, at the beginning and with each change."""
    async with operated(service(), service(OTHER)) as fleet:
        response = await follow(fleet)
        at_first = [await next_event(response, skip="transition") for _ in range(2)]
        shown = [json.loads(event["data"]) for event in at_first]
        asleep = await answer(fleet, "/api/services")
        await fleet.start(OTHER)
        while (
            json.loads((changed := await next_event(response, skip="transition"))["data"])["state"]
            != "ready"
        ):
            pass

        assert [set(event) for event in at_first] == [{"event", "data"}] * 2
        assert {event["event"] for event in (*at_first, changed)} == {"service"}
        assert shown == asleep
        assert json.loads(changed["data"]) == await answer(fleet, f"/api/services/{OTHER}")


async def test_a_failure_is_shown_with_the_last_lines_of_the_run() -> None:
    """For the operator, until the service is ready again."""
    async with operated(service()) as fleet:
        await fleet.start(HOST)
        fleet.runtime.machine.output[HOST] = ["loading", "no memory left"]
        fleet.runtime.machine.end(HOST)
        await fleet.until(lambda: ("stop", HOST) in fleet.runtime.calls)
        await fleet.reach(HOST, State.FAILED)
        failed = await answer(fleet)
        await fleet.start(HOST)
        ready = await answer(fleet)

        assert failed["failure_log"] == ["loading", "no memory left"]
        assert (ready["failure"], ready["failure_log"]) == (None, None)


async def test_silence_is_filled_with_heartbeats() -> None:
    """A comment now and then keeps proxies from closing a quiet stream."""
    async with operated(heartbeat_seconds=0.01) as fleet:
        response = await follow(fleet)

        assert await next_event(response) == {"": "heartbeat"}


async def test_a_client_that_does_not_read_is_dropped() -> None:
    """A full queue ends its client's stream; the fleet never waits for it."""
    async with operated(service()) as fleet:
        response = await follow(fleet)
        await fleet.start(HOST)
        transition = Transition(
            HOST, *(fleet.supervisor.snapshot()[HOST],) * 2, "test", fleet.clock.now()
        )
        for _ in range(QUEUE_MAX + 10):
            fleet.history.record(transition)

        async with asyncio.timeout(5):
            with pytest.raises(ClientError):
                await response.content.read()
        await fleet.until(lambda: not fleet.history.observers)


async def test_a_client_that_left_is_forgotten() -> None:
    """Nothing is queued for a stream that nobody reads any more."""
    async with operated() as fleet:
        response = await follow(fleet)
        following = len(fleet.history.observers)
        response.close()
        async with asyncio.timeout(5):
            while fleet.history.observers:
                await asyncio.sleep(0.001)

        assert following == 1


async def test_a_shutdown_does_not_wait_for_streams() -> None:
    """Streams end at once when the listener shuts down."""
    async with operated(service()) as fleet:
        response = await follow(fleet)
        logs = await fleet.client.get(f"/api/services/{HOST}/logs?follow=1")
        async with asyncio.timeout(5):
            await fleet.client.server.close()
            with pytest.raises(ClientError):
                await response.content.read()
            with pytest.raises(ClientError):
                await logs.content.read()


async def test_logs_are_the_last_lines_as_text() -> None:
    """`lines` counts from the end; 100 unless told."""
    async with operated(service()) as fleet:
        fleet.runtime.machine.output[HOST] = [f"line {number}" for number in range(200)]
        few = await fleet.client.get(f"/api/services/{HOST}/logs?lines=2")
        usual = await fleet.client.get(f"/api/services/{HOST}/logs")

        assert few.content_type == "text/plain"
        assert await few.text() == "line 198\nline 199\n"
        assert len((await usual.text()).splitlines()) == 100


async def test_logs_follow_what_is_written() -> None:
    """With follow the answer goes on with new lines as they come."""
    async with operated(service()) as fleet:
        fleet.runtime.machine.output[HOST] = ["old"]
        response = await fleet.client.get(f"/api/services/{HOST}/logs?follow=1")
        async with asyncio.timeout(5):
            old = await response.content.readline()
            await fleet.runtime.machine.write(HOST, "new")
            new = await response.content.readline()

        assert (old, new) == (b"old\n", b"new\n")


# Documents.


async def test_usage_is_that_of_the_run() -> None:
    """Memory and processor time of what runs; null while nothing does."""
    async with operated(service()) as fleet:
        asleep = await answer(fleet, f"/api/services/{HOST}/usage")
        await fleet.start(HOST)
        awake = await answer(fleet, f"/api/services/{HOST}/usage")

        assert asleep == {"memory_bytes": None, "cpu_seconds": None}
        assert awake == {"memory_bytes": 1_000_000, "cpu_seconds": 0.5}


async def test_usage_that_does_not_come_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine that hangs costs the caller seconds, not for ever."""
    async with operated(service()) as fleet:
        await fleet.start(HOST)

        async def never(_: ServiceConfig) -> None:
            await asyncio.sleep(3600)

        monkeypatch.setattr(fleet.runtime, "usage", never)
        monkeypatch.setattr(application, "USAGE_SECONDS", 0.01)
        path = f"/api/services/{HOST}/usage"

        assert await refusal(fleet.client, "GET", path) == (503, "engine-unreachable")


async def test_the_device_is_shown_with_its_reason() -> None:
    """What the next start computes on, where there is a choice."""
    async with operated(service()) as fleet:
        fleet.runtime.machine.devices[HOST] = Device("gpu", "NVIDIA L4 answers")

        assert (await answer(fleet))["device"] == {"kind": "gpu", "reason": "NVIDIA L4 answers"}


async def test_metrics_are_in_prometheus_format() -> None:
    """/metrics shows the fleet."""
    async with operated(service()) as fleet:
        response = await fleet.client.get("/metrics")

        assert response.content_type == "text/plain"
        assert f'autostart_leases{{service="{HOST}"}} 0.0' in await response.text()


async def test_the_index_names_the_api() -> None:
    """Somebody who opens the listener finds out what it is."""
    async with operated() as fleet:
        assert "/api/services" in await (await fleet.client.get("/")).text()


async def test_the_openapi_document_has_every_route_and_no_other() -> None:
    """The hand-written document and the routes agree, both ways."""
    async with operated() as fleet:
        routed = {
            (route.resource.canonical, route.method)
            for route in fleet.client.app.router.routes()
            if route.resource is not None and route.method != "HEAD"
        }
        served = await (await fleet.client.get("/openapi.json")).json()
        described = {
            (path, method.upper()) for path, item in served["paths"].items() for method in item
        }

        assert described == routed


async def test_the_openapi_document_describes_what_is_answered() -> None:
    """The schemas of services, transitions and errors have the keys of the answers."""
    schemas = DOCUMENT["components"]["schemas"]
    async with operated(service()) as fleet:
        fleet.runtime.fail("start", HOST, errors.StartFailed("exit code 3"))
        await fleet.client.post(f"/api/services/{HOST}/start")
        await fleet.reach(HOST, State.FAILED)
        shown = await answer(fleet)
        error = await answer(fleet, "/nosuch")
        transition = fleet.history.after(0)[0]
        usage = await answer(fleet, f"/api/services/{HOST}/usage")

        assert list(schemas["Service"]["properties"]) == list(shown)
        assert list(schemas["Failure"]["properties"]) == list(shown["failure"])
        assert list(schemas["Transition"]["properties"]) == list(transition.fields)
        assert list(schemas["Usage"]["properties"]) == list(usage)
        assert schemas["Error"]["required"] == list(error)
