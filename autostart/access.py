"""Who gets in: keys and logins of one service, checked before anything is woken.

A key comes as `Authorization: Bearer KEY` and stands in the environment variable `keys_env`; a
login comes as `Authorization: Basic …` and stands in the htpasswd file `basic_file`. Either
suffices. What cannot be read lets nobody in, and `problems` says why.

Knows credentials and nothing of requests, services or states. No message holds a secret.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import secrets
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from passlib.context import CryptContext

from autostart.config import Access
from autostart.errors import Unauthorized

# A browser sends its login with every request of a page, and bcrypt takes 50 to 300 ms of a core
# each time, by design. So a right one is remembered for so long after its last use, and never waits
# behind those who guess. A login that is taken out of the file or changed there ends at once all
# the same, for the file's hash is part of what is remembered.
REMEMBERED_SECONDS = 300.0
REMEMBERED_LOGINS_MAX = 1024

# bcrypt reads no more, and its library refuses more, while Apache's and nginx's cut silently.
BCRYPT_PASSWORD_BYTES_MAX = 72

# What htpasswd and `openssl passwd` write. No plain text and no crypt(3), which stops after eight
# characters; a file with these gets a problem, not a weaker check.
_HASHES = CryptContext(
    schemes=[
        "bcrypt",
        "apr_md5_crypt",
        "md5_crypt",
        "sha512_crypt",
        "sha256_crypt",
        "ldap_sha1",
        "ldap_salted_sha1",
    ]
)
_REALM = "autostart"


@dataclass(frozen=True)
class _Login:
    user: str
    password: bytes


@dataclass(frozen=True)
class _Htpasswd:
    """What the file held when it was last read; `stat` tells whether it changed since."""

    stat: tuple[int, int, int] | None = None
    hashes: Mapping[str, str] = field(default_factory=dict)
    problems: tuple[str, ...] = ()


class Gate:
    """The credentials of one service; a reload makes a new one.

    `check` may be called from several threads at once.
    """

    def __init__(
        self,
        access: Access,
        environ: Mapping[str, str],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        written = environ.get(access.keys_env, "") if access.keys_env else ""
        self._keys = tuple(key.encode() for key in written.replace(",", " ").split())
        self._access = access
        self._clock = clock
        self._lock = threading.Lock()
        self._htpasswd = _Htpasswd()
        # What is remembered is worthless without this secret, which never leaves the process.
        self._secret = secrets.token_bytes(32)
        self._remembered: dict[bytes, float] = {}

    def __repr__(self) -> str:
        logins = len(self._read_htpasswd().hashes)
        return f"<Gate [Keys: {len(self._keys)} | Logins: {logins}]>"

    @property
    def challenge(self) -> str:
        """What a 401 carries as WWW-Authenticate; with Basic in it, browsers ask for a login."""
        basic = f'Basic realm="{_REALM}", charset="UTF-8"'
        bearer = f'Bearer realm="{_REALM}"'
        if self._access.basic_file is None:
            return bearer
        return basic if self._access.keys_env is None else f"{basic}, {bearer}"

    def problems(self) -> list[str]:
        """Return why some or all credentials cannot get anybody in, one line each."""
        found = []
        if self._access.keys_env and not self._keys:
            found.append(
                f"access.keys_env: the environment variable {self._access.keys_env} holds no key"
            )
        found += [f"access.basic_file: {text}" for text in self._read_htpasswd().problems]
        return found

    def takes_long(self, authorization: str | None) -> bool:
        """Say whether `check` would have to compute a password hash: then call it in a thread."""
        login = _login(authorization)
        if login is None:
            return False
        hashes = self._read_htpasswd().hashes
        return bool(hashes) and not self._remembers(login, hashes.get(login.user, ""))

    def check(self, authorization: str | None) -> None:
        """Return if the value of an Authorization header gets in; raises Unauthorized.

        May compute for 300 ms, see `takes_long`.
        """
        if authorization is None:
            raise Unauthorized("credentials are missing")
        scheme, _, credentials = authorization.strip().partition(" ")
        if scheme.lower() == "bearer" and self._is_key(credentials.strip()):
            return
        login = _login(authorization)
        if login is not None and self._is_login(login):
            return
        raise Unauthorized("credentials are wrong")

    def _is_key(self, presented: str) -> bool:
        # Every key is compared, each in constant time: how long it takes says nothing.
        digest = hashlib.sha256(presented.encode(errors="surrogateescape")).digest()
        matches = [hmac.compare_digest(digest, hashlib.sha256(key).digest()) for key in self._keys]
        return any(matches)

    def _is_login(self, login: _Login) -> bool:
        hashes = self._read_htpasswd().hashes
        if not hashes:
            return False
        known = hashes.get(login.user)
        if known is not None and self._remembers(login, known):
            self._remember(login, known)
            return True
        # An unknown user takes as long as a wrong password, or the time would tell who exists.
        right = _verify(login.password, known or next(iter(hashes.values())))
        if known is None or not right:
            return False
        self._remember(login, known)
        return True

    def _remembers(self, login: _Login, known: str) -> bool:
        with self._lock:
            until = self._remembered.get(self._fingerprint(login, known))
        return until is not None and self._clock() < until

    def _remember(self, login: _Login, known: str) -> None:
        fingerprint, until = self._fingerprint(login, known), self._clock() + REMEMBERED_SECONDS
        with self._lock:
            self._remembered.pop(fingerprint, None)
            self._remembered[fingerprint] = until
            if len(self._remembered) > REMEMBERED_LOGINS_MAX:
                del self._remembered[next(iter(self._remembered))]  # the one used longest ago

    def _fingerprint(self, login: _Login, known: str) -> bytes:
        text = b"\0".join([login.user.encode(), known.encode(), login.password])
        return hmac.digest(self._secret, text, "sha256")

    def _read_htpasswd(self) -> _Htpasswd:
        """Return the file's logins; the file is read again when its stat changed."""
        path = self._access.basic_file
        if path is None:
            return self._htpasswd
        try:
            stat = path.stat()
            identity = (stat.st_ino, stat.st_size, stat.st_mtime_ns)
            if self._htpasswd.stat != identity:
                self._htpasswd = _parse(path, path.read_text(encoding="utf-8"), identity)
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "not UTF-8 text"
            self._htpasswd = _Htpasswd(problems=(f"{path}: {reason}",))
        return self._htpasswd


def _login(authorization: str | None) -> _Login | None:
    """Return the user and password of a Basic header (RFC 7617), None for anything else."""
    scheme, _, credentials = (authorization or "").strip().partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        decoded = base64.b64decode(credentials.strip(), validate=True)
        user, colon, password = decoded.partition(b":")
        # A NUL would end the password for some hashes and not for others.
        if not colon or b"\0" in decoded:
            return None
        return _Login(user.decode(), password)
    except (binascii.Error, ValueError):
        return None


def _parse(path: Path, text: str, stat: tuple[int, int, int]) -> _Htpasswd:
    hashes: dict[str, str] = {}
    problems: list[str] = []
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip() or line.startswith("#"):
            continue
        user, colon, rest = line.strip().partition(":")
        # A third field is a comment to nginx.
        known = rest.partition(":")[0]
        if not colon or not user or not _is_hash(known):
            problems.append(f"{path}:{number}: no login that we can check; htpasswd -B makes one")
        else:
            # The first of two lines wins, as it does for nginx and Apache.
            hashes.setdefault(user, known)
    if not hashes and not problems:
        problems.append(f"{path}: holds no login")
    return _Htpasswd(stat, hashes, tuple(problems))


def _is_hash(known: str) -> bool:
    try:
        # Reads the hash without computing one.
        _HASHES.needs_update(known)
    except ValueError:
        return False
    return True


def _verify(password: bytes, known: str) -> bool:
    if known.startswith("$2"):
        password = password[:BCRYPT_PASSWORD_BYTES_MAX]
    try:
        return bool(_HASHES.verify(password, known))
    # A hash that looks right and is not, or a password longer than passlib takes: nobody gets in.
    except (ValueError, TypeError):
        return False
