"""`python -m autostart` is the command `autostart`."""

from autostart.cli import main

main()
