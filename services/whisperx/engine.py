"""The models of this service, and the phases of a job: load, transcribe, align, diarize.

To be imported in the worker's thread: torch and what is on top of it take seconds to import.
"""

import warnings
from collections.abc import Callable, Sequence

import numpy as np
import torch
from faster_whisper.vad import get_vad_model
from numpy.typing import NDArray

# torchcodec is not here, and not needed: it is samples that the libraries are given.
with warnings.catch_warnings(action="ignore"):
    from whisperx import vads

from services.diarization.diarizer import Diarizer
from services.diarization.provision import Provision, UnavailableError
from services.faster_whisper.library import Library
from services.faster_whisper.speech import find_speech
from services.transcription.audio import SAMPLE_RATE, Recording, decode_audio, split_at_pauses
from services.transcription.downloads import Downloads
from services.transcription.engine import Report, Span
from services.transcription.errors import (
    FetchFailed,
    load_failed,
    work_failed,
)
from services.transcription.hub import is_offline
from services.transcription.job import Job
from services.transcription.memory import give_back
from services.transcription.request import SpeakerTuning, TranscriptionRequest, VadTuning
from services.transcription.residents import Residents
from services.transcription.transcript import Segment, Transcript, Turn
from services.transcription.worker import Cancellation
from services.whisperx.aligners import Aligner, Aligners, NoAlignerError, fetch_command
from services.whisperx.alignment import Passage, align, unaligned
from services.whisperx.hearing import Hearing, default_threads
from services.whisperx.sentences import provide_sentences
from services.whisperx.settings import Settings
from services.whisperx.speaking import Speaking, decode_known

Samples = NDArray[np.int16]

# Beside the models, in one memory; no model's name has a colon.
_ALIGNER = "align:"
_SPEAKERS = "speakers:"
# whisperX's own thresholds.
_VAD_ONSET, _VAD_OFFSET = 0.500, 0.363


class WhisperxEngine:
    """Models, aligners and the pipeline of speakers, as many as the settings allow in memory."""

    def __init__(
        self,
        settings: Settings,
        library: Library,
        provision: Provision,
        downloads: Downloads,
        *,
        on_load: Callable[[str, float, Exception | None], None] = lambda *_: None,
    ) -> None:
        self._settings = settings
        self._library = library
        self._may_fetch = settings.whisper.fetch != "none"
        self._aligners = Aligners(settings.align_folder)
        self._provision = provision
        self._downloads = downloads
        self._speaking = Speaking(settings, self._diarizer)
        torch.set_num_threads(settings.whisper.cpu_threads or default_threads())
        self.device = _device(settings.whisper.inference_device)
        self._detector = vads.Pyannote(
            torch.device(self.device), vad_onset=_VAD_ONSET, vad_offset=_VAD_OFFSET
        )
        self._residents: Residents[object] = Residents(
            bytes_max=settings.whisper.memory,
            measure=self._measure,
            load=self._load,
            on_load=on_load,
        )
        provide_sentences()
        self._residents.get(library.default.id)

    def warm_up(self) -> None:
        """Do what the libraries do at their first use."""
        get_vad_model()
        silence = torch.zeros(1, SAMPLE_RATE)
        self._detector({"waveform": silence, "sample_rate": SAMPLE_RATE})

    def resident(self) -> Sequence[str]:
        """Give the ids of the models in memory, the longest unused first."""
        return [name for name in self._residents.ids if ":" not in name]

    def aligners(self) -> list[str]:
        """Give the languages of the aligners in memory."""
        return [
            name.removeprefix(_ALIGNER) for name in self._residents.ids if name.startswith(_ALIGNER)
        ]

    def load(self, model: str) -> bool:
        """Make a model resident; False if it was."""
        if model in self._residents:
            return False
        self._hearing(model)
        return True

    def unload(self, model: str) -> bool:
        """Remove a model from memory; False if it was not there."""
        return self._residents.remove(model)

    def transcribe(
        self,
        recording: Recording,
        request: TranscriptionRequest,
        cancellation: Cancellation,
        report: Report,
    ) -> Transcript:
        """Give the words of an uploaded file, with times and speakers as far as they can be had."""
        if request.response_format == "rttm":  # which has no room for words
            return self.diarize(recording, request.speakers or SpeakerTuning(), cancellation)
        job = Job(cancellation, report)
        samples = self._decode(recording, cancellation)
        known = decode_known(request.speakers, cancellation.check)
        try:
            passages, language = self._hear(job, samples, request, report)
            segments = self._align(job, samples, passages, language, request)
            turns: tuple[Turn, ...] | None = None
            if request.speakers is not None:
                turns, segments = self._speaking.tell(
                    job, samples, segments, request.speakers, known
                )
        except (RuntimeError, MemoryError) as error:
            raise work_failed(error) from error
        finally:
            self._give_back_memory()
        return Transcript(
            segments=tuple(segments),
            language=language,
            duration_seconds=len(samples) / SAMPLE_RATE,
            turns=turns,
            warnings=tuple(job.warnings),
        )

    def diarize(
        self, recording: Recording, tuning: SpeakerTuning, cancellation: Cancellation
    ) -> Transcript:
        """Give who speaks when, and no words."""
        job = Job(cancellation, lambda _reported: None)
        samples = self._decode(recording, cancellation)
        known = decode_known(tuning, cancellation.check)
        try:
            turns, _ = self._speaking.tell(job, samples, (), tuning, known)
        finally:
            self._give_back_memory()
        return Transcript(
            segments=(),
            language=None,
            duration_seconds=len(samples) / SAMPLE_RATE,
            turns=turns,
            warnings=tuple(job.warnings),
        )

    def find_speech(
        self, recording: Recording, tuning: VadTuning, cancellation: Cancellation
    ) -> Sequence[Span]:
        """Give the passages where somebody speaks."""
        return find_speech(self._decode(recording, cancellation), tuning, cancellation.check)

    def detect_language(
        self, recording: Recording, cancellation: Cancellation
    ) -> tuple[str, float]:
        """Give the likeliest language of the first minutes, and how likely it is (0..1)."""
        samples = self._decode(recording, cancellation)
        hearing = self._hearing(self._library.default.id)
        _, stretch = next(split_at_pauses(samples))
        try:
            return hearing.detect_language(stretch, TranscriptionRequest(model=""))
        except (RuntimeError, MemoryError) as error:
            raise work_failed(error) from error

    def _decode(self, recording: Recording, cancellation: Cancellation) -> Samples:
        return decode_audio(
            recording,
            seconds_max=self._settings.max_audio_seconds,
            check=cancellation.check,
        )

    def _hear(
        self, job: Job, samples: Samples, request: TranscriptionRequest, report: Report
    ) -> tuple[list[Passage], str | None]:
        """Give what is said; holds on to no model, so that the aligner may take its room."""
        job.advance("load", 0)
        hearing = self._hearing(request.model)
        job.advance("load", 100)
        return hearing.hear(
            samples,
            request,
            advance=lambda percent: job.advance("transcribe", percent),
            found=lambda passage: report(unaligned(passage)),
        )

    def _align(
        self,
        job: Job,
        samples: Samples,
        passages: Sequence[Passage],
        language: str | None,
        request: TranscriptionRequest,
    ) -> tuple[Segment, ...]:
        """Give the passages as sentences with words, as far as they can be aligned."""
        as_heard = tuple(unaligned(passage) for passage in passages)
        if not (request.align and passages and language):
            return as_heard
        if request.task == "translate":
            job.warn("not_aligned", "a translation has no words in the recording, so no times")
            return as_heard
        job.advance("align", 0)
        try:
            aligner = self._aligner(language, job.check)
        except (NoAlignerError, FetchFailed) as error:
            job.warn("no_aligner", str(error))
            return as_heard
        segments: list[Segment] = []
        failed = 0
        for number, (passage, whole) in enumerate(zip(passages, as_heard, strict=True), start=1):
            try:
                found = align(passage, aligner, _sound(samples, passage))
            except (RuntimeError, MemoryError) as error:
                told = work_failed(error).message
                job.warn("alignment_failed", f"not all words have times of their own: {told}")
                return (*segments, *as_heard[number - 1 :])
            failed += found is None
            segments += found or (whole,)
            job.advance("align", 100.0 * number / len(passages))
        if failed:
            job.warn(
                "alignment_failed",
                f"{failed} of {len(passages)} passages could not be aligned: they have the times"
                " of the passage, and no words",
            )
        return tuple(segments)

    def _diarizer(self, check: Callable[[], None]) -> Diarizer:
        """Give the pipeline, downloaded if it must be; raises UnavailableError."""
        if _SPEAKERS not in self._residents:
            self._provision.make_ready(check)
        try:
            diarizer = self._residents.get(_SPEAKERS)
        except Exception as error:
            code = load_failed(error, _SPEAKERS).code
            told = f"the pipeline could not be loaded, see the service's log: {code}"
            self._provision.report_failure(told)
            raise UnavailableError(told) from error
        self._provision.report_failure(None)
        assert isinstance(diarizer, Diarizer), diarizer
        return diarizer

    def _hearing(self, model: str) -> Hearing:
        try:
            hearing = self._residents.get(model)
        except Exception as error:  # the libraries raise what they like, plain Exception too
            raise load_failed(error, model) from error
        assert isinstance(hearing, Hearing), hearing
        return hearing

    def _aligner(self, language: str, check: Callable[[], None]) -> Aligner:
        """Give an aligner, downloaded if it must be; raises NoAlignerError, FetchFailed."""
        try:
            self._aligners.find(language)
        except (OSError, ValueError):
            command = fetch_command(language)
            if not self._may_fetch or is_offline():
                ahead = f"python {' '.join(command[1:])}"
                raise NoAlignerError(
                    f"the aligner for {language!r} is not here; {ahead} downloads it"
                ) from None
            self._downloads.fetch(f"the aligner for {language!r}", command, check=check)
        try:
            aligner = self._residents.get(_ALIGNER + language)
        except Exception as error:
            raise NoAlignerError(
                f"the aligner for {language!r} could not be loaded: "
                + load_failed(error, _ALIGNER + language).code
            ) from error
        assert isinstance(aligner, Aligner), aligner
        return aligner

    # What the residents ask for.

    def _measure(self, name: str) -> int:
        if name == _SPEAKERS:
            return self._provision.source.size_bytes()
        if name.startswith(_ALIGNER):
            return self._aligners.size_bytes(name.removeprefix(_ALIGNER))
        return self._library.size_bytes(name)

    def _load(self, name: str) -> object:
        if name == _SPEAKERS:
            return Diarizer(
                self._provision.source.config(),
                device=self.device,
                batch_size=self._settings.diar_batch_size,
            )
        if name.startswith(_ALIGNER):
            return self._aligners.load(name.removeprefix(_ALIGNER), self.device)
        return Hearing(
            self._library.folder(name),
            self._settings.whisper,
            device=self.device,
            detector=self._detector,
        )

    def _give_back_memory(self) -> None:
        give_back()
        if self.device == "cuda":
            torch.cuda.empty_cache()


def _sound(samples: Samples, passage: Passage) -> NDArray[np.float32]:
    start, end = (
        round(seconds * SAMPLE_RATE) for seconds in (passage.start_seconds, passage.end_seconds)
    )
    return samples[start:end].astype(np.float32) / np.float32(32768.0)


def _device(asked: str) -> str:
    if asked == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return asked
