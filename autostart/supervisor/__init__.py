"""The only writer of state. `supervisor` steps, `execution` does what takes time."""

from autostart.supervisor.clock import Clock, SystemClock
from autostart.supervisor.execution import Probe
from autostart.supervisor.supervisor import Granted, Supervisor

__all__ = ["Clock", "Granted", "Probe", "Supervisor", "SystemClock"]
