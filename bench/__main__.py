"""`make bench`: everything, one after the other."""

import os
import platform

from bench import accuracy, at_rest, cold_start, containers, transcription, warm

print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}\n")
cold_start.report()
print()
containers.report()
print()
warm.report()
print()
at_rest.report()
print()
transcription.report()
print()
accuracy.report()
