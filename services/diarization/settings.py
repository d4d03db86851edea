"""What an operator can set on the services that tell speakers apart."""

from typing import Annotated

from pydantic import AfterValidator, Field, PositiveFloat, PositiveInt, SecretStr

from services.transcription.settings import ServiceSettings

COMMUNITY = "pyannote/speaker-diarization-community-1"


def _check_token(written: SecretStr) -> SecretStr:
    text = written.get_secret_value()
    # No header could carry it.
    if not text.isascii() or any(not letter.isprintable() or letter == " " for letter in text):
        raise ValueError("a token of the Hub: ASCII characters without spaces")
    return written


Token = Annotated[SecretStr, AfterValidator(_check_token)]


class DiarizationSettings(ServiceSettings):
    """The pipeline, and how to run it."""

    # A folder with config.yaml, or a name on the Hub.
    diar_model: str = Field(default=COMMUNITY, min_length=1)
    # Longer recordings are transcribed without speakers: memory grows with the square of this.
    diar_max_seconds: PositiveFloat = 4 * 3600.0
    # Windows worked on at once. The library's own 32 take several GB of a GPU's memory.
    diar_batch_size: PositiveInt = 8
    # How alike (cosine) a voice must be to one that the client knows by name.
    diar_same_speaker: Annotated[float, Field(ge=-1, le=1)] = 0.5
    # For what is gated on the Hub; the second is the name that older services knew.
    hf_token: Token = SecretStr("")
    huggingface_token: Token = SecretStr("")

    @property
    def token(self) -> str:
        """Either token; "" for none."""
        return self.hf_token.get_secret_value() or self.huggingface_token.get_secret_value()
