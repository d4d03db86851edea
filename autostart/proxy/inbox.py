"""Bytes received and not yet passed on, with back-pressure on their sender."""

from __future__ import annotations

import asyncio

# Above this, the sender is held back; one receive more (256 KiB) may lie here. Measured with 500 MB
# down on loopback and uvloop: 0.13 s with 16 or 64 KiB, 0.35 to 0.5 s with 256 KiB and more, where
# receives pile up and are joined. asyncio's own loop does not care.
HIGH_WATER_BYTES = 64 * 1024


class Inbox:
    """What one transport received: `read` it in order, until it has `ended` or `failed`."""

    __slots__ = ("_ended", "_failure", "_pieces", "_size", "_transport", "_waiter")

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._size = 0
        self._ended = False
        self._failure: Exception | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._transport: asyncio.Transport | None = None

    def connect(self, transport: asyncio.Transport) -> None:
        """Name the transport to pause while too much lies here."""
        self._transport = transport

    @property
    def is_complete(self) -> bool:
        """Nothing will be added to what lies here."""
        return self._ended or self._failure is not None

    @property
    def failure(self) -> Exception | None:
        return self._failure

    def feed(self, data: bytes) -> None:
        self._pieces.append(data)
        self._size += len(data)
        if self._size > HIGH_WATER_BYTES and self._transport is not None:
            self._transport.pause_reading()
        self.wake()

    def end(self) -> None:
        """The sender has said everything."""
        self._ended = True
        self.wake()

    def fail(self, failure: Exception) -> None:
        """Let every read raise `failure`; the first one counts, and none after the end."""
        if not self.is_complete:
            self._failure = failure
            self.wake()

    def wake(self) -> None:
        """Let whoever waits for a change look again."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def changed(self) -> None:
        """Wait until something was fed, ended or failed."""
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    async def wait(self) -> None:
        """Wait until something lies here or nothing more will come."""
        while not self._pieces and not self.is_complete:
            await self.changed()

    def take(self) -> bytes:
        """All that lies here, maybe nothing; the failure counts even if bytes came before it."""
        if self._failure is not None:
            raise self._failure
        pieces = self._pieces
        if not pieces:
            return b""
        data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        pieces.clear()
        if self._size > HIGH_WATER_BYTES and self._transport is not None:
            self._transport.resume_reading()
        self._size = 0
        return data

    async def read(self) -> bytes:
        """All that lies here, waiting for something; empty at the end."""
        await self.wait()
        return self.take()
