"""Asks for one of the operator's keys, where there are any."""

import hashlib
import hmac
from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from services.transcription.errors import InvalidKey


class Keys:
    """The keys that are accepted; none means that everybody is."""

    def __init__(self, written: str) -> None:
        """Take keys separated by commas or spaces."""
        self._digests = [_digest(key) for key in written.replace(",", " ").split()]

    def __repr__(self) -> str:
        return f"<Keys {len(self._digests)}>"

    def accept(self, key: str | None) -> bool:
        """Tell whether a key is right; how long it takes tells nothing about the right ones."""
        if not self._digests:
            return True
        given = _digest(key or "")
        # All are compared, and as digests: neither the position nor the length shows.
        return sum(hmac.compare_digest(given, digest) for digest in self._digests) > 0


_bearer = HTTPBearer(auto_error=False, description="One of API_KEY, where the operator set any.")


async def require_key(
    request: Request,
    credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)],
) -> None:
    """Refuse a request without a right key, as OpenAI does, before its body is read."""
    keys: Keys = request.app.state.keys
    # RunPod's documents show the key alone, too.
    key = credentials.credentials if credentials else request.headers.get("authorization")
    if not keys.accept(key):
        told = "Incorrect API key provided" if key else "You didn't provide an API key"
        raise InvalidKey(f"{told}: send one as 'Authorization: Bearer KEY'", code="invalid_api_key")


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()
