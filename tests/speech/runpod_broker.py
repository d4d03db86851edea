"""A broker that speaks with `runpod`'s worker SDK as the platform does, and keeps what it is told.

It knows the worker's side of the contract (runpod 1.12.0, `rp_job`, `rp_http`, `rp_ping`): jobs are
taken and stopped by long polls, results are posted. It trusts nothing that it is told: a request
that the platform would refuse is answered with 400 and kept in `complaints`.
"""

import json
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from typing import Any, TypeVar
from urllib.parse import parse_qsl, urlsplit

ENDPOINT = "voxtral"
WORKER = "w1"
KEY = "key-of-the-worker"
_POLL_SECONDS = 20.0  # the platform's: 90
_FORM = "application/x-www-form-urlencoded"  # what the SDK calls its JSON

T = TypeVar("T")


@dataclass(frozen=True)
class Post:
    """What the worker told of a job."""

    job: str
    body: dict[str, Any]

    @property
    def is_update(self) -> bool:
        """Whether the job goes on."""
        return self.body.get("status") == "IN_PROGRESS"


@dataclass(repr=False)  # megabytes
class Broker:
    """The jobs that a worker may take, and what it told."""

    url: str = ""
    # What the next polls for a job are answered with, before any job: 204, 400, 429.
    refusals: deque[int] = field(default_factory=deque)
    posts: list[Post] = field(default_factory=list)
    pings: list[dict[str, str]] = field(default_factory=list)
    takes: list[dict[str, str]] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)
    _jobs: deque[dict[str, Any]] = field(default_factory=deque)
    _stops: list[str] = field(default_factory=list)
    _taken: set[str] = field(default_factory=set)
    _numbers: Iterator[int] = field(default_factory=count)
    _closed: bool = False
    _has_ended: bool = False  # the worker's process
    _changed: threading.Condition = field(default_factory=threading.Condition)

    def environment(self) -> dict[str, str]:
        """What the platform sets for a worker."""
        base = f"{self.url}/w/{ENDPOINT}"
        return {
            "RUNPOD_WEBHOOK_GET_JOB": f"{base}/job-take/$ID?gpu=none",
            "RUNPOD_WEBHOOK_POST_OUTPUT": f"{base}/job-done/$RUNPOD_POD_ID/$ID?gpu=none",
            "RUNPOD_WEBHOOK_POST_STREAM": f"{base}/job-stream/$RUNPOD_POD_ID/$ID?gpu=none",
            "RUNPOD_WEBHOOK_PING": f"{base}/ping/$RUNPOD_POD_ID",
            "RUNPOD_PING_INTERVAL": "1000",
            "RUNPOD_AI_API_KEY": KEY,
            "RUNPOD_POD_ID": WORKER,
            "RUNPOD_ENDPOINT_ID": ENDPOINT,
            # They ask the network, and want 4 GB of memory.
            "RUNPOD_SKIP_AUTO_SYSTEM_CHECKS": "true",
        }

    def submit(self, given: object) -> str:
        """Put a job in line; give its id."""
        with self._changed:
            job = f"job-{next(self._numbers)}-u1"
            self._jobs.append({"id": job, "input": given})
            self._changed.notify_all()
            return job

    def stop(self, job: str) -> None:
        """Tell the worker to stop a job, as the platform does where a client cancels it."""
        with self._changed:
            self._stops.append(job)
            self._changed.notify_all()

    def close(self) -> None:
        """Let no poll wait any more: there will be no job."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def worker_ended(self) -> None:
        """Let no test wait any more for what the worker would have told."""
        with self._changed:
            self._has_ended = True
            self._changed.notify_all()

    def await_taken(self, job: str, seconds_max: float = 60.0) -> None:
        """Wait until the worker has a job."""
        self._await(lambda: job in self._taken, seconds_max, f"{job} to be taken")

    def await_update(self, job: str, seconds_max: float = 60.0) -> Post:
        """Wait until a job has told how far it is; give that."""
        return self._await(
            lambda: next((post for post in self.told(job) if post.is_update), None),
            seconds_max,
            f"an update of {job}",
        )

    def await_result(self, job: str, seconds_max: float = 40.0) -> dict[str, Any]:
        """Wait until a job has ended; give what was told then."""
        return self._await(
            lambda: next((post.body for post in self.told(job) if not post.is_update), None),
            seconds_max,
            f"the result of {job}",
        )

    def await_ping(self, holds: Callable[[dict[str, str]], bool]) -> None:
        """Wait for a sign of life that says so."""
        self._await(lambda: any(map(holds, self.pings)), 20.0, "a ping")

    def told(self, job: str) -> list[Post]:
        """Give what the worker told of a job so far."""
        return [post for post in self.posts if post.job == job]

    def _await(self, find: Callable[[], T], seconds_max: float, what: str) -> T:
        with self._changed:
            self._changed.wait_for(lambda: find() or self._has_ended, seconds_max)
            found = find()
        why = "the worker ended" if self._has_ended else f"waited {seconds_max} s"
        assert found, f"{why}, without {what}: {self.complaints}"
        return found

    # What follows runs in the threads of the server.

    def take(self, query: dict[str, str]) -> tuple[int, object]:
        """Answer a poll for a job."""
        with self._changed:
            self.takes.append(query)
            if self.refusals:
                return self.refusals.popleft(), None
            self._changed.wait_for(lambda: self._jobs or self._closed, _POLL_SECONDS)
            if not self._jobs:
                return 204, None
            job = self._jobs.popleft()
            self._taken.add(job["id"])
            self._changed.notify_all()
            return 200, job

    def stops(self) -> tuple[int, object]:
        """Answer a poll for jobs to be stopped."""
        with self._changed:
            self._changed.wait_for(lambda: self._stops or self._closed, _POLL_SECONDS)
            stopped, self._stops = self._stops, []
            return (200, {"jobsToStop": stopped}) if stopped else (204, None)

    def post(self, job: str, body: bytes) -> tuple[int, object]:
        """Take what the worker tells of a job."""
        with self._changed:
            if job not in self._taken:
                return self.refuse(f"{job} was not taken")
            told = json.loads(body)
            if not isinstance(told, dict) or not told.keys() & {"output", "error"}:
                return self.refuse(f"{job}: neither output nor error: {body[:200]!r}")
            if "error" in told and not isinstance(told["error"], str):
                return self.refuse(f"{job}: the error is no text: {told['error']!r}")
            self.posts.append(Post(job, told))
            self._changed.notify_all()
            return 200, {}

    def ping(self, query: dict[str, str]) -> tuple[int, object]:
        """Take a sign of life."""
        with self._changed:
            self.pings.append(query)
            self._changed.notify_all()
            return 200, {}

    def refuse(self, complaint: str) -> tuple[int, object]:
        """Answer what the platform would not take."""
        self.complaints.append(complaint)
        return 400, {"error": complaint}


@contextmanager
def run_broker() -> Iterator[Broker]:
    """Run a broker on a port of this machine until the block ends."""
    broker = Broker()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            path, query = self.read_target()
            match path:
                case ["w", endpoint, "job-take", worker] if (endpoint, worker) == _NAMES:
                    self.answer(*broker.take(query))
                case ["w", endpoint, "job-stop", worker] if (endpoint, worker) == _NAMES:
                    self.answer(*broker.stops())
                case ["w", endpoint, "ping", worker] if (endpoint, worker) == _NAMES:
                    self.answer(*broker.ping(query))
                case _:
                    self.answer(*broker.refuse(f"GET {self.path}"))

        def do_POST(self) -> None:
            path, query = self.read_target()
            body = self.rfile.read(int(self.headers["Content-Length"]))
            sent_as = (self.headers["Content-Type"], self.headers["X-Request-ID"])
            match path:
                # No handler of ours is a generator: nothing comes by job-stream.
                case ["w", endpoint, "job-done", worker, job] if (
                    (endpoint, worker) == _NAMES
                    and sent_as == (_FORM, job)
                    and query["isStream"] == "false"
                ):
                    self.answer(*broker.post(job, body))
                case _:
                    self.answer(*broker.refuse(f"POST {self.path} {sent_as}"))

        def read_target(self) -> tuple[list[str], dict[str, str]]:
            target = urlsplit(self.path)
            if self.headers["Authorization"] != KEY:  # the key alone, without "Bearer"
                broker.complaints.append(f"{self.path}: {self.headers['Authorization']}")
            query = dict(parse_qsl(target.query, keep_blank_values=True))
            return target.path.strip("/").split("/"), query

        def answer(self, status: int, told: object) -> None:
            body = b"" if told is None else json.dumps(told).encode()
            try:
                self.send_response(status)
                if status != 204:
                    self.send_header("Content-Type", "application/json")
                    self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)
            except ConnectionError:
                pass  # a worker that was killed

        def log_message(self, *_arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        broker.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield broker
        finally:
            broker.close()
            server.shutdown()
            thread.join()


_NAMES = (ENDPOINT, WORKER)
