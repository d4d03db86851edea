"""autostart/portal/document.py: what a document is, and what is left of it when others show it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from autostart.config import Access, ServiceConfig
from autostart.portal.document import Origin, exact_host, parse, prepared, written_host
from autostart.probe import DocsUnreadable

HOST = "whisper.example.com"
KEYS = Access(keys_env="KEYS")
BOTH = Access(keys_env="KEYS", basic_file=Path("/htpasswd"))
HERE = ("https", HOST)


def service(**keys: Any) -> ServiceConfig:
    return ServiceConfig(**{"host": HOST, "docs": "/api/openapi.json", **keys})


def shown(document: dict[str, Any], *, at: tuple[str, str] = HERE, **keys: Any) -> dict[str, Any]:
    body = prepared({"openapi": "3.1.0", **document}, service(**keys)).addressed(*at)
    return dict(json.loads(body))


@pytest.mark.parametrize("version", [{"openapi": "3.1.0"}, {"swagger": "2.0"}], ids=str)
def test_a_document_is_an_object_with_a_version(version):
    """OpenAPI 3 and Swagger 2, whatever else is in it."""
    assert {**version, "x": [1]} == parse(json.dumps({**version, "x": [1]}).encode())


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"", "not JSON"),
        (b"<!doctype html>", "not JSON"),
        (b"openapi: 3.1.0\n", "not JSON"),
        (b'{"openapi": "3.1.0", "x": NaN}', "not JSON"),
        (b'{"openapi": "3.1.0", "x": ' + b"1" * 5000 + b"}", "not JSON"),
        (b'{"openapi": "3.1.0"', "not JSON"),
        (b"\xff\xfe\xfd", "not JSON"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"openapi": "3.1.0", "x": ' + b"[" * 100_000, "nested too deeply"),
        (b'{"openapi": "3.1.0", "x": ' + b"[" * 100 + b"]" * 100 + b"}", "nested too deeply"),
        (b'{"openapi": "3.1.0", "x": ' + b'{"x":' * 100 + b"1" + b"}" * 101, "nested too deeply"),
        (b"[]", "no JSON object"),
        (b"null", "no JSON object"),
        (b'{"error": "no"}', "no JSON object"),
        (b'{"openapi": 3}', "no JSON object"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_what_is_no_document_is_refused(body, why):
    """With a sentence for the log; nothing else is raised."""
    with pytest.raises(DocsUnreadable, match=why):
        parse(body)


def test_a_deep_document_is_shown_as_deep_as_swagger_ui_reads():
    """A hundred levels, the document's own included."""
    body = b'{"openapi": "3.1.0", "x": ' + b"[" * 99 + b"]" * 99 + b"}"

    assert "x" in json.loads(prepared(parse(body), service()).addressed(*HERE))


@pytest.mark.parametrize(
    ("servers", "prefix"),
    [
        (None, ""),
        ([], ""),
        ("https://evil.test", ""),
        ([{}], ""),
        ([{"url": 7}], ""),
        ([{"url": "/"}], ""),
        ([{"url": "/v3"}], "/v3"),
        ([{"url": "/v3/"}, {"url": "/v2"}], "/v3"),
        ([{"url": "v3"}], "/api/v3"),
        ([{"url": "../v3"}], "/v3"),
        ([{"url": ""}], "/api/openapi.json"),
        ([{"url": "http://localhost:8000"}], ""),
        ([{"url": "https://evil.test/v3?x=1#y"}], "/v3"),
        ([{"url": "//evil.test/v3"}], "/v3"),
        ([{"url": "https://evil.test//other.test/x"}], ""),
        ([{"url": "javascript:alert(1)"}], ""),
        ([{"url": "data:text/html,x"}], ""),
        ([{"url": "http://[broken"}], ""),
        ([{"url": '/a b"<>'}], "/a%20b%22%3C%3E"),
        ([{"url": "/{base}", "variables": {"base": {"default": "v4"}}}], "/v4"),
        ([{"url": "/{a}", "variables": {"a": {"default": "{a}" * 999}}}], ""),
        ([{"url": "/{a}", "variables": {"a": "b"}}], "/%7Ba%7D"),
        ([{"url": "/\ud800"}], ""),
        ([{"url": "/" + "x" * 3000}], ""),
    ],
    ids=str,
)
def test_execute_calls_the_service_itself(servers, prefix):
    """Whatever a document says of servers: only the path of the first one is kept."""
    expected = [{"url": f"https://{HOST}{prefix}"}]

    assert expected == shown({} if servers is None else {"servers": servers})["servers"]


def test_servers_of_paths_and_operations_are_replaced_too():
    """They would win over those of the document."""
    evil = [{"url": "https://evil.test/x"}]
    paths = {"/a": {"servers": evil, "get": {"servers": evil}, "parameters": []}, "/b": 7}

    found = shown({"paths": paths})["paths"]

    ours = [{"url": f"https://{HOST}/x"}]
    assert {
        "/a": {"servers": ours, "get": {"servers": ours}, "parameters": []},
        "/b": 7,
    } == found


def test_the_address_is_that_of_the_reader():
    """Scheme and port are those by which the reader came; one document serves all."""
    document = prepared({"openapi": "3.0.3"}, service())

    addresses = [
        json.loads(document.addressed(*at))["servers"][0]["url"]
        for at in (("http", f"{HOST}:8890"), ("https", HOST))
    ]

    assert [f"http://{HOST}:8890", f"https://{HOST}"] == addresses


def test_a_wildcard_lets_the_reader_say_the_name():
    """Swagger UI asks for it; an exact alias is taken instead where there is one."""
    wildcard = {"host": "*.example.com"}

    assert [
        {
            "url": "https://{name}.example.com",
            "variables": {"name": {"default": "autostart"}},
        }
    ] == shown({}, at=("https", "*.example.com"), **wildcard)["servers"]
    assert "a.test" == written_host(service(**wildcard, aliases=("a.test",)))
    assert "*.example.com" == written_host(service(**wildcard))
    assert "autostart.example.com" == exact_host(service(**wildcard))


def test_without_access_nothing_is_asked_for():
    """A document's own security stays as it is."""
    document = {"security": [{"own": []}], "components": {"securitySchemes": {"own": {}}}}

    found = shown(document)

    assert document == {key: found[key] for key in document}


def test_access_is_asked_for_everywhere():
    """Our gate is before every operation: also before those that a document calls public."""
    document = {
        "paths": {"/a": {"get": {}, "post": {"security": []}, "put": {"security": [{"own": []}]}}},
        "components": {"securitySchemes": {"own": {"type": "http"}}},
    }

    found = shown(document, access=BOTH)

    ours = [{"autostart-key": []}, {"autostart-login": []}]
    assert ours == found["security"]
    assert {
        "get": {},
        "post": {"security": ours},
        "put": {"security": [{"own": []}, *ours]},
    } == found["paths"]["/a"]
    schemes = found["components"]["securitySchemes"]
    assert {"own": None, "autostart-key": "bearer", "autostart-login": "basic"} == {
        name: scheme.get("scheme") for name, scheme in schemes.items()
    }


@pytest.mark.parametrize("broken", [[], "x", 7, None], ids=repr)
@pytest.mark.parametrize("key", ["paths", "components", "security", "servers"])
def test_broken_parts_break_nothing(key, broken):
    """A document that is an object is shown, as far as it makes sense."""
    found = shown({key: broken}, access=KEYS)

    assert [{"autostart-key": []}] == found["security"]
    assert "autostart-key" in found["components"]["securitySchemes"]


def test_swagger_2_is_shown_as_well():
    """Its host and schemes are ours, its path stays, and its key goes into the same header."""
    document = {
        "swagger": "2.0",
        "host": "evil.test",
        "schemes": ["ws"],
        "basePath": "/v2",
        "paths": {"/a": {"get": {"schemes": ["ws"], "security": []}}},
    }

    body = prepared(document, service(access=BOTH)).addressed("https", f"{HOST}:8443")
    found = json.loads(body)

    assert (f"{HOST}:8443", ["https"], "/v2") == (
        found["host"],
        found["schemes"],
        found["basePath"],
    )
    ours = [{"autostart-key": []}, {"autostart-login": []}]
    assert {"/a": {"get": {"security": ours}}} == found["paths"]
    assert "Authorization" == found["securityDefinitions"]["autostart-key"]["name"]


def test_no_secret_is_shown():
    """The names of the variable and of the file stay with us too."""
    text = json.dumps(shown({}, access=BOTH))

    assert [] == [word for word in (BOTH.keys_env, "htpasswd") if str(word) in text]


@pytest.mark.parametrize(
    ("origin", "host", "address"),
    [
        (Origin("https"), HOST, f"https://{HOST}"),
        (Origin("http", 8890), "a.localhost", "http://a.localhost:8890"),
        (Origin("http", 8890), "::1", "http://[::1]:8890"),
    ],
)
def test_an_origin_tells_the_address_of_every_host(origin, host, address):
    """As browsers write it."""
    assert address == origin.of(host)
