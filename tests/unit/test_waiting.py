"""autostart/waiting: what a front end may know, in which language, and the page that says it."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from autostart import errors
from autostart.config import ServiceConfig
from autostart.lifecycle import Endpoint, Phase, Service, State, held_by_operator
from autostart.waiting import (
    Pages,
    WaitingPage,
    doubts,
    is_not_now,
    preferred_language,
    public_status,
    status_event,
)
from autostart.waiting.language import LANGUAGES
from autostart.waiting.page import REFRESH_SECONDS_MAX, percent, refresh_seconds, reload_address
from autostart.waiting.words import WORDS, duration, situation

ROOT = Path(__file__).resolve().parents[2]
HOST = "files.test"
CONFIG = ServiceConfig(host=HOST, name="Files", mode="page")
STOPPED = Service(CONFIG, since=90.0)
NOW = 100.0
RUN = Endpoint("127.0.0.1", 8001, "run-1")
FAILURE = errors.StartFailed(
    f"{HOST} ended: exit code 1", private="password: sesame", detail="Traceback: sesame"
)
# Of a page with everything on it; a second on a slow line.
PAGE_BYTES_MAX = 10_000


def starting(phase: Phase, **milestones: float) -> Service:
    return replace(
        STOPPED,
        state=State.STARTING,
        phase=phase,
        milestones={Phase(name): at for name, at in milestones.items()},
    )


def status(**expected: Any) -> dict[str, Any]:
    """Return what is told of the stopped service, but for these."""
    nothing = dict.fromkeys(
        ("phase", "elapsed_seconds", "usual_start_seconds", "failure", "retry_in_seconds")
    )
    return {"host": HOST, "name": "Files", "state": "stopped", **nothing, **expected}


def failed(error: errors.Refusal) -> dict[str, Any]:
    return {"failure": {"code": error.code, "message": error.message}}


QUEUED = starting(Phase.QUEUED, queued=93.0)
PREPARING = starting(Phase.PREPARING, queued=92.0, starting=92.5, preparing=94.0)
STARTING = starting(Phase.STARTING, queued=92.0, starting=95.0)
LOADING = replace(
    starting(Phase.LOADING, starting=95.0, loading=98.0), endpoint=RUN, usual_start_seconds=8.0
)
ADOPTED = replace(starting(Phase.LOADING, loading=99.0), endpoint=RUN)
READY = replace(STOPPED, state=State.READY, endpoint=RUN, usual_start_seconds=8.0)
FAILED = replace(STOPPED, state=State.FAILED, failure=FAILURE, retry_at=105.0)
CLEANING = replace(FAILED, state=State.STOPPING, phase=Phase.CLEANING)
RETRYING = replace(STARTING, failure=FAILURE, failures=1, retry_at=95.0)
DRAINING = replace(READY, state=State.STOPPING, phase=Phase.DRAINING)
HELD = replace(STOPPED, closed_by=held_by_operator(HOST))
HELD_AFTER_FAILURE = replace(HELD, failure=FAILURE)
AWAY = errors.EngineUnreachable("the engine does not answer")
UNSEEN = replace(STOPPED, failure=AWAY, retry_at=103.0)
LEAVING = errors.ShuttingDown("autostart is shutting down", retry_after_seconds=5.0)
SHUTTING_DOWN = replace(READY, closed_by=LEAVING)
ENDED = replace(STOPPED, failure=FAILURE, retry_at=20.0)

TABLE = {
    "stopped": (STOPPED, status(), "stopped"),
    "queued": (QUEUED, status(state="starting", phase="queued", elapsed_seconds=7.0), "queued"),
    "preparing": (
        PREPARING,
        status(state="starting", phase="preparing", elapsed_seconds=6.0),
        "preparing",
    ),
    "starting": (
        STARTING,
        status(state="starting", phase="starting", elapsed_seconds=5.0),
        "starting",
    ),
    "loading": (
        LOADING,
        status(state="starting", phase="loading", elapsed_seconds=5.0, usual_start_seconds=8.0),
        "loading",
    ),
    "found running": (
        ADOPTED,
        status(state="starting", phase="loading", elapsed_seconds=10.0),
        "loading",
    ),
    "ready": (READY, status(state="ready", usual_start_seconds=8.0), "ready"),
    "failed": (FAILED, status(state="failed", retry_in_seconds=5.0, **failed(FAILURE)), "failed"),
    "being cleaned up": (
        CLEANING,
        status(state="stopping", phase="cleaning", retry_in_seconds=5.0, **failed(FAILURE)),
        "failed",
    ),
    "starting again": (
        RETRYING,
        status(state="starting", phase="starting", elapsed_seconds=5.0),
        "starting",
    ),
    "stopping": (
        DRAINING,
        status(state="stopping", phase="draining", usual_start_seconds=8.0),
        "stopping",
    ),
    "held": (HELD, status(**failed(held_by_operator(HOST))), "held"),
    "held after a failure": (
        HELD_AFTER_FAILURE,
        status(**failed(held_by_operator(HOST))),
        "held",
    ),
    "engine away": (UNSEEN, status(retry_in_seconds=3.0, **failed(AWAY)), "failed"),
    "shutting down": (
        SHUTTING_DOWN,
        status(state="ready", usual_start_seconds=8.0, **failed(LEAVING)),
        "restarting",
    ),
    "ended by itself": (ENDED, status(**failed(FAILURE)), "failed"),
}


@pytest.mark.parametrize(("service", "expected", "word"), TABLE.values(), ids=TABLE)
def test_status_says_where_a_service_stands(
    service: Service, expected: dict[str, Any], word: str
) -> None:
    """State and phase, times of this start, and why and until when it is not to be had."""
    told = public_status(service, NOW)

    assert expected == told
    failure: Any = told["failure"]
    assert word == situation(
        str(told["state"]), service.phase and service.phase.value, failure and failure["code"]
    )


def test_status_has_no_word_that_is_the_operators() -> None:
    """What programs say, which may quote a password, is in no status, event or page."""
    told = public_status(FAILED, NOW)
    page = Pages().render(CONFIG, told, language="en")

    assert "exit code 1" in status_event(told)
    assert "sesame" not in status_event(told)
    assert b"exit code 1" in page.body
    assert b"sesame" not in page.body


def test_status_without_a_name_says_the_host() -> None:
    """As the map's default does."""
    assert HOST == public_status(Service(ServiceConfig(host=HOST)), NOW)["name"]


def test_event_is_one_that_a_browser_reads() -> None:
    """One event of one line of JSON, whatever the words in it."""
    told = status(name="two\nlines\r\n\r\nevent: other")
    head, data, *rest = status_event(told).split("\n")

    assert "event: status" == head
    assert told == json.loads(data.removeprefix("data: "))
    assert ["", ""] == rest


@pytest.mark.parametrize(
    ("accepted", "expected"),
    {
        "": "en",
        "fr": "fr",
        "FR-ca": "fr",
        "fr-Latn-FR": "fr",
        "en": "en",
        "en-GB,fr;q=0.9": "en",
        "fr,en": "fr",
        "en,fr": "en",
        "en;q=0.5, fr;q=0.8": "fr",
        "en;q=0.8, fr;q=0.5": "en",
        "en ; q = 0.2 , fr ; q = 0.3": "fr",
        "de": "en",
        "de,fr;q=0.1": "fr",
        "de, *;q=0.5": "en",
        "*, en;q=0.1": "fr",
        "*;q=0.5, fr": "fr",
        "fr;q=0": "en",
        "fr;q=0, *": "en",
        "en;q=0": "en",
        "en;q=0, *": "fr",
        "fr;q=1.000": "fr",
        "en;q=0.999, fr;q=1.": "fr",
        "fr;q=nan, en;q=0.1": "en",
        "fr;q=inf": "en",
        "fr;q=2": "en",
        "fr;q=-1": "en",
        "fr;q=": "en",
        "fr;level=1": "en",
        "frr": "en",
        "fr_FR": "en",
        ",;,=,": "en",
        "fr" * 4000: "en",
        "fr;q=0.1," * 2000 + "en;q=0.2": "en",
        "\x00\xff": "en",
        "fr, fr;q=0.1, en;q=0.5": "fr",
    }.items(),
    ids=lambda value: value[:24],
)
def test_language_is_the_one_that_the_browser_prefers(accepted: str, expected: str) -> None:
    """By weight, the first of equals; what is no language range is passed over."""
    assert expected == preferred_language(accepted)


def test_both_languages_say_the_same_things() -> None:
    """Nothing is missing in one, every situation has its words, and times have their place."""
    english, french = WORDS["en"], WORDS["fr"]
    words = {word for _, _, word in TABLE.values()}

    assert english.headings.keys() == french.headings.keys() == english.texts.keys()
    assert english.texts.keys() == french.texts.keys()
    assert words == set(english.headings)
    assert english.steps.keys() == french.steps.keys()
    for each in (english, french):
        assert all(text.count("{}") == 1 for text in (each.usual, each.retry, each.reloads))


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(-1, "0 s"), (0, "0 s"), (0.5, "1 s"), (59.4, "59 s"), (60, "1 min 0 s"), (125, "2 min 5 s")],
)
def test_time_is_written_as_people_read_it(seconds: float, expected: str) -> None:
    """Seconds, then minutes; it does not break over a line."""
    assert expected == duration(seconds).replace("\N{NO-BREAK SPACE}", " ")


def test_bar_goes_straight_to_the_usual_time_and_never_arrives() -> None:
    """Half of the way at half of the time, slower beyond, and never full."""
    assert [0, 45, 90, 95, 99] == [percent(seconds, 8) for seconds in (0, 4, 8, 16, 80)]
    assert percent(1e9, 8) < 100
    assert 90 == percent(0, 0)


@pytest.mark.parametrize(
    ("retry_after", "expected"), [(None, 1), (0.2, 1), (2.4, 3), (120.0, 5), (1e9, 5)]
)
def test_page_without_scripts_comes_back_while_the_service_is_kept(
    retry_after: float | None, expected: int
) -> None:
    """After Retry-After, and before one that served nobody yet may be evicted."""
    assert expected == refresh_seconds(retry_after)
    assert replace(READY, since=NOW).evictable_at() > NOW + REFRESH_SECONDS_MAX


NOT_NOW = {
    errors.Starting,
    errors.Preparing,
    errors.StartFailed,
    errors.BackingOff,
    errors.PortTaken,
    errors.Held,
    errors.EngineUnreachable,
    errors.ShuttingDown,
    errors.ConnectFailed,
}
REFUSALS = [errors.Asleep("no", status=204)] + [
    kind("no") for kind in errors.Refusal.__subclasses__() if kind is not errors.Asleep
]


@pytest.mark.parametrize("refusal", REFUSALS, ids=lambda refusal: refusal.code)
def test_page_is_for_what_ends_by_waiting(refusal: errors.Refusal) -> None:
    """Every other refusal is answered as it is: of the request, or of what became of it."""
    assert (type(refusal) in NOT_NOW) is is_not_now(refusal)


@pytest.mark.parametrize(
    ("target", "expected"),
    {
        "/": "./",
        "/a": "./a",
        "/a/": "./",
        "/a/b?c=d/e": "./b?c=d/e",
        "/?": "./?",
        "//evil.test": "./evil.test",
        "/javascript:alert(1)": "./javascript:alert(1)",
        "/a?b#c": "./a?b",
        "*": "./*",
    }.items(),
)
def test_page_without_scripts_leads_to_itself(target: str, expected: str) -> None:
    """By an address below its own, whatever was asked for; never to another site."""
    assert expected == reload_address(target)


# The page.


class Elements(HTMLParser):
    """The elements of a page, by name, each with its attributes; and its text."""

    def __init__(self, page: WaitingPage) -> None:
        super().__init__()
        self.found: dict[str, list[dict[str, str | None]]] = {}
        self.text = ""
        self.feed(page.body.decode())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.setdefault(tag, []).append(dict(attrs))

    def handle_data(self, data: str) -> None:
        self.text += data


def rendered(service: Service, language: Any = "en", **more: Any) -> WaitingPage:
    return Pages().render(service.config, public_status(service, NOW), language=language, **more)


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize(("service", "_", "word"), TABLE.values(), ids=TABLE)
def test_page_says_where_a_service_stands(
    service: Service, _: object, word: str, language: Any
) -> None:
    """Name, heading and text in the language, in less than 10 kB, with nothing from elsewhere."""
    page = rendered(service, language)
    elements = Elements(page)
    words = WORDS[language]

    assert [{"lang": language, "data-situation": word}] == elements.found["html"]
    assert all(text in elements.text for text in ("Files", words.headings[word], words.texts[word]))
    assert len(page.body) < PAGE_BYTES_MAX
    loaded = [
        value
        for found in elements.found.values()
        for attributes in found
        for name, value in attributes.items()
        if name in {"src", "href", "action", "srcset"}
    ]
    assert all(str(value).startswith("data:") for value in loaded)
    assert not re.search(r"url\(|@import|//(?!www\.w3\.org)", page.body.decode())


def test_page_moves_by_its_bar() -> None:
    """With a usual time it has a value; without one, or before its turn, it only moves."""
    bars = [
        Elements(rendered(service)).found["progress"][0].get("value")
        for service in (LOADING, STARTING, replace(QUEUED, usual_start_seconds=8.0))
    ]

    assert ["56.2", None, None] == bars


def test_page_names_the_next_try() -> None:
    """As long as no request wakes the service."""
    text = Elements(rendered(FAILED)).text.replace("\N{NO-BREAK SPACE}", " ")

    assert "Next try in 5 s" in text
    assert "files.test ended: exit code 1" in text
    assert "Next try in 5 s" not in Elements(rendered(HELD)).text


def test_page_reloads_itself_without_scripts() -> None:
    """And only then: a script knows when to go."""
    body = rendered(LOADING, retry_after_seconds=3.0, target="/a/b?c=<d>").body.decode()

    refresh = "3; url=./b?c=&lt;d&gt;"
    assert f'<noscript><meta http-equiv="refresh" content="{refresh}"></noscript>' in body
    assert 1 == body.count("http-equiv")


def test_policy_lets_in_only_what_is_on_the_page() -> None:
    """The style and the script by their hashes; the data is no program; nothing else."""
    page = rendered(LOADING)
    body = page.body.decode()
    policy = dict(
        each.strip().split(" ", 1) for each in page.headers["Content-Security-Policy"].split(";")
    )
    style, program = (
        re.findall(rf"<{tag}>(.*?)</{tag}>", body, re.DOTALL) for tag in ("style", "script")
    )

    def hashed(text: str) -> str:
        return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"

    assert [1, 1] == [len(style), len(program)]
    assert {
        "default-src": "'none'",
        "style-src": hashed(style[0]),
        "script-src": hashed(program[0]),
        "img-src": "data:",
        "connect-src": "'self'",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'self'",
    } == policy
    assert "nosniff" == page.headers["X-Content-Type-Options"]
    assert "same-origin" == page.headers["Referrer-Policy"]
    assert " style=" not in body
    assert " on" + "load=" not in body


HOSTILE = "</script><script>alert(1)</script>\"'<img src=x onerror=alert(1)>&{{ 7*7 }}\u2028"


@pytest.mark.parametrize("own", [None, ROOT / "config/waiting.html"], ids=["ours", "own"])
def test_hostile_words_stay_words(own: Path | None) -> None:
    """A name, a host or a reason with markup in it is shown, never run."""
    config = replace(CONFIG, name=HOSTILE, host=HOSTILE, waiting_page=own)
    service = replace(FAILED, config=config, failure=errors.StartFailed(HOSTILE))
    page = Pages().render(config, public_status(service, NOW), language="en")
    elements = Elements(page)

    assert 2 == len(elements.found["script"])
    assert "img" not in elements.found
    assert HOSTILE in elements.text
    assert "49" not in elements.text
    data = re.findall(r'id="autostart">(.*?)</script>', page.body.decode(), re.DOTALL)
    assert HOSTILE == json.loads(data[0])["status"]["failure"]["message"]


# An operator's own.


def own_page(folder: Path, text: str | bytes) -> ServiceConfig:
    path = folder / "own.html"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return replace(CONFIG, waiting_page=path)


def test_shipped_example_works() -> None:
    """In every situation and both languages, without a policy that would forbid what it loads."""
    config = replace(CONFIG, waiting_page=ROOT / "config/waiting.html")

    assert [] == list(doubts(config))
    for service, _, word in TABLE.values():
        page = rendered(replace(service, config=config))
        assert WORDS["en"].headings[word] in page.body.decode()
        assert "Content-Security-Policy" not in page.headers
        assert "nosniff" == page.headers["X-Content-Type-Options"]


def test_documented_example_is_the_shipped_one() -> None:
    """The page in docs/waiting-page.md is the one that this test renders."""
    example = (ROOT / "config/waiting.html").read_text()

    assert example in (ROOT / "docs/waiting-page.md").read_text()


def test_own_page_is_taken_as_its_file_is(tmp_path: Path) -> None:
    """An edit shows at the next request; what it includes stands beside it."""
    pages = Pages()
    config = own_page(tmp_path, "first {% include 'foot.html' %}")
    (tmp_path / "foot.html").write_text("{{ name }} {{ situation }}")
    told = public_status(LOADING, NOW)
    before = pages.render(config, told, language="en").body
    own_page(tmp_path, "second")
    after = pages.render(config, told, language="en").body

    assert [b"first Files loading", b"second"] == [before, after]


BROKEN: dict[str, tuple[str | bytes, str]] = {
    "syntax": ("\n\n{% if %}", "own.html:3: Expected an expression"),
    "unknown variable": ("\n{{ nmae }}", "own.html:2: 'nmae' is undefined"),
    "unknown filter": ("{{ name | nope }}", "own.html:1: No filter named 'nope'"),
    "division": ("\n{{ 1 / 0 }}", "own.html:2: division by zero"),
    "missing include": ("{% include 'gone.html' %}", "gone.html does not exist"),
    "not text": (b"\xff\xfe", "own.html: not UTF-8 text"),
    "out of the sandbox": ("{{ ''.__class__.__mro__ }}", "own.html:1: access to attribute"),
    "out of the folder": ("{% include '../../etc/passwd' %}", "does not exist"),
    "for ever": ("{% for each in range(10**9) %}x{% endfor %}", "own.html:1: Range too big"),
    "itself": ("{% include 'own.html' %}", "own.html"),
}


@pytest.mark.parametrize(("text", "reason"), BROKEN.values(), ids=BROKEN)
def test_own_page_that_does_not_work_is_named_with_its_line(
    tmp_path: Path, text: str | bytes, reason: str
) -> None:
    """`autostart check` says where; a browser gets our page."""
    config = own_page(tmp_path, text)
    found = list(doubts(config))

    assert 1 == len(found)
    assert found[0].startswith(f"waiting_page: {tmp_path}")
    assert reason in found[0]
    page = Pages().render(config, public_status(LOADING, NOW), language="en")
    assert "Loading" in Elements(page).text
    assert "Content-Security-Policy" in page.headers


def test_missing_own_page_is_named() -> None:
    """So is a folder in its place."""
    missing, folder = Path("/not/there.html"), ROOT

    assert [
        "waiting_page: /not/there.html does not exist; browsers get the page of autostart instead",
        f"waiting_page: {folder} is no file; browsers get the page of autostart instead",
    ] == [
        doubt for path in (missing, folder) for doubt in doubts(replace(CONFIG, waiting_page=path))
    ]
    assert [] == list(doubts(CONFIG))
