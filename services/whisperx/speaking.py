"""Who speaks: the phase that joins the pipeline's turns with the words, and never costs them.

To be imported in the worker's thread, as all that imports torch.
"""

import io
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from services.diarization.attempt import attempt, warn_of_count
from services.diarization.diarizer import Diarization, Diarizer
from services.diarization.settings import DiarizationSettings
from services.diarization.speakers import attribute, name_voices, rename
from services.transcription.audio import SAMPLE_RATE, Recording, decode_audio
from services.transcription.errors import ApiError, InvalidRequest
from services.transcription.job import Job
from services.transcription.request import SpeakerTuning
from services.transcription.transcript import Segment, Turn

Samples = NDArray[np.int16]

_KNOWN_SECONDS = (1.0, 30.0)  # of the recording of a voice that a client knows


class Speaking:
    """Tells who speaks.

    `get` gives the pipeline, downloaded and loaded if it must be, or raises UnavailableError; it is
    given what may raise to give up.
    """

    def __init__(
        self, settings: DiarizationSettings, get: Callable[[Callable[[], None]], Diarizer]
    ) -> None:
        self._settings = settings
        self._get = get

    def tell(
        self,
        job: Job,
        samples: Samples,
        segments: Sequence[Segment],
        tuning: SpeakerTuning,
        known: dict[str, Samples],
    ) -> tuple[tuple[Turn, ...] | None, tuple[Segment, ...]]:
        """Give who speaks when, and the segments with their speakers; None if nobody can tell.

        Whatever fails here, the words are kept.
        """
        told = attempt(
            job,
            self._settings,
            len(samples) / SAMPLE_RATE,
            lambda: self._tell_apart(job, samples, tuning, known),
        )
        if told is None:
            return None, tuple(segments)
        found, names = told
        warn_of_count(job, counted=found.counted)
        if any(segment.words is None for segment in segments):
            job.warn(
                "speakers_by_passage",
                "where words have no times, a whole passage has the speaker of most of it",
            )
        exclusive = rename(found.exclusive, names)
        return rename(found.turns, names), attribute(segments, exclusive)

    def _tell_apart(
        self, job: Job, samples: Samples, tuning: SpeakerTuning, known: dict[str, Samples]
    ) -> tuple[Diarization, dict[str, str]]:
        """Give who speaks when, and the names of those whom the client knows."""
        diarizer = self._get(job.check)
        found = diarizer.diarize(
            samples,
            tuning,
            check=job.check,
            report=lambda percent: job.advance("diarize", percent),
        )
        voices = {}
        for number, (name, recording) in enumerate(known.items(), start=1):
            voice = diarizer.voice(recording, check=job.check)
            if voice is None:
                job.warn("no_voice", f"the recording of known speaker {number} holds no voice")
            else:
                voices[name] = voice
        alike = self._settings.diar_same_speaker
        return found, name_voices(found.voices, voices, alike_min=alike)


def decode_known(tuning: SpeakerTuning | None, check: Callable[[], None]) -> dict[str, Samples]:
    """Decode the voices that the client knows, or refuse them before any work."""
    shortest, longest = _KNOWN_SECONDS
    known: dict[str, Samples] = {}
    for person in tuning.known if tuning else ():
        recording = Recording(io.BytesIO(person.recording))
        try:
            samples = decode_audio(recording, seconds_max=longest, check=check)
        except ApiError as error:
            told = error.message.removeprefix("file: ").removesuffix(" (MAX_AUDIO_SECONDS)")
            raise _bad_reference(person.name, told) from error
        if len(samples) < shortest * SAMPLE_RATE:
            raise _bad_reference(person.name, f"is shorter than {shortest:g} s")
        known[person.name] = samples
    return known


def _bad_reference(name: str, problem: str) -> InvalidRequest:
    return InvalidRequest(
        f"known_speaker_references: that of {name[:100]!r} {problem}",
        param="known_speaker_references",
        code="invalid_value",
    )
