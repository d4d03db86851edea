"""The main job, shown: a recording through a stopped service, twice, then its idle stop.

Starts `autostart serve` on demo.yaml as an operator would, reads its log for the state changes,
sends the recording as a client would, and prints what happened when. Called by `make demo`.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parent.parent
DEMO_MAP = ROOT / "config/demo.yaml"
RECORDING = ROOT / "services/faster_whisper/digits/recording.wav"
SPOKEN = RECORDING.with_suffix(".txt")
HOST = "whisper.localhost"
PORTAL = "portal.localhost"

# Nothing here takes longer on two cores, but for a model that is downloaded first.
SERVE_SECONDS_MAX = 20.0
ANSWER_SECONDS_MAX = 60.0
DOWNLOAD_SECONDS_MAX = 1800.0
IDLE_STOP_SECONDS_MAX = 30.0


class DemoFailed(Exception):
    """The demonstration could not go on; the text says why."""


@dataclass
class Timeline:
    """Prints lines with the seconds since it was made, and remembers the states it saw."""

    began: float = field(default_factory=time.monotonic)
    states: list[str] = field(default_factory=list)
    changed: threading.Condition = field(default_factory=threading.Condition)

    def print(self, text: str) -> None:
        print(f"{time.monotonic() - self.began:7.2f} s  {text}", flush=True)

    def follow(self, log_lines: Iterator[str]) -> None:
        """Show each transition as it is logged; remember a daemon that ends."""
        for line in log_lines:
            try:
                entry = json.loads(line)
            except ValueError:
                self.print(line.rstrip())
                continue
            self._show(entry)
        self._remember("ended")

    def _show(self, entry: dict[str, Any]) -> None:
        if "to" in entry and entry.get("level") != "debug":
            states = f"{entry['from']} → {entry['to']}"
            self.print(f"{entry['service']}  {states:20}  because: {entry['cause']}")
            self._remember(entry["to"])
        elif entry["event"] == "serving":
            self._remember("serving")
        elif entry.get("level") in {"warning", "error", "critical"}:
            self.print(line_of(entry))

    def _remember(self, state: str) -> None:
        with self.changed:
            self.states.append(state)
            self.changed.notify_all()

    def wait_for(self, state: str, seconds: float) -> None:
        """Wait until the daemon has reported `state`; raises DemoFailed."""
        with self.changed:
            self.changed.wait_for(lambda: {state, "ended"} & set(self.states), seconds)
            if state not in self.states:
                ended = "it ended" if "ended" in self.states else f"within {seconds:.0f} s"
                raise DemoFailed(f"autostart did not report {state!r}: {ended}")


def line_of(entry: dict[str, Any]) -> str:
    """Return a log entry as one readable line."""
    rest = {k: v for k, v in entry.items() if k not in {"event", "level", "timestamp"}}
    return f"{entry['event']}: " + " ".join(f"{key}={value}" for key, value in rest.items())


@dataclass(frozen=True)
class Answer:
    """What came back, and when its first byte did; in seconds."""

    text: str
    first_byte_seconds: float
    was_cold: bool


def transcribe(port: int, seconds_max: float) -> Answer:
    """Send the recording as an OpenAI client would and return the words."""
    boundary = "autostart-demo"
    body = b"".join(
        [
            f'--{boundary}\r\nContent-Disposition: form-data; name="model"\r\n\r\n'.encode(),
            b"whisper-1\r\n",
            f'--{boundary}\r\nContent-Disposition: form-data; name="file"; '.encode(),
            b'filename="recording.wav"\r\nContent-Type: audio/wav\r\n\r\n',
            RECORDING.read_bytes(),
            f"\r\n--{boundary}--\r\n".encode(),
        ]
    )
    headers = {
        "Host": f"{HOST}:{port}",
        "Content-Type": f"multipart/form-data; boundary={boundary}",
    }
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=seconds_max)
    try:
        sent = time.monotonic()
        connection.request("POST", "/v1/audio/transcriptions", body, headers)
        response = connection.getresponse()
        first_byte_seconds = time.monotonic() - sent
        answer = response.read().decode()
    finally:
        connection.close()
    if response.status != http.client.OK:
        raise DemoFailed(f"the service answered {response.status}: {answer.strip()}")
    was_cold = response.headers.get("Autostart-Start") == "cold"
    return Answer(json.loads(answer)["text"].strip(), first_byte_seconds, was_cold)


@contextmanager
def serving(demo_map: Path, state: Path, timeline: Timeline) -> Iterator[None]:
    """Run `autostart serve` for the length of the block; it stops its services when it ends."""
    command = [sys.executable, "-m", "autostart", "serve", "--config", str(demo_map)]
    daemon = subprocess.Popen(
        [*command, "--log-format", "json", "--stop-services-on-exit"],
        cwd=ROOT,
        env={**os.environ, "AUTOSTART_STATE": str(state)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # Ctrl-C reaches this script, which ends the daemon in order
    )
    assert daemon.stderr is not None
    follower = threading.Thread(target=timeline.follow, args=(daemon.stderr,), daemon=True)
    follower.start()
    try:
        timeline.wait_for("serving", SERVE_SECONDS_MAX)
        yield
    finally:
        daemon.send_signal(signal.SIGTERM)
        try:
            daemon.wait(timeout=IDLE_STOP_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            daemon.kill()
        follower.join(timeout=5)


def with_model(model: str, folder: Path) -> Path:
    """Write a map like the demo's with another model into `folder`; return its path."""
    declared = yaml.safe_load(DEMO_MAP.read_text())
    service = declared["services"][HOST]
    service["directory"] = str(ROOT)
    service["environment"]["WHISPER__MODEL"] = model
    service["start_timeout"] = "30m"  # the first start downloads the model
    path = folder / "demo.yaml"
    path.write_text(yaml.safe_dump(declared))
    return path


def show(timeline: Timeline, *, stay: bool, model: str | None, folder: Path) -> None:
    """Run the demonstration; raises DemoFailed."""
    demo_map = with_model(model, folder) if model else DEMO_MAP
    port = int(yaml.safe_load(demo_map.read_text())["proxy"]["listen"].rpartition(":")[2])
    timeline.print(f"autostart serves {DEMO_MAP.relative_to(ROOT)}; {HOST} is stopped")
    with serving(demo_map, folder / "state", timeline):
        answers = []
        for temperature in ("cold", "warm"):
            timeline.print(f"POST /v1/audio/transcriptions, {temperature}")
            answer = transcribe(port, DOWNLOAD_SECONDS_MAX if model else ANSWER_SECONDS_MAX)
            timeline.print(f'the words that came back: "{answer.text}"')
            if answer.was_cold != (temperature == "cold"):
                raise DemoFailed(f"the {temperature} request was not {temperature}")
            answers.append(answer)
        if stay:
            stay_until_interrupted(port)
            return
        timeline.print("nobody uses it now …")
        timeline.wait_for("stopped", IDLE_STOP_SECONDS_MAX)
    cold, warm = answers
    print(f"\nspoken          {SPOKEN.read_text().strip()}")
    print(f"heard           {cold.text}")
    cold_seconds, warm_seconds = cold.first_byte_seconds, warm.first_byte_seconds
    print(f"first byte      cold {cold_seconds:.2f} s, warm {warm_seconds:.2f} s")
    print("\nmake demo STAY=1 leaves it running, for your own curl.")


def stay_until_interrupted(port: int) -> None:
    """Print what to try, then wait for Ctrl-C."""
    print(f"""
It stays until Ctrl-C. From another terminal:

  curl http://{HOST}:{port}/v1/audio/transcriptions -F model=whisper-1 \\
       -F file=@{RECORDING.relative_to(ROOT)}

  {sys.executable} -m autostart --config config/demo.yaml status
  Docs that wake nothing, and Execute that does: http://{PORTAL}:{port}
""")
    try:
        threading.Event().wait()
    except KeyboardInterrupt:
        print()


def main() -> int:
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__)
    parser.add_argument("--stay", action="store_true", help="leave it running until Ctrl-C")
    parser.add_argument("--model", help="a Whisper model by name, downloaded: tiny, small, …")
    options = parser.parse_args()
    timeline = Timeline()
    try:
        with tempfile.TemporaryDirectory(prefix="autostart-demo-") as folder:
            show(timeline, stay=options.stay, model=options.model, folder=Path(folder))
    except (DemoFailed, OSError) as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
