"""services/voxtral as the `runpod` package's own client meets it, unmodified.

Each program is what the package's readers write: only the base URL is another.
"""

from typing import Any

import pytest

from services.voxtral.pieces import PIECE_SECONDS_MAX
from tests.services.speech_server import SpeechServer, run_server
from tests.speech.runpod_client import KEY, run_program
from tests.speech.voxtral_service import (
    LONG_SECONDS,
    SHORT_INPUT,
    long_input,
    status_of,
    voxtral_service,
)

# The least that the client allows for anything.
ANSWERED_SECONDS_MAX = 3.0


@pytest.fixture(autouse=True)
def _line_is_empty(voxtral: SpeechServer) -> None:
    """No test meets the jobs of another."""
    voxtral.await_busy(False, 60)


# What comes of a job


def test_run_then_status_then_output(voxtral, spoken):
    """The job is accepted at once, and polled to its end."""
    id_, first, output, last = run_program(
        voxtral,
        """
job = endpoint.run({"input": given["input"]})
told = [job.job_id, job.status(), job.output(timeout=60), job.status()]
""",
        input=SHORT_INPUT,
    )

    assert id_.endswith("-u1")
    assert first in ("IN_QUEUE", "IN_PROGRESS", "COMPLETED")
    assert output["transcript"] == spoken
    assert last == "COMPLETED"


def test_run_sync_waits(voxtral, spoken):
    """The output is the answer of one request, with the word `input` or without it."""
    told = run_program(
        voxtral,
        """
ping = endpoint.run_sync({"ping": True})
told = [endpoint.run_sync({"input": given["input"]}), endpoint.run_sync(given["input"]), ping]
""",
        input=SHORT_INPUT,
    )

    assert [output["transcript"] for output in told[:2]] == [spoken] * 2
    assert told[2]["pong"]


def test_a_job_that_outlives_the_wait_is_polled_to_its_end(voxtral, spoken):
    """/runsync answers while it runs; the client goes on as its run_sync does."""
    first, output = run_program(
        voxtral,
        """
answer = endpoint.rp_client.post("voxtral/runsync?wait=1000", given)
told = [answer["status"], Job("voxtral", answer["id"], endpoint.rp_client).output(timeout=60)]
""",
        input=long_input(600),
    )

    assert first in ("IN_QUEUE", "IN_PROGRESS")
    assert output["transcript"].startswith(spoken)


FAILING = {
    "no recording in it": ({"audio_base64": "AAAA"}, "audio_base64: "),
    "no recording": ({"task": "transcribe"}, "input: give the recording as audio_url or as"),
    "no such task": (SHORT_INPUT | {"task": "sing"}, "task: "),
    # This the client wraps twice.
    "nothing": ({}, "input: give the recording as audio_url or as"),
}


@pytest.fixture(scope="module")
def failed(voxtral) -> dict[str, tuple[str, object, str, object]]:
    """What the client tells of each: the id, the output, the status, and the output at once."""
    told = run_program(
        voxtral,
        """
told = []
for wrong in given["inputs"]:
    job = endpoint.run({"input": wrong})
    output = job.output(timeout=60)
    told.append([job.job_id, output, job.status(), endpoint.run_sync({"input": wrong})])
""",
        inputs=[given for given, _ in FAILING.values()],
    )
    return dict(zip(FAILING, told, strict=True))


@pytest.mark.parametrize("case", FAILING)
def test_a_failed_job_has_no_output(voxtral, failed, case):
    """The client loses the reason, /status tells it."""
    id_, output, status, at_once = failed[case]

    assert (output, status, at_once) == (None, "FAILED", None)
    assert status_of(voxtral, id_)["error"].startswith(FAILING[case][1])


def test_stream_gives_each_passage_once(voxtral):
    """All of the result's, in its order."""
    chunks, output = run_program(
        voxtral,
        """
job = endpoint.run({"input": given["input"]})
told = [list(job.stream()), job.output()]
""",
        input=long_input(600),
    )

    assert len(chunks) > 1
    assert chunks == output["segments"]


# While a job runs


BEGIN_LONG = """
long = endpoint.run({"input": given["long"]})
while long.status() != "IN_PROGRESS" or not endpoint.health()["jobs"]["inProgress"]:
    pass
"""


def test_the_client_is_answered_while_a_job_runs(voxtral):
    """Within the times that it allows: 3 s for health and cancel, 10 s for run and status."""
    health, waiting, seconds, cancelled = run_program(
        voxtral,
        BEGIN_LONG
        + """
seconds = []
def timed(call):
    began = time.monotonic()
    result = call()
    seconds.append(time.monotonic() - began)
    return result
health = timed(endpoint.health)
job = timed(lambda: endpoint.run({"input": given["input"]}))
waiting = timed(job.status)
told = [health, waiting, seconds, [timed(job.cancel), timed(long.cancel)]]
""",
        input=SHORT_INPUT,
        long=long_input(),
    )

    assert (health["jobs"]["inProgress"], health["workers"]["running"]) == (1, 1)
    assert waiting == "IN_QUEUE"
    assert [each["status"] for each in cancelled] == ["CANCELLED"] * 2
    assert max(seconds) < ANSWERED_SECONDS_MAX, seconds


def test_what_is_cancelled_is_given_up(voxtral, spoken):
    """The next job is done, and the other one never was."""
    seconds = LONG_SECONDS - 60  # which no other test has
    cancelled, output = run_program(
        voxtral,
        BEGIN_LONG + 'told = [long.cancel(), endpoint.run_sync({"input": given["input"]})]',
        input=SHORT_INPUT,
        long=long_input(seconds),
    )

    assert cancelled["status"] == "CANCELLED"
    assert output["transcript"] == spoken
    assert f"audio_seconds={seconds}" not in voxtral.log.read_text()


def test_the_stream_of_a_cancelled_job_ends(voxtral):
    """The client knows no such end: 404 keeps it from asking for ever."""
    cancelled, status, code, chunks = run_program(
        voxtral,
        BEGIN_LONG
        + """
chunks = []
try:
    for chunk in long.stream():
        if not chunks:
            cancelled = long.cancel()
        chunks.append(chunk)
except requests.HTTPError as error:
    told = [cancelled["status"], long.status(), error.response.status_code, len(chunks)]
""",
        long=long_input(),
    )

    assert (cancelled, status, code) == ("CANCELLED", "CANCELLED", 404)
    assert 0 < chunks < LONG_SECONDS / PIECE_SECONDS_MAX


def test_purge_queue_takes_out_who_waits(voxtral):
    """The one that runs goes on."""
    purged, states, running = run_program(
        voxtral,
        BEGIN_LONG
        + """
jobs = [endpoint.run({"input": given["input"]}) for _ in range(2)]
purged = endpoint.purge_queue()
told = [purged, [job.status() for job in jobs], long.status()]
long.cancel()
""",
        input=SHORT_INPUT,
        long=long_input(),
    )

    assert purged == {"removed": 2, "status": "completed"}
    assert states == ["CANCELLED"] * 2
    assert running == "IN_PROGRESS"


# The asynchronous client


def test_the_asynchronous_client(voxtral, spoken):
    """run, status, output, stream, cancel, health and purge_queue."""
    told = run_program(
        voxtral,
        """
async def main():
    async with aiohttp.ClientSession() as session:
        remote = runpod.AsyncioEndpoint("voxtral", session)
        job = await remote.run(given["input"])
        chunks = [chunk async for chunk in job.stream()]
        output = await job.output(timeout=60)
        status = await job.status()
        first, second = [await remote.run(given["long"]) for _ in range(2)]
        return {
            "chunks": chunks, "output": output, "status": status,
            "health": await remote.health(), "purged": await remote.purge_queue(),
            "cancelled": await first.cancel(),
            "states": [await first.status(), await second.status()],
        }
told = asyncio.run(main())
""",
        input=SHORT_INPUT,
        long=long_input(),
    )

    assert told["output"]["transcript"] == spoken
    assert told["chunks"] == told["output"]["segments"]
    assert told["status"] == "COMPLETED"
    assert set(told["health"]) == {"jobs", "workers"}
    assert told["purged"]["removed"] in (1, 2)  # the first one may have begun
    assert told["cancelled"]["status"] == "CANCELLED"
    assert told["states"] == ["CANCELLED"] * 2


# A process that has just started, asks for a key, and keeps to the Internet


@pytest.fixture(scope="module")
def cold(tmp_path_factory, voxtral_model, diarizer) -> dict[str, Any]:
    """What the client hears of a process that takes connections, and has no more than that."""
    service = voxtral_service(voxtral_model, diarizer)
    folder = tmp_path_factory.mktemp("cold")
    settings = {"API_KEY": KEY, "ALLOW_PRIVATE_URLS": "0"}
    with run_server(service, folder, settings, until_ready=False) as running:
        return dict(
            run_program(
                running,
                """
told = {}
try:
    runpod.Endpoint("voxtral", api_key="another").run({"input": given["input"]})
except RuntimeError as error:
    told["refused"] = str(error)
ping = {"input": {"ping": True}}
told["before"] = endpoint.run_sync(ping)
job = endpoint.run({"input": given["input"]})  # within 10 s, or it raises
told["output"] = job.output(timeout=60)
told["after"] = endpoint.run_sync(ping)
job = endpoint.run({"input": {"audio_url": given["url"]}})
told["private"] = [job.output(timeout=60), endpoint.rp_client.get(f"voxtral/status/{job.job_id}")]
""",
                input=SHORT_INPUT,
                url=f"{running.url}/health",  # which is there
            )
        )


def test_run_is_answered_before_there_is_a_model(cold, spoken):
    """The first job has it loaded, and is done."""
    assert (cold["before"]["model_resident"], cold["after"]["model_resident"]) == (False, True)
    assert cold["output"]["transcript"] == spoken


def test_another_key_is_refused(cold):
    """In the client's own words."""
    assert cold["refused"].startswith("401 Unauthorized")


def test_a_private_url_is_refused(cold):
    """Where the operator allows none: the job fails, and says what they can do."""
    output, status = cold["private"]

    assert (output, status["status"]) == (None, "FAILED")
    assert status["error"].startswith("audio_url: ")
    assert "ALLOW_PRIVATE_URLS=1" in status["error"]
