"""The habits of this code base that a program can check."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PRODUCT = ("autostart", "services")
EVERYTHING = (*PRODUCT, "bench", "config", "tests")

NAMELESS = frozenset(
    {"util", "utils", "helper", "helpers", "manager", "managers", "common", "misc", "core"}
)
FUNCTION_LINES_MAX = 60
MODULE_LINES_MAX = 400

# Who may look at the fleet: those who show it, count it, or end the program. Whoever decides
# something about a service posts an event, and the lifecycle decides with the state in hand.
MAY_LOOK = frozenset(
    {
        "autostart/admin/application.py",
        "autostart/admin/figures.py",
        "autostart/app/gateway.py",  # to answer GET /.autostart/status
        "autostart/app/sampling.py",  # to ask what runs what it uses
        "autostart/app/serving.py",
        "autostart/portal/portal.py",  # to tell readers what stands where
        "autostart/supervisor/supervisor.py",
        "autostart/telemetry/metrics.py",
    }
)

# "noqa: CODE - reason", "type: ignore[code]  # reason".
_EXCEPTION = re.compile(r"#\s*(noqa|type:\s*ignore|pyright:\s*ignore)\b")
_REASONED = re.compile(
    r"#\s*noqa:\s*[A-Z]+[0-9]+(\s*,\s*[A-Z]+[0-9]+)*\s*(-|#)\s*\S"
    r"|#\s*type:\s*ignore\[[a-z, -]+\]\s*(-|#)\s*(?!noqa\b)\S"
)

Function = ast.FunctionDef | ast.AsyncFunctionDef


def sources(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def named(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def functions(path: Path) -> Iterator[Function]:
    for node in ast.walk(parsed(path)):
        if isinstance(node, Function):
            yield node


def claims() -> Iterator[tuple[str, Function]]:
    for path in sources("tests"):
        for function in functions(path):
            if path.name.startswith("test_") and function.name.startswith("test_"):
                yield f"{named(path)}:{function.lineno} {function.name}", function


def comments(path: Path) -> Iterator[tuple[int, str]]:
    text = path.read_text(encoding="utf-8")
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string


def test_every_module_has_the_name_of_a_thing() -> None:
    """No module or folder is called util, helper, manager, common, misc or core."""
    nameless = [
        named(path)
        for path in sources(*EVERYTHING)
        if NAMELESS & {*path.relative_to(ROOT).with_suffix("").parts}
    ]

    assert nameless == []


def test_every_lint_exception_has_a_reason() -> None:
    """A noqa or a type: ignore names its rule and says why, at the end of its line."""
    unreasoned = [
        f"{named(path)}:{line} {comment}"
        for path in sources(*EVERYTHING)
        for line, comment in comments(path)
        if _EXCEPTION.search(comment) and not _REASONED.search(comment)
    ]

    assert unreasoned == []


def test_every_test_claims_something() -> None:
    """Each test has a docstring, and it says what is true, not that something is tested."""
    speechless = [
        where
        for where, function in claims()
        if not (claim := ast.get_docstring(function)) or claim.startswith("Test")
    ]

    assert speechless == []


def test_every_function_fits_a_screen() -> None:
    """No function of the product is longer than 60 lines."""
    long = [
        f"{named(path)}:{function.lineno} {function.name}: {lines}"
        for path in sources(*PRODUCT)
        for function in functions(path)
        if (lines := (function.end_lineno or 0) - function.lineno + 1) > FUNCTION_LINES_MAX
    ]

    assert long == []


def test_every_module_can_be_read_in_one_go() -> None:
    """No module of the product is longer than 400 lines."""
    long = [
        f"{named(path)}: {lines}"
        for path in sources(*PRODUCT)
        if (lines := len(path.read_text(encoding="utf-8").splitlines())) > MODULE_LINES_MAX
    ]

    assert long == []


def test_only_who_shows_the_fleet_looks_at_it() -> None:
    """Nothing that decides about a service reads a snapshot first."""
    looking = {
        named(path)
        for path in sources("autostart")
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.Attribute | ast.Name)
        and (node.attr if isinstance(node, ast.Attribute) else node.id) in {"snapshot", "_snapshot"}
    }

    assert looking <= MAY_LOOK


def test_a_reason_is_told_from_none() -> None:
    """The check of lint exceptions accepts both spellings and refuses what says nothing."""
    comments_of = {
        "# noqa: S101 - a bug is an assertion": True,
        "# noqa: S101, E501 # both are meant": True,
        "# type: ignore[override]  # the Protocol's": True,
        "# noqa": False,
        "# noqa: S101": False,
        "# noqa: S101 -": False,
        "# type: ignore": False,
        "# type: ignore[override]": False,
        "# type: ignore[override]  # noqa: S101": False,
    }

    assert {each: bool(_REASONED.search(each)) for each in comments_of} == comments_of
