"""autostart's own image, started as its compose files say, with the engine's socket or a proxy."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import aiohttp
import pytest
import yaml
from yarl import URL

from autostart.config import ProxyConfig
from tests.containers import contained, docker, inspect, name_of, project_name, remove_projects
from tests.daemon import ROOT, free_port

FOLDER = ROOT / "config/docker"
IMAGES = {
    "autostart": "autostart-test/autostart",
    "socket-proxy": "autostart-test/socket-proxy",
}
SOCKET = Path("/var/run/docker.sock")
FILES = {
    "socket": ("compose.yaml",),
    "start-stop": ("compose.yaml", "compose.socket-proxy.yaml"),
    "creating": ("compose.yaml", "compose.socket-proxy.yaml"),
}
# What it may add to its base: Python, Docker's CLI with two plugins, the environment.
OWN_BYTES_MAX = 450_000_000
HOST = "plain.localhost"
KEPT = "kept.localhost"


@pytest.fixture(scope="module")
def images() -> dict[str, str]:
    """The images, built from this checkout."""
    for target, name in IMAGES.items():
        stage = ("--target", target) if target == "socket-proxy" else ()
        command = ("build", "--quiet", "--network", "host", "--tag", name, *stage)
        docker(*command, "--file", str(FOLDER / "Dockerfile"), str(ROOT), seconds=900)
    return IMAGES


@pytest.fixture
async def client() -> AsyncIterator[aiohttp.ClientSession]:
    """A session that keeps no connection: those to a container that restarts are dead."""
    connector = aiohttp.TCPConnector(force_close=True)
    async with aiohttp.ClientSession(connector=connector) as session:
        yield session


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that the user in the container may read, unlike pytest's own."""
    with TemporaryDirectory(prefix="autostart-own-") as name:
        path = Path(name)
        path.chmod(0o755)
        yield path
        remove_projects(under=path)


@dataclass
class Contained:
    """autostart in a container, as the compose files start it, with a map of its own."""

    folder: Path
    access: str
    services: dict[str, dict[str, Any]]
    name: str = field(default_factory=project_name)
    port: int = field(default_factory=free_port)
    admin_port: int = field(default_factory=free_port)

    def __post_init__(self) -> None:
        (self.folder / "map").mkdir()
        declared = {
            "proxy": {"listen": f"127.0.0.1:{self.port}", "drain_timeout": "5s"},
            "admin": {"listen": f"127.0.0.1:{self.admin_port}"},
            "services": self.services,
        }
        (self.folder / "map/autostart.yaml").write_text(yaml.safe_dump(declared))
        # The images were built already, under names of the tests.
        stated = {
            service: f"{{image: {image}, build: !reset null}}" for service, image in IMAGES.items()
        }
        if self.access == "socket":
            del stated["socket-proxy"]
        lines = [f"  {service}: {entry}" for service, entry in stated.items()]
        (self.folder / "images.yaml").write_text("\n".join(["services:", *lines, ""]))

    def compose(self, *words: str, seconds: float = 60) -> str:
        """Run docker compose on it; return what it prints."""
        files = [FOLDER / file for file in FILES[self.access]]
        options = [
            word for file in (*files, self.folder / "images.yaml") for word in ("-f", str(file))
        ]
        environment = {
            "DOCKER_GID": str(SOCKET.stat().st_gid),
            "PROJECTS": str(self.folder),
            "AUTOSTART_MAP": str(self.folder / "map"),
            "ENGINE_ACCESS": self.access,
            "COMPOSE_PROJECT_NAME": self.name,
        }
        done = subprocess.run(
            ["docker", "compose", *options, *words],
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
        assert done.returncode == 0, done.stderr + done.stdout
        return done.stdout

    def run_cli(self, *words: str) -> str:
        """Run a command of autostart in the container, as an operator would."""
        return self.compose("exec", "--no-TTY", "autostart", "autostart", *words)

    def log(self, service: str) -> str:
        command = ["docker", "logs", f"{self.name}-{service}-1"]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30)
        return done.stdout + done.stderr

    async def wait_until_served(self) -> None:
        """Return when it answers the image's own HEALTHCHECK, and the engine answers it."""
        container = f"{self.name}-autostart-1"
        _, *check = inspect(container)["Config"]["Healthcheck"]["Test"]
        deadline = time.monotonic() + 30
        for command in (check, ["autostart", "discover"]):
            asking = ["docker", "exec", container, *command]
            while subprocess.run(asking, capture_output=True, check=False).returncode != 0:
                assert time.monotonic() < deadline, self.log("autostart")
                await asyncio.sleep(0.1)

    async def ask(self, client: aiohttp.ClientSession, host: str = HOST) -> tuple[int, Any]:
        """Send a request through it; return status and headers."""
        url = f"http://127.0.0.1:{self.port}/"
        async with client.get(url, headers={"Host": host}) as response:
            await response.read()
            return response.status, response.headers

    async def wait_for_state(
        self, client: aiohttp.ClientSession, state: str, host: str = HOST
    ) -> dict[str, Any]:
        """Return the service once it stands so."""
        url = f"http://127.0.0.1:{self.admin_port}/api/services/{host}"
        deadline = time.monotonic() + 30
        while True:
            async with client.get(url) as response:
                shown = dict(await response.json())
            if shown["state"] == state:
                return shown
            assert time.monotonic() < deadline, shown
            await asyncio.sleep(0.1)


@pytest.fixture
def contain(images: dict[str, str], folder: Path) -> Iterator[Any]:
    """Start it; everything of it is removed afterwards, the volumes too."""
    made: list[Contained] = []

    def start(access: str, services: dict[str, dict[str, Any]]) -> Contained:
        made.append(Contained(folder, access, services))
        made[-1].compose("up", "--detach")
        return made[-1]

    yield start
    for each in made:
        text = each.log("autostart")
        each.compose("down", "--volumes", "--timeout", "10")
        assert "Traceback" not in text


def project(folder: Path, name: str, **keys: Any) -> dict[str, Any]:
    return contained(folder / "projects" / name, free_port(), **keys)


def create(folder: Path, *names: str) -> None:
    """Do what the operator does where autostart may not create."""
    for name in names:
        docker("compose", "--project-directory", str(folder / "projects" / name), "create")


@pytest.mark.timeout(900)  # the images are built first
@pytest.mark.parametrize("access", FILES)
async def test_it_starts_stops_and_takes_over_services(
    contain: Any, folder: Path, client: aiohttp.ClientSession, access: str
) -> None:
    """Held, started, stopped when idle; what runs while autostart restarts is taken over."""
    services = {
        HOST: project(folder, "plain", idle="1s"),
        KEPT: project(folder, "kept", idle="15m"),
    }
    if access == "start-stop":
        create(folder, "plain", "kept")
    own = contain(access, services)
    await own.wait_until_served()
    answers = [await own.ask(client), await own.ask(client, KEPT)]
    await own.wait_for_state(client, "stopped")
    running = f"{name_of(folder / 'projects/kept')}-web-1"
    before = inspect(running)["State"]["StartedAt"]
    own.compose("restart", "autostart")
    await own.wait_until_served()
    adopted = await own.wait_for_state(client, "ready", KEPT)
    answers += [await own.ask(client, KEPT), await own.ask(client)]

    assert [(200, "cold"), (200, "cold"), (200, None), (200, "cold")] == [
        (status, headers.get("Autostart-Start")) for status, headers in answers
    ]
    assert before == inspect(running)["State"]["StartedAt"]
    assert adopted["endpoint"] is not None


async def test_it_has_no_rights(contain: Any, folder: Path) -> None:
    """Neither it nor the proxy is root, has a capability, or writes outside its volume."""
    own = contain("start-stop", {HOST: project(folder, "plain")})
    await own.wait_until_served()
    script = (
        "id -un; grep CapEff /proc/self/status; "
        "for path in / /etc /opt/venv /home /var/lib/autostart /run/engine; "
        "do touch $path/x 2>/dev/null && echo $path && rm $path/x; done; true"
    )
    can = {
        service: docker("exec", f"{own.name}-{service}-1", "sh", "-c", script).splitlines()
        for service in IMAGES
    }
    none = "CapEff:\t0000000000000000"

    assert can == {
        "autostart": ["autostart", none, "/var/lib/autostart", "/run/engine"],
        "socket-proxy": ["haproxy", none, "/run/engine"],
    }
    assert "none" == inspect(f"{own.name}-socket-proxy-1")["HostConfig"]["NetworkMode"]
    mounted = inspect(f"{own.name}-autostart-1")["Mounts"]
    assert [] == [each for each in mounted if "docker.sock" in each["Source"]]


async def test_what_the_proxy_does_not_pass_is_told(
    contain: Any, folder: Path, client: aiohttp.ClientSession
) -> None:
    """Containers that nobody created are refused at once, and the operator reads what to do."""
    own = contain("start-stop", {HOST: project(folder, "plain")})
    await own.wait_until_served()
    began = time.monotonic()
    status, headers = await own.ask(client)
    seconds = time.monotonic() - began
    shown = await own.wait_for_state(client, "failed")

    assert (503, "start-failed") == (status, headers["Autostart-Error"])
    assert seconds < 5
    assert "the socket proxy does not pass GET /v1." in shown["failure"]["message"]
    assert "docker compose create" in shown["failure"]["message"]


def asked(log: str) -> dict[str, set[str]]:
    """Return the endpoints in the proxy's log, ids and names left out, by what became of them."""
    found: dict[str, set[str]] = {"passed": set(), "refused": set()}
    for line in log.splitlines():
        if read := re.fullmatch(r"([A-Z]+) (?:/v1\.\d+)?(/\S*) (\d+)", line):
            method, path, status = read.groups()
            path = re.sub(
                r"^/(containers|networks|volumes)/(?!create$|json$)[^/]+", r"/\1/{id}", path
            )
            path = re.sub(r"^/images/.+/json$", "/images/{name}/json", path)
            found["refused" if status == "403" else "passed"].add(f"{method} {path}")
    return found


def documented(heading: str) -> set[str]:
    """Return the endpoints that docs/docker.md lists under a heading."""
    text = (
        (ROOT / "docs/docker.md").read_text().partition(f"### {heading}\n")[2].partition("\n#")[0]
    )
    return set(re.findall(r"^\| `([A-Z]+ /\S+)` \|", text, re.MULTILINE))


async def test_every_endpoint_that_is_used_is_documented(
    contain: Any, folder: Path, client: aiohttp.ClientSession
) -> None:
    """docs/docker.md lists what is asked of the engine, no more and no less, and by whom."""
    entry = project(folder, "plain", idle="15m")
    place = folder / "projects/plain"
    path = place / "compose.yaml"
    model = yaml.safe_load(path.read_text())
    (place / "Dockerfile").write_text(f"FROM {model['services']['web']['image']}\nRUN true\n")
    built = f"autostart-test/{name_of(place)}"
    model["services"]["web"] |= {
        "image": built,
        "build": {"context": ".", "network": "host"},
        "volumes": ["cache:/tmp/cache"],
        "networks": ["front", "back"],
        "configs": ["words"],
    }
    model |= {
        "volumes": {"cache": {}},
        "networks": {"front": {}, "back": {}},
        "configs": {"words": {"content": "three"}},
    }
    path.write_text(yaml.safe_dump(model))
    absent = project(folder, "absent", container={"image": f"127.0.0.1:9/{name_of(place)}"})
    own = contain("creating", {HOST: entry, KEPT: absent})
    await own.wait_until_served()
    try:
        assert "prepared" in own.run_cli("prepare", HOST)
        status, _ = await own.ask(client)
        used = await client.get(f"http://127.0.0.1:{own.admin_port}/api/services/{HOST}/usage")
        docker("pause", f"{name_of(place)}-web-1")
        await own.wait_for_state(client, "stopped")
        woken, _ = await own.ask(client)
        told = [own.run_cli(*words) for words in (("logs", HOST), ("doctor",), ("discover",))]
        own.run_cli("stop", HOST)
        model["services"]["web"]["environment"] = {"EDITED": "1"}
        path.write_text(yaml.safe_dump(model))
        again, _ = await own.ask(client)
        missing, _ = await own.ask(client, KEPT)  # pulled from where nobody listens
        await own.wait_for_state(client, "failed", KEPT)
        found = asked(own.log("socket-proxy"))
    finally:
        docker("compose", "--project-directory", str(place), "down", "--volumes", "--rmi", "local")
        subprocess.run(["docker", "rmi", built], capture_output=True, check=False)

    assert [200, 200, 200, 200] == [status, used.status, woken, again]
    assert missing == 503
    assert all(told)
    assert set() == found["refused"]
    assert documented("Looking, starting, stopping") | documented("Creating") == found["passed"]


# What neither list passes, however it is written.
NEVER = (
    "POST /containers/{id}/exec",
    "POST /containers/{id}/kill",
    "POST /containers/{id}/attach",
    "GET /containers/{id}/archive",
    "GET /containers/{id}/export",
    "POST /containers/prune",
    "POST /build",
    "POST /commit",
    "POST /exec/{id}/start",
    "GET /secrets",
    "POST /swarm/init",
    "POST /plugins/pull",
    "DELETE /volumes/{id}",
    "DELETE /images/{id}",
    "GET //info",
    "GET /containers/../info",
    "GET /containers/json/",
    "GET /containers/{id}%2fjson",
    "GET /images/../containers/{id}/export/json/../json",
    "PUT /info",
)


@pytest.mark.parametrize("access", ["start-stop", "creating"])
async def test_the_proxy_passes_what_its_lists_name(
    images: dict[str, str], folder: Path, access: str
) -> None:
    """With and without a version before it; and nothing of what neither list names."""
    (folder / "socket").mkdir()
    (folder / "socket").chmod(0o777)
    options = ["--group-add", str(SOCKET.stat().st_gid), "--env", f"ENGINE_ACCESS={access}"]
    volumes = ["--volume", f"{SOCKET}:{SOCKET}", "--volume", f"{folder}/socket:/run/engine"]
    proxy = docker("run", "--detach", "--init", *options, *volumes, images["socket-proxy"])
    connector = aiohttp.UnixConnector(str(folder / "socket/docker.sock"))
    creating = documented("Creating")
    # Of those that would make something, the passing is shown by the recording.
    passed = documented("Looking, starting, stopping")
    refused = {*NEVER, *(creating if access == "start-stop" else ())}
    try:
        async with aiohttp.ClientSession(connector=connector) as session:

            async def status(endpoint: str) -> int:
                method, path = (
                    endpoint.replace("{id}", "nosuch").replace("{name}", "nosuch").split()
                )
                url = URL(f"http://docker{path}", encoded=True)
                async with session.request(method, url) as response:
                    return response.status

            await until_connected(status)
            wrong = [each for each in passed if await status(each) == 403]
            wrong += [
                each for each in passed if await status(each.replace(" /", " /v1.41/")) == 403
            ]
            wrong += [each for each in refused if await status(each) != 403]
    finally:
        docker("rm", "--force", "--volumes", proxy)

    assert wrong == []


async def until_connected(status: Callable[[str], Awaitable[int]]) -> None:
    """Return when the proxy listens."""
    deadline = time.monotonic() + 20
    while True:
        try:
            await status("GET /version")
            return
        except aiohttp.ClientError:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.05)


async def test_a_gpu_is_seen_if_the_container_is_given_one(
    images: dict[str, str], folder: Path
) -> None:
    """Where nvidia-smi is put into the container it is asked; where not, the way there is named."""
    stand_in = folder / "nvidia-smi"
    stand_in.write_text("#!/bin/sh\necho NVIDIA L4\n")
    stand_in.chmod(0o755)
    command = ["run", "--rm", "--group-add", str(SOCKET.stat().st_gid)]
    command += ["--volume", f"{SOCKET}:{SOCKET}"]
    mounted = ["--volume", f"{stand_in}:/usr/bin/nvidia-smi:ro"]
    doctor = [
        images["autostart"],
        "sh",
        "-c",
        "cd; env -u AUTOSTART_CONFIG autostart doctor || true",
    ]
    without, given = docker(*command, *doctor), docker(*command, *mounted, *doctor)

    assert "nvidia-smi is not in autostart's container: start it with" in without
    assert "containers get a CPU: NVIDIA L4 answers, but the engine has neither" in given


async def test_a_command_in_a_container_is_doubtful(images: dict[str, str], folder: Path) -> None:
    """`check` warns that a local process ends with the container."""
    written = {"services": {HOST: {"command": ["sleep", "9"], "port": 9001}}}
    path = folder / "autostart.yaml"
    path.write_text(yaml.safe_dump(written))
    mounted = ("--volume", f"{path}:/etc/autostart/autostart.yaml:ro")
    said = docker("run", "--rm", *mounted, images["autostart"], "autostart", "check")

    assert f"warning: services.{HOST}: autostart is in a container: a command ends with it" in said


async def test_the_image_holds_autostart_and_what_it_needs(images: dict[str, str]) -> None:
    """No service, no test, no setting of this machine; every package as locked; not much more."""
    pip = ("run", "--rm", images["autostart"], "pip", "--disable-pip-version-check")
    frozen = set(docker(*pip, "freeze", "--exclude", "autostart").lower().split())
    locked = set((ROOT / "requirements.lock").read_text().lower().split())
    files = docker("run", "--rm", images["autostart"], "sh", "-c", "ls /app /etc/autostart; true")
    probe = "import importlib.util as u; print(u.find_spec('services'), u.find_spec('tests'))"
    found = docker("run", "--rm", "--workdir", "/", images["autostart"], "python", "-c", probe)
    base, own = (inspect(name)["Size"] for name in ("debian:bookworm-slim", images["autostart"]))
    print(f"\nautostart's image: {(own - base) / 1e6:.0f} MB on its base of {base / 1e6:.0f} MB")

    assert set() == frozen - locked
    assert ("", "None None") == (files, found)
    assert own - base < OWN_BYTES_MAX


def configured(*files: str, without: str = "") -> dict[str, Any]:
    """Return what `docker compose config` makes of the files."""
    options = [word for file in files for word in ("--file", str(FOLDER / file))]
    environment = {**os.environ, "DOCKER_GID": "999", "PROJECTS": "/srv/services"}
    environment.pop(without, None)
    done = subprocess.run(
        ["docker", "compose", *options, "config", "--format", "json"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout)["services"])


def test_the_compose_files_are_valid() -> None:
    """With and without the proxy and the GPU; a stop leaves time for the answers in flight."""
    plain = configured("compose.yaml")["autostart"]
    proxied = configured("compose.yaml", "compose.socket-proxy.yaml")
    gpu = configured("compose.yaml", "compose.gpu.yaml")["autostart"]
    (device,) = gpu["deploy"]["resources"]["reservations"]["devices"]

    assert {"autostart", "socket-proxy"} == proxied.keys()
    assert "group_add" not in proxied["autostart"]
    assert ("nvidia", ["gpu", "utility"]) == (device["driver"], device["capabilities"])
    for entry in (plain, gpu, *proxied.values()):
        assert entry["read_only"]
        assert ["ALL"] == entry["cap_drop"]
        assert ["no-new-privileges:true"] == entry["security_opt"]
        assert "unless-stopped" == entry["restart"]
    assert "host" == plain["network_mode"]
    assert float(plain["stop_grace_period"].removesuffix("s")) > ProxyConfig().drain_timeout_seconds


@pytest.mark.parametrize("lacking", ["DOCKER_GID", "PROJECTS"])
def test_what_has_to_be_set_is_asked_for(lacking: str) -> None:
    """Compose itself says which variable is missing, and what it is."""
    with pytest.raises(AssertionError, match=f"{lacking} is missing a value: the "):
        configured("compose.yaml", without=lacking)
