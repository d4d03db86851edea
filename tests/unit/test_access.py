"""autostart/access.py: who gets in."""

from __future__ import annotations

import base64
import os
from pathlib import Path

import pytest

from autostart.access import REMEMBERED_LOGINS_MAX, REMEMBERED_SECONDS, Gate
from autostart.config import Access
from autostart.errors import Unauthorized

KEYS = {"WHISPER_KEYS": "alpha, beta\ngamma,,δ-key"}
BY_KEY = Access(keys_env="WHISPER_KEYS")

# Made with `htpasswd -B -C 4`, `openssl passwd -apr1`, `-1`, `-5`, `-6`, `htpasswd -s`, slappasswd.
BCRYPT = "$2y$04$Tdm62XWiatuL1bUZ.Dj/yOZcBl5DaElwTFSWkoIFfXWlmMFOKBY7q"
HASHES = {
    "bcrypt": ("pw", BCRYPT),
    "apr1": ("secret", "$apr1$e9puewfF$Y7Oz17dc9Lf4P/RM3eeDQ."),
    "md5": ("secret", "$1$ds2oTmZg$j06KEYPgVwpbe2b8g0p/c."),
    "sha256": ("secret", "$5$DFCnWo46Wj5RcUeP$Y7cnAvOwDWsCw2p9a6XEsLy6qdPNVWEkJZA9C.fgFN/"),
    "sha512": (
        "secret",
        (
            "$6$ILme9BLAEjiZ92Zw$OwZB1.FXH9v9xyL1C3ASP2gm6k5ReQCATTxIu6Rns5I.gHnF5L2boMmVVIoKYJqjjV3V5"
            "BLsopoM5EkWmV3jj/"
        ),
    ),
    "sha": ("pw", "{SHA}GpHWL3ymc5liWkNopqtdSjuqYHM="),
    "ssha": ("pä:w", "{SSHA}6UZwpFppP1UyEnSysAJf5kj352zeW8s5"),
}


def basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def is_let_in(gate: Gate, authorization: str | None) -> bool:
    try:
        gate.check(authorization)
    except Unauthorized:
        return False
    return True


class Clock:
    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "htpasswd"
    lines = [f"{user}:{known}" for user, (_, known) in HASHES.items()]
    path.write_text("\n".join(["# logins", "", *lines]) + "\n")
    return path


@pytest.mark.parametrize("key", ["alpha", "beta", "gamma", "δ-key"])
@pytest.mark.parametrize("scheme", ["Bearer ", "bearer ", "BEARER   "])
def test_every_key_gets_in(scheme: str, key: str) -> None:
    """Keys are separated by commas and any white space; the scheme's case is nothing."""
    assert is_let_in(Gate(BY_KEY, KEYS), scheme + key)


@pytest.mark.parametrize(
    "authorization",
    [
        None,
        "",
        "alpha",
        "Bearer",
        "Bearer ",
        "Bearer alph",
        "Bearer alphaa",
        "Bearer Alpha",
        "Bearer alpha,",
        "Bearer alpha beta",
        "Token alpha",
        "Bearer \udcff",
        basic("", "alpha"),
        basic("alpha", "alpha"),
    ],
)
def test_nothing_else_gets_in_by_key(authorization: str | None) -> None:
    """A key is the whole key, sent as Bearer."""
    assert not is_let_in(Gate(BY_KEY, KEYS), authorization)


@pytest.mark.parametrize("environ", [{}, {"WHISPER_KEYS": ""}, {"WHISPER_KEYS": " , \n"}])
def test_no_key_lets_nobody_in(environ: dict[str, str]) -> None:
    """An unset or empty variable closes the gate, and is a problem."""
    gate = Gate(BY_KEY, environ)

    assert not is_let_in(gate, "Bearer ")
    assert not is_let_in(gate, "Bearer alpha")
    assert gate.problems() == [
        "access.keys_env: the environment variable WHISPER_KEYS holds no key"
    ]


@pytest.mark.parametrize("user", HASHES)
def test_login_gets_in(file: Path, user: str) -> None:
    """Each kind of hash that htpasswd and openssl write is understood."""
    gate = Gate(Access(basic_file=file), {})

    assert is_let_in(gate, basic(user, HASHES[user][0]))
    assert not is_let_in(gate, basic(user, "wrong"))
    assert [] == gate.problems()


@pytest.mark.parametrize(
    "authorization",
    [
        basic("nobody", "pw"),
        basic("", "pw"),
        basic("bcrypt", ""),
        basic("bcrypt", "p"),
        basic("bcrypt", "pw\0"),
        basic("bcrypt", "x" * 100),
        basic("bcrypt", BCRYPT),
        basic("sha", "x" * 100_000),
        "Basic " + base64.b64encode(b"bcrypt").decode(),
        "Basic " + base64.b64encode(b"bcrypt:\xff\xfe").decode(),
        "Basic " + base64.b64encode(b"\xff:pw").decode(),
        "Basic ****",
        "Basic é",
        "Basic",
        "Bearer pw",
        None,
    ],
)
def test_nothing_else_gets_in_by_login(file: Path, authorization: str | None) -> None:
    """Bad logins, however mangled, are refused and never an error of ours."""
    assert not is_let_in(Gate(Access(basic_file=file), {}), authorization)


def test_login_without_hash_in_the_file_gets_nobody_in(tmp_path: Path) -> None:
    """A file that is not there closes the gate for every login."""
    gate = Gate(Access(basic_file=tmp_path / "none"), {})

    assert not is_let_in(gate, basic("bcrypt", "pw"))


def test_either_suffices(file: Path) -> None:
    """With both declared, a key gets in and a login gets in."""
    gate = Gate(Access(keys_env="WHISPER_KEYS", basic_file=file), KEYS)

    assert is_let_in(gate, "Bearer beta")
    assert is_let_in(gate, basic("bcrypt", "pw"))
    assert not is_let_in(gate, basic("bcrypt", "beta"))


def test_bcrypt_password_is_cut_as_apache_cuts_it(file: Path) -> None:
    """What follows the 72nd byte is nothing to bcrypt, for nginx as for us."""
    # Made with python's bcrypt from 72 times "x".
    known = "$2b$04$KYpM4ees1tL71bXvGj34HuawXvV20lbHZ8HS/YgFyJwlhMG7gUQGy"
    file.write_text(f"long:{known}\n")

    assert is_let_in(Gate(Access(basic_file=file), {}), basic("long", "x" * 80))


def test_first_of_two_lines_wins(file: Path) -> None:
    """As for nginx and Apache; the rest of a line behind a second colon is a comment."""
    file.write_text(f"ada:{HASHES['sha'][1]}:the boss\nada:{HASHES['apr1'][1]}\n")
    gate = Gate(Access(basic_file=file), {})

    assert is_let_in(gate, basic("ada", "pw"))
    assert not is_let_in(gate, basic("ada", "secret"))


def test_changed_file_is_read_again(file: Path) -> None:
    """Logins are added and removed without a restart, and a remembered one ends at once."""
    gate = Gate(Access(basic_file=file), {})
    assert is_let_in(gate, basic("bcrypt", "pw"))

    file.write_text(f"new:{HASHES['sha'][1]}\n")

    assert is_let_in(gate, basic("new", "pw"))
    assert not is_let_in(gate, basic("bcrypt", "pw"))


def test_file_that_comes_later_is_found(tmp_path: Path) -> None:
    """A missing file lets nobody in and says so, until it is there."""
    path = tmp_path / "later"
    gate = Gate(Access(basic_file=path), {})
    assert not is_let_in(gate, basic("sha", "pw"))
    assert [f"access.basic_file: {path}: No such file or directory"] == gate.problems()

    path.write_text(f"sha:{HASHES['sha'][1]}\n")

    assert is_let_in(gate, basic("sha", "pw"))
    assert [] == gate.problems()


def test_file_that_goes_closes_the_gate(file: Path) -> None:
    """Nobody gets in by what the file once held."""
    gate = Gate(Access(basic_file=file), {})
    assert is_let_in(gate, basic("bcrypt", "pw"))

    file.unlink()

    assert not is_let_in(gate, basic("bcrypt", "pw"))


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", ": holds no login"),
        (b"# nothing\n", ": holds no login"),
        (b"\xff\xfe", ": not UTF-8 text"),
        (b"ada:plain\n", ":1: no login that we can check; htpasswd -B makes one"),
        (b"ada\n", ":1: no login that we can check; htpasswd -B makes one"),
        (b":$apr1$x\n", ":1: no login that we can check; htpasswd -B makes one"),
        (b"\nada:rl.3StKT.4T8M\n", ":2: no login that we can check; htpasswd -B makes one"),
        (b"ada:$2y$10$short\n", ":1: no login that we can check; htpasswd -B makes one"),
    ],
)
def test_bad_file_is_a_problem(file: Path, content: bytes, problem: str) -> None:
    """A login that cannot be checked is named by its line, and gets nobody in."""
    file.write_bytes(content)
    gate = Gate(Access(basic_file=file), {})

    assert [f"access.basic_file: {file}{problem}"] == gate.problems()
    assert not is_let_in(gate, basic("ada", "plain"))


def test_folder_in_place_of_a_file_is_a_problem(tmp_path: Path) -> None:
    """Whatever cannot be read says why."""
    assert [f"access.basic_file: {tmp_path}: Is a directory"] == Gate(
        Access(basic_file=tmp_path), {}
    ).problems()


def test_malformed_hash_of_a_known_kind_gets_nobody_in(file: Path) -> None:
    """A hash that only begins right matches no password."""
    file.write_text("ada:{SHA}x\nbob:$apr1$abc\n")
    gate = Gate(Access(basic_file=file), {})

    assert not is_let_in(gate, basic("ada", ""))
    assert not is_let_in(gate, basic("bob", ""))


def test_right_login_is_remembered(file: Path) -> None:
    """A browser does not pay for bcrypt with every request; after a while it pays again."""
    clock = Clock()
    gate = Gate(Access(basic_file=file), {}, clock)
    assert gate.takes_long(basic("bcrypt", "pw"))

    gate.check(basic("bcrypt", "pw"))

    assert not gate.takes_long(basic("bcrypt", "pw"))
    assert is_let_in(gate, basic("bcrypt", "pw"))
    clock.seconds += REMEMBERED_SECONDS
    assert gate.takes_long(basic("bcrypt", "pw"))
    assert is_let_in(gate, basic("bcrypt", "pw"))


def test_wrong_login_is_not_remembered(file: Path) -> None:
    """What was refused is computed again, and another's memory is no help."""
    gate = Gate(Access(basic_file=file), {})
    gate.check(basic("bcrypt", "pw"))

    assert not is_let_in(gate, basic("bcrypt", "wrong"))
    assert gate.takes_long(basic("bcrypt", "wrong"))
    assert gate.takes_long(basic("nobody", "pw"))


def test_memory_is_bounded(file: Path) -> None:
    """More logins than are remembered still get in; the one used longest ago makes room."""
    users = [f"user{number}" for number in range(REMEMBERED_LOGINS_MAX + 1)]
    file.write_text("".join(f"{user}:{HASHES['sha'][1]}\n" for user in users))
    gate = Gate(Access(basic_file=file), {})

    assert all(is_let_in(gate, basic(user, "pw")) for user in users[:-1])
    assert is_let_in(gate, basic(users[0], "pw"))
    assert is_let_in(gate, basic(users[-1], "pw"))

    assert [users[1]] == [user for user in users if gate.takes_long(basic(user, "pw"))]


def test_login_in_use_is_not_forgotten(file: Path) -> None:
    """Who asks again and again pays once."""
    clock = Clock()
    gate = Gate(Access(basic_file=file), {}, clock)
    long = []
    for _ in range(10):
        long.append(gate.takes_long(basic("bcrypt", "pw")))
        gate.check(basic("bcrypt", "pw"))
        clock.seconds += REMEMBERED_SECONDS - 1.0

    assert [True] + [False] * 9 == long


@pytest.mark.parametrize("authorization", [None, "Bearer alpha", "Basic ****"])
def test_only_logins_take_long(file: Path, authorization: str | None) -> None:
    """Keys and what is no login are checked at once."""
    assert not Gate(Access(keys_env="WHISPER_KEYS", basic_file=file), KEYS).takes_long(
        authorization
    )


def test_login_without_file_takes_no_time() -> None:
    """Where no login is declared none is computed."""
    gate = Gate(BY_KEY, KEYS)

    assert not gate.takes_long(basic("bcrypt", "pw"))
    assert not is_let_in(gate, basic("bcrypt", "pw"))


@pytest.mark.parametrize(
    ("access", "challenge"),
    [
        (Access(keys_env="K"), 'Bearer realm="autostart"'),
        (Access(basic_file=Path("f")), 'Basic realm="autostart", charset="UTF-8"'),
        (
            Access(keys_env="K", basic_file=Path("f")),
            'Basic realm="autostart", charset="UTF-8", Bearer realm="autostart"',
        ),
    ],
)
def test_challenge_names_what_is_accepted(access: Access, challenge: str) -> None:
    """A browser asks for a login exactly where one can help."""
    assert challenge == Gate(access, {}).challenge


@pytest.mark.parametrize(
    ("authorization", "message"),
    [
        (None, "credentials are missing"),
        ("Bearer hunter2", "credentials are wrong"),
        (basic("bcrypt", "hunter2"), "credentials are wrong"),
    ],
)
def test_refusal_holds_no_secret(file: Path, authorization: str | None, message: str) -> None:
    """Neither what was sent nor what would be right is said."""
    gate = Gate(Access(keys_env="WHISPER_KEYS", basic_file=file), KEYS)

    with pytest.raises(Unauthorized) as caught:
        gate.check(authorization)

    assert Unauthorized(message) == caught.value


def test_repr_counts_and_shows_no_secret(file: Path) -> None:
    """What an operator prints says how many, not which."""
    gate = Gate(Access(keys_env="WHISPER_KEYS", basic_file=file), KEYS)

    assert f"<Gate [Keys: 4 | Logins: {len(HASHES)}]>" == repr(gate)


def test_same_size_file_is_told_apart_by_its_date(file: Path) -> None:
    """A password changed in place counts although size and inode stay."""
    file.write_text(f"ada:{HASHES['sha'][1]}\n")
    gate = Gate(Access(basic_file=file), {})
    assert is_let_in(gate, basic("ada", "pw"))

    other = "{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ="
    file.write_text(f"ada:{other}\n")
    os.utime(file, ns=(0, 0))

    assert is_let_in(gate, basic("ada", "secret"))
    assert not is_let_in(gate, basic("ada", "pw"))
