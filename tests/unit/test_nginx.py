"""autostart/nginx: a map in, server blocks out; what is in the map stays a value."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest

from autostart.config import Access, Map, ProxyConfig, ServiceConfig, TcpAddress, UnixAddress
from autostart.errors import ConfigError
from autostart.nginx import Options, doubts, hosts, render
from autostart.nginx.blocks import TEMPLATES
from autostart.nginx.trial import Installed, for_trial, introduced
from autostart.nginx.words import Text, comment, word

WHISPER = ServiceConfig("whisper.example.com", name="Whisper", aliases=("stt.example.com",))
LOCKED = ServiceConfig("locked.example.com", access=Access(keys_env="KEYS"))
CALLED = ServiceConfig("called.example.com", cors=("https://portal.example.com",))
DOCS = Path(__file__).parents[2] / "docs/nginx.md"

Directive = tuple[str, ...]

TOKEN = re.compile(
    r"""\s+|\#[^\n]*"""
    r"""|([;{}])"""
    r"""|"((?:\\.|[^"\\])*)"|'((?:\\.|[^'\\])*)'"""
    r"""|((?:\$\{|[^\s;{}])+)""",
    re.DOTALL,
)


@dataclass
class Block:
    """A block of nginx's, with its directives by name."""

    head: Directive
    directives: list[Directive]
    blocks: list[Block]

    def values(self, name: str) -> list[Directive]:
        return [words[1:] for words in self.directives if words[0] == name]

    def value(self, name: str) -> Directive | None:
        found = self.values(name)
        return found[0] if found else None

    def within(self, *head: str) -> list[Block]:
        return [block for block in self.blocks if block.head[: len(head)] == head]


def tokens(text: str) -> Iterator[str]:
    """Read words, ";", "{" and "}" as ngx_conf_read_token does; quoted words begin with a quote."""
    pattern = (
        r"""\s+|\#[^\n]*|([;{}])|"((?:\\.|[^"\\])*)"|'((?:\\.|[^'\\])*)'|((?:\$\{|[^\s;{}])+)"""
    )
    position = 0
    while position < len(text):
        match = re.compile(pattern, re.DOTALL).match(text, position)
        assert match is not None, text[position:]
        position = match.end()
        sign, double, single, bare = match.groups()
        quoted = double if double is not None else single
        if quoted is not None:
            yield '"' + re.sub(r"\\(.)", r"\1", quoted)
        elif sign or bare:
            yield sign or bare


def parsed(text: str) -> Block:
    """Return the text as nginx reads it."""
    top = Block((), [], [])
    open_blocks, words = [top], []
    for token in tokens(text):
        if token == ";":
            open_blocks[-1].directives.append(tuple(word.removeprefix('"') for word in words))
        elif token == "{":
            block = Block(tuple(word.removeprefix('"') for word in words), [], [])
            open_blocks[-1].blocks.append(block)
            open_blocks.append(block)
        elif token == "}":
            assert not words
            open_blocks.pop()
        else:
            words.append(token)
            continue
        words = []
    assert open_blocks == [top]
    return top


def shape(block: Block) -> Any:
    """Return the names of everything, without the values that a map gives."""
    directives = [words[0] for words in block.directives]
    return directives, [(inner.head[0], shape(inner)) for inner in block.blocks]


def declared(*services: ServiceConfig, **more: Any) -> Map:
    return Map(Path("/etc/autostart.yaml"), services={each.host: each for each in services}, **more)


def top(*services: ServiceConfig, options: Options | None = None, **more: Any) -> Block:
    return parsed(render(declared(*services, **more), options or Options()))


def server(of: Block, host: str) -> Block:
    """Return the TLS server of a host."""
    found = [
        block
        for block in of.within("server")
        if host in (block.value("server_name") or ()) and block.value("ssl_protocols")
    ]
    assert len(found) == 1, host
    return found[0]


def plain_server(of: Block) -> Block:
    """Return the server of port 80."""
    return of.within("server")[0]


def location(of: Block, host: str) -> Block:
    (found,) = server(of, host).within("location")
    return found


# Which servers there are.


def test_each_service_has_one_server_with_all_its_names() -> None:
    """Aliases and wildcards are names of the same server."""
    wild = ServiceConfig("*.wild.example.com", aliases=("wild.example.com",))
    text = top(WHISPER, wild)

    assert ("whisper.example.com", "stt.example.com") == server(text, WHISPER.host).value(
        "server_name"
    )
    assert ("*.wild.example.com", "wild.example.com") == server(text, wild.host).value(
        "server_name"
    )


def test_port_80_leads_every_name_to_https() -> None:
    """With its method, and without touching what certbot's webroot needs."""
    plain = plain_server(top(WHISPER, LOCKED, portal="portal.example.com"))
    challenges, rest = plain.within("location")

    assert (
        "whisper.example.com",
        "stt.example.com",
        "locked.example.com",
        "portal.example.com",
    ) == plain.value("server_name")
    assert [("80",), ("[::]:80",)] == plain.values("listen")
    assert ("location", "^~", "/.well-known/acme-challenge/") == challenges.head
    assert ("/var/www/html",) == challenges.value("root")
    assert ("308", "https://$host$request_uri") == rest.value("return")


def test_the_portal_has_a_server_behind_the_login() -> None:
    """It waits as long as the most patient service, whose calls it shows."""
    slow = replace(WHISPER, response_timeout_seconds=7200.0)
    text = top(slow, portal="portal.example.com")

    assert ("autostart",) == server(text, "portal.example.com").value("auth_basic")
    assert ("7390s",) == location(text, "portal.example.com").value("proxy_read_timeout")


def test_without_a_portal_there_is_none() -> None:
    """No server, and no name on port 80."""
    assert "portal" not in render(declared(WHISPER), Options())


def test_another_name_is_rejected_before_it_learns_a_certificate() -> None:
    """The first TLS server is its port's default, without claiming to be: another file may."""
    _, rejecting, *_ = top(WHISPER).within("server")

    assert [("on",), ("421",), None] == [
        rejecting.value(name) for name in ("ssl_reject_handshake", "return", "server_name")
    ]
    assert [("443", "ssl", "http2"), ("[::]:443", "ssl", "http2")] == rejecting.values("listen")


def test_http_only_needs_no_certificate() -> None:
    """Before certbot has one, the server of port 80 stands alone."""
    text = top(WHISPER, options=Options(http_only=True))

    assert 1 == len(text.blocks)
    assert WHISPER.host in (plain_server(text).value("server_name") or ())


def test_an_address_gets_no_server() -> None:
    """TLS does not say which address is meant; the other names of its service are served."""
    service = ServiceConfig("192.0.2.1", aliases=("name.example.com",))
    text = top(service, ServiceConfig("::1"))

    assert ("name.example.com",) == server(text, "name.example.com").value("server_name")
    assert ("name.example.com",) == plain_server(text).value("server_name")
    assert [True] == ["is an address" in doubt for doubt in doubts(declared(service, LOCKED))]


def test_a_map_without_names_is_refused() -> None:
    """Nothing could be printed for it."""
    with pytest.raises(ConfigError, match="no service has a name"):
        render(declared(ServiceConfig("192.0.2.1")), Options())


# Certificates.


@pytest.mark.parametrize(
    ("service", "folder"),
    [
        (WHISPER, "/etc/letsencrypt/live/whisper.example.com"),
        (ServiceConfig("*.example.com"), "/etc/letsencrypt/live/example.com"),
    ],
)
def test_certificates_are_where_certbot_puts_them(service: ServiceConfig, folder: str) -> None:
    """Under the first name; certbot leaves the star of a wildcard out."""
    block = server(top(service), service.host)

    assert (f"{folder}/fullchain.pem",) == block.value("ssl_certificate")
    assert (f"{folder}/privkey.pem",) == block.value("ssl_certificate_key")


def test_certificates_may_be_elsewhere() -> None:
    """--certificates names another folder, with the same names in it."""
    block = server(top(WHISPER, options=Options(certificates=Path("/srv/tls"))), WHISPER.host)

    assert ("/srv/tls/whisper.example.com/fullchain.pem",) == block.value("ssl_certificate")


def test_certbots_command_names_what_the_certificate_is_for() -> None:
    """By webroot; a wildcard by DNS, together with the service that shares its folder."""
    star, bare = ServiceConfig("*.example.com"), ServiceConfig("example.com")
    options = Options(webroot=Path("/srv/the root"))
    commands = [
        host.certificate.certbot(options.webroot)
        for host in hosts(declared(WHISPER, star, bare), options)
    ]
    both = "certbot certonly --preferred-challenges dns -d '*.example.com' -d example.com"

    assert [
        "certbot certonly --webroot -w '/srv/the root' -d whisper.example.com -d stt.example.com",
        both,
        both,
    ] == commands


def test_a_trial_does_without_what_is_missing() -> None:
    """A server without its certificate rejects handshakes, on as many lines as before."""
    folder = Path("/etc/letsencrypt/live/whisper.example.com")
    whole = render(declared(WHISPER), Options())
    without = render(declared(WHISPER), Options(missing=frozenset({folder})))
    block = server(parsed(without), WHISPER.host)

    assert (("on",), None) == (block.value("ssl_reject_handshake"), block.value("ssl_certificate"))
    assert whole.count("\n") == without.count("\n")


# Who gets in.


def test_nginx_asks_for_a_login_where_autostart_does_not() -> None:
    """Bearer and Basic share one header: a service with access is left to autostart."""
    text = top(WHISPER, LOCKED)

    assert ("/etc/nginx/.htpasswd",) == server(text, WHISPER.host).value("auth_basic_user_file")
    assert None is server(text, LOCKED.host).value("auth_basic_user_file")
    assert None is server(text, LOCKED.host).value("auth_basic")


def test_a_login_can_be_left_off() -> None:
    """--no-basic-auth, for what is for everybody."""
    assert "auth_basic" not in render(declared(WHISPER, CALLED), Options(basic_auth=False))


def test_preflights_pass_only_where_autostart_answers_them() -> None:
    """It does where the map sets cors; elsewhere one would reach the service."""
    text = top(WHISPER, CALLED)

    assert ("$autostart_login",) == location(text, CALLED.host).value("auth_basic")
    assert None is location(text, WHISPER.host).value("auth_basic")


@pytest.mark.parametrize(
    ("asked", "passes"),
    [
        ("OPTIONS POST https://portal.example.com", True),
        ("OPTIONS  https://portal.example.com", False),
        ("OPTIONS POST ", False),
        ("OPTIONS A B ", False),
        ("OPTIONS A B https://portal.example.com", False),
        ("OPTIONS  ", False),
        ("GET POST https://portal.example.com", False),
        ("OPTIONSX POST https://portal.example.com", False),
        ("XOPTIONS POST https://portal.example.com", False),
    ],
)
def test_a_preflight_has_all_three_parts(asked: str, passes: bool) -> None:
    """The method, the method asked for and the origin; each is one word."""
    (login,) = [block for block in top(CALLED).within("map") if "$autostart_login" in block.head]
    ((expression, off),) = [words for words in login.directives if words[0].startswith("~")]

    assert (
        "map",
        "$request_method $http_access_control_request_method $http_origin",
        "$autostart_login",
    ) == login.head
    assert (passes, "off") == (bool(re.search(expression[1:], asked)), off)


def test_autostart_alone_says_what_other_pages_may() -> None:
    """Two answers with Access-Control headers would be refused by browsers."""
    assert "Access-Control-Allow" not in render(declared(WHISPER, CALLED), Options())


# How requests go on.


def test_every_host_keeps_the_promises() -> None:
    """What nginx could break, and does by default, is switched off for each."""
    text = top(WHISPER, LOCKED, CALLED, portal="portal.example.com")
    promised = {
        "proxy_pass": ("http://autostart_proxy",),
        "proxy_http_version": ("1.1",),
        "proxy_request_buffering": ("off",),
        "proxy_buffering": ("off",),
        "proxy_next_upstream": ("off",),
        "proxy_redirect": ("off",),
        "proxy_intercept_errors": ("off",),
        "gzip": ("off",),
        "client_max_body_size": ("0",),
    }

    for host in (WHISPER.host, LOCKED.host, CALLED.host, "portal.example.com"):
        block = location(text, host)
        assert promised == {name: block.value(name) for name in promised}
        assert ("Host", "$host$autostart_port") in block.values("proxy_set_header")
        assert ("X-Forwarded-For", "$remote_addr") in block.values("proxy_set_header")


def test_nginx_waits_longer_than_autostart_may_be_silent() -> None:
    """A stop, two holds and a silent service, one after the other, and a minute."""
    service = ServiceConfig(
        "slow.example.com",
        stop_timeout_seconds=5.0,
        hold_timeout_seconds=100.5,
        response_timeout_seconds=1000.0,
        request_timeout_seconds=20.0,
    )
    block = location(top(service), service.host)

    assert [("1266s",), ("1266s",), ("1266s",), ("80s",)] == [
        block.value(name)
        for name in (
            "proxy_read_timeout",
            "proxy_send_timeout",
            "send_timeout",
            "client_body_timeout",
        )
    ]


def test_the_limit_of_a_body_is_named() -> None:
    """autostart keeps it; the reader of the file sees it all the same."""
    service = replace(WHISPER, max_body_bytes=1_500_000_000)

    assert "client_max_body_size 0; # max_body: 1500MB\n" in render(declared(service), Options())


@pytest.mark.parametrize(
    ("listen", "address"),
    [
        (TcpAddress("127.0.0.1", 8890), "127.0.0.1:8890"),
        (TcpAddress("localhost", 8890), "127.0.0.1:8890"),
        (TcpAddress("0.0.0.0", 8890), "127.0.0.1:8890"),
        (TcpAddress("::", 8890), "[::1]:8890"),
        (TcpAddress("10.0.0.5", 80), "10.0.0.5:80"),
        (UnixAddress(Path("/run/autostart.sock")), "unix:/run/autostart.sock"),
        (UnixAddress(Path("/run/a: b;{}.sock")), "unix:/run/a: b;{}.sock"),
    ],
)
def test_nginx_goes_where_autostart_listens(listen: Any, address: str) -> None:
    """An address of every interface is reached by loopback."""
    (upstream,) = top(WHISPER, proxy=ProxyConfig(listen)).within("upstream")

    assert ("upstream", "autostart_proxy") == upstream.head
    assert (address,) == upstream.value("server")


def test_a_port_that_is_chosen_each_time_is_refused() -> None:
    """nginx could not know it."""
    with pytest.raises(ConfigError, match=r"proxy\.listen: the port is chosen anew"):
        render(declared(WHISPER, proxy=ProxyConfig(TcpAddress("127.0.0.1", 0))), Options())


@pytest.mark.parametrize(
    ("listen", "trusted", "is_doubted"),
    [
        (TcpAddress("127.0.0.1", 8890), "127.0.0.1/32", False),
        (TcpAddress("::1", 8890), "127.0.0.1/32", True),
        (TcpAddress("::1", 8890), "::1/128", False),
        (TcpAddress("10.0.0.5", 8890), "127.0.0.1/32", True),
        (UnixAddress(Path("/run/autostart.sock")), "10.0.0.0/8", False),
    ],
)
def test_a_proxy_that_is_not_trusted_is_doubted(
    listen: Any, trusted: str, is_doubted: bool
) -> None:
    """Services would see nginx's address instead of their clients'."""
    proxy = ProxyConfig(listen, trusted_proxies=(ip_network(trusted),))

    assert is_doubted == bool(doubts(declared(WHISPER, proxy=proxy)))


# What the machine has, and what its operator chose.


@pytest.mark.parametrize(
    ("version", "listen", "http2", "rejects"),
    [
        ((1, 18, 0), ("443", "ssl", "http2"), None, False),
        ((1, 22, 1), ("443", "ssl", "http2"), None, True),
        ((1, 25, 0), ("443", "ssl", "http2"), None, True),
        ((1, 25, 1), ("443", "ssl"), ("on",), True),
        ((1, 29), ("443", "ssl"), ("on",), True),
    ],
)
def test_each_nginx_is_written_for(
    version: tuple[int, ...], listen: Directive, http2: Directive | None, rejects: bool
) -> None:
    """HTTP/2 is asked for as it knows it, and what it does not know is left out."""
    text = top(WHISPER, options=Options(version=version))
    block = server(text, WHISPER.host)

    assert (listen, http2) == (block.value("listen"), block.value("http2"))
    assert rejects == any(block.value("ssl_reject_handshake") for block in text.within("server"))


def test_other_ports_are_named_in_the_redirect() -> None:
    """--http-port and --https-port, for an nginx that may not listen on 80 and 443."""
    text = top(WHISPER, options=Options(http_port=8080, https_port=8443))

    assert [("8080",), ("[::]:8080",)] == plain_server(text).values("listen")
    assert ("8443", "ssl", "http2") == server(text, WHISPER.host).value("listen")
    assert ("308", "https://$host:8443$request_uri") == (
        plain_server(text).within("location")[1].value("return")
    )


def test_a_machine_without_ipv6_is_asked_for_none() -> None:
    """nginx would not start."""
    assert "[::]" not in render(declared(WHISPER), Options(ipv6=False))


def test_an_own_snippet_is_included_in_place_of_ours() -> None:
    """By its absolute path, where ours would stand; preflights pass all the same."""
    own = Options(own_snippets={"basic-auth": Path("/etc/nginx/my snippets/basic-auth.conf")})
    text = top(WHISPER, CALLED, options=own)
    block = server(text, CALLED.host)

    assert ("/etc/nginx/my snippets/basic-auth.conf",) == block.value("include")
    assert (None, None) == (block.value("auth_basic"), block.value("auth_basic_user_file"))
    assert ("$autostart_login",) == location(text, CALLED.host).value("auth_basic")
    assert ("TLSv1.2", "TLSv1.3") == block.value("ssl_protocols")


def test_comments_of_a_snippet_are_printed_once() -> None:
    """Of a hundred services, ninety-nine would say the same again."""
    services = [ServiceConfig(f"s{number}.example.com") for number in range(100)]
    text = render(declared(*services), Options())

    assert 1 == text.count("HTTP/1.0 unless told otherwise")
    assert 100 == text.count("proxy_request_buffering off;")


@pytest.mark.parametrize(
    ("characters", "size"), [(46, None), (47, "128"), (110, "128"), (111, "256"), (253, "512")]
)
def test_long_names_have_room(characters: int, size: str | None) -> None:
    """nginx's table of names takes 46 characters by default, and does not start with more."""
    name = ("a" * 50 + ".") * 5
    long = ServiceConfig(name[: characters - 1] + "b")
    text = top(long)

    assert (size and (size,)) == text.value("server_names_hash_bucket_size")


# Nothing of the map becomes a directive.

HOSTILE = [
    "a;return 200",
    "a { } server",
    "a\nserver_name evil;",
    "a b",
    "$host",
    "~^.*$",
    'a" b "',
    "a'",
    "a#b",
    "a\\",
    "é.example.com",
    "",
]


@pytest.mark.parametrize("host", HOSTILE)
def test_a_host_that_is_no_name_is_refused(host: str) -> None:
    """The map's own check refuses it before; a map may be made without it."""
    for service in (ServiceConfig(host), ServiceConfig("a.example.com", aliases=(host,))):
        with pytest.raises(ConfigError, match="is no host name"):
            render(declared(service), Options())
    if host:
        with pytest.raises(ConfigError, match="is no host name"):
            render(declared(WHISPER, portal=host), Options())


@pytest.mark.parametrize("text", [*HOSTILE, "a\r\nb", "a\0b", "a\x85b", "a\u2028b"])
def test_texts_stay_in_their_comment(text: str) -> None:
    """The name of a service and the map's path are for readers: one line, whatever is in it."""
    hostile = replace(declared(replace(WHISPER, name=text)), path=Path(f"/etc/{text}"))

    assert shape(top(WHISPER)) == shape(parsed(render(hostile, Options())))


@pytest.mark.parametrize("path", ["/a;b", "/a b", '/a"b', "/a'b", "/a{b}", "/a#b", "/a\\b", "/é"])
def test_paths_are_one_word(path: str) -> None:
    """Whatever an operator calls his folders."""
    options = Options(certificates=Path(path), webroot=Path(path))
    text = top(WHISPER, options=options, proxy=ProxyConfig(UnixAddress(Path(path))))

    assert shape(top(WHISPER)) == shape(text)
    assert (path,) == plain_server(text).within("location")[0].value("root")
    assert (f"{path}/{WHISPER.host}/privkey.pem",) == server(text, WHISPER.host).value(
        "ssl_certificate_key"
    )
    assert (f"unix:{path}",) == text.within("upstream")[0].value("server")


@pytest.mark.parametrize("path", ["/$uri", "/a\nb", "/a\0b", "/a\x7f"])
def test_paths_that_nginx_cannot_take_literally_are_refused(path: str) -> None:
    """It has no way to escape a $."""
    for options in (Options(certificates=Path(path)), Options(webroot=Path(path))):
        with pytest.raises(ConfigError, match="cannot stand in nginx's configuration"):
            render(declared(WHISPER), options)
    with pytest.raises(ConfigError, match="cannot stand in nginx's configuration"):
        render(declared(WHISPER, proxy=ProxyConfig(UnixAddress(Path(path)))), Options())


def test_an_own_snippet_is_one_file() -> None:
    """nginx would read * as a pattern."""
    with pytest.raises(ConfigError, match="as a pattern"):
        render(declared(WHISPER), Options(own_snippets={"tls": Path("/a*/tls.conf")}))


def test_random_texts_change_no_directive() -> None:
    """Any text as a name or path: the same directives, or a refusal."""
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    dice = random.Random(seed)
    plain = shape(top(WHISPER))
    signs = "ab /;{}\"'\\#$\n\r\t\0é*~"
    for _ in range(500):
        name, path = ("".join(dice.choices(signs, k=dice.randrange(1, 12))) for _ in range(2))
        options = Options(certificates=Path("/" + path), webroot=Path("/" + path))
        hostile = declared(replace(WHISPER, name=name))
        try:
            text = render(hostile, options)
        except ConfigError:
            assert re.search(r"[$\n\r\t\0]", path), path
        else:
            assert plain == shape(parsed(text)), (name, path)


@pytest.mark.parametrize(
    ("value", "written"),
    [
        ("plain-1.example.com", "plain-1.example.com"),
        (443, "443"),
        (Path("/a/b.pem"), "/a/b.pem"),
        ("", '""'),
        ("a b", '"a b"'),
        ('a"b', '"a\\"b"'),
        ("a\\b", '"a\\\\b"'),
        (Text("a { $b; }"), "a { $b; }"),
    ],
)
def test_a_value_is_one_word(value: object, written: str) -> None:
    """Bare where it means nothing else, else in quotes; text that says it is text stays."""
    assert written == word(value)


def test_a_comment_is_one_line() -> None:
    """What is no letter of a line becomes a space."""
    assert "# a b c  d" == comment("a b\nc\r\0d")


# The trial.


def test_a_trial_needs_no_privilege() -> None:
    """Ports of root become others, which nginx opens and does not listen on."""
    tried = for_trial(Options(https_port=8443))

    assert (20_080, 8443) == (tried.http_port, tried.https_port)


@pytest.mark.parametrize(
    ("said", "version"),
    [
        ("nginx version: nginx/1.22.1\nbuilt with OpenSSL", (1, 22, 1)),
        ("nginx version: nginx/1.24.0 (Ubuntu)\n", (1, 24, 0)),
        ("nginx version: openresty/1.25.3.1\n", (1, 25, 3, 1)),
        ("nginx: command not understood", None),
    ],
)
def test_nginx_says_its_version(said: str, version: tuple[int, ...] | None) -> None:
    """Its relatives do too; what says none is none."""
    known = None if version is None else Installed("/usr/sbin/nginx", version, said)

    assert known == introduced("/usr/sbin/nginx", said)


# The page about it.


def test_every_directive_is_explained() -> None:
    """docs/nginx.md names each directive of the template and of the snippets."""
    text = top(WHISPER, LOCKED, CALLED, portal="portal.example.com")
    names = {
        words[0]
        for block in (text, *text.blocks, *(each for one in text.blocks for each in one.blocks))
        for words in block.directives
        if re.fullmatch(r"[a-z_0-9]+", words[0]) and block.head[:1] != ("map",)
    }
    page = DOCS.read_text()

    assert [] == sorted(name for name in names if f"`{name}" not in page)


def test_the_snippets_are_shipped() -> None:
    """They are files of the package, also where it was not installed from this folder."""
    assert {"autostart.conf.jinja", "basic-auth.conf", "proxy.conf", "tls.conf"} == {
        path.name for path in TEMPLATES.iterdir()
    }
