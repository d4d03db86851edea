"""RunPod's contract, point by point, as its documents have it and its clients read it."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest

from services.voxtral.jobs import RUN_BYTES_MAX, RUNSYNC_BYTES_MAX, JobRequest, accept
from services.voxtral.settings import Settings
from tests.services.sounds import RECORDING
from tests.services.voxtral_app import (
    SPOKEN,
    SUMMARY,
    Script,
    base64_of,
    client_of,
    client_with,
    spoken,
)

UUID = "[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"
PING = {"input": {"ping": True}}
PREFIXES = ["", "/v2/voxtral", "/v2/any-other-name"]

Client = tuple[httpx.AsyncClient, Script]


@pytest.fixture
async def client(tmp_path) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a service of its own, whose model does what it is asked."""
    async with client_of(tmp_path) as (client, _):
        yield client


@pytest.fixture
async def scripted(tmp_path) -> AsyncIterator[Client]:
    """The same, and what the model does."""
    async with client_of(tmp_path) as both:
        yield both


async def submit(client: httpx.AsyncClient, body: Mapping[str, Any] | None = None) -> str:
    """Have a job accepted; give its id."""
    response = await client.post("/run", json=body or spoken())
    assert response.status_code == 200, response.text
    return str(response.json()["id"])


async def status_of(client: httpx.AsyncClient, job: str) -> dict[str, Any]:
    """Give where a job stands."""
    response = await client.get(f"/status/{job}")
    assert response.status_code == 200, response.text
    return dict(response.json())


async def until(client: httpx.AsyncClient, job: str, *expected: str) -> dict[str, Any]:
    """Wait until a job stands there."""
    async with asyncio.timeout(30):
        while (stands := await status_of(client, job))["status"] not in expected:
            await asyncio.sleep(0.01)
    return stands


async def until_begun(script: Script, times: int = 1) -> None:
    """Wait until the model works."""
    async with asyncio.timeout(30):
        while len([each for each in script.begun if each != "load"]) < times:
            await asyncio.sleep(0.01)


# A job and its answers


@pytest.mark.parametrize("prefix", PREFIXES)
async def test_run_answers_before_the_work(scripted, prefix):
    """With an id and the state, and nothing else; /status has the result, under any name."""
    client, script = scripted
    script.tell(load="wait")
    accepted = await client.post(f"{prefix}/run", json=spoken())
    script.tell(load="write")
    done = await until(client, accepted.json()["id"], "COMPLETED", "FAILED")

    assert {"id", "status"} == accepted.json().keys()
    assert "IN_QUEUE" == accepted.json()["status"]
    assert re.fullmatch(f"{UUID}-u1", done["id"])
    assert f"{SPOKEN} 0" == done["output"]["transcript"]


@pytest.mark.parametrize("prefix", PREFIXES)
async def test_runsync_answers_with_the_result(client, prefix):
    """As /status would, with its times in whole milliseconds."""
    answer = (await client.post(f"{prefix}/runsync", json=spoken())).json()

    assert re.fullmatch(f"sync-{UUID}-u1", answer["id"])
    assert {"id", "status", "delayTime", "executionTime", "workerId", "output"} == answer.keys()
    assert "COMPLETED" == answer["status"]
    assert all(type(answer[name]) is int for name in ("delayTime", "executionTime"))
    assert answer == await status_of(client, answer["id"])


async def test_a_worker_has_the_name_that_its_platform_gave_it(tmp_path):
    """Or else it is "local"."""
    async with client_of(tmp_path, runpod_pod_id="pod-7") as (client, _):
        answer = (await client.post("/runsync", json=spoken())).json()

    assert "pod-7" == answer["workerId"]


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("prefix", PREFIXES)
async def test_status_and_stream_are_asked_in_both_ways(client, prefix, method):
    """RunPod's documents have one, some of its clients the other."""
    job = (await client.post("/runsync", json=spoken())).json()["id"]
    status = await client.request(method, f"{prefix}/status/{job}")
    stream = await client.request(method, f"{prefix}/stream/{job}")

    assert ("COMPLETED", job) == (status.json()["status"], status.json()["id"])
    assert ("COMPLETED", 1) == (stream.json()["status"], len(stream.json()["stream"]))


async def test_all_that_may_be_asked_for_is_answered(client):
    """Whatever a client of either older worker reads is there; what was not asked for is null."""
    more = {"summary": True, "sentiment": True, "language": "fr"}
    output = (await client.post("/runsync", json=spoken(**more))).json()["output"]

    assert output["segments"] == output["transcriptions"] != []
    assert (SUMMARY, "positif", "fr", 3.0) == (
        output["summary"],
        output["sentiment"]["sentiment"],
        output["language"],
        output["duration"],
    )


async def test_the_state_while_it_runs_tells_the_progress(scripted):
    """As RunPod's progress updates do, in `output`."""
    client, script = scripted
    script.tell(any="wait")
    job = await submit(client)
    await until_begun(script)
    stands = await until(client, job, "IN_PROGRESS")

    assert {"id", "status", "delayTime", "workerId", "output"} == stands.keys()
    assert {"phase": "transcribe", "percent": 100.0} == stands["output"]


async def test_a_job_in_the_line_has_no_times_yet(scripted):
    """Nor a worker."""
    client, script = scripted
    script.tell(load="wait")
    job = await submit(client)

    assert {"id": job, "status": "IN_QUEUE"} == await status_of(client, job)


# /runsync?wait=


async def test_runsync_does_not_wait_longer_than_it_is_told(scripted):
    """Then it tells how the job stands, and the job goes on."""
    client, script = scripted
    script.tell(any="wait")
    running, waiting = await asyncio.gather(
        client.post("/runsync?wait=1000", json=spoken()),
        client.post("/runsync?wait=1000", json=spoken()),
    )
    answers = [running.json(), waiting.json()]
    script.tell(any="write")

    assert {"IN_PROGRESS", "IN_QUEUE"} == {answer["status"] for answer in answers}
    assert all(each.elapsed.total_seconds() < 3 for each in (running, waiting))
    for answer in answers:
        await until(client, answer["id"], "COMPLETED")


@pytest.mark.parametrize(
    ("wait", "status"),
    [("999", 400), ("1000", 200), ("300000", 200), ("300001", 400), ("soon", 400), ("-1", 400)],
)
async def test_the_wait_has_bounds(client, wait, status):
    """A second to five minutes."""
    response = await client.post("/runsync", params={"wait": wait}, json=PING)

    assert status == response.status_code
    assert status == 200 or "wait" == response.json()["error"]["param"]


async def test_the_wait_is_a_minute_and_a_half_by_default(client):
    """As the document says."""
    document = (await client.get("/openapi.json")).json()
    [wait] = document["paths"]["/runsync"]["post"]["parameters"]

    assert (90_000, 1_000, 300_000) == (
        wait["schema"]["default"],
        wait["schema"]["minimum"],
        wait["schema"]["maximum"],
    )


# Sizes


def body_of(size: int) -> bytes:
    """A ping of so many bytes."""
    start, end = b'{"input": {"ping": true, "more": "', b'"}}'
    return start + b"x" * (size - len(start) - len(end)) + end


async def in_pieces(body: bytes) -> AsyncIterator[bytes]:
    """Send a body without telling its length."""
    for start in range(0, len(body), 1 << 20):
        yield body[start : start + (1 << 20)]


@pytest.mark.parametrize("told", [True, False], ids=["with its length", "in pieces"])
@pytest.mark.parametrize(
    ("path", "limit"), [("/run", RUN_BYTES_MAX), ("/runsync", RUNSYNC_BYTES_MAX)]
)
async def test_a_body_has_its_limit(client, path, limit, told):
    """10 and 20 MiB, to the byte; the refusal tells the limit."""
    headers = {"content-type": "application/json"}
    answers = []
    for size in (limit, limit + 1):
        body = body_of(size)
        content = body if told else in_pieces(body)
        answers.append(await client.post(path, content=content, headers=headers))

    assert [200, 413] == [answer.status_code for answer in answers]
    assert f"{limit} bytes" in answers[1].json()["error"]["message"]
    assert "body_too_large" == answers[1].json()["error"]["code"]


def test_the_limits_are_runpods():
    """Its documents have MB, its servers count MiB."""
    assert (10 << 20, 20 << 20) == (RUN_BYTES_MAX, RUNSYNC_BYTES_MAX)


# Times


@pytest.mark.parametrize(
    ("policy", "param"),
    [
        ({"executionTimeout": 4_999}, "policy"),
        ({"executionTimeout": 604_800_001}, "policy"),
        ({"executionTimeout": "soon"}, "policy"),
        ({"ttl": 9_999}, "policy"),
        ({"ttl": 604_800_001}, "policy"),
        ({"ttl": None}, "policy"),
        ({"lowPriority": "perhaps"}, "policy"),
        ([], "policy"),
        ("policy", "policy"),
    ],
    ids=str,
)
async def test_a_policy_out_of_bounds_is_refused(client, policy, param):
    """The job is not accepted, and the message names the field."""
    response = await client.post("/run", json={**PING, "policy": policy})
    error = response.json()["error"]

    assert (400, param, "invalid_value") == (response.status_code, error["param"], error["code"])
    assert error["message"].startswith("policy: ")


@pytest.mark.parametrize(
    "policy",
    [
        None,
        {},
        {"executionTimeout": 5_000},
        {"executionTimeout": 604_800_000, "ttl": 604_800_000, "lowPriority": True},
        {"ttl": 10_000, "executionTimeout": None},
        {"invented": 1},
    ],
    ids=str,
)
async def test_a_policy_within_its_bounds_is_taken(client, policy):
    """The bounds themselves included."""
    response = await client.post("/run", json={**PING, "policy": policy})

    assert 200 == response.status_code


@pytest.mark.parametrize(
    ("policy", "seconds"), [({"executionTimeout": 5_000}, 5.0), ({}, 600.0), (None, 600.0)]
)
def test_a_policy_tells_how_long_a_job_may_run(policy, seconds):
    """The operator's limit counts where it does not say."""
    request = JobRequest.parse({**PING, "policy": policy})

    assert (
        seconds == accept(request, synchronous=False, now=0.0, seconds_max=600.0).execution_seconds
    )


async def test_a_job_that_takes_too_long_is_timed_out(tmp_path):
    """The worker is free again, and a retry has the whole time once more."""
    settings = Settings.model_construct(voxtral_state=tmp_path / "state", execution_timeout_s=0.5)
    async with client_with(tmp_path, settings) as (client, script):
        script.tell(fr="wait")
        job = await submit(client, spoken(language="fr"))
        other = await submit(client, spoken(language="en"))
        late = await until(client, job, "TIMED_OUT")
        await until(client, other, "COMPLETED")
        script.release()
        again = (await client.post(f"/retry/{job}")).json()
        done = await until(client, job, "COMPLETED")

    assert (
        "the job took longer than 0.5 s (policy.executionTimeout, EXECUTION_TIMEOUT_S)"
        == late["error"]
    )
    assert 500 <= late["executionTime"] < 1_500
    assert job == again["id"]
    assert "error" not in done


async def test_a_job_is_forgotten_when_its_client_says_so(scripted):
    """By ?ttl=, whether it has ended or not; the running one frees the worker."""
    client, script = scripted
    script.tell(fr="wait")
    done = (await client.post("/runsync", json=PING)).json()["id"]
    running = await submit(client, spoken(language="fr"))
    await until_begun(script)
    for job in (done, running):
        assert 200 == (await client.get(f"/status/{job}", params={"ttl": 1})).status_code
    await until(client, await submit(client, spoken(language="en")), "COMPLETED")
    answers = [await client.get(f"/status/{job}") for job in (done, running)]

    assert [404, 404] == [answer.status_code for answer in answers]
    assert "job_not_found" == answers[0].json()["error"]["code"]


@pytest.mark.parametrize(
    ("ttl", "status"), [("0", 400), ("1", 200), ("604800000", 200), ("604800001", 400)]
)
async def test_the_ttl_of_a_result_has_bounds(client, ttl, status):
    """A week at most."""
    job = (await client.post("/runsync", json=PING)).json()["id"]
    response = await client.get(f"/status/{job}", params={"ttl": ttl})

    assert status == response.status_code


# Ends


@pytest.mark.parametrize("prefix", PREFIXES)
async def test_a_failed_job_can_be_tried_again(scripted, prefix):
    """Its id stays; what was told before is gone."""
    client, script = scripted
    script.tell(any="fail")
    job = await submit(client)
    failed = await until(client, job, "FAILED")
    script.tell(any="write")
    again = await client.post(f"{prefix}/retry/{job}")
    done = await until(client, job, "COMPLETED")

    assert "the model failed on this recording" == failed["error"]
    assert {"id": job, "status": "IN_QUEUE"} == again.json()
    assert "error" not in done
    assert 1 == (await client.get("/health")).json()["jobs"]["retried"]


async def test_a_completed_job_is_not_tried_again(client):
    """Its result stays as it is."""
    before = (await client.post("/runsync", json=spoken())).json()
    response = await client.post(f"/retry/{before['id']}")
    error = response.json()["error"]

    assert (400, "id", "invalid_state") == (response.status_code, error["param"], error["code"])
    assert before == await status_of(client, before["id"])


async def test_a_job_without_memory_fails_once(scripted):
    """Trying it again for ever would end in the same way; the next one is done."""
    client, script = scripted
    script.tell(fr="run out of memory")
    job = await submit(client, spoken(language="fr"))
    failed = await until(client, job, "FAILED")
    await until(client, await submit(client, spoken(language="en")), "COMPLETED")

    assert "out of memory: the recording is too long" == failed["error"]
    assert ["fr", "en"] == [each for each in script.begun if each != "load"]


@pytest.mark.parametrize(
    ("doing", "told"),
    [
        ("fail", "could not be loaded, see the service's log"),
        ("run out of memory", "out of memory: the model"),
    ],
)
async def test_a_model_that_cannot_be_loaded_fails_its_jobs(scripted, doing, told):
    """Each one tries to load it again; people are told where to look."""
    client, script = scripted
    script.tell(load=doing)
    failed = [await until(client, await submit(client), "FAILED") for _ in range(2)]
    script.tell(load="write")
    await until(client, await submit(client), "COMPLETED")

    assert all(told in each["error"] for each in failed)
    assert ["load"] * 3 == script.begun[:3]


@pytest.mark.parametrize("prefix", PREFIXES)
async def test_a_purge_empties_the_line(scripted, prefix):
    """The running job goes on, the others are cancelled, and their number is told."""
    client, script = scripted
    script.tell(any="wait")
    running = await submit(client)
    await until_begun(script)
    waiting = [await submit(client) for _ in range(3)]
    purged = await client.post(f"{prefix}/purge-queue")
    script.tell(any="write")

    assert {"removed": 3, "status": "completed"} == purged.json()
    assert {"CANCELLED"} == {(await status_of(client, job))["status"] for job in waiting}
    await until(client, running, "COMPLETED")


@pytest.mark.parametrize("prefix", PREFIXES)
async def test_health_counts_jobs_and_workers(scripted, prefix):
    """In RunPod's words, which its client passes on as they are."""
    client, script = scripted
    idle = (await client.get(f"{prefix}/health")).json()
    await client.post("/runsync", json=PING)
    await client.post("/runsync", json={"input": {}})
    script.tell(any="wait")
    await submit(client)
    await until_begun(script)
    await submit(client)
    await submit(client)
    busy = (await client.get(f"{prefix}/health")).json()

    nothing = {"completed": 0, "failed": 0, "inProgress": 0, "inQueue": 0, "retried": 0}
    assert nothing == idle["jobs"]
    assert (1, 0) == (idle["workers"]["idle"], idle["workers"]["running"])
    assert nothing | {"completed": 1, "failed": 1, "inProgress": 1, "inQueue": 2} == busy["jobs"]
    assert (0, 1) == (busy["workers"]["idle"], busy["workers"]["running"])


# Streams


async def test_each_passage_is_streamed_once_and_as_soon_as_it_is_there(scripted):
    """First what is there, then what is new, at last nothing and the final state."""
    client, script = scripted
    script.tell(any="wait")
    job = await submit(client, spoken(40.0))
    await until_begun(script)
    during = (await client.get(f"/stream/{job}")).json()
    nothing_new = (await client.get(f"/stream/{job}")).json()
    script.tell(any="write")
    output = (await until(client, job, "COMPLETED"))["output"]
    after = (await client.get(f"/stream/{job}")).json()
    end = (await client.get(f"/stream/{job}")).json()

    given = [each["output"] for each in during["stream"] + after["stream"]]
    assert ("IN_PROGRESS", 1) == (during["status"], len(during["stream"]))
    assert {"status": "IN_PROGRESS", "stream": []} == nothing_new
    assert output["segments"] == given
    assert len(given) > 1
    assert {"status": "COMPLETED", "stream": []} == end


async def test_the_stream_of_a_cancelled_job_ends(scripted):
    """RunPod's client knows no end of it but a refusal."""
    client, script = scripted
    script.tell(any="wait")
    job = await submit(client)
    await until_begun(script)
    await client.post(f"/cancel/{job}")
    last = (await client.get(f"/stream/{job}")).json()
    response = await client.get(f"/stream/{job}")

    assert ("CANCELLED", 1) == (last["status"], len(last["stream"]))
    assert (404, "job_cancelled") == (response.status_code, response.json()["error"]["code"])


# Pings


@pytest.mark.parametrize("path", ["/run", "/runsync", "/v2/voxtral/run", "/v2/voxtral/runsync"])
@pytest.mark.parametrize("meant", [True, "true", 1], ids=repr)
async def test_a_ping_needs_no_model(tmp_path, path, meant):
    """It is answered at once, with whatever else it says, and loads nothing."""
    async with client_of(tmp_path) as (client, script):
        response = await client.post(path, json={"input": {"ping": meant, "invented": 1}})
        stands = await status_of(client, response.json()["id"])

    assert "COMPLETED" == response.json()["status"] == stands["status"]
    assert True is stands["output"]["pong"]
    assert False is stands["output"]["model_resident"]
    assert [] == script.begun


@pytest.mark.parametrize("doing", ["wait", "fail"])
@pytest.mark.parametrize("where", ["load", "any"])
async def test_a_ping_does_not_wait_for_anything(scripted, where, doing):
    """Neither for a job, nor for a model that comes late or never."""
    client, script = scripted
    script.tell(**{where: doing})
    job = await submit(client)
    waiting = await submit(client)
    await until(client, job, *(["FAILED"] if doing == "fail" else ["IN_QUEUE", "IN_PROGRESS"]))
    response = await client.post("/runsync", json=PING)

    assert "COMPLETED" == response.json()["status"]
    assert response.elapsed.total_seconds() < 2
    assert "COMPLETED" != (await status_of(client, waiting))["status"]


async def test_a_ping_has_room_in_a_full_line(tmp_path):
    """It takes none."""
    async with client_of(tmp_path, max_queue=1) as (client, script):
        script.tell(load="wait")
        await submit(client)
        response = await client.post("/run", json=PING)

    assert "COMPLETED" == response.json()["status"]


# What can only fail


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({}, "input: give the recording as audio_url or as audio_base64, one of them"),
        ({"audio_url": "", "audio_base64": ""}, "input: give the recording"),
        ({"audio_url": "https://a/b", "audio_base64": "UklGRg=="}, "one of them"),
        ({"audio_base64": 5}, "audio_base64: 5 is not taken; input should be a valid string"),
        ({"audio_url": ["https://a/b"]}, "audio_url: ['https://a/b'] is not taken"),
        ({"audio_base64": "UklGRg==", "task": "translate"}, "task: 'translate' is not taken"),
        ({"audio_base64": "UklGRg==", "summary": "perhaps"}, "summary: 'perhaps' is not taken"),
        ({"audio_base64": "UklGRg==", "language": "klingon"}, "language: 'klingon'"),
        ({"audio_base64": "UklGRg==", "max_new_tokens": 0}, "max_new_tokens: 0 is not taken"),
        ({"audio_base64": "UklGRg==", "max_new_tokens": 8193}, "max_new_tokens: 8193"),
        ({"audio_base64": "UklGRg==", "min_speakers": 0}, "min_speakers: 0 is not taken"),
        ({"audio_base64": "UklGRg==", "speakers_max": 51}, "speakers_max: 51 is not taken"),
        (
            {
                "audio_base64": "UklGRg==",
                "task": "transcribe_diarized",
                "min_speakers": 3,
                "max_speakers": 2,
            },
            "min_speakers: 3 is not taken; max_speakers is 2",
        ),
    ],
    ids=str,
)
async def test_an_input_that_can_only_fail_has_failed_at_once(tmp_path, given, told):
    """The job is accepted, as RunPod's handlers have it, and its error is for people."""
    async with client_of(tmp_path) as (client, script):
        script.tell(load="wait")
        await submit(client)
        response = await client.post("/runsync", json={"input": given})
        stands = response.json()

    assert (200, "FAILED") == (response.status_code, stands["status"])
    assert told in stands["error"]
    assert "output" not in stands


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"audio_base64": "!!!"}, "audio_base64: is not base64: character 1 is '!'"),
        ({"audio_base64": base64_of(RECORDING[:20])}, "audio_base64: "),
        ({"audio_base64": base64_of(b"<html>")}, "audio_base64: is not audio but an HTML page"),
        ({"audio_url": "ftp://example.com/a.wav"}, "only http and https are taken"),
        ({"audio_url": "http://127.0.0.1:1/a.wav"}, "private addresses are refused"),
        ({"audio_url": "http://localhost/a.wav"}, "private addresses are refused"),
    ],
    ids=lambda value: str(value)[:60],
)
async def test_a_recording_that_cannot_be_used_fails_its_job(client, given, told):
    """The error names the field that the client knows; the next job is done."""
    stands = (await client.post("/runsync", json={"input": given})).json()
    after = (await client.post("/runsync", json=spoken())).json()

    assert ("FAILED", "COMPLETED") == (stands["status"], after["status"])
    assert told in stands["error"]
    assert "file:" not in stands["error"]


# Refusals


@pytest.mark.parametrize(
    ("method", "path", "content", "status", "code", "param"),
    [
        ("POST", "/run", b"", 400, "invalid_json", None),
        ("POST", "/run", b"{", 400, "invalid_json", None),
        ("POST", "/run", b"\xff\xfe\xff", 400, "invalid_json", None),
        ("POST", "/run", b"[]", 400, "invalid_value", None),
        ("POST", "/run", b"null", 400, "invalid_value", None),
        ("POST", "/run", b"5", 400, "invalid_value", None),
        ("POST", "/run", b"{}", 400, "missing_required_parameter", "input"),
        ("POST", "/run", b'{"input": null}', 400, "invalid_value", "input"),
        ("POST", "/run", b'{"input": []}', 400, "invalid_value", "input"),
        ("POST", "/run", b'{"input": "ping"}', 400, "invalid_value", "input"),
        ("POST", "/run", b'{"input": {}, "webhook": 5}', 400, "invalid_value", "webhook"),
        ("POST", "/run", b'{"input": {}, "webhook": "ftp://a"}', 400, "invalid_url", "webhook"),
        ("POST", "/run", b'{"input": {}, "webhook": "mail me"}', 400, "invalid_url", "webhook"),
        ("GET", "/status/absent", None, 404, "job_not_found", "id"),
        ("GET", "/stream/absent", None, 404, "job_not_found", "id"),
        ("POST", "/cancel/absent", None, 404, "job_not_found", "id"),
        ("POST", "/retry/absent", None, 404, "job_not_found", "id"),
        ("GET", "/status/" + "x" * 101, None, 400, "invalid_value", "job_id"),
        ("GET", "/status/%00%ff'--", None, 404, "job_not_found", "id"),
        ("GET", "/status/", None, 404, "not_found", None),
        ("GET", "/run", None, 405, "method_not_allowed", None),
        ("GET", "/cancel/absent", None, 405, "method_not_allowed", None),
        ("DELETE", "/status/absent", None, 405, "method_not_allowed", None),
    ],
    ids=lambda value: str(value)[:40],
)
@pytest.mark.parametrize("prefix", PREFIXES[:2])
async def test_refusals_have_their_status_code_and_field(
    client, prefix, method, path, content, status, code, param
):
    """In the shape of all of this project's speech services."""
    headers = {"content-type": "application/json"} if content is not None else {}
    response = await client.request(method, prefix + path, content=content, headers=headers)
    error = response.json()["error"]

    assert (status, code, param) == (response.status_code, error["code"], error["param"])
    assert response.json()["detail"] == error["message"]


@pytest.mark.parametrize("content_type", ["", "text/plain", "application/x-www-form-urlencoded"])
async def test_what_is_not_called_json_is_refused(client, content_type):
    """A page of another site could send any of these without asking the browser's leave."""
    headers = {"content-type": content_type} if content_type else {}
    response = await client.post("/run", content=json.dumps(PING), headers=headers)

    assert (415, "unsupported_media_type") == (
        response.status_code,
        response.json()["error"]["code"],
    )


async def test_a_full_line_says_when_to_come_again(tmp_path):
    """Nothing of the refused job is kept."""
    async with client_of(tmp_path, max_queue=2) as (client, script):
        script.tell(load="wait")
        await submit(client)
        await submit(client)
        refused = await client.post("/run", json=spoken())
        health = (await client.get("/health")).json()

    error = refused.json()["error"]
    assert (429, "queue_full", "rate_limit_error") == (
        refused.status_code,
        error["code"],
        error["type"],
    )
    assert "MAX_QUEUE" in error["message"]
    assert int(refused.headers["retry-after"]) > 0
    assert 2 == health["jobs"]["inQueue"]


async def test_an_endpoint_has_the_name_that_its_operator_gave_it(tmp_path):
    """Others are not there; without a name in the path it is meant, too."""
    async with client_of(tmp_path, runpod_endpoint_id="abc123") as (client, _):
        mine = await client.post("/v2/abc123/runsync", json=PING)
        short = await client.get(f"/status/{mine.json()['id']}")
        others = [
            await client.post("/v2/other/run", json=PING),
            await client.get(f"/v2/other/status/{mine.json()['id']}"),
            await client.get("/v2/other/health"),
            await client.post("/v2/other/purge-queue"),
        ]

    assert (200, 200) == (mine.status_code, short.status_code)
    assert [404] * 4 == [other.status_code for other in others]
    assert {("endpoint_not_found", "endpoint_id")} == {
        (other.json()["error"]["code"], other.json()["error"]["param"]) for other in others
    }


# Keys


@pytest.mark.parametrize("authorization", ["Bearer s3cret", "s3cret", "bearer s3cret"])
async def test_a_key_is_sent_as_bearer_or_alone(tmp_path, authorization):
    """RunPod's documents show both."""
    async with client_of(tmp_path, api_key="s3cret") as (client, _):
        response = await client.post(
            "/v2/voxtral/runsync", json=PING, headers={"authorization": authorization}
        )

    assert 200 == response.status_code


@pytest.mark.parametrize("authorization", [None, "Bearer wrong", "wrong", "Basic czNjcmV0"])
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/run"),
        ("POST", "/runsync"),
        ("GET", "/status/absent"),
        ("GET", "/stream/absent"),
        ("POST", "/cancel/absent"),
        ("POST", "/retry/absent"),
        ("POST", "/purge-queue"),
        ("POST", "/transcribe"),
        ("GET", "/metrics"),
        ("GET", "/v2/voxtral/health"),
        ("POST", "/v2/voxtral/run"),
    ],
)
async def test_nothing_is_told_without_a_key(tmp_path, method, path, authorization):
    """Before the body is looked at, and whatever is asked for."""
    headers = {"authorization": authorization} if authorization else {}
    async with client_of(tmp_path, api_key="s3cret") as (client, _):
        response = await client.request(method, path, headers=headers)

    assert (401, "invalid_api_key") == (response.status_code, response.json()["error"]["code"])
    assert "s3cret" not in response.text


@pytest.mark.parametrize("path", ["/health", "/ready", "/busy"])
async def test_orchestrators_need_no_key(tmp_path, path):
    """They ask the service itself, at the root."""
    async with client_of(tmp_path, api_key="s3cret") as (client, _):
        async with asyncio.timeout(20):
            while (response := await client.get(path)).status_code == 503:
                await asyncio.sleep(0.01)

    assert 200 == response.status_code


# What is kept, and what is told


def bytes_of(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())


async def test_secrets_of_a_storage_are_not_kept(scripted, tmp_path):
    """Neither while the job waits nor later, in no file."""
    client, script = scripted
    script.tell(load="wait")
    s3 = {"accessId": "AKIDEXAMPLE", "accessSecret": "wJalrS3", "bucketName": "b"}
    await submit(client, {**spoken(), "s3Config": {**s3, "endpointUrl": "https://s3.example.com"}})
    kept = bytes_of(tmp_path / "state")

    assert b"audio_base64" in kept
    assert b"wJalrS3" not in kept
    assert b"AKIDEXAMPLE" not in kept


async def test_a_recording_is_not_kept_when_its_job_has_ended(scripted, tmp_path):
    """Two seconds later it is in no file, the journal included; the result is."""
    client, script = scripted
    script.tell(any="wait")
    body = spoken()
    job = await submit(client, body)
    await until_begun(script)
    some = body["input"]["audio_base64"][1000:1100].encode()
    before = some in bytes_of(tmp_path / "state")
    script.tell(any="write")
    await until(client, job, "COMPLETED")
    async with asyncio.timeout(5):
        while some in bytes_of(tmp_path / "state"):
            await asyncio.sleep(0.05)

    assert before
    assert SPOKEN.encode() in bytes_of(tmp_path / "state")


async def test_a_service_is_ready_before_any_model_is_loaded(tmp_path):
    """So a job can be sent, which is what loads it."""
    async with client_of(tmp_path) as (client, script):
        async with asyncio.timeout(20):
            while (ready := await client.get("/ready")).status_code != 200:
                await asyncio.sleep(0.01)
        health = (await client.get("/health")).json()

    assert {"ready": True} == ready.json()
    assert False is health["model_resident"]
    assert [] == script.begun
