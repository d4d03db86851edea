"""autostart/cli/units: the units as they are shipped, and with a program and a map in them."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_network
from pathlib import Path

import pytest

from autostart.cli import installation, units
from autostart.config import Map, ServiceConfig, TcpAddress, UnixAddress
from autostart.config.model import ProxyConfig

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = Path("/opt/autostart/bin/autostart")
DECLARED = Map(
    path=Path("/etc/autostart/autostart.yaml"),
    services={
        "whisper.example.com": ServiceConfig(
            host="whisper.example.com",
            command=("true",),
            listen=UnixAddress(Path("/run/whisper.sock")),
        )
    },
)


def rendered(
    declared: Map = DECLARED, program: Path = PROGRAM, groups: tuple[str, ...] = ()
) -> str:
    return units.service_unit(declared, program=program, user="autostart", groups=groups)


def without_comments(text: str) -> list[str]:
    return [line for line in text.splitlines() if line and not line.startswith("#")]


@pytest.mark.parametrize("name", [units.SERVICE, units.SOCKET])
def test_the_shipped_units_are_those_of_config(name: str) -> None:
    """What the wheel carries is config/systemd itself."""
    assert (ROOT / "config/systemd" / name).read_text() == units.template(name)


def test_the_defaults_are_those_of_the_shipped_unit() -> None:
    """For /opt/autostart, /etc/autostart and the default drain_timeout nothing is changed."""
    shipped = without_comments(units.template(units.SERVICE))

    assert shipped == without_comments(rendered(groups=("docker",)))


def test_the_drain_is_given_its_time() -> None:
    """TimeoutStopSec is drain_timeout and what the end takes after it, in whole seconds."""
    declared = replace(DECLARED, proxy=ProxyConfig(drain_timeout_seconds=600.5))

    assert "TimeoutStopSec=621s" in rendered(declared).splitlines()


def test_without_compose_there_is_no_group_of_docker() -> None:
    """A unit with a group that does not exist would not start."""
    assert "SupplementaryGroups" not in "".join(without_comments(rendered()))


@pytest.mark.parametrize(
    ("program", "written"),
    [
        ("/opt/auto start/bin/autostart", '"/opt/auto start/bin/autostart" serve'),
        ("/opt/100%/autostart", '"/opt/100%%/autostart" serve'),
        ("/opt/$HOME/autostart", '"/opt/$$HOME/autostart" serve'),
        ('/opt/a"b/autostart', '"/opt/a\\"b/autostart" serve'),
    ],
)
def test_systemd_expands_nothing_in_a_path(program: str, written: str) -> None:
    """Spaces, per cent signs, dollars and quotes of a path arrive as they are."""
    assert f"ExecStart={written}" in rendered(program=Path(program)).splitlines()


def test_the_socket_unit_has_every_listener_but_admins() -> None:
    """The proxy's address and the doors, each on a line of its own."""
    proxy = ProxyConfig(listen=TcpAddress("::1", 80), trusted_proxies=(ip_network("127.0.0.1/32"),))
    text = units.socket_unit(replace(DECLARED, proxy=proxy), user="autostart")
    listen = [line for line in text.splitlines() if line.startswith("ListenStream=")]

    assert ["ListenStream=[::1]:80", "ListenStream=/run/whisper.sock"] == listen


def test_an_edit_shows() -> None:
    """A unit says by itself whether it is as we wrote it: also that of an older version."""
    text = rendered()

    assert not units.is_edited(text)
    assert units.is_edited(text.replace("WatchdogSec=30s", "WatchdogSec=60s"))
    assert units.is_edited(text + "Nice=5\n")
    assert units.is_edited(units.template(units.SERVICE))


def test_a_key_that_the_template_lost_is_a_bug() -> None:
    """Nothing is filled in silently nowhere."""
    with pytest.raises(AssertionError):
        units.fill("User=a\n", {"Group=": ["b"]})


def test_a_closed_folder_on_the_way_is_named(tmp_path: Path) -> None:
    """Who is not there yet may only what everybody may; the folder that keeps him out is named."""
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    inside = closed / "autostart"
    inside.touch(mode=0o755)
    said = installation.closed_at(inside, "nobody-of-this-name")

    assert said is not None
    assert said.endswith("has mode 0700")


def test_root_is_kept_out_of_nothing(tmp_path: Path) -> None:
    """For a unit that runs as root there is nothing to say."""
    secret = tmp_path / "secret"
    secret.touch(mode=0o000)

    assert installation.closed_at(secret, "root") is None
