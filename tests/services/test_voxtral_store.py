"""The jobs on disk: none is lost, none ends twice, and what they held does not outlive them."""

import itertools
import json
import random
import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from services.transcription.errors import InvalidRequest, QueueFull
from services.voxtral.database import StoreError
from services.voxtral.jobs import (
    ATTEMPTS_MAX,
    Ending,
    Job,
    JobRequest,
    NewJob,
    Status,
    accept,
    view,
)
from services.voxtral.store import Store

NOW = 1_700_000_000.0
MINUTE = 60.0
DAY = 86_400.0
HOOK = "https://hooks.example.com/done"
COMPLETED = Ending(Status.COMPLETED, output={"transcript": "bonjour"})
FAILED = Ending(Status.FAILED, error="no such recording")
TIMED_OUT = Ending(Status.TIMED_OUT, error="took too long")


def new_job(*, synchronous: bool = False, now: float = NOW, **body: Any) -> NewJob:
    """Make a job as a request does; `body` is the request's."""
    request = JobRequest.parse({"input": {"audio_base64": "UklGRg=="}, **body})
    return accept(request, synchronous=synchronous, now=now, seconds_max=600.0)


def open_store(folder: Path, *, waiting_max: int = 100, now: float = NOW) -> Store:
    return Store(folder, waiting_max=waiting_max, now=now)


@pytest.fixture
def store(tmp_path) -> Iterator[Store]:
    """The jobs of a folder of its own."""
    opened = open_store(tmp_path / "state")
    yield opened
    opened.close()


def submit(store: Store, *, ending: Ending | None = None, **body: Any) -> str:
    """Have a job accepted; give its id."""
    job = new_job(**body)
    store.add(job, ending)
    return job.id


def begin(store: Store, now: float = NOW) -> str:
    """Begin the job that waits longest; give its id."""
    taken = store.take(now)
    assert taken is not None
    assert store.begin(taken[0].id, now)
    return taken[0].id


def status_of(store: Store, job: str, now: float = NOW) -> Status | None:
    found = store.get(job, now)
    return found and found.status


# A job's way


def test_a_job_goes_from_the_line_to_its_result(store):
    """What stands in between is told at each step."""
    job = submit(store)
    seen = [status_of(store, job)]
    begin(store)
    seen.append(status_of(store, job))
    store.finish(job, COMPLETED, NOW)
    seen.append(status_of(store, job))

    assert [Status.IN_QUEUE, Status.IN_PROGRESS, Status.COMPLETED] == seen


def test_jobs_are_taken_in_the_order_of_their_submission(store):
    """Whatever their ids are."""
    submitted = [submit(store) for _ in range(20)]
    taken = []
    while (found := store.take(NOW)) is not None:
        store.begin(found[0].id, NOW)
        taken.append(found[0].id)

    assert submitted == taken


def test_the_input_is_given_back_as_it_was_sent(store):
    """NaN, a lone surrogate, and fields that nobody knows included."""
    given = {"audio_url": "https://example.com/é.wav", "more": [None, 1e300, "\ud800", {"a": 1}]}
    submit(store, input=given)

    found = store.take(NOW)
    assert found is not None
    assert given == found[1]


@pytest.mark.parametrize("synchronous", [False, True])
def test_ids_are_runpods(synchronous):
    """Clients tell the two apart by their beginning; no two are alike."""
    uuid = "[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"
    ids = {new_job(synchronous=synchronous).id for _ in range(100)}
    pattern = re.compile(f"sync-{uuid}-u1" if synchronous else f"{uuid}-u1")

    assert 100 == len(ids)
    assert all(pattern.fullmatch(each) for each in ids)


@pytest.mark.parametrize("ending", [COMPLETED, FAILED, TIMED_OUT, Ending(Status.CANCELLED)])
def test_a_job_ends_once(store, ending):
    """Whoever comes later changes nothing: neither the result nor the figures."""
    job = submit(store)
    begin(store)
    store.finish(job, ending, NOW)
    before = store.get(job, NOW), store.counts()
    for late in (COMPLETED, FAILED, TIMED_OUT):
        store.finish(job, late, NOW + 1)
    store.cancel(job, NOW + 1)
    store.hand_back(job)
    store.begin(job, NOW + 1)

    after = store.counts()
    assert before[0] == store.get(job, NOW)
    assert (before[1].completed, before[1].failed) == (after.completed, after.failed)
    assert 0 == after.in_queue + after.in_progress


def test_a_job_that_was_cancelled_cannot_begin(store):
    """Though it was taken before."""
    job = submit(store)
    taken = store.take(NOW)
    store.cancel(job, NOW)

    assert taken is not None
    assert not store.begin(job, NOW)


def test_a_finished_job_stays_so_when_it_is_cancelled(store):
    """The answer tells how it stands."""
    job = submit(store)
    begin(store)
    store.finish(job, COMPLETED, NOW)

    cancelled = store.cancel(job, NOW)
    assert cancelled is not None
    assert Status.COMPLETED is cancelled.status


def test_nobody_can_cancel_what_is_not_there(store):
    """Nor what has expired."""
    job = submit(store)

    assert store.cancel("absent", NOW) is None
    assert store.cancel(job, NOW + DAY) is None


def test_a_full_line_takes_no_more(tmp_path):
    """What needs no place in it is accepted all the same."""
    store = open_store(tmp_path, waiting_max=2)
    first = submit(store)
    submit(store)
    with pytest.raises(QueueFull, match="MAX_QUEUE"):
        submit(store)
    submit(store, ending=COMPLETED)
    submit(store, ending=FAILED)
    store.cancel(first, NOW)
    submit(store)
    with pytest.raises(QueueFull):
        submit(store)

    assert 2 == store.counts().in_queue
    store.close()


def test_a_purge_cancels_what_waits_and_nothing_else(store):
    """The running job goes on; the others keep their states."""
    running, *waiting = [submit(store) for _ in range(4)]
    begin(store)
    done = submit(store, ending=COMPLETED)

    assert 3 == store.purge(NOW)
    assert 0 == store.purge(NOW)
    assert [Status.CANCELLED] * 3 == [status_of(store, job) for job in waiting]
    assert [Status.IN_PROGRESS, Status.COMPLETED] == [
        status_of(store, running),
        status_of(store, done),
    ]


# Tried again


@pytest.mark.parametrize("ending", [FAILED, TIMED_OUT])
def test_a_job_that_failed_is_tried_again_under_its_id(store, ending):
    """At the end of the line, with its input, and without what came of it before."""
    job = submit(store, input={"audio_url": "https://example.com/a.wav"})
    begin(store)
    store.add_chunk(job, 0, {"text": "half"})
    store.finish(job, ending, NOW)
    other = submit(store)

    again = store.retry(job, NOW + 5)
    assert again is not None
    assert (job, Status.IN_QUEUE, None, None) == (again.id, again.status, again.output, again.error)
    assert [] == store.take_chunks(job, 1000)
    assert [other, job] == [begin(store, NOW + 5), begin(store, NOW + 5)]
    assert 1 == store.counts().retried


def test_what_is_tried_again_comes_before_what_is_sent_later(store):
    """Its new place in the line is a place like others."""
    job = submit(store, ending=FAILED)
    before = submit(store)
    store.retry(job, NOW)
    after = submit(store)

    assert [before, job, after] == [begin(store), begin(store), begin(store)]


@pytest.mark.parametrize(
    "stands",
    [Status.IN_QUEUE, Status.IN_PROGRESS, Status.COMPLETED, Status.CANCELLED],
)
def test_other_jobs_are_not_tried_again(store, stands):
    """The refusal tells how the job stands."""
    job = submit(store)
    if stands is not Status.IN_QUEUE:
        begin(store)
    if stands.ended:
        store.finish(job, Ending(stands), NOW)
    with pytest.raises(InvalidRequest, match=f"the job is {stands}") as raised:
        store.retry(job, NOW)

    assert ("id", "invalid_state") == (raised.value.param, raised.value.code)
    assert stands is status_of(store, job)


def test_a_retry_needs_a_place_in_the_line(tmp_path):
    """Or else the line would have no limit."""
    store = open_store(tmp_path, waiting_max=1)
    failed = submit(store, ending=FAILED)
    submit(store)
    with pytest.raises(QueueFull):
        store.retry(failed, NOW)

    assert Status.FAILED is status_of(store, failed)
    store.close()


def test_inputs_of_failed_jobs_do_not_fill_the_disk(tmp_path):
    """As many are kept as jobs may wait; the older ones cannot be tried again, and say why."""
    store = open_store(tmp_path, waiting_max=3)
    failed = [submit(store, ending=FAILED) for _ in range(5)]
    for job in failed[:2]:
        with pytest.raises(InvalidRequest, match="its input is kept no longer"):
            store.retry(job, NOW)
    for job in failed[2:]:
        store.retry(job, NOW)

    assert failed[2:] == [begin(store), begin(store), begin(store)]
    store.close()


# Time


@pytest.mark.parametrize(("synchronous", "minutes"), [(False, 30), (True, 1)])
@pytest.mark.parametrize("ending", [COMPLETED, FAILED, TIMED_OUT, Ending(Status.CANCELLED)])
def test_a_result_is_kept_for_its_time(store, synchronous, minutes, ending):
    """Half an hour after /run, a minute after /runsync; counted from its end."""
    job = submit(store, synchronous=synchronous)
    ended_at = NOW + 3600
    begin(store, ended_at)
    store.finish(job, ending, ended_at)
    forgotten_at = ended_at + minutes * MINUTE

    assert ending.status is status_of(store, job, forgotten_at - 0.001)
    assert status_of(store, job, forgotten_at) is None
    assert [] == store.expire(forgotten_at - 0.001)
    assert [job] == store.expire(forgotten_at)


def test_a_purged_job_is_kept_for_half_an_hour(store):
    """As any other that was cancelled."""
    job = submit(store)
    store.purge(NOW)

    assert Status.CANCELLED is status_of(store, job, NOW + 29 * MINUTE)
    assert [job] == store.expire(NOW + 30 * MINUTE)


@pytest.mark.parametrize("begun", [False, True])
def test_a_job_is_forgotten_when_its_ttl_is_over(store, begun):
    """Whether it waits or runs; by default that is a day after its submission."""
    job = submit(store)
    if begun:
        begin(store)

    assert status_of(store, job, NOW + DAY - 1) is not None
    assert store.take(NOW + DAY) is None
    assert [job] == store.expire(NOW + DAY)
    store.finish(job, COMPLETED, NOW + DAY)
    assert status_of(store, job) is None
    assert 0 == store.counts().completed


def test_a_short_ttl_ends_a_result_sooner(store):
    """The earlier of the two counts."""
    job = submit(store, policy={"ttl": 10_000})
    begin(store)
    store.finish(job, COMPLETED, NOW + 4)

    assert status_of(store, job, NOW + 9.9) is Status.COMPLETED
    assert status_of(store, job, NOW + 10) is None


def test_a_client_may_say_how_long_a_job_is_kept(store):
    """As /status?ttl= does, in both directions."""
    job = submit(store)
    begin(store)
    store.finish(job, COMPLETED, NOW)
    store.keep_until(job, NOW + 60 * MINUTE)
    longer = status_of(store, job, NOW + 59 * MINUTE)
    store.keep_until(job, NOW + 1)

    assert Status.COMPLETED is longer
    assert [job] == store.expire(NOW + 1)


def test_times_are_told_in_milliseconds(store):
    """In the line, and at work."""
    job = submit(store)
    begin(store, NOW + 1.5)
    store.finish(job, COMPLETED, NOW + 4)
    found = store.get(job, NOW + 4)
    assert found is not None

    assert {
        "id": job,
        "status": "COMPLETED",
        "delayTime": 1500,
        "executionTime": 2500,
        "workerId": "w",
        "output": {"a": 1},
    } == view(found, worker_id="w", output={"a": 1})


def test_a_clock_that_was_set_back_tells_of_no_negative_times(store):
    """Wall-clock times are all that outlives the process."""
    job = submit(store)
    begin(store, NOW - 100)
    store.finish(job, COMPLETED, NOW - 200)
    found = store.get(job, NOW)
    assert found is not None
    told = view(found, worker_id="w", output=None)

    assert (0, 0) == (told["delayTime"], told["executionTime"])


# Parts of a stream


def test_each_part_is_given_once(store):
    """In order; what comes later is given later."""
    job = submit(store)
    begin(store)
    store.add_chunk(job, 0, {"text": "a"})
    store.add_chunk(job, 1, {"text": "b"})
    first = store.take_chunks(job, 1000)
    store.add_chunk(job, 2, {"text": "c"})

    assert [{"text": "a"}, {"text": "b"}] == first
    assert [{"text": "c"}] == store.take_chunks(job, 1000)
    assert [] == store.take_chunks(job, 1000)


def test_a_part_that_comes_again_after_a_crash_is_not_given_again(tmp_path):
    """The job is done once more from its beginning."""
    store = open_store(tmp_path)
    job = submit(store)
    begin(store)
    store.add_chunk(job, 0, "first")
    store.take_chunks(job, 1000)
    store.add_chunk(job, 1, "second")
    store.close()
    store = open_store(tmp_path)
    begin(store)
    for number, text in enumerate(["first", "second", "third"]):
        store.add_chunk(job, number, text)

    assert ["second", "third"] == store.take_chunks(job, 1000)
    store.close()


def test_an_answer_holds_no_more_parts_than_have_room(store):
    """What stands around them is counted, too; one that is too large comes alone."""
    job = submit(store)
    begin(store)
    parts = [{"text": "é"} for _ in range(200)] + [{"text": "x" * 3000}, {"text": "end"}]
    for number, part in enumerate(parts):
        store.add_chunk(job, number, part)
    answers = []
    while taken := store.take_chunks(job, 1000):
        answers.append(taken)
    sizes = [
        len(json.dumps([{"output": part} for part in taken], separators=(",", ":")))
        for taken in answers
    ]

    assert parts == list(itertools.chain.from_iterable(answers))
    assert [{"text": "x" * 3000}] in answers
    assert max(size for size in sizes if size < 3000) <= 1000 + len("[]")


def test_only_a_running_job_has_new_parts(store):
    """A thread that has not noticed the end changes nothing."""
    job = submit(store)
    store.add_chunk(job, 0, "early")
    begin(store)
    store.cancel(job, NOW)
    store.add_chunk(job, 0, "late")

    assert [] == store.take_chunks(job, 1000)


def test_two_jobs_do_not_share_their_parts(store):
    """Nor does one that is not there have any."""
    first, second = submit(store), submit(store)
    begin(store)
    store.add_chunk(first, 0, "first")

    assert [] == store.take_chunks(second, 1000) + store.take_chunks("absent", 1000)


# The end of the process


def test_a_running_job_waits_again_after_a_crash(tmp_path):
    """It is the next, for it came first."""
    store = open_store(tmp_path)
    job = submit(store)
    begin(store)
    submit(store)
    store.close()
    store = open_store(tmp_path)

    assert Status.IN_QUEUE is status_of(store, job)
    assert job == begin(store)
    store.close()


@pytest.mark.parametrize("loading", [False, True], ids=["at work", "during the load"])
def test_a_job_that_ends_the_process_is_not_tried_for_ever(tmp_path, loading):
    """After three times it has failed, in time, and the next one has its turn."""
    store = open_store(tmp_path)
    job, other = submit(store, webhook=HOOK), submit(store)
    for _ in range(ATTEMPTS_MAX):
        taken = store.take(NOW)
        assert taken is not None
        assert job == taken[0].id
        if not loading:
            store.begin(job, NOW)
        store.close()
        store = open_store(tmp_path, now=NOW + 100)

    found = store.get(job, NOW)
    assert found is not None
    assert (Status.FAILED, NOW + 100) == (found.status, found.ended_at)
    assert "3 times" in (found.error or "")
    assert found.expires_at == NOW + 100 + 30 * MINUTE
    assert other == begin(store)
    assert 1 == store.counts().failed
    assert [job] == [each.job.id for each in store.due_webhooks(NOW + 100, 8)]
    store.close()


def test_a_job_that_was_handed_back_has_not_failed(tmp_path):
    """A gentle stop is no fault of it, however often it happens."""
    store = open_store(tmp_path)
    job = submit(store)
    for _ in range(2 * ATTEMPTS_MAX):
        assert job == begin(store)
        store.hand_back(job)
        store.close()
        store = open_store(tmp_path)

    assert Status.IN_QUEUE is status_of(store, job)
    store.close()


def test_a_retry_has_all_its_attempts_again(tmp_path):
    """A larger machine may stand there now."""
    store = open_store(tmp_path)
    job = submit(store)
    for _ in range(ATTEMPTS_MAX):
        begin(store)
        store.close()
        store = open_store(tmp_path)
    store.retry(job, NOW)
    begin(store)
    store.close()
    store = open_store(tmp_path)

    assert Status.IN_QUEUE is status_of(store, job)
    store.close()


def test_results_and_figures_outlive_the_process(tmp_path):
    """Within their time."""
    store = open_store(tmp_path)
    job = submit(store)
    begin(store)
    store.finish(job, COMPLETED, NOW)
    before = store.get(job, NOW)
    store.close()
    store = open_store(tmp_path, now=NOW + 60)

    assert before == store.get(job, NOW + 60)
    assert 1 == store.counts().completed
    store.close()


# Results to be posted


def stored(store: Store, job: str) -> Job:
    """The job as it stands, be it expired or not."""
    found = store.get(job, 0.0)
    assert found is not None
    return found


@pytest.mark.parametrize("ending", [COMPLETED, FAILED, TIMED_OUT])
def test_a_result_is_due_at_once(store, ending):
    """With where it is to be posted, until it was."""
    job = submit(store, webhook=HOOK)
    submit(store)
    begin(store)
    store.finish(job, ending, NOW)
    [due] = store.due_webhooks(NOW, 8)

    assert (job, HOOK, 0) == (due.job.id, due.url, due.attempts)
    assert 1 == store.counts().webhooks
    store.webhook_posted(stored(store, job), due_at=None)
    assert [] == store.due_webhooks(NOW + DAY, 8)
    assert 0 == store.counts().webhooks


def test_a_result_that_was_not_taken_is_due_later(tmp_path):
    """After a restart, too."""
    store = open_store(tmp_path)
    job = submit(store, webhook=HOOK, ending=COMPLETED)
    store.webhook_posted(stored(store, job), due_at=NOW + 10)
    store.close()
    store = open_store(tmp_path)

    assert [] == store.due_webhooks(NOW + 9, 8)
    assert [1] == [due.attempts for due in store.due_webhooks(NOW + 10, 8)]
    store.close()


def test_nobody_is_told_of_a_job_that_was_cancelled(store):
    """Its client knows."""
    waiting = submit(store, webhook=HOOK)
    store.cancel(waiting, NOW)
    submit(store, webhook=HOOK)
    store.purge(NOW)

    assert [] == store.due_webhooks(NOW + DAY, 8)


def test_a_result_that_has_expired_is_still_posted(store):
    """It is shown to nobody, and forgotten once it was posted."""
    job = submit(store, webhook=HOOK, ending=COMPLETED)
    late = NOW + DAY
    store.expire(late)
    assert status_of(store, job, late) is None
    assert [job] == [due.job.id for due in store.due_webhooks(late, 8)]
    store.webhook_posted(stored(store, job), due_at=None)
    store.expire(late)

    assert store.get(job, 0.0) is None


def test_a_late_post_of_an_old_result_leaves_the_new_one_due(store):
    """It was on its way while the job was tried again, and ended."""
    job = submit(store, webhook=HOOK, ending=FAILED)
    old = stored(store, job)
    store.retry(job, NOW + 1)
    begin(store, NOW + 2)
    store.finish(job, COMPLETED, NOW + 3)
    store.webhook_posted(old, due_at=None)

    assert [job] == [due.job.id for due in store.due_webhooks(NOW + 3, 8)]


def test_a_retry_posts_its_own_result_and_not_the_old_one(store):
    """The old one is no result any more."""
    job = submit(store, webhook=HOOK, ending=FAILED)
    store.retry(job, NOW)
    before = store.due_webhooks(NOW, 8)
    begin(store)
    store.finish(job, COMPLETED, NOW)

    assert [] == before
    assert [Status.COMPLETED] == [due.job.status for due in store.due_webhooks(NOW, 8)]


# What is on the disk


def files_with(folder: Path, secret: str) -> list[str]:
    """Give the names of the files that hold some bytes."""
    return sorted(path.name for path in folder.iterdir() if secret.encode() in path.read_bytes())


@pytest.mark.parametrize("size", [10, 3_000, 200_000])
@pytest.mark.parametrize("how", ["finish", "cancel", "purge", "expire", "no more kept"])
def test_a_recording_does_not_outlive_its_job(tmp_path, how, size):
    """Its bytes are in no file any more once the journal was emptied; its neighbours' are."""
    store = open_store(tmp_path, waiting_max=10)
    between = [submit(store, input={"audio_base64": "Tk9ORQ" * size}) for _ in range(3)]
    submit(store, input={"audio_base64": "U0VDUkVU" * size}, policy={"ttl": 10_000})
    secret = store.take(NOW)
    for job in between:
        store.finish(job, COMPLETED, NOW)
    secret = store.take(NOW)
    assert secret is not None
    job = secret[0].id
    submit(store, input={"audio_base64": "T1RIRVI" * size})
    assert files_with(tmp_path, "U0VDUkVUU0VDUkVU")
    match how:
        case "finish":
            store.finish(job, COMPLETED, NOW)
        case "cancel":
            store.cancel(job, NOW)
        case "purge":
            store.purge(NOW)
        case "expire":
            store.expire(NOW + 10)
        case "no more kept":
            store.finish(job, FAILED, NOW)
            for _ in range(10):
                submit(store, ending=FAILED)
    store.scrub()

    assert [] == files_with(tmp_path, "U0VDUkVUU0VDUkVU")
    assert how == "purge" or files_with(tmp_path, "T1RIRVIT1RIRVI") == ["jobs.sqlite"]
    store.close()


def test_the_secrets_of_a_storage_are_never_written(tmp_path):
    """Nothing is uploaded, so nothing of it is needed."""
    store = open_store(tmp_path)
    submit(
        store,
        s3Config={
            "accessId": "AKIDEXAMPLE",
            "accessSecret": "wJalrSECRET",
            "bucketName": "b",
            "endpointUrl": "https://s3.example.com",
        },
    )

    assert [] == files_with(tmp_path, "wJalrSECRET") + files_with(tmp_path, "AKIDEXAMPLE")
    store.close()


def test_others_may_not_read_the_recordings(tmp_path):
    """Neither where the folder is made here nor where it was there before."""
    for folder in (tmp_path / "made", tmp_path):
        store = open_store(folder)
        submit(store)
        modes = {path.name: path.stat().st_mode & 0o077 for path in folder.glob("jobs*")}
        store.close()

        assert {"jobs.sqlite", "jobs.sqlite-wal", "jobs.sqlite-shm"} == modes.keys()
        assert {0} == set(modes.values())


def test_the_file_shrinks_when_jobs_are_gone(tmp_path):
    """Recordings come and go."""
    store = open_store(tmp_path)
    for _ in range(5):
        submit(store, input={"audio_base64": "UklG" * 500_000})
    store.scrub()
    large = (tmp_path / "jobs.sqlite").stat().st_size
    store.purge(NOW)
    store.scrub()

    assert large > 10_000_000
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) < 1_000_000
    store.close()


# What cannot be


def test_a_folder_belongs_to_one_process(tmp_path):
    """The second one is told so; it may have the folder afterwards."""
    store = open_store(tmp_path)
    with pytest.raises(StoreError, match=f"VOXTRAL_STATE: another process uses {tmp_path}"):
        open_store(tmp_path)
    store.close()

    open_store(tmp_path).close()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("jobs.sqlite", b"this is no database at all" * 100),
        ("jobs.sqlite", b"SQLite format 3\0" + b"\xff" * 5000),
    ],
    ids=["text", "garbage"],
)
def test_a_damaged_file_is_named(tmp_path, name, content):
    """And the folder is free again."""
    (tmp_path / name).write_bytes(content)
    for _ in range(2):
        with pytest.raises(StoreError, match=rf"VOXTRAL_STATE: {tmp_path}: .*(not a data|malform)"):
            open_store(tmp_path)

    assert content == (tmp_path / name).read_bytes()


def test_damage_in_the_middle_of_the_file_is_told(tmp_path):
    """Whether it is found when the file is opened, or later: nothing is answered from it."""
    store = open_store(tmp_path, waiting_max=200)
    for _ in range(200):
        submit(store)
    store.close()
    file = tmp_path / "jobs.sqlite"
    content = bytearray(file.read_bytes())
    # All pages but the first two: the tables are described there.
    content[2 * 4096 :] = random.Random(7).randbytes(len(content) - 2 * 4096)
    file.write_bytes(content)

    with pytest.raises(StoreError, match="malformed"):
        open_store(tmp_path)


def test_a_file_of_another_version_is_not_touched(tmp_path):
    """What this code does not know it must not change."""
    open_store(tmp_path).close()
    with sqlite3.connect(tmp_path / "jobs.sqlite") as other:
        other.execute("PRAGMA user_version = 2")
    other.close()

    with pytest.raises(StoreError, match=r"of another version \(2\)"):
        open_store(tmp_path)


@pytest.mark.parametrize("folder", ["/proc/voxtral", "/dev/null/voxtral", "/dev/null"])
def test_a_folder_that_cannot_be_used_is_named(folder):
    """In the one line that the operator sees."""
    with pytest.raises(StoreError, match=f"VOXTRAL_STATE: {folder}: "):
        open_store(Path(folder))
