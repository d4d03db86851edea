"""The spellings in which clients send form fields, and what they ask for that cannot be had.

A list arrives as `name[]` repeated, as `name` repeated, as `name[0]`, as a JSON list or as "a,b";
an object as `name[key]` or as JSON. An empty optional field is one that was left out.
"""

import json
from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple

from pydantic import ValidationError

from services.transcription.errors import InvalidRequest

Value = str | list[str] | dict[str, str]

SHOWN_CHARACTERS_MAX = 100


class Unsupported(NamedTuple):
    """A field that asks for something that is not here."""

    harmless: frozenset[str]  # values that ask for nothing
    instead: str  # the client's next step


_SPEAKERS = "this service does not tell speakers; services/whisperx does"
_SAMPLING = "leave it out"

# Fields of OpenAI and of similar servers. To ignore them would be to answer another question.
UNSUPPORTED_SAMPLING: dict[str, Unsupported] = {
    "frequency_penalty": Unsupported(frozenset({"0", "0.0"}), _SAMPLING),
    "min_p": Unsupported(frozenset({"0", "0.0"}), _SAMPLING),
    "presence_penalty": Unsupported(frozenset({"0", "0.0"}), _SAMPLING),
    "repetition_penalty": Unsupported(frozenset({"1", "1.0"}), _SAMPLING),
    "seed": Unsupported(frozenset(), _SAMPLING),
    "top_k": Unsupported(frozenset({"0", "-1"}), _SAMPLING),
    "top_p": Unsupported(frozenset({"1", "1.0"}), _SAMPLING),
}
UNSUPPORTED: dict[str, Unsupported] = {
    **UNSUPPORTED_SAMPLING,
    "diarize": Unsupported(frozenset({"false"}), _SPEAKERS),
    "known_speaker_names": Unsupported(frozenset(), _SPEAKERS),
    "known_speaker_references": Unsupported(frozenset(), _SPEAKERS),
    "max_speakers": Unsupported(frozenset(), _SPEAKERS),
    "min_speakers": Unsupported(frozenset(), _SPEAKERS),
    "num_speakers": Unsupported(frozenset(), _SPEAKERS),
}

_TRANSCRIPTIONS = "POST /v1/audio/transcriptions takes it"

# What a translation has not, beyond these.
UNSUPPORTED_IN_TRANSLATIONS: dict[str, Unsupported] = {
    **UNSUPPORTED,
    "include": Unsupported(frozenset(), _TRANSCRIPTIONS),
    "stream": Unsupported(frozenset({"false", "0"}), _TRANSCRIPTIONS),
    "task": Unsupported(frozenset({"translate"}), _TRANSCRIPTIONS),
    "timestamp_granularities": Unsupported(frozenset({"segment"}), _TRANSCRIPTIONS),
}


def collect(
    fields: Iterable[tuple[str, str]],
    *,
    lists: Collection[str],
    objects: Collection[str],
    unsupported: Mapping[str, Unsupported],
) -> dict[str, Value]:
    """Give the fields by name, those in `lists` under `name[]`; of a repeated one the last counts.

    Raises InvalidRequest for one that is not supported.
    """
    values: dict[str, Value] = {}
    for name, value in fields:
        field, _, rest = name.partition("[")
        _refuse_unsupported(field, value, unsupported)
        if not value:
            continue
        if field in lists:
            items = values.setdefault(field + "[]", [])
            assert isinstance(items, list), items
            items.append(value)
        elif field in objects and rest.strip("]"):
            described = values.get(field)
            keys = described if isinstance(described, dict) else {}
            values[field] = {**keys, rest.removesuffix("]"): value}
        else:
            values[field] = value
    return values


def split_list(value: object) -> list[str]:
    """Give the items of a list, however it was sent."""
    items: list[str] = []
    for text in map(str, value if isinstance(value, list) else [value]):
        listed = from_json(text)
        items += [str(item) for item in listed] if isinstance(listed, list) else text.split(",")
    return [item.strip() for item in items if item.strip()]


def read_object(value: object) -> object:
    """Give the object that a field of text describes; what describes none is given back."""
    described = from_json(value) if isinstance(value, str) else value
    return described if isinstance(described, dict) else value


def invalid(field: str, value: object, allowed: str) -> InvalidRequest:
    """Give the refusal of a value, with what is allowed instead."""
    # Of a long text no more is looked at than is shown.
    shown = repr(value[:SHOWN_CHARACTERS_MAX] if isinstance(value, str) else value)
    shown = shown[:SHOWN_CHARACTERS_MAX]
    return InvalidRequest(
        f"{field}: {shown} is not taken; {allowed}", param=field, code="invalid_value"
    )


def refusal_of(error: ValidationError) -> InvalidRequest:
    """Give the first complaint of a form's model in the API's own words."""
    first = error.errors(include_url=False, include_context=False)[0]
    names = [str(part).removesuffix("[]") for part in first["loc"]]
    field = names[0]
    if first["type"] == "missing" and len(names) == 1:
        return InvalidRequest(
            f"{field}: is required", param=field, code="missing_required_parameter"
        )
    told = first["msg"][:1].lower() + first["msg"][1:]
    inner = "".join(f"[{name}]" for name in names[1:])
    return invalid(field, first["input"], f"{inner} {told}".strip())


def _refuse_unsupported(field: str, value: str, unsupported: Mapping[str, Unsupported]) -> None:
    known = unsupported.get(field)
    if known is None or not value or value.lower() in known.harmless:
        return
    raise InvalidRequest(
        f"{field}: {value[:SHOWN_CHARACTERS_MAX]!r} is not supported: {known.instead}",
        param=field,
        code="unsupported_parameter",
    )


def from_json(text: str) -> object:
    """Give what a text describes in JSON; None for what is none."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None
