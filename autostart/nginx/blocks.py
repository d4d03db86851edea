"""The map → server blocks.

Pure but for the template and the snippets, which are files of this package. What the machine has
(its nginx, IPv6, the operator's own snippets) is said by `Options`.
"""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from ipaddress import ip_address
from pathlib import Path

import jinja2

from autostart.config import Address, Map, ServiceConfig, TcpAddress, format_size
from autostart.errors import ConfigError
from autostart.nginx.words import Text, comment, word

TEMPLATES = Path(__file__).parent / "templates"
SNIPPETS = ("basic-auth", "tls", "proxy")

HTTP_PORT = 80
HTTPS_PORT = 443

Version = tuple[int, ...]
# Debian 12's; what is printed for it works with newer ones too, which warn about `listen … http2`.
VERSION_ASSUMED: Version = (1, 22, 1)
_HAS_HTTP2_DIRECTIVE: Version = (1, 25, 1)
_HAS_REJECT_HANDSHAKE: Version = (1, 19, 4)

# What autostart may take beyond the limits of the map: to force a stop (15 s), to send its refusal.
MARGIN_SECONDS = 60
_NAME = re.compile(r"(\*\.)?[a-z0-9_-]+(\.[a-z0-9_-]+)*")
# nginx's server_names_hash_bucket_size on a processor whose cache lines have 64 bytes.
_BUCKET_BYTES = 64


@dataclass(frozen=True)
class Options:
    """What an operator may choose, and what is known of the machine."""

    certificates: Path = Path("/etc/letsencrypt/live")
    webroot: Path = Path("/var/www/html")
    own_snippets: Mapping[str, Path] = field(default_factory=dict)
    """Included instead of printing ours, by the name of ours."""
    basic_auth: bool = True
    http_only: bool = False
    """Only the server of port 80, which needs no certificate."""
    http_port: int = HTTP_PORT
    https_port: int = HTTPS_PORT
    ipv6: bool = True
    version: Version = VERSION_ASSUMED
    missing: frozenset[Path] = frozenset()
    """Folders of certificates that are not here: in a trial their servers reject handshakes."""


@dataclass(frozen=True)
class Certificate:
    """Where nginx reads it, and the names it is for."""

    folder: Path
    names: tuple[str, ...]

    @property
    def files(self) -> tuple[Path, Path]:
        """The certificate with its chain, and its key."""
        return self.folder / "fullchain.pem", self.folder / "privkey.pem"

    def certbot(self, webroot: Path) -> str:
        """Return the command that gets it; certbot proves a wildcard by DNS alone."""
        names = " ".join(f"-d {shlex.quote(name)}" for name in self.names)
        if any(name.startswith("*.") for name in self.names):
            return f"certbot certonly --preferred-challenges dns {names}"
        return f"certbot certonly --webroot -w {shlex.quote(str(webroot))} {names}"


@dataclass(frozen=True)
class Host:
    """One TLS server: a service under its names, or the portal."""

    service: ServiceConfig
    names: tuple[str, ...]
    certificate: Certificate
    asks: bool
    """nginx asks for a login."""

    @property
    def passes_preflights(self) -> bool:
        """Whether it asks no login of CORS preflights: autostart answers them itself here."""
        return self.asks and bool(self.service.cors)

    @property
    def max_body(self) -> str:
        """As the map writes it."""
        return format_size(self.service.max_body_bytes)

    @property
    def silence_seconds(self) -> int:
        """How long autostart may neither answer nor read on.

        A request that comes while its service stops waits for that, then for its turn among the
        exclusive ones, then for the start; then the service may think.
        """
        service = self.service
        waits = service.stop_timeout_seconds + 2 * service.hold_timeout_seconds
        return math.ceil(waits + service.response_timeout_seconds) + MARGIN_SECONDS

    @property
    def body_silence_seconds(self) -> int:
        """How long a client may take for the next bytes of its request."""
        return math.ceil(self.service.request_timeout_seconds) + MARGIN_SECONDS


def render(declared: Map, options: Options) -> str:
    """Return the server blocks of a map, one file for nginx's http context.

    Raises ConfigError where a value of the map cannot stand in it.
    """
    served = hosts(declared, options)
    if not served:
        raise ConfigError([f"{declared.path}: no service has a name that a certificate could hold"])
    names = [name for host in served for name in host.names]
    template = _environment().get_template("autostart.conf.jinja")
    return template.render(
        map_path=str(declared.path),
        address=_address(declared.proxy.listen),
        hosts=served,
        all_names=names,
        bucket_size=_bucket_size(max(map(len, names))),
        passes_preflights=any(host.passes_preflights for host in served),
        rejects_handshakes=options.version >= _HAS_REJECT_HANDSHAKE,
        listen=lambda port: [port, f"[::]:{port}"] if options.ipv6 else [port],
        http2_of_listen=options.version < _HAS_HTTP2_DIRECTIVE,
        options=options,
        comment=comment,
        snippet=_Snippets(options.own_snippets),
    )


def hosts(declared: Map, options: Options) -> list[Host]:
    """Return the TLS servers of a map; raises ConfigError for a host that is no name."""
    named = [(service, names) for service in _served(declared) if (names := _names(service))]
    by_folder: dict[Path, tuple[str, ...]] = {}
    for _, names in named:
        folder = _folder(names, options)
        by_folder[folder] = (*by_folder.get(folder, ()), *names)
    return [
        Host(
            service,
            names,
            Certificate(folder := _folder(names, options), by_folder[folder]),
            asks=options.basic_auth and service.access is None,
        )
        for service, names in named
    ]


def doubts(declared: Map) -> list[str]:
    """Return what nginx cannot do as the map wants it, one line each."""
    found = [
        f"{name}: is an address, and the certificates of TLS are for names: no server is printed"
        for service in _served(declared)
        for name in (service.host, *service.aliases)
        if _is_address(name)
    ]
    listen, trusted = declared.proxy.listen, declared.proxy.trusted_proxies
    if isinstance(listen, TcpAddress):
        # Whoever connects to an address of his own machine comes from that address.
        near = ip_address(_reachable(listen))
        if not any(near in network for network in trusted):
            found.append(
                f"proxy.trusted_proxies: nginx comes from {near}, which is not among them: "
                "services see its address instead of their clients'"
            )
    return found


def _served(declared: Map) -> list[ServiceConfig]:
    """Return the services, and the portal as if it were one."""
    services = list(declared.services.values())
    if declared.portal is None:
        return services
    # Its pages wait for what they call and follow, and need no more than that.
    silence = max((each.response_timeout_seconds for each in services), default=0.0)
    portal = ServiceConfig(declared.portal, "the portal", response_timeout_seconds=silence)
    return [*services, portal]


def _names(service: ServiceConfig) -> tuple[str, ...]:
    names = tuple(name for name in (service.host, *service.aliases) if not _is_address(name))
    for name in names:
        if _NAME.fullmatch(name) is None:
            raise ConfigError([f"services.{service.host}: {name!r} is no host name"])
    return names


def _folder(names: tuple[str, ...], options: Options) -> Path:
    return options.certificates / names[0].removeprefix("*.")  # as certbot names it


def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True


def _address(listen: Address) -> str:
    """Return where nginx reaches what listens there."""
    if not isinstance(listen, TcpAddress):
        return str(listen)
    if not listen.port:
        raise ConfigError(["proxy.listen: the port is chosen anew each time: write one for nginx"])
    return str(TcpAddress(_reachable(listen), listen.port))


def _reachable(listen: TcpAddress) -> str:
    if listen.host in {"localhost", "0.0.0.0"}:  # noqa: S104 - compared, not bound
        return "127.0.0.1"
    return "::1" if listen.is_every_interface else listen.host


def _bucket_size(longest_name: int) -> int | None:
    """Return what nginx's hash of names needs; None where its default will do."""
    size = _BUCKET_BYTES
    # Of a bucket, a pointer, a length and the end take 18 bytes, and names are padded to 8.
    while longest_name + 2 > (size - 16) // 8 * 8:
        size *= 2
    return size if size > _BUCKET_BYTES else None


class _Snippets:
    """Prints a snippet with its comments once, and bare after that; or includes the operator's."""

    def __init__(self, own: Mapping[str, Path]) -> None:
        self._own = own
        self._printed: set[str] = set()

    def __call__(self, name: str, indent: int) -> Text:
        lines = self._lines(name)
        return Text("\n".join(" " * indent + line if line else "" for line in lines))

    def _lines(self, name: str) -> list[str]:
        if own := self._own.get(name):
            if any(each in str(own) for each in "*?["):
                raise ConfigError([f"{own}: nginx would read *, ? and [ as a pattern"])
            return [f"include {word(own)};"]
        lines = (TEMPLATES / f"{name}.conf").read_text(encoding="utf-8").splitlines()
        if name in self._printed:
            return [line for line in lines if line and not line.startswith("#")]
        self._printed.add(name)
        return lines


@cache
def _environment() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        undefined=jinja2.StrictUndefined,
        autoescape=False,  # noqa: S701 - no HTML; finalize makes each value a word of nginx's
        finalize=word,
        keep_trailing_newline=True,
    )
