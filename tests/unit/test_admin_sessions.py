"""autostart/admin/sessions.py: what a cookie has to be to stand for the token."""

from __future__ import annotations

from autostart.admin.sessions import (
    AGE_SECONDS_MAX,
    ENDED_MAX,
    RENEW_SECONDS,
    UNUSED_SECONDS_MAX,
    Session,
    Sessions,
)

NOW = 1_700_000_000.0
SESSIONS = Sessions("sesame")
SAME_TOKEN = Sessions("sesame")
OTHER_TOKEN = Sessions("other")


def test_a_session_is_read_back() -> None:
    """What was written is the session that was opened."""
    session = SESSIONS.open(NOW)

    assert session == SESSIONS.read(SESSIONS.write(session), NOW + 1)


def test_a_restart_keeps_sessions() -> None:
    """Another autostart with the same token reads the same cookie under the same name."""
    session = SESSIONS.open(NOW)

    assert session == SAME_TOKEN.read(SESSIONS.write(session), NOW)
    assert SAME_TOKEN.cookie == SESSIONS.cookie


def test_another_token_ends_sessions() -> None:
    """Whoever changes the token has logged everybody out."""
    assert OTHER_TOKEN.read(SESSIONS.write(SESSIONS.open(NOW)), NOW) is None
    assert OTHER_TOKEN.cookie != SESSIONS.cookie


def test_a_session_ends_twelve_hours_after_its_last_use() -> None:
    """It is good until then, and no longer."""
    written = SESSIONS.write(SESSIONS.open(NOW))

    assert SESSIONS.read(written, NOW + UNUSED_SECONDS_MAX - 1) is not None
    assert SESSIONS.read(written, NOW + UNUSED_SECONDS_MAX) is None


def test_use_renews_a_session_but_not_for_ever() -> None:
    """A month after the login the token is asked for again, however often it was used."""
    session = SESSIONS.open(NOW)
    late = Session(session.id, session.begun_at, int(NOW + AGE_SECONDS_MAX - 60))

    assert SESSIONS.read(SESSIONS.write(late), NOW + AGE_SECONDS_MAX - 1) == late
    assert SESSIONS.read(SESSIONS.write(late), NOW + AGE_SECONDS_MAX) is None


def test_a_session_is_renewed_every_ten_minutes() -> None:
    """Most answers carry no cookie."""
    session = SESSIONS.open(NOW)
    later = NOW + RENEW_SECONDS

    assert session.used(later - 1) is None
    assert Session(session.id, session.begun_at, int(later)) == session.used(later)


def test_a_cookie_that_was_changed_is_none() -> None:
    """Every part of it is signed."""
    written = SESSIONS.write(SESSIONS.open(NOW))
    id_, begun, used, signature = written.split(".")
    changed = [
        "",
        "x",
        f"{id_}.{begun}.{used}",
        f"{id_}.{begun}.{int(used) + 1}.{signature}",
        f"{id_}.{int(begun) + 1}.{used}.{signature}",
        f"{'0' * 32}.{begun}.{used}.{signature}",
        f"{id_}.{begun}.{used}.{'0' * 64}",
        f"{written}\n",
        written.upper(),
        written.replace("1", "\u0661"),
    ]

    assert [None] * len(changed) == [SESSIONS.read(each, NOW) for each in changed]


def test_a_session_from_the_future_is_none() -> None:
    """After a clock was put back far, the token is asked for again."""
    written = SESSIONS.write(SESSIONS.open(NOW))

    assert SESSIONS.read(written, NOW - 60) is not None
    assert SESSIONS.read(written, NOW - 3600) is None


def test_an_ended_session_is_none_in_every_form() -> None:
    """Logging out ends what was renewed from it too; others stay."""
    sessions = Sessions("sesame")
    session, other = sessions.open(NOW), sessions.open(NOW)
    renewed = session.used(NOW + RENEW_SECONDS)
    assert renewed is not None

    sessions.end(session)

    assert sessions.read(sessions.write(renewed), NOW + RENEW_SECONDS) is None
    assert sessions.read(sessions.write(other), NOW) == other


def test_ended_sessions_are_bounded() -> None:
    """Of more than fit the ones that ended first are forgotten."""
    sessions = Sessions("sesame")
    ended = [sessions.open(NOW) for _ in range(ENDED_MAX + 1)]
    for session in ended:
        sessions.end(session)

    assert sessions.read(sessions.write(ended[0]), NOW) == ended[0]
    assert sessions.read(sessions.write(ended[1]), NOW) is None
