"""The models of this service, and what is asked of them.

To be imported in the worker's thread: the libraries behind it take a tenth of a second to import
from a warm disk, and seconds from a cold one.
"""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

from faster_whisper.vad import get_speech_timestamps, get_vad_model

from services.faster_whisper.library import Library
from services.faster_whisper.settings import WhisperSettings
from services.faster_whisper.whisper import Whisper, vad_options
from services.transcription.audio import SAMPLE_RATE, Recording, decode_audio, split_at_pauses
from services.transcription.engine import Report, Span
from services.transcription.errors import EngineError
from services.transcription.form import TranscriptionRequest, VadTuning
from services.transcription.residents import Residents
from services.transcription.transcript import Transcript
from services.transcription.worker import Cancellation

log = logging.getLogger(__name__)

# Models on the Hub are saved in 16 bits a weight. To compute in 32 doubles them; to compute in 8
# halves them, which is left as room for the work itself.
_WIDE_TYPES = ("default", "auto", "float32")


class WhisperEngine:
    """Whisper models, as many in memory as the settings allow; the default one from the start."""

    def __init__(
        self,
        settings: WhisperSettings,
        library: Library,
        *,
        audio_seconds_max: float,
        on_load: Callable[[str, float, Exception | None], None] = lambda *_: None,
    ) -> None:
        self._wide = settings.compute_type in _WIDE_TYPES
        self._audio_seconds_max = audio_seconds_max
        self._residents: Residents[Whisper] = Residents(
            bytes_max=settings.memory,
            measure=lambda model: self._estimate_bytes(library.folder(model)),
            load=lambda model: Whisper(library.folder(model), settings),
            on_load=on_load,
        )
        self._residents.get(library.default.id)

    def warm_up(self) -> None:
        """Load the detector of speech."""
        get_vad_model()

    def resident(self) -> Sequence[str]:
        """Give the ids of the models in memory, the longest unused first."""
        return self._residents.ids

    def load(self, model: str) -> bool:
        """Make a model resident; False if it was."""
        if model in self._residents:
            return False
        self._get(model)
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
        """Give the words of an uploaded file."""
        samples = decode_audio(
            recording, seconds_max=self._audio_seconds_max, check=cancellation.check
        )
        whisper = self._get(request.model)
        try:
            return whisper.transcribe(samples, request, cancellation.check, report)
        except (RuntimeError, MemoryError) as error:
            raise _failure(error) from error

    def find_speech(
        self, recording: Recording, tuning: VadTuning, cancellation: Cancellation
    ) -> Sequence[Span]:
        """Give the passages where somebody speaks."""
        samples = decode_audio(
            recording, seconds_max=self._audio_seconds_max, check=cancellation.check
        )
        spans: list[Span] = []
        for offset, stretch in split_at_pauses(samples):
            cancellation.check()
            for found in get_speech_timestamps(stretch, vad_options(tuning)):
                start, end = (offset + found[edge] for edge in ("start", "end"))
                spans.append(Span(start / SAMPLE_RATE, end / SAMPLE_RATE))
        return spans

    def _get(self, model: str) -> Whisper:
        try:
            return self._residents.get(model)
        except Exception as error:  # the libraries raise what they like, plain Exception too
            log.error("a model cannot be loaded model=%s", model, exc_info=error)
            if _is_out_of_memory(error):
                told = f"out of memory: the model {model!r} is too large"
                raise EngineError(told, code="out_of_memory") from error
            told = f"the model {model!r} could not be loaded, see the service's log"
            raise EngineError(told, code="load_failed") from error

    def _estimate_bytes(self, folder: Path) -> int:
        return (folder / "model.bin").stat().st_size * (2 if self._wide else 1)


def _failure(error: Exception) -> EngineError:
    """Give what the client is told; CTranslate2 has no other type than RuntimeError."""
    log.error("the model failed", exc_info=error)
    if _is_out_of_memory(error):
        return EngineError("out of memory: the recording is too long", code="out_of_memory")
    return EngineError("the model failed on this recording", code="engine_failed")


def _is_out_of_memory(error: Exception) -> bool:
    return isinstance(error, MemoryError) or "out of memory" in str(error).lower()
