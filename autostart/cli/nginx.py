"""`autostart nginx`: prints server blocks for the map, or says what keeps nginx from serving it."""

from __future__ import annotations

import errno
import grp
import os
import pwd
import re
import socket
import stat
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from autostart.cli.failure import FAILED, CommandFailed
from autostart.cli.location import Location
from autostart.config import Map, load
from autostart.config.address import PORT_MAX

if TYPE_CHECKING:
    from autostart.nginx import Host, Installed, Options

PORT = click.IntRange(1, PORT_MAX)
FOLDER = click.Path(path_type=Path, file_okay=False)

# As nginx.org's packages, Debian, and nginx itself have it; Debian has www-data without nginx too.
_WORKERS = ("nginx", "www-data", "nobody")
_PASSWORDS = re.compile(r"^\s*auth_basic_user_file\s+\"?(?P<path>/[^\s;\"]+)", re.MULTILINE)


@click.command()
@click.option("--check", is_flag=True, help="Print nothing; say what keeps nginx from serving it.")
@click.option(
    "--certificates",
    type=FOLDER,
    default="/etc/letsencrypt/live",
    show_default=True,
    help="Holds HOST/fullchain.pem and HOST/privkey.pem.",
)
@click.option(
    "--snippets",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Include its basic-auth.conf, tls.conf or proxy.conf instead of printing ours.",
)
@click.option("--no-basic-auth", is_flag=True, help="Let nginx ask nobody for a login.")
@click.option("--http-only", is_flag=True, help="Only port 80, until there are certificates.")
@click.option(
    "--webroot",
    type=FOLDER,
    default="/var/www/html",
    show_default=True,
    help="Where certbot puts what proves that a name is yours.",
)
@click.option("--http-port", type=PORT, default=80, show_default=True, help="For plain HTTP.")
@click.option("--https-port", type=PORT, default=443, show_default=True, help="For HTTPS.")
@click.pass_obj
def nginx(
    location: Location,
    *,
    check: bool,
    certificates: Path,
    snippets: Path | None,
    no_basic_auth: bool,
    http_only: bool,
    webroot: Path,
    http_port: int,
    https_port: int,
) -> int:
    """Print server blocks for nginx.

    One file, with nothing to copy beside it:
    autostart nginx >/etc/nginx/conf.d/autostart.conf
    """
    # Only here: the other commands need no templates and should answer at once.
    from autostart import nginx as blocks  # noqa: PLC0415 - see above

    declared = load(location.path)
    here = blocks.installed()
    options = blocks.Options(
        certificates=certificates.absolute(),
        webroot=webroot.absolute(),
        own_snippets=_own_snippets(snippets, blocks.SNIPPETS),
        basic_auth=not no_basic_auth,
        http_only=http_only,
        http_port=http_port,
        https_port=https_port,
        ipv6=_has_ipv6(),
    )
    if here is not None:
        options = replace(options, version=here.version)
    text = blocks.render(declared, options)
    for doubt in blocks.doubts(declared):
        click.echo(f"warning: {doubt}", err=True)
    if check:
        return _check(declared, options, here, text)
    click.echo(text, nl=False)
    return 0


@dataclass(frozen=True)
class _Finding:
    text: str
    is_fatal: bool = True


def _check(declared: Map, options: Options, here: Installed | None, text: str) -> int:
    from autostart import nginx as blocks  # noqa: PLC0415 - as above

    if here is None:
        raise CommandFailed("there is no nginx on this machine", "apt install nginx")
    hosts = [] if options.http_only else blocks.hosts(declared, options)
    missing, findings = _examine_certificates(hosts, options)
    if any(host.asks for host in hosts):
        findings += _examine_passwords(text, options)
    trial = blocks.for_trial(replace(options, missing=missing))
    verdict = blocks.try_out(blocks.render(declared, trial), here)
    findings += [_Finding(f"{here}: {line}", not verdict.works) for line in verdict.lines]
    for finding in findings:
        click.echo(finding.text if finding.is_fatal else f"warning: {finding.text}")
    if fatal := sum(finding.is_fatal for finding in findings):
        click.echo(f"error: {fatal} problem{'s' * (fatal > 1)}", err=True)
        return FAILED
    click.echo(f"{here}: {len(hosts) or 'no'} TLS server{'s' * (len(hosts) != 1)}, no problems")
    return 0


def _own_snippets(folder: Path | None, names: tuple[str, ...]) -> dict[str, Path]:
    if folder is None:
        return {}
    files = {name: folder.absolute() / f"{name}.conf" for name in names}
    own = {name: file for name, file in files.items() if file.exists()}
    if not own:
        wanted = ", ".join(f"{name}.conf" for name in names)
        raise click.UsageError(f"--snippets: {folder} holds none of {wanted}")
    return own


def _has_ipv6() -> bool:
    """Say whether nginx could listen on [::]; where the kernel has no IPv6, it would not start."""
    try:
        socket.socket(socket.AF_INET6, socket.SOCK_STREAM).close()
    except OSError:
        return False
    return True


# Certificates.


def _examine_certificates(
    hosts: list[Host], options: Options
) -> tuple[frozenset[Path], list[_Finding]]:
    """Return the folders of those that a trial must do without, and what to say of them."""
    findings = {}
    for host in hosts:
        certificate = host.certificate
        for file in certificate.files:
            try:
                file.open("rb").close()
            except PermissionError:
                text = f"{options.certificates}: only root may look into it, so it was not"
                findings[certificate.folder] = _Finding(text, is_fatal=False)
            except OSError as error:
                what = "is not here yet" if error.errno == errno.ENOENT else error.strerror
                text = f"{file} {what}: {certificate.certbot(options.webroot)}"
                findings[certificate.folder] = _Finding(text)
                break
    return frozenset(findings), list(dict.fromkeys(findings.values()))


# Logins.


def _examine_passwords(text: str, options: Options) -> list[_Finding]:
    own = options.own_snippets.get("basic-auth")
    if own is not None:
        try:
            text = own.read_text(encoding="utf-8")
        except (OSError, ValueError) as error:
            return [_Finding(f"{own}: {error}")]
    written = _PASSWORDS.search(text)
    return [] if written is None else list(_doubts_of_passwords(Path(written["path"])))


def _doubts_of_passwords(path: Path) -> Iterator[_Finding]:
    """Yield why nobody would get in: nginx looks at the file only when somebody asks."""
    one_more = f'echo "NAME:$(openssl passwd -6)" >>{path}'
    try:
        status = path.stat()
    except FileNotFoundError:
        yield _Finding(f"{path} is not here, and nginx answers 403 without it: {one_more}")
        return
    except OSError:
        return  # It is in a folder that is root's; a check by root looks at it.
    if not status.st_size:
        yield _Finding(f"{path} holds no login, so nobody gets in: {one_more}")
    worker = _worker()
    if worker is not None and not _may_read(worker, status):
        text = f"{path} cannot be read by {worker.pw_name}, and nginx answers 500 then"
        yield _Finding(f"{text}: chgrp {worker.pw_name} {path} && chmod g+r {path}")


def _worker() -> pwd.struct_passwd | None:
    """Return as whom nginx's workers run, as distributions have it."""
    for name in _WORKERS:
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    return None


def _may_read(user: pwd.struct_passwd, status: os.stat_result) -> bool:
    if status.st_uid == user.pw_uid:
        return bool(status.st_mode & stat.S_IRUSR)
    groups = {user.pw_gid, *(each.gr_gid for each in grp.getgrall() if user.pw_name in each.gr_mem)}
    if status.st_gid in groups:
        return bool(status.st_mode & stat.S_IRGRP)
    return bool(status.st_mode & stat.S_IROTH)
