"""Why something happened, in the words of a log line."""

from __future__ import annotations

from autostart import lifecycle
from autostart.lifecycle import Event


def cause_of(event: Event) -> str:
    """Return the event in the words of a log line."""
    match event:
        case lifecycle.LeaseRequested(lease):
            return f"request {lease.about}"
        case lifecycle.StopDue(cause):
            return cause
        case lifecycle.Exited(_, reason):
            return f"exited: {reason}"
        case lifecycle.StartFailed(_, error):
            return error.code
        case lifecycle.BusyAnswered(_, _, cause, _) if cause is not None:
            return cause
    name = type(event).__name__
    return "".join(f"-{c.lower()}" if c.isupper() else c for c in name).lstrip("-")
