"""autostart/app/docs.py: as what a reader knows us."""

from __future__ import annotations

from ipaddress import ip_network
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from multidict import CIMultiDict

from autostart.app.docs import reader_of
from autostart.config import Map, ProxyConfig, ServiceConfig
from autostart.portal import Origin

MAP = Map(path=Path("/map.yaml"), proxy=ProxyConfig(trusted_proxies=(ip_network("10.0.0.1/32"),)))
SERVICE = ServiceConfig(host="*.example.com", docs="/openapi.json")
NGINX, STRANGER = ("10.0.0.1", 5), ("10.0.0.2", 5)


def request(peername: Any, **headers: str) -> Any:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return SimpleNamespace(headers=CIMultiDict(named), protocol=SimpleNamespace(peername=peername))


@pytest.mark.parametrize(
    ("peername", "headers", "origin"),
    [
        (STRANGER, {"Host": "a.test"}, Origin("http")),
        (STRANGER, {"Host": "a.test:80"}, Origin("http")),
        (STRANGER, {"Host": "a.test:8890"}, Origin("http", 8890)),
        (STRANGER, {"Host": "[::1]:8890"}, Origin("http", 8890)),
        (STRANGER, {"Host": "[::1]"}, Origin("http")),
        (STRANGER, {"Host": "a.test", "X_Forwarded_Proto": "https"}, Origin("http")),
        (NGINX, {"Host": "a.test", "X_Forwarded_Proto": "https"}, Origin("https")),
        (NGINX, {"Host": "a.test:443", "X_Forwarded_Proto": "HTTPS"}, Origin("https")),
        (NGINX, {"Host": "a.test:8443", "X_Forwarded_Proto": "https"}, Origin("https", 8443)),
        (NGINX, {"Host": "a.test", "X_Forwarded_Proto": "javascript"}, Origin("http")),
        ("", {"Host": "a.test", "X_Forwarded_Proto": "https"}, Origin("https")),
        (STRANGER, {}, Origin("http")),
        (STRANGER, {"Host": "a b:1"}, Origin("http")),
    ],
    ids=str,
)
def test_the_origin_is_what_the_browser_asked(peername, headers, origin):
    """The port is that of the Host header, the scheme what a trusted proxy says."""
    assert origin == reader_of(request(peername, **headers), MAP, "/").origin


def test_a_door_takes_any_host():
    """Without a Host header that makes sense, the service is called by a name that it covers."""
    found = [
        reader_of(request(STRANGER, **headers), MAP, "/", SERVICE).host
        for headers in ({}, {"Host": "<x>"}, {"Host": "A.Example.Com:1"})
    ]

    assert ["autostart.example.com", "autostart.example.com", "a.example.com"] == found


@pytest.mark.parametrize(
    ("said", "takes_gzip"), [("", False), ("br", False), ("gzip, br", True), ("GZIP", True)]
)
def test_compressed_files_are_for_who_takes_them(said, takes_gzip):
    """curl without --compressed gets plain ones."""
    assert takes_gzip == reader_of(request(STRANGER, Accept_Encoding=said), MAP, "/").takes_gzip
