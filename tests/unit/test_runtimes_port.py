"""autostart/runtimes/port.py: reading the kernel's tables. Sockets: contract/test_process_ports."""

from __future__ import annotations

from ipaddress import ip_address
from pathlib import Path

import pytest

from autostart.runtimes.port import Socket, holder, parse_sockets

# Recorded on Linux 6.18, in a network of its own: listeners on 22 and 8001 (user 33), both ends of
# a connection to 8001, and one more in TIME_WAIT.
TCP = """\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1F41 00000000:0000 0A 00000000:00000000 00:00000000 00000000    33        0 569485 1 000000006947c27a 100 0 0 10 0
   1: 00000000:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 569484 1 000000007435160b 100 0 0 10 0
   2: 0100007F:1F41 0100007F:D2F0 01 00000000:00000000 00:00000000 00000000     0        0 569487 1 00000000122fda5c 20 0 0 10 -1
   3: 0100007F:D2F0 0100007F:1F41 01 00000000:00000000 00:00000000 00000000  1000        0 569486 2 0000000076e4885f 20 0 0 10 -1
   4: 0100007F:D2F2 0100007F:1F41 06 00000000:00000000 03:00001765 00000000     0        0 0 3 00000000b28b931c
"""  # noqa: E501 - as recorded
# Listeners of IPv6 on all addresses, on loopback, and on IPv4's loopback in IPv6's spelling.
TCP6 = """\
  sl  local_address                         remote_address                        st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0000000000000000FFFF00000100007F:1F44 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000 12345        0 569492 1 0000000067991db7 100 0 0 10 0
   1: 00000000000000000000000001000000:1F43 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 569491 1 000000007d9cd6b1 100 0 0 10 0
   2: 00000000000000000000000000000000:1F42 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 569490 1 00000000f994dfc0 100 0 0 10 0
"""  # noqa: E501 - as recorded


def test_a_table_is_read_line_by_line():
    """Address, port, whether it listens, who owns it, and the inode that leads to the process."""
    sockets = parse_sockets(TCP)

    assert sockets[0] == Socket(ip_address("127.0.0.1"), 8001, listening=True, uid=33, inode=569485)
    assert [(str(entry.address), entry.port, entry.listening) for entry in sockets] == [
        ("127.0.0.1", 8001, True),
        ("0.0.0.0", 22, True),
        ("127.0.0.1", 8001, False),
        ("127.0.0.1", 54000, False),
        ("127.0.0.1", 54002, False),
    ]


def test_ipv6_addresses_are_read():
    """The kernel prints an IPv6 address as four numbers of the machine."""
    assert [(entry.address, entry.port) for entry in parse_sockets(TCP6)] == [
        (ip_address("::ffff:127.0.0.1"), 8004),
        (ip_address("::1"), 8003),
        (ip_address("::"), 8002),
    ]


@pytest.mark.parametrize(
    ("address", "covers"),
    [
        ("127.0.0.1", True),
        ("0.0.0.0", True),
        ("::", True),
        ("::ffff:127.0.0.1", True),
        ("::ffff:0.0.0.0", True),
        ("::1", False),
        ("127.0.0.2", False),
        ("192.168.1.5", False),
    ],
)
def test_who_is_in_the_way_of_127_0_0_1(address, covers):
    """The same address, or all of them, in either family's spelling."""
    entry = Socket(ip_address(address), 8001, listening=True, uid=0, inode=1)

    assert entry.covers("127.0.0.1") is covers


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    """A /proc with the tables above."""
    (tmp_path / "net").mkdir()
    (tmp_path / "net" / "tcp").write_text(TCP)
    (tmp_path / "net" / "tcp6").write_text(TCP6)
    (tmp_path / "self").mkdir()
    return tmp_path


def process(proc: Path, pid: int, name: str, *inodes: int) -> None:
    (proc / str(pid) / "fd").mkdir(parents=True)
    (proc / str(pid) / "comm").write_text(f"{name}\n")
    (proc / str(pid) / "fd" / "0").symlink_to("/dev/null")
    for number, inode in enumerate(inodes, start=3):
        (proc / str(pid) / "fd" / str(number)).symlink_to(f"socket:[{inode}]")


def test_the_holder_is_named_by_pid_and_program(proc):
    """What an operator types next is that pid."""
    process(proc, 122, "sshd", 569484)
    process(proc, 123, "nginx", 569485)

    assert holder(8001, proc=proc) == "pid 123 (nginx)"


def test_of_a_server_and_its_workers_the_server_is_named(proc):
    """Workers inherit the socket; the lowest pid is the one to stop."""
    process(proc, 1200, "nginx", 569485)
    process(proc, 999, "nginx", 569485)

    assert holder(8001, proc=proc) == "pid 999 (nginx)"


def test_who_listens_is_named_before_who_is_connected(proc):
    """A client of the same port is not what is in the way, whatever comes first in the table."""
    title, *lines = TCP.splitlines()
    (proc / "net" / "tcp").write_text("\n".join([title, *reversed(lines)]))
    process(proc, 5, "curl", 569487)
    process(proc, 6, "nginx", 569485)

    assert holder(8001, proc=proc) == "pid 6 (nginx)"


def test_an_outgoing_connection_can_hold_a_port(proc):
    """Nobody listens there, and yet nobody else can."""
    process(proc, 5, "curl", 569486)

    assert holder(54000, proc=proc) == "pid 5 (curl)"


@pytest.mark.parametrize(("port", "user"), [(8002, "root"), (8004, "12345")])
def test_a_holder_that_may_not_be_looked_at_is_named_by_its_user(proc, port, user):
    """Without rights to see its files, the table still says whose it is."""
    assert holder(port, proc=proc) == f"a program of user {user}"


def test_a_holder_that_is_gone_is_not_invented(proc):
    """By the time we look, the port may be free again."""
    assert holder(9, proc=proc) == "a program that cannot be seen from here"


def test_a_holder_that_leaves_while_we_look_is_an_answer(proc):
    """Its files were seen, its name no more."""
    process(proc, 6, "nginx", 569485)
    (proc / "6" / "comm").unlink()

    assert holder(8001, proc=proc) == "pid 6 (gone meanwhile)"


def test_a_machine_without_ipv6_has_one_table(proc):
    """A missing table is an empty one."""
    (proc / "net" / "tcp6").unlink()
    process(proc, 6, "nginx", 569485)

    assert holder(8001, proc=proc) == "pid 6 (nginx)"
