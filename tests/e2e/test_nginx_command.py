"""`autostart nginx` and its --check, as an operator uses them: what is said, and how they end."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.front import htpasswd_line, make_certificate, require_nginx

HOST = "plain.example.com"
AUTOSTART = str(Path(sys.executable).parent / "autostart")


class Operator:
    """Somebody with a map, a folder of certificates and a file of logins."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.map = folder / "autostart.yaml"
        self.certificates = folder / "live"
        self.logins = folder / "logins"
        snippets = folder / "snippets"
        snippets.mkdir()
        text = f'auth_basic "x";\nauth_basic_user_file {self.logins};\n'
        (snippets / "basic-auth.conf").write_text(text)
        self.options = ["--certificates", str(self.certificates), "--snippets", str(snippets)]
        self.write_map({HOST: {}})

    def write_map(self, services: dict[str, dict[str, object]], **top: object) -> None:
        written = {host: {"command": ["sh"], **keys} for host, keys in services.items()}
        self.map.write_text(yaml.safe_dump({"services": written, **top}))

    def runs(self, *words: str, before: tuple[str, ...] = ()) -> tuple[int, str, str]:
        """Return the exit status, and what it said on both sides."""
        done = subprocess.run(
            [*before, AUTOSTART, "--config", str(self.map), "nginx", *words],
            check=False,
            capture_output=True,
            text=True,
            timeout=60,
        )
        return done.returncode, done.stdout, done.stderr

    def has_everything(self) -> None:
        make_certificate(self.certificates / HOST, HOST)
        self.logins.write_text(htpasswd_line("anna", "secret"))
        self.logins.chmod(0o644)


@pytest.fixture
def operator(tmp_path: Path) -> Operator:
    require_nginx()
    return Operator(tmp_path)


def test_what_is_whole_has_no_problems(operator: Operator) -> None:
    """With certificate and logins, nginx takes it: one line, exit 0."""
    operator.has_everything()
    status, said, complained = operator.runs("--check", *operator.options)

    assert (0, "") == (status, complained)
    assert said.startswith("nginx 1.")
    assert said.endswith(": 1 TLS server, no problems\n")


def test_each_thing_that_is_missing_is_a_line_with_its_command(operator: Operator) -> None:
    """Certificates and logins that are not here: exit 1, and what to type."""
    status, said, complained = operator.runs("--check", *operator.options)

    certbot = f"certbot certonly --webroot -w /var/www/html -d {HOST}"
    passwd = f'echo "NAME:$(openssl passwd -6)" >>{operator.logins}'

    assert (1, "error: 2 problems\n") == (status, complained)
    assert [
        f"{operator.certificates}/{HOST}/fullchain.pem is not here yet: {certbot}",
        f"{operator.logins} is not here, and nginx answers 403 without it: {passwd}",
    ] == said.splitlines()


def test_logins_that_nginx_cannot_use_are_a_line(operator: Operator) -> None:
    """A file without a login, and one that its workers may not read: they would answer 500."""
    operator.has_everything()
    operator.logins.write_text("")
    _, empty, _ = operator.runs("--check", *operator.options)
    operator.logins.write_text(htpasswd_line("anna", "secret"))
    operator.logins.chmod(0o600)
    _, private, _ = operator.runs("--check", *operator.options)

    assert "holds no login, so nobody gets in" in empty
    assert "cannot be read by" in private


def test_a_certificate_that_is_none_is_nginxs_to_say(operator: Operator) -> None:
    """Its own words, with the line of what is printed."""
    operator.has_everything()
    (operator.certificates / HOST / "fullchain.pem").write_text("no certificate")
    status, said, complained = operator.runs("--check", *operator.options)

    assert (1, "error: 1 problem\n") == (status, complained)
    assert "emerg: cannot load certificate" in said


def test_http_only_needs_nothing(operator: Operator) -> None:
    """The server of port 80 works before there is any certificate."""
    status, said, _ = operator.runs("--check", "--http-only")

    assert (0, True) == (status, "no TLS servers, no problems" in said)


def test_any_user_may_check(operator: Operator) -> None:
    """Without a right to low ports or nginx's own folders: the trial needs none of them."""
    if os.geteuid() != 0 or shutil.which("setpriv") is None:
        pytest.skip("only root can become another user")
    operator.has_everything()
    for each in (operator.folder, *operator.folder.parents):
        if not each.stat().st_mode & 0o005:  # pytest made its own for root alone
            each.chmod(0o755)
    python = ("--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search")
    bounded = ("--bounding-set=-all,+dac_read_search",)
    become = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", *python, *bounded)
    status, said, complained = operator.runs("--check", *operator.options, before=become)

    assert (0, "") == (status, complained), said
    assert "no problems" in said


def test_paths_with_spaces_and_signs_are_taken_by_nginx(tmp_path: Path) -> None:
    """What our tests read as one word, the real nginx does too."""
    require_nginx()
    folder = tmp_path / "a b;c{d}'e#f\"g\\h"
    folder.mkdir()
    operator = Operator(folder)
    operator.write_map({HOST: {"name": "x\n}\nserver {"}}, proxy={"listen": f"unix:{folder}/s"})
    text = f'auth_basic "x";\nauth_basic_user_file {tmp_path}/logins;\n'
    (folder / "snippets/basic-auth.conf").write_text(text)
    (tmp_path / "logins").write_text(htpasswd_line("anna", "secret"))
    make_certificate(operator.certificates / HOST, HOST)
    webroot = ("--webroot", str(folder))
    status, said, complained = operator.runs("--check", *operator.options, *webroot)

    assert (0, "") == (status, complained), said


def test_a_map_that_cannot_be_used_is_exit_2(operator: Operator) -> None:
    """As for every command: its problems, and nothing that looks like a configuration."""
    operator.write_map({HOST: {"prot": 1}})
    status, said, complained = operator.runs()

    assert (2, "") == (status, said)
    assert "prot" in complained


def test_a_path_that_nginx_cannot_take_is_exit_2(operator: Operator) -> None:
    """A $ would be a variable of nginx's."""
    status, said, complained = operator.runs("--certificates", "/srv/$uri")

    assert (2, "") == (status, said)
    assert "cannot stand in nginx's configuration" in complained


def test_a_folder_without_snippets_is_exit_2(operator: Operator) -> None:
    """It was meant to hold one."""
    status, said, complained = operator.runs("--snippets", str(operator.folder))

    assert (2, "") == (status, said)
    assert "holds none of basic-auth.conf, tls.conf, proxy.conf" in complained


def test_doubts_are_told_beside_the_text(operator: Operator) -> None:
    """On stderr, so that the text can be redirected to its file."""
    operator.write_map({HOST: {}}, proxy={"listen": "[::1]:8890"})
    status, said, complained = operator.runs()

    assert (0, True) == (status, said.startswith("# Made by autostart nginx from "))
    assert complained.startswith("warning: proxy.trusted_proxies: nginx comes from ::1")
