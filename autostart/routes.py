"""Which service a host leads to.

Knows the hosts, aliases and wildcards of the map, and how a Host header may be written. Knows no
request beyond that header. Exact names win over wildcards, and of wildcards the longest wins;
"*.example.com" covers every name below example.com at any depth, and not example.com itself.
"""

from __future__ import annotations

import re

from autostart.config import Map, ServiceConfig
from autostart.errors import UnknownHost

# Longest part of a foreign Host header that a message repeats: a DNS name has at most 253.
SHOWN_CHARACTERS = 253

_HEADER = re.compile(r"(?P<name>\[[0-9A-Fa-f:.]+\]|[0-9A-Za-z_.-]+)(?::[0-9]*)?")


def hostname(host_header: str) -> str:
    """Return the bare lower-case name of a Host header: no port, no trailing dot, no brackets.

    "" for a header that is not of the form name[:port]; no service has that name.
    """
    match = _HEADER.fullmatch(host_header)
    if match is None:
        return ""
    return match["name"].strip("[]").lower().removesuffix(".")


class Routes:
    """The routes of one map; a reload makes new ones."""

    def __init__(self, declared: Map) -> None:
        self._exact: dict[str, ServiceConfig] = {}
        self._wildcards: dict[str, ServiceConfig] = {}
        for service in declared.services.values():
            for name in (service.host, *service.aliases):
                if name.startswith("*."):
                    self._wildcards[name[1:]] = service
                else:
                    self._exact[name] = service

    def __repr__(self) -> str:
        names = [*self._exact, *(f"*{suffix}" for suffix in self._wildcards)]
        return f"<Routes {' '.join(sorted(names))}>"

    def match(self, host_header: str) -> ServiceConfig:
        """Return the service of a Host header; raises UnknownHost."""
        name = hostname(host_header)
        if name in self._exact:
            return self._exact[name]
        # ".a.example.com" before ".example.com": the first suffix found is the longest.
        start = name.find(".")
        while start != -1:
            service = self._wildcards.get(name[start:])
            if service is not None and start > 0:
                return service
            start = name.find(".", start + 1)
        raise UnknownHost(f"no service has the host {host_header[:SHOWN_CHARACTERS]!r}")
