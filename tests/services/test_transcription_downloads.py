"""Who waits for a download, and how long; the command is a real process."""

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from services.transcription import downloads as module
from services.transcription.downloads import Downloads
from services.transcription.errors import FetchFailed


@pytest.fixture
def downloads() -> Iterator[Downloads]:
    running = Downloads()
    yield running
    running.stop()


@pytest.fixture
def command(tmp_path) -> list[str]:
    """A download that takes until somebody writes into its pipe, and keeps how often it began."""
    os.mkfifo(tmp_path / "pipe")
    program = "import sys; open('begun', 'a').write('x'); sys.exit(open('pipe').read() or 0)"
    return [sys.executable, "-c", f"import os; os.chdir({str(tmp_path)!r}); {program}"]


def finish(folder: Path, complaint: str = "") -> None:
    """Let the download end: with a complaint, it has failed."""
    (folder / "pipe").write_text(complaint)


def after(checks: int, act: Callable[[], None]) -> Callable[[], None]:
    """Give what waits for so many checks, and then acts."""
    left = iter([*[None] * checks, act])

    def check() -> None:
        if (then := next(left, None)) is not None:
            then()

    return check


def refusal(downloads: Downloads, command: list[str], **options) -> FetchFailed:
    with pytest.raises(FetchFailed) as caught:
        downloads.fetch("the model", command, check=lambda: None, **options)
    return caught.value


def test_nobody_waits_for_ever_unless_they_want_to(tmp_path, downloads, command, monkeypatch):
    """Whoever has others behind them is sent away; whoever is patient waits for the same."""
    monkeypatch.setattr(module, "WAIT_SECONDS_MAX", 0.0)
    assert refusal(downloads, command).code == "fetching"
    assert refusal(downloads, command).code == "fetching"
    assert downloads.busy
    downloads.fetch("the model", command, check=after(3, lambda: finish(tmp_path)), patient=True)

    assert not downloads.busy
    assert (tmp_path / "begun").read_text() == "x"


def test_the_patient_are_told_of_a_failure(tmp_path, downloads, command, monkeypatch):
    """Of the download that others began; for a while, it is not tried again."""
    monkeypatch.setattr(module, "WAIT_SECONDS_MAX", 0.0)
    refusal(downloads, command)
    with pytest.raises(FetchFailed, match="no such model"):
        downloads.fetch(
            "the model",
            command,
            check=after(3, lambda: finish(tmp_path, "no such model")),
            patient=True,
        )

    assert refusal(downloads, command, patient=True).message == "no such model"
    assert (tmp_path / "begun").read_text() == "x"
