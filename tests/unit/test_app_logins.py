"""autostart/app/logins.py: wrong logins do not keep right ones waiting."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter

from autostart.access import Gate
from autostart.app.logins import CHECKS_MAX, THREADS, Logins
from autostart.config import Access
from autostart.errors import AutostartError, QueueFull, Unauthorized

# Everything here takes milliseconds; this only keeps a broken test from hanging.
SECONDS_MAX = 10.0


class SlowGate(Gate):
    """Takes until it is told to go on; only "right" gets in."""

    def __init__(self) -> None:
        super().__init__(Access(), {})
        self.go_on = threading.Event()
        self.checked: Counter[str | None] = Counter()
        self.at_once = self.most_at_once = 0
        self._counting = threading.Lock()

    def check(self, authorization: str | None) -> None:
        with self._counting:
            self.checked[authorization] += 1
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
        assert self.go_on.wait(SECONDS_MAX)
        with self._counting:
            self.at_once -= 1
        if authorization != "right":
            raise Unauthorized("credentials are wrong")


async def refusal(logins: Logins, gate: Gate, authorization: str) -> AutostartError | None:
    try:
        await logins.check(gate, authorization)
    except AutostartError as error:
        return error
    return None


def begin(
    logins: Logins, gate: Gate, *authorizations: str
) -> list[asyncio.Task[AutostartError | None]]:
    """Begin checks at once."""
    loop = asyncio.get_running_loop()
    return [loop.create_task(refusal(logins, gate, text)) for text in authorizations]


async def test_too_many_at_once_are_told_to_come_again() -> None:
    """What would wait too long is refused at once; what was taken is answered, a few at a time."""
    logins, gate = Logins(), SlowGate()
    taken = begin(logins, gate, *(f"wrong {n}" for n in range(CHECKS_MAX)))
    await asyncio.sleep(0)
    refused = await refusal(logins, gate, "right")
    gate.go_on.set()
    answers = await asyncio.gather(*taken)

    text = f"{CHECKS_MAX} other logins are being checked"
    assert QueueFull(text, retry_after_seconds=1.0) == refused
    assert [Unauthorized("credentials are wrong")] * CHECKS_MAX == answers
    assert gate.most_at_once <= THREADS
    assert None is await refusal(logins, gate, "right")


async def test_one_client_with_many_requests_is_checked_once() -> None:
    """A hundred requests at once with the same login are one check, and each is answered."""
    logins, gate = Logins(), SlowGate()
    right = begin(logins, gate, *["right"] * 100)
    wrong = begin(logins, gate, *["wrong"] * 100)
    await asyncio.sleep(0)
    gate.go_on.set()

    assert [None] * 100 == await asyncio.gather(*right)
    assert [Unauthorized("credentials are wrong")] * 100 == await asyncio.gather(*wrong)
    assert {"right": 1, "wrong": 1} == gate.checked


async def test_gates_are_not_taken_for_one_another() -> None:
    """The same login at two services is two checks."""
    logins, first, second = Logins(), SlowGate(), SlowGate()
    both = begin(logins, first, "right") + begin(logins, second, "right")
    first.go_on.set()
    second.go_on.set()

    assert [None, None] == await asyncio.gather(*both)
    assert (1, 1) == (first.checked["right"], second.checked["right"])


async def test_who_leaves_frees_no_room_before_his_check_has_ended() -> None:
    """Guessing and hanging up is no way to have more computed at once."""
    logins, gate = Logins(), SlowGate()
    leaving = begin(logins, gate, *(f"wrong {n}" for n in range(CHECKS_MAX)))
    await asyncio.sleep(0)
    for each in leaving:
        each.cancel()
    await asyncio.wait(leaving)
    refused = await refusal(logins, gate, "right")
    gate.go_on.set()
    logins.close()
    await asyncio.sleep(0)

    assert isinstance(refused, QueueFull)
