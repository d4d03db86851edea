"""docs/metrics.md says what /metrics shows, no more and no less."""

from __future__ import annotations

import re
from pathlib import Path

from autostart.telemetry import METRICS

REFERENCE = Path(__file__).resolve().parents[2] / "docs/metrics.md"
ENTRY = re.compile(
    r"^### `(?P<name>\w+)`\n\n(?P<kind>\w+); (?:labels? (?P<labels>.+)|no labels)\n\n"
    r"(?P<meaning>(?:.+\n)+)\n(?:(?:.+\n)+\n)?```promql\n(?P<query>[^`]+)```\n",
    re.MULTILINE,
)


def test_the_reference_has_every_metric_and_no_other() -> None:
    """Name, kind, labels and meaning of each are those of METRICS."""
    text = REFERENCE.read_text(encoding="utf-8")
    written = {
        entry["name"]: (
            entry["kind"],
            tuple(re.findall(r"`(\w+)`", entry["labels"] or "")),
            " ".join(entry["meaning"].split()),
        )
        for entry in ENTRY.finditer(text)
    }

    assert written == {each.name: (each.kind, each.labels, each.meaning) for each in METRICS}
    assert len(written) == text.count("### `")


def test_each_metric_has_a_query_of_its_own() -> None:
    """The example under a metric asks for that metric."""
    text = REFERENCE.read_text(encoding="utf-8")
    strangers = [
        entry["name"] for entry in ENTRY.finditer(text) if entry["name"] not in entry["query"]
    ]

    assert strangers == []
