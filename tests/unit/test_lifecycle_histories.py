"""autostart/lifecycle and schedule: what must hold in any order of events.

Ten thousand histories of a small fleet in a world that is late and breaks things. A failure prints
its seed and its story; AUTOSTART_SEED=<seed> AUTOSTART_HISTORIES=1 tells that one again.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from random import Random

import pytest

from autostart import errors
from autostart.lifecycle import (
    Adopted,
    Answered,
    BusyAnswered,
    BusyDue,
    Endpoint,
    Event,
    Exited,
    HoldDue,
    Kept,
    Lease,
    LeaseReleased,
    LeaseRequested,
    Lost,
    Phase,
    ProbeSucceeded,
    Progressed,
    Reconfigured,
    Removed,
    RestartRequested,
    RetryDue,
    Service,
    ShutdownBegan,
    StartDue,
    Started,
    StartFailed,
    StartRequested,
    State,
    StopDue,
    StopFailed,
    Stopped,
    StopRequested,
)
from tests.unit.lifecycle_world import Client, World, other_config, sample_config

FIRST_SEED = int(os.environ.get("AUTOSTART_SEED", "1"))
HISTORIES = int(os.environ.get("AUTOSTART_HISTORIES", "10000"))
EVENTS = 40
# A fleet that is left alone settles within so many events; measured: 400 at most.
SETTLING_EVENTS_MAX = 2000
HOSTS = ("a.example.com", "b.example.com", "c.example.com")

ASLEEP = errors.Asleep("asleep", status=200)
WAKE_REFUSED = errors.WakeRefused("may not wake")


def provoke(world: World) -> None:
    """Let something happen that nobody planned."""
    provocations: tuple[tuple[Callable[[World, Service], None], int], ...] = (
        (request, 12),
        (leave, 3),
        (report, 4),
        (operate, 4),
        (reload, 1),
        (repeat, 4),
    )
    if not world.fleet:
        return
    service = world.random.choice(list(world.fleet.values()))
    functions, weights = zip(*provocations, strict=True)
    [function] = world.random.choices(functions, weights)
    function(world, service)


def request(world: World, service: Service) -> None:
    random, number, host = world.random, next(world.numbers), service.config.host
    ask = Lease(id=number, about="GET /", requested_at=world.now)
    kind = random.random()
    if kind < 0.15:
        ask = replace(ask, may_wait=False)
    elif kind < 0.25:
        ask = replace(ask, may_wake=False, counts=False, otherwise=WAKE_REFUSED)
    elif kind < 0.3:
        ask = replace(ask, may_wake=False, may_wait=False, counts=False, otherwise=ASLEEP)
    world.clients[number] = Client(host, ask.counts)
    world.deliver(host, LeaseRequested(ask))


def leave(world: World, _: Service) -> None:
    if world.clients:
        world.release(world.random.choice(list(world.clients)), answered=False)


def report(world: World, service: Service) -> None:
    """Let a run exit, appear, be replaced, or refuse a connection."""
    host, machine = service.config.host, world.machines[service.config.host]
    if machine.run is not None and world.random.random() < 0.4:
        world.deliver(host, Lost(machine.run.run))
    elif machine.run is not None:
        world.end(host, "exit code 3")
    if machine.run is None and world.random.random() < 0.3:
        world.appear(host, Endpoint("127.0.0.1", 8001, f"run-{next(world.numbers)}"))
        assert machine.run is not None
        world.deliver(host, Adopted(machine.run))


def operate(world: World, service: Service) -> None:
    random, ticket = world.random, next(world.numbers)
    flags = [random.random() < 0.3 for _ in range(3)]
    commands: tuple[Event, ...] = (
        StartRequested(ticket),
        StopRequested(ticket, *flags),
        StopRequested(ticket, *flags),
        RestartRequested(ticket, flags[0]),
        Kept(ticket, world.now + random.choice((-1.0, 10.0, 100.0))),
    )
    world.tickets.add(ticket)
    world.deliver(service.config.host, random.choice(commands))
    assert ticket not in world.tickets, "an operator without an answer"


def reload(world: World, service: Service) -> None:
    host = service.config.host
    if world.random.random() < 0.5:
        world.deliver(host, Removed())
    if host in world.fleet and world.random.random() < 0.8:
        world.deliver(host, Reconfigured(other_config(world.random, service.config)))


def repeat(world: World, service: Service) -> None:
    """Deliver what is stale, foreign, or not due at all."""
    random = world.random
    attempt = max(0, service.attempt - random.choice((1, 1, 2)))
    stale = StartFailed(attempt, errors.StartFailed("late"))
    endpoint = Endpoint("127.0.0.1", 8001, "run-of-nobody")
    odd: tuple[Event, ...] = (
        Progressed(attempt, Phase.PREPARING),
        Started(attempt, endpoint),
        ProbeSucceeded(attempt),
        stale,
        Stopped(attempt),
        StopFailed(attempt, "late"),
        BusyAnswered(service.attempt, world.now - 7.7, "evicted", busy=False),
        Exited("run-of-nobody", "exit code 0"),
        Lost("run-of-nobody"),
        LeaseReleased(0),
        Answered(0),
        HoldDue(),
        RetryDue(),
        BusyDue(),
        StopDue("idle"),
        StopDue("evicted"),
        StopDue("yielded"),
        StopDue("removed"),
    )
    world.deliver(service.config.host, random.choice(odd))
    if service.config.exclusive is None:
        world.deliver(service.config.host, StartDue())


def settle(world: World) -> None:
    """Leave the fleet alone, with clients that come to an end and a world that works."""
    world.is_kind = True
    for machine in world.machines.values():
        machine.job_until = min(machine.job_until, world.now + 50.0)
    for _ in range(SETTLING_EVENTS_MAX):
        for number, client in list(world.clients.items()):
            if client.run is not None:
                world.release(number, answered=True)
        if not world.advance():
            return
    raise AssertionError("the fleet does not come to rest")


def assert_at_rest(world: World) -> None:
    """Everybody was answered; what nobody wants is stopped, what is wanted is ready."""
    assert not world.clients, "requests that nobody answered"
    assert not world.tickets, "operators that nobody answered"
    for service in world.fleet.values():
        assert not service.leases
        assert not service.waiting
        state, closed_by = service.state, service.closed_by
        if isinstance(closed_by, errors.ShuttingDown):
            assert state in (State.STOPPED, State.READY)
        elif service.config.idle_seconds is not None:
            assert state is State.STOPPED
        elif service.config.exclusive is None and closed_by is None:
            assert state is State.READY


def tell(seed: int) -> None:
    """Tell one history and check it."""
    random = Random(seed)
    hosts = HOSTS[: random.choice((1, 2, 2, 3))]
    world = World(random, [sample_config(random, host) for host in hosts])
    try:
        for _ in range(EVENTS):
            if random.random() < 0.5:
                world.advance()
            else:
                provoke(world)
        if random.random() < 0.1:
            for host in list(world.fleet):
                world.deliver(host, ShutdownBegan())
        settle(world)
        assert_at_rest(world)
    except (AssertionError, KeyError) as error:
        story = "\n".join(" ".join(map(repr, told)) for told in world.told)
        raise AssertionError(f"{error!r}\n{story}\nAUTOSTART_SEED={seed}") from error


BATCHES = 10


@pytest.mark.parametrize("batch", range(BATCHES))
def test_any_history_keeps_the_promises(batch: int) -> None:
    """Whatever happens in whatever order, every lease and ticket is answered exactly once, nothing
    that works is stopped, nobody waits for what nobody does, and a fleet left alone comes to rest.
    """
    for seed in range(FIRST_SEED + batch, FIRST_SEED + HISTORIES, BATCHES):
        tell(seed)
