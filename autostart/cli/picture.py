"""What commands show on a terminal: the table's words, with colours, cut to fit.

Pure: answers of the admin API and the size of the terminal in, rich's text out. Colours only repeat
what a word says.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from rich.text import Text

from autostart.cli.table import (
    COLUMNS,
    GAP,
    NOTE_INDENT,
    NUMBERS,
    Answer,
    notes_of,
    row_of,
    short_duration,
)

NOTHING_DECLARED = "no service is declared"
# Left out, first to last, where a terminal is too narrow for all.
SPARED = ("ATTEMPT", "WAITING", "LEASES", "SINCE", "IDLE IN")
HOST_CHARACTERS_MIN = 8
BAR_CHARACTERS = 20
# Above what moves: a line, and an empty one.
HEAD_LINES = 2
FRAMES = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
ASCII_FRAMES = "|/-\\"
FRAMES_PER_SECOND = 10

# By state; in the order in which they are counted.
STYLES = {
    "failed": "bold red",
    "ready": "green",
    "starting": "yellow",
    "stopping": "yellow",
    "stopped": "dim",
}
# The phases whose duration is learned: those of a run of ours, from its start until it is ready.
_LEARNED = frozenset({"starting", "loading"})
_HEADING = "bold"
_FAINT = "dim"
_SPARED_NOTE = "device:"
_BEGINNINGS = {"last failure:": "red", "closed:": "magenta", "kept until": "cyan"}


@dataclass(frozen=True)
class Size:
    """Of a terminal, in characters; `lines` None where it may scroll."""

    columns: int
    lines: int | None = None


def picture(services: Sequence[Answer], size: Size) -> Text:
    """Return the services, one line each and notes beneath; what does not fit is counted."""
    if not services:
        return Text(NOTHING_DECLARED)
    columns, widths = _layout(services, size.columns)
    room = None if size.lines is None else max(1, size.lines - 1)
    blocks = [_block(service, columns, widths, is_brief=False) for service in services]
    if room is not None and sum(map(len, blocks)) > room:
        blocks = [_block(service, columns, widths, is_brief=True) for service in services]
    lines = [_heading(columns, widths), *_fitting(services, blocks, room)]
    for line in lines:
        line.truncate(size.columns, overflow="ellipsis")
    return Text("\n").join(lines)


def scene(services: Sequence[Answer], size: Size, *, lost: str | None, date: str) -> Text:
    """Return the picture beneath a head; `lost` says why it is that of earlier."""
    if lost is None:
        head = Text.assemble(summary(services), ("   " + date, "dim"))
    else:
        head = Text(f"{lost}; this is from before", "bold red")
    head.truncate(size.columns, overflow="ellipsis")
    lines = None if size.lines is None else size.lines - HEAD_LINES
    shown = picture(services, Size(size.columns, lines))
    if lost is not None:
        shown = Text(shown.plain, "dim")
    return Text.assemble(head, "\n\n", shown)


def summary(services: Sequence[Answer]) -> Text:
    """Return how many services there are, and how many of them in each state."""
    counts = Counter(service["state"] for service in services)
    parts = [Text(f"{counts[state]} {state}", style) for state, style in STYLES.items()]
    told = [part for part, state in zip(parts, STYLES, strict=True) if counts[state]]
    count = f"{len(services)} service{'' if len(services) == 1 else 's'}"
    return Text.assemble(count, ": " if told else "", Text(", ").join(told))


def bar(fraction: float, *, is_ascii: bool = False, characters: int = BAR_CHARACTERS) -> Text:
    """Return a bar that is filled so far; more than all is all."""
    done = min(characters, int(characters * fraction))
    full, empty = ("#", "-") if is_ascii else ("━", "─")
    return Text.assemble((full * done, "green"), (empty * (characters - done), _FAINT))


def usual_start(service: Answer, *, is_ascii: bool = False) -> Text | None:
    """Return how far a start has come against what it usually takes, None if that says nothing."""
    usual_seconds = service["usual_start_seconds"]
    if service["phase"] not in _LEARNED or not usual_seconds:
        return None
    took = service["since_seconds"]
    text = f" {short_duration(took)} of usually {short_duration(max(1.0, usual_seconds))}"
    return Text.assemble(bar(took / usual_seconds, is_ascii=is_ascii), text)


def progress_line(service: Answer, elapsed_seconds: float, *, is_ascii: bool = False) -> Text:
    """Return what is going on with a service, in one line of any length."""
    frames = ASCII_FRAMES if is_ascii else FRAMES
    frame = frames[int(elapsed_seconds * FRAMES_PER_SECOND) % len(frames)]
    preparation = service["preparation"]
    is_preparing = preparation is not None and preparation["running"]
    phase = "preparing" if is_preparing else service["phase"] or service["state"]
    took = usual_start(service, is_ascii=is_ascii) or Text(short_duration(elapsed_seconds))
    text = Text.assemble((frame, "green"), f" {service['host']}  ", (phase, "yellow"), "  ", took)
    if in_use := len(service["leases"]):
        text.append(f"  used by {in_use} request{'' if in_use == 1 else 's'}")
    if service["progress"]:
        text.append(f"  {' '.join(service['progress'].split())}", "dim")
    text.no_wrap, text.overflow = True, "ellipsis"
    return text


def _layout(services: Sequence[Answer], width: int) -> tuple[list[str], dict[str, int]]:
    """Return the columns that fit, each with its width; hosts are cut last."""
    rows = [dict(zip(COLUMNS, row, strict=True)) for row in (COLUMNS, *map(row_of, services))]
    widths = {name: max(len(row[name]) for row in rows) for name in COLUMNS}
    columns = list(COLUMNS)

    def missing() -> int:
        return sum(widths[name] for name in columns) + len(GAP) * (len(columns) - 1) - width

    for name in SPARED:
        if missing() > 0:
            columns.remove(name)
    if missing() > 0:
        widths["HOST"] = max(HOST_CHARACTERS_MIN, widths["HOST"] - missing())
    return columns, widths


def _heading(columns: Sequence[str], widths: dict[str, int]) -> Text:
    return Text(GAP.join(_cell(name, name, widths) for name in columns).rstrip(), _HEADING)


def _block(
    service: Answer, columns: Sequence[str], widths: dict[str, int], *, is_brief: bool
) -> list[Text]:
    """Return a service's line and its notes; in brief without what seldom changes."""
    cells = dict(zip(COLUMNS, row_of(service), strict=True))
    parts = []
    for name in columns:
        cell = Text(_cell(cells[name], name, widths))
        if name == "STATE":
            cell.stylize(STYLES.get(service["state"], ""))
        elif name in NUMBERS and cells[name] in {"0", "-"}:
            cell.stylize(_FAINT)
        parts.append(cell)
    notes = [
        _note(note)
        for note in notes_of(service)
        if not (is_brief and note.startswith(_SPARED_NOTE))
    ]
    if took := usual_start(service):
        notes.insert(0, Text.assemble(NOTE_INDENT, took))
    return [Text(GAP).join(parts), *notes]


def _note(note: str) -> Text:
    note = " ".join(note.split())
    for beginning, style in _BEGINNINGS.items():
        if note.startswith(beginning):
            return Text.assemble(NOTE_INDENT, (beginning, style), note[len(beginning) :])
    return Text(NOTE_INDENT + note, _FAINT)


def _cell(text: str, name: str, widths: dict[str, int]) -> str:
    width = widths[name]
    if len(text) > width:
        text = text[: width - 1] + "…"
    return text.rjust(width) if name in NUMBERS else text.ljust(width)


def _fitting(
    services: Sequence[Answer], blocks: Sequence[list[Text]], room: int | None
) -> list[Text]:
    """Return what there is room for: those that are stopped give way first, and are counted."""
    if room is None or sum(map(len, blocks)) <= room:
        return [line for block in blocks for line in block]
    order = sorted(
        range(len(blocks)), key=lambda index: (services[index]["state"] == "stopped", index)
    )
    shown: set[int] = set()
    left = room - 1  # the last line counts the rest
    for index in order:
        if len(blocks[index]) > left:
            break
        left -= len(blocks[index])
        shown.add(index)
    rest = [service for index, service in enumerate(services) if index not in shown]
    kept = [line for index, block in enumerate(blocks) if index in shown for line in block]
    return [*kept, Text.assemble("and ", summary(rest), style=_FAINT)]
