"""Runs the real faster-whisper.

To be imported in the worker's thread: the libraries behind it take a tenth of a second to import
from a warm disk, and seconds from a cold one.
"""

import logging
import os
from pathlib import Path
from typing import BinaryIO

import faster_whisper
import numpy as np
from faster_whisper.vad import get_vad_model
from numpy.typing import NDArray

from services.faster_whisper.settings import WhisperSettings, is_folder
from services.transcription.audio import SAMPLE_RATE, decode_audio, split_at_pauses
from services.transcription.errors import EngineError
from services.transcription.form import TranscriptionRequest
from services.transcription.languages import LANGUAGES, unknown_language
from services.transcription.transcript import Transcript
from services.transcription.worker import Cancellation

log = logging.getLogger(__name__)

# CTranslate2's own default, which it also takes where there are fewer cores: twice as slow there.
_THREADS_MAX = 4
# faster-whisper's own prompt_reset_on_temperature.
_GUESSING_TEMPERATURE = 0.5
# Half of Whisper's context; the library keeps the last of them.
_PROMPT_TOKENS = 224

# Without tokenizer.json the library would fetch another model's from the network.
_NEEDED_FILES = ("model.bin", "tokenizer.json")


class WhisperEngine:
    """A resident Whisper model."""

    def __init__(self, settings: WhisperSettings, *, audio_seconds_max: float) -> None:
        self._audio_seconds_max = audio_seconds_max
        self._model = faster_whisper.WhisperModel(
            str(find_model(settings.model)),
            device=settings.inference_device,
            device_index=settings.device_index,
            compute_type=settings.compute_type,
            cpu_threads=settings.cpu_threads or min(_THREADS_MAX, os.cpu_count() or 1),
            local_files_only=True,
        )
        self._languages = self._find_languages()

    def warm_up(self) -> None:
        """Load the detector of speech."""
        get_vad_model()

    def transcribe(
        self, recording: BinaryIO, request: TranscriptionRequest, cancellation: Cancellation
    ) -> Transcript:
        """Give the words of an uploaded file."""
        if request.language is not None and request.language not in self._languages:
            raise unknown_language(request.language, self._languages)
        samples = decode_audio(
            recording, seconds_max=self._audio_seconds_max, check=cancellation.check
        )
        try:
            text, language = self._transcribe(samples, request, cancellation)
        except (RuntimeError, MemoryError) as error:
            raise _failure(error) from error
        return Transcript(
            text=text.strip(), language=language, duration_seconds=len(samples) / SAMPLE_RATE
        )

    def _transcribe(
        self,
        samples: NDArray[np.int16],
        request: TranscriptionRequest,
        cancellation: Cancellation,
    ) -> tuple[str, str]:
        """Give the text and its language; a stretch goes on where the one before ended."""
        text, language = "", request.language
        prompt: str | list[int] | None = request.prompt
        info = None
        for stretch in split_at_pauses(samples):
            cancellation.check()
            segments, info = self._model.transcribe(
                stretch,
                language=language,
                initial_prompt=prompt,
                temperature=request.temperatures,
                # Whisper invents words where nobody speaks.
                vad_filter=True,
            )
            written: list[int] | None = None
            for segment in segments:  # the model computes here, one window after another
                cancellation.check()
                text += segment.text
                # The model reads on from what it wrote, unless it had to guess: within a stretch
                # the library sees to that.
                guessed = segment.temperature > _GUESSING_TEMPERATURE
                kept = [] if guessed else [*(written or []), *segment.tokens]
                written = kept[-_PROMPT_TOKENS:]
                # Detected once, as Whisper does, but in the first stretch where someone speaks.
                language = info.language
            prompt = prompt if written is None else written
        assert info is not None, "a recording has at least one stretch"
        return text, info.language

    def _find_languages(self) -> dict[str, tuple[str, ...]]:
        # The library lists all languages of Whisper; an older or smaller model has fewer.
        supported = self._model.supported_languages
        token = self._model.hf_tokenizer.token_to_id
        return {
            code: names
            for code, names in LANGUAGES.items()
            if code in supported and (len(supported) == 1 or token(f"<|{code}|>") is not None)
        }


def find_model(model: str) -> Path:
    """Give the folder of a model, and fetch it if it is a name that was never fetched.

    The network is asked only then: what is here starts faster, and starts offline.
    """
    if is_folder(model):
        folder = Path(model).expanduser()
        if missing := _missing_files(folder):
            raise FileNotFoundError(f"WHISPER__MODEL: {model!r} lacks {', '.join(missing)}")
        return folder
    try:
        folder = Path(faster_whisper.download_model(model, local_files_only=True))
    except FileNotFoundError:
        pass
    else:
        if not _missing_files(folder):
            return folder
    log.info("fetching model=%s", model)
    return Path(faster_whisper.download_model(model))


def _missing_files(folder: Path) -> list[str]:
    return [name for name in _NEEDED_FILES if not (folder / name).is_file()]


def _failure(error: RuntimeError | MemoryError) -> EngineError:
    """Give what the client is told; CTranslate2 has no other type than RuntimeError."""
    log.error("the model failed", exc_info=error)
    if isinstance(error, MemoryError) or "out of memory" in str(error).lower():
        return EngineError("out of memory: the recording is too long", code="out_of_memory")
    return EngineError("the model failed on this recording", code="engine_failed")
