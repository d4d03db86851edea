"""Who says which word, and when: what services/whisperx is for, on voices whose truth is known."""

import base64
import io
from collections.abc import Sequence
from functools import cache
from itertools import groupby, pairwise
from typing import Any

import numpy as np
import openai
import pytest
import srt
import webvtt
from openai.types.audio import TranscriptionDiarized, TranscriptionStreamEvent
from pyannote.database.util import load_rttm
from pydantic import TypeAdapter

from services.faster_whisper.digits.espeak import Voice
from tests.contract.test_transcription_api import refusal
from tests.services.sounds import (
    FRENCH_RECORDING,
    FRENCH_WORDS,
    RECORDING,
    SAMPLE_RATE,
    WORDS,
    encode,
)
from tests.speech.asking import ask, ask_for_stream, transcribe, without_times_of_work
from tests.speech.voices import PAIRS, THREE, Conversation, converse_in_digits, find_sample

# Measured: words are 0.11 s off at most, turns 0.10 s.
OFF_SECONDS_MAX = 0.2
PHASES = ["load", "transcribe", "align", "diarize"]
ANSWERS = "/v1/audio/transcriptions"
EVENT: TypeAdapter[Any] = TypeAdapter(TranscriptionStreamEvent)


@cache
def meeting() -> Conversation:
    """Two voices, twice each."""
    return converse_in_digits(turns=4)


@cache
def alone(voice: Voice) -> bytes:
    """One voice that says other digits."""
    return converse_in_digits([voice], turns=1, seed=9).to_wav()


@cache
def silence() -> bytes:
    return encode(np.zeros(3 * SAMPLE_RATE, np.int16), "wav", "pcm_s16le")


def data_url(recording: bytes) -> str:
    return "data:audio/wav;base64," + base64.b64encode(recording).decode()


def words_of(body: dict[str, Any]) -> list[dict[str, Any]]:
    return [word for segment in body["segments"] for word in segment["words"]]


def name_speakers(told: Sequence[str], who: Sequence[str]) -> dict[str, str]:
    """Give who each speaker is, once nobody is two, and no two are one."""
    names = dict(zip(told, who, strict=True))
    assert [names[speaker] for speaker in told] == list(who)
    assert len(set(names.values())) == len(names), names
    return names


def assert_near(told: Sequence[float], true: Sequence[float]) -> None:
    assert told == pytest.approx(true, abs=OFF_SECONDS_MAX)


# Two voices that take turns


@pytest.fixture(scope="module", params=PAIRS, ids=lambda pair: pair[0].name)
def conversation(request) -> Conversation:
    """Six turns of two voices that none of the models was trained on.

    The tiny Whisper mishears a digit in a hundred; of these it hears each.
    """
    return converse_in_digits(request.param, turns=6, digits_each=5, seed=3)


@pytest.fixture(scope="module")
def told(server, conversation) -> dict[str, Any]:
    """What the service makes of it."""
    return transcribe(server, conversation.to_wav(), diarize="true", words="true")


def test_every_word_has_its_times(told, conversation):
    """The digits that were said, each where it was said."""
    words, true = words_of(told), conversation.words

    assert [word["word"] for word in words] == [word.text for word in true]
    assert_near([word["start"] for word in words], [word.start for word in true])
    assert_near([word["end"] for word in words], [word.end for word in true])


def test_every_word_has_its_speaker(told, conversation):
    """Each voice has a name of its own, on all that it says, and on nothing else."""
    who = [turn.who for turn in conversation.turns for _ in turn.words]

    assert name_speakers([word["speaker"] for word in words_of(told)], who) == {
        "SPEAKER_00": "A",
        "SPEAKER_01": "B",
    }


def test_a_segment_is_what_one_person_says(told, conversation):
    """Each turn is a segment: cut where the speaker changes, with the turn's words and times."""
    segments, turns = told["segments"], conversation.turns

    assert [segment["text"] for segment in segments] == [turn.text for turn in turns]
    assert [segment["id"] for segment in segments] == list(range(len(turns)))
    name_speakers([segment["speaker"] for segment in segments], [turn.who for turn in turns])
    assert_near([segment["start"] for segment in segments], [turn.start for turn in turns])
    assert_near([segment["end"] for segment in segments], [turn.end for turn in turns])


def test_turns_are_told_beside_the_words(told, conversation):
    """`speakers` tells who speaks when, whatever was said."""
    speakers, turns = told["speakers"], conversation.turns

    name_speakers([turn["speaker"] for turn in speakers], [turn.who for turn in turns])
    assert_near([turn["start"] for turn in speakers], [turn.start for turn in turns])
    assert_near([turn["end"] for turn in speakers], [turn.end for turn in turns])


def test_the_transcript_is_all_that_was_said(told, conversation):
    """In one line, in the order of the recording; nothing is missing, and nobody is warned."""
    assert told["transcript"] == " ".join(turn.text for turn in conversation.turns)
    assert told["duration"] == pytest.approx(conversation.seconds, abs=0.001)
    assert told["warnings"] == []


# How many voices


def test_three_voices_are_three_speakers(server):
    """All that a voice says is one speaker's, and no two voices are one speaker."""
    conversation = converse_in_digits(THREE, turns=6, digits_each=8)
    told = transcribe(server, conversation.to_wav(), diarize="true")["speakers"]

    names = name_speakers(
        [turn["speaker"] for turn in told], [turn.who for turn in conversation.turns]
    )
    assert names == {"SPEAKER_00": "A", "SPEAKER_01": "B", "SPEAKER_02": "C"}
    assert_near([turn["start"] for turn in told], [turn.start for turn in conversation.turns])


@pytest.mark.parametrize(
    ("fields", "count"),
    [
        ({}, 2),
        ({"num_speakers": "1"}, 1),
        ({"num_speakers": "3"}, 3),
        ({"max_speakers": "1"}, 1),
        ({"min_speakers": "3"}, 3),
        ({"min_speakers": "1", "max_speakers": "4"}, 2),
    ],
    ids=str,
)
def test_the_number_of_speakers_is_the_clients(server, fields, count):
    """Who knows how many there are is believed; the number alone asks for speakers."""
    asked = fields or {"diarize": "true"}
    told = transcribe(server, meeting().to_wav(), **asked)

    assert len({turn["speaker"] for turn in told["speakers"]}) == count
    assert told["warnings"] == []


@pytest.mark.parametrize("fields", [{"num_speakers": "50"}, {"min_speakers": "50"}], ids=str)
def test_more_speakers_than_voices_is_warned_of(server, fields):
    """The words and some speakers come all the same."""
    response = ask(server, meeting().to_wav(), **fields)
    told = response.json()

    assert told["transcript"] == " ".join(turn.text for turn in meeting().turns)
    assert all(segment["speaker"] for segment in told["segments"])
    assert [warned["code"] for warned in told["warnings"]] == ["speaker_count_not_met"]
    assert response.headers["transcription-warnings"] == "speaker_count_not_met"


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"num_speakers": "0"}, "num_speakers"),
        ({"num_speakers": "51"}, "num_speakers"),
        ({"num_speakers": "two"}, "num_speakers"),
        ({"min_speakers": "3", "max_speakers": "2"}, "min_speakers"),
        ({"num_speakers": "3", "max_speakers": "2"}, "num_speakers"),
        ({"diarize": "perhaps"}, "diarize"),
        ({"enable_diarization": "perhaps"}, "enable_diarization"),
        ({"response_format": "rttm", "diarize": "false"}, "diarize"),
        ({"temperature": "0.2"}, "temperature"),
        ({"vad_filter": "false"}, "vad_filter"),
        ({"include[]": "logprobs"}, "include"),
    ],
    ids=str,
)
@pytest.mark.parametrize("path", ["/transcribe", ANSWERS])
def test_what_cannot_be_had_is_refused(server, path, fields, param):
    """By name, and before any work."""
    response = ask(server, RECORDING, path, **{"model": "base"} | fields)

    assert response.status_code == 400
    assert refusal(response)["param"] == param


# Voices that the client knows


def known(**people: Voice) -> dict[str, list[str]]:
    """The fields that tell the service whose voices these are."""
    return {
        "known_speaker_names[]": list(people),
        "known_speaker_references[]": [data_url(alone(voice)) for voice in people.values()],
    }


@pytest.mark.parametrize(
    ("people", "speakers"),
    [
        ({"Ada": PAIRS[0][0], "Grace": PAIRS[0][1]}, ["Ada", "Grace"]),
        ({"Grace": PAIRS[0][1], "Ada": PAIRS[0][0]}, ["Ada", "Grace"]),
        ({"Grace": PAIRS[0][1]}, ["SPEAKER_00", "Grace"]),
        ({"Absent": THREE[1]}, ["SPEAKER_00", "SPEAKER_01"]),
    ],
    ids="+".join,
)
def test_a_known_voice_has_its_name(server, people, speakers):
    """Its words and its turns; whom nobody knows keeps a number."""
    told = transcribe(server, meeting().to_wav(), words="true", **known(**people))

    assert [segment["speaker"] for segment in told["segments"]] == speakers * 2
    assert [turn["speaker"] for turn in told["speakers"]] == speakers * 2
    assert {word["speaker"] for word in words_of(told)} == set(speakers)


def test_openai_client_tells_known_voices(server):
    """Its own parameters, and its own class for the answer; the others are letters."""
    with openai.OpenAI(base_url=server.url + "/v1", api_key="unused") as client:
        answer = client.audio.transcriptions.create(
            file=("meeting.wav", meeting().to_wav()),
            model="gpt-4o-transcribe-diarize",
            response_format="diarized_json",
            chunking_strategy="auto",
            extra_body=known(Ada=PAIRS[0][0]),
        )

    assert isinstance(answer, TranscriptionDiarized)
    assert [segment.speaker for segment in answer.segments] == ["Ada", "A", "Ada", "A"]
    assert [segment.text for segment in answer.segments] == [turn.text for turn in meeting().turns]


def test_a_known_a_is_nobody_else(server):
    """The letter of a name is not given to another voice."""
    fields = {"model": "base", "response_format": "diarized_json"} | known(A=PAIRS[0][1])
    told = ask(server, meeting().to_wav(), ANSWERS, **fields).json()

    assert [segment["speaker"] for segment in told["segments"]] == ["B", "A", "B", "A"]


def test_a_reference_without_a_voice_is_warned_of(server):
    """The others are told apart all the same."""
    fields = known(Ada=PAIRS[0][0])
    fields["known_speaker_names[]"].append("Nobody")
    fields["known_speaker_references[]"].append(data_url(silence()))
    told = transcribe(server, meeting().to_wav(), **fields)

    assert [segment["speaker"] for segment in told["segments"]] == ["Ada", "SPEAKER_01"] * 2
    assert [warned["code"] for warned in told["warnings"]] == ["no_voice"]
    assert "known speaker 2" in told["warnings"][0]["message"]


@pytest.mark.parametrize(
    ("names", "references", "problem"),
    [
        (["Ada"], [], "there are 0 known_speaker_references[]"),
        ([], ["voice"], "there are 1 known_speaker_references[]"),
        (["Ada", "Ada"], ["voice", "voice"], "each name once"),
        (["SPEAKER_00"], ["voice"], "those without a name are called so"),
        (["A" * 101], ["voice"], "at most 100 characters"),
        (list("ABCDE"), ["voice"] * 5, "at most 4"),
        (["Ada"], ["https://example.com/ada.wav"], "use data:audio/wav;base64,"),
        (["Ada"], ["data:audio/wav;base64,@@@"], "its base64 is damaged"),
        (["Ada"], ["data:audio/wav;base64,bm9pc2U="], "that of 'Ada' cannot be decoded as audio"),
        (["Ada"], ["short"], "that of 'Ada' is shorter than 1 s"),
        (["Ada"], ["long"], "that of 'Ada' is longer than the 30 s that are allowed"),
    ],
)
def test_a_known_voice_that_cannot_be_used_is_refused(server, names, references, problem):
    """Before any work, with the reason, and the name where there are several."""
    recordings = {
        "voice": alone(PAIRS[0][0]),
        "short": encode(np.zeros(SAMPLE_RATE // 2, np.int16), "wav", "pcm_s16le"),
        "long": encode(np.zeros(31 * SAMPLE_RATE, np.int16), "wav", "pcm_s16le"),
    }
    sent = [data_url(recordings[each]) if each in recordings else each for each in references]
    response = ask(
        server,
        RECORDING,
        **{"known_speaker_names[]": names, "known_speaker_references[]": sent},
    )

    assert response.status_code == 400
    error = refusal(response)
    assert problem in error["message"]
    assert error["param"] in ("known_speaker_names", "known_speaker_references")


# People


def test_a_recording_of_people_goes_through(server):
    """The tiny model hears nonsense in it; yet every word has times, in order, and a speaker."""
    sample = find_sample()
    told = transcribe(server, sample.path.read_bytes(), language="en", diarize="true", words="true")
    words, times = words_of(told), [turn["start"] for turn in told["speakers"]]

    assert told["duration"] == pytest.approx(30.0, abs=0.1)
    assert len({turn["speaker"] for turn in told["speakers"]}) >= 2
    assert all(0 <= turn["start"] < turn["end"] <= told["duration"] for turn in told["speakers"])
    assert times == sorted(times)
    assert len(words) == len(told["transcript"].split()) > 10
    assert all(0 <= word["start"] <= word["end"] <= told["duration"] for word in words)
    assert all(one["start"] <= other["start"] for one, other in pairwise(words))
    assert {word["speaker"] for word in words} <= {turn["speaker"] for turn in told["speakers"]}
    assert all(segment["speaker"] for segment in told["segments"])


# Formats


def test_srt_is_read_by_its_parser(server):
    """A cue for each turn, with its times, and the speaker before its words."""
    text = ask(server, meeting().to_wav(), response_format="srt", diarize="true").text
    cues = list(srt.parse(text))

    speakers = ["SPEAKER_00", "SPEAKER_01"] * 2
    assert [cue.content for cue in cues] == [
        f"[{speaker}]: {turn.text}" for speaker, turn in zip(speakers, meeting().turns, strict=True)
    ]
    assert_near([cue.start.total_seconds() for cue in cues], [t.start for t in meeting().turns])
    assert_near([cue.end.total_seconds() for cue in cues], [t.end for t in meeting().turns])


def test_vtt_is_read_by_its_parser(server):
    """A cue for each turn, the speaker as WebVTT's own voice."""
    response = ask(server, meeting().to_wav(), response_format="vtt", diarize="true")
    cues = list(webvtt.from_buffer(io.StringIO(response.text)))

    assert response.headers["content-type"] == "text/vtt; charset=utf-8"
    assert [cue.voice for cue in cues] == ["SPEAKER_00", "SPEAKER_01"] * 2
    assert [cue.text for cue in cues] == [turn.text for turn in meeting().turns]
    assert_near([cue_seconds(cue.start) for cue in cues], [t.start for t in meeting().turns])
    assert_near([cue_seconds(cue.end) for cue in cues], [t.end for t in meeting().turns])


def cue_seconds(time: str) -> float:
    hours, minutes, seconds = time.split(":")
    return int(hours) * 3600 + int(minutes) * 60 + float(seconds)


def test_tsv_is_a_table(server):
    """Milliseconds, and the line with its speaker."""
    response = ask(server, meeting().to_wav(), response_format="tsv", diarize="true")
    head, *rows = [line.split("\t") for line in response.text.splitlines()]

    assert head == ["start", "end", "text"]
    assert [row[2].partition("]: ")[2] for row in rows] == [t.text for t in meeting().turns]
    assert_near([int(row[0]) / 1000 for row in rows], [t.start for t in meeting().turns])


def test_text_is_a_line_for_each_turn(server):
    """With speakers; without them it is one line."""
    with_speakers = ask(server, meeting().to_wav(), response_format="text", diarize="true").text
    without = ask(server, meeting().to_wav(), response_format="text").text

    lines = with_speakers.splitlines()
    assert [line.partition("]: ")[2] for line in lines] == [t.text for t in meeting().turns]
    assert without == " ".join(turn.text for turn in meeting().turns) + "\n"


@pytest.mark.parametrize("path", ["/transcribe", ANSWERS, "/v1/audio/diarization"])
def test_rttm_is_read_by_pyannote(server, path, tmp_path):
    """pyannote.database reads the truth from it: who speaks when, and for how long."""
    model = {} if path.endswith("diarization") else {"model": "base"}
    response = ask(server, meeting().to_wav(), path, response_format="rttm", **model)
    file = tmp_path / "told.rttm"
    file.write_text(response.text)
    (annotation,) = load_rttm(file).values()
    turns = [(turn, who) for turn, _, who in annotation.itertracks(yield_label=True)]

    assert [who for _, who in turns] == ["SPEAKER_00", "SPEAKER_01"] * 2
    assert_near([turn.start for turn, _ in turns], [turn.start for turn in meeting().turns])
    assert_near([turn.end for turn, _ in turns], [turn.end for turn in meeting().turns])


def test_diarization_alone_is_the_same_turns(server):
    """speaches' route tells what `speakers` does, without the words."""
    told = ask(server, meeting().to_wav(), "/v1/audio/diarization").json()
    beside = transcribe(server, meeting().to_wav(), diarize="true")["speakers"]

    assert told == {"duration": pytest.approx(meeting().seconds, abs=0.001), "segments": beside}


@pytest.mark.parametrize("path", ["/transcribe", ANSWERS])
def test_verbose_json_has_words_without_speakers(server, path):
    """OpenAI's answer has no place for speakers; its words have the times of the sound."""
    told = ask(
        server,
        RECORDING,
        path,
        model="base",
        response_format="verbose_json",
        **{"timestamp_granularities[]": ["word", "segment"]},
    ).json()

    assert [word["word"] for word in told["words"]] == WORDS.split()
    assert "".join(segment["text"] for segment in told["segments"]).strip() == WORDS
    assert all(set(word) == {"word", "start", "end"} for word in told["words"])
    assert all(one["end"] <= other["start"] for one, other in pairwise(told["words"]))


def test_speakers_come_only_when_asked_for(server):
    """The key is there, for older clients read it unasked; no turn is told, no word is listed."""
    told = transcribe(server, meeting().to_wav())

    assert [segment["speaker"] for segment in told["segments"]] == [None]
    assert told["speakers"] == []
    assert "words" not in told["segments"][0]
    assert told["transcript"] == " ".join(turn.text for turn in meeting().turns)


# What cannot be aligned


def test_without_alignment_times_are_those_of_the_window(server):
    """Asked for, it is no reason for a warning; nobody knows when a word is said."""
    told = transcribe(server, RECORDING, align="false", words="true")
    (segment,) = told["segments"]

    assert (segment["text"], segment["words"]) == (WORDS, [])
    assert 0 <= segment["start"] < segment["end"] <= told["duration"]
    assert told["warnings"] == []


@pytest.mark.parametrize(
    ("fields", "text", "language", "code"),
    [
        ({}, FRENCH_WORDS, "fr", "no_aligner"),
        ({"language": "french"}, FRENCH_WORDS, "fr", "no_aligner"),
        ({"task": "translate"}, WORDS, "fr", "not_aligned"),
    ],
    ids=str,
)
def test_what_has_no_aligner_comes_as_heard(server, fields, text, language, code):
    """With one speaker for all of it, and warnings in body and header: that is no error."""
    response = ask(server, FRENCH_RECORDING, diarize="true", words="true", **fields)
    told = response.json()
    (segment,) = told["segments"]

    assert response.status_code == 200
    assert (told["transcript"], told["language"]) == (text, language)
    assert (segment["text"], segment["speaker"], segment["words"]) == (text, "SPEAKER_00", [])
    assert 0 <= segment["start"] < segment["end"] <= told["duration"]
    assert [warned["code"] for warned in told["warnings"]] == [code, "speakers_by_passage"]
    assert response.headers["transcription-warnings"] == f"{code}, speakers_by_passage"


def test_a_missing_aligner_comes_with_its_command(server):
    """The warning says what the operator must do."""
    (warned,) = transcribe(server, FRENCH_RECORDING)["warnings"]

    assert "python -m services.whisperx.fetch --align fr" in warned["message"]


@pytest.mark.parametrize(
    ("path", "name", "empty"),
    [
        ("/transcribe", "text", "\n"),
        ("/transcribe", "srt", ""),
        ("/transcribe", "vtt", "WEBVTT\n"),
        ("/transcribe", "tsv", "start\tend\ttext\n"),
        ("/transcribe", "rttm", ""),
        ("/v1/audio/diarization", "rttm", ""),
    ],
)
def test_silence_is_an_empty_file(server, path, name, empty):
    """Nobody speaks: that is no error in any format."""
    response = ask(server, silence(), path, response_format=name)

    assert (response.status_code, response.text) == (200, empty)


@pytest.mark.parametrize("diarize", ["true", "false"])
def test_silence_has_no_segments(server, diarize):
    """No words, no speakers, in no language."""
    told = transcribe(server, silence(), diarize=diarize)

    assert (told["transcript"], told["language"]) == ("", "und")
    assert (told["segments"], told["speakers"], told["warnings"]) == ([], [], [])


def test_no_sound_at_all_is_refused(server):
    """A file without a sample is the client's mistake, not a failure of the libraries."""
    nothing = Conversation(np.zeros(0, np.int16), ()).to_wav()
    response = ask(server, nothing, diarize="true")

    assert response.status_code == 400
    assert refusal(response)["code"] == "invalid_audio"


# Streams


def test_a_stream_tells_each_phase_and_how_far_it_is(server):
    """In the order of the work, the per cent rising from 0 to 100."""
    with ask_for_stream(server, meeting().to_wav(), diarize="true") as events:
        *progress, _ = events

    phases = {
        phase: [event["percent"] for event in group]
        for phase, group in groupby(progress, key=lambda event: event["phase"])
    }
    assert {event["type"] for event in progress} == {"progress"}
    assert list(phases) == PHASES
    for percents in phases.values():
        assert (percents[0], percents[-1]) == (0, 100)
        assert percents == sorted(set(percents))


def test_a_stream_ends_with_the_plain_answer(server):
    """The last event is what the same request without a stream is answered."""
    fields = {"diarize": "true", "words": "true"}
    with ask_for_stream(server, meeting().to_wav(), **fields) as events:
        *_, done = events

    assert done["type"] == "done"
    assert without_times_of_work(done) == without_times_of_work(
        transcribe(server, meeting().to_wav(), **fields)
    )


def test_a_stream_that_cannot_begin_is_refused(server):
    """What is no audio has the status of a plain request."""
    response = ask(server, b"noise" * 100, stream="true")

    assert response.status_code == 415
    assert refusal(response)["code"] == "not_audio"


def test_openai_client_reads_a_stream_with_speakers(server):
    """Text as it is heard, then a segment for each turn, then all; the package knows each event."""
    with openai.OpenAI(base_url=server.url + "/v1", api_key="unused") as client:
        events = list(
            client.audio.transcriptions.create(
                file=("meeting.wav", meeting().to_wav()),
                model="base",
                response_format="diarized_json",
                stream=True,
            )
        )

    *_, done = events
    turns = meeting().turns
    spoken = " ".join(turn.text for turn in turns)
    deltas = [event for event in events if event.type == "transcript.text.delta"]
    segments = [event for event in events if event.type == "transcript.text.segment"]
    assert [event.type for event in events] == [
        *["transcript.text.delta"] * len(deltas),
        *["transcript.text.segment"] * len(turns),
        "transcript.text.done",
    ]
    assert spoken == "".join(event.delta for event in deltas) == done.text
    assert [(each.text, each.speaker) for each in segments] == [
        (turn.text, turn.who) for turn in turns
    ]


def test_every_event_is_what_the_package_declares(server):
    """Held strictly against the package's own models, none lacks anything."""
    fields = {"model": "base", "response_format": "diarized_json"}
    with ask_for_stream(server, meeting().to_wav(), ANSWERS, **fields) as events:
        told = list(events)

    assert len(told) > len(meeting().turns)
    for event in told:
        EVENT.validate_python(event, strict=True)
