"""What is legal for one service: states, events, commands, and the pure step between them.

    STOPPED ──lease, due, operator──▶ STARTING ──probe succeeded──▶ READY
       ▲                               │    ▲                        │ │
       │                         failed│    └──lost, other run───────┘ │idle, evicted, operator
       │                               ▼                               ▼
       └──retry due── FAILED ◀──── STOPPING ◀───────────────────────────┘

Events are facts ("Started") or due dates ("StopDue"); commands are imperatives. Everything that
happens to a service goes through `transition`, which takes values and returns values: no clock,
no socket, no log. Whoever executes commands reports each result as the next event, with the
attempt that it belongs to; what a former attempt reports changes nothing.
"""

from autostart.lifecycle.commands import Accept, AskBusy, Command, Grant, Probe, Refuse, Start, Stop
from autostart.lifecycle.events import (
    Adopted,
    Answered,
    BusyAnswered,
    BusyDue,
    Event,
    Exited,
    HoldDue,
    Kept,
    LeaseReleased,
    LeaseRequested,
    Lost,
    ProbeSucceeded,
    Progressed,
    Reconfigured,
    Removed,
    RestartRequested,
    RetryDue,
    ShutdownBegan,
    StartDue,
    Started,
    StartFailed,
    StartRequested,
    StopDue,
    StopFailed,
    Stopped,
    StopRequested,
)
from autostart.lifecycle.operator import held_by_operator
from autostart.lifecycle.service import (
    Endpoint,
    Lease,
    Phase,
    Service,
    State,
    StopCause,
    Then,
    Waited,
)
from autostart.lifecycle.transition import transition

__all__ = [
    "Accept",
    "Adopted",
    "Answered",
    "AskBusy",
    "BusyAnswered",
    "BusyDue",
    "Command",
    "Endpoint",
    "Event",
    "Exited",
    "Grant",
    "HoldDue",
    "Kept",
    "Lease",
    "LeaseReleased",
    "LeaseRequested",
    "Lost",
    "Phase",
    "Probe",
    "ProbeSucceeded",
    "Progressed",
    "Reconfigured",
    "Refuse",
    "Removed",
    "RestartRequested",
    "RetryDue",
    "Service",
    "ShutdownBegan",
    "Start",
    "StartDue",
    "StartFailed",
    "StartRequested",
    "Started",
    "State",
    "Stop",
    "StopCause",
    "StopDue",
    "StopFailed",
    "StopRequested",
    "Stopped",
    "Then",
    "Waited",
    "held_by_operator",
    "transition",
]
