"""The OpenAPI document of the admin API, written by hand; a test holds the routes to it."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

from autostart.lifecycle import Phase, State
from autostart.telemetry import DAYS_MAX

Schema = dict[str, Any]


def _object(**properties: Schema) -> Schema:
    """Return an object of which every property is always there."""
    return {"type": "object", "required": list(properties), "properties": properties}


def _string(description: str) -> Schema:
    return {"type": "string", "description": description}


def _integer(description: str) -> Schema:
    return {"type": "integer", "description": description}


def _number(description: str) -> Schema:
    return {"type": "number", "description": description}


def _list(items: Schema, description: str) -> Schema:
    return {"type": "array", "items": items, "description": description}


def _or_null(schema: Schema, description: str = "") -> Schema:
    either: Schema = {"oneOf": [schema, {"type": "null"}]}
    return {**either, "description": description} if description else either


def _ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


_FAILURE = _object(
    code=_string("One of our error codes."),
    message=_string("For people."),
    hint=_string("The operator's next step."),
    detail=_string("More lines where there are any: the end of a build's output."),
)
_LEASE = _object(
    id=_integer("Its number, unique until autostart restarts."),
    about=_string("The request: method and path."),
    age_seconds=_number("Since it asked."),
)
_STATE: Schema = {"type": "string", "enum": [state.value for state in State]}
_PHASE: Schema = {"type": "string", "enum": [phase.value for phase in Phase]}

_SERVICE = _object(
    host=_string("The host that leads to it, its name everywhere in this API."),
    name=_string("Shown to people."),
    aliases=_list(_string("A host."), "More hosts that lead to it."),
    runtime=_string("What starts and stops it."),
    state=_STATE,
    phase=_or_null(_PHASE, "How far a start or a stop has come."),
    since=_string("When the state began; ISO 8601, UTC."),
    since_seconds=_number("How long ago that was."),
    attempt=_integer("Which start this is."),
    endpoint=_or_null(
        _object(
            address=_string("An IP address."),
            port=_integer("A TCP port."),
            run=_string("The identity of what that start brought up."),
        ),
        "Where its run answers.",
    ),
    leases=_list(_ref("Lease"), "Requests that hold it ready."),
    waiting=_list(_ref("Lease"), "Requests that wait for it."),
    idle_due_seconds=_or_null(
        _number("From now."),
        "When it may be stopped if no request comes; null while in use, or never.",
    ),
    kept_until=_or_null(_string("ISO 8601, UTC."), "Not stopped for idleness before."),
    phases=_list(
        _object(phase=_PHASE, seconds=_or_null(_number("How long it took, or takes so far."))),
        "The phases of the last start, in order.",
    ),
    usual_start_seconds=_or_null(_number("Learned."), "What a start usually takes."),
    failure=_or_null(_ref("Failure"), "What failed last; null once it was ready again."),
    failure_log=_or_null(
        _list(_string("One line."), "Oldest first, 20 at most."),
        "The last lines of the run that failed; null where there are none, or no failure.",
    ),
    failures=_integer("Failed starts in a row."),
    retry_in_seconds=_or_null(_number("From now."), "When the back-off ends."),
    closed_by=_or_null(
        _string("held, shutting-down or unknown-host (removed from the map)."),
        "Why nobody may start it.",
    ),
    device=_or_null(
        _object(kind={"type": "string", "enum": ["cpu", "gpu"]}, reason=_string("For people.")),
        "What the next start computes on; null where there is no choice, or nobody can say yet.",
    ),
    progress=_or_null(_string("For people."), "The last line of a pull or build under way."),
    preparation=_or_null(
        _object(running={"type": "boolean"}, failure=_or_null(_ref("Failure"))),
        "How the last prepare that an operator asked for stands.",
    ),
)
_TRANSITION = _object(
    at=_string("ISO 8601, UTC."),
    service=_string("The host."),
    **{"from": _string("Phase or state before."), "to": _string("Phase or state after.")},
    state=_STATE,
    phase=_or_null(_PHASE),
    cause=_string("The event, in the words of the log."),
    attempt=_integer("Which start this is."),
    seconds=_number("Since the state before began."),
    failure=_or_null(_ref("Failure"), "What failed with this transition."),
)
_PROGRESS = _object(
    at=_string("ISO 8601, UTC."),
    service=_string("The host."),
    progress=_or_null(_string("For people."), "A line of a pull or build; null once it ended."),
)
_USAGE = _object(
    memory_bytes=_or_null(_integer("Resident, without the page cache."), "Null while none runs."),
    cpu_seconds=_or_null(_number("Since its start."), "Null while none runs."),
)
_SAMPLE = _object(
    host=_string("The host."),
    memory_bytes=_or_null(_integer("Resident, without the page cache."), "Null: nobody can say."),
    cpu_seconds=_or_null(_number("Since its start."), "Null: nobody can say."),
    at=_string("ISO 8601, UTC."),
)
_ERROR = _object(
    error=_object(
        message=_string("For people."),
        type=_string("invalid_request_error or server_error."),
        code=_string("One of our error codes."),
        param={"type": "null"},
    ),
    detail=_string("The message again."),
    hint=_string("The operator's next step."),
)
_ERROR["properties"]["problems"] = _list(_string("One problem."), "All of them, of a refused map.")


def _answer(description: str, schema: Schema, media: str = "application/json") -> Schema:
    return {"description": description, "content": {media: {"schema": schema}}}


_PLAIN: Schema = {"type": "string"}
_NO = _answer("Refused.", _ref("Error"))
_ONE = _answer("The service as it stands.", _ref("Service"))
_HOST: Schema = {
    "name": "host",
    "in": "path",
    "required": True,
    "description": "The host of a service, or an alias.",
    "schema": _PLAIN,
}


def _get(summary: str, answer: Schema, *parameters: Schema, no: tuple[int, ...] = ()) -> Schema:
    responses = {"200": answer, "403": _NO, **{str(status): _NO for status in no}}
    return {"get": {"summary": summary, "parameters": list(parameters), "responses": responses}}


def _command(summary: str, options: Schema | None = None, *, done: int = 200) -> Schema:
    """Return a command to one service; its options may also stand in the query."""
    operation: Schema = {
        "summary": summary,
        "parameters": [_HOST],
        "responses": {str(done): _ONE, "400": _NO, "403": _NO, "404": _NO, "409": _NO},
    }
    if options:
        schema = {"type": "object", "properties": options, "additionalProperties": False}
        operation["requestBody"] = {"content": {"application/json": {"schema": schema}}}
    return {"post": operation}


def _flag(description: str) -> Schema:
    return {"type": "boolean", "default": False, "description": description}


def _query(name: str, schema: Schema) -> Schema:
    return {"name": name, "in": "query", "schema": schema}


_SECONDS_PER_DAY = _object(
    date=_string("YYYY-MM-DD, of UTC."),
    asleep_seconds=_number("Without a run."),
    awake_seconds=_number("With one."),
)
_START = _object(
    at=_string("When it was asked for; ISO 8601, UTC."),
    cause=_string("The event, in the words of the log."),
    outcome=_string("ready, stopped (before it was ready), or the code of what failed."),
    seconds=_number("Until it ended; the sum of the phases."),
    phases=_object(
        queued=_number("Waited for its exclusive place."),
        preparing=_number("Pulled, built and created."),
        starting=_number("Until its runtime had brought a run up."),
        loading=_number("Until the probe succeeded."),
    ),
)
_PAST = _object(
    host=_string("The host."),
    asleep_seconds=_number("Of these days; while autostart did not run, nothing is counted."),
    awake_seconds=_number("The same."),
    memory_bytes_usual=_or_null(
        _integer("Learned from samples, one a minute."), "What a run usually takes."
    ),
    memory_saved_gb_hours=_or_null(
        _number("In 10⁹ bytes times hours."), "The usual memory times the time asleep."
    ),
    days=_list(_SECONDS_PER_DAY, "Every day, oldest first; the last one is today."),
    starts=_list(_START, "Those that have ended, oldest first."),
)
_HISTORY: Schema = {
    "/api/history": _get(
        "The last days: starts with their phases, time asleep and what it saved.",
        _answer(
            "In the order of the map.",
            _object(
                since=_string("Midnight of the first day; ISO 8601, UTC."),
                services=_list(_ref("Past"), "All."),
            ),
        ),
        _query("days", {"type": "integer", "minimum": 1, "maximum": DAYS_MAX, "default": DAYS_MAX}),
        no=(400,),
    ),
    "/api/usage": _get(
        "What everything that runs uses now.",
        _answer("In the order of the map; at most 2 s old.", _list(_ref("Sample"), "What runs.")),
    ),
}
_LAST_ID = "Send first what came after it, as far as it is kept; 0 = all."
_EVENTS = _get(
    "What happens, as it happens; a comment every 15 s.",
    _answer(
        "Events named transition; and of what has no id and is not kept: events named progress;"
        " events named service, each a whole service, all of them at the beginning and then"
        " whenever one has changed, at most twice a second each; events named removed, with the"
        " host of one that has left the map.",
        {
            "oneOf": [
                _ref("Transition"),
                _ref("Progress"),
                _ref("Service"),
                _object(host=_string("The host.")),
            ]
        },
        "text/event-stream",
    ),
    _query("last_event_id", {**_PLAIN, "description": f"{_LAST_ID} For who cannot set headers."}),
    {
        "name": "Last-Event-ID",
        "in": "header",
        "description": _LAST_ID,
        "schema": _PLAIN,
    },
    no=(400,),
)
_RELOAD: Schema = {
    "post": {
        "summary": "Read the map again and take it, whole or not at all.",
        "responses": {
            "200": _answer("What changed.", _object(taken=_list(_PLAIN, "Hosts."))),
            "400": _answer("The map has problems; the old one stays.", _ref("Error")),
            "403": _NO,
            "409": _answer("The change needs a restart.", _ref("Error")),
        },
    }
}
_SESSION = _answer(
    "How this browser stands.",
    _object(
        token_needed=_flag("A token is set."),
        open=_flag("No token is needed, or this browser has shown it."),
    ),
)
_LOGIN: Schema = {
    "/login": {
        **_get("Whether a browser has to log in.", _SESSION),
        "post": {
            "summary": "Present the token; the answer's cookie stands for it from then on.",
            "requestBody": {
                "required": True,
                "content": {"application/json": {"schema": _object(token=_string("The token."))}},
            },
            "responses": {"200": _SESSION, "400": _NO, "403": _NO, "429": _NO},
        },
    },
    "/logout": {
        "post": {
            "summary": "End the session of the cookie.",
            "responses": {"200": _SESSION, "403": _NO},
        }
    },
}

DOCUMENT: Schema = {
    "openapi": "3.1.0",
    "info": {
        "title": "autostart: the operator's API",
        "version": version("autostart"),
        "description": "With a token: Authorization: Bearer, or the cookie of a login, on"
        " everything but /healthz and /login.",
    },
    "security": [{}, {"token": []}],
    "paths": {
        "/": _get("What there is, for people.", _answer("Text.", _PLAIN, "text/plain")),
        "/healthz": _get("autostart itself is there.", _answer("ok", _object(status=_PLAIN))),
        "/metrics": _get("Metrics.", _answer("Prometheus' format.", _PLAIN, "text/plain")),
        "/openapi.json": _get("This document.", _answer("OpenAPI.", {"type": "object"})),
        "/api/services": _get(
            "Every service.", _answer("In the order of the map.", _list(_ref("Service"), "All."))
        ),
        **_HISTORY,
        "/api/services/{host}": _get("One service.", _ONE, _HOST, no=(404,)),
        "/api/services/{host}/logs": _get(
            "Its output.",
            _answer("Lines.", _PLAIN, "text/plain"),
            _HOST,
            _query("lines", {"type": "integer", "minimum": 0, "maximum": 10_000, "default": 100}),
            _query("follow", _flag("Go on with new lines.")),
            no=(400, 404, 503),
        ),
        "/api/services/{host}/usage": _get(
            "What its run uses now.", _answer("Usage.", _ref("Usage")), _HOST, no=(404, 503)
        ),
        "/api/services/{host}/start": _command(
            "Start it now; ends a hold and a back-off. Does not wait until it is ready."
        ),
        "/api/services/{host}/stop": _command(
            "Stop it; refused while requests use it, unless told what to do with them.",
            {
                "drain": _flag("Wait until they have ended."),
                "force": _flag("Cut them."),
                "hold": _flag("Keep it stopped until the next start by an operator."),
            },
        ),
        "/api/services/{host}/restart": _command(
            "Stop it once its requests have ended, then start it.", {"force": _flag("Cut them.")}
        ),
        "/api/services/{host}/keep": _command(
            "Start it and do not stop it for idleness for so long.",
            {"for": _string("A duration such as 2h.")},
        ),
        "/api/services/{host}/prepare": _command(
            "Begin to pull, build and create; see preparation and progress.", done=202
        ),
        "/api/reload": _RELOAD,
        "/api/events": _EVENTS,
        **_LOGIN,
    },
    "components": {
        "schemas": {
            "Service": _SERVICE,
            "Lease": _LEASE,
            "Failure": _FAILURE,
            "Transition": _TRANSITION,
            "Progress": _PROGRESS,
            "Usage": _USAGE,
            "Sample": _SAMPLE,
            "Past": _PAST,
            "Error": _ERROR,
        },
        "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
    },
}
