"""Other people's parsers read our subtitles: every cue, its times and its text."""

import html
import random
import re
from dataclasses import dataclass
from datetime import timedelta
from itertools import pairwise

import httpx
import pytest
import srt
import webvtt

from services.transcription.subtitles import write_srt, write_vtt
from services.transcription.transcript import Segment
from tests.services.sounds import long_recording
from tests.services.speech_server import FASTER_WHISPER, run_server

SEEDS = range(50)
CUES = 20
FRAME = timedelta(milliseconds=20)  # of Whisper's encoder: its times are no finer
RECORDING_SECONDS = 180.0

# What may go wrong in a text, beside words: line ends, marks of either format, other scripts.
PIECES = (
    *(" ", "  ", "\t", "\n", "\r", "\r\n", "\n\n", "\u2028", "\u2029", "\x85", "\x0b", "\x0c"),
    *("\x1c", "\0", "\x1b", "\x7f", "\u00a0", "\ufeff", "\u200f"),
    *("-->", "--->", "->", "--", ">", "<", "<b>", "</b>", "<00:01.000>", "<v Ada>", "{\\an8}"),
    *("&", "&amp;", "&lt;", "&nbsp;", "{", "}", "\\N", "1", "2", "00:00:01,000 --> 00:00:02,000"),
    *("WEBVTT", "NOTE", "STYLE", "REGION", "X-TIMESTAMP-MAP=LOCAL:00:00:00.000"),
    *("three", "été", "שלוש", "ثلاثة", "三", "e\u0301", "👩‍💻", "x" * 5000),
)


@dataclass(frozen=True)
class Cue:
    """What a viewer gets."""

    start: timedelta
    end: timedelta
    text: str


def segment(start_seconds: float, end_seconds: float, text: str) -> Segment:
    return Segment(
        start_seconds=start_seconds,
        end_seconds=end_seconds,
        text=text,
        seek=0,
        tokens=(),
        temperature=0.0,
        avg_logprob=-0.1,
        compression_ratio=1.0,
        no_speech_prob=0.0,
        words=None,
    )


def random_segments(seed: int, *, first_seconds: float = 0.0) -> list[Segment]:
    """Give segments in order, some without a text, some without a pause between them."""
    chance = random.Random(seed)
    made, now = [], first_seconds
    for _ in range(CUES):
        start = now + chance.choice([0.0, chance.random() * 3, chance.random() * 3000])
        now = start + chance.choice([0.001, 0.02, chance.random() * 30 + 0.001])
        text = "".join(chance.choices(PIECES, k=chance.randrange(8)))
        made.append(segment(start, now, text))
    return made


def visible(text: str) -> str:
    """Give a text on one line, without what has no picture."""
    controls = [chr(code) for code in (*range(0x20), 0x7F, 0x85)]
    for control in controls:
        text = text.replace(control, " ")
    return " ".join(text.split())


def cues_of(segments: list[Segment]) -> list[Cue]:
    return [
        Cue(
            timedelta(milliseconds=round(item.start_seconds * 1000)),
            timedelta(milliseconds=round(item.end_seconds * 1000)),
            visible(item.text),
        )
        for item in segments
    ]


def read_srt(written: str) -> list[Cue]:
    """Read SubRip strictly: nothing between the cues, each with its number."""
    read = list(srt.parse(written))
    assert [cue.index for cue in read] == list(range(1, len(read) + 1))
    return [Cue(cue.start, cue.end, cue.content.strip("\n")) for cue in read]


def read_vtt(written: str) -> list[Cue]:
    """Read WebVTT strictly."""
    read = webvtt.from_string(written, strict=True)
    assert (read.styles, read.regions, read.header_comments, read.footer_comments) == ([],) * 4
    # The parser takes tags out, but leaves HTML's entities to those who show the text.
    return [
        Cue(duration(cue.start), duration(cue.end), html.unescape(cue.text))
        for cue in read.captions
    ]


def duration(written: str) -> timedelta:
    hours, minutes, rest = written.split(":")
    return timedelta(hours=int(hours), minutes=int(minutes), seconds=float(rest))


def with_short_arrows(cue: Cue) -> Cue:
    """SubRip has no way to write an arrow; how long ours are is not the point here."""
    return Cue(cue.start, cue.end, re.sub("-+>", "->", cue.text))


BOTH = [
    pytest.param(write_srt, read_srt, id="srt"),
    pytest.param(write_vtt, read_vtt, id="vtt"),
]


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("hours", [0, 99, 1000])
def test_every_srt_cue_comes_back(seed, hours):
    """Whatever was said: the same cues in the same order, times to the millisecond."""
    segments = random_segments(seed, first_seconds=hours * 3600)

    assert [with_short_arrows(cue) for cue in cues_of(segments)] == [
        with_short_arrows(cue) for cue in read_srt(write_srt(segments))
    ]


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("hours", [0, 99, 1000])
def test_every_vtt_cue_comes_back(seed, hours):
    """Whatever was said: the same cues in the same order, with the very text."""
    segments = random_segments(seed, first_seconds=hours * 3600)

    assert cues_of(segments) == read_vtt(write_vtt(segments))


@pytest.mark.parametrize("text", ["a --> b", "a ---> b", "a ----> b", "-->", "-- --> -->>"])
def test_no_srt_text_holds_an_arrow(text):
    """A player that looks for the arrow alone would take the text for times."""
    _, times, line, *_ = write_srt([segment(0, 1, text)]).splitlines()

    assert "-->" in times
    assert "-->" not in line


@pytest.mark.parametrize("text", ["a --> b", "a ---> b", "<b>a</b> & b", "&amp;"])
def test_no_vtt_text_holds_markup(text):
    """What was said is text: no tag, no arrow, and no entity but our own."""
    line = write_vtt([segment(0, 1, text)]).splitlines()[3]

    assert not {"<", ">"} & set(line)
    assert line.count("&") == sum(line.count(entity) for entity in ("&amp;", "&lt;", "&gt;"))


@pytest.mark.parametrize(("write", "read"), BOTH)
def test_nothing_said_is_no_cue(write, read):
    """A recording of silence gives a file that parsers take, without a cue."""
    assert read(write([])) == []


@pytest.mark.parametrize("text", ["", " ", "\n", "\0"])
@pytest.mark.parametrize(("write", "read"), BOTH)
def test_a_cue_without_text_does_not_harm_its_neighbours(write, read, text):
    """The cues before and after it keep their own times and texts."""
    segments = [segment(0, 1, " before"), segment(1, 2, text), segment(2, 3, " after")]
    told = [cue for cue in read(write(segments)) if cue.text]

    assert [cue for cue in cues_of(segments) if cue.text] == told


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """One process for both formats."""
    with run_server(FASTER_WHISPER, tmp_path_factory.mktemp("subtitles")) as running:
        yield running


def hear(server, response_format: str) -> str:
    """Give what the server answers to three minutes of speech."""
    response = httpx.post(
        server.transcriptions,
        files={"file": ("long.wav", long_recording(RECORDING_SECONDS))},
        data={"model": "whisper-1", "response_format": response_format},
        timeout=60,
    )
    assert response.status_code == 200, response.text
    return response.text


@pytest.fixture(scope="module", params=[("srt", read_srt), ("vtt", read_vtt)], ids=["srt", "vtt"])
def answered(request, server) -> list[Cue]:
    """The cues of a real answer."""
    response_format, read = request.param
    return read(hear(server, response_format))


def test_the_servers_subtitles_hold_what_was_said(server, answered):
    """All cues together say what the plain text says."""
    assert hear(server, "text").split() == " ".join(cue.text for cue in answered).split()


def test_the_servers_cues_are_in_order(answered):
    """No cue ends before it begins, or begins before the one before it has ended."""
    assert all(cue.start < cue.end for cue in answered)
    assert all(before.end <= after.start + FRAME for before, after in pairwise(answered))


def test_the_servers_cues_cover_the_recording(answered):
    """Speech goes on to the end, and so do the subtitles, no further."""
    end_seconds = answered[-1].end.total_seconds()

    assert RECORDING_SECONDS - 10 < end_seconds <= RECORDING_SECONDS
