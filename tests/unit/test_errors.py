"""autostart/errors.py: every way to fail has a code, a status and a next step."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from autostart import errors
from autostart.errors import Asleep, AutostartError, ConfigError, Refusal


def _below(base: type[AutostartError]) -> Iterator[type[AutostartError]]:
    for each in base.__subclasses__():
        yield each
        yield from _below(each)


EVERY = [each for each in _below(AutostartError) if each.__module__ == errors.__name__]
REFUSALS = [each for each in EVERY if issubclass(each, Refusal) and each is not Refusal]

# What a client gets, by code: the table of the README.
STATUSES = {
    "bad-request": 400,
    "unauthorized": 401,
    "wake-refused": 403,
    "unknown-host": 404,
    "unknown-page": 404,
    "docs-unknown": 404,
    "ignored-path": 404,
    "request-timeout": 408,
    "body-too-large": 413,
    "upgrade-unsupported": 501,
    "service-closed": 502,
    "connect-failed": 502,
    "queue-full": 503,
    "preparing": 503,
    "starting": 503,
    "start-failed": 503,
    "backing-off": 503,
    "port-taken": 503,
    "held": 503,
    "engine-unreachable": 503,
    "shutting-down": 503,
    "start-timeout": 504,
    "response-timeout": 504,
    # Its status is the map's; this is the one when nothing else is said.
    "asleep": 200,
}


@pytest.mark.parametrize("error", EVERY, ids=lambda error: error.__name__)
def test_every_error_says_what_and_what_next(error: type[AutostartError]) -> None:
    """Code, hint and documentation are there, and the status is one of HTTP's."""
    assert error.code
    assert error.hint
    assert error.__doc__
    assert 200 <= error.status <= 599


def test_codes_are_unique() -> None:
    """A code names one way to fail; the base class of refusals has none of its own."""
    codes = [each.code for each in EVERY if each is not Refusal]

    assert len(codes) == len(set(codes))


def test_statuses_are_the_promised_ones() -> None:
    """Every refusal has the status of its row, and every row its refusal."""
    assert STATUSES == {each.code: each.status for each in REFUSALS}


def test_errors_are_values() -> None:
    """Equal class, message and details make equal errors; anything else does not."""
    assert errors.Starting("soon", retry_after_seconds=3) == errors.Starting(
        "soon", retry_after_seconds=3
    )
    assert errors.Starting("soon") != errors.Starting("soon", retry_after_seconds=3)
    assert errors.Starting("soon") != errors.Preparing("soon")
    assert Asleep("zzz", status=200) != Asleep("zzz", status=503)
    assert len({errors.Held("x"), errors.Held("x")}) == 1


def test_error_text_is_its_message() -> None:
    """What is logged is what was said."""
    assert "whisper.test is held" == str(errors.Held("whisper.test is held"))


def test_config_error_lists_every_problem() -> None:
    """Its text has one line for each."""
    error = ConfigError(["a: is required", "b: is required"])

    assert "a: is required\nb: is required" == str(error)
    assert ["a: is required", "b: is required"] == error.problems


def test_refusal_after_is_a_copy_with_its_wait() -> None:
    """One refusal answers many clients, each with a wait of its own; the first stays as it was."""
    refusal = Asleep("zzz", status=503)

    later = refusal.after(7.5)

    assert later is not refusal
    assert (later.status, later.message, str(later)) == (503, "zzz", "zzz")
    assert later.retry_after_seconds == 7.5
    assert refusal.retry_after_seconds is None
