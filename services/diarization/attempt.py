"""Tells who speaks where that can be told, and warns where it cannot: it never costs the words."""

from collections.abc import Callable
from typing import TypeVar

from services.diarization.provision import UnavailableError
from services.diarization.settings import DiarizationSettings
from services.transcription.errors import ApiError, work_failed
from services.transcription.job import Job
from services.transcription.worker import Cancelled

R = TypeVar("R")


def attempt(
    job: Job, settings: DiarizationSettings, seconds: float, tell: Callable[[], R]
) -> R | None:
    """Give what `tell` gives about a recording of so many seconds.

    None where it fails, or where the recording is too long for it: then the job has a warning.
    """
    longest = settings.diar_max_seconds
    if seconds > longest:
        told = f"the recording is longer than {longest:g} s (DIAR_MAX_SECONDS)"
        job.warn("speakers_unavailable", f"speakers were not identified: {told}")
        return None
    job.advance("diarize", 0)
    try:
        return tell()
    except (Cancelled, ApiError):
        raise
    except UnavailableError as error:
        job.warn("speakers_unavailable", f"speakers were not identified: {error}")
    except Exception as error:  # noqa: BLE001 -- a library's failure must not cost the words
        job.warn("speakers_failed", f"speakers were not identified: {work_failed(error).message}")
    return None


def warn_of_count(job: Job, *, counted: bool) -> None:
    """Warn where fewer voices were told apart than the client had asked for."""
    if not counted:
        job.warn("speaker_count_not_met", "there are fewer voices than speakers asked for")
