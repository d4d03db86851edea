"""How each key of the map is written: what is accepted, what it becomes, what editors check.

A validator raises ValueError with what is allowed; the key and the value are added where the
problem is reported. In types that end in `| None`, null in the map means "not set".
"""

from __future__ import annotations

import os
import re
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated
from zoneinfo import ZoneInfo

from pydantic import (
    AfterValidator,
    Field,
    PlainValidator,
    StringConstraints,
    ValidationInfo,
    WithJsonSchema,
)
from pydantic.fields import FieldInfo

from autostart.config.address import PORT_MAX, Address, Network, parse_address, parse_network
from autostart.config.cron import cron_fields
from autostart.config.quantity import (
    DURATION_PATTERN,
    SIZE_PATTERN,
    parse_duration,
    parse_positive_duration,
    parse_size,
)

NEVER = "never"
ANY_ANSWER = "any"
CONTAINER_HEALTH = "container-health"

_LABELS = re.compile(
    r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?)*"
)
_TOKEN = re.compile(r"[A-Z][A-Z0-9-]*")
_ORIGIN = re.compile(r"https?://[a-z0-9_.-]+(:[0-9]{1,5})?|https?://\[[0-9a-f:.]+\](:[0-9]{1,5})?")


def parse_host(written: object) -> str:
    """Return a host in lower case: a name, "*.name", or an IP address without brackets.

    Raises ValueError.
    """
    allowed = 'allowed: a host name without scheme and port, or "*.name"'
    if not isinstance(written, str):
        raise ValueError(f"{allowed}, in quotes")
    host = written.lower().removesuffix(".")
    if not host.isascii():
        raise ValueError(f"{allowed}; write the xn-- form of an international name")
    if _LABELS.fullmatch(host.removeprefix("*.")):
        return host
    try:
        return str(ip_address(host.strip("[]")))
    except ValueError:
        raise ValueError(allowed) from None


def _parse_idle(written: object) -> float | None:
    if written == NEVER:
        return None
    if written is None or (isinstance(written, str) and not re.match(r"[0-9]", written)):
        raise ValueError(f"allowed: a duration such as 500ms, 90s, 15m, 1h30m, or {NEVER}")
    return parse_positive_duration(written)


def _parse_url_path(written: object) -> str:
    if not isinstance(written, str) or not re.fullmatch(r"/[!-~]*", written) or "#" in written:
        raise ValueError("allowed: a path such as /ready")
    return written


def _parse_ready(written: object) -> str:
    if written in {ANY_ANSWER, CONTAINER_HEALTH}:
        return str(written)
    try:
        return _parse_url_path(written)
    except ValueError as error:
        raise ValueError(f"{error}, or {ANY_ANSWER}, or {CONTAINER_HEALTH}") from None


def _parse_method(written: object) -> str:
    if not isinstance(written, str) or not _TOKEN.fullmatch(written.upper()):
        raise ValueError("allowed: an HTTP method such as POST")
    return written.upper()


def _parse_origin(written: object) -> str:
    origin = written.lower() if isinstance(written, str) else ""
    if origin != "*" and not _ORIGIN.fullmatch(origin):
        raise ValueError("allowed: an origin such as https://portal.example.com, or *")
    return origin


def _parse_portal(written: object) -> str | None:
    host = None if written is None else parse_host(written)
    if host is not None and host.startswith("*"):
        raise ValueError("allowed: one host, without wildcard")
    return host


def _check_cron(expression: str) -> str:
    cron_fields(expression)
    return expression


def _check_timezone(name: str) -> str:
    try:
        ZoneInfo(name)
    # Raised are KeyError (unknown), ValueError (../), and OSErrors for a folder such as "Europe".
    except (KeyError, ValueError, OSError):
        raise ValueError("allowed: a name of the time zone database such as Europe/Paris") from None
    return name


def _check_not_empty(written: tuple[str, ...]) -> tuple[str, ...]:
    if not written:
        raise ValueError("allowed: at least one")
    return written


def _check_variables(written: dict[str, str]) -> dict[str, str]:
    for name, value in written.items():
        if not name or "=" in name or "\0" in name + value:
            raise ValueError(f"{name!r} is no name of an environment variable")
    return written


def _from_folder(written: Path, info: ValidationInfo) -> Path:
    """Make a path absolute from the map's folder, as a shell would: links are not followed."""
    folder: Path = info.context["folder"] if info.context else Path()
    return Path(os.path.normpath(folder / written))


def key(name: str, description: str) -> FieldInfo:
    """Say under which key an attribute is written, and what editors show for it."""
    info: FieldInfo = Field(validation_alias=name, description=description)
    return info


def _text(**more: object) -> WithJsonSchema:
    return WithJsonSchema({"type": "string", **more})


Text = Annotated[str, StringConstraints(min_length=1)]
FilePath = Annotated[Path, AfterValidator(_from_folder)]
Host = Annotated[str, PlainValidator(parse_host), _text()]
Portal = Annotated[str | None, PlainValidator(_parse_portal), _text()]
Listen = Annotated[Address, PlainValidator(parse_address), _text(format="address")]
TrustedNetwork = Annotated[Network, PlainValidator(parse_network), _text()]
UrlPath = Annotated[str, PlainValidator(_parse_url_path), _text(pattern="^/")]
Ready = Annotated[str, PlainValidator(_parse_ready), _text(pattern="^(/.*|any|container-health)$")]
Method = Annotated[str, PlainValidator(_parse_method), _text()]
Origin = Annotated[str, PlainValidator(_parse_origin), _text()]
Duration = Annotated[
    float,
    PlainValidator(parse_positive_duration),
    _text(format="duration", pattern=DURATION_PATTERN),
]
DurationOrZero = Annotated[
    float, PlainValidator(parse_duration), _text(format="duration", pattern=DURATION_PATTERN)
]
Idle = Annotated[
    float | None,
    PlainValidator(_parse_idle),
    _text(format="duration", pattern=f"^{NEVER}$|{DURATION_PATTERN}"),
]
Size = Annotated[int, PlainValidator(parse_size), _text(format="size", pattern=SIZE_PATTERN)]
Port = Annotated[int, Field(strict=True, ge=0, le=PORT_MAX)]
Status = Annotated[int, Field(strict=True, ge=200, le=599)]
Cron = Annotated[str, AfterValidator(_check_cron)]
Timezone = Annotated[str, AfterValidator(_check_timezone)]
Words = Annotated[tuple[Text, ...], AfterValidator(_check_not_empty)]
Variables = Annotated[dict[str, str], AfterValidator(_check_variables)]
