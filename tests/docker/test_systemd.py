"""autostart as a service of a Debian that systemd really runs: installed, restarted, hung, read."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from tests.booted import Booted, booted
from tests.crowd import Client, Crowd
from tests.daemon import ROOT

pytestmark = pytest.mark.timeout(300)

HOST = "plain.example.com"
PORT = 8890
MAP = f"""
proxy: {{listen: "0.0.0.0:{PORT}", drain_timeout: 5s}}
services:
  {HOST}:
    command: ["{{python}}", plain_service.py, --port, "{{port}}"]
    directory: /srv/plain
    ready: /ready
"""
SHOW = "systemctl show autostart.service --value --property"
CLIENTS = (Client("new connections", HOST), Client("kept connections", HOST, keeps=True))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Booted]:
    """A Debian with autostart from a wheel, installed and started as the documents say."""
    with booted() as here:
        folder = tmp_path_factory.mktemp("wheel")
        build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", str(folder)]
        subprocess.run([*build, str(ROOT)], check=True, timeout=120)
        (wheel,) = folder.iterdir()
        here.copy(wheel, f"/root/{wheel.name}")
        here.copy(ROOT / "requirements.lock", "/root/requirements.lock")
        here.run("mkdir -p /srv/plain")
        for name in ("plain_service.py", "plain_request.py", "plain_websocket.py"):
            here.copy(ROOT / "tests" / name, f"/srv/plain/{name}")
        here.write("/etc/autostart/autostart.yaml", MAP)
        here.run(
            "apt-get update -qq && apt-get install -qq -y --no-install-recommends python3-venv"
        )
        here.run("python3 -m venv /opt/autostart", seconds=60)
        pip = "/opt/autostart/bin/pip install --quiet --constraint /root/requirements.lock"
        here.run(f"{pip} /root/*.whl && ln -s /opt/autostart/bin/autostart /usr/local/bin")
        here.run("autostart install --write --now")
        yield here


def crowd_of(server: Booted) -> Crowd:
    return Crowd((server.address, PORT))


def service_pid(server: Booted) -> str:
    """Return the pid of the service that autostart started; start it if it is asleep."""
    ask = f"Request('http://127.0.0.1:{PORT}/', headers={{'Host': '{HOST}'}})"
    code = f"from urllib.request import *; print(urlopen({ask}, timeout=30).read().decode())"
    return server.run(f'python3 -c "{code}"').split()[-1]


async def more_answers(crowd: Crowd) -> None:
    """Wait until the crowd has got a hundred more."""
    before = crowd.outcomes.total()
    deadline = time.monotonic() + 30
    while crowd.outcomes.total() < before + 100:
        assert time.monotonic() < deadline, crowd.outcomes
        await asyncio.sleep(0.05)


def test_systemd_says_that_it_serves_and_how_the_services_stand(server: Booted) -> None:
    """The unit is active once it serves, and its status line counts the services by state."""
    assert "active" == server.run("systemctl is-active autostart.service")
    assert "enabled" == server.run("systemctl is-enabled autostart.service")
    service_pid(server)
    server.wait_for(f"{SHOW}=StatusText", "1 ready")


def test_it_runs_as_nobody_special(server: Booted) -> None:
    """The daemon and its service run as their own user, without a capability, never to get one."""
    for pid in (server.run(f"{SHOW}=MainPID"), service_pid(server)):
        shown = server.run(f"cat /proc/{pid}/status; stat -c %U /proc/{pid}")

        assert shown.endswith("autostart")
        assert "CapBnd:\t0000000000000000" in shown
        assert "NoNewPrivs:\t1" in shown


def test_a_service_inherits_nothing_that_systemd_says_to_us(server: Booted) -> None:
    """No child could take our sockets, notify in our place, or satisfy our watchdog."""
    variables = server.run(f"tr '\\0' '\\n' </proc/{service_pid(server)}/environ")

    assert "AUTOSTART" in variables
    assert not [line for line in variables.splitlines() if "LISTEN_" in line or "WATCHDOG" in line]
    assert "NOTIFY_SOCKET" not in variables


def test_installing_again_changes_nothing(server: Booted) -> None:
    """The second installation writes nothing, and restarts nothing."""
    before = server.run(f"{SHOW}=MainPID")
    said = server.run("autostart install --write --now")

    assert 2 == said.count("unchanged /etc/systemd/system/autostart.")
    assert before == server.run(f"{SHOW}=MainPID")


def test_an_edited_unit_is_not_overwritten(server: Booted) -> None:
    """A unit with a line of somebody else is refused, and kept beside the new one by --force."""
    unit = "/etc/systemd/system/autostart.service"
    server.run(f"sed -i 's/^LimitNOFILE=.*/LimitNOFILE=1234/' {unit}")
    refused = server.fails("autostart install --write")
    edited = server.run(f"grep LimitNOFILE {unit}")
    server.run("autostart install --write --force")

    assert "was edited" in refused
    assert "systemctl edit" in refused
    assert "LimitNOFILE=1234" == edited
    assert "LimitNOFILE=1234" == server.run(f"grep LimitNOFILE {unit}.old")
    assert "LimitNOFILE=65536" == server.run(f"grep LimitNOFILE {unit}")


def test_systemd_has_nothing_to_say_about_the_units(server: Booted) -> None:
    """systemd-analyze verifies them without a word, and finds the exposure low."""
    folder = "/etc/systemd/system"
    said = server.run(
        f"systemd-analyze verify {folder}/autostart.service {folder}/autostart.socket"
    )
    rating = server.run("systemd-analyze security autostart.service | tail -1")
    print(rating)

    assert "" == said
    assert "OK" in rating


async def test_systemctl_restart_refuses_nobody(server: Booted) -> None:
    """Through three restarts every request is answered, by the same run of the service."""
    before = service_pid(server)
    crowd = crowd_of(server)
    async with crowd.asking(*CLIENTS, each=8):
        for _ in range(3):
            await asyncio.to_thread(server.run, "systemctl restart autostart.service")
            await more_answers(crowd)
    print("what became of them:", dict(crowd.outcomes), f"{crowd.slowest_seconds:.1f} s")

    assert {} == crowd.unexpected()
    assert before == service_pid(server)


async def test_a_hung_daemon_is_killed_and_its_services_are_taken_over(server: Booted) -> None:
    """The watchdog ends a daemon that stands still; who connects meanwhile waits for the next."""
    server.write(
        "/etc/systemd/system/autostart.service.d/quick.conf", "[Service]\nWatchdogSec=2s\n"
    )
    server.run("systemctl daemon-reload && systemctl restart autostart.service")
    before, hung = service_pid(server), server.run(f"{SHOW}=MainPID")
    await asyncio.sleep(5)
    beaten = server.run(f"{SHOW}=NRestarts")
    server.run(f"kill -STOP {hung}")
    crowd = crowd_of(server)
    async with crowd.asking(CLIENTS[0], each=8):
        await more_answers(crowd)
    server.run("rm -r /etc/systemd/system/autostart.service.d && systemctl daemon-reload")

    assert "0" == beaten
    assert hung != server.run(f"{SHOW}=MainPID")
    assert "1" == server.run(f"{SHOW}=NRestarts")
    # At most what each client had put into the hung one's hands.
    assert crowd.count("lost") <= 8
    assert {} == crowd.unexpected("lost")
    assert before == service_pid(server)
    assert "Watchdog timeout" in server.run("journalctl -u autostart.service --no-pager")


def test_a_map_that_is_refused_fails_the_reload(server: Booted) -> None:
    """systemctl reload says no and the journal says why; the old map goes on serving."""
    before = service_pid(server)
    server.write("/etc/autostart/autostart.yaml", MAP + "    wrong: key\n")
    server.fails("systemctl reload autostart.service")
    said = server.run("journalctl -u autostart.service --no-pager -n 20")
    still = server.run("systemctl is-active autostart.service")
    server.write("/etc/autostart/autostart.yaml", MAP)
    server.run("systemctl reload autostart.service")

    assert "wrong" in said
    assert "active" == still
    assert before == service_pid(server)


def test_what_is_stopped_comes_back_with_a_request(server: Booted) -> None:
    """systemctl stop leaves the services and the socket; the next request starts autostart."""
    before = service_pid(server)
    server.run("systemctl stop autostart.service")
    survived = server.run(f"cat /proc/{before}/comm")

    assert "inactive" == server.run("systemctl is-active autostart.service", check=False)
    assert survived.startswith("python")
    assert before == service_pid(server)
    assert "active" == server.run("systemctl is-active autostart.service")


async def test_requests_wait_for_a_map_that_works(server: Booted) -> None:
    """A restart with a broken map refuses nobody; once it is mended, they are answered."""
    service_pid(server)
    server.write("/etc/autostart/autostart.yaml", "services: [")
    crowd = crowd_of(server)
    async with crowd.asking(CLIENTS[0], each=2):
        await asyncio.to_thread(server.fails, "systemctl restart autostart.service")
        await asyncio.sleep(6)  # several starts fail meanwhile
        server.write("/etc/autostart/autostart.yaml", MAP)
        await more_answers(crowd)

    assert {} == crowd.unexpected()
