"""The real library and a tiny real model: what no other service has."""

import io
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import numpy as np
import pytest

from services.faster_whisper.engine import WhisperEngine
from services.faster_whisper.library import Library
from services.faster_whisper.settings import WhisperSettings
from services.transcription.audio import Recording
from services.transcription.errors import EngineError, InvalidRequest, work_failed
from services.transcription.request import TranscriptionRequest, VadTuning
from services.transcription.worker import Cancellation, Cancelled
from tests.services.sounds import (
    FRENCH_RECORDING,
    RECORDING,
    SAMPLE_RATE,
    WORDS,
    encode,
    recording_samples,
)
from tests.services.speech_server import DIGITS, FASTER_WHISPER, run_server


def engine_of(**settings) -> WhisperEngine:
    known = {"model": str(DIGITS / "model"), "inference_device": "cpu"}
    whisper = WhisperSettings(**known | settings)
    return WhisperEngine(whisper, Library(whisper), audio_seconds_max=1000)


@pytest.fixture(scope="module")
def engine() -> WhisperEngine:
    return engine_of()


@pytest.fixture(scope="module")
def batched() -> WhisperEngine:
    """Works on several windows of a long recording at once, as a GPU does by default."""
    return engine_of(batch_size=4)


def transcribe(engine: WhisperEngine, recording: bytes, report=lambda _: None, **changes):
    request = TranscriptionRequest(**{"model": "model"} | changes)
    return engine.transcribe(Recording(io.BytesIO(recording)), request, Cancellation(), report)


def test_the_words_language_and_length_are_told(engine):
    """Of the recording as it was sent."""
    transcript = transcribe(engine, RECORDING)

    assert (transcript.text, transcript.language) == (WORDS, "en")
    assert transcript.duration_seconds == len(recording_samples()) / SAMPLE_RATE


def test_a_given_language_is_not_detected(engine):
    """The client knows better."""
    assert transcribe(engine, FRENCH_RECORDING, language="en").language == "en"


def test_a_language_that_the_model_lacks_is_refused(engine):
    """The list is that of this model, not that of all of Whisper."""
    with pytest.raises(InvalidRequest, match=r"'de' is not known.*: en \(english\), fr \(french\)"):
        transcribe(engine, RECORDING, language="de")


def test_words_on_both_sides_of_a_cut_are_heard(engine):
    """A long recording is worked on in stretches; none of its words is lost or doubled."""
    silence = np.zeros(299 * SAMPLE_RATE, dtype=np.int16)
    samples = np.concatenate([recording_samples(), silence, recording_samples(), silence[:640_000]])
    transcript = transcribe(engine, encode(samples, "flac", "flac"))

    assert transcript.text == f"{WORDS} {WORDS}"


def test_the_language_is_that_of_the_first_words(engine):
    """Silence at the beginning has no language, whatever the model guesses."""
    samples = recording_samples()
    silence = np.zeros(340 * SAMPLE_RATE, dtype=np.int16)
    transcript = transcribe(engine, encode(np.concatenate([silence, samples]), "flac", "flac"))

    assert (transcript.text, transcript.language) == (WORDS, "en")


def test_a_cancelled_job_ends_before_the_words(engine):
    """Whether it was cancelled while decoding or before."""
    cancellation = Cancellation()
    cancellation.cancel()

    with pytest.raises(Cancelled):
        engine.transcribe(
            Recording(io.BytesIO(RECORDING)),
            TranscriptionRequest(model="model"),
            cancellation,
            lambda _: None,
        )


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (RuntimeError("CUDA failed with error out of memory"), "out_of_memory"),
        (MemoryError(), "out_of_memory"),
        # PyTorch's, of other services.
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), "out_of_memory"),
        (RuntimeError("cuBLAS failed with status CUBLAS_STATUS_EXECUTION_FAILED"), "engine_failed"),
    ],
)
def test_a_failure_of_the_model_is_final(error, code):
    """Retries would fail alike, so the client is told not to; the inside stays in the log."""
    failure = work_failed(error)

    assert (failure.code, failure.status, failure.worth_retrying) == (code, 500, False)
    assert "CUBLAS" not in failure.message


# Segments, words and their times


def spoken_twice(pause_seconds: float) -> np.ndarray:
    """The recording, a pause, and the recording again."""
    silence = np.zeros(int(pause_seconds * SAMPLE_RATE), dtype=np.int16)
    return np.concatenate([recording_samples(), silence, recording_samples()])


@pytest.mark.parametrize("pause_seconds", [5.0, 320.0])
def test_times_are_those_of_the_recording(engine, pause_seconds):
    """Silence that was left out counts, and so do the stretches before."""
    samples = spoken_twice(pause_seconds)
    transcript = transcribe(engine, encode(samples, "flac", "flac"), words=True)
    second = len(recording_samples()) / SAMPLE_RATE + pause_seconds

    first_words, second_words = transcript.words[:6], transcript.words[6:]
    assert [word.text.strip() for word in transcript.words] == WORDS.split() * 2
    assert 0 <= first_words[0].start_seconds < 0.5
    assert first_words[-1].end_seconds < 3.3
    for early, late in zip(first_words, second_words, strict=True):
        assert late.start_seconds - early.start_seconds == pytest.approx(second, abs=0.2)


def test_segments_follow_one_another_within_the_recording(engine):
    """Their times never go back, nor past the end, and none lasts nothing."""
    transcript = transcribe(engine, encode(spoken_twice(3), "wav", "pcm_s16le"), words=True)
    times = [
        (item.start_seconds, item.end_seconds) for item in (*transcript.segments, *transcript.words)
    ]

    assert len(transcript.segments) >= 2
    assert all(0 <= start < end <= transcript.duration_seconds for start, end in times)
    starts = [segment.start_seconds for segment in transcript.segments]
    assert starts == sorted(starts)


def test_segments_are_reported_as_they_are_found(engine):
    """In order, each once: they are the transcript's own."""
    reported = []
    transcript = transcribe(engine, encode(spoken_twice(3), "wav", "pcm_s16le"), reported.append)

    assert tuple(reported) == transcript.segments


@pytest.mark.parametrize("wanted", [{"words": True}, {"logprobs": True}])
def test_words_are_there_only_if_asked_for(engine, wanted):
    """They cost time."""
    assert transcribe(engine, RECORDING).words == ()
    assert len(transcribe(engine, RECORDING, **wanted).words) == 6
    assert all(0 < word.probability <= 1 for word in transcribe(engine, RECORDING, **wanted).words)


def test_silence_has_no_language(engine):
    """Whatever the model guesses; one that was given is kept."""
    silence = encode(recording_samples() * 0, "wav", "pcm_s16le")

    assert transcribe(engine, silence).language is None
    assert transcribe(engine, silence, language="fr").language == "fr"


def test_french_is_translated_into_english_digits(engine):
    """The model was trained for it."""
    transcript = transcribe(engine, FRENCH_RECORDING, task="translate")

    assert transcript.text == WORDS


@pytest.mark.parametrize("recording", [RECORDING, FRENCH_RECORDING])
def test_detection_is_restricted_to_the_languages_of_the_client(engine, batched, recording):
    """Of both languages the right one is found; a single one is not even asked about."""
    for used in (engine, batched):
        free = transcribe(used, recording)
        assert transcribe(used, recording, languages=("fr", "en")) == free
        assert transcribe(used, recording, languages=("fr",)).language == "fr"


@pytest.mark.parametrize("field", ["language", "languages"])
def test_a_language_of_another_model_is_refused(engine, field):
    """The field at fault is named."""
    with pytest.raises(InvalidRequest) as raised:
        transcribe(engine, RECORDING, **{field: "de" if field == "language" else ("en", "de")})

    assert raised.value.param == field


def test_a_prompt_and_hotwords_of_any_length_fit(engine):
    """Both are cut to what the model's context holds; too many hotwords are refused."""
    for count in (1, 40):
        hotwords = " one" * count
        assert transcribe(engine, RECORDING, prompt="two " * 500, hotwords=hotwords).text

    with pytest.raises(InvalidRequest, match=r"hotwords: .* at most 100 tokens"):
        transcribe(engine, RECORDING, hotwords="one " * 200)


def test_without_the_filter_silence_is_heard_too(engine):
    """The client may turn it off; the operator's default is another."""
    samples = recording_samples()
    late = encode(np.concatenate([np.zeros(80_000, dtype=np.int16), samples]), "wav", "pcm_s16le")
    off = VadTuning(enabled=False)

    assert transcribe(engine, late, vad=off).segments != transcribe(engine, late).segments
    assert transcribe(engine_of(vad_filter=False), late) == transcribe(engine, late, vad=off)


def test_the_detector_can_be_tuned(engine):
    """A threshold that nothing reaches leaves nothing."""
    assert transcribe(engine, RECORDING, vad=VadTuning(threshold=1.0)).text == ""
    spans = engine.find_speech(
        Recording(io.BytesIO(encode(spoken_twice(5), "flac", "flac"))),
        VadTuning(speech_pad_ms=0),
        Cancellation(),
    )

    assert [span.start_seconds for span in spans] == pytest.approx([0.2, 8.4], abs=0.4)


# Several windows at once


def test_batches_reach_over_the_stretches(batched):
    """Six minutes are two stretches, each with its own batches."""
    samples = np.concatenate([spoken_twice(320), recording_samples()])
    transcript = transcribe(batched, encode(samples, "flac", "flac"), words=True)

    assert transcript.text.split() == WORDS.split() * 3
    assert transcript.words[6].start_seconds == pytest.approx(323.3, abs=0.4)


def test_a_window_that_looks_wrong_is_heard_again(batched):
    """The batches know one temperature only; the rest of the ladder is climbed window by window."""
    # Six digits over and over: "too repetitive", by the library's own rule.
    recording = encode(np.concatenate([spoken_twice(2)] * 10), "flac", "flac")
    climbed = transcribe(batched, recording)
    fixed = transcribe(batched, recording, temperatures=(0.0,))

    assert {segment.temperature for segment in climbed.segments} <= {0.2, 0.4, 0.6, 0.8, 1.0}
    assert {segment.temperature for segment in fixed.segments} == {0.0}
    assert len(climbed.text.split()) == pytest.approx(120, rel=0.1)
    ends = (climbed.segments[-1].end_seconds, fixed.segments[-1].end_seconds)
    assert ends == pytest.approx((83.5, 83.5), abs=1)


def test_windows_do_not_run_into_one_another(batched, monkeypatch):
    """The model's window is longer than what it is given; its times may be, too."""
    rng = np.random.default_rng(3)
    digits = np.array_split(recording_samples(), 6)
    samples = np.concatenate([digits[number] for number in rng.integers(0, 6, 400)])
    for limit in (-1.0, 0.0):  # and with every window heard again
        monkeypatch.setattr("services.faster_whisper.whisper._LOGPROB_MIN", limit)
        transcript = transcribe(batched, encode(samples, "flac", "flac"), words=True)
        for items in (transcript.segments, transcript.words):
            ends = [item.end_seconds for item in items]
            starts = [item.start_seconds for item in items]
            assert starts == sorted(starts)
            assert all(end <= start + 0.02 for end, start in zip(ends, starts[1:], strict=False))
        seeks = [segment.seek for segment in transcript.segments]
        assert seeks == sorted(seeks)
        assert seeks[-1] > 10_000


def test_a_recording_of_a_few_samples_has_no_time_below_zero(engine):
    """Not even where it is shorter than the shortest segment."""
    for count in (1, 50, 159, 161):
        sound = encode(recording_samples()[8000 : 8000 + count], "wav", "pcm_s16le")
        transcript = transcribe(engine, sound, vad=VadTuning(enabled=False), words=True)
        times = [item.start_seconds for item in (*transcript.segments, *transcript.words)]

        assert all(time >= 0 for time in times)


def test_silence_is_empty_in_batches_too(batched):
    """Two minutes of nothing."""
    silence = encode(np.zeros(120 * SAMPLE_RATE, dtype=np.int16), "flac", "flac")

    assert transcribe(batched, silence).segments == ()


# Several models


@pytest.fixture
def folder(tmp_path) -> Path:
    """Two more models, copies of the tiny one."""
    for name in ("second", "third"):
        shutil.copytree(DIGITS / "model", tmp_path / name)
    return tmp_path


def test_models_share_the_memory_and_the_longest_unused_goes(folder):
    """The budget holds two; using one again saves it."""
    size = (DIGITS / "model/model.bin").stat().st_size
    engine = engine_of(folder=str(folder), memory=2 * size, compute_type="int8")
    assert engine.resident() == ("model",)
    assert transcribe(engine, RECORDING, model="second").text == WORDS
    assert engine.resident() == ("model", "second")
    transcribe(engine, RECORDING, model="model")
    transcribe(engine, RECORDING, model="third")

    assert engine.resident() == ("model", "third")


def test_a_model_larger_than_the_budget_is_alone(folder):
    """It is what was asked for, so it is loaded; the operator's figure is no limit for one."""
    engine = engine_of(folder=str(folder), memory=1)
    transcribe(engine, RECORDING, model="second")

    assert engine.resident() == ("second",)


def test_models_are_loaded_and_unloaded_by_name(engine):
    """Each answers whether there was something to do; the next request loads it again."""
    assert not engine.load("model")
    assert engine.unload("model")
    assert not engine.unload("model")
    assert engine.resident() == ()
    assert engine.load("model")
    engine.unload("model")

    assert transcribe(engine, RECORDING).text == WORDS
    assert engine.resident() == ("model",)


@pytest.mark.parametrize("file", ["model.bin", "tokenizer.json"])
def test_a_model_that_cannot_be_loaded_is_told_and_leaves_the_others(folder, file):
    """The inside stays in the log; what is damaged today is damaged in a minute."""
    (folder / "second" / file).write_text("{}")
    engine = engine_of(folder=str(folder))
    with pytest.raises(EngineError, match="'second' could not be loaded") as raised:
        transcribe(engine, RECORDING, model="second")

    assert (raised.value.code, raised.value.worth_retrying) == ("load_failed", False)
    assert transcribe(engine, RECORDING).text == WORDS


def test_a_model_that_does_not_fit_is_told_so(folder, monkeypatch):
    """It is the model that is too large then, not the recording."""
    engine = engine_of(folder=str(folder))

    def fail(*_arguments: object) -> None:
        raise RuntimeError("CUDA failed with error out of memory")

    monkeypatch.setattr("services.faster_whisper.engine.Whisper", fail)
    with pytest.raises(EngineError, match="the model 'second' is too large") as raised:
        transcribe(engine, RECORDING, model="second")

    assert (raised.value.code, raised.value.worth_retrying) == ("out_of_memory", False)


# Without a network


@contextmanager
def watched_hub() -> Iterator[tuple[str, socket.socket]]:
    """An address for the Hub where nobody answers, but calls are noticed."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", listener


def cache_model(home: Path, name: str) -> None:
    """Put the tiny model where the Hub's client would have put it."""
    cached = home / ".cache/huggingface/hub" / f"models--{name.replace('/', '--')}"
    shutil.copytree(DIGITS / "model", cached / "snapshots/abc")
    (cached / "refs").mkdir()
    (cached / "refs/main").write_text("abc")


@pytest.mark.parametrize("where", ["folder", "cache"])
def test_a_model_that_is_here_needs_no_network(tmp_path, where):
    """Neither a local folder nor a name that was fetched before makes a call."""
    cache_model(tmp_path, "somebody/whisper")
    model = {"folder": str(DIGITS / "model"), "cache": "somebody/whisper"}[where]
    with watched_hub() as (address, listener):
        environment = {"WHISPER__MODEL": model, "HF_ENDPOINT": address}
        with run_server(FASTER_WHISPER, tmp_path, environment) as server:
            answer = httpx.post(
                server.transcriptions,
                files={"file": ("a.wav", RECORDING)},
                data={"model": "whisper-1"},
                timeout=60,
            )

        assert answer.json()["text"] == WORDS
        with pytest.raises(BlockingIOError):
            listener.accept()
