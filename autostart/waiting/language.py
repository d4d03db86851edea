"""Which of our languages a browser prefers, by its Accept-Language (RFC 9110, 12.5.4)."""

from __future__ import annotations

import re
from typing import Literal

Language = Literal["en", "fr"]

LANGUAGES: tuple[Language, ...] = ("en", "fr")

_RANGE = re.compile(r"\s*([a-z]{1,8}|\*)(?:-[a-z0-9-]+)?\s*(?:;\s*q\s*=\s*([0-9.]{1,8})\s*)?")
_QUALITY = re.compile(r"0(\.[0-9]*)?|1(\.0*)?")


def preferred_language(accepted: str) -> Language:
    """Return the language with the highest weight, the first of equals; English if neither.

    What is no language range is passed over, and so is a weight of 0.
    """
    weights: dict[str, float] = {}
    for element in accepted.lower().split(","):
        matched = _RANGE.fullmatch(element)
        if matched is None:
            continue
        name, quality = matched[1], matched[2] or "1"
        if _QUALITY.fullmatch(quality):
            weights[name] = max(weights.get(name, 0.0), float(quality))
    rest = weights.get("*", 0.0)
    # In the order in which the header names them: max keeps the first of equals.
    known = [each for name in weights for each in LANGUAGES if each == name]
    known += [each for each in LANGUAGES if each not in weights]
    best = max(known, key=lambda each: weights.get(each, rest))
    return best if weights.get(best, rest) > 0 else "en"
