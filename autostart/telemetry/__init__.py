"""What happened: transitions, kept for people and counted for machines.

transition  one change of a service, as observers get it
history     the last transitions, told as they happen; what starts usually take
starts      starts that ended: how, and how long each phase took
sleep       how long each service was asleep and awake, in all and by day
usage       what runs use, and what a run usually takes
days        those three, kept over restarts
disk        the files of the state folder, written by a thread of their own
following   one client that follows: its queue, and the form in which it is told
catalogue   what each metric means
metrics     all of it for Prometheus

Knows services as values and a clock. Changes nothing, decides nothing; never blocks its caller.
"""

from autostart.telemetry.catalogue import METRICS, STARTS, TRANSITIONS, Metric
from autostart.telemetry.days import Days
from autostart.telemetry.following import (
    HEARTBEAT,
    HEARTBEAT_SECONDS,
    QUEUE_MAX,
    RETRY,
    WRITE_SECONDS,
    Follower,
    event_text,
)
from autostart.telemetry.history import HISTORY_MAX, LEARNED_FILE, Entry, History
from autostart.telemetry.metrics import Metrics
from autostart.telemetry.sleep import DAYS_MAX
from autostart.telemetry.starts import Start
from autostart.telemetry.transition import Clock, Transition
from autostart.telemetry.usage import Sample

__all__ = [
    "DAYS_MAX",
    "HEARTBEAT",
    "HEARTBEAT_SECONDS",
    "HISTORY_MAX",
    "LEARNED_FILE",
    "METRICS",
    "QUEUE_MAX",
    "RETRY",
    "STARTS",
    "TRANSITIONS",
    "WRITE_SECONDS",
    "Clock",
    "Days",
    "Entry",
    "Follower",
    "History",
    "Metric",
    "Metrics",
    "Sample",
    "Start",
    "Transition",
    "event_text",
]
