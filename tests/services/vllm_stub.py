"""A vLLM that has no model: its API, limits and errors as vLLM 0.32 had them with a tiny Voxtral.

What it is stricter in: it knows no field that we need not send. It hears a recording's first
sample: "piece 7" where that is 7. As a program it is in vllm_program.py.
"""

import asyncio
import io
import json
import os
import threading
import wave
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

MODEL = "mistralai/Voxtral-Mini-3B-2507"
SECONDS_MAX = 10.0  # for what should take none

FILE_BYTES_MAX = 25 * 1024 * 1024
AUDIO_SECONDS_MAX = 600
NATIVE = ["ar", "nl", "en", "fr", "de", "hi", "it", "pt", "es"]
OTHERS = ["eu", "pl", "sv", "uk"]  # some of the ISO codes that it only warns of
FORM_FIELDS = {
    *("file", "model", "language", "response_format", "stream", "temperature"),
    "max_completion_tokens",
}
CHAT_FIELDS = {"model", "messages", "max_tokens", "temperature", "top_p", "response_format"}

# Of torch, as vLLM passes it on.
OUT_OF_MEMORY = "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of"
DEAD = "EngineCore encountered an issue. See stack trace (above) for the root cause."


class Refused(Exception):
    """An answer other than 200."""

    def __init__(self, status: int, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.param = param

    def body(self) -> dict[str, Any]:
        kind = "BadRequestError" if self.status == 400 else "InternalServerError"
        told = {"message": str(self), "type": kind, "param": self.param, "code": self.status}
        return {"error": told}


@dataclass
class State:
    """What a test asks of the stub, and what it sees of it."""

    key: str | None = None
    name: str = MODEL
    ready: Callable[[], bool] = lambda: True
    tokens_max: int = 32768
    # What goes wrong with the next requests, one by one; None: nothing.
    plan: deque[str | None] = field(default_factory=deque)
    # What is heard or written, where it is not "piece 7".
    says: str | None = None
    # The numbers of pieces that are answered only after `release`.
    held: set[str] = field(default_factory=set)
    engine_dead: bool = False

    paths: list[str] = field(default_factory=list)
    asked: list[dict[str, Any]] = field(default_factory=list)
    started: list[str] = field(default_factory=list)
    answered: list[str] = field(default_factory=list)
    aborted: list[str] = field(default_factory=list)
    at_once: int = 0
    most_at_once: int = 0


class Handlers:
    """The routes; all in one event loop."""

    def __init__(self, state: State) -> None:
        self.state = state
        self.changed = asyncio.Condition()

    def app(self) -> web.Application:
        app = web.Application(middlewares=[self._guard], client_max_size=64 * 1024 * 1024)
        app.router.add_get("/health", self._health)
        app.router.add_get("/v1/models", self._models)
        app.router.add_post("/v1/audio/transcriptions", self._transcribe)
        app.router.add_post("/v1/chat/completions", self._chat)
        return app

    async def change(self, change: Callable[[State], None]) -> None:
        async with self.changed:
            change(self.state)
            self.changed.notify_all()

    @web.middleware
    async def _guard(self, request: web.Request, handler: Any) -> web.StreamResponse:
        self.state.paths.append(request.path)
        wanted = f"Bearer {self.state.key}"
        guarded = request.path.startswith("/v1") and self.state.key is not None
        if guarded and request.headers.get("Authorization") != wanted:
            return web.json_response({"error": "Unauthorized"}, status=401)
        try:
            return await handler(request)
        except Refused as refused:
            return web.json_response(refused.body(), status=refused.status)

    async def _health(self, request: web.Request) -> web.Response:
        well = self.state.ready() and not self.state.engine_dead
        return web.Response(status=200 if well else 503)

    async def _models(self, request: web.Request) -> web.Response:
        if (trouble := self._next_trouble()) is not None:
            return await self._make_trouble(request, trouble)
        card = {"id": self.state.name, "object": "model", "max_model_len": self.state.tokens_max}
        return web.json_response({"object": "list", "data": [card]})

    async def _transcribe(self, request: web.Request) -> web.StreamResponse:
        form = await request.post()
        fields = {name: value for name, value in form.items() if isinstance(value, str)}
        file = form.get("file")
        if not isinstance(file, web.FileField):
            raise Refused(400, "1 validation error: body.file Field required", "body.file")
        fields["file"] = file.filename
        _only(fields, FORM_FIELDS)
        self.state.asked.append(fields)
        with file.file as recording:
            text = self._hear(fields, recording.read())
        return await self._generate(request, text, self._transcript, fields)

    def _hear(self, fields: dict[str, Any], recording: bytes) -> str:
        self._check_model(fields)
        form = fields.get("response_format", "json")
        if form not in ("text", "json", "verbose_json", "diarized_json"):
            raise Refused(400, "Currently only support response_format: `text`, `json`, ...")
        if form in ("verbose_json", "diarized_json"):
            raise Refused(400, f"Currently do not support {form} for {self.state.name}")
        language = fields.get("language")
        if language is not None and language not in NATIVE + OTHERS:
            raise Refused(400, f"Unsupported language: {language!r}.  Must be one of\n {NATIVE}.")
        if len(recording) > FILE_BYTES_MAX:
            raise Refused(400, "Maximum file size exceeded", "audio_filesize_mb")
        try:
            with wave.open(io.BytesIO(recording)) as file:
                seconds = file.getnframes() / file.getframerate()
                layout = (file.getnchannels(), file.getsampwidth(), file.getframerate())
                first = int.from_bytes(file.readframes(1)[:2], "little", signed=True)
        except (wave.Error, EOFError):
            raise Refused(400, "Invalid or corrupted audio data.") from None
        assert layout == (1, 2, 16000), layout
        if seconds > AUDIO_SECONDS_MAX:
            raise Refused(400, f"Audio exceeds maximum allowed duration of {AUDIO_SECONDS_MAX}s")
        if float(fields.get("temperature", 0)) != 0:
            raise Refused(400, "the tests' model knows no chance")
        self._check_tokens(int(fields.get("max_completion_tokens", 1)))
        return f"piece {first}" if self.state.says is None else self.state.says

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        _only(body, CHAT_FIELDS)
        self.state.asked.append(body)
        self._check_model(body)
        parts = [part for turn in body["messages"] for part in _parts(turn["content"])]
        if len([part for part in parts if part["type"] in ("input_audio", "audio_url")]) > 1:
            raise Refused(400, "At most 1 audio(s) may be provided in one prompt.")
        self._check_tokens(body.get("max_tokens", 1))
        text = "Bonjour à tous." if self.state.says is None else self.state.says
        form = body.get("response_format", {"type": "text"})
        if form["type"] == "json_schema":
            described = form["json_schema"]
            if not isinstance(described.get("name"), str):
                raise Refused(400, "response_format.json_schema.name Field required")
            text = json.dumps(instance_of(described["schema"]), ensure_ascii=False)
        return await self._generate(request, text, self._message, body)

    def _check_model(self, asked: dict[str, Any]) -> None:
        if asked.get("model", self.state.name) != self.state.name:
            raise Refused(404, f"The model `{asked['model']}` does not exist.", "model")

    def _check_tokens(self, tokens_max: int) -> None:
        if tokens_max < 1:
            raise Refused(400, f"max_tokens must be at least 1, got {tokens_max}.", "max_tokens")
        if tokens_max > self.state.tokens_max:
            raise Refused(400, f"max_tokens={tokens_max} cannot be greater than max_model_len")

    async def _generate(
        self, request: web.Request, text: str, answer: Any, asked: dict[str, Any]
    ) -> web.StreamResponse:
        trouble = self._next_trouble()

        def begin(state: State) -> None:
            state.started.append(text)
            state.at_once += 1
            state.most_at_once = max(state.at_once, state.most_at_once)

        def end(state: State) -> None:
            state.at_once -= 1

        await self.change(begin)
        try:
            if trouble is not None:
                return await self._make_trouble(request, trouble)
            async with self.changed:
                await self.changed.wait_for(
                    lambda: not {text, "all"} & self.state.held,
                )
            given = await answer(request, text, asked)
            await self.change(lambda state: state.answered.append(text))
            return given
        except asyncio.CancelledError:
            await asyncio.shield(self.change(lambda state: state.aborted.append(text)))
            raise
        finally:
            await asyncio.shield(self.change(end))

    async def _transcript(
        self, request: web.Request, text: str, asked: dict[str, Any]
    ) -> web.StreamResponse:
        words, finish_reason = _cut(text, int(asked["max_completion_tokens"]))
        if asked.get("stream") != "true":
            usage = {"type": "duration", "seconds": 1}
            return web.json_response({"text": "".join(words), "usage": usage})
        response = await _begin_stream(request)
        for number, word in enumerate(words or [""], start=1):
            choice: dict[str, Any] = {"delta": {"content": word}}
            if number >= len(words):
                choice |= {"finish_reason": finish_reason, "stop_reason": None}
            await _send(response, {"object": "transcription.chunk", "choices": [choice]})
        await response.write(b"data: [DONE]\n\n")
        return response

    async def _message(
        self, request: web.Request, text: str, asked: dict[str, Any]
    ) -> web.StreamResponse:
        words, finish_reason = _cut(text, asked["max_tokens"])
        message = {"role": "assistant", "content": "".join(words), "refusal": None}
        choice = {"index": 0, "message": message, "finish_reason": finish_reason}
        return web.json_response({"object": "chat.completion", "choices": [choice]})

    def _next_trouble(self) -> str | None:
        return self.state.plan.popleft() if self.state.plan else None

    async def _make_trouble(self, request: web.Request, trouble: str) -> web.StreamResponse:
        if trouble.startswith("says "):
            return web.Response(body=trouble.removeprefix("says ").encode())
        if trouble.startswith("status "):
            return web.Response(status=int(trouble.removeprefix("status ")), text="no more told")
        if trouble == "redirects":
            raise web.HTTPFound("/health")
        if trouble == "breaks":
            _break_connection(request)
            return web.Response()
        if trouble == "breaks while answering":
            await _send(await _begin_stream(request), {"choices": [{"delta": {"content": "a"}}]})
            _break_connection(request)
        if trouble.startswith("fails while answering "):
            response = await _begin_stream(request)
            status, told = trouble.removeprefix("fails while answering ").split(" ", 1)
            await _send(response, Refused(int(status), told).body())
            await response.write(b"data: [DONE]\n\n")
            return response
        if trouble == "ends":
            os._exit(7)
        if trouble == "loses its engine":
            self.state.engine_dead = True
            raise Refused(500, DEAD)
        if trouble == "floods":
            response = await _begin_stream(request)
            while True:
                await response.write(b": ".ljust(1024 * 1024) + b"\n")
        if trouble == "falls silent":
            await asyncio.Event().wait()
        raise Refused(500, trouble)


def instance_of(schema: dict[str, Any]) -> Any:
    """Give what a grammar would have forced the model to write."""
    if "enum" in schema:
        return schema["enum"][0]
    kind = schema.get("type")
    if kind == "object":
        return {name: instance_of(each) for name, each in schema.get("properties", {}).items()}
    if kind == "array":
        return []
    return {"number": 0.5, "integer": 0, "boolean": False, "string": "x"}.get(kind)


def _only(asked: dict[str, Any], known: set[str]) -> None:
    if unknown := set(asked) - known:
        raise Refused(400, f"Extra inputs are not permitted: {sorted(unknown)}")


def _parts(content: Any) -> list[dict[str, Any]]:
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def _cut(text: str, tokens_max: int) -> tuple[list[str], str]:
    """Give the words, each with the space before it, as far as they go: a token is a word."""
    words = [f" {word}" for word in text.split()]
    return words[:tokens_max], "length" if len(words) > tokens_max else "stop"


async def _begin_stream(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await response.prepare(request)
    return response


async def _send(response: web.StreamResponse, event: dict[str, Any]) -> None:
    await response.write(f"data: {json.dumps(event, ensure_ascii=False)}\n\n".encode())


def _break_connection(request: web.Request) -> None:
    assert request.transport is not None
    request.transport.abort()


class StubVllm:
    """The server in a thread of this process; the tests call it from theirs."""

    def __init__(self, **state: Any) -> None:
        self.state = State(**state)
        self.url = ""

    def release(self) -> None:
        """Let all be answered that was held."""
        self._call(self._handlers.change(lambda state: state.held.clear()))

    def until(self, seen: Callable[[State], bool]) -> None:
        """Return when a thing is so; fails if that takes long."""

        async def wait() -> None:
            async with self._handlers.changed:
                await self._handlers.changed.wait_for(lambda: seen(self.state))

        self._call(asyncio.wait_for(wait(), SECONDS_MAX))

    def _call(self, work: Any) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(SECONDS_MAX + 1)

    @contextmanager
    def running(self, port: int = 0) -> Iterator["StubVllm"]:
        self._loop = asyncio.new_event_loop()
        thread = threading.Thread(target=self._loop.run_forever)
        thread.start()
        try:
            self._call(self._start(port))
            yield self
            self._call(self._runner.cleanup())
        finally:
            self._loop.call_soon_threadsafe(self._loop.stop)
            thread.join()
            self._loop.close()

    async def _start(self, port: int) -> None:
        self._handlers = Handlers(self.state)
        # vLLM's generation ends with its connection.
        self._runner = web.AppRunner(
            self._handlers.app(), handler_cancellation=True, shutdown_timeout=0.1
        )
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", port, reuse_address=True)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
