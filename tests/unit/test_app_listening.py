"""autostart/app/listening: which listener of the map a socket stands for that is handed over."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from autostart.app.listening import handed_over, key_of
from autostart.config import Address, TcpAddress, UnixAddress
from autostart.errors import AddressTaken

LISTENERS: dict[str, Address] = {
    "proxy.listen": TcpAddress("127.0.0.1", 8890),
    "admin.listen": TcpAddress("localhost", 8891),
    "services.whisper.example.com.listen": UnixAddress(Path("/run/whisper.sock")),
}
ELSEWHERE = TcpAddress("127.0.0.1", 1)
DOOR = "services.whisper.example.com.listen"


@pytest.mark.parametrize(
    ("name", "address", "key"),
    [
        ("proxy", ELSEWHERE, "proxy.listen"),
        ("admin", ELSEWHERE, "admin.listen"),
        ("whisper.example.com", ELSEWHERE, DOOR),
        ("proxy", LISTENERS[DOOR], "proxy.listen"),
        ("", ELSEWHERE, "proxy.listen"),
        ("unknown", ELSEWHERE, "proxy.listen"),
        ("autostart.socket", ELSEWHERE, "proxy.listen"),
        ("autostart.socket", TcpAddress("127.0.0.1", 8890), "proxy.listen"),
        ("autostart.socket", TcpAddress("127.0.0.1", 8891), "admin.listen"),
        ("autostart.socket", UnixAddress(Path("/run/whisper.sock")), DOOR),
    ],
)
def test_a_name_decides_and_without_one_the_address(name: str, address: Address, key: str) -> None:
    """What a unit names is what it is; else it is the listener of that address, or the proxy's."""
    assert key == key_of(name, address, LISTENERS)


@pytest.mark.parametrize("name", ["metrics", "stranger.example.com", "Proxy", "proxy "])
def test_an_unknown_name_is_refused(name: str) -> None:
    """The refusal names it, and every name that the map has."""
    with pytest.raises(AddressTaken) as refused:
        key_of(name, TcpAddress("127.0.0.1", 8890), LISTENERS)

    assert repr(name) in refused.value.message
    assert "allowed: proxy, admin, whisper.example.com" in refused.value.message


@pytest.mark.parametrize("pid", ["", "1", "none"])
def test_sockets_of_another_process_are_not_taken(pid: str) -> None:
    """LISTEN_PID says whose they are; the variables are forgotten all the same."""
    environment = {"LISTEN_FDS": "2", "LISTEN_PID": pid, "LISTEN_FDNAMES": "a:b", "PATH": "/bin"}

    assert [] == handed_over(environment)
    assert {"PATH": "/bin"} == environment


@pytest.mark.parametrize("count", ["0", "", "some", "-1"])
def test_a_count_that_is_none_hands_nothing_over(count: str) -> None:
    """LISTEN_FDS without a number is as if nobody had handed anything over."""
    assert [] == handed_over({"LISTEN_FDS": count, "LISTEN_PID": str(os.getpid())})
