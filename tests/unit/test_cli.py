"""What the commands print and how they end."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from autostart import errors
from autostart.cli import main, waiting
from autostart.cli.failure import CommandFailed, Commands
from autostart.cli.table import short_duration, status_table
from autostart.config import ServiceConfig, load
from autostart.lifecycle import State
from tests.containers import contained, docker, name_of, remove_projects, require_engine
from tests.daemon import free_port
from tests.fakes.daemon import FakeDaemon, serving

HOST = "a.localhost"
SERVICE = ServiceConfig(HOST, port=9001, command=("x",), aliases=("c.localhost",))
# Nothing listens on port 9 (discard) of a machine of this century.
NOBODY = "127.0.0.1:9"

Run = Callable[..., Result]


def write_map(folder: Path, listen: str = NOBODY, more: str = "") -> Path:
    path = folder / "autostart.yaml"
    services = f"services: {{{HOST}: {{command: [sh], port: 9001}}}}"
    path.write_text(f"admin: {{listen: '{listen}'}}\n{services}\n{more}")
    return path


def run_with(path: Path | None, *words: str, **environment: str) -> Result:
    """Run a command with the map that AUTOSTART_CONFIG names."""
    named = {"AUTOSTART_CONFIG": None if path is None else str(path)}
    state = {"AUTOSTART_STATE": None if path is None else str(path.parent / "state")}
    return CliRunner().invoke(main, list(words), env={**named, **state, **environment})


def said(result: Result) -> tuple[int, str, str]:
    return result.exit_code, result.stdout, result.stderr


@pytest.fixture
def daemon() -> Iterator[FakeDaemon]:
    with serving(SERVICE) as running:
        yield running


@pytest.fixture
def run(daemon: FakeDaemon, tmp_path: Path) -> Run:
    path = write_map(tmp_path, daemon.listen)
    return lambda *words, **environment: run_with(path, *words, **environment)


@contextmanager
def leased(daemon: FakeDaemon) -> Iterator[None]:
    """Hold a lease in the daemon's loop for the length of the block."""
    request = daemon.fleet.request(HOST, "POST /asr")
    daemon.do(lambda _: request.__aenter__())
    try:
        yield
    finally:
        daemon.do(lambda _: request.__aexit__(None, None, None))


# status


def test_status_is_a_table_of_the_fleet(daemon: FakeDaemon, run: Run) -> None:
    """Each service is a line: where it stands, since when, who uses it, when it idles."""
    daemon.do(lambda fleet: fleet.start(HOST))

    assert said(run("status")) == (
        0,
        (
            "HOST         STATE  SINCE  LEASES  WAITING  IDLE IN  ATTEMPT\n"
            "a.localhost  ready     0s       0        0   15m00s        1\n"
        ),
        "",
    )


def test_status_json_is_the_answer_of_the_api(run: Run) -> None:
    """--json prints GET /api/services for programs."""
    shown = json.loads(run("status", "--json").stdout)

    assert [(service["host"], service["state"]) for service in shown] == [(HOST, "stopped")]


def shown_service(**more: Any) -> dict[str, Any]:
    dates = ("idle_due_seconds", "kept_until", "retry_in_seconds")
    nothing = dict.fromkeys(("phase", "failure", "closed_by", "device", "progress", *dates))
    service = {
        "host": HOST,
        "state": "stopped",
        "since_seconds": 0.0,
        "attempt": 0,
        "leases": [],
        "waiting": [],
    }
    return {**service, **nothing, **more}


def test_a_table_fits_eighty_columns() -> None:
    """With everything that can be said, and hosts of a usual length, no line is longer."""
    failure = {"code": "start-failed", "message": "no " * 50}
    services = [
        shown_service(
            host="whisper.example.com",
            state="failed",
            phase="preparing",
            since_seconds=360_000,
            attempt=9_999,
            leases=[1] * 999,
            waiting=[1] * 100,
            idle_due_seconds=86_399.0,
            failure=failure,
            retry_in_seconds=299.0,
        )
    ]
    lines = status_table(services, width=80).splitlines()

    assert [line for line in lines if len(line) > 80] == []
    assert lines[2].startswith("    last failure: next try in 4m59s; start-failed: no no")
    assert lines[2].endswith("…")


def test_what_is_special_about_a_service_stands_beneath_it() -> None:
    """A hold, a pull under way, a choice of device and a failure each have a line of their own."""
    failure = {"code": "start-failed", "message": "exit\ncode 3"}
    device = {"kind": "cpu", "reason": "no GPU: nvidia-smi is not installed"}
    service = shown_service(
        closed_by="held", progress="pulling 3 of 7", device=device, failure=failure
    )
    lines = status_table([service], width=80).splitlines()

    assert lines[2:] == [
        "    closed: held",
        "    progress: pulling 3 of 7",
        "    device: CPU: no GPU: nvidia-smi is not installed",
        "    last failure: start-failed: exit code 3",
    ]


def test_an_empty_fleet_says_so() -> None:
    """A table without lines would look like a failure."""
    assert status_table([], width=80) == "no service is declared"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0s"), (59.9, "59s"), (125, "2m05s"), (11_400, "3h10m"), (400_000, "4d")],
)
def test_durations_have_at_most_two_units(seconds: float, text: str) -> None:
    """A person wants to know how long, not how exactly."""
    assert short_duration(seconds) == text


# start, stop, restart, keep, prepare


def test_start_waits_until_it_is_ready(daemon: FakeDaemon, run: Run) -> None:
    """start returns when the service can be used, and an alias names it as well."""
    result = run("start", "c.localhost")

    assert result.exit_code == 0
    assert result.stdout.startswith(f"{HOST}: ready in 0.")
    assert daemon.fleet.supervisor.snapshot()[HOST].state is State.READY


def test_start_of_a_ready_service_says_so(run: Run) -> None:
    """A second start does nothing."""
    run("start", HOST)

    assert said(run("start", HOST)) == (0, f"{HOST}: already ready\n", "")


def test_a_start_that_fails_says_why(daemon: FakeDaemon, run: Run) -> None:
    """The failure is the message, its next step the hint."""
    daemon.fleet.runtime.fail("start", HOST, errors.StartFailed("exit code 3"))

    assert said(run("start", HOST)) == (
        1,
        "",
        f"error: exit code 3\nhint: autostart logs {HOST}\n",
    )


@pytest.mark.parametrize("verb", ["start", "prepare"])
def test_a_failure_shows_the_end_of_the_output(daemon: FakeDaemon, run: Run, verb: str) -> None:
    """The lines of a build that failed stand above the error that they explain."""
    failure = errors.StartFailed("docker compose: build failed", detail="RUN make\nno rule")
    daemon.fleet.runtime.fail(verb, HOST, failure)

    status, out, err = said(run(verb, HOST))

    assert (status, out) == (1, "")
    assert err.splitlines() == [
        "  RUN make",
        "  no rule",
        "error: docker compose: build failed",
        f"hint: autostart logs {HOST}",
    ]


def test_a_start_without_engine_says_so(daemon: FakeDaemon, run: Run) -> None:
    """Where nothing can be started the service rests, and the command fails."""
    daemon.fleet.runtime.machine.engine_answers = False

    assert said(run("start", HOST)) == (
        1,
        "",
        "error: the engine does not answer\nhint: autostart doctor\n",
    )


def test_waiting_ends_at_the_deadline(daemon: FakeDaemon, run: Run) -> None:
    """An overdue start is reported with where it stands; it goes on."""
    daemon.fleet.runtime.hold("start")
    result = run("start", HOST, "--timeout", "200ms")

    assert result.exit_code == 1
    assert result.stderr.startswith(f"error: {HOST} is not ready after 200ms (starting)\n")


def test_stop_waits_until_it_is_stopped(daemon: FakeDaemon, run: Run) -> None:
    """stop returns when the run is gone."""
    run("start", HOST)
    result = run("stop", HOST)

    assert result.exit_code == 0
    assert result.stdout.startswith(f"{HOST}: stopped in 0.")
    assert daemon.fleet.runtime.machine.runs == {}


def test_a_leased_service_is_not_stopped(daemon: FakeDaemon, run: Run) -> None:
    """The refusal names the requests and the ways around."""
    run("start", HOST)
    with leased(daemon):
        result = run("stop", HOST)

    assert said(result) == (
        1,
        "",
        (
            f"error: {HOST} is in use by POST /asr\n"
            f"hint: autostart stop {HOST} --drain waits for them; --force cuts them\n"
        ),
    )


def test_drain_reports_who_is_still_there(daemon: FakeDaemon, run: Run) -> None:
    """--drain waits for the requests, up to a deadline."""
    run("start", HOST)
    with leased(daemon):
        result = run("stop", HOST, "--drain", "--timeout", "200ms")

    assert result.exit_code == 1
    assert "is not stopped after 200ms (draining, 1 requests use it)" in result.stderr


def test_force_stops_a_leased_service(daemon: FakeDaemon, run: Run) -> None:
    """--force waits for nobody."""
    run("start", HOST)
    with leased(daemon):
        assert run("stop", HOST, "--force").exit_code == 0


def test_a_hold_lasts_until_start(run: Run) -> None:
    """--hold is said, shown, and ended by start."""
    held = run("stop", HOST, "--hold").stdout
    shown = run("status").stdout
    run("start", HOST)

    assert ", held until autostart start" in held
    assert "closed: held" in shown
    assert "closed" not in run("status").stdout


def test_drain_and_force_exclude_each_other(run: Run) -> None:
    """One waits for the requests, the other cuts them: both is a mistake."""
    assert run("stop", HOST, "--drain", "--force").exit_code == 2


def test_restart_waits_for_the_new_run(daemon: FakeDaemon, run: Run) -> None:
    """restart returns when another run is ready."""
    run("start", HOST)
    result = run("restart", HOST)

    assert result.exit_code == 0
    assert daemon.fleet.runtime.machine.runs[HOST].run == "run-2"


def test_keep_says_until_when(run: Run) -> None:
    """The date is that of the clock on the wall."""
    result = run("keep", HOST, "2h", TZ="UTC")

    assert result.exit_code == 0
    assert result.stdout.startswith(f"{HOST}: kept until 2026-01-05 ")


@pytest.mark.parametrize("duration", ["2", "0s", "soon"])
def test_a_duration_is_written_as_in_the_map(run: Run, duration: str) -> None:
    """A number without unit, nothing, and a word are refused before anybody is asked."""
    assert run("keep", HOST, duration).exit_code == 2


def test_prepare_without_host_prepares_every_service(daemon: FakeDaemon, run: Run) -> None:
    """Each service has its line."""
    result = run("prepare")

    assert result.stdout.startswith(f"{HOST}: prepared in 0.")
    assert daemon.fleet.runtime.calls == [("prepare", HOST)]


def test_a_prepare_that_fails_says_why(daemon: FakeDaemon, run: Run) -> None:
    """What the pull or build failed with is the message."""
    daemon.fleet.runtime.fail("prepare", HOST, errors.StartFailed("no space left"))

    assert "error: no space left" in run("prepare", HOST).stderr


class Script:
    """Answers of a daemon, one after the other."""

    def __init__(self, first: dict[str, Any], *others: dict[str, Any]) -> None:
        self._first = first
        self._answers = list(others)

    def command(self, *_: Any, **__: Any) -> dict[str, Any]:
        return self._first

    def service(self, _: str) -> dict[str, Any]:
        return self._answers.pop(0)


def test_prepare_shows_each_line_of_progress_once() -> None:
    """The same line is not repeated while it lasts."""
    running = {"running": True, "failure": None}
    lines = [None, "pulling", "pulling", "building"]
    answers = [shown_service(progress=line, preparation=running) for line in lines]
    done = shown_service(preparation={"running": False, "failure": None})
    shown: list[str] = []
    waiting.prepare(Script(answers[0], *answers, done), HOST, 10.0, shown.append)  # type: ignore[arg-type]  # a script is enough of a client

    assert shown == [f"{HOST}: pulling", f"{HOST}: building"]


def test_a_stop_overtaken_by_a_request_was_a_stop() -> None:
    """The next attempt proves that the run is gone, although the service is not stopped."""
    again = shown_service(state="starting", attempt=2)
    text = waiting.stop(Script(shown_service(attempt=1), again), HOST, 10.0)  # type: ignore[arg-type]  # a script is enough of a client

    assert text == f"{HOST}: stopped, and wanted again at once; --hold keeps it stopped"


def test_a_stop_that_failed_is_a_failure() -> None:
    """A service that is ready again after the stop was not stopped."""
    draining = shown_service(state="stopping", attempt=1)
    ready = shown_service(state="ready", attempt=1)

    with pytest.raises(CommandFailed, match="is still ready"):
        waiting.stop(Script(draining, draining, ready), HOST, 10.0)  # type: ignore[arg-type]  # a script is enough of a client


# logs, reload


def test_logs_are_the_last_lines(daemon: FakeDaemon, run: Run) -> None:
    """-n says how many."""
    daemon.fleet.runtime.machine.output[HOST] = ["one", "two", "thrée"]

    assert said(run("logs", HOST, "-n", "2")) == (0, "two\nthrée\n", "")


def test_followed_logs_end_with_the_daemon(tmp_path: Path) -> None:
    """logs -f prints what comes, and says so when the daemon is gone."""
    with serving(SERVICE) as daemon:
        daemon.fleet.runtime.machine.output[HOST] = ["one"]
        path = write_map(tmp_path, daemon.listen)
        following = subprocess.Popen(
            [sys.executable, "-m", "autostart", "logs", HOST, "-f", "-c", str(path)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert following.stdout is not None
        first = following.stdout.readline()
        daemon.do(lambda fleet: fleet.runtime.machine.write(HOST, "two"))
        second = following.stdout.readline()
    rest, error = following.communicate(timeout=10)

    assert (first, second, rest) == ("one\n", "two\n", "")
    assert following.returncode == 1
    assert error.startswith(f"error: {daemon.listen} closed the connection")


def test_reload_prints_what_has_changed(tmp_path: Path) -> None:
    """Each host that was taken has a line."""

    async def reload() -> list[str]:
        return [HOST, "b.localhost"]

    with serving(SERVICE, reload=reload) as daemon:
        result = run_with(write_map(tmp_path, daemon.listen), "reload")

    assert said(result) == (0, f"{HOST}: changed\nb.localhost: changed\n", "")


def test_a_reload_without_changes_says_so(run: Run) -> None:
    """Silence would leave the operator in doubt."""
    assert said(run("reload")) == (0, "nothing has changed\n", "")


def test_a_refused_map_is_a_mistake_of_the_caller(tmp_path: Path) -> None:
    """All problems are printed; the status is that of a config error."""

    async def reload() -> list[str]:
        raise errors.ConfigError(["map:1: x: unknown key", "map:2: y: unknown key"])

    with serving(SERVICE, reload=reload) as daemon:
        result = run_with(write_map(tmp_path, daemon.listen), "reload")

    assert said(result) == (
        2,
        "",
        "error: map:1: x: unknown key\nmap:2: y: unknown key\nhint: autostart check\n",
    )


# Where the daemon is.


@pytest.mark.parametrize(
    "words",
    [
        ["status"],
        ["start", HOST],
        ["stop", HOST],
        ["restart", HOST],
        ["keep", HOST, "2h"],
        ["prepare"],
        ["prepare", HOST],
        ["logs", HOST],
        ["logs", HOST, "-f"],
        ["reload"],
    ],
)
def test_without_a_daemon_a_command_says_so(tmp_path: Path, words: list[str]) -> None:
    """One line, where it was looked for, and how to begin one."""
    assert said(run_with(write_map(tmp_path), *words)) == (
        1,
        "",
        f"error: no autostart serves on {NOBODY}\nhint: autostart serve\n",
    )


def test_a_unix_socket_is_an_address_too(tmp_path: Path) -> None:
    """The admin listener may be a socket file, which knows only the name localhost."""
    socket_path = tmp_path / "admin.sock"
    with serving(SERVICE, socket_path=socket_path):
        there = run_with(write_map(tmp_path, f"unix:{socket_path}"), "status")
    gone = run_with(write_map(tmp_path, f"unix:{tmp_path}/no.sock"), "status")

    assert (there.exit_code, gone.exit_code) == (0, 1)
    assert f"no autostart serves on unix:{tmp_path}/no.sock" in gone.stderr


def test_a_token_comes_from_the_environment(tmp_path: Path) -> None:
    """The map names the variable; without it the daemon refuses."""
    with serving(SERVICE, token="sesame") as daemon:
        path = write_map(tmp_path, daemon.listen)
        without = run_with(path, "status")
        with_token = run_with(path, "status", AUTOSTART_ADMIN_TOKEN="sesame")

    assert (without.exit_code, with_token.exit_code) == (1, 0)
    assert "needs its token" in without.stderr


def test_a_broken_map_hides_no_daemon(daemon: FakeDaemon, tmp_path: Path) -> None:
    """While the map is being edited, the daemon that runs can still be asked."""
    path = write_map(tmp_path, daemon.listen, more="nonsense: 1\n")

    assert run_with(path, "status").exit_code == 0


def test_a_stranger_is_told_from_autostart(tmp_path: Path) -> None:
    """Another program on the admin port is not mistaken for a daemon."""

    class Stranger(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"hello")

        def log_message(self, *_: Any) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Stranger) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        result = run_with(write_map(tmp_path, f"127.0.0.1:{server.server_port}"), "status")
        thread.join()

    assert result.exit_code == 1
    assert "is not autostart" in result.stderr


# Which map.


def test_the_map_may_be_named_before_and_after_the_command(tmp_path: Path) -> None:
    """-c works in both places, and the one after the command wins, also over the variable."""
    good, bad = write_map(tmp_path), tmp_path / "missing.yaml"

    assert run_with(None, "-c", str(good), "check").exit_code == 0
    assert run_with(None, "check", "-c", str(good)).exit_code == 0
    assert run_with(bad, "-c", str(bad), "check", "-c", str(good)).exit_code == 0


def test_the_map_of_the_folder_is_the_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where nothing is named, ./autostart.yaml is meant; without it that is said."""
    monkeypatch.chdir(tmp_path)
    without = run_with(None, "check")
    write_map(tmp_path)

    assert without.exit_code == 2
    assert "there is no autostart.yaml here" in without.stderr
    assert run_with(None, "check").exit_code == 0


def test_a_named_map_must_be_there(tmp_path: Path) -> None:
    """A mistyped path is not answered with another daemon's status."""
    result = run_with(tmp_path / "missing.yaml", "status")

    assert result.exit_code == 2
    assert "missing.yaml: No such file" in result.stderr


# check, doctor, import


def test_check_prints_every_problem(tmp_path: Path) -> None:
    """All problems at once, each with its line; exit status 2."""
    path = write_map(tmp_path, more="x: 1\ny: 2\n")
    code, out, err = said(run_with(path, "check"))

    assert code == 2
    assert [line.split(": ")[1] for line in out.splitlines()] == ["x", "y"]
    assert err == "error: 2 problems\n"


def test_check_prints_what_is_doubtful(tmp_path: Path) -> None:
    """Warnings do not fail the check."""
    path = tmp_path / "autostart.yaml"
    path.write_text("services: {}\n")

    assert said(run_with(path, "check")) == (
        0,
        f"warning: services: none is declared\n{path}: 0 services, no problems\n",
        "",
    )


DOUBTS = """
services:
  web:
    image: nosuch.invalid/web:1
    restart: always
    ports: [127.0.0.1:8001:80, 9001:90]
"""


def test_check_and_doctor_examine_the_projects(tmp_path: Path) -> None:
    """What would fail the next start is a problem, what is doubtful a warning, in both."""
    require_engine()
    (tmp_path / "compose.yaml").write_text(DOUBTS)
    good, bad = tmp_path / "good.yaml", tmp_path / "bad.yaml"
    good.write_text(f"services: {{{HOST}: {{compose: ., port: 8001}}}}\n")
    bad.write_text(
        f"services: {{{HOST}: {{compose: ., port: 8002}}, b.test: {{compose: gone, port: 1}}}}\n"
    )
    checked, failed = run_with(good, "check"), run_with(bad, "check")
    examined, unwell = run_with(good, "doctor"), run_with(bad, "doctor")

    warning = f"warning: services.{HOST}: web"
    assert checked.exit_code == 0
    assert f"{warning}: image nosuch.invalid/web:1 is not here" in checked.stdout
    assert f"{warning} has restart: always" in checked.stdout
    assert f"{warning} publishes port 9001 on every interface" in checked.stdout
    assert failed.exit_code == 2
    assert f"{bad}: services.{HOST}: port 8002 is published by no container" in failed.stdout
    assert f"{bad}: services.b.test: compose: {tmp_path}/gone does not exist" in failed.stdout
    assert failed.stderr == "error: 2 problems\n"
    assert examined.exit_code == 0
    assert f"warn  services.{HOST}: web has restart: always" in examined.stdout
    assert "ok    docker: the engine at " in examined.stdout
    assert unwell.exit_code == 1
    assert f"FAIL  services.{HOST}: port 8002" in unwell.stdout


def test_discover_prints_a_map(tmp_path: Path) -> None:
    """It comes from the engine's projects, and autostart can read it."""
    require_engine()
    folder = tmp_path / "web"
    port = free_port()
    contained(folder, port)
    docker("compose", "--project-directory", str(folder), "up", "--no-start")
    result = run_with(None, "discover")
    remove_projects(under=tmp_path)
    path = tmp_path / "autostart.yaml"
    path.write_text(result.stdout)

    assert result.exit_code == 0
    found = load(path).services[f"{name_of(folder)}.localhost"]
    assert (folder, port) == (found.compose, found.port)


def without_an_engine(*words: str) -> subprocess.CompletedProcess[str]:
    """Run a command in a process of its own: the SDK leaves the socket that failed to Python."""
    return subprocess.run(
        [sys.executable, "-m", "autostart", *words],
        env={**os.environ, "DOCKER_HOST": "unix:///nosuch.sock"},
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_discover_without_an_engine_says_so() -> None:
    """One line and a hint, as everywhere."""
    result = without_an_engine("discover")

    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr.startswith("error: the engine")
    assert result.stderr.endswith("hint: autostart doctor\n")


def test_doctor_without_an_engine_says_so(tmp_path: Path) -> None:
    """Where a service needs one, that none answers is what does not work."""
    (tmp_path / "compose.yaml").write_text(DOUBTS)
    path = tmp_path / "autostart.yaml"
    path.write_text(f"services: {{{HOST}: {{compose: ., port: 8001}}}}\n")
    result = without_an_engine("doctor", "-c", str(path))

    assert result.returncode == 1
    assert "FAIL  docker: the engine at unix:///nosuch.sock answers" in result.stdout
    assert "Traceback" not in result.stdout + result.stderr


def test_doctor_looks_at_map_machine_and_daemon(run: Run) -> None:
    """Each subject has a line; a daemon that answers is one of them."""
    result = run("doctor")

    assert "ok    map: " in result.stdout
    assert "ok    process: " in result.stdout
    assert "ok    daemon: serves 1 services on 127.0.0.1:" in result.stdout
    assert result.exit_code == 0


def test_doctor_fails_with_what_does_not_work(tmp_path: Path) -> None:
    """A map with problems is a finding; a daemon that is not there is none."""
    result = run_with(write_map(tmp_path, more="x: 1\n"), "doctor")

    assert result.exit_code == 1
    assert "FAIL  map: " in result.stdout
    assert "      hint: autostart check" in result.stdout
    assert f"ok    daemon: no autostart serves on {NOBODY}" in result.stdout


def test_import_prints_a_map(tmp_path: Path) -> None:
    """docker-autostart's config.json comes out as a map."""
    path = tmp_path / "config.json"
    service = {"name": "A", "composeDir": "/srv/a", "proxyPort": 8001, "blocking": False}
    path.write_text(json.dumps({"services": {HOST: service}}))
    result = run_with(None, "import", str(path))

    assert result.exit_code == 0
    assert "    mode: page\n" in result.stdout


@pytest.mark.parametrize("content", [b"{", b"\xff", b"[]"])
def test_an_import_that_cannot_be_read_is_a_config_error(tmp_path: Path, content: bytes) -> None:
    """Whatever is wrong with the file, the status is 2 and nothing is printed as a map."""
    path = tmp_path / "config.json"
    path.write_bytes(content)
    result = run_with(None, "import", str(path))

    assert (result.exit_code, result.stdout) == (2, "")


# How commands end.


def failing(error: BaseException) -> Commands:
    """Return a program whose one command raises the error."""

    @click.group(cls=Commands)
    def program() -> None:
        """Fail."""

    @program.command()
    def fail() -> None:
        raise error

    return program  # type: ignore[return-value]  # cls decides the type


@pytest.mark.parametrize(
    ("error", "status", "printed"),
    [
        (errors.Held("a is held"), 1, "error: a is held\nhint: autostart start HOST\n"),
        (errors.ConfigError(["x", "y"]), 2, "error: x\ny\nhint: autostart check\n"),
        (click.UsageError("no"), 2, "error: no\nhint: program fail --help\n"),
        (click.FileError("x", "gone"), 1, "error: Could not open file 'x': gone\n"),
        (CommandFailed("no"), 1, "error: no\n"),
        (KeyboardInterrupt(), 130, ""),
    ],
)
def test_a_failure_is_a_line_and_a_hint(error: BaseException, status: int, printed: str) -> None:
    """Each way to fail has its status: 2 for usage and config, 1 for the rest, 130 for Ctrl-C."""
    result = CliRunner().invoke(failing(error), ["fail"])

    assert (result.exit_code, result.stderr.lstrip("\n")) == (status, printed)


def test_a_bug_is_one_line() -> None:
    """An unexpected exception is called a bug, on one line, without traceback."""
    result = CliRunner().invoke(failing(RuntimeError("two\nlines")), ["fail"])

    assert result.exit_code == 1
    assert result.stderr.startswith("bug: RuntimeError: two lines\nhint: AUTOSTART_DEBUG=1")
    assert "Traceback" not in result.stderr


def test_a_bug_can_be_looked_at() -> None:
    """AUTOSTART_DEBUG=1 shows the traceback."""
    result = CliRunner(env={"AUTOSTART_DEBUG": "1"}).invoke(failing(RuntimeError("x")), ["fail"])

    assert "Traceback" in result.stderr


def test_every_command_says_what_it_does() -> None:
    """Each command and each of its options has a help text."""
    assert isinstance(main, click.Group)
    silent = [
        f"{name} {option.opts}"
        for name, command in main.commands.items()
        for option in command.params
        if not command.help or (isinstance(option, click.Option) and not option.help)
    ]

    assert silent == []


def test_the_commands_are_those_of_the_design() -> None:
    """No command is there that does nothing yet."""
    assert isinstance(main, click.Group)
    assert sorted(main.commands) == [
        "check",
        "completion",
        "discover",
        "doctor",
        "import",
        "install",
        "keep",
        "logs",
        "nginx",
        "prepare",
        "reload",
        "restart",
        "serve",
        "start",
        "status",
        "stop",
    ]


# As installed.


def installed(*words: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the program itself, in a folder of its own."""
    kept = {name: os.environ[name] for name in ("PATH",)}
    return subprocess.run(
        [sys.executable, "-m", "autostart", *words],
        cwd=folder,
        env={**kept, "AUTOSTART_STATE": str(folder / "state"), **environment},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


@pytest.mark.parametrize(
    ("words", "status"),
    [
        (["--version"], 0),
        (["--help"], 0),
        (["check"], 0),
        (["nosuch"], 2),
        (["start"], 2),
        (["check", "-c", "missing.yaml"], 2),
        (["serve", "-c", "missing.yaml"], 2),
        (["serve", "--log-format", "xml"], 2),
        (["status"], 1),
    ],
)
def test_the_program_ends_with_the_right_status(
    tmp_path: Path, words: list[str], status: int
) -> None:
    """The exit status reaches the shell, and no traceback its user."""
    write_map(tmp_path)
    result = installed(*words, folder=tmp_path)

    assert result.returncode == status
    assert "Traceback" not in result.stderr


def test_a_reader_that_has_enough_is_no_failure_to_tell(tmp_path: Path) -> None:
    """`autostart … | head` ends quietly."""
    command = f"{sys.executable} -m autostart --help | :"
    result = subprocess.run(
        ["/bin/sh", "-c", command], cwd=tmp_path, capture_output=True, text=True, check=False
    )

    assert result.stderr == ""


def logged(log_format: str, level: str, statements: str) -> list[str]:
    """Return the lines that the statements log, in a process of their own."""
    script = (
        "import logging, structlog\n"
        "from autostart.cli.log import configure_log\n"
        f"configure_log({log_format!r}, {level!r})\n"
        "log = structlog.get_logger('autostart')\n"
        f"{statements}\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=30
    )
    assert result.stdout == ""
    return result.stderr.splitlines()


def test_the_log_for_programs_is_json() -> None:
    """Each line is an object with event, level, date and fields; libraries' lines too."""
    lines = logged("json", "info", "log.info('ready', attempt=3); logging.warning('full %d', 7)")
    ours, theirs = (json.loads(line) for line in lines)

    assert (ours["event"], ours["level"], ours["attempt"]) == ("ready", "info", 3)
    assert ours["timestamp"].endswith("Z")
    assert (theirs["event"], theirs["level"], theirs["logger"]) == ("full 7", "warning", "root")


def test_the_log_for_people_has_colours_only_on_a_terminal() -> None:
    """In a file or a journal a line is plain text."""
    (line,) = logged("console", "info", "log.info('ready', attempt=3)")

    assert "\x1b" not in line
    assert line.split()[2:] == ["[info", "]", "ready", "attempt=3"]


def test_the_log_begins_at_its_level() -> None:
    """Below the level nothing is written, and the talkative libraries begin at warning."""
    statements = "log.info('a'); log.warning('b'); logging.getLogger('apscheduler.x').info('c')"

    assert len(logged("console", "warning", statements)) == 1
    assert len(logged("console", "debug", statements)) == 2
