"""A vLLM of our own: how it is started, found, waited for, and ended, whatever happens."""

import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from services.transcription.errors import EngineError
from services.transcription.worker import Cancellation, Cancelled
from services.voxtral import leash
from services.voxtral.model import Written
from services.voxtral.on_vllm import Loader, OnVllm
from services.voxtral.settings import Settings
from services.voxtral.vllm_server import (
    NotStarted,
    VllmServer,
    choose_port,
    command,
    environment,
)
from tests.services.test_voxtral_vllm import chat, never, transcribe
from tests.services.vllm_program import ROOT, Plan, install
from tests.services.vllm_stub import MODEL, SECONDS_MAX, StubVllm


class Place:
    """Where a test's vLLM runs: a folder with the program, and a port that is free."""

    def __init__(self, folder: Path) -> None:
        self.diary = folder / "diary"
        self.ready_file = folder / "ready"
        self.path = install(folder)
        self.loaders: list[Loader] = []
        self.models: list[OnVllm] = []
        self.port = free_ports()

    def settings(self, **others: object) -> Settings:
        wanted = {"vllm_port": self.port, "vllm_start_seconds": 30.0, "voxtral_model": MODEL}
        return Settings(voxtral_engine="vllm", **(wanted | others))

    def environment(self, **plan: object) -> dict[str, str]:
        return os.environ | self.path | Plan(str(self.diary), **plan).environment()

    def loader(self, plan: dict[str, object] | None = None, **others: object) -> Loader:
        loader = Loader(self.settings(**others), self.environment(**(plan or {})))
        self.loaders.append(loader)
        return loader

    def load(self, loader: Loader, check: Callable[[], None] = never) -> OnVllm:
        self.models.append(loader(check))
        return self.models[-1]

    def starts(self) -> list[dict[str, Any]]:
        """What the program told of each of its starts."""
        return [json.loads(line) for line in self.diary.read_text().splitlines()]

    def until_started(self) -> None:
        """Return when the program runs."""
        wait_for(lambda: self.diary.exists() and self.diary.read_text().endswith("\n"))

    def close(self) -> None:
        for one in (*self.models, *self.loaders):
            one.close()


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    made = Place(tmp_path)
    yield made
    made.close()


def free_ports() -> int:
    """Give a port that is free, as is the next; not of those that the system gives to clients."""
    for port in random.SystemRandom().sample(range(20_000, 32_000), 100):
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            with socket.create_server(("127.0.0.1", port + 1)):
                return port
    raise AssertionError("no port is free")


def wait_for(seen: Callable[[], bool]) -> None:
    """Return when a thing of another process is so; it is looked for often."""
    polls = threading.Event()
    for _ in range(round(SECONDS_MAX / 0.01)):
        if seen():
            return
        polls.wait(0.01)
    raise AssertionError(f"not after {SECONDS_MAX} s")


def gone(start: dict[str, Any]) -> bool:
    """Tell whether nothing of a start runs any more; what nobody has reaped does not run."""

    def runs(pid: int) -> bool:
        try:
            return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False

    return not any(runs(start[name]) for name in ("pid", "engine", "leash"))


# Its command line, its environment


def test_the_command_is_that_of_mistrals_own_files():
    """As the card of the model says, and only for this machine."""
    assert command("/bin/vllm", Settings(voxtral_model=MODEL), 8001) == [
        *["/bin/vllm", "serve", MODEL],
        *["--tokenizer-mode", "mistral", "--config-format", "mistral", "--load-format", "mistral"],
        *["--max-model-len", "32768", "--gpu-memory-utilization", "0.9"],
        *["--limit-mm-per-prompt", '{"audio": 1}'],
        *["--host", "127.0.0.1", "--port", "8001"],
    ]


def test_an_operators_flags_win_but_for_the_address(place):
    """Of two flags of a name the later one counts, and the server must be found."""
    more = "--max-model-len 1024 --limit-mm-per-prompt '{\"audio\": 2}' --port 1 --host 0.0.0.0"
    place.load(place.loader(vllm_args=more))

    flags = place.starts()[0]["flags"]
    assert flags["max_model_len"] == 1024
    assert flags["limit_mm_per_prompt"] == {"audio": 2}
    assert flags["gpu_memory_utilization"] == 0.9
    assert (flags["host"], flags["port"]) == ("127.0.0.1", place.port)


def test_flags_that_no_shell_would_read_are_told(place):
    """By the name of the setting."""
    with pytest.raises(EngineError, match="VLLM_ARGS: No closing quotation"):
        place.loader(vllm_args="--model 'x")(never)


def test_its_environment_is_ours_without_what_is_not_for_it():
    """Keys are not for it, and VLLM_PORT means something else to it."""
    given = {
        "PATH": "/bin",
        "HF_HOME": "/models",
        "HUGGINGFACE_TOKEN": "t",
        "VLLM_MAX_AUDIO_CLIP_FILESIZE_MB": "50",
        **dict.fromkeys(["VLLM_PORT", "VLLM_URL", "VLLM_ARGS", "VLLM_START_SECONDS"], "x"),
        **dict.fromkeys(["API_KEY", "VLLM_API_KEY", "RUNPOD_AI_API_KEY"], "secret"),
    }

    assert environment(given, token="t", key="ours") == {
        "PATH": "/bin",
        "HF_HOME": "/models",
        "HF_TOKEN": "t",
        "VLLM_MAX_AUDIO_CLIP_FILESIZE_MB": "50",
        "VLLM_API_KEY": "ours",
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
    }


def test_an_operator_may_let_it_report_its_use():
    """What is set counts."""
    seen = environment({"VLLM_NO_USAGE_STATS": "0", "DO_NOT_TRACK": "0"}, token="", key="ours")

    assert (seen["VLLM_NO_USAGE_STATS"], seen["DO_NOT_TRACK"]) == ("0", "0")
    assert "HF_TOKEN" not in seen


# Its port


@pytest.mark.parametrize(
    ("app_port", "moved"),
    [pytest.param("{port}", 1, id="the app's"), pytest.param("1", 0, id="another")],
)
def test_its_port_moves_up_if_it_is_the_apps(place, caplog, app_port, moved):
    """And says so."""
    caplog.set_level("INFO")
    given = {"UVICORN_PORT": app_port.format(port=place.port)}

    assert choose_port(place.settings(), given) == place.port + moved
    assert (f"vllm_port={place.port + 1}" in caplog.text) == bool(moved)


def test_the_app_is_on_8000_unless_it_says_otherwise(caplog):
    """Which is vLLM's own default, too."""
    caplog.set_level("INFO")
    with suppress(NotStarted):  # somebody may have 8001 on this machine
        choose_port(Settings(), {})

    assert "vllm_port=8001" in caplog.text


def test_a_port_that_is_taken_is_told(place):
    """Nobody else's server is talked to, and none is started in vain."""
    with StubVllm().running(place.port) as stranger:
        with pytest.raises(EngineError, match=f"port {place.port} is taken") as failed:
            place.loader()(never)

        assert failed.value.code == "load_failed"
        assert stranger.state.asked == []
        assert not place.diary.exists()


@pytest.mark.parametrize("key", [None, "another"])
def test_a_server_that_takes_the_port_first_is_not_talked_to(place, key):
    """It may look just like ours; a vLLM takes its port only when it has been read and checked."""
    loader = place.loader({"listens": False})

    def load() -> None:
        with pytest.raises(EngineError) as failed:
            loader(never)
        told.append(failed.value.message)

    told: list[str] = []
    loading = threading.Thread(target=load)
    loading.start()
    place.until_started()
    with StubVllm(key=key).running(place.port) as stranger:
        loading.join(SECONDS_MAX)

        assert stranger.state.asked == []
    assert len(told) == 1
    assert f"port {place.port} is answered by another server" in told[0]
    assert gone(place.starts()[0])


# Its start


def test_it_is_started_and_answers(place):
    """With the key that it was given, which nobody else has."""
    model = place.load(place.loader())

    assert model.device == f"http://127.0.0.1:{place.port}"
    assert model.alive
    assert transcribe(model, 2) == [(n, Written(f"piece {n}", complete=True)) for n in (0, 1)]
    assert chat(model).text == "Bonjour à tous."


def test_it_may_be_served_under_another_name(place):
    """By an operator's flag."""
    model = place.load(place.loader(vllm_args="--served-model-name voxtral"))

    assert transcribe(model) == [(0, Written("piece 0", complete=True))]


def test_no_program_is_told(place):
    """With what to do about it."""
    loader = Loader(place.settings(), {"PATH": str(place.diary.parent)})
    with pytest.raises(EngineError, match=r"vllm is not installed: the image of Dockerfile\.vllm"):
        loader(never)


@pytest.mark.parametrize(
    ("plan", "more", "status"),
    [
        pytest.param({"status": 3}, "", 3, id="it fails"),
        pytest.param({}, "--no-such-flag", 2, id="it does not know a flag"),
    ],
)
def test_its_early_end_is_told_at_once(place, plan, more, status):
    """Nobody waits half an hour for what has failed; its own output is in the log."""
    with pytest.raises(EngineError, match=f"vllm ended with status {status}, see the service's"):
        place.loader(plan, vllm_args=more)(never)


def test_its_output_goes_to_ours(place, capfd):
    """As it is."""
    with pytest.raises(EngineError):
        place.loader(vllm_args="--no-such-flag")(never)

    out, err = capfd.readouterr()
    assert out == ""
    assert "vllm: error: unrecognized arguments: --no-such-flag" in err


def test_a_start_has_a_deadline(place):
    """Then it is ended, for the next one to have the port and the GPU."""
    with pytest.raises(EngineError, match=r"vllm was not ready after 2 s \(VLLM_START_SECONDS\)"):
        place.loader({"ready_file": str(place.ready_file)}, vllm_start_seconds=2)(never)

    assert gone(place.starts()[0])


def test_who_gives_up_does_not_take_it_along(place):
    """It takes minutes to start: the next job waits for the same."""
    loader = place.loader({"ready_file": str(place.ready_file)})
    cancellation = Cancellation()

    def check() -> None:
        if place.diary.exists():
            cancellation.cancel()
        cancellation.check()

    with pytest.raises(Cancelled):
        loader(check)
    place.until_started()
    place.ready_file.touch()
    model = place.load(loader)

    assert transcribe(model) == [(0, Written("piece 0", complete=True))]
    assert len(place.starts()) == 1


def test_what_is_being_started_is_closed_with_the_loader(place):
    """When the service stops."""
    loader = place.loader({"ready_file": str(place.ready_file)})
    cancellation = Cancellation()
    with pytest.raises(Cancelled):
        loader(lambda: (place.diary.exists() and cancellation.cancel(), cancellation.check()))
    place.until_started()
    loader.close()

    assert gone(place.starts()[0])


# Its end


def test_closing_ends_all_of_it(place):
    """Its engine is a process of its own."""
    model = place.load(place.loader())
    model.close()
    model.close()

    assert gone(place.starts()[0])
    assert not model.alive


def test_its_end_in_the_middle_of_work_is_told(place):
    """That job fails, and the next one has a new server."""
    loader = place.loader({"troubles": (None, None, "ends")})
    model = place.load(loader)
    with pytest.raises(EngineError) as failed:
        transcribe(model)

    assert failed.value.code == "engine_failed"
    assert failed.value.message == (
        "vLLM ended in the middle of the work, with status 7, see the service's log"
    )
    assert not model.alive
    wait_for(lambda: gone(place.starts()[0]))
    again = place.load(loader)
    assert again.alive
    assert len(place.starts()) == 2


def test_a_server_that_has_lost_its_engine_is_of_no_use(place):
    """It still answers for some seconds, but nothing else than that."""
    model = place.load(place.loader({"troubles": (None, None, "loses its engine")}))
    with pytest.raises(EngineError, match="vLLM failed, see the service's log"):
        transcribe(model)

    assert not model.alive


def test_a_server_that_failed_once_is_of_use(place):
    """If its engine says so."""
    model = place.load(place.loader({"troubles": (None, None, "Internal server error")}))
    with pytest.raises(EngineError):
        transcribe(model)

    assert model.alive
    assert transcribe(model) == [(0, Written("piece 0", complete=True))]


_PARENT = f"""
import sys, threading
sys.path.insert(0, {str(ROOT)!r})
from services.voxtral.on_vllm import Loader
from services.voxtral.settings import Settings
def load():
    Loader(Settings(vllm_port=int(sys.argv[1])))(lambda: None)
    print("ready", flush=True)
thread = threading.Thread(target=load)  # as the worker's, but it does not live on
thread.start()
thread.join()
sys.stdin.read()
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_it_does_not_outlive_us(place, how):
    """However the service ends; but not before, whatever becomes of the thread that started it."""
    parent = subprocess.Popen(
        [sys.executable, "-c", _PARENT, str(place.port)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=place.environment(),
    )
    with parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == b"ready\n"
        start = place.starts()[0]
        before = gone(start)
        parent.send_signal(how)
    wait_for(lambda: gone(start))

    assert not before


# The leash


def leashed(seconds: float, program: str) -> subprocess.Popen[bytes]:
    run = [sys.executable, "-I", leash.__file__, str(seconds), sys.executable, "-c", program]
    return subprocess.Popen(run, stdin=subprocess.PIPE, stdout=subprocess.PIPE)


@pytest.mark.parametrize(
    ("program", "status"),
    [
        pytest.param("raise SystemExit(0)", 0, id="well"),
        pytest.param("raise SystemExit(3)", 3, id="with a status"),
        pytest.param("import os; os.kill(os.getpid(), 9)", 137, id="by a signal"),
    ],
)
def test_the_leash_ends_as_the_program_does(program, status):
    """So the service learns how it ended."""
    with leashed(10, program) as process:
        assert process.wait(SECONDS_MAX) == status


_DEAF = """
import os, signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print(os.getpid(), flush=True)
time.sleep(600)
"""


def test_who_does_not_end_is_killed():
    """After its time."""
    with leashed(0.1, _DEAF) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert process.stdin is not None
        process.stdin.close()

        assert process.wait(SECONDS_MAX) == 128 + signal.SIGKILL


_LEAVES = """
import subprocess
print(*(subprocess.Popen(["sleep", "600"]).pid for _ in range(30)), flush=True)
"""


def test_what_the_program_leaves_behind_has_ended_when_the_leash_does():
    """Its engine would hold the GPU."""
    with leashed(10, _LEAVES) as process:
        assert process.stdout is not None
        left = process.stdout.readline().split()
        assert process.wait(SECONDS_MAX) == 0

        assert not any(psutil.pid_exists(int(pid)) for pid in left)


def test_a_signal_to_the_leash_is_for_the_program():
    """An operator's `kill` ends both."""
    asleep = "import time; print(flush=True); time.sleep(600)"
    with leashed(10, asleep) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.terminate()

        assert process.wait(SECONDS_MAX) == 128 + signal.SIGTERM


def test_a_server_may_be_closed_by_another_thread_while_it_is_waited_for(place):
    """The service stops while a job waits."""
    server = VllmServer(place.settings(), place.environment(ready_file=str(place.ready_file)))
    place.until_started()
    closing = threading.Thread(target=server.close)
    closing.start()
    with pytest.raises(NotStarted, match="vllm ended with status"):
        server.wait(never)
    closing.join(SECONDS_MAX)

    assert gone(place.starts()[0])
