"""What only local processes can show: ports that are taken, chosen, and taken after all."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from autostart.errors import PortTaken
from autostart.lifecycle import Endpoint
from autostart.runtimes import port as ports
from autostart.runtimes.base import Appeared, Exited
from tests.contract.workbenches import (
    HOST,
    next_change,
)

only_processes = pytest.mark.parametrize("bench", ["process"], indirect=True)


@only_processes
async def test_the_holder_of_a_port_is_named(bench, runtime):
    """The refusal says who is in the way, so that the operator need not search."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        name = Path("/proc/self/comm").read_text().strip()

        with pytest.raises(PortTaken) as caught:
            await runtime.start(bench.service(HOST, port=port))

    assert caught.value.message == f"port {port} is taken by pid {os.getpid()} ({name})"


@contextlib.contextmanager
def squatter(endpoint: Endpoint) -> Iterator[None]:
    """Take the port of a run that does not listen on it."""
    with socket.create_server((endpoint.address, endpoint.port)):
        yield


# Fails as a service does that finds its port taken, when the test says so.
FAILS_LATER = "while [ ! -e go ]; do sleep 0.01; done; rm go; exit 1"


@only_processes
async def test_a_child_whose_chosen_port_was_taken_moves_once(bench, runtime):
    """It is started on another port; if that is taken too, it has exited."""
    service = bench.shell(HOST, FAILS_LATER)
    first = await runtime.start(service)
    runtime.declare([service])
    with squatter(first):
        (bench.folder / "go").touch()
        appeared = await next_change(runtime)
        assert isinstance(appeared, Appeared)
        second = appeared.endpoint

        assert second.port != first.port
        assert await runtime.running() == {HOST: second}
        with squatter(second):
            (bench.folder / "go").touch()
            assert await next_change(runtime) == Exited(HOST, second.run, "exit code 1")

    assert await runtime.running() == {}


@only_processes
async def test_a_stopped_run_does_not_move(bench, runtime):
    """Whoever takes its port after it was stopped does not start it again."""
    service = bench.service(HOST)
    endpoint = await runtime.start(service)
    await bench.settled(service, endpoint)
    await runtime.stop(service)
    with squatter(endpoint):
        assert await next_change(runtime) == Exited(HOST, endpoint.run, "exit code 0")


@only_processes
async def test_a_child_that_fails_on_a_free_port_does_not_move(bench, runtime):
    """Its own failure is not cured by another port."""
    service = bench.shell(HOST, FAILS_LATER)
    runtime.declare([service])
    endpoint = await runtime.start(service)

    (bench.folder / "go").touch()

    assert await next_change(runtime) == Exited(HOST, endpoint.run, "exit code 1")


@only_processes
async def test_a_declared_port_does_not_move(bench, runtime):
    """nginx and the operator know that port."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    service = bench.shell(HOST, FAILS_LATER, port=port)
    runtime.declare([service])
    endpoint = await runtime.start(service)
    with squatter(endpoint):
        (bench.folder / "go").touch()

        assert await next_change(runtime) == Exited(HOST, endpoint.run, "exit code 1")


async def test_a_chosen_port_is_free_and_nobodys():
    """No outgoing connection can sit on it, and it belongs to no service that is stopped now."""
    chosen = ports.choose(excluding=range(20_000, 32_000))

    assert chosen in range(32_000, 32_768)
    assert ports.is_free(chosen)
    with socket.create_server((ports.LOOPBACK, chosen)):
        assert not ports.is_free(chosen)


async def test_no_free_port_is_an_error_with_a_name():
    """The search for a port ends."""
    with pytest.raises(PortTaken, match="no free port found between 20000 and 32767"):
        ports.choose(excluding=range(65_536))


@pytest.mark.parametrize("address", ["0.0.0.0", "::", "127.0.0.1"])
async def test_a_listener_on_any_address_is_in_the_way(address):
    """Whoever listens on all addresses listens on ours too."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.create_server((address, 0), family=family, dualstack_ipv6=":" in address) as server:
        port = server.getsockname()[1]

        assert not ports.is_free(port)
        assert ports.holder(port).startswith(f"pid {os.getpid()} (")


async def test_an_old_connection_is_not_in_the_way():
    """A port in TIME_WAIT can be listened on at once, as by any server that sets SO_REUSEADDR."""
    with socket.create_server((ports.LOOPBACK, 0)) as server:
        port = server.getsockname()[1]
        with socket.create_connection((ports.LOOPBACK, port)):
            server.accept()[0].close()

    assert ports.is_free(port)
