"""What a loaded Whisper model can: which languages it knows, and what may be asked of it."""

import faster_whisper
import numpy as np
from numpy.typing import NDArray

from services.faster_whisper.speech import spoken
from services.transcription.audio import SAMPLE_RATE
from services.transcription.fields import invalid
from services.transcription.languages import LANGUAGES, unknown_language
from services.transcription.request import TranscriptionRequest

_WINDOW_SECONDS = 30.0
# With a full prompt, this leaves 120 tokens for what is said in half a minute.
_HOTWORDS_TOKENS_MAX = 100


class Abilities:
    """Of one model."""

    def __init__(self, model: faster_whisper.WhisperModel) -> None:
        self._model = model
        self._languages = self._find_languages()

    def check(self, request: TranscriptionRequest) -> None:
        """Refuse a language that the model does not know, and more hotwords than it takes."""
        for field, codes in (("language", [request.language]), ("languages", request.languages)):
            for code in codes:
                if code is not None and code not in self._languages:
                    raise unknown_language(code, self._languages, field=field)
        if request.hotwords:
            encoded = self._model.hf_tokenizer.encode(request.hotwords, add_special_tokens=False)
            if len(encoded.ids) > _HOTWORDS_TOKENS_MAX:
                allowed = f"at most {_HOTWORDS_TOKENS_MAX} tokens are taken, not {len(encoded.ids)}"
                raise invalid("hotwords", request.hotwords, allowed)

    def choose_language(
        self, samples: NDArray[np.float32], request: TranscriptionRequest
    ) -> str | None:
        """Detect which of the languages that the client allows is spoken; None if all are."""
        if not request.languages:
            return None
        heard = spoken(samples, request.vad)
        probabilities = self.probabilities(heard if len(heard) else samples)
        return max(request.languages, key=lambda code: probabilities.get(code, 0.0))

    def probabilities(self, samples: NDArray[np.float32]) -> dict[str, float]:
        """Give the probability of each language, by the first half minute of float32 [samples]."""
        if len(self._languages) == 1:
            return dict.fromkeys(self._languages, 1.0)
        _, _, told = self._model.detect_language(samples[: int(_WINDOW_SECONDS * SAMPLE_RATE)])
        return {code: float(probability) for code, probability in told}

    def _find_languages(self) -> dict[str, tuple[str, ...]]:
        # The library lists all languages of Whisper; an older or smaller model has fewer.
        supported = self._model.supported_languages
        token = self._model.hf_tokenizer.token_to_id
        return {
            code: names
            for code, names in LANGUAGES.items()
            if code in supported and (len(supported) == 1 or token(f"<|{code}|>") is not None)
        }
