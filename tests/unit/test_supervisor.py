"""autostart/supervisor: requests. One start for all, who leaves, stops in between, the alarm."""

from __future__ import annotations

import asyncio
import math
from datetime import timedelta
from random import Random

import pytest

from autostart import errors
from autostart.admission import Admission
from autostart.config import WarmWindow
from autostart.lifecycle import (
    Kept,
    LeaseReleased,
    Lost,
    Phase,
    RestartRequested,
    RetryDue,
    StartRequested,
    State,
    StopRequested,
)
from autostart.telemetry import Transition
from tests.unit.supervisor_stage import (
    HOST,
    PAGE,
    Client,
    Stage,
    changed,
    now,
    settle,
)
from tests.unit.virtual_time import HAS_EAGER_TASKS, STARTED_AT, TASKS, on_virtual_time

# Together.


@on_virtual_time
async def test_herd_is_one_start() -> None:
    """Three hundred requests for a stopped service are one start, and all are granted."""
    async with Stage(changed(max_waiting=300)) as stage:
        stage.probe.ready_after_seconds = 3.0
        clients = [stage.request() for _ in range(300)]
        endpoints = {await client.is_granted() for client in clients}
        for client in clients:
            await client.finish()

        assert 1 == len(endpoints)
        assert [("start", HOST)] == stage.runtime.calls


@on_virtual_time
async def test_herd_beyond_the_limit_is_refused_at_once() -> None:
    """max_waiting are held; the others are told so without waiting."""
    async with Stage(changed(max_waiting=100)) as stage:
        stage.probe.ready_after_seconds = 3.0
        clients = [stage.request() for _ in range(300)]
        refusals = [await client.refusal() for client in clients[100:]]

        assert STARTED_AT + 1.0 > now()
        assert {errors.QueueFull} == {type(refusal) for refusal in refusals}
        for client in clients[:100]:
            await client.is_granted()
            await client.finish()


@on_virtual_time
async def test_request_for_a_ready_service_does_not_wait() -> None:
    """It is granted before anything else runs, and nothing was asked of the runtime."""
    async with Stage() as stage:
        await stage.ready()
        began = now()
        async with stage.supervisor.lease(HOST, PAGE, "GET /") as granted:
            assert began == now()
            assert granted.waited is None


@on_virtual_time
async def test_request_that_waited_knows_for_how_long() -> None:
    """What it waited for comes with the grant."""
    async with Stage() as stage:
        stage.probe.ready_after_seconds = 3.0
        client = stage.request()
        await client.is_granted()
        await client.finish()

        assert client.granted is not None
        assert client.granted.waited is not None
        assert pytest.approx(3.0) == client.granted.waited.ready


@on_virtual_time
async def test_unknown_host_is_refused() -> None:
    """A request for a host that no service has wakes nothing."""
    async with Stage() as stage:
        client = stage.request("nobody.example.com")

        assert isinstance(await client.refusal(), errors.UnknownHost)
        assert [] == stage.runtime.calls


@on_virtual_time
async def test_page_is_refused_and_the_start_goes_on() -> None:
    """A browser that gets the waiting page starts the service all the same."""
    async with Stage() as stage:
        client = stage.request(admission=PAGE)

        assert isinstance(await client.refusal(), errors.Starting)
        await settle()
        assert "ready" == stage.place()


# Who leaves.


@on_virtual_time
async def test_start_does_not_belong_to_who_asked_first() -> None:
    """The first client leaves, the start goes on, the second is served by it."""
    async with Stage() as stage:
        stage.probe.ready_after_seconds = 3.0
        first, second = stage.request(), stage.request()
        await asyncio.sleep(1.0)
        await first.leave()
        await second.is_granted()
        await second.finish()

        assert 1 == stage.calls("start")
        assert pytest.approx(STARTED_AT + 3.0, abs=0.01) == now()


@on_virtual_time
async def test_start_goes_on_when_everybody_left() -> None:
    """The next request finds it ready."""
    async with Stage() as stage:
        stage.probe.ready_after_seconds = 3.0
        client = stage.request()
        await settle()
        await client.leave()
        await asyncio.sleep(3.0)

        assert "ready" == stage.place()


@on_virtual_time
async def test_client_that_leaves_while_it_waits_leaves_nothing_behind() -> None:
    """No lease, no reply, nobody who waits."""
    async with Stage() as stage:
        stage.runtime.hold("start")
        clients = [stage.request() for _ in range(10)]
        await settle()
        for client in clients:
            await client.leave()

        assert {} == stage.service().waiting
        assert {} == stage.service().leases
        assert {} == stage.supervisor._replies


@on_virtual_time
async def test_client_that_leaves_as_it_is_granted_leaves_nothing_behind() -> None:
    """Its reply was there, and it never looked: the lease ends all the same."""
    async with Stage() as stage:
        stage.runtime.hold("start")
        clients = [stage.request() for _ in range(3)]
        await settle()
        # In one step of the loop: granted, and gone before they can know.
        stage.supervisor.observers.append(
            lambda change: (
                [client._task.cancel() for client in clients][:0]
                if change.after.state is State.READY
                else None
            )
        )
        stage.runtime.let_go("start")
        await settle()

        assert ("ready", {}) == (stage.place(), stage.service().leases)
        assert [None] * 3 == [client.granted for client in clients]


@on_virtual_time
async def test_client_that_leaves_as_it_is_refused_leaves_nothing_behind() -> None:
    """Nobody is told by the loop of an error that nobody looked at."""
    async with Stage() as stage:
        stage.runtime.hold("start")
        stage.runtime.fail("start", HOST, errors.StartFailed("no"))
        client = stage.request()
        await settle()
        stage.supervisor.observers.append(lambda _: client._task.cancel() and None)
        stage.runtime.let_go("start")
        await settle()

        assert {} == stage.supervisor._replies


@on_virtual_time
async def test_patience_ends_and_the_start_goes_on() -> None:
    """hold_timeout refuses the client; the service becomes ready for the next."""
    async with Stage() as stage:
        stage.probe.ready_after_seconds = 25.0
        client = stage.request()
        refusal = await client.refusal()

        assert isinstance(refusal, errors.StartTimeout)
        assert pytest.approx(STARTED_AT + 20.0, abs=0.01) == now()
        await asyncio.sleep(5.1)
        assert "ready" == stage.place()


# Stops in between.


@on_virtual_time
async def test_idle_service_is_stopped_on_its_date() -> None:
    """One idle time after the last request, not before."""
    async with Stage() as stage:
        await stage.ready()
        released_at = now()
        await asyncio.sleep(59.9)
        assert "ready" == stage.place()
        await asyncio.sleep(0.2)

        assert "stopped" == stage.place()
        assert [("start", HOST), ("stop", HOST)] == stage.runtime.calls
        assert released_at + 61.0 > now()


@on_virtual_time
async def test_open_request_is_never_idle() -> None:
    """A lease of two hours is as good as many short ones."""
    async with Stage() as stage:
        client = stage.request()
        await client.is_granted()
        await asyncio.sleep(7200.0)

        assert "ready" == stage.place()
        await client.finish()


@on_virtual_time
async def test_request_during_a_stop_is_served_by_the_next_start() -> None:
    """It waits for the stop to end, has its full time from there, and is granted."""
    async with Stage(changed(idle_seconds=5.0)) as stage:
        await stage.ready()
        stage.runtime.hold("stop")
        await asyncio.sleep(5.1)
        assert "stopping" == stage.place()
        client = stage.request()
        await asyncio.sleep(9.0)
        stage.runtime.let_go("stop")
        stage.probe.ready_after_seconds = 19.0
        await client.is_granted()
        await client.finish()

        verbs = [verb for verb, _ in stage.runtime.calls]
        assert ["start", "stop", "start"] == verbs


@on_virtual_time
async def test_request_in_the_last_moment_keeps_the_service_up() -> None:
    """Due and request at the same time: whoever comes first, the request is served."""
    for seconds in (59.9999, 60.0, 60.0001):
        async with Stage() as stage:
            await stage.ready()
            await asyncio.sleep(seconds)
            client = stage.request()
            await client.is_granted()
            await client.finish()


@pytest.mark.parametrize("seed", range(30))
@on_virtual_time
async def test_however_stops_and_requests_interleave_every_request_is_served(seed: int) -> None:
    """Requests, idleness, restarts, drains, losses and exits by the second: nobody is refused,
    and nothing is stopped under a request.
    """
    random = Random(seed)
    config = changed(idle_seconds=2.0, hold_timeout_seconds=600.0, stop_timeout_seconds=1.0)
    async with Stage(config) as stage:
        stage.probe.ready_after_seconds = 0.5
        leased_at_stop: list[int] = []

        def watch(change: Transition) -> None:
            if change.after.phase is Phase.STOPPING:
                leased_at_stop.append(len(change.after.leases))

        stage.supervisor.observers.append(watch)
        clients: list[Client] = []

        async def one(client: Client) -> None:
            await client.is_granted()
            await asyncio.sleep(random.choice((0.0, 0.1, 1.0, 3.0)))
            await client.finish()

        served = []
        for _ in range(60):
            kind = random.random()
            if kind < 0.7:
                clients.append(stage.request())
                served.append(asyncio.get_running_loop().create_task(one(clients[-1])))
            elif kind < 0.8:
                await stage.ask(StopRequested, drain=True)
            elif kind < 0.9:
                await stage.ask(random.choice((RestartRequested, StartRequested)))
            elif stage.service().endpoint is not None:
                stage.supervisor.report_lost(HOST, stage.service().endpoint)
            await asyncio.sleep(random.choice((0.0, 0.0, 0.3, 1.0, 2.0, 2.5)))
        await asyncio.gather(*served)

        assert [0] * len(leased_at_stop) == leased_at_stop, seed
        assert {} == stage.service().leases, seed
        assert {} == stage.service().waiting, seed


# Lost.


@on_virtual_time
async def test_lost_run_is_probed_and_served_again() -> None:
    """A refused connection is reported, the next lease waits for the probe, nothing restarts."""
    async with Stage() as stage:
        client = stage.request()
        endpoint = await client.is_granted()
        stage.supervisor.report_lost(HOST, endpoint)
        again = stage.request()
        await settle()

        assert endpoint == await again.is_granted()
        assert [endpoint, endpoint] == stage.probe.probed
        await client.finish()
        await again.finish()
        assert 1 == stage.calls("start")


@on_virtual_time
async def test_loss_of_a_former_run_is_old_news() -> None:
    """A report that comes late does not touch the present run."""
    async with Stage() as stage:
        former = await stage.ready()
        await stage.ask(RestartRequested)
        await settle()
        stage.supervisor.report_lost(HOST, former)

        assert "ready" == stage.place()


# The alarm.


@on_virtual_time
async def test_requests_set_no_alarm() -> None:
    """A date that moves later is found when the old alarm rings."""
    async with Stage() as stage:
        await stage.ready()
        alarms = len(stage.alarm.dates)
        for _ in range(50):
            await asyncio.sleep(1.0)
            await stage.ready()

        assert alarms == len(stage.alarm.dates)
        await asyncio.sleep(60.1)
        assert "stopped" == stage.place()


@on_virtual_time
async def test_alarm_that_rings_late_still_stops() -> None:
    """The loop was blocked for five seconds: nothing is lost, only late."""
    async with Stage() as stage:
        stage.alarm.late_seconds = 5.0
        await stage.ready()
        await asyncio.sleep(64.0)
        assert "ready" == stage.place()
        await asyncio.sleep(2.0)

        assert "stopped" == stage.place()


@on_virtual_time
async def test_alarm_that_rings_early_is_set_again() -> None:
    """Looking when nothing is due loses nothing."""
    async with Stage() as stage:
        await stage.ready()
        for _ in range(5):
            await asyncio.sleep(10.0)
            stage.alarm.cancel()
            stage.supervisor.look()
        await asyncio.sleep(10.1)

        assert "stopped" == stage.place()


@on_virtual_time
async def test_every_date_is_in_the_alarm() -> None:
    """Whenever nothing is under way, the alarm is set to the next date, or there is none."""
    async with Stage() as stage:
        await stage.ready()

        assert pytest.approx(stage.service().idle_due()) == stage.alarm.dates[-1]
        await asyncio.sleep(61.0)
        assert math.inf == stage.supervisor._alarm_at


@on_virtual_time
async def test_monitor_of_a_service_past_its_date_delays_the_stop_only_while_it_asks() -> None:
    """A lease that does not count ends; the date that it protected from is due at once."""
    async with Stage() as stage:
        await stage.ready()
        await asyncio.sleep(59.0)
        client = Client(stage.supervisor, HOST, Admission(True, True, counts=False))
        await asyncio.sleep(10.0)
        assert "ready" == stage.place()
        await client.finish()
        await settle()

        assert "stopped" == stage.place()


@on_virtual_time
async def test_warm_service_is_started_and_stopped_by_the_clock() -> None:
    """Up at the opening of its window without a request, down at its end."""
    window = WarmWindow("30 8 * * mon-fri", 3600.0, "Europe/Paris")  # half an hour from now
    async with Stage(changed(warm=(window,))) as stage:
        await asyncio.sleep(1799.0)
        assert "stopped" == stage.place()
        await asyncio.sleep(2.0)
        assert "ready" == stage.place()
        await asyncio.sleep(3597.0)
        assert "ready" == stage.place()
        await asyncio.sleep(3.0)
        assert "stopped" == stage.place()


@pytest.mark.parametrize(("step", "place"), [(1.0, "ready"), (-1.0, "stopped")])
@on_virtual_time
async def test_wall_clock_that_is_set_is_followed(step: float, place: str) -> None:
    """After a step of the wall clock a look sees the windows that it opened or moved away."""
    window = WarmWindow("30 8 * * mon-fri", 3600.0, "Europe/Paris")
    async with Stage(changed(warm=(window,))) as stage:
        stage.clock.wall_step = timedelta(hours=step)
        stage.supervisor.look()
        await settle()
        assert place == stage.place()
        await asyncio.sleep(1801.0)
        assert "stopped" == stage.place()


@on_virtual_time
async def test_never_idle_service_is_up_without_a_request() -> None:
    """idle: never is started with autostart, and again after it ended."""
    async with Stage(changed(idle_seconds=None)) as stage:
        assert "ready" == stage.place()
        await asyncio.sleep(3600.0)
        stage.machine.end(HOST)
        await settle()

        assert ("ready", 2) == (stage.place(), stage.calls("start"))


@on_virtual_time
async def test_kept_service_is_up_for_so_long() -> None:
    """keep starts it and holds it up; afterwards it is idle as any other."""
    async with Stage() as stage:
        await stage.ask(Kept, until=now() + 7200.0)
        await asyncio.sleep(7199.0)
        assert "ready" == stage.place()
        await asyncio.sleep(2.0)
        assert "stopped" == stage.place()


# Sharing a place.

GPU = "gpu0"
FIRST = changed(host="first.example.com", exclusive=GPU, hold_timeout_seconds=100.0)
SECOND = changed(host="second.example.com", exclusive=GPU, hold_timeout_seconds=100.0)
THIRD = changed(host="third.example.com", exclusive=GPU, hold_timeout_seconds=100.0)


@on_virtual_time
async def test_idle_service_makes_room() -> None:
    """A request for another of its exclusive name stops it a second after its last use."""
    async with Stage(FIRST, SECOND) as stage:
        await stage.ready(FIRST.host)
        began = now()
        await stage.ready(SECOND.host)

        assert began + 1.01 > now()
        assert [
            ("start", FIRST.host),
            ("stop", FIRST.host),
            ("start", SECOND.host),
        ] == stage.runtime.calls


@on_virtual_time
async def test_service_in_use_is_waited_for() -> None:
    """The other starts when the last request has ended, not before."""
    async with Stage(FIRST, SECOND) as stage:
        using = stage.request(FIRST.host)
        await using.is_granted()
        wanting = stage.request(SECOND.host)
        await asyncio.sleep(50.0)
        assert ("draining", "queued") == (stage.place(FIRST.host), stage.place(SECOND.host))
        await using.finish()
        await wanting.is_granted()
        await wanting.finish()

        assert "stopped" == stage.place(FIRST.host)


@on_virtual_time
async def test_place_goes_to_the_oldest_wish() -> None:
    """Of two that wait for a third, the one that asked first is next."""
    async with Stage(FIRST, SECOND, THIRD) as stage:
        using = stage.request(FIRST.host)
        await using.is_granted()
        third = stage.request(THIRD.host)
        await asyncio.sleep(1.0)
        second = stage.request(SECOND.host)
        await using.finish()
        await third.is_granted()
        await third.finish()
        await second.is_granted()
        await second.finish()

        starts = [host for verb, host in stage.runtime.calls if verb == "start"]
        assert [FIRST.host, THIRD.host, SECOND.host] == starts


@on_virtual_time
async def test_request_for_who_is_being_evicted_is_not_held_for_ever() -> None:
    """It queues behind the one that took the place, with a deadline."""
    async with Stage(FIRST, SECOND) as stage:
        await stage.ready(FIRST.host)
        stage.runtime.hold("stop")
        second = stage.request(SECOND.host)
        await asyncio.sleep(1.0)
        first = stage.request(FIRST.host)
        await settle()
        stage.runtime.let_go("stop")
        await second.is_granted()
        refusal = await first.refusal()

        assert isinstance(refusal, errors.StartTimeout)
        assert STARTED_AT + 102.0 > now()
        await second.finish()


@on_virtual_time
async def test_two_waiting_pages_that_share_a_place_are_both_served() -> None:
    """A service that is ready is not evicted before the browser that woke it has asked again."""
    async with Stage(FIRST, SECOND) as stage:
        stage.probe.ready_after_seconds = 3.0
        served: set[str] = set()

        async def reload_until_served(host: str) -> None:
            while host not in served:
                client = stage.request(host, PAGE)
                if await client.outcome() is None:
                    await client.finish()
                    served.add(host)
                await asyncio.sleep(2.0)

        async with asyncio.timeout(60.0):
            await asyncio.gather(*(reload_until_served(c.host) for c in (FIRST, SECOND)))


@on_virtual_time
async def test_kept_service_gives_its_place_up_when_the_keep_ends() -> None:
    """Who waits for it need not wait for another event."""
    keeper = changed(FIRST, idle_seconds=None)
    async with Stage(keeper, SECOND) as stage:
        await stage.ask(Kept, host=FIRST.host, until=now() + 50.0)
        await settle()
        wanting = stage.request(SECOND.host)
        await wanting.is_granted()
        await wanting.finish()

        assert pytest.approx(STARTED_AT + 50.0, abs=0.1) == now()


async def use_constantly(stage: Stage, host: str, seconds: float, *, answer: float = 2.0) -> int:
    """Ask twice a second, each answer lasting longer than that; return how many were served."""
    served, asking = 0, []

    async def ask() -> None:
        nonlocal served
        client = stage.request(host)
        await client.is_granted()
        await asyncio.sleep(answer)
        await client.finish()
        served += 1

    until = now() + seconds
    while now() < until:
        asking.append(asyncio.get_running_loop().create_task(ask()))
        await asyncio.sleep(0.5)
    await asyncio.gather(*asking)
    return served


@on_virtual_time
async def test_two_that_are_used_constantly_take_turns() -> None:
    """Under constant, overlapping use of both every request is served, and no turn is short."""
    async with Stage(FIRST, SECOND) as stage:
        stage.probe.ready_after_seconds = 3.0
        seen: list[tuple[str, float]] = []
        stage.supervisor.observers.append(
            lambda change: seen.append((change.target, change.at.monotonic))
        )
        served = await asyncio.gather(
            *(use_constantly(stage, c.host, 300.0) for c in (FIRST, SECOND))
        )
        ups = [at for target, at in seen if target == "ready"]
        downs = [at for target, at in seen if target == "draining"]

        assert [600, 600] == served
        assert 18 <= len(ups) <= 24
        assert all(down - up >= 10.0 for up, down in zip(ups, downs, strict=False))
        assert abs(stage.calls("start", FIRST.host) - stage.calls("start", SECOND.host)) <= 1


@on_virtual_time
async def test_one_request_after_another_is_not_one_start_after_another() -> None:
    """Two clients that ask again at once do not cost a start each time."""
    async with Stage(FIRST, SECOND) as stage:
        stage.probe.ready_after_seconds = 3.0

        async def ask_again_and_again(host: str) -> None:
            until = now() + 120.0
            while now() < until:
                client = stage.request(host)
                await client.is_granted()
                await asyncio.sleep(0.1)
                await client.finish()
                await asyncio.sleep(0.05)

        await asyncio.gather(*(ask_again_and_again(c.host) for c in (FIRST, SECOND)))

        assert stage.calls("start", FIRST.host) + stage.calls("start", SECOND.host) <= 12


@on_virtual_time
async def test_answer_of_an_hour_is_not_cut_and_costs_its_own_service_little() -> None:
    """Who waits behind it is refused by name; the others of the busy one are all served."""
    async with Stage(FIRST, SECOND) as stage:
        hour = stage.request(FIRST.host)
        run = await hour.is_granted()
        others = asyncio.get_running_loop().create_task(use_constantly(stage, FIRST.host, 600.0))
        await asyncio.sleep(1.0)
        waited = stage.request(SECOND.host)
        refusal = await waited.refusal()
        served = await others
        await asyncio.sleep(3000.0)

        assert isinstance(refusal, errors.StartTimeout)
        assert f"behind {FIRST.host}" in refusal.message
        assert 1200 == served
        assert run == stage.service(FIRST.host).endpoint
        await hour.finish()


@on_virtual_time
async def test_one_that_is_merely_wanted_costs_nobody_his_answer() -> None:
    """A start that an operator asked for waits behind an endless answer; others are served."""
    async with Stage(FIRST, SECOND) as stage:
        endless = stage.request(FIRST.host)
        await endless.is_granted()
        await stage.ask(StartRequested, host=SECOND.host)

        assert 1200 == await use_constantly(stage, FIRST.host, 600.0)
        await endless.finish()
        await asyncio.sleep(5.0)
        assert "ready" == stage.place(SECOND.host)


# The inbox.


@on_virtual_time
async def test_event_posted_from_within_a_step_waits_its_turn() -> None:
    """An observer that posts sees its event handled after the step that it watched."""
    async with Stage() as stage:
        seen: list[str] = []

        def meddle(change: Transition) -> None:
            seen.append(change.target)
            if change.target == "ready":
                assert change.after.endpoint is not None
                stage.supervisor.post(HOST, Lost(change.after.endpoint.run))
                seen.append("posted")
                stage.supervisor.observers.remove(meddle)
                stage.supervisor.observers.append(lambda later: seen.append(later.target))

        stage.supervisor.observers.append(meddle)
        await stage.ready()

        assert ["starting", "loading", "ready", "posted", "starting", "ready"] == seen


@on_virtual_time
async def test_observer_that_breaks_breaks_nothing_else() -> None:
    """Who only watches cannot fail a start, or a request."""
    async with Stage() as stage:
        seen: list[str] = []

        def break_down(_: Transition) -> None:
            raise RuntimeError("disk full")

        stage.supervisor.observers += [break_down, lambda change: seen.append(change.target)]
        await stage.ready()

        assert ["starting", "loading", "ready"] == seen


@on_virtual_time
async def test_release_of_an_unknown_lease_is_nothing() -> None:
    """A lease that was never there cannot hurt, not even of a host that is not there."""
    async with Stage() as stage:
        await stage.ready()
        stage.supervisor.post(HOST, LeaseReleased(4711))
        stage.supervisor.post("nobody.example.com", LeaseReleased(4711))

        assert "ready" == stage.place()


def test_stage_waits_for_nothing_that_cannot_happen() -> None:
    """A story that would hang fails at once: what these tests rely on."""

    async def hang() -> None:
        await asyncio.get_running_loop().create_future()

    # Not on_virtual_time itself: the runner must be seen to fail.
    story = on_virtual_time(hang)
    with pytest.raises(AssertionError, match="never happen"):
        story(tasks="lazy")


@pytest.mark.skipif(not HAS_EAGER_TASKS, reason="eager tasks need Python 3.12 or newer")
def test_stories_are_told_with_eager_tasks_too() -> None:
    """A task factory that runs a task at once, within our step, must change nothing."""
    assert ("lazy", "eager") == TASKS


@on_virtual_time
async def test_watchers_are_told_of_every_change_and_of_nothing_else() -> None:
    """A start, each lease and its end; what changes nothing tells nobody."""
    async with Stage() as stage:
        touched: list[str] = []
        stage.supervisor.watchers.append(touched.append)
        client = stage.request()
        await settle()
        started = len(touched)
        again = stage.request()
        await settle()
        leased = len(touched)
        await client.leave()
        await again.leave()
        left = len(touched)
        stage.supervisor.post(HOST, RetryDue())

        assert started > 0
        assert (leased, left, len(touched)) == (started + 1, started + 3, started + 3)
        assert set(touched) == {HOST}


@on_virtual_time
async def test_watchers_see_a_pull_go_on() -> None:
    """Its last line is part of what is shown."""
    async with Stage() as stage:
        touched: list[str] = []
        stage.supervisor.watchers.append(touched.append)
        stage.runtime.machine.unprepared.add(HOST)
        await stage.supervisor.prepare(HOST)

        assert touched == [HOST, HOST]
