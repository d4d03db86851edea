"""The command line. All commands but serve, check, doctor and import talk to the admin API.

commands  what `autostart` understands
failure   how a command that fails says so, and its exit status
location  which map, and where its admin listener is
client    the admin API, for one command at a time
waiting   start, stop, restart and prepare: asked, then waited for
table     what `status` prints
doctor    what `doctor` looks at
log       the log of `serve`
"""

from autostart.cli.commands import main

__all__ = ["main"]
