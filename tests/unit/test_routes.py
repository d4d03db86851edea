"""autostart/routes.py: which service a host leads to."""

from __future__ import annotations

from pathlib import Path

import pytest

from autostart.config import Map, ServiceConfig
from autostart.errors import UnknownHost
from autostart.routes import Routes, hostname

DECLARED = Map(
    path=Path("autostart.yaml"),
    services={
        service.host: service
        for service in (
            ServiceConfig(host="whisper.example.com", aliases=("stt.example.com", "*.stt.test")),
            ServiceConfig(host="*.example.com"),
            ServiceConfig(host="*.deep.example.com"),
            ServiceConfig(host="::1"),
            ServiceConfig(host="192.0.2.7"),
        )
    },
)


@pytest.mark.parametrize(
    ("header", "host"),
    [
        ("whisper.example.com", "whisper.example.com"),
        ("WHISPER.Example.COM", "whisper.example.com"),
        ("whisper.example.com:8890", "whisper.example.com"),
        ("whisper.example.com:", "whisper.example.com"),
        ("whisper.example.com.", "whisper.example.com"),
        ("whisper.example.com.:443", "whisper.example.com"),
        ("stt.example.com", "whisper.example.com"),
        ("a.stt.test", "whisper.example.com"),
        ("other.example.com", "*.example.com"),
        ("two.levels.example.com", "*.example.com"),
        ("x.whisper.example.com", "*.example.com"),
        ("a.deep.example.com", "*.deep.example.com"),
        ("a.b.deep.example.com", "*.deep.example.com"),
        ("deep.example.com", "*.example.com"),
        ("[::1]", "::1"),
        ("[::1]:8890", "::1"),
        ("192.0.2.7:80", "192.0.2.7"),
    ],
)
def test_host_leads_to_its_service(header: str, host: str) -> None:
    """Exact names win over wildcards, longer wildcards over shorter; port and case are nothing."""
    service = Routes(DECLARED).match(header)

    assert host == service.host


@pytest.mark.parametrize(
    "header",
    [
        "",
        "example.com",
        ".example.com",
        "stt.test",
        "notexample.com",
        "example.com.evil.test",
        "whisper.example.com:80:90",
        "whisper.example.com:http",
        "whisper.example.com/x",
        "evil host.example.com",
        "user@whisper.example.com",
        "whisper.example.com,other.example.com",
        "whisper.example.com..",
        "*.stt.test:x",
        "::1",
        "[::1",
        "[::2]",
        "[whisper.example.com]",
        "[]",
        "bücher.example.com",
    ],
)
def test_other_hosts_are_unknown(header: str) -> None:
    """A host that is not declared, or is no host, leads nowhere."""
    with pytest.raises(UnknownHost):
        Routes(DECLARED).match(header)


def test_refusal_names_the_host() -> None:
    """The message repeats the host, and of a monstrous one only as much as a name can have."""
    with pytest.raises(UnknownHost) as caught:
        Routes(DECLARED).match("x" * 10_000)

    assert f"no service has the host '{'x' * 253}'" == caught.value.message


def test_no_services_know_no_host() -> None:
    """An empty map refuses every host."""
    with pytest.raises(UnknownHost):
        Routes(Map(path=Path("empty.yaml"))).match("whisper.example.com")


def test_repr_shows_every_route() -> None:
    """What an operator prints lists hosts, aliases and wildcards."""
    expected = (
        "<Routes *.deep.example.com *.example.com *.stt.test 192.0.2.7 ::1 "
        "stt.example.com whisper.example.com>"
    )

    assert expected == repr(Routes(DECLARED))


@pytest.mark.parametrize(
    ("header", "name"),
    [("Portal.Example.com:443", "portal.example.com"), ("[::1]:80", "::1"), ("a b", "")],
)
def test_hostname_is_bare(header: str, name: str) -> None:
    """Others compare hosts in the same spelling; what is no host has none."""
    assert name == hostname(header)
