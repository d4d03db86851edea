"""The waiting page: ours, or the one that an operator wrote.

Both are Jinja2 templates with the same variables (docs/waiting-page.md), escaped by themselves.
Ours is `page.html` with `page.css` and `page.js` inside it: nothing is loaded from anywhere. An
operator's runs in a sandbox, is read again when it changes, and is left aside while it does not
work.
"""

from __future__ import annotations

import base64
import hashlib
import math
import re
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog
from jinja2 import (
    Environment,
    FileSystemLoader,
    StrictUndefined,
    Template,
    TemplateNotFound,
    TemplateSyntaxError,
)
from jinja2.sandbox import SandboxedEnvironment
from jinja2.utils import htmlsafe_json_dumps
from markupsafe import Markup

from autostart import errors
from autostart.config import ServiceConfig
from autostart.waiting.language import LANGUAGES, Language
from autostart.waiting.status import Status
from autostart.waiting.words import WORDS, Words, duration, situation

log = structlog.get_logger("autostart")

# A page without JavaScript loads itself again as often as that, at least. Less than the time for
# which a run that has served nobody yet is not evicted (UNUSED_SECONDS of the lifecycle).
REFRESH_SECONDS_MAX = 5
# Of the bar, up to where a start usually is ready; the rest is never quite reached.
USUAL_PERCENT = 90.0

_FOLDER = Path(__file__).parent
# Refusals that end by waiting, and those that say why it takes so long. A request that does not
# wait meets no other: QueueFull and StartTimeout are for those that are held.
_NOT_NOW = (
    errors.Starting,
    errors.Preparing,
    errors.StartFailed,
    errors.BackingOff,
    errors.PortTaken,
    errors.Held,
    errors.EngineUnreachable,
    errors.ShuttingDown,
    errors.ConnectFailed,  # it was there a moment ago, and is probed again
)
_GUARDS = {"X-Content-Type-Options": "nosniff", "Referrer-Policy": "same-origin"}


@dataclass(frozen=True)
class WaitingPage:
    """The page of one answer, and the header lines that belong to it."""

    body: bytes
    headers: Mapping[str, str]


def is_not_now(refusal: errors.Refusal) -> bool:
    """Say whether a browser that is refused so gets there by waiting."""
    return isinstance(refusal, _NOT_NOW)


def _code(name: str) -> str:
    """Return a file of ours without its comment lines and indentation."""
    lines = (line.strip() for line in (_FOLDER / name).read_text(encoding="utf-8").splitlines())
    return "\n".join(line for line in lines if line and not line.startswith("//"))


def _hash(code: str) -> str:
    digest = hashlib.sha256(code.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


_SCRIPT = _code("page.js")
_STYLE = re.sub(r"\s*([{};])\s*|([:,]) ", r"\1\2", _code("page.css"))
_POLICY = (
    f"default-src 'none'; style-src {_hash(_STYLE)}; script-src {_hash(_SCRIPT)}; img-src data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
)


class Pages:
    """Renders pages; remembers which of the operators' own do not work, to say so once."""

    def __init__(self) -> None:
        loader = FileSystemLoader(_FOLDER)
        environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined)
        environment.trim_blocks = environment.lstrip_blocks = True
        self._ours = environment.get_template("page.html")
        self._own: dict[Path, Environment] = {}
        self._unusable: dict[Path, str] = {}

    def render(
        self,
        service: ServiceConfig,
        status: Status,
        *,
        language: Language,
        target: str = "/",
        retry_after_seconds: float | None = None,
    ) -> WaitingPage:
        """Return the service's page: its own if it has one that works, else ours.

        `target` is what was asked for: path and query.
        """
        variables = _variables(status, language, target, retry_after_seconds)
        path = service.waiting_page
        if path is not None:
            try:
                text = self._own_template(path).render(variables)
            except Exception as error:  # noqa: BLE001 - a template fails with whatever its expressions do
                self._report(service.host, path, _reason(path, error))
            else:
                self._unusable.pop(path, None)
                return WaitingPage(text.encode("utf-8", "replace"), _GUARDS)
        text = self._ours.render(variables, style=Markup(_STYLE))  # noqa: S704 - a file of ours
        headers = {**_GUARDS, "Content-Security-Policy": _POLICY}
        return WaitingPage(text.encode("utf-8", "replace"), headers)

    def _own_template(self, path: Path) -> Template:
        """Return the operator's page as its file is now; what it includes stands beside it."""
        environment = self._own.get(path.parent)
        if environment is None:
            environment = _sandbox(path.parent)
            self._own[path.parent] = environment
        return environment.get_template(path.name)

    def _report(self, host: str, path: Path, reason: str) -> None:
        if self._unusable.get(path) != reason:
            self._unusable[path] = reason
            log.warning("waiting-page-unusable", service=host, path=str(path), reason=reason)


def doubts(service: ServiceConfig) -> Iterator[str]:
    """Yield what is wrong with a service's own page, as `autostart check` says it."""
    path = service.waiting_page
    if path is None:
        return
    template = None
    try:
        template = _sandbox(path.parent).get_template(path.name)
        for status in _samples(service):
            for language in LANGUAGES:
                template.render(_variables(status, language, "/", None))
    except Exception as error:  # noqa: BLE001 - as above
        yield f"waiting_page: {_reason(path, error)}; browsers get the page of autostart instead"


def _sandbox(folder: Path) -> Environment:
    return SandboxedEnvironment(
        loader=FileSystemLoader(folder), autoescape=True, undefined=StrictUndefined
    )


def _reason(path: Path, error: Exception) -> str:
    """Return what is wrong in one line that begins with file and line."""
    if isinstance(error, TemplateSyntaxError):
        return f"{error.filename or path}:{error.lineno}: {error.message}"
    if isinstance(error, TemplateNotFound):
        missing = path.parent / str(error.name)
        return f"{missing} does not exist" if not missing.exists() else f"{missing} is no file"
    if isinstance(error, OSError):
        return f"{path}: {error.strerror or error}"
    if isinstance(error, UnicodeDecodeError):
        return f"{path}: not UTF-8 text"
    # Jinja2 lets a traceback name the lines of templates.
    places = traceback.extract_tb(error.__traceback__)
    lines = [place for place in places if Path(place.filename).parent == path.parent]
    where = f"{lines[-1].filename}:{lines[-1].lineno}" if lines else str(path)
    return f"{where}: {' '.join(str(error).split()) or type(error).__name__}"


def _samples(service: ServiceConfig) -> Iterator[Status]:
    """Yield one status of each form that a page may be given."""
    known = {"host": service.host, "name": service.name or service.host}
    failure = {"code": "backing-off", "message": f"{service.host} failed to start"}
    for state, phase, elapsed, usual, failed, retry in (
        ("starting", "queued", 1.0, None, None, None),
        ("starting", "loading", 1.0, 2.0, None, None),
        ("failed", None, None, 2.0, failure, 5.0),
        ("stopped", None, None, None, {**failure, "code": "held"}, None),
    ):
        yield {
            **known,
            "state": state,
            "phase": phase,
            "elapsed_seconds": elapsed,
            "usual_start_seconds": usual,
            "failure": failed,
            "retry_in_seconds": retry,
        }


def percent(elapsed_seconds: float, usual_seconds: float) -> float:
    """Return how far the bar is: straight up to the usual time, then ever slower, never full."""
    if elapsed_seconds < usual_seconds:
        return USUAL_PERCENT * elapsed_seconds / usual_seconds
    left = 100 - USUAL_PERCENT
    return 100 - left * usual_seconds / elapsed_seconds if elapsed_seconds else USUAL_PERCENT


def refresh_seconds(retry_after_seconds: float | None) -> int:
    """Return after how many seconds a page without JavaScript loads itself again."""
    return min(max(1, math.ceil(retry_after_seconds or 1)), REFRESH_SECONDS_MAX)


def reload_address(target: str) -> str:
    """Return what leads a page from its address to that address: relative, without fragment.

    With the fragment, or with no address at all, a refresh in Chromium only scrolls within the
    page. Relative, because a proxy before us may have changed what the path begins with.
    """
    path, mark, query = target.partition("#")[0].partition("?")
    return f"./{path.rpartition('/')[2]}{mark}{query}"


def _variables(
    status: Mapping[str, Any], language: Language, target: str, retry_after_seconds: float | None
) -> dict[str, Any]:
    """Return what a template may say; docs/waiting-page.md lists them."""
    words = WORDS[language]
    failure, phase = status["failure"], status["phase"]
    word = situation(status["state"], phase, failure and failure["code"])
    elapsed, usual = status["elapsed_seconds"], status["usual_start_seconds"]
    is_timed = word in ("starting", "loading") and bool(usual)
    retry = status["retry_in_seconds"]
    seconds = refresh_seconds(retry_after_seconds)
    return {
        "host": status["host"],
        "name": status["name"],
        "language": language,
        "situation": word,
        "heading": words.headings[word],
        "text": words.texts[word],
        "reason": failure["message"] if word == "failed" else "",
        "elapsed": "" if elapsed is None else duration(elapsed),
        "usual": words.usual.format(duration(usual)) if is_timed else "",
        "percent": round(percent(elapsed, usual), 1) if is_timed else None,
        "retry": "" if retry is None else words.retry.format(duration(retry)),
        "refresh": f"{seconds}; url={reload_address(target)}",
        "steps": words.steps,
        "opens": words.opens,
        "reloads": words.reloads.format(duration(seconds)),
        "progress": words.progress,
        "script": _script(status, words),
    }


def _script(status: Mapping[str, Any], words: Words) -> Markup:
    """Return what moves a page: the status and the words as data, then the program."""
    said = {key: getattr(words, key) for key in ("headings", "texts", "usual", "retry")}
    data = htmlsafe_json_dumps(
        {"status": status, "words": said}, ensure_ascii=False, separators=(",", ":")
    )
    head = Markup('<script type="application/json" id="autostart">{}</script>').format(data)
    return head + Markup("<script>{}</script>").format(Markup(_SCRIPT))  # noqa: S704 - a file of ours
