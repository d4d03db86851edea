"""A stand-in for the Hugging Face Hub, which tests cannot reach: some models, by its own HTTP.

`huggingface_hub` is real; it asks for the list of files, then for each file's head and bytes. What
is gated is refused as the Hub does, in the headers that the client reads (huggingface_hub 2.4,
`hf_raise_for_status`): everybody may list its files, and nobody fetch one without a right.
"""

import hashlib
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote

COMMIT = "0123456789abcdef0123456789abcdef01234567"

BAD_TOKEN = "Invalid credentials in Authorization header"
NARROW_TOKEN = (
    "Please enable access to public gated repositories in your fine-grained token settings"
    " to view this repository."
)

Answer = tuple[int, bytes, dict[str, str]]


@dataclass
class Hub:
    """What the stand-in has, and what it was asked for."""

    url: str
    repositories: dict[str, Path]
    gated: set[str] = field(default_factory=set)
    # By token: the gated names whose conditions its account has accepted. Others are no tokens.
    accounts: dict[str, set[str]] = field(default_factory=dict)
    # Tokens that were made without the right to read what is gated.
    narrow: set[str] = field(default_factory=set)
    asked: list[str] = field(default_factory=list)
    agents: list[str] = field(default_factory=list)  # what clients tell about themselves
    # Cleared: the bytes of files are held back until it is set.
    flows: threading.Event = field(default_factory=threading.Event)

    def downloads(self) -> list[str]:
        """Give the files whose bytes were asked for."""
        return [line for line in self.asked if line.startswith("GET") and "/resolve/" in line]


@contextmanager
def run_hub(repositories: Mapping[str, Path]) -> Iterator[Hub]:
    """Serve the files of folders as models of those names, until the block ends."""
    hub = Hub(url="", repositories=dict(repositories))
    hub.flows.set()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self.answer(with_body=False)

        def do_GET(self) -> None:
            self.answer(with_body=True)

        def answer(self, *, with_body: bool) -> None:
            hub.asked.append(f"{self.command} {self.path}")
            hub.agents.append(self.headers.get("User-Agent", ""))
            token = self.headers.get("Authorization", "").removeprefix("Bearer ")
            status, body, headers = describe(hub, unquote(self.path.partition("?")[0]), token)
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if with_body and "/resolve/" in self.path:
                hub.flows.wait(30)
            if with_body:
                self.wfile.write(body)

        def log_message(self, *_arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        hub.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield hub
        finally:
            hub.flows.set()
            server.shutdown()
            thread.join()


def describe(hub: Hub, path: str, token: str) -> Answer:
    """Give status, body and headers of an answer."""
    if token and token not in hub.accounts:
        return _refused(401, BAD_TOKEN)
    name = next((name for name in hub.repositories if _is_about(name, path)), None)
    if name is None:
        # It does not tell strangers which names there are.
        return _refused(404 if token else 401, "Repository not found", "RepoNotFound")
    folder = hub.repositories[name]
    files = sorted(file.relative_to(folder) for file in folder.rglob("*") if file.is_file())
    if path.startswith(f"/api/models/{name}/revision/"):
        names = [{"rfilename": str(file)} for file in files]
        return _listed({"id": name, "sha": COMMIT, "siblings": names})
    if path == f"/api/models/{name}/tree/{COMMIT}":
        return _listed(
            [
                {
                    "type": "file",
                    "path": str(file),
                    "size": (folder / file).stat().st_size,
                    "oid": "0" * 40,
                }
                for file in files
            ]
        )
    file = folder / path.removeprefix(f"/{name}/resolve/{COMMIT}/").removeprefix(
        f"/{name}/resolve/main/"
    )
    if not file.is_file():
        return _refused(404, "Entry not found", "EntryNotFound")
    if name in hub.gated and (refusal := _kept_from(hub, name, token)):
        return refusal
    body = file.read_bytes()
    digest = hashlib.sha256(body).hexdigest()
    return 200, body, {"ETag": f'"{digest}"', "X-Repo-Commit": COMMIT}


def _is_about(name: str, path: str) -> bool:
    return path.startswith((f"/api/models/{name}/", f"/{name}/resolve/"))


def _kept_from(hub: Hub, name: str, token: str) -> Answer | None:
    if not token:
        told = f"Access to model {name} is restricted. You must have access to it and be"
        return _refused(401, f"{told} authenticated to access it. Please log in.", "GatedRepo")
    if token in hub.narrow:
        return _refused(403, NARROW_TOKEN)
    if name not in hub.accounts[token]:
        told = f"Access to model {name} is restricted and you are not in the authorized list."
        return _refused(403, told, "GatedRepo")
    return None


def _listed(told: object) -> Answer:
    return 200, json.dumps(told).encode(), {"Content-Type": "application/json"}


def _refused(status: int, message: str, code: str = "") -> Answer:
    headers = {"X-Error-Message": message, "Content-Type": "application/json"}
    if code:
        headers["X-Error-Code"] = code
    return status, json.dumps({"error": message}).encode(), headers
