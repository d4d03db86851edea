"""Server-sent events: when they begin, what keeps them alive, how they fail."""

import asyncio
import json
import threading
from contextlib import AsyncExitStack

import pytest

from services.transcription.errors import EngineError, InvalidRequest
from services.transcription.events import EventStream, Result
from services.transcription.request import TranscriptionRequest
from services.transcription.telling import OpenAiTelling
from services.transcription.transcript import Deltas, Segment, Transcript
from services.transcription.worker import Cancelled


def segment(text: str) -> Segment:
    return Segment(
        start_seconds=0,
        end_seconds=1,
        text=text,
        seek=0,
        tokens=(1, 2),
        temperature=0,
        avg_logprob=-0.1,
        compression_ratio=1,
        no_speech_prob=0,
        words=None,
    )


class Run:
    """The work behind a stream, driven step by step from another thread, as by a model."""

    def __init__(self, *texts: str, error: Exception | None = None) -> None:
        self.segments = [segment(text) for text in texts]
        self.error = error
        self.steps = threading.Semaphore(0)
        self.given_back = False

    async def __call__(self, report, unwanted) -> Result:
        self.unwanted = asyncio.ensure_future(unwanted)

        def work() -> Result:
            for item in self.segments:
                assert self.steps.acquire(timeout=10)
                report(item)
            assert self.steps.acquire(timeout=10)
            if self.error is not None:
                raise self.error
            return Result(Transcript(tuple(self.segments), "en", 2.5), seconds=0.5)

        return await asyncio.to_thread(work)

    def step(self, count: int = 1) -> None:
        self.steps.release(count)

    async def begin(self, keep_alive_seconds: float = 10) -> EventStream:
        stream = EventStream(
            self,
            OpenAiTelling(TranscriptionRequest(model="small")),
            gone=asyncio.Event().wait(),
            send_seconds_max=0.5,
            keep_alive_seconds=keep_alive_seconds,
        )
        async with AsyncExitStack() as held:
            held.callback(self.give_back)
            await stream.begin(held)
        return stream

    def give_back(self) -> None:
        self.given_back = True


class Client:
    """Takes what a stream sends."""

    def __init__(self) -> None:
        self.messages: list[dict] = []

    async def send(self, message: dict) -> None:
        self.messages.append(message)

    async def read(self, stream: EventStream) -> None:
        await stream({"type": "http"}, self.receive, self.send)

    async def receive(self) -> dict:
        raise AssertionError("the work watches for the client's end, not the stream")

    @property
    def body(self) -> str:
        return b"".join(message.get("body", b"") for message in self.messages).decode()

    @property
    def events(self) -> list[dict]:
        lines = self.body.split("\n\n")
        return [json.loads(line[6:]) for line in lines if line.startswith("data: ")]


async def test_the_deltas_join_to_the_text_of_the_last_event():
    """Which carries the whole of it, the language and the usage."""
    run, client = Run(" one two ", " three", " \n", "four "), Client()
    run.step(5)
    await client.read(await run.begin())

    *deltas, done = client.events
    assert "".join(event["delta"] for event in deltas) == done["text"]
    assert done["text"] == "one two  three \nfour"
    assert done["type"] == "transcript.text.done"
    assert done["languages"] == [{"code": "en"}]
    assert done["usage"] == {
        "type": "tokens",
        "input_tokens": 125,
        "input_token_details": {"audio_tokens": 125, "text_tokens": 0},
        "output_tokens": 8,
        "total_tokens": 133,
    }


async def test_the_answer_begins_with_the_first_segment():
    """Not with the last: the second is not even found when the first is read."""
    run, client = Run(" one", " two"), Client()
    run.step()
    stream = await run.begin()
    reading = asyncio.ensure_future(client.read(stream))
    async with asyncio.timeout(10):
        while not client.events:
            await asyncio.sleep(0.001)
    assert [event["delta"] for event in client.events] == ["one"]
    assert not run.given_back
    run.step(2)
    await reading

    assert run.given_back
    assert client.messages[-1] == {"type": "http.response.body", "body": b""}


async def test_comments_keep_a_quiet_stream_alive():
    """Clients skip them; proxies see bytes. They begin before the first segment."""
    run, client = Run(" one"), Client()
    stream = await run.begin(keep_alive_seconds=0.01)
    reading = asyncio.ensure_future(client.read(stream))
    async with asyncio.timeout(10):
        while client.body.count(": keep-alive\n\n") < 3:
            await asyncio.sleep(0.001)
    run.step(2)
    await reading

    assert [event["type"] for event in client.events] == [
        "transcript.text.delta",
        "transcript.text.done",
    ]


async def test_an_error_before_the_first_segment_is_a_status():
    """Nothing has been sent, and what was held is still the caller's."""
    run = Run(error=InvalidRequest("file: is silent", code="invalid_audio"))
    run.step()
    with pytest.raises(InvalidRequest):
        await run.begin()

    assert run.given_back


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (EngineError("out of memory", code="out_of_memory"), "out_of_memory", "out of memory"),
        (ZeroDivisionError("a secret"), "internal_error", "internal error"),
    ],
)
async def test_a_later_error_is_an_event(error, code, message):
    """openai's clients raise on it; a bug tells nothing of the inside."""
    run, client = Run(" one", error=error), Client()
    run.step(2)
    await client.read(await run.begin())

    delta, failure = client.events
    assert delta["delta"] == "one"
    assert (failure["error"]["code"], failure["error"]["message"]) == (code, message)
    assert run.given_back


async def test_a_client_that_has_left_is_told_nothing():
    """The work was given up for it."""
    run, client = Run(" one", error=Cancelled()), Client()
    run.step(2)
    await client.read(await run.begin())

    assert [event["type"] for event in client.events] == ["transcript.text.delta"]
    assert run.given_back


async def test_what_was_held_is_given_back_when_sending_fails():
    """And not before the work has ended, which uses it."""
    run = Run(" one", " two")
    run.step()
    stream = await run.begin()

    async def send(_message: dict) -> None:
        run.step(2)
        raise OSError("the connection is lost")

    with pytest.raises(OSError, match="lost"):
        await stream({"type": "http"}, Client().receive, send)

    assert run.given_back


async def test_a_client_that_does_not_read_keeps_nobody_waiting():
    """What was held is given back when the work is done, and the rest is given up in time."""
    run = Run(" one", " two")
    run.step(3)
    stream = await run.begin()
    held_while_sending = []

    async def send(message: dict) -> None:
        if message.get("body"):
            async with asyncio.timeout(10):
                while not run.given_back:
                    await asyncio.sleep(0.001)
            held_while_sending.append(not run.given_back)
            await asyncio.Event().wait()

    await stream({"type": "http"}, Client().receive, send)

    assert held_while_sending == [False]


async def test_the_work_of_a_client_that_does_not_read_is_given_up():
    """It is told that nobody wants it."""
    run = Run(" one", " two")
    run.step()
    stream = await run.begin()

    async def send(message: dict) -> None:
        if message.get("body"):
            await asyncio.Event().wait()

    reading = asyncio.ensure_future(stream({"type": "http"}, Client().receive, send))
    async with asyncio.timeout(10):
        await run.unwanted
    run.step(2)  # a real one would raise Cancelled
    await reading

    assert run.given_back


async def test_silence_is_one_last_event():
    """Nobody spoke: that is no error."""
    run, client = Run(), Client()
    run.step()
    await client.read(await run.begin())

    assert [event["text"] for event in client.events] == [""]


@pytest.mark.parametrize(
    "texts",
    [[], [""], [" "], [" a", " b"], ["a ", "", " ", " b "], ["  ", " a"], ["\n", "a", "\n\n"]],
)
def test_deltas_join_to_the_text(texts):
    """Spaces at both ends belong to nobody, those between to the piece that follows."""
    segments = [segment(text) for text in texts]
    deltas = Deltas()

    joined = "".join(deltas.next(item) for item in segments)
    assert joined == Transcript(tuple(segments), None, 1.0).text
