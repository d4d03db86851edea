"""The composition root: names the runtimes, owns the scheduler, joins the layers into a program.

gateway       one request, from its head to its last byte
docs          requests of those who read, and the portal's answers
cors          preflights and headers of services that set `cors`
alarm         APScheduler as the supervisor's alarm clock
listening     sockets: addresses, doors, what systemd hands over
notification  what the service manager is told: ready, status, the watchdog
sampling      what runs use, asked once a minute and when somebody wants to know
failure_logs  the last lines of what failed
following     browsers and front ends that follow one service
logins        passwords that take long to check
state         the state folder, and its lock
serving       the process: signals, reload, shutdown
"""

from autostart.app.serving import serve

__all__ = ["serve"]
