"""autostart/config/loading.py: file → Map, or every problem at once."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from ipaddress import ip_network
from pathlib import Path

import pytest

from autostart.config import Map, ServiceConfig, TcpAddress, UnixAddress, load
from autostart.config.problem import keys_of
from autostart.errors import ConfigError

Write = Callable[[str], Path]

EVERY_KEY = ", ".join(keys_of(ServiceConfig))
SERVICE = "services:\n  a.test:\n    command: [x]\n"


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(text: str) -> Path:
        path = tmp_path / "map.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def problems(path: Path, environ: dict[str, str] | None = None) -> list[str]:
    """Return the problems of a map without the folder of its file."""
    with pytest.raises(ConfigError) as caught:
        load(path, environ or {})
    return [problem.removeprefix(f"{path.parent}/") for problem in caught.value.problems]


def test_smallest_map_has_every_default(write: Write) -> None:
    """A host and a command are enough; the rest is as the values' own defaults say."""
    path = write(SERVICE)

    expected = ServiceConfig(host="a.test", name="a.test", command=("x",), directory=path.parent)
    assert Map(path=path, services={"a.test": expected}) == load(path, {})


def test_defaults_are_finite_and_stated() -> None:
    """The numbers of the design."""
    service = ServiceConfig(host="a.test")

    assert service.idle_seconds == 15 * 60
    assert service.create_timeout_seconds == 30 * 60
    assert service.start_timeout_seconds == 60
    assert service.hold_timeout_seconds == 60
    assert service.stop_timeout_seconds == 10
    assert service.request_timeout_seconds == 60
    assert service.response_timeout_seconds == 3600
    assert service.max_waiting == 100
    assert service.max_body_bytes == 500_000_000
    assert service.ready == "any"
    assert service.mode == "hold"
    assert service.wake.methods == ("GET", "POST", "PUT", "PATCH", "DELETE")
    assert service.wake.ignore == ("/favicon.ico", "/robots.txt")


def test_every_key_is_read(write: Write, tmp_path: Path) -> None:
    """Each key arrives at its attribute, in its unit."""
    declared = load(
        write(
            """
            proxy:
              listen: unix:/run/autostart.sock
              trusted_proxies: [10.0.0.0/8, "::1"]
              drain_timeout: 0s
            admin: {listen: "[::1]:99", token_env: TOKEN}
            portal: Portal.Example.com
            services:
              Whisper.Example.com:
                name: Whisper
                aliases: [STT.example.com, "*.stt.example.com"]
                compose: ../whisper
                containers: [api, redis]
                gpu_compose: gpu.yaml
                device: gpu
                port: 8001
                listen: 127.0.0.1:9001
                ready: container-health
                busy: /busy
                docs: /openapi.json
                mode: page
                idle: never
                create_timeout: 1h
                start_timeout: 90s
                hold_timeout: 0s
                stop_timeout: 500ms
                request_timeout: 1m
                response_timeout: 2h
                max_waiting: 1
                max_body: 1GiB
                access: {keys_env: KEYS, basic_file: htpasswd}
                cors: ["HTTPS://a.example.com", "http://localhost:3000", "*"]
                wake: {methods: [post], ignore: [], ignore_agents: [Uptime*]}
                asleep: {/health: 200, /: 503}
                warm: [{cron: 0 8 * * mon-fri, for: 10h, timezone: Europe/Paris}]
                exclusive: gpu0
            """
        ),
        {},
    )

    service = declared.services["whisper.example.com"]
    assert declared.proxy.listen == UnixAddress(Path("/run/autostart.sock"))
    assert declared.proxy.trusted_proxies == (ip_network("10.0.0.0/8"), ip_network("::1"))
    assert declared.proxy.drain_timeout_seconds == 0
    assert declared.admin.listen == TcpAddress("::1", 99)
    assert declared.admin.token_env == "TOKEN"
    assert declared.portal == "portal.example.com"
    assert service.host == "whisper.example.com"
    assert service.name == "Whisper"
    assert service.aliases == ("stt.example.com", "*.stt.example.com")
    assert service.compose == tmp_path.parent / "whisper"
    assert service.containers == ("api", "redis")
    assert service.gpu_compose == tmp_path / "gpu.yaml"
    assert service.device == "gpu"
    assert service.port == 8001
    assert service.listen == TcpAddress("127.0.0.1", 9001)
    assert service.ready == "container-health"
    assert service.busy == "/busy"
    assert service.docs == "/openapi.json"
    assert service.mode == "page"
    assert service.idle_seconds is None
    assert service.create_timeout_seconds == 3600
    assert service.start_timeout_seconds == 90
    assert service.hold_timeout_seconds == 0
    assert service.stop_timeout_seconds == 0.5
    assert service.request_timeout_seconds == 60
    assert service.response_timeout_seconds == 7200
    assert service.max_waiting == 1
    assert service.max_body_bytes == 2**30
    assert service.access is not None
    assert service.access.keys_env == "KEYS"
    assert service.access.basic_file == tmp_path / "htpasswd"
    assert service.cors == ("https://a.example.com", "http://localhost:3000", "*")
    assert service.wake.methods == ("POST",)
    assert service.wake.ignore == ()
    assert service.wake.ignore_agents == ("Uptime*",)
    assert service.asleep == {"/health": 200, "/": 503}
    assert [(w.cron, w.for_seconds, w.timezone) for w in service.warm] == [
        ("0 8 * * mon-fri", 36_000, "Europe/Paris")
    ]
    assert service.exclusive == "gpu0"


def test_command_is_read(write: Write, tmp_path: Path) -> None:
    """The keys of a local process."""
    declared = load(
        write(
            SERVICE + "    directory: sub/../other\n    environment: {A: '1', B: ''}\n    port: 0\n"
        ),
        {},
    )

    service = declared.services["a.test"]
    assert service.command == ("x",)
    assert service.directory == tmp_path / "other"
    assert service.environment == {"A": "1", "B": ""}
    assert service.port == 0


def test_defaults_stand_under_every_service(write: Write) -> None:
    """A service's own key replaces the whole default."""
    declared = load(
        write(
            """
            defaults:
              idle: 5m
              wake: {methods: [POST], ignore: [/x]}
              access: {keys_env: ALL}
              device: cpu
              environment: {A: a}
            services:
              a.test: {command: [x]}
              b.test: {command: [x], idle: never, wake: {ignore: [/y]}, access: {keys_env: B},
                       environment: {B: b}}
              c.test: {compose: c, port: 1, access: null}
            """
        ),
        {},
    )

    a, b, c = declared.services.values()
    assert (a.idle_seconds, b.idle_seconds, c.idle_seconds) == (300, None, 300)
    assert a.wake.methods == ("POST",)
    assert b.wake.methods == ("GET", "POST", "PUT", "PATCH", "DELETE")
    assert b.wake.ignore == ("/y",)
    assert [x.access.keys_env if x.access else None for x in (a, b, c)] == ["ALL", "B", None]
    assert (a.environment, b.environment) == ({"A": "a"}, {"B": "b"})


@pytest.mark.parametrize(
    ("keys", "seconds"),
    [("", 60), ("start_timeout: 5m", 300), ("start_timeout: 5m, hold_timeout: 1s", 1)],
)
def test_patience_is_the_start_timeout_unless_said(write: Write, keys: str, seconds: int) -> None:
    """hold_timeout follows start_timeout."""
    declared = load(write(f"services: {{a.test: {{command: [x], {keys}}}}}"), {})

    assert declared.services["a.test"].hold_timeout_seconds == seconds


@pytest.mark.parametrize(
    ("top", "keys", "origins"),
    [
        ("", "", ()),
        ("portal: p.example.com", "", ("https://p.example.com",)),
        ("portal: p.example.com", "cors: []", ()),
        ("portal: p.example.com", "cors: ['https://x.test:8443']", ("https://x.test:8443",)),
        ("portal: p.localhost", "", ("https://p.localhost", "http://p.localhost:8890")),
        ("portal: p.localhost\nproxy: {listen: 'unix:/s'}", "", ("https://p.localhost",)),
    ],
)
def test_portal_may_call_unless_said_otherwise(
    write: Write, top: str, keys: str, origins: tuple[str, ...]
) -> None:
    """The portal's pages reach every service without a word; under .localhost there is no TLS."""
    declared = load(write(f"{top}\nservices: {{a.test: {{command: [x], {keys}}}}}"), {})

    assert origins == declared.services["a.test"].cors


def test_hosts_are_spelled_in_one_way(write: Write) -> None:
    """Lower case, no trailing dot, no brackets; the order of the file stays."""
    declared = load(
        write(
            'services: {B.Test.: {command: [x]}, "*.A.test": {command: [x]}, '
            '"[::1]": {command: [x]}, 127.0.0.1: {command: [x]}}'
        ),
        {},
    )

    assert list(declared.services) == ["b.test", "*.a.test", "::1", "127.0.0.1"]


@pytest.mark.parametrize("text", ["services:\n", "services: {}\n", "proxy:\nservices:\n"])
def test_empty_sections_are_empty(write: Write, text: str) -> None:
    """A section whose keys are all commented out is no fault."""
    assert {} == load(write(text), {}).services


def test_relative_paths_follow_no_links(tmp_path: Path) -> None:
    """A map that is a link means the folder where the link is, as a shell would."""
    (tmp_path / "real").mkdir()
    (tmp_path / "real/map.yaml").write_text(SERVICE)
    link = tmp_path / "map.yaml"
    link.symlink_to(tmp_path / "real/map.yaml")

    assert tmp_path == load(link, {}).services["a.test"].directory


def test_path_of_the_map_is_absolute(write: Write) -> None:
    """A daemon may change its folder."""
    path = write(SERVICE)

    assert load(Path(os.path.relpath(path)), {}).path == path


def test_environment_is_the_process_own_unless_given(write: Write) -> None:
    """Without a second argument the variables of the process count."""
    assert "a.test" in load(write(SERVICE)).services


VALUES = {
    # key of a service: what is said when it is wrong
    "name: 3": "name is 3: allowed: a text; put numbers, true, false and dates in quotes",
    "name: ''": 'name is "": allowed: a text that is not empty',
    "aliases: stt.test": 'aliases is "stt.test": allowed: a list, such as [a, b]',
    "aliases: [http://x]": 'aliases[0] is "http://x": allowed: a host name without scheme and'
    ' port, or "*.name"',
    "aliases: [5]": 'aliases[0] is 5: allowed: a host name without scheme and port, or "*.name",'
    " in quotes",
    "aliases: [bücher.test]": 'aliases[0] is "bücher.test": allowed: a host name without scheme'
    ' and port, or "*.name"; write the xn-- form of an international name',
    "aliases: ['a.*.test']": 'aliases[0] is "a.*.test": allowed: a host name without scheme and'
    ' port, or "*.name"',
    "aliases: ['*']": 'aliases[0] is "*": allowed: a host name without scheme and port, or'
    ' "*.name"',
    "containers: []": "containers is []: allowed: at least one",
    "directory: 3": "directory is 3: allowed: a path",
    "environment: [A=1]": 'environment: allowed: a mapping, such as {key: value}',
    "environment: {A: 1}": "environment.A: allowed: a text; put numbers, true, false and dates in"
    " quotes",
    "environment: {A=B: x}": "environment: 'A=B' is no name of an environment variable",
    "port: '80'": 'port is "80": allowed: a whole number, without quotes',
    "port: true": "port is true: allowed: a whole number, without quotes",
    "port: -1": "port is -1: allowed: at least 0",
    "port: 65536": "port is 65536: allowed: at most 65535",
    "listen: 9001": "listen is 9001: allowed: an address and port such as 127.0.0.1:8890 or"
    " [::1]:8890, or unix:/a/path.sock",
    "ready: ready": 'ready is "ready": allowed: a path such as /ready, or any, or container-health',
    "busy: 'http://x/busy'": 'busy is "http://x/busy": allowed: a path such as /ready',
    "busy: '/a b'": 'busy is "/a b": allowed: a path such as /ready',
    "docs: '/a#b'": 'docs is "/a#b": allowed: a path such as /ready',
    "mode: wait": 'mode is "wait": allowed: hold, page',
    "mode:": "mode is null: allowed: hold, page",
    "idle: 15": "idle is 15: needs a unit, such as 15s",
    "idle: 1:30": "idle is 90: needs a unit, such as 90s",
    "idle: 0s": 'idle is "0s": allowed: more than 0s',
    "idle:": "idle is null: allowed: a duration such as 500ms, 90s, 15m, 1h30m, or never",
    "idle: always": 'idle is "always": allowed: a duration such as 500ms, 90s, 15m, 1h30m, or'
    " never",
    "start_timeout: 1h30": 'start_timeout is "1h30": allowed: a duration such as 500ms, 90s, 15m,'
    " 1h30m",
    "start_timeout: 0s": 'start_timeout is "0s": allowed: more than 0s',
    "stop_timeout: never": 'stop_timeout is "never": allowed: a duration such as 500ms, 90s, 15m,'
    " 1h30m",
    "max_waiting: 0": "max_waiting is 0: allowed: at least 1",
    "max_waiting: 1.5": "max_waiting is 1.5: allowed: a whole number, without quotes",
    "max_body: 500": "max_body is 500: needs a unit, such as 500MB",
    "access: {}": "access is {}: allowed: keys_env, basic_file, or both",
    "access: KEYS": 'access is "KEYS": allowed: a mapping, such as {key: value}',
    "access: {key_env: K}": "access.key_env: unknown key; did you mean keys_env?",
    "cors: [portal.test]": 'cors[0] is "portal.test": allowed: an origin such as'
    " https://portal.example.com, or *",
    "cors: ['https://a.test/']": 'cors[0] is "https://a.test/": allowed: an origin such as'
    " https://portal.example.com, or *",
    "cors: [1]": "cors[0] is 1: allowed: an origin such as https://portal.example.com, or *",
    "wake: {methods: [1]}": "wake.methods[0] is 1: allowed: an HTTP method such as POST",
    "wake: {methods: ['A B']}": 'wake.methods[0] is "A B": allowed: an HTTP method such as POST',
    "wake: {paths: []}": "wake.paths: unknown key; allowed: methods, ignore, ignore_agents",
    "asleep: {health: 200}": "asleep.health: allowed: a path such as /ready",
    "asleep: {/health: 199}": "asleep./health is 199: allowed: at least 200",
    "asleep: {/health: 600}": "asleep./health is 600: allowed: at most 599",
    "warm: {cron: x}": 'warm is {"cron": "x"}: allowed: a list, such as [a, b]',
    "warm: [{cron: 0 8 * * *, for: 1h}]": "warm[0].timezone: is required",
    "warm: [{cron: 0 25 * * *, for: 1h, timezone: UTC}]": 'warm[0].cron is "0 25 * * *":'
    " '25' is no hour; allowed: 0-23",
    "warm: [{cron: 0 8 * * *, for: 1h, timezone: Europe}]": 'warm[0].timezone is "Europe":'
    " allowed: a name of the time zone database such as Europe/Paris",
    "warm: [{cron: 0 8 * * *, for: 1h, timezone: Mars/Base}]": 'warm[0].timezone is "Mars/Base":'
    " allowed: a name of the time zone database such as Europe/Paris",
    "warm: [{cron: 0 8 * * *, for: 1h, timezone: ../x}]": 'warm[0].timezone is "../x":'
    " allowed: a name of the time zone database such as Europe/Paris",
    "warm: [{cron: 0 8 * * *, for: 1h, timezone: UTC, x: 1}]": "warm[0].x: unknown key; allowed:"
    " cron, for, timezone",
    "exclusive: 0": "exclusive is 0: allowed: a text; put numbers, true, false and dates in quotes",
    "idel: 5s": "idel: unknown key; did you mean idle?",
    "idle_seconds: 5": f"idle_seconds: unknown key; allowed: {EVERY_KEY}",
    "host: x": f"host: unknown key; allowed: {EVERY_KEY}",
    "3: x": "[3] is 3: allowed: keys that are texts",
    "name: " + "x" * 10 + "\n    name: y": "name: is written twice",
}  # fmt: skip


@pytest.mark.parametrize(("line", "problem"), VALUES.items())
def test_bad_value_says_key_value_and_what_is_allowed(
    write: Write, line: str, problem: str
) -> None:
    """One problem, in the operator's words, with its line."""
    found = problems(write(f"{SERVICE}    {line}\n"))

    assert len(found) == 1
    line_number = 5 if "twice" in problem else 4
    dot = "" if problem.startswith("[") else "."
    assert f"map.yaml:{line_number}: services.a.test{dot}{problem}" == found[0]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "map.yaml: allowed: a mapping with the key services"),
        ("[]", "map.yaml: allowed: a mapping with the key services"),
        ("proxy: {}", "map.yaml:1: services: is required"),
        ("services: []", "map.yaml:1: services is []: allowed: a mapping, such as {key: value}"),
        ("services: x", 'map.yaml:1: services is "x": allowed: a mapping, such as {key: value}'),
        (
            "services: {}\nservice: {}",
            "map.yaml:2: service: unknown key; did you mean services?",
        ),
        (
            "services: {}\nx: {}",
            "map.yaml:2: x: unknown key; allowed: proxy, admin, portal, defaults, services",
        ),
        ("services: {a.test: }", ("map.yaml:1: services.a.test is null: allowed: a mapping, such as"
         " {key: value}")),
        ("services: {'a b': {command: [x]}}", ("map.yaml:1: services.a b: allowed: a host name"
         ' without scheme and port, or "*.name"')),
        ("services: {'a.test:80': {command: [x]}}", ("map.yaml:1: services.a.test:80: allowed: a"
         ' host name without scheme and port, or "*.name"')),
        ("services: {1.5: {command: [x]}}", ("map.yaml:1: services.1.5: allowed: a host name"
         ' without scheme and port, or "*.name", in quotes')),
        ("services: {}\ndefaults: 3", ("map.yaml:2: defaults: allowed: a mapping of keys of a"
         " service")),
        ("services: {}\ndefaults: {idle: 3}", ("map.yaml:2: defaults.idle is 3: needs a unit, such"
         " as 3s")),
        ("services: {}\ndefaults: {wake: {x: 3}}", ("map.yaml:2: defaults.wake.x: unknown key;"
         " allowed: methods, ignore, ignore_agents")),
        ("services: {}\nproxy: {port: 3}", ("map.yaml:2: proxy.port: unknown key; allowed: listen,"
         " trusted_proxies, drain_timeout")),
        ("services: {}\nproxy: {trusted_proxies: [10.0.0.1/8]}", ("map.yaml:2:"
         ' proxy.trusted_proxies[0] is "10.0.0.1/8": the address has bits beyond its prefix; write'
         " 10.0.0.0/8")),
        ("services: {}\nadmin: {token: x}", ("map.yaml:2: admin.token: unknown key; did you mean"
         " token_env?")),
        ("services: {}\nportal: '*.test'", ('map.yaml:2: portal is "*.test": allowed: one host,'
         " without wildcard")),
        ("services: {}\nportal: 'http://x'", ('map.yaml:2: portal is "http://x": allowed: a host'
         ' name without scheme and port, or "*.name"')),
        ("services: {wake: {command: [x], idel: 3}}", ("map.yaml:1: services.wake.idel: unknown"
         " key; did you mean idle?")),
    ],
)  # fmt: skip
def test_bad_section_is_one_problem(write: Write, text: str, expected: str) -> None:
    """What is wrong around the services is said as precisely."""
    assert [expected] == problems(write(text))


def test_hosts_in_other_letters_are_the_same(write: Write) -> None:
    """Host names have no case: two spellings would be one service written twice."""
    text = "services:\n  a.test: {command: [x]}\n  A.test: {command: [y]}\n"

    assert ["map.yaml:3: services.a.test: is written twice, in other letters"] == problems(
        write(text)
    )


def test_all_problems_come_at_once_in_the_order_of_the_file(write: Write) -> None:
    """Syntax apart, one run shows everything: values, unknown keys, contradictions."""
    text = """\
proxy:
  listen: 8890
defaults:
  idle: 15
services:
  a.test:
    compose: x
    port: "80"
  b.test:
    command: x
    idle: 3
    warm: [{for: 3}]
    aliases: [c.test]
  c.test:
    compose: y
    directory: z
admin:
  listen: 0.0.0.0:80
"""

    assert [
        (
            "map.yaml:2: proxy.listen is 8890: allowed: an address and port such as"
            " 127.0.0.1:8890 or [::1]:8890, or unix:/a/path.sock"
        ),
        "map.yaml:4: defaults.idle is 15: needs a unit, such as 15s",
        'map.yaml:8: services.a.test.port is "80": allowed: a whole number, without quotes',
        'map.yaml:10: services.b.test.command is "x": allowed: a list, such as [a, b]',
        "map.yaml:11: services.b.test.idle is 3: needs a unit, such as 3s",
        "map.yaml:12: services.b.test.warm[0].cron: is required",
        "map.yaml:12: services.b.test.warm[0].for is 3: needs a unit, such as 3s",
        "map.yaml:12: services.b.test.warm[0].timezone: is required",
        "map.yaml:13: services.b.test.aliases[0]: c.test is already a host of c.test",
        (
            "map.yaml:14: services.c.test.port: is required with compose: the port published on"
            " 127.0.0.1"
        ),
        "map.yaml:16: services.c.test.directory: works only with command",
        (
            "map.yaml:18: admin.listen: 0.0.0.0:80 is public and the environment variable"
            " AUTOSTART_ADMIN_TOKEN holds no token; set it, or listen on 127.0.0.1"
        ),
    ] == problems(write(text))


def test_secret_in_the_wrong_place_is_not_repeated(write: Write) -> None:
    """Values of environment variables stay out of messages and logs."""
    found = problems(write(SERVICE + "    environment: {TOKEN: 271828}\n"))

    assert "271828" not in "".join(found)


def test_long_value_is_cut(write: Write) -> None:
    """A message fits a line."""
    found = problems(write(SERVICE + f"    mode: {'x' * 1000}\n"))

    assert [f'map.yaml:4: services.a.test.mode is "{"x" * 59}…: allowed: hold, page'] == found


def test_missing_file_says_so(tmp_path: Path) -> None:
    """The path and the system's word for it."""
    assert ["map.yaml: No such file or directory"] == problems(tmp_path / "map.yaml")


def test_file_in_another_encoding_says_so(tmp_path: Path) -> None:
    """Only UTF-8 is read, whatever the machine's locale."""
    path = tmp_path / "map.yaml"
    path.write_bytes(b"portal: caf\xe9\n")

    assert ["map.yaml: not UTF-8 text: unexpected end of data"] == [
        re.sub("invalid continuation byte", "unexpected end of data", problem)
        for problem in problems(path)
    ]


def test_key_that_is_no_text_is_a_problem(write: Write) -> None:
    """YAML's null as a path: reported where it stands, and reading goes on."""
    found = problems(write(SERVICE + "    asleep: {null: 200}\n    idle: 3\n"))

    assert [
        "map.yaml:4: services.a.test.asleep.None: allowed: a path such as /ready",
        "map.yaml:5: services.a.test.idle is 3: needs a unit, such as 3s",
    ] == found


def test_loop_of_anchors_is_a_problem(write: Write) -> None:
    """YAML can contain itself; a map cannot."""
    assert problems(write("services: &a {x.test: *a}\n"))


@pytest.mark.parametrize("environ", [{}, {"TOKEN": ""}, {"TOKEN": " "}])
def test_public_admin_needs_a_token(write: Write, environ: dict[str, str]) -> None:
    """An empty token is none."""
    text = "services: {}\nadmin: {listen: 192.0.2.1:80, token_env: TOKEN}"

    assert [
        (
            "map.yaml:2: admin.listen: 192.0.2.1:80 is public and the environment variable TOKEN"
            " holds no token; set it, or listen on 127.0.0.1"
        )
    ] == problems(write(text), environ)


def test_public_admin_with_a_token_is_allowed(write: Write) -> None:
    """The token is looked up where the map says."""
    path = write("services: {}\nadmin: {listen: 192.0.2.1:80, token_env: TOKEN}")

    assert load(path, {"TOKEN": "t"}).admin.listen == TcpAddress("192.0.2.1", 80)
