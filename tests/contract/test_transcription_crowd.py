"""What a speech service owes when more come than it can serve, and when it is told to stop."""

import asyncio
from collections.abc import Iterator

import httpx
import pytest

from tests.contract.test_transcription_api import SERVICES
from tests.services.sounds import RECORDING, WORDS, long_recording
from tests.services.speech_server import SpeechServer, run_server, wait_for

CROWD, WAITING_MAX = 20, 4


@pytest.fixture(params=SERVICES, ids=lambda service: service.name)
def server(request, tmp_path) -> Iterator[SpeechServer]:
    with run_server(request.param, tmp_path, {"MAX_WAITING": str(WAITING_MAX)}) as running:
        yield running


async def post(client: httpx.AsyncClient, server: SpeechServer, **fields: str) -> httpx.Response:
    return await client.post(
        server.transcriptions,
        files={"file": ("a.wav", long_recording(20) if not fields else RECORDING)},
        data={"model": "whisper-1"} | fields,
    )


async def test_of_twenty_at_once_five_are_served_and_the_rest_told_when_to_come(server):
    """One runs and four wait; nobody is lost, and all are served who come again."""
    async with httpx.AsyncClient(timeout=60, limits=httpx.Limits(max_connections=CROWD)) as client:
        answers = await asyncio.gather(*(post(client, server) for _ in range(CROWD)))
        refused = [answer for answer in answers if answer.status_code == 429]
        waits = [int(answer.headers["retry-after"]) for answer in refused]
        later = [await post(client, server, language="en") for _ in refused]

    served = [answer for answer in answers if answer.status_code == 200]
    assert (len(served), len(refused)) == (1 + WAITING_MAX, CROWD - 1 - WAITING_MAX)
    assert all(answer.json()["text"].startswith(WORDS) for answer in served)
    assert all(1 <= seconds <= 120 for seconds in waits)
    assert {answer.json()["error"]["code"] for answer in refused} == {"queue_full"}
    assert [answer.status_code for answer in later] == [200] * len(refused)


async def test_sigterm_finishes_streams_and_who_waits(server):
    """Every accepted request ends as if nothing were; new ones find nobody; no file is left."""
    async with httpx.AsyncClient(timeout=60) as client:
        stream = client.build_request(
            "POST",
            server.transcriptions,
            files={"file": ("a.wav", long_recording(60))},
            data={"model": "whisper-1", "stream": "true"},
        )
        response = await client.send(stream, stream=True)
        waiting = [asyncio.ensure_future(post(client, server)) for _ in range(2)]
        await asyncio.to_thread(wait_for, lambda: taken(server) == 3, 20, "both to wait")
        server.terminate()
        events = [line async for line in response.aiter_lines() if line]
        served = await asyncio.gather(*waiting)
        await asyncio.to_thread(server.process.wait, 20)

    assert '"type":"transcript.text.done"' in events[-1]
    assert [answer.status_code for answer in served] == [200, 200]
    assert server.files_left() == []
    with pytest.raises(httpx.ConnectError):
        httpx.get(server.url + "/health")


def taken(server: SpeechServer) -> int:
    text = httpx.get(server.url + "/metrics").text
    line = next(line for line in text.splitlines() if line.startswith("speech_queue_places_taken "))
    return int(float(line.split()[1]))
