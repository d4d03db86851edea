"""The older guide's machine: docker-autostart's config.json imported, its server block unchanged.

Everything is where the guide says: /opt/whisper-faster, /etc/nginx, /etc/letsencrypt, the ports
443, 8890, 8001 and 8002. So it has an engine, a network and mounts that nobody else sees. Of its
compose files only the image is another: the plain service, which listens where theirs did.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.daemon import Daemon
from tests.front import LOGIN, htpasswd_line, make_certificate, require_nginx
from tests.private_engine import PrivateEngine, private_engine

WHISPER, WHISPERX = "whisper.srv759970.hstgr.cloud", "whisperx.srv759970.hstgr.cloud"
MAP = Path("/opt/docker-autostart/autostart.yaml")
# curl's exit statuses for an answer that was cut: CURLE_PARTIAL_FILE, CURLE_RECV_ERROR,
# CURLE_HTTP2_STREAM.
CUT = {18, 56, 92}
ANSWERS_SECONDS = 20.0

SERVER_BLOCK = """\
server {
    listen 443 ssl http2;
    server_name whisper.srv759970.hstgr.cloud;

    ssl_certificate /etc/letsencrypt/live/whisper.srv759970.hstgr.cloud/fullchain.pem;
    ssl_certificate_key /etc/letsencrypt/live/whisper.srv759970.hstgr.cloud/privkey.pem;

    include snippets/basic-auth.conf;

    location / {
        proxy_pass http://127.0.0.1:8890;  # Auto-start proxy
        proxy_set_header Host $host;
        proxy_read_timeout 600;
        client_max_body_size 500M;

        # CORS for Swagger
        add_header 'Access-Control-Allow-Origin' 'https://portal.srv759970.hstgr.cloud' always;
    }
}
"""

BASIC_AUTH = """\
auth_basic "Restricted";
auth_basic_user_file /etc/nginx/.htpasswd;
"""

CONFIG_JSON = """\
{
  "services": {
    "whisper.srv759970.hstgr.cloud": {
      "name": "Whisper API (faster-whisper)",
      "composeDir": "/opt/whisper-faster",
      "proxyPort": 8001,
      "blocking": true,
      "containers": ["faster-whisper"]
    },
    "whisperx.srv759970.hstgr.cloud": {
      "name": "WhisperX API (with diarization)",
      "composeDir": "/opt/whisperx",
      "proxyPort": 8002,
      "blocking": true,
      "containers": ["whisperx"]
    }
  }
}
"""

COMPOSE = """\
services:
  {name}:
    image: {image}
    command: ["--name", "{name}", "--address", "0.0.0.0", "--port", "{inside}"]
    container_name: {name}
    restart: 'no'  # Auto-start system
    ports:
      - '{port}:{inside}'
    environment:
      - TZ=Europe/Paris
"""

# The machine's own files, with the guide's laid over them where nobody else sees it.
MOUNT = """\
set -e
for each in etc opt var; do
  mkdir -p {folder}/over/$each {folder}/work/$each
  mount -t overlay overlay -o \
lowerdir=/$each,upperdir={folder}/over/$each,workdir={folder}/work/$each /$each
done
mount -t tmpfs tmpfs /run
echo mounted
exec sleep infinity
"""


class Machine:
    """What runs there, and how to run something there."""

    def __init__(self, folder: Path, engine: PrivateEngine) -> None:
        self.folder = folder
        self.engine = engine
        self.over = folder / "over"
        self.processes: list[subprocess.Popen[str]] = []
        self.inside: list[str] = []
        (folder / "daemon").mkdir()
        self.daemon = Daemon(folder / "daemon", {})
        self.daemon.map_path = MAP
        self.daemon.environment["DOCKER_HOST"] = engine.host

    def write(self, path: str, text: str) -> None:
        file = self.over / path.removeprefix("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def set_up(self) -> None:
        """Put everything where the guide puts it."""
        image = self.engine.load_plain_image()
        faster = {"name": "faster-whisper", "port": 8001, "inside": 8000}
        x = {"name": "whisperx", "port": 8002, "inside": 8002}
        self.write("/opt/whisper-faster/docker-compose.yml", COMPOSE.format(image=image, **faster))
        self.write("/opt/whisperx/docker-compose.yml", COMPOSE.format(image=image, **x))
        self.write("/opt/docker-autostart/config.json", CONFIG_JSON)
        self.write("/etc/nginx/.htpasswd", htpasswd_line(*LOGIN))
        self.write("/etc/nginx/snippets/basic-auth.conf", BASIC_AUTH)
        self.write("/etc/nginx/sites-enabled/whisper", SERVER_BLOCK)
        self.write("/etc/nginx/sites-enabled/whisperx", SERVER_BLOCK.replace(WHISPER, WHISPERX))
        for host in (WHISPER, WHISPERX):
            make_certificate(self.over / "etc/letsencrypt/live" / host, host)
        names = f"\n127.0.0.1 {WHISPER} {WHISPERX}\n"
        self.write("/etc/hosts", Path("/etc/hosts").read_text() + names)

    def start(self) -> None:
        """Import the config, start autostart and nginx, and wait for both."""
        alone = ["unshare", "--mount", "--propagation", "private"]
        mount = ["bash", "-c", MOUNT.format(folder=self.folder)]
        holder = self._begin([*self.engine.inside, *alone, *mount])
        assert holder.stdout is not None
        assert holder.stdout.readline() == "mounted\n"
        self.inside = ["nsenter", f"--target={holder.pid}", "--mount", "--net"]
        self.daemon.inside = self.inside
        cli = Path(sys.executable).parent / "autostart"
        command = f"{cli} import /opt/docker-autostart/config.json >{MAP} && {cli} -c {MAP} check"
        made = self.run(["bash", "-c", command])
        assert made.returncode == 0, made.stdout + made.stderr
        asyncio.run(self.daemon.start())
        self._begin([*self.inside, "nginx", "-g", "daemon off;"])
        deadline = time.monotonic() + ANSWERS_SECONDS
        while self.curl(f"https://{WHISPER}/", login=None).returncode:
            assert time.monotonic() < deadline, "nginx does not answer"
            time.sleep(0.05)

    def _begin(self, command: list[str]) -> subprocess.Popen[str]:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self.processes.append(process)
        return process

    def run(self, command: list[str]) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "DOCKER_HOST": self.engine.host}
        return subprocess.run(
            [*self.inside, *command],
            check=False,
            capture_output=True,
            text=True,
            timeout=120,
            env=environment,
        )

    def curl(
        self, url: str, *words: str, login: tuple[str, str] | None = LOGIN
    ) -> subprocess.CompletedProcess[str]:
        """Ask with the certificate's authority known; the status follows the body on a line."""
        trusted = self.folder / "authorities.pem"
        live = self.over / "etc/letsencrypt/live"
        trusted.write_text("".join(each.read_text() for each in live.glob("*/fullchain.pem")))
        known = ["curl", "--silent", "--cacert", str(trusted), "--write-out", "\n%{http_code}"]
        known += ["--user", ":".join(login)] if login else []
        return self.run([*known, *words, url])

    def clean_up(self) -> None:
        self.daemon.clean_up()
        for process in reversed(self.processes):
            process.terminate()
            process.wait(10)
            if process.stdout is not None:
                process.stdout.close()


@pytest.fixture(scope="module")
def machine() -> Iterator[Machine]:
    """One such machine for all of these."""
    require_nginx()
    with contextlib.ExitStack() as stack:
        short = Path(stack.enter_context(TemporaryDirectory(prefix="guide")))
        engine = stack.enter_context(private_engine(short / "engine"))
        (short / "machine").mkdir()
        machine = Machine(short / "machine", engine)
        stack.callback(shutil.rmtree, short / "machine", ignore_errors=True)
        stack.callback(machine.clean_up)
        machine.set_up()
        machine.start()
        yield machine


def echoed(done: subprocess.CompletedProcess[str]) -> dict[str, str]:
    body, _, status = done.stdout.rpartition("\n")
    assert (0, "200") == (done.returncode, status), done
    return dict(json.loads(body)["headers"])


def test_a_wrong_login_wakes_nothing(machine: Machine) -> None:
    """The block's basic auth refuses before autostart is asked."""
    refused = [
        machine.curl(f"https://{WHISPER}/echo", login=None),
        machine.curl(f"https://{WHISPERX}/echo", login=("anna", "wrong")),
    ]

    assert ["401", "401"] == [done.stdout.rpartition("\n")[2] for done in refused]
    assert (0, 0) == (machine.daemon.starts(WHISPER), machine.daemon.starts(WHISPERX))


@pytest.mark.parametrize("host", [WHISPER, WHISPERX])
def test_the_same_hosts_are_served(machine: Machine, host: str) -> None:
    """The first request creates and starts the container, and reaches it under its host's name."""
    headers = echoed(machine.curl(f"https://{host}/echo"))

    assert host == headers["Host"]
    assert 1 == machine.daemon.starts(host)


def test_an_upload_arrives_through_the_block(machine: Machine) -> None:
    """30 MB, which nginx keeps on its disk first, as that block has it."""
    file = machine.folder / "recording"
    file.write_bytes(bytes(30_000_000))
    done = machine.curl(f"https://{WHISPERX}/upload", "--data-binary", f"@{file}")

    assert 30_000_000 == json.loads(done.stdout.rpartition("\n")[0])["bytes"]


@pytest.mark.parametrize("version", ["--http1.1", "--http2"])
@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_a_cut_answer_is_seen_as_cut(machine: Machine, version: str, framing: str) -> None:
    """To nginx it is HTTP/1.0, whose answers end with the connection: only a reset tells."""
    url = f"https://{WHISPER}/die-mid?size=100000&{framing}&after=0.2"
    done = machine.curl(url, version, "--output", "/dev/null")

    assert (True, "200") == (done.returncode in CUT, done.stdout.strip()), done
