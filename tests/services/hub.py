"""A stand-in for the Hugging Face Hub, which tests cannot reach: one model, by the Hub's own HTTP.

`huggingface_hub` is real; it asks for the list of files, then for each file's head and bytes.
"""

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Hub:
    """What the stand-in has, and what it was asked for."""

    url: str
    repository: str
    folder: Path
    asked: list[str] = field(default_factory=list)
    # Cleared: the bytes of files are held back until it is set.
    flows: threading.Event = field(default_factory=threading.Event)


@contextmanager
def run_hub(repository: str, folder: Path) -> Iterator[Hub]:
    """Serve the files of a folder as a model of that name, until the block ends."""
    hub = Hub(url="", repository=repository, folder=folder)
    hub.flows.set()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self.answer(with_body=False)

        def do_GET(self) -> None:
            self.answer(with_body=True)

        def answer(self, *, with_body: bool) -> None:
            hub.asked.append(f"{self.command} {self.path}")
            body, headers = describe(hub, self.path.partition("?")[0])
            self.send_response(200 if body is not None else 404)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body or b"")))
            self.end_headers()
            if with_body and body:
                hub.flows.wait(30)
                self.wfile.write(body)

        def log_message(self, *_arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        hub.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield hub
        finally:
            hub.flows.set()
            server.shutdown()
            thread.join()


def describe(hub: Hub, path: str) -> tuple[bytes | None, dict[str, str]]:
    """Give body and headers of an answer; None for what is not there."""
    files = f"/{hub.repository}/resolve/{COMMIT}/"
    if path.startswith(f"/api/models/{hub.repository}/revision/"):
        names = [{"rfilename": file.name} for file in sorted(hub.folder.iterdir())]
        told = {"id": hub.repository, "sha": COMMIT, "siblings": names}
        return json.dumps(told).encode(), {"Content-Type": "application/json"}
    if path == f"/api/models/{hub.repository}/tree/{COMMIT}":
        listed = [
            {"type": "file", "path": file.name, "size": file.stat().st_size, "oid": "0" * 40}
            for file in sorted(hub.folder.iterdir())
        ]
        return json.dumps(listed).encode(), {"Content-Type": "application/json"}
    if path.startswith(files) and (file := hub.folder / path.removeprefix(files)).is_file():
        body = file.read_bytes()
        digest = hashlib.sha256(body).hexdigest()
        return body, {"ETag": f'"{digest}"', "X-Repo-Commit": COMMIT}
    return None, {"X-Error-Code": "RepoNotFound"}
