"""autostart/admin/attempts.py: guessing is slow, and keeps nobody else out."""

from __future__ import annotations

import pytest

from autostart.admin.attempts import (
    ADDRESSES_MAX,
    SECONDS_EACH,
    WRONG_MAX,
    Attempts,
    who_asks,
)

WHO, OTHER = "192.0.2.1/32", "192.0.2.2/32"
NOW = 1_000.0


def guessed(times: int, who: str | None = WHO) -> Attempts:
    attempts = Attempts()
    for _ in range(times):
        attempts.note_wrong(who, NOW)
    return attempts


def test_a_few_mistakes_cost_nothing() -> None:
    """A person who mistypes is not kept waiting."""
    assert 0 == guessed(WRONG_MAX - 1).wait_seconds(WHO, NOW)


def test_more_are_told_to_wait() -> None:
    """Then one attempt is looked at every two seconds."""
    attempts = guessed(WRONG_MAX)

    assert SECONDS_EACH == attempts.wait_seconds(WHO, NOW)
    assert 0 == attempts.wait_seconds(WHO, NOW + SECONDS_EACH)


def test_others_do_not_wait() -> None:
    """Whoever guesses keeps nobody else out."""
    assert 0 == guessed(WRONG_MAX).wait_seconds(OTHER, NOW)


def test_this_machine_does_not_wait() -> None:
    """The operator's last way in has no limit."""
    assert 0 == guessed(1_000, None).wait_seconds(None, NOW)


def test_time_forgets_mistakes() -> None:
    """After a while all of them may be made again."""
    attempts, later = guessed(WRONG_MAX), NOW + WRONG_MAX * SECONDS_EACH
    for _ in range(WRONG_MAX - 1):
        attempts.note_wrong(WHO, later)

    assert 0 == attempts.wait_seconds(WHO, later)


def test_addresses_are_bounded() -> None:
    """Of more than fit the one that was wrong longest ago is forgotten."""
    attempts = guessed(WRONG_MAX)
    for number in range(ADDRESSES_MAX):
        attempts.note_wrong(f"other {number}", NOW)

    assert 0 == attempts.wait_seconds(WHO, NOW)


@pytest.mark.parametrize(
    ("peer", "forwarded_for", "expected"),
    [
        ("127.0.0.1", None, None),
        ("::1", None, None),
        ("::ffff:127.0.0.1", None, None),
        (None, None, None),  # a unix socket
        ("192.0.2.1", None, WHO),
        ("::ffff:192.0.2.1", None, WHO),
        ("192.0.2.1", "192.0.2.2", WHO),  # no proxy of this machine wrote that
        ("127.0.0.1", "192.0.2.1", WHO),
        (None, "192.0.2.1", WHO),
        ("127.0.0.1", "192.0.2.2, 192.0.2.1", WHO),  # the proxy appends whom it saw
        ("127.0.0.1", "127.0.0.1", "127.0.0.1/32"),
        ("2001:db8::1", None, "2001:db8::/64"),
        ("2001:db8::1:2:3:4%eth0", None, "2001:db8::/64"),
        ("127.0.0.1", "rubbish", "unknown"),
        ("127.0.0.1", "", "unknown"),
    ],
)
def test_who_asks(peer: str | None, forwarded_for: str | None, expected: str | None) -> None:
    """By the socket, or by what a reverse proxy on this machine saw."""
    assert expected == who_asks(peer, forwarded_for)
