"""The log of `autostart serve`: on stderr, a line per event, for people or for programs."""

from __future__ import annotations

import logging
import os
import sys
from typing import TextIO

import structlog
from structlog.typing import Processor

FORMATS = ("console", "json")
LEVELS = ("debug", "info", "warning", "error")
# The longest of our events, so that the fields of most lines begin in one column.
EVENT_CHARACTERS = 16

# These tell what ours tell better: one line per request, per job, per connection.
_TALKATIVE = ("aiohttp.access", "apscheduler", "asyncio", "docker", "urllib3")


def configure_log(log_format: str, level: str, stream: TextIO | None = None) -> None:
    """Send our log and that of the libraries to `stream`, stderr by default."""
    output = sys.stderr if stream is None else stream
    shared: list[Processor] = [
        structlog.stdlib.add_log_level,
        _timestamp(log_format),
    ]
    renderers = _renderers(log_format, output)
    number = logging.getLevelNamesMapping()[level.upper()]
    structlog.configure(
        processors=[*shared, *renderers],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.WriteLoggerFactory(output),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(output)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.add_logger_name],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderers],
        )
    )
    logging.basicConfig(handlers=[handler], level=number, force=True)
    for name in _TALKATIVE:
        logging.getLogger(name).setLevel(max(number, logging.WARNING))


def _timestamp(log_format: str) -> Processor:
    if log_format == "json":
        return structlog.processors.TimeStamper(fmt="iso", utc=True)
    return structlog.processors.TimeStamper(fmt="%Y-%m-%d %H:%M:%S", utc=False)


def _renderers(log_format: str, output: TextIO) -> list[Processor]:
    if log_format == "json":
        return [
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(default=str),
        ]
    return [
        structlog.dev.ConsoleRenderer(
            colors=output.isatty() and not os.environ.get("NO_COLOR"),
            exception_formatter=structlog.dev.plain_traceback,
            pad_event_to=EVENT_CHARACTERS,
        )
    ]
