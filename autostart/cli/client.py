"""The admin API as one command uses it: synchronous, over TCP or unix, never without a deadline."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from http.client import HTTPConnection, HTTPException, HTTPResponse, IncompleteRead
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from autostart.cli.failure import FAILED, MISUSED, CommandFailed
from autostart.config import Address, UnixAddress
from autostart.errors import ConfigError, DaemonUnreachable

CALL_SECONDS = 10.0
# Where nothing happens events have a heartbeat every 15 s; three are missed.
SILENCE_SECONDS = 45.0
_ERROR_MIN = 400


class Client:
    """Talks to the admin API at one address; every call is a connection of its own."""

    def __init__(self, address: Address, token: str | None) -> None:
        self._address = address
        self._headers = {} if token is None else {"Authorization": f"Bearer {token}"}

    def services(self) -> list[dict[str, Any]]:
        """Return every service."""
        answer = self._call("GET", "/api/services")
        if not isinstance(answer, list):
            raise self._stranger()
        return answer

    def service(self, host: str) -> dict[str, Any]:
        """Return one service."""
        return self._object("GET", f"/api/services/{quote(host, safe='')}")

    def command(self, host: str, verb: str, **options: bool | str) -> dict[str, Any]:
        """Give a command to a service and return it as it then stands."""
        path = f"/api/services/{quote(host, safe='')}/{verb}"
        return self._object("POST", path, options)

    def reload(self) -> list[str]:
        """Have the map read again and return what was taken."""
        return [str(host) for host in self._object("POST", "/api/reload")["taken"]]

    def health(self) -> None:
        """Raise DaemonUnreachable if no daemon answers."""
        self._object("GET", "/healthz")

    def events(self) -> Iterator[str]:
        """Yield what happens, each by its kind, as it happens; never ends by itself.

        Raises DaemonUnreachable also when the daemon has been silent for longer than it ever is.
        """
        with self._answered("GET", "/api/events", silence_seconds=SILENCE_SECONDS) as answer:
            for line in answer:
                name, _, value = line.decode("utf-8", "replace").strip().partition(": ")
                if name == "event":
                    yield value
        raise self._closed()

    def logs(self, host: str, lines: int, *, follow: bool) -> Iterator[str]:
        """Yield a service's output line by line; with `follow`, until the daemon ends."""
        query = urlencode({"lines": lines, "follow": int(follow)})
        path = f"/api/services/{quote(host, safe='')}/logs?{query}"
        silence_seconds = None if follow else CALL_SECONDS
        with self._answered("GET", path, silence_seconds=silence_seconds) as answer:
            for line in answer:
                yield line.decode("utf-8", "replace").rstrip("\n")
        if follow:
            # http.client takes a cut stream for its end.
            raise self._closed()

    def _object(
        self, method: str, path: str, body: Mapping[str, object] | None = None
    ) -> dict[str, Any]:
        answer = self._call(method, path, body)
        if not isinstance(answer, dict):
            raise self._stranger()
        return answer

    def _call(self, method: str, path: str, body: Mapping[str, object] | None = None) -> object:
        with self._answered(method, path, body) as answer:
            try:
                content: object = json.loads(answer.read())
            except ValueError as error:
                raise self._stranger() from error
        return content

    @contextmanager
    def _answered(
        self,
        method: str,
        path: str,
        body: Mapping[str, object] | None = None,
        *,
        silence_seconds: float | None = CALL_SECONDS,
    ) -> Iterator[HTTPResponse]:
        """Yield the answer; raises DaemonUnreachable, or what the daemon said no with.

        Once it has begun, it may pause for `silence_seconds`; None is for ever.
        """
        content = None if body is None else json.dumps(body)
        with closing(_connection(self._address)) as connection:
            try:
                connection.request(method, path, body=content, headers=self._headers)
                connected: socket.socket = connection.sock
                answer = connection.getresponse()
                if answer.status >= _ERROR_MIN:
                    raise _refused(answer.read()) or self._stranger()
                if silence_seconds != CALL_SECONDS:
                    connected.settimeout(silence_seconds)
                yield answer
            except TimeoutError as error:
                text = f"{self._address} did not answer within {CALL_SECONDS:g} s"
                raise DaemonUnreachable(text) from error
            except (ConnectionRefusedError, FileNotFoundError) as error:
                raise DaemonUnreachable(f"no autostart serves on {self._address}") from error
            except (IncompleteRead, ConnectionResetError) as error:
                raise self._closed() from error
            except HTTPException as error:
                raise self._stranger() from error
            except OSError as error:
                text = f"no answer from {self._address}: {error.strerror or error}"
                raise DaemonUnreachable(text) from error

    def _closed(self) -> DaemonUnreachable:
        return DaemonUnreachable(f"{self._address} closed the connection")

    def _stranger(self) -> DaemonUnreachable:
        return DaemonUnreachable(f"what answers on {self._address} is not autostart")


class _UnixConnection(HTTPConnection):
    """HTTP over a socket file."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=CALL_SECONDS)
        self._path = path

    def connect(self) -> None:
        """Connect to the file instead of a port."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(CALL_SECONDS)
        self.sock.connect(str(self._path))


def _connection(address: Address) -> HTTPConnection:
    if isinstance(address, UnixAddress):
        return _UnixConnection(address.path)
    host = address.host
    if address.is_every_interface:
        host = "::1" if ":" in host else "127.0.0.1"
    return HTTPConnection(host, address.port, timeout=CALL_SECONDS)


def _refused(body: bytes) -> CommandFailed | None:
    """Return what an answer says no with, None if it is not one of ours."""
    try:
        answer = json.loads(body)
        error, hint = answer["error"], answer["hint"]
        status = MISUSED if error["code"] == ConfigError.code else FAILED
        return CommandFailed(str(error["message"]), str(hint), status)
    except (ValueError, TypeError, KeyError):
        return None
