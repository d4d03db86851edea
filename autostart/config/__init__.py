"""The map: the operator's file, parsed once, at the edge, into frozen values.

quantity, address, cron   one value each, as it is written
form                      which form each key has
model                     the values, their keys, their defaults
document, problem         the file as text and lines; a fault in the operator's words
consistency               what must agree between keys and between services; what is doubtful
loading                   file → Map, or one ConfigError with every problem found
schema                    the map's JSON schema, for editors
legacy                    docker-autostart's config.json → a map
"""

from autostart.config.address import Address, Network, TcpAddress, UnixAddress, parse_address
from autostart.config.consistency import warnings
from autostart.config.cron import cron_fields
from autostart.config.form import ANY_ANSWER, CONTAINER_HEALTH
from autostart.config.legacy import from_legacy
from autostart.config.loading import load
from autostart.config.model import (
    Access,
    AdminConfig,
    Map,
    ProxyConfig,
    ServiceConfig,
    Wake,
    WarmWindow,
    listeners,
)
from autostart.config.quantity import format_duration, format_size, parse_duration, parse_size
from autostart.config.schema import json_schema

__all__ = [
    "ANY_ANSWER",
    "CONTAINER_HEALTH",
    "Access",
    "Address",
    "AdminConfig",
    "Map",
    "Network",
    "ProxyConfig",
    "ServiceConfig",
    "TcpAddress",
    "UnixAddress",
    "Wake",
    "WarmWindow",
    "cron_fields",
    "format_duration",
    "format_size",
    "from_legacy",
    "json_schema",
    "listeners",
    "load",
    "parse_address",
    "parse_duration",
    "parse_size",
    "warnings",
]
