"""The composition root: names the runtimes, owns the scheduler, joins the layers into a program.

gateway   one request, from its head to its last byte
cors      preflights and headers of services that set `cors`
alarm     APScheduler as the supervisor's alarm clock
listening sockets: addresses, doors, what systemd hands over
serving   the process: lock, signals, reload, shutdown
"""

from autostart.app.serving import serve

__all__ = ["serve"]
