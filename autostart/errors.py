"""Every way to fail, with the status a client gets and the operator's next step.

AutostartError
├── ConfigError            the map is wrong (exit 2)
├── Refusal                an answer of ours to a client of the proxy
│   ├── what the request is:      BadRequest, Unauthorized, UnknownHost, BodyTooLarge, …
│   ├── what the service is:      Asleep, QueueFull, Starting, BackingOff, StartFailed, …
│   └── what became of it:        ServiceClosed, ConnectFailed, ResponseTimeout, …
├── StopFailed             what a runtime reports about a stop (about a start: a Refusal)
├── OperatorError          the admin API says no
└── DaemonUnreachable, AlreadyServing, AddressTaken

Knows no HTTP library, no state. A hint is a command or an action, never a wish.
"""

from __future__ import annotations

from typing import ClassVar, Self


class AutostartError(Exception):
    """An expected failure; its text names the thing, the value and what is allowed.

    `message` may be shown to anybody. `private` is one more line and `detail` more lines, in the
    words of programs that may quote a secret from a file: for the operator, never for a client.
    """

    code: ClassVar[str] = "error"
    status: int = 500
    hint: ClassVar[str] = "see the log of autostart serve"

    def __init__(
        self,
        message: str,
        *,
        retry_after_seconds: float | None = None,
        private: str = "",
        detail: str = "",
    ) -> None:
        super().__init__(message)
        self.message = message
        self.private = private
        self.detail = detail
        self.retry_after_seconds = retry_after_seconds

    @property
    def for_operator(self) -> str:
        """The message with what is private, in one line."""
        return f"{self.message}: {self.private}" if self.private else self.message

    def __eq__(self, other: object) -> bool:
        """Errors are values: tests compare what a decision refused with."""
        return type(other) is type(self) and vars(other) == vars(self)

    def __hash__(self) -> int:
        return hash((type(self), self.message))


class ConfigError(AutostartError):
    """The map cannot be used; `problems` lists every fault found, one line each."""

    code = "config"
    hint = "autostart check"

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class Refusal(AutostartError):
    """An answer of ours instead of the service's."""

    status = 503

    def after(self, seconds: float | None) -> Self:
        """Return a copy for one client, with what it should wait before it asks again."""
        twin = type(self).__new__(type(self), *self.args)
        vars(twin).update(vars(self), retry_after_seconds=seconds)
        return twin


# What the request is.


class BadRequest(Refusal):
    """Not valid HTTP, or framed so that two readers could disagree; never forwarded."""

    code = "bad-request"
    status = 400
    hint = "look at the client: its request is not valid HTTP"


class Unauthorized(Refusal):
    """Credentials are missing or wrong; nothing was woken."""

    code = "unauthorized"
    status = 401
    hint = "send a key of the service's access.keys_env, or a login of its access.basic_file"


class UnknownHost(Refusal):
    """No service has this host."""

    code = "unknown-host"
    status = 404
    hint = "autostart status lists the hosts; add the host to the map and run autostart reload"


class UnknownPage(Refusal):
    """The portal has no such page, or was asked to do more than read."""

    code = "unknown-page"
    status = 404
    hint = "the portal's page is at / and /api, and is only read"


class RequestTimeout(Refusal):
    """The client was silent for longer than request_timeout while sending."""

    code = "request-timeout"
    status = 408
    hint = "raise request_timeout if this client is that slow"


class BodyTooLarge(Refusal):
    """The body is larger than max_body."""

    code = "body-too-large"
    status = 413
    hint = "raise max_body (and nginx's client_max_body_size)"


class UpgradeUnsupported(Refusal):
    """An Upgrade other than websocket, or CONNECT."""

    code = "upgrade-unsupported"
    status = 501
    hint = "only websocket upgrades are relayed"


# What the service is.


class WakeRefused(Refusal):
    """The service is stopped and this method or agent may not wake it."""

    code = "wake-refused"
    status = 403
    hint = "allow it in the service's wake.methods or wake.ignore_agents"


class IgnoredPath(Refusal):
    """The service is stopped and this path may not wake it."""

    code = "ignored-path"
    status = 404
    hint = "remove the path from the service's wake.ignore"


class DocsUnknown(Refusal):
    """The service is not ready, reading its docs does not wake it, and none are in the cache."""

    code = "docs-unknown"
    status = 404
    hint = "its docs are known once it was ready: autostart start HOST"


class Asleep(Refusal):
    """The service is stopped; this path is answered by us meanwhile, with the map's status."""

    code = "asleep"
    status = 200
    hint = "the service's asleep section says so"

    def __init__(self, message: str, *, status: int) -> None:
        super().__init__(message)
        self.status = status


class QueueFull(Refusal):
    """max_waiting requests are held already, or too many logins are being checked."""

    code = "queue-full"
    hint = "try again; if the service is asked that much, raise max_waiting"


class Preparing(Refusal):
    """The service is being pulled, built or created."""

    code = "preparing"
    hint = "autostart status shows its progress; autostart prepare HOST does it ahead"


class Starting(Refusal):
    """The service is starting and this request does not wait for it."""

    code = "starting"
    hint = "try again after Retry-After seconds"


class StartFailed(Refusal):
    """The start failed; the next one waits for the back-off."""

    code = "start-failed"
    hint = "autostart logs HOST"


class BackingOff(Refusal):
    """The last start failed a moment ago."""

    code = "backing-off"
    hint = "autostart logs HOST; autostart start HOST tries at once"


class PortTaken(Refusal):
    """Somebody else listens on the service's port."""

    code = "port-taken"
    hint = "stop the program that holds the port, or change port in the map"


class Held(Refusal):
    """The operator holds the service stopped."""

    code = "held"
    hint = "autostart start HOST"


class EngineUnreachable(Refusal):
    """The engine does not answer and the service is not known to be ready."""

    code = "engine-unreachable"
    hint = "autostart doctor"


class ShuttingDown(Refusal):
    """autostart itself is stopping."""

    code = "shutting-down"
    hint = "autostart is restarting; try again"


class StartTimeout(Refusal):
    """Not ready within start_timeout, or within the client's hold_timeout."""

    code = "start-timeout"
    status = 504
    hint = "autostart logs HOST; raise start_timeout if the service is that slow"


# What became of it.


class ServiceClosed(Refusal):
    """The service closed the connection before it answered."""

    code = "service-closed"
    status = 502
    hint = "autostart logs HOST"


class ConnectFailed(Refusal):
    """The service refused the connection twice; nothing was sent to it."""

    code = "connect-failed"
    status = 502
    hint = "autostart logs HOST; is port in the map the one it listens on?"


class ResponseTimeout(Refusal):
    """The service was silent for longer than response_timeout."""

    code = "response-timeout"
    status = 504
    hint = "raise response_timeout if the service is that slow"


# What a runtime reports about a stop.


class StopFailed(AutostartError):
    """The run is still there after the stop."""

    code = "stop-failed"
    hint = "autostart logs HOST; stop it by hand"


# What the admin API says to an operator.


class OperatorError(AutostartError):
    """The operator's command is refused."""

    code = "refused"
    status = 409


class UnknownService(OperatorError):
    """No service of the map has this host."""

    code = "unknown-service"
    status = 404
    hint = "autostart status lists the hosts"


class ServiceLeased(OperatorError):
    """A stop would cut requests."""

    code = "service-leased"
    hint = "autostart stop HOST --drain waits for them; --force cuts them"


class NeedsRestart(OperatorError):
    """The new map changes what only a restart can change."""

    code = "needs-restart"
    hint = "restart autostart serve; services keep running"


class Forbidden(OperatorError):
    """The admin listener was reached by a foreign name or page, or without its token."""

    code = "forbidden"
    status = 403
    hint = "use the admin address itself; send Authorization: Bearer with the admin token"


class TooManyAttempts(OperatorError):
    """The admin listener got too many wrong tokens from this address."""

    code = "too-many-attempts"
    status = 429
    hint = "wait for Retry-After seconds; on the machine itself the admin address has no limit"


class BadCommand(OperatorError):
    """The admin API does not understand the call."""

    code = "bad-command"
    status = 400
    hint = "GET /openapi.json lists the calls"


class DaemonUnreachable(AutostartError):
    """A command that needs the daemon found none."""

    code = "daemon-unreachable"
    hint = "autostart serve"


class AlreadyServing(AutostartError):
    """Another autostart serves with this state folder."""

    code = "already-serving"
    hint = "stop the other one, or set AUTOSTART_STATE to another folder"


class AddressTaken(AutostartError):
    """A listen address is in use, or not ours to take."""

    code = "address-taken"
    hint = "stop the program that listens there, or change the address in the map"


class StateUnusable(AutostartError):
    """The state folder cannot be made or written."""

    code = "state-unusable"
    hint = "set AUTOSTART_STATE to a folder that you may write"
