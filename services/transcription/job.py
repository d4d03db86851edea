"""One request's way through the phases: how far it is, and what it does without."""

from collections.abc import Callable

from services.transcription.transcript import Phase, Progress, Warned
from services.transcription.worker import Cancellation


class Job:
    """What the phases tell of themselves."""

    def __init__(self, cancellation: Cancellation, report: Callable[[Progress], None]) -> None:
        self.check = cancellation.check
        self.warnings: list[Warned] = []
        self._report = report
        self._told: Progress | None = None

    def advance(self, phase: Phase, percent: float) -> None:
        """Tell a client how far its job is, unless it has gone; each per cent once."""
        self.check()
        progress = Progress(phase, float(int(percent)))
        told = self._told
        # What is begun again does not run backwards.
        if told is None or phase != told.phase or progress.percent > told.percent:
            self._told = progress
            self._report(progress)

    def warn(self, code: str, message: str) -> None:
        """Tell the client what it does not get."""
        self.warnings.append(Warned(code, message))
