"""The docker runtime: compose projects on a Docker engine."""

from autostart.runtimes.docker.discovery import draft_map
from autostart.runtimes.docker.runtime import DockerRuntime

__all__ = ["DockerRuntime", "draft_map"]
