"""The real nginx in front of autostart, as tests use it: its own folder and ports, a certificate of
its own, and curl as the client.

What it may not do is taken away: once it runs, the folders for temporary files are removed, so that
whatever it wants to keep on disk fails the request that it belongs to.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import shutil
import subprocess
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from tests.containers import skip_or_fail
from tests.daemon import Daemon, free_port, running

HOST = "plain.example.com"
LOGIN = ("anna", "secret")
NEEDED = ("nginx", "curl", "openssl")
PATIENCE_SECONDS = 20.0

_MAIN = """\
{user}
daemon off;
worker_processes 2;
pid {folder}/pid;
error_log {folder}/error.log info;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    client_body_temp_path {folder}/temporary/body;
    proxy_temp_path {folder}/temporary/proxy;
    fastcgi_temp_path {folder}/temporary/fastcgi;
    uwsgi_temp_path {folder}/temporary/uwsgi;
    scgi_temp_path {folder}/temporary/scgi;
    include {folder}/conf.d/*.conf;
}}
"""
_LOGINS = """\
auth_basic "older";
auth_basic_user_file {folder}/htpasswd;
"""


def require_nginx() -> None:
    """Skip the calling test, or fail it in CI, where there is no nginx."""
    lacking = [program for program in NEEDED if shutil.which(program) is None]
    skip_or_fail(f"there is no {', '.join(lacking)}" if lacking else None)


def make_certificate(folder: Path, *names: str) -> None:
    """Make a self-made certificate for these names, in the files that certbot would make."""
    folder.mkdir(parents=True)
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    command += ["-nodes", "-days", "2", "-subj", "/CN=tests"]
    command += ["-addext", "subjectAltName=" + ",".join(f"DNS:{name}" for name in names)]
    command += ["-keyout", f"{folder}/privkey.pem", "-out", f"{folder}/fullchain.pem"]
    subprocess.run(command, check=True, capture_output=True)


def htpasswd_line(user: str, password: str) -> str:
    """Return a line of an htpasswd file."""
    command = ["openssl", "passwd", "-6", password]
    return f"{user}:{subprocess.run(command, check=True, capture_output=True, text=True).stdout}"


@dataclass(frozen=True)
class Answer:
    """What curl got, and how it ended: 0, or why not."""

    ended: int
    status: int
    head: str
    body: bytes
    said: str

    def header(self, name: str) -> str | None:
        """Return the value of the last line of a header."""
        found = re.findall(rf"^{name}: (.*)\r$", self.head, re.IGNORECASE | re.MULTILINE)
        return found[-1] if found else None


class Nginx:
    """One nginx with its own folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.http_port, self.https_port = free_port(), free_port()
        self.process: subprocess.Popen[bytes] | None = None
        for name in ("conf.d", "temporary", "certificates", "snippets", "webroot"):
            (folder / name).mkdir(parents=True)
        user = "user root;" if psutil.Process().uids().effective == 0 else ""
        (folder / "nginx.conf").write_text(_MAIN.format(folder=folder, user=user))
        (folder / "snippets/basic-auth.conf").write_text(_LOGINS.format(folder=folder))
        (folder / "htpasswd").write_text(htpasswd_line(*LOGIN))

    @property
    def options(self) -> list[str]:
        """What `autostart nginx` is told of this folder and these ports."""
        return [
            *("--certificates", f"{self.folder}/certificates"),
            *("--snippets", f"{self.folder}/snippets"),
            *("--webroot", f"{self.folder}/webroot"),
            *("--http-port", str(self.http_port), "--https-port", str(self.https_port)),
        ]

    def start(self, text: str) -> None:
        """Start it on a text, and take its folders for temporary files away."""
        (self.folder / "conf.d/autostart.conf").write_text(text)
        command = ["nginx", "-p", str(self.folder), "-c", f"{self.folder}/nginx.conf"]
        with (self.folder / "output").open("wb") as log:
            self.process = subprocess.Popen([*command, "-e", "stderr"], stdout=log, stderr=log)
        deadline = time.monotonic() + PATIENCE_SECONDS
        while len(self.workers()) < 2:
            assert self.process.poll() is None, (self.folder / "output").read_text()
            assert time.monotonic() < deadline, "nginx has no workers"
            time.sleep(0.02)
        shutil.rmtree(self.folder / "temporary")

    def workers(self) -> list[psutil.Process]:
        assert self.process is not None
        with contextlib.suppress(psutil.NoSuchProcess):
            return psutil.Process(self.process.pid).children()
        return []

    def resident_bytes(self) -> int:
        return sum(worker.memory_info().rss for worker in self.workers())

    def log(self) -> str:
        return (self.folder / "error.log").read_text()

    def stop(self) -> None:
        if self.process is not None:
            self.process.terminate()
            self.process.wait(10)


class Front:
    """nginx, autostart behind it, and a client."""

    patience_seconds = 150

    def __init__(self, nginx: Nginx, daemon: Daemon) -> None:
        self.nginx = nginx
        self.daemon = daemon

    def curl_command(self, url: str, *words: str) -> list[str]:
        """Return curl's command for a URL of any host, which is this nginx."""
        port = self.nginx.http_port if url.startswith("http:") else self.nginx.https_port
        known = ["curl", "--silent", "--show-error", "--connect-to", f"::127.0.0.1:{port}"]
        return [*known, "--insecure", "--max-time", str(self.patience_seconds), *words, url]

    async def curl(
        self,
        path: str,
        *words: str,
        host: str = HOST,
        login: Sequence[str] | None = LOGIN,
        sent: bytes = b"",
    ) -> Answer:
        """Ask by curl, over HTTP/2 unless the words say otherwise; `sent` is what it may read."""
        url = path if "://" in path else f"https://{host}{path}"
        head = self.nginx.folder / f"head-{time.monotonic_ns()}"
        more = ["--user", ":".join(login)] if login else []
        process = await asyncio.create_subprocess_exec(
            *self.curl_command(url, "--dump-header", str(head), *more, *words),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        body, said = await process.communicate(sent)
        assert process.returncode is not None
        heads = head.read_bytes().decode("latin-1") if head.exists() else ""
        status = re.findall(r"^HTTP/[0-9.]+ ([0-9]{3})", heads, re.MULTILINE)
        return Answer(
            process.returncode, int(status[-1]) if status else 0, heads, body, said.decode()
        )


@contextlib.asynccontextmanager
async def fronted(
    folder: Path, services: dict[str, Any], *words: str, **top: Any
) -> AsyncIterator[Front]:
    """Run nginx on what `autostart nginx` prints, in front of autostart on these services."""
    require_nginx()
    nginx = Nginx(folder / "nginx")
    names = [*services, *([top["portal"]] if "portal" in top else [])]
    for name in names:
        make_certificate(nginx.folder / "certificates" / name.removeprefix("*."), name)
    daemon_folder = folder / "autostart"
    daemon_folder.mkdir()
    try:
        async with running(daemon_folder, services, **top) as daemon:
            nginx.start(await printed(daemon, *nginx.options, *words))
            yield Front(nginx, daemon)
    finally:
        nginx.stop()


async def printed(daemon: Daemon, *words: str) -> str:
    """Return what `autostart nginx` prints."""
    status, text = await daemon.run_cli("nginx", *words)
    assert status == 0, text
    return text
