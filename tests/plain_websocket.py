"""The WebSocket of the plain service for tests: RFC 6455 by hand, so that every frame is ours."""

from __future__ import annotations

import asyncio
import base64
import hashlib

CONTINUATION, TEXT, CLOSE, PING, PONG = 0, 1, 8, 9, 10
FINAL = 0x80
ACCEPT_SUFFIX = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


def accept_key(key: str) -> str:
    """Return what Sec-WebSocket-Accept must say."""
    return base64.b64encode(hashlib.sha1((key + ACCEPT_SUFFIX).encode()).digest()).decode()


def frame(kind: int, payload: bytes) -> bytes:
    size = len(payload)
    if size < 126:
        return bytes([FINAL | kind, size]) + payload
    if size < 1 << 16:
        return bytes([FINAL | kind, 126]) + size.to_bytes(2) + payload
    return bytes([FINAL | kind, 127]) + size.to_bytes(8) + payload


async def read_frame(reader: asyncio.StreamReader) -> tuple[int, bool, bytes]:
    """Return kind, whether it ends its message, and the unmasked payload."""
    first, second = await reader.readexactly(2)
    size = second & 0x7F
    if size >= 126:
        size = int.from_bytes(await reader.readexactly(2 if size == 126 else 8))
    mask = await reader.readexactly(4)
    payload = await reader.readexactly(size)
    # One big number instead of a loop over bytes: a test sends megabytes.
    key = (mask * (size // 4 + 1))[:size]
    plain = (int.from_bytes(payload) ^ int.from_bytes(key)).to_bytes(size)
    return first & 0x0F, bool(first & FINAL), plain


async def echo_frames(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Echo text and binary; answer "ping" by a ping, and "close 4000 why" by that close frame."""
    message_kind, message = TEXT, b""
    while True:
        kind, final, payload = await read_frame(reader)
        answer: bytes | None = None
        if kind == PING:
            answer = frame(PONG, payload)
        elif kind == CLOSE:
            answer = frame(CLOSE, payload[:2])
        elif kind != PONG:
            message_kind = message_kind if kind == CONTINUATION else kind
            message = message + payload if kind == CONTINUATION else payload
            answer = answer_to(message_kind, message) if final else None
        if answer is not None:
            writer.write(answer)
            await writer.drain()
            if answer[0] == FINAL | CLOSE:
                return


def answer_to(kind: int, message: bytes) -> bytes:
    if message == b"ping":
        return frame(PING, b"are you there")
    if message.startswith(b"close "):
        _, code, reason = message.split(b" ", 2)
        return frame(CLOSE, int(code).to_bytes(2) + reason)
    return frame(kind, message)
