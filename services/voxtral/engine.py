"""From a recording to what was asked of it: pieces, their words, what they are about.

To be imported in the worker's thread. It knows no library of models: the model is made by whom it
is given, and PyTorch is imported only to tell speakers apart.
"""

import gc
import logging
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import groupby
from typing import TYPE_CHECKING

from services.diarization.attempt import attempt, warn_of_count
from services.diarization.provision import Provision, UnavailableError
from services.faster_whisper.speech import find_speech
from services.transcription.audio import SAMPLE_RATE, Recording, decode_audio
from services.transcription.errors import ApiError, load_failed, work_failed
from services.transcription.job import Job
from services.transcription.memory import give_back
from services.transcription.request import SpeakerTuning, VadTuning
from services.transcription.transcript import Progress, Turn
from services.transcription.worker import Cancellation, Cancelled
from services.voxtral.answers import Answer, Caveat, SpokenSegment
from services.voxtral.files import shown_name
from services.voxtral.model import Model, Samples, Written
from services.voxtral.pieces import PIECE_SECONDS_MAX, Piece, cut
from services.voxtral.request import Wanted
from services.voxtral.settings import Settings
from services.voxtral.understanding import Understanding, understand

if TYPE_CHECKING:  # seconds
    from services.diarization.diarizer import Diarizer

log = logging.getLogger(__name__)

Report = Callable[[Progress | SpokenSegment], None]

# Half a second without a voice is a pause: a better place to cut than the quietest moment of a
# passage. The detector's own 2 s are meant for models that cut by themselves. The margin is half
# of what it has: no word is lost by it, and a change of speaker has less to hide in.
_SPEECH = VadTuning(min_silence_duration_ms=500, speech_pad_ms=200)
# What is said in a second, at most, and what a model writes beside it.
_TOKENS_PER_SECOND = 8
_TOKENS_MORE = 32
_TOKENS_MAX = 4096


class VoxtralEngine:
    """The model and the pipeline of speakers; `resident` alone may be called in any thread."""

    def __init__(
        self,
        settings: Settings,
        provision: Provision,
        make_model: Callable[[Callable[[], None]], Model],
        *,
        on_load: Callable[[str, float, Exception | None], None] = lambda *_: None,
    ) -> None:
        """Load nothing yet; `make_model` is given what may raise to give up.

        `on_load` is told the model's name, the seconds, and the error if one was raised.
        """
        self._settings = settings
        self._name = shown_name(settings.voxtral_model)
        self._provision = provision
        self._make_model = make_model
        self._on_load = on_load
        self._model: Model | None = None
        self._diarizer: Diarizer | None = None

    def warm_up(self) -> None:
        """Do nothing: there is no model before the first job."""

    def resident(self) -> Sequence[str]:
        """Give the name of the model if it is in memory; from any thread."""
        return [] if self._model is None else [self._name]

    def load(self, check: Callable[[], None]) -> None:
        """Make the model resident; the next call tries again if this one fails.

        Raises ApiError, and what `check` raises.
        """
        self._get_model(check)

    def unload(self) -> None:
        """Let go of the model, and of what tells speakers apart."""
        model, self._model, self._diarizer = self._model, None, None
        if model is not None:
            model.close()
        del model
        gc.collect()  # PyTorch's models hold on to themselves
        _give_back_memory()

    def close(self) -> None:
        """Do the same for good."""
        self.unload()

    def work(
        self,
        recording: Recording,
        wanted: Wanted,
        cancellation: Cancellation,
        report: Report,
    ) -> Answer:
        """Give what is wanted of a recording, which stays open until this returns.

        `report` is told each segment as soon as its text is certain, in order, and the progress.
        Raises InvalidRequest where the recording or the request cannot work, EngineError where the
        model fails, Cancelled.
        """
        began = time.monotonic()
        job = Job(cancellation, report)
        samples = decode_audio(
            recording,
            seconds_max=self._settings.max_audio_seconds,
            check=job.check,
            limit="MAX_DURATION_S",
        )
        try:
            segments, understood = self._work(job, samples, wanted, report)
        except (RuntimeError, MemoryError, OSError) as error:
            raise work_failed(error) from error
        finally:
            _give_back_memory()
        return Answer(
            task=wanted.task,
            language=wanted.language,
            duration=round(len(samples) / SAMPLE_RATE, 3),
            transcriptions=segments,
            segments=segments,
            transcript=transcript_of(segments),
            summary=understood.summary,
            sentiment=understood.sentiment,
            model=self._name,
            processing_time=round(time.monotonic() - began, 3),
            warnings=[Caveat(code=told.code, message=told.message) for told in job.warnings],
        )

    def _work(
        self, job: Job, samples: Samples, wanted: Wanted, report: Report
    ) -> tuple[list[SpokenSegment], Understanding]:
        give_back()  # what decoding leaves, as much as the samples; finding speech leaves half
        speech = find_speech(samples, _SPEECH, job.check)
        give_back()
        if not speech:
            job.warn("no_speech", "nobody speaks in this recording, so nothing can be said of it")
            return [], Understanding()
        job.advance("load", 0)
        model = self._get_model(job.check)
        job.advance("load", 100)
        pieces = cut(samples, speech, self._tell_speakers(job, samples, wanted.speakers))
        segments = self._transcribe(job, model, samples, pieces, wanted, report)
        if not segments:
            # It is not asked about nothing: it would answer all the same.
            job.warn("no_words", "the model understood no word of this recording")
            return [], Understanding()
        understood = understand(
            job,
            model,
            # A line each, so that a long one can be cut between two.
            "\n".join(_line(segment.speaker, segment.text) for segment in segments),
            language=wanted.language,
            summary=wanted.summary,
            sentiment=wanted.sentiment,
            tokens_max=wanted.max_new_tokens or self._settings.max_new_tokens,
        )
        return segments, understood

    def _transcribe(
        self,
        job: Job,
        model: Model,
        samples: Samples,
        pieces: Sequence[Piece],
        wanted: Wanted,
        report: Report,
    ) -> list[SpokenSegment]:
        """Give what is said in each piece; where that is nothing, there is no segment."""
        segments: list[SpokenSegment] = []
        reported = unfinished = 0

        def take(number: int, written: Written) -> None:
            nonlocal reported, unfinished
            assert number == reported, (number, reported)
            reported += 1
            unfinished += not written.complete
            piece = pieces[number]
            if text := " ".join(written.text.split()):
                segment = SpokenSegment(
                    speaker=piece.speaker,
                    start=round(piece.start_seconds, 3),
                    end=round(piece.end_seconds, 3),
                    text=text,
                )
                segments.append(segment)
                report(segment)
            job.advance("transcribe", 100.0 * reported / len(pieces))

        assert pieces, "where there is speech, there is a piece"
        job.advance("transcribe", 0)
        floor = wanted.max_new_tokens or self._settings.max_new_tokens
        model.transcribe(
            [piece.of(samples) for piece in pieces],
            language=wanted.language,
            tokens_max=max(floor, _tokens_of(pieces)),
            check=job.check,
            report=take,
        )
        assert reported == len(pieces), (reported, len(pieces))
        if unfinished:
            job.warn(
                "text_cut",
                f"the text of {unfinished} of {len(pieces)} passages was cut off; a larger"
                " max_new_tokens allows more",
            )
        return segments

    def _tell_speakers(
        self, job: Job, samples: Samples, tuning: SpeakerTuning | None
    ) -> Sequence[Turn]:
        """Give who speaks when, one at a time; nothing if that was not asked for, or fails."""
        if tuning is None:
            return ()
        found = attempt(
            job,
            self._settings,
            len(samples) / SAMPLE_RATE,
            lambda: self._get_diarizer(job.check).diarize(
                samples, tuning, check=job.check, report=partial(job.advance, "diarize")
            ),
        )
        if found is None:
            return ()
        warn_of_count(job, counted=found.counted)
        return found.exclusive

    def _get_model(self, check: Callable[[], None]) -> Model:
        if self._model is not None and not self._model.alive:
            log.warning("the model is of no more use, so it is loaded anew")
            self._model.close()
            self._model = None
        if self._model is not None:
            return self._model
        name, began = self._name, time.monotonic()
        try:
            self._model = self._make_model(check)
        except Cancelled:
            raise
        except Exception as error:
            self._on_load(name, time.monotonic() - began, error)
            if isinstance(error, ApiError):
                log.error("a model cannot be loaded model=%s reason=%s", name, error.message)
                raise
            raise load_failed(error, name) from error
        seconds = time.monotonic() - began
        log.info("loaded model=%s device=%s seconds=%.2f", name, self._model.device, seconds)
        self._on_load(name, seconds, None)
        return self._model

    def _get_diarizer(self, check: Callable[[], None]) -> "Diarizer":
        """Give the pipeline, downloaded if it must be; raises UnavailableError."""
        if self._diarizer is not None:
            return self._diarizer
        self._provision.make_ready(check)
        try:
            self._diarizer = self._load_diarizer()
        except Exception as error:
            code = load_failed(error, self._provision.source.name).code
            told = f"the pipeline could not be loaded, see the service's log: {code}"
            self._provision.report_failure(told)
            raise UnavailableError(told) from error
        self._provision.report_failure(None)
        return self._diarizer

    def _load_diarizer(self) -> "Diarizer":
        import torch  # noqa: PLC0415 -- seconds

        from services.diarization.diarizer import Diarizer  # noqa: PLC0415 -- seconds

        device = self._settings.voxtral_device
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        return Diarizer(
            self._provision.source.config(),
            device=device,
            batch_size=self._settings.diar_batch_size,
        )


def transcript_of(segments: Sequence[SpokenSegment]) -> str:
    """Give all that is said: a line for each turn of a speaker, or one where nobody is known."""
    return "\n".join(
        _line(speaker, " ".join(segment.text for segment in turn))
        for speaker, turn in groupby(segments, key=lambda segment: segment.speaker)
    )


def _line(speaker: str | None, text: str) -> str:
    return text if speaker is None else f"{speaker}: {text}"


def _tokens_of(pieces: Sequence[Piece]) -> int:
    """Give how much a model may write of each piece."""
    longest = max(piece.end_seconds - piece.start_seconds for piece in pieces)
    assert longest <= PIECE_SECONDS_MAX + 1 / SAMPLE_RATE, longest
    return min(_TOKENS_MAX, _TOKENS_MORE + int(_TOKENS_PER_SECOND * longest))


def _give_back_memory() -> None:
    give_back()
    # Only where it was imported before, by the model or for the speakers.
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.empty_cache()
