"""What stands between a request and its service: who may wake it, from where, and what waits."""

from __future__ import annotations

import asyncio
import time
from base64 import b64encode
from collections import Counter
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.daemon import HOST, Daemon, free_port, plain, running

Answer = tuple[int, str | None]


async def ask(
    client: aiohttp.ClientSession,
    daemon: Daemon,
    path: str = "/",
    *,
    method: str = "GET",
    host: str = HOST,
    **headers: str,
) -> Answer:
    """Return the status and the code of a refusal of ours."""
    sent = {"Host": host, **{name.replace("_", "-"): value for name, value in headers.items()}}
    async with client.request(method, daemon.url + path, headers=sent) as response:
        await response.read()
        return response.status, response.headers.get("Autostart-Error")


async def test_wrong_credentials_wake_nothing(
    tmp_path: Path, client: aiohttp.ClientSession
) -> None:
    """Without or with a wrong key: 401 and no start; with one of the keys: served."""
    daemon = Daemon(tmp_path, {HOST: plain(access={"keys_env": "TEST_KEYS"})})
    daemon.environment["TEST_KEYS"] = "first-key, second-key"
    try:
        await daemon.start()
        refused = [
            await ask(client, daemon),
            await ask(client, daemon, Authorization="Bearer third-key"),
            await ask(client, daemon, "/.autostart/wake", method="POST"),
            await ask(client, daemon, "/.autostart/status"),
        ]
        assert [(401, "unauthorized")] * 4 == refused
        assert [] == daemon.transitions()

        assert (200, None) == await ask(client, daemon, Authorization="Bearer second-key")
        assert "key" not in daemon.log_path.read_text().replace("keys_env", "")
    finally:
        daemon.clean_up()


async def test_guessed_passwords_keep_no_right_login_waiting(
    tmp_path: Path, client: aiohttp.ClientSession
) -> None:
    """Under 60 guesses at once a known login is served at once, a new one when it comes again."""
    file = tmp_path / "htpasswd"
    # Made with python's bcrypt, 12 rounds, password "pw": 0.2 s of a core each time.
    known = "$2b$12$xd7OFDL1Nk/HFAe2Iteyk.21wh7YnxqenEXVXp0EudbQ.OBMn02C."
    file.write_text(f"ada:{known}\nbob:{known}\n")

    async def log_in(user: str, password: str) -> Answer:
        login = b64encode(f"{user}:{password}".encode()).decode()
        return await ask(client, daemon, Authorization=f"Basic {login}")

    async with running(tmp_path, {HOST: plain(access={"basic_file": str(file)})}) as daemon:
        assert (200, None) == await log_in("bob", "pw")
        guesses = [asyncio.create_task(log_in("ada", f"guess {n}")) for n in range(60)]
        await asyncio.sleep(0.1)
        began = time.monotonic()
        assert (200, None) == await log_in("bob", "pw")
        known_waited = time.monotonic() - began
        while (new := await log_in("ada", "pw")) == (503, "queue-full"):
            await asyncio.sleep(0.1)
        new_waited = time.monotonic() - began

        assert (200, None) == new
        assert known_waited < 0.5
        assert new_waited < 3
        assert {(401, "unauthorized"), (503, "queue-full")} == {*await asyncio.gather(*guesses)}


async def test_a_preflight_is_answered_while_asleep(
    tmp_path: Path, client: aiohttp.ClientSession
) -> None:
    """CORS preflights are ours: right for origins on the list, and they wake nothing."""
    origin = "https://portal.example.com"
    async with running(tmp_path, {HOST: plain(cors=[origin])}) as daemon:
        headers = {"Host": HOST, "Access-Control-Request-Method": "POST"}
        allowed = {}
        for asking in (origin, "https://evil.example.com"):
            async with client.options(
                daemon.url + "/v1", headers={**headers, "Origin": asking}
            ) as response:
                assert 204 == response.status
                allowed[asking] = response.headers.get("Access-Control-Allow-Origin")

        assert {origin: origin, "https://evil.example.com": None} == allowed
        assert [] == daemon.transitions()

        async with client.get(daemon.url, headers={"Host": HOST, "Origin": origin}) as response:
            assert [origin] == response.headers.getall("Access-Control-Allow-Origin")


@pytest.mark.parametrize(
    ("path", "method", "agent", "expected"),
    [
        ("/favicon.ico", "GET", "curl", (404, "ignored-path")),
        ("/", "HEAD", "curl", (403, "wake-refused")),
        ("/", "GET", "UptimeRobot/2.0", (403, "wake-refused")),
        ("/health", "GET", "curl", (200, "asleep")),
    ],
)
async def test_what_may_not_wake_is_answered_by_us(
    tmp_path: Path,
    client: aiohttp.ClientSession,
    path: str,
    method: str,
    agent: str,
    expected: Answer,
) -> None:
    """A stopped service stays stopped for favicons, HEAD, monitors, and its asleep paths."""
    service = plain(wake={"ignore_agents": ["UptimeRobot*"]}, asleep={"/health": 200})
    async with running(tmp_path, {HOST: service}) as daemon:
        answer = await ask(client, daemon, path, method=method, User_Agent=agent)

        assert expected == answer
        assert [] == daemon.transitions()


async def test_a_body_too_large_wakes_nothing(
    tmp_path: Path, client: aiohttp.ClientSession
) -> None:
    """A Content-Length above max_body is refused before anything is started."""
    async with running(tmp_path, {HOST: plain(max_body="1KB")}) as daemon:
        async with client.post(
            daemon.url + "/upload", data=b"x" * 1001, headers={"Host": HOST}
        ) as response:
            answer = response.status, response.headers["Autostart-Error"]

        assert (413, "body-too-large") == answer
        assert [] == daemon.transitions()


async def test_a_front_end_can_wake_and_watch(
    tmp_path: Path, client: aiohttp.ClientSession
) -> None:
    """POST /.autostart/wake starts without waiting; /.autostart/status says how far it is."""
    async with running(tmp_path, {HOST: plain("--ready-after", "0.5")}) as daemon:

        async def own(method: str, path: str) -> tuple[int, dict[str, Any]]:
            url, headers = f"{daemon.url}/.autostart/{path}", {"Host": HOST}
            async with client.request(method, url, headers=headers) as response:
                return response.status, await response.json()

        asleep = await own("GET", "status")
        woken = await own("POST", "wake")
        await daemon.wait_for_state("ready")
        awake = await own("POST", "wake")

        assert (200, "stopped") == (asleep[0], asleep[1]["state"])
        assert (202, "starting") == (woken[0], woken[1]["state"])
        assert (200, "ready") == (awake[0], awake[1]["state"])
        assert 1 == daemon.starts()


async def test_a_door_needs_no_host_name(tmp_path: Path, client: aiohttp.ClientSession) -> None:
    """A service's own listener leads to it whatever the Host header says."""
    door = free_port()
    async with running(tmp_path, {HOST: plain(listen=f"127.0.0.1:{door}")}) as daemon:
        async with client.get(f"http://127.0.0.1:{door}/") as response:
            text = await response.text()

        assert text.startswith("plain ")
        assert 1 == daemon.starts()


async def test_one_of_an_exclusive_name_runs_at_a_time(
    tmp_path: Path, client: aiohttp.ClientSession
) -> None:
    """The idle one is evicted for the next; one in use is waited for."""
    services = {host: plain(exclusive="gpu0") for host in (HOST, "other.localhost")}
    async with running(tmp_path, services) as daemon:
        assert (200, None) == await ask(client, daemon)
        assert (200, None) == await ask(client, daemon, host="other.localhost")
        first = (await daemon.states())[HOST]["state"]
        long = asyncio.create_task(ask(client, daemon, "/slow?seconds=2", host="other.localhost"))
        await asyncio.sleep(0.3)
        began = time.monotonic()
        assert (200, None) == await ask(client, daemon)
        waited = time.monotonic() - began

        assert "stopped" == first
        assert waited > 1.5
        assert (200, None) == await long
        assert "stopped" == (await daemon.states())["other.localhost"]["state"]


async def test_two_of_an_exclusive_name_that_are_used_constantly_take_turns(
    tmp_path: Path, client: aiohttp.ClientSession
) -> None:
    """Answers that overlap on both for 20 s: none is refused, and each was started repeatedly."""
    hosts = (HOST, "other.localhost")
    services = {host: plain(exclusive="gpu0", hold_timeout="8s") for host in hosts}
    async with running(tmp_path, services) as daemon:
        asking = []
        for _ in range(50):
            asking += [
                asyncio.create_task(ask(client, daemon, "/slow?seconds=1", host=host))
                for host in hosts
            ]
            await asyncio.sleep(0.4)
        answers = Counter(await asyncio.gather(*asking))
        starts = [daemon.starts(host) for host in hosts]

        assert Counter({(200, None): 100}) == answers
        assert min(starts) >= 2, starts
        assert max(starts) <= 5, starts


async def test_who_waits_in_vain_for_an_exclusive_place_hears_why(
    tmp_path: Path, client: aiohttp.ClientSession
) -> None:
    """A long answer is not cut for another: that one's client hears who is in the way."""
    services = {
        host: plain(exclusive="gpu0", hold_timeout="2s") for host in (HOST, "other.localhost")
    }
    async with running(tmp_path, services) as daemon:
        long = asyncio.create_task(ask(client, daemon, "/slow?seconds=5"))
        await daemon.wait_for_state("ready")
        await asyncio.sleep(0.1)
        async with client.get(daemon.url, headers={"Host": "other.localhost"}) as response:
            text = await response.text()

        assert (504, "start-timeout") == (response.status, response.headers["Autostart-Error"])
        assert HOST in text
        assert (200, None) == await ask(client, daemon)
        assert (200, None) == await long
        assert 1 == daemon.starts()


async def test_a_service_that_never_idles_is_started_and_restarted(
    tmp_path: Path, client: aiohttp.ClientSession
) -> None:
    """idle: never means ready without a request, and again after it died."""
    async with running(tmp_path, {HOST: plain(idle="never")}) as daemon:
        await daemon.wait_for_state("ready")
        assert (200, None) == await ask(client, daemon)
        first_run = (await daemon.states())[HOST]["endpoint"]["run"]
        assert (502, "service-closed") == await ask(client, daemon, "/die")
        await asyncio.sleep(0.1)
        await daemon.wait_for_state("ready")

        assert first_run != (await daemon.states())[HOST]["endpoint"]["run"]


async def test_a_kept_service_outlives_its_idle_time(
    tmp_path: Path, client: aiohttp.ClientSession
) -> None:
    """keep HOST 3s starts it and keeps it up although idle is shorter."""
    async with running(tmp_path, {HOST: plain(idle="200ms")}) as daemon:
        status, text = await daemon.run_cli("keep", HOST, "3s")
        assert 0 == status, text
        await daemon.wait_for_state("ready")
        await asyncio.sleep(1.5)

        assert "ready" == (await daemon.states())[HOST]["state"]
        await daemon.wait_for_state("stopped", seconds=4)


async def test_an_open_warm_window_starts_its_service(tmp_path: Path) -> None:
    """Inside a warm window the service is up without requests, however short its idle time."""
    window = {"cron": "* * * * *", "for": "59s", "timezone": "UTC"}
    async with running(tmp_path, {HOST: plain(idle="200ms", warm=[window])}) as daemon:
        await daemon.wait_for_state("ready", seconds=5)


async def test_an_operator_stops_holds_and_starts(
    tmp_path: Path, client: aiohttp.ClientSession
) -> None:
    """stop is refused under a lease, --hold keeps it stopped, start ends the hold."""
    async with running(tmp_path, {HOST: plain()}) as daemon:
        answer = asyncio.create_task(ask(client, daemon, "/slow?seconds=2"))
        await daemon.wait_for_state("ready")
        await asyncio.sleep(0.2)
        refused, refusal = await daemon.run_cli("stop", HOST)
        drained, text = await daemon.run_cli("stop", HOST, "--drain", "--hold")

        assert 1 == refused
        assert "GET /slow" in refusal, refusal
        assert 0 == drained, text
        assert (200, None) == await answer
        assert (503, "held") == await ask(client, daemon)
        started, text = await daemon.run_cli("start", HOST)
        assert 0 == started, text
        assert (200, None) == await ask(client, daemon)


async def test_a_stranger_on_the_port_is_named_and_untouched(
    tmp_path: Path, client: aiohttp.ClientSession
) -> None:
    """A fixed port that somebody else holds gives port-taken; the stranger goes on."""
    stranger = await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", 0)
    port = stranger.sockets[0].getsockname()[1]
    async with running(tmp_path, {HOST: plain(port=port)}) as daemon:
        answer = await ask(client, daemon)

        assert (503, "port-taken") == answer
        assert stranger.is_serving()
    stranger.close()


async def test_leases_show_their_path_and_age(
    tmp_path: Path, client: aiohttp.ClientSession
) -> None:
    """An operator sees who holds a service ready, and for how long."""
    async with running(tmp_path, {HOST: plain()}) as daemon:
        answer = asyncio.create_task(ask(client, daemon, "/slow?seconds=1.5"))
        await daemon.wait_for_state("ready")
        await asyncio.sleep(0.3)
        leases = (await daemon.states())[HOST]["leases"]

        assert ["GET /slow"] == [lease["about"] for lease in leases]
        assert 0.2 < leases[0]["age_seconds"] < 1.5
        await answer


async def test_a_service_does_not_inherit_our_secrets(
    tmp_path: Path, client: aiohttp.ClientSession
) -> None:
    """Keys and the admin token stay with autostart; the rest of its environment is inherited."""
    daemon = Daemon(tmp_path, {HOST: plain(access={"keys_env": "TEST_KEYS"})})
    daemon.environment |= {"TEST_KEYS": "key-1", "AUTOSTART_ADMIN_TOKEN": "", "TEST_OTHER": "1"}
    try:
        await daemon.start()
        assert (200, None) == await ask(client, daemon, Authorization="Bearer key-1")
        environments = [process.environ() for process in daemon.children()]

        assert [("1", False, False)] == [
            (found.get("TEST_OTHER"), "TEST_KEYS" in found, "AUTOSTART_ADMIN_TOKEN" in found)
            for found in environments
        ]
    finally:
        daemon.clean_up()


async def test_the_admin_listener_refuses_strangers(
    tmp_path: Path, client: aiohttp.ClientSession
) -> None:
    """A foreign Host (DNS rebinding) or Origin (another page) gets 403 and changes nothing."""
    async with running(tmp_path, {HOST: plain()}) as daemon:
        url = f"{daemon.admin_url}/api/services/{HOST}/start"
        statuses = []
        for headers in (
            {"Host": "evil.example.com"},
            {"Origin": "https://evil.example.com"},
            {"Host": "evil.example.com", "Origin": "http://evil.example.com"},
        ):
            async with client.post(url, headers=headers) as response:
                statuses.append(response.status)

        assert [403, 403, 403] == statuses
        assert [] == daemon.transitions()


async def test_a_public_admin_address_needs_a_token(tmp_path: Path) -> None:
    """serve refuses to open the admin listener to the network without a token, and says so."""
    daemon = Daemon(tmp_path, {HOST: plain()}, admin={"listen": f"0.0.0.0:{free_port()}"})
    daemon.environment["AUTOSTART_ADMIN_TOKEN"] = ""
    status, text = await daemon.run_cli("serve")

    assert 2 == status
    assert "admin.listen" in text
    assert "AUTOSTART_ADMIN_TOKEN" in text
