"""The models of this service, and what is asked of them.

To be imported in the worker's thread: the libraries behind it take a tenth of a second to import
from a warm disk, and seconds from a cold one.
"""

from collections.abc import Callable, Sequence

from faster_whisper.vad import get_vad_model

from services.faster_whisper.library import Library
from services.faster_whisper.settings import WhisperSettings
from services.faster_whisper.speech import find_speech
from services.faster_whisper.whisper import Whisper
from services.transcription.audio import Recording, decode_audio
from services.transcription.engine import Report, Span
from services.transcription.errors import load_failed, work_failed
from services.transcription.request import TranscriptionRequest, VadTuning
from services.transcription.residents import Residents
from services.transcription.transcript import Transcript
from services.transcription.worker import Cancellation


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
        self._audio_seconds_max = audio_seconds_max
        self._residents: Residents[Whisper] = Residents(
            bytes_max=settings.memory,
            measure=library.size_bytes,
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
            raise work_failed(error) from error

    def find_speech(
        self, recording: Recording, tuning: VadTuning, cancellation: Cancellation
    ) -> Sequence[Span]:
        """Give the passages where somebody speaks."""
        samples = decode_audio(
            recording, seconds_max=self._audio_seconds_max, check=cancellation.check
        )
        return find_speech(samples, tuning, cancellation.check)

    def _get(self, model: str) -> Whisper:
        try:
            return self._residents.get(model)
        except Exception as error:  # the libraries raise what they like, plain Exception too
            raise load_failed(error, model) from error
