"""The only writer of state. `supervisor` steps, `execution` does what takes time.

`orders` are what an operator asked for and an end of autostart does not end.
"""

from autostart.supervisor.clock import Clock, SystemClock
from autostart.supervisor.execution import Probe
from autostart.supervisor.orders import Orders
from autostart.supervisor.supervisor import Granted, Supervisor

__all__ = ["Clock", "Granted", "Orders", "Probe", "Supervisor", "SystemClock"]
