"""However the process ends, no accepted job is lost, and none is done for ever.

The service runs in processes of its own, one after the other with the same jobs.
"""

import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Timer
from typing import Any

import httpx
import pytest

from tests.services.speech_server import ROOT, SpeechServer, wait_for
from tests.services.voxtral_app import (
    SCRIPT,
    SCRIPTED_VOXTRAL,
    SPOKEN,
    Doing,
    Script,
    await_status,
    run_voxtral,
    spoken,
    status_of,
    submit,
)

# Docker kills what has not ended after that.
GRACE_SECONDS = 10.0


def kill(server: SpeechServer) -> None:
    server.process.kill()
    server.process.wait()


def terminate(server: SpeechServer) -> None:
    """Ask it to stop, and wait until it has heard that."""
    server.terminate()
    wait_for(lambda: "Shutting down" in server.log.read_text(), 5.0, "the end to begin")


def await_begun(script: Script, times: int, name: str = "any") -> None:
    wait_for(lambda: script.begun.count(name) >= times, 20.0, f"{name} to be begun")


def on_disk(folder: Path, job: str) -> tuple[str, int]:
    """Give a job's status and how many attempts were counted; nobody else may use the file."""
    with closing(sqlite3.connect(folder / "state/jobs.sqlite")) as database:
        found = database.execute("SELECT status, attempts FROM jobs WHERE id = ?", (job,))
        status, attempts = found.fetchone()
    return str(status), int(attempts)


def run_to_its_end(folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the service until it ends by itself."""
    return subprocess.run(
        [sys.executable, *SCRIPTED_VOXTRAL.arguments, "--port", "0"],
        cwd=ROOT,
        env={
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "VOXTRAL_STATE": str(folder / "state"),
            SCRIPT: str(folder),
            **environment,
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


# kill -9


def test_a_job_that_a_kill_interrupts_is_done_after_the_restart(tmp_path):
    """Once more from its beginning to its end; its id answers, and the client notices nothing."""
    with run_voxtral(tmp_path) as (server, script):
        script.tell(any="wait")
        job = submit(server)
        await_begun(script, 1)
        kill(server)
    script.tell(any="write")
    with run_voxtral(tmp_path) as (server, script):
        done = await_status(server, job, "COMPLETED")

    assert f"{SPOKEN} 0" == done["output"]["transcript"]
    assert 2 == script.begun.count("any")


def test_an_accepted_job_is_there_after_a_kill(tmp_path):
    """However soon it comes after the answer; those that wait keep their order."""
    with run_voxtral(tmp_path) as (server, script):
        script.tell(load="wait")
        jobs = [submit(server, spoken(language=code)) for code in ("fr", "en", "de", "it")]
        kill(server)
    script.tell(load="write")
    with run_voxtral(tmp_path) as (server, script):
        for job in jobs:
            await_status(server, job, "COMPLETED")

    assert ["fr", "en", "de", "it"] == [each for each in script.begun if each != "load"]


def test_a_result_is_there_after_a_kill(tmp_path):
    """As it was."""
    with run_voxtral(tmp_path) as (server, _):
        job = submit(server)
        before = await_status(server, job, "COMPLETED")
        kill(server)
    with run_voxtral(tmp_path) as (server, _):
        after = status_of(server, job)

    assert before == after


def test_kills_at_any_moment_lose_nothing(tmp_path):
    """Jobs are sent all the while; each that was accepted is done, and /status never goes back."""
    seed = random.randrange(1 << 32)
    print(f"seed={seed}")
    dice = random.Random(seed)
    accepted: list[str] = []
    completed: set[str] = set()
    # A third could hit the same job as the others, which would then have failed.
    for life in range(3):
        with run_voxtral(tmp_path) as (server, _), suppress(httpx.TransportError):
            assert {"COMPLETED"} >= {status_of(server, job)["status"] for job in completed}
            end = Timer(dice.uniform(0.0, 0.5), server.process.kill)
            if life < 2:
                end.start()
            while len(accepted) < 6 * (life + 1):
                accepted.append(submit(server, dice.choice([spoken(), spoken(40.0)])))
                job = dice.choice(accepted)
                if status_of(server, job)["status"] == "COMPLETED":
                    completed.add(job)
            if life < 2:
                server.process.wait(20)
            else:
                done = [await_status(server, job, "COMPLETED", "FAILED") for job in accepted]

    assert ["COMPLETED"] * len(accepted) == [each["status"] for each in done]


@pytest.mark.parametrize("where", ["fr", "load"], ids=["at work", "during the load"])
def test_a_job_that_ends_the_process_has_failed_after_three_times(tmp_path, where):
    """Probably it needs more memory than there is; the next job has its turn."""
    script = Script(tmp_path)
    script.tell(load="wait")
    with run_voxtral(tmp_path) as (server, _):
        deadly = submit(server, spoken(language="fr"))
        other = submit(server, spoken(language="en"))
        script.tell(**{"load": "write", where: "end the process"})
        server.process.wait(20)  # the first of the three
    for _ in range(2):
        assert -signal.SIGKILL == run_to_its_end(tmp_path).returncode
    script.tell(**{where: "write"})
    with run_voxtral(tmp_path) as (server, script):
        done = await_status(server, other, "COMPLETED")
        failed = status_of(server, deadly)

    assert ("FAILED", "COMPLETED") == (failed["status"], done["status"])
    assert "the service ended 3 times in the middle of this job" in failed["error"]
    assert "en" == script.begun[-1]


# SIGTERM


def test_a_job_that_ends_soon_is_finished_first(tmp_path):
    """Its result is there after the restart, and the work was done once."""
    with run_voxtral(tmp_path) as (server, script):
        script.tell(any="wait")
        job = submit(server)
        await_begun(script, 1)
        terminate(server)
        script.tell(any="write")
        server.process.wait(GRACE_SECONDS)
    with run_voxtral(tmp_path) as (server, script):
        done = status_of(server, job)

    assert "COMPLETED" == done["status"]
    assert 1 == script.begun.count("any")


@dataclass(frozen=True)
class Stopped:
    """What was seen of a service that was told to stop in the middle of a job."""

    folder: Path
    seconds: float  # until the process was gone
    running: str
    waiting: str
    answer: dict[str, Any]  # to a client that waited for its job
    answer_seconds: float  # after the signal
    log: str


def stop(folder: Path, doing: Doing) -> Stopped:
    """Stop a service whose job goes on, while a client waits for it."""
    with run_voxtral(folder) as (server, script), ThreadPoolExecutor() as threads:
        script.tell(any=doing)
        runsync = threads.submit(
            httpx.post, f"{server.url}/runsync?wait=300000", json=spoken(), timeout=60
        )
        await_begun(script, 1)
        waiting = submit(server)
        began = time.monotonic()
        server.terminate()
        answer = runsync.result(20).json()
        answer_seconds = time.monotonic() - began
        server.process.wait(20)
        seconds = time.monotonic() - began
    return Stopped(
        folder, seconds, answer["id"], waiting, answer, answer_seconds, server.log.read_text()
    )


@pytest.fixture(scope="module")
def all_stopped(tmp_path_factory) -> dict[str, Stopped]:
    """A job that gives up when it is asked to, and one that does not; stopped at the same time."""
    kinds: dict[str, Doing] = {"listens": "wait", "deaf": "wait, deaf"}
    with ThreadPoolExecutor() as threads:
        running = {
            name: threads.submit(stop, tmp_path_factory.mktemp(name), doing)
            for name, doing in kinds.items()
        }
        return {name: each.result() for name, each in running.items()}


@pytest.fixture(params=["listens", "deaf"])
def stopped(request, all_stopped) -> Stopped:
    """Each of the two."""
    return all_stopped[request.param]


def test_the_process_ends_before_it_is_killed(stopped):
    """Whatever the job does, and without a traceback."""
    assert stopped.seconds < GRACE_SECONDS
    assert "Traceback" not in stopped.log
    assert "never retrieved" not in stopped.log


def test_who_waits_for_a_result_is_answered_when_the_service_stops(stopped):
    """At once, with how the job stands: /status tells the rest after the restart."""
    assert {"IN_PROGRESS"} == {stopped.answer["status"]}
    assert stopped.answer_seconds < 2.5


def test_a_job_that_does_not_end_is_handed_back(stopped):
    """It waits, as the one behind it does, and it has not failed."""
    assert ("IN_QUEUE", 0) == on_disk(stopped.folder, stopped.running)
    assert ("IN_QUEUE", 0) == on_disk(stopped.folder, stopped.waiting)


def test_the_next_process_does_what_was_handed_back(stopped):
    """In the same order, each to its end."""
    Script(stopped.folder).tell(any="write")
    with run_voxtral(stopped.folder) as (server, _):
        await_status(server, stopped.waiting, "COMPLETED")

        assert "COMPLETED" == status_of(server, stopped.running)["status"]


def test_a_load_does_not_keep_the_process(tmp_path):
    """A model is of no use to a process that ends; the job waits for the next one."""
    with run_voxtral(tmp_path) as (server, script):
        script.tell(load="wait")
        job = submit(server)
        await_begun(script, 1, "load")
        began = time.monotonic()
        server.terminate()
        server.process.wait(20)
        seconds = time.monotonic() - began

    assert seconds < 4.0
    assert ("IN_QUEUE", 0) == on_disk(tmp_path, job)


def test_a_gpu_that_has_failed_ends_the_process(tmp_path):
    """Nothing in it could use the GPU again; the job has failed, and the next process goes on."""
    with run_voxtral(tmp_path) as (server, script):
        script.tell(fr="lose the device")
        job = submit(server, spoken(language="fr"))
        waiting = submit(server, spoken(language="de"))
        server.process.wait(20)
    with run_voxtral(tmp_path) as (server, _):
        failed = status_of(server, job)
        await_status(server, waiting, "COMPLETED")

    assert ("FAILED", "the GPU failed, see the service's log") == (
        failed["status"],
        failed["error"],
    )


def test_an_idle_service_ends_at_once(tmp_path):
    """Nothing is waited for that is not there."""
    with run_voxtral(tmp_path) as (server, _):
        await_status(server, submit(server), "COMPLETED")
        began = time.monotonic()
        server.terminate()
        server.process.wait(20)

        assert time.monotonic() - began < 2.0


# What the operator sees


@pytest.mark.parametrize(
    ("prepare", "told"),
    [
        (lambda state: state.write_bytes(b""), "File exists"),
        (lambda state: state.symlink_to("/proc/voxtral"), "File exists|No such file"),
        (
            lambda state: (state.mkdir(), (state / "jobs.sqlite").write_bytes(b"no database" * 99)),
            "file is not a database",
        ),
        (lambda state: (state / "jobs.sqlite").mkdir(parents=True), "unable to open database"),
        (lambda state: (state / "lock").mkdir(parents=True), "Is a directory"),
    ],
    ids=["a file", "nowhere", "damaged", "a folder in its place", "no lock"],
)
def test_a_folder_that_cannot_be_used_is_told_in_one_line(tmp_path, prepare, told):
    """The process ends, for it could keep no promise."""
    prepare(tmp_path / "state")
    finished = run_to_its_end(tmp_path)
    lines = finished.stderr.strip().splitlines()

    assert finished.returncode not in {0, -signal.SIGKILL}
    assert 1 == len(lines), lines
    assert lines[0].startswith(f"VOXTRAL_STATE: {tmp_path}/state")
    assert any(each in lines[0] for each in told.split("|")), lines


def test_a_second_process_is_refused_in_one_line(tmp_path):
    """Two would do each job twice; the first one goes on."""
    with run_voxtral(tmp_path) as (server, _):
        finished = run_to_its_end(tmp_path)
        job = submit(server)

        assert "COMPLETED" == await_status(server, job, "COMPLETED")["status"]
    assert 0 != finished.returncode
    assert f"VOXTRAL_STATE: another process uses {tmp_path}/state" == finished.stderr.strip()


# A full disk


@contextmanager
def full(folder: Path) -> Iterator[Callable[[], None]]:
    """Fill the disk up; gives what empties it again."""
    ballast = folder / "state/ballast"
    with ballast.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(b"\0" * 4096)
    yield ballast.unlink


@pytest.fixture
def small_disk(tmp_path) -> Iterator[Path]:
    """A folder whose jobs have a disk of their own."""
    state = tmp_path / "state"
    state.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(state)],
        capture_output=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip("a small disk needs the right to mount one, which root may have")
    yield tmp_path
    subprocess.run(["umount", "--lazy", str(state)], check=True)


def test_a_full_disk_refuses_jobs_and_loses_none(small_disk):
    """503 says why; what stands is told; what is done is kept as soon as there is room."""
    with run_voxtral(small_disk) as (server, script):
        script.tell(any="wait")
        job = submit(server)
        await_begun(script, 1)
        with full(small_disk) as make_room:
            refused = httpx.post(f"{server.url}/run", json=spoken(), timeout=30)
            health = httpx.get(f"{server.url}/health")
            stands = status_of(server, job)["status"]
            script.tell(any="write")
            wait_for(
                lambda: server.log.read_text().count("jobs cannot be kept") >= 2, 20.0, "its end"
            )
            make_room()
        done = await_status(server, job, "COMPLETED")
        after = await_status(server, submit(server), "COMPLETED")
        busy = server.is_busy()
        log = server.log.read_text()

    error = refused.json()["error"]
    assert (503, "store_failed") == (refused.status_code, error["code"])
    assert error["message"].startswith("jobs cannot be kept: database or disk is full")
    assert (200, "IN_PROGRESS") == (health.status_code, stands)
    assert f"{SPOKEN} 0" == done["output"]["transcript"] == after["output"]["transcript"]
    assert 2 == script.begun.count("any")
    assert not busy
    assert "Traceback" not in log
