"""The command line. serve, check, doctor, import and nginx need no daemon; the others ask it.

commands    what `autostart` understands
failure     how a command that fails says so, and its exit status
location    which map, and where its admin listener is
client      the admin API, for one command at a time
waiting     start, stop, restart and prepare: asked, then waited for
progress    the line that moves meanwhile
status      what `status` shows, and to whom
table       what `status` prints
picture     the same on a terminal, with colours
watch       the picture that moves
completion  what a shell offers
health      whether the daemon answers, for a container
doctor      what `doctor` looks at
nginx       prints server blocks, and what keeps nginx from serving them
log         the log of `serve`
"""

from autostart.cli.commands import main

__all__ = ["main"]
