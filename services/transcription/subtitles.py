"""Writes segments as subtitles: SubRip, WebVTT, Whisper's table of tab-separated values, RTTM.

Both subtitle formats separate cues by empty lines and mark times by an arrow; a text that holds
either would end its cue too early.
"""

import re
from collections.abc import Iterable

from services.transcription.transcript import Segment, Turn

_ESCAPES = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;"})
_ARROW = re.compile("-{2,}>")
# What the parsers of subtitles, Python's among them, may take for a line end or for nothing.
_BREAKS = re.compile(r"[\s\x00-\x1f\x7f\x85\u2028\u2029]+")


def write_srt(segments: Iterable[Segment]) -> str:
    """Give SubRip: numbered cues, the comma as decimal mark."""
    cues = [
        f"{number}\n{_times(segment, ',')}\n{_ARROW.sub('->', spoken_line(segment))}\n"
        for number, segment in enumerate(segments, start=1)
    ]
    return "\n".join(cues)


def write_vtt(segments: Iterable[Segment]) -> str:
    """Give WebVTT (https://www.w3.org/TR/webvtt1/)."""
    cues = [
        f"{_times(segment, '.')}\n{_voice(segment)}{_line(segment).translate(_ESCAPES)}\n"
        for segment in segments
    ]
    return "\n".join(["WEBVTT\n", *cues])


def write_tsv(segments: Iterable[Segment]) -> str:
    """Give openai-whisper's table: start and end in milliseconds, and the text."""
    rows = [
        f"{_milliseconds(item.start_seconds)}\t{_milliseconds(item.end_seconds)}\t{spoken_line(item)}\n"
        for item in segments
    ]
    return "".join(["start\tend\ttext\n", *rows])


def write_rttm(turns: Iterable[Turn]) -> str:
    """Give NIST's Rich Transcription Time Marked file: one line a turn."""
    return "".join(
        f"SPEAKER audio 1 {turn.start_seconds:.3f} {turn.end_seconds - turn.start_seconds:.3f}"
        f" <NA> <NA> {'_'.join(turn.speaker.split())} <NA> <NA>\n"
        for turn in turns
    )


def spoken_line(segment: Segment) -> str:
    """Give the text on one line, the speaker before it if one is known, as whisperX has it."""
    speaker = f"[{_BREAKS.sub(' ', segment.speaker)}]: " if segment.speaker else ""
    return speaker + _line(segment)


def _voice(segment: Segment) -> str:
    # WebVTT has a word for it, which players may show or use as a style.
    if not segment.speaker:
        return ""
    return f"<v {_BREAKS.sub(' ', segment.speaker).translate(_ESCAPES)}>"


def _line(segment: Segment) -> str:
    return _BREAKS.sub(" ", segment.text).strip()


def _times(segment: Segment, decimal_mark: str) -> str:
    start = _time(segment.start_seconds, decimal_mark)
    return f"{start} --> {_time(segment.end_seconds, decimal_mark)}"


def _time(seconds: float, decimal_mark: str) -> str:
    whole, milliseconds = divmod(_milliseconds(seconds), 1000)
    minutes, second = divmod(whole, 60)
    hour, minute = divmod(minutes, 60)
    return f"{hour:02d}:{minute:02d}:{second:02d}{decimal_mark}{milliseconds:03d}"


def _milliseconds(seconds: float) -> int:
    return round(seconds * 1000)
