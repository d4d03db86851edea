"""Sessions of browsers that have shown the token: values that we sign, nothing that we keep.

A session is a cookie of ours, so it survives a restart of autostart, and ends with the token that
it was opened with. Cookies do not separate the ports of a host: whatever else listens under the
same name is sent it too. So its key is derived from the token slowly, and a short token cannot be
guessed from it in bulk. Knows no requests and no clock: `now` is wall time in seconds.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections import OrderedDict
from dataclasses import dataclass, replace
from functools import cached_property

# A working day of no use; who comes back the next morning shows the token again.
UNUSED_SECONDS_MAX = 12 * 3600
# However often it is used.
AGE_SECONDS_MAX = 30 * 24 * 3600
# A session is written anew this rarely, so that most answers carry no cookie.
RENEW_SECONDS = 600
# Sessions ended by hand whose cookie would still be good; only who has a good one adds to them.
ENDED_MAX = 1_000
# A cookie from before the clock was put back is not from the future.
CLOCK_SECONDS = 120

# 16 MiB and about 50 ms on one core, the usual choice for what a person waits for.
_SCRYPT = {"n": 2**14, "r": 8, "p": 1, "dklen": 32}
_WRITTEN = re.compile(r"([0-9a-f]{32})\.([0-9]{1,12})\.([0-9]{1,12})\.([0-9a-f]{64})")


@dataclass(frozen=True, slots=True)
class Session:
    """One browser; dates are wall time in whole seconds."""

    id: str
    begun_at: int
    used_at: int

    def is_good(self, now: float) -> bool:
        """Whether it was used lately, and is not for ever."""
        unused, age = now - self.used_at, now - self.begun_at
        return -CLOCK_SECONDS <= unused < UNUSED_SECONDS_MAX and age < AGE_SECONDS_MAX

    def used(self, now: float) -> Session | None:
        """Return it as used now; None while what the browser has is young enough."""
        return replace(self, used_at=int(now)) if now - self.used_at >= RENEW_SECONDS else None


class Sessions:
    """Opens, reads and ends the sessions of one token."""

    def __init__(self, token: str) -> None:
        self._token = token
        self._ended: OrderedDict[str, None] = OrderedDict()

    @property
    def cookie(self) -> str:
        """The cookie's name: two autostarts on one host need not share a token."""
        return f"autostart-{self._sign('cookie')[:8]}"

    def open(self, now: float) -> Session:
        """Return a new session, for a browser that has shown the token."""
        return Session(secrets.token_hex(16), int(now), int(now))

    def write(self, session: Session) -> str:
        """Return the cookie's value."""
        said = f"{session.id}.{session.begun_at}.{session.used_at}"
        return f"{said}.{self._sign(said)}"

    def read(self, written: str, now: float) -> Session | None:
        """Return the session of a cookie; None if it is none of ours, too old, or was ended."""
        match = _WRITTEN.fullmatch(written)
        if match is None:
            return None
        said, _, signature = written.rpartition(".")
        if not hmac.compare_digest(self._sign(said), signature):
            return None
        session = Session(match[1], int(match[2]), int(match[3]))
        return session if session.is_good(now) and session.id not in self._ended else None

    def end(self, session: Session) -> None:
        """Refuse it from now on. A restart of autostart forgets this; the browser has then too."""
        self._ended[session.id] = None
        while len(self._ended) > ENDED_MAX:
            self._ended.popitem(last=False)

    def _sign(self, said: str) -> str:
        return hmac.new(self._key, said.encode(), "sha256").hexdigest()

    @cached_property
    def _key(self) -> bytes:
        """Made when the first browser comes: programs present the token itself."""
        return hashlib.scrypt(self._token.encode(), salt=b"autostart: sessions", **_SCRYPT)
