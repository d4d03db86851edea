"""From a recording to an answer: the real detector, pipeline, processor and `generate`.

The model is tiny and writes a script: what is true here are times, speakers and order.
"""

import io
import logging
import wave
from collections.abc import Iterator
from itertools import groupby, pairwise

import numpy as np
import pytest

from services.transcription.errors import InvalidRequest
from services.transcription.request import SpeakerTuning
from services.transcription.transcript import Progress
from services.voxtral.answers import Answer, SpokenSegment
from services.voxtral.engine import transcript_of
from services.voxtral.on_transformers import OnTransformers
from tests.services.sounds import RECORDING, SAMPLE_RATE, encode, recording_samples
from tests.speech.voices import THREE, Conversation, converse_in_digits, converse_in_sentences
from tests.speech.voxtral_bench import (
    ANSWER,
    OPINION,
    SPEAKERS,
    WORDS,
    Bench,
    Listening,
    bench_of,
    caveats,
    refused,
    silence,
    wav,
)
from tests.speech.voxtral_maker import make_voxtral

# Measured: 0.53 s, at the end of a recording. To the detector, half a second is no silence.
OFF_SECONDS_MAX = 0.6


@pytest.fixture(scope="module")
def loaded(voxtral_model) -> OnTransformers:
    return OnTransformers(voxtral_model, device="cpu", batch_size=2)


@pytest.fixture(scope="module")
def with_speakers(loaded, diarizer) -> Bench:
    """Its pipeline stays in memory from test to test."""
    return bench_of(Listening(loaded), diar_model=str(diarizer))


@pytest.fixture
def bench(loaded, with_speakers) -> Iterator[Bench]:
    """The same, that has done nothing yet."""
    with_speakers.model.pieces.clear()
    with_speakers.model.prompts.clear()
    with_speakers.model.tokens_max.clear()
    with_speakers.reported.clear()
    return with_speakers


# Words


def test_what_is_said_is_written_with_its_time(bench):
    """One piece of half a minute at most is one segment."""
    answer = bench.work(RECORDING, language="en")
    seconds = len(recording_samples()) / SAMPLE_RATE

    assert [segment.text for segment in answer.segments] == [WORDS]
    assert 0 <= answer.segments[0].start < answer.segments[0].end <= answer.duration
    assert answer.segments == answer.transcriptions == bench.segments
    assert answer.model_dump(
        exclude={"segments", "transcriptions", "processing_time", "duration"}
    ) == {
        "task": "transcribe",
        "language": "en",
        "transcript": WORDS,
        "summary": None,
        "sentiment": None,
        "model": "ada/tiny",
        "warnings": [],
    }
    assert answer.duration == pytest.approx(seconds, abs=1e-3)
    assert answer.processing_time > 0
    assert bench.model.prompts == []


def test_progress_runs_forward(bench):
    """Phase by phase, and never back; a segment is told before the per cent that it makes."""
    samples = np.resize(recording_samples(), 70 * SAMPLE_RATE)
    bench.work(wav(samples), summary=True, task="summary")
    phases = [phase for phase, _ in groupby(told.phase for told in bench.progress)]

    assert phases == ["load", "transcribe", "understand"]
    for phase in phases:
        percents = [told.percent for told in bench.progress if told.phase == phase]
        assert percents == sorted(set(percents))
        assert (percents[0], percents[-1]) == (0, 100)
    assert len(bench.segments) > 2
    assert isinstance(bench.reported[-1], Progress)
    first = next(n for n, told in enumerate(bench.reported) if isinstance(told, SpokenSegment))
    assert bench.reported[first - 1] == Progress("transcribe", 0.0)


@pytest.mark.parametrize(
    ("asked", "tokens"), [(None, 512), (600, 600), (16, 32 + 8 * 29), (8192, 8192)]
)
def test_a_piece_may_be_as_long_as_it_needs(bench, asked, tokens):
    """What a client asks for can make it longer, and never shorter than speech is."""
    samples = np.resize(recording_samples(), 200 * SAMPLE_RATE)
    bench.work(wav(samples), max_new_tokens=asked)

    assert bench.model.tokens_max == [pytest.approx(tokens, abs=8 if asked == 16 else 0)]


def test_a_text_that_was_cut_off_is_told(tmp_path):
    """The words that are there are kept."""
    make_voxtral(tmp_path, heard=(" la",), endless=True)
    bench = bench_of(Listening(OnTransformers(tmp_path, device="cpu")), max_new_tokens=300)
    answer = bench.work(RECORDING)

    assert answer.transcript == " ".join(["la"] * 300)
    assert [told.model_dump() for told in answer.warnings] == [
        {
            "code": "text_cut",
            "message": "the text of 1 of 1 passages was cut off; a larger max_new_tokens"
            " allows more",
        }
    ]


def test_nothing_of_it_is_in_the_log(bench, caplog):
    """What people say is none of the operator's business."""
    caplog.set_level(logging.DEBUG)
    bench.work(RECORDING, summary=True, sentiment=True)
    bench.work(silence(2), summary=True)

    assert "bonjour" not in caplog.text
    assert "joie" not in caplog.text


# Speakers


def turns_of(answer: Answer) -> list[tuple[str | None, float, float]]:
    """Who speaks from when to when; pieces of one speaker in a row are one turn."""
    groups = [list(told) for _, told in groupby(answer.segments, lambda segment: segment.speaker)]
    return [(group[0].speaker, group[0].start, group[-1].end) for group in groups]


def assert_told_apart(answer: Answer, conversation: Conversation) -> None:
    """Each turn is there, in order, at its time, and each voice has one name."""
    told = turns_of(answer)
    assert len(told) == len(conversation.turns)
    names = {who: speaker for (speaker, *_), who in zip(told, whos(conversation), strict=True)}
    assert [names[who] for who in whos(conversation)] == [speaker for speaker, *_ in told]
    assert len(set(names.values())) == len(names)
    assert [start for _, start, _ in told] == pytest.approx(
        [turn.start for turn in conversation.turns], abs=OFF_SECONDS_MAX
    )
    assert [end for *_, end in told] == pytest.approx(
        [turn.end for turn in conversation.turns], abs=OFF_SECONDS_MAX
    )
    assert all(one.end <= other.start for one, other in pairwise(answer.segments))


def whos(conversation: Conversation) -> list[str]:
    return [turn.who for turn in conversation.turns]


def test_two_voices_take_turns(bench):
    """Each turn has its speaker, its time and its words, and no other."""
    conversation = converse_in_sentences()
    answer = bench.work(conversation.to_wav(), task="transcribe_diarized", speakers=SPEAKERS)

    assert_told_apart(answer, conversation)
    assert {segment.text for segment in answer.segments} == {WORDS}
    assert answer.transcript.split("\n") == [
        f"SPEAKER_{number % 2:02d}: {WORDS}" for number in range(len(conversation.turns))
    ]
    assert answer.segments == bench.segments
    phases = [phase for phase, _ in groupby(told.phase for told in bench.progress)]
    assert phases == ["load", "diarize", "transcribe"]


def test_three_voices_take_turns(bench):
    """As many as there are."""
    conversation = converse_in_digits(THREE, turns=6, digits_each=8)
    answer = bench.work(conversation.to_wav(), task="transcribe_diarized", speakers=SPEAKERS)

    assert_told_apart(answer, conversation)
    assert {segment.speaker for segment in answer.segments} == {
        "SPEAKER_00",
        "SPEAKER_01",
        "SPEAKER_02",
    }


def test_fewer_voices_than_asked_for_are_told(bench):
    """The words are there all the same."""
    alone = converse_in_sentences(sentences=["I am alone here, and nobody answers."])
    answer = bench.work(
        alone.to_wav(), task="transcribe_diarized", speakers=SpeakerTuning(count=40)
    )

    assert caveats(answer) == ["speaker_count_not_met"]
    assert [segment.speaker for segment in answer.segments] == ["SPEAKER_00"]


def test_words_do_not_need_speakers(loaded, tmp_path):
    """Where nobody can tell them apart, their names are null, and a warning says why."""
    bench = bench_of(Listening(loaded), diar_model=str(tmp_path / "gone"))
    answer = bench.work(RECORDING, task="transcribe_diarized", speakers=SPEAKERS)

    assert [(segment.speaker, segment.text) for segment in answer.segments] == [(None, WORDS)]
    assert answer.transcript == WORDS
    assert caveats(answer) == ["speakers_unavailable"]
    assert "DIAR_MODEL" in answer.warnings[0].message


def test_a_recording_may_be_too_long_for_speakers(loaded, diarizer):
    """It is transcribed without."""
    bench = bench_of(Listening(loaded), diar_model=str(diarizer), diar_max_seconds=1)
    answer = bench.work(RECORDING, task="transcribe_diarized", speakers=SPEAKERS)

    assert (answer.transcript, caveats(answer)) == (WORDS, ["speakers_unavailable"])
    assert "DIAR_MAX_SECONDS" in answer.warnings[0].message


def test_a_pipeline_that_fails_does_not_cost_the_words(bench, monkeypatch):
    """Whatever it raises."""
    bench.work(RECORDING, task="transcribe_diarized", speakers=SPEAKERS)

    def fail(*_arguments, **_options):
        raise IndexError("list index out of range")

    monkeypatch.setattr(bench.engine._diarizer, "diarize", fail)
    answer = bench.work(RECORDING, task="transcribe_diarized", speakers=SPEAKERS)

    assert (answer.transcript, caveats(answer)) == (WORDS, ["speakers_failed"])


# A summary, and an opinion


def test_an_opinion_is_read_from_what_the_model_writes(bench):
    """End to end, by a model that writes JSON; the summary is what it writes, too."""
    answer = bench.work(RECORDING, summary=True, sentiment=True, language="fr", max_new_tokens=400)

    assert (answer.summary, answer.sentiment) == (ANSWER, OPINION)
    assert answer.warnings == []
    assert [WORDS in prompt for prompt in bench.model.prompts] == [True, True]
    assert bench.model.tokens_max == [400, 400, 400]


def test_what_is_no_opinion_is_null(tmp_path):
    """A model that writes no JSON gives none, and none is invented."""
    make_voxtral(tmp_path, heard=(" la",), answered=(" tout", " va", " bien"))
    bench = bench_of(Listening(OnTransformers(tmp_path, device="cpu")))
    answer = bench.work(RECORDING, summary=True, sentiment=True)

    assert (answer.summary, answer.sentiment) == ("tout va bien", None)
    assert caveats(answer) == ["sentiment_unavailable"]
    assert len(bench.model.prompts) == 3


# Nobody speaks


@pytest.mark.parametrize(
    "wanted", [{}, {"task": "transcribe_diarized", "speakers": SPEAKERS}], ids=["words", "speakers"]
)
def test_a_model_is_not_asked_about_silence(bench, wanted):
    """It would invent something."""
    answer = bench.work(silence(3), summary=True, sentiment=True, **wanted)

    assert (answer.segments, answer.transcript) == ([], "")
    assert (answer.summary, answer.sentiment) == (None, None)
    assert caveats(answer) == ["no_speech"]
    assert bench.model.pieces == bench.model.prompts == []


def test_a_model_is_not_asked_about_no_words(tmp_path):
    """Somebody speaks, and the model writes nothing: there is nothing to sum up."""
    make_voxtral(tmp_path, answered=(" un", " résumé"))
    bench = bench_of(Listening(OnTransformers(tmp_path, device="cpu")))
    answer = bench.work(RECORDING, summary=True, sentiment=True)

    assert (answer.segments, answer.transcript, answer.summary) == ([], "", None)
    assert caveats(answer) == ["no_words"]
    assert bench.model.prompts == []


# Refusals


def test_no_samples_are_refused(bench):
    """A header alone is no recording."""
    header = io.BytesIO()
    with wave.open(header, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE)
    error = refused(bench, header.getvalue())

    assert isinstance(error, InvalidRequest)
    assert (error.code, error.param) == ("invalid_audio", "file")


def test_what_is_too_long_is_refused_before_any_work(loaded):
    """Under the name that the operator knows; the model is not even loaded."""

    def fail(_check):
        raise AssertionError("nothing is to be loaded for it")

    bench = bench_of(Listening(loaded), fail, max_audio_seconds=60)
    for recording in (
        wav(np.resize(recording_samples(), 61 * SAMPLE_RATE)),
        # Of this, the header does not tell.
        encode(np.resize(recording_samples(), 61 * SAMPLE_RATE), "adts", "aac"),
    ):
        error = refused(bench, recording, summary=True)

        assert error.message == "file: is longer than the 60 s that are allowed (MAX_DURATION_S)"
        assert (error.status, error.code) == (400, "audio_too_long")
    assert bench.reported == []


def test_a_transcript_names_whoever_speaks_next():
    """Once for all that is said without a break; or nobody, where nobody is known."""

    def said(speaker: str | None, text: str) -> SpokenSegment:
        return SpokenSegment(speaker=speaker, start=0, end=1, text=text)

    assert transcript_of([]) == ""
    assert transcript_of([said(None, "a"), said(None, "b")]) == "a b"
    assert transcript_of([said("A", "a"), said("A", "b"), said("B", "c"), said("A", "d")]) == (
        "A: a b\nB: c\nA: d"
    )
