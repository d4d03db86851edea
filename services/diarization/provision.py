"""Whether speakers can be told apart here, why not, and how what is missing comes here."""

import sys
from collections.abc import Callable
from dataclasses import dataclass

from services.diarization.settings import DiarizationSettings
from services.diarization.source import MissingError, Source
from services.transcription.downloads import Downloads
from services.transcription.errors import FetchFailed
from services.transcription.hub import TOKENS_PAGE, is_offline

# Whose repositories are gated, every one of them.
_GATED = "pyannote/"


class UnavailableError(Exception):
    """Speakers cannot be told apart; the message says what the operator must do."""


@dataclass(frozen=True)
class Availability:
    """Whether speakers can be told apart; `reason` says why not, or what comes before it."""

    available: bool
    reason: str | None


class Provision:
    """Finds the pipeline, and downloads it when it is first needed.

    `may_fetch` is the operator's word for all downloads. Belongs to one thread but for
    `status`.
    """

    def __init__(
        self, settings: DiarizationSettings, downloads: Downloads, *, may_fetch: bool
    ) -> None:
        self.source = Source(settings.diar_model)
        self._has_token = bool(settings.token)
        self._may_fetch = may_fetch
        self._downloads = downloads
        self._what = f"the pipeline {self.source.name}"
        self._broken: str | None = None

    def status(self) -> Availability:
        """Look at the disk, and at nothing else; from any thread."""
        try:
            self.source.config()
        except MissingError as error:
            if reason := self._hindrance(error):
                return Availability(False, reason)
            return Availability(True, f"{self.source.model} is downloaded when it is first needed")
        return Availability(self._broken is None, self._broken)

    def make_ready(self, check: Callable[[], None]) -> None:
        """Make sure that all files are here; `check` may raise to give up a download.

        Raises UnavailableError.
        """
        try:
            self.source.config()
        except MissingError as error:
            if reason := self._hindrance(error):
                raise UnavailableError(reason) from None
        else:
            return
        try:
            self._downloads.fetch(self._what, self._command(), check=check)
            self.source.config()
        except (FetchFailed, MissingError) as error:
            raise UnavailableError(str(error)) from None

    def report_failure(self, reason: str | None) -> None:
        """Remember that the pipeline, which is here, could not be loaded; None: it could."""
        self._broken = reason

    def _hindrance(self, missing: MissingError) -> str | None:
        """Give why what is missing cannot be downloaded; None if it can be tried."""
        model = self.source.model
        if self.source.is_folder:
            return f"DIAR_MODEL: {missing}"
        if told := self._downloads.failure(self._what):
            return told
        ahead = f"python -m services.diarization.fetch {model} downloads it ahead"
        if is_offline():
            return f"{missing}, and HF_HUB_OFFLINE is set; {ahead}"
        if not self._may_fetch:
            return f"{missing}; {ahead}"
        if model.startswith(_GATED) and not self._has_token:
            return (
                f"no token: accept the conditions at https://huggingface.co/{model}, make a token"
                f" at {TOKENS_PAGE} and set HF_TOKEN"
            )
        return None

    def _command(self) -> list[str]:
        return [sys.executable, "-m", "services.diarization.fetch", self.source.model]
