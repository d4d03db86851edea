"""An engine of services/voxtral with a tiny model, and all that it is given and tells.

It knows how an engine is put together; what it ought to do is in the tests.
"""

import io
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from services.diarization.provision import Provision
from services.transcription.audio import Recording
from services.transcription.downloads import Downloads
from services.transcription.errors import ApiError
from services.transcription.request import SpeakerTuning
from services.transcription.transcript import Progress
from services.transcription.worker import Cancellation
from services.voxtral.answers import Answer, Sentiment, SpokenSegment
from services.voxtral.engine import VoxtralEngine
from services.voxtral.model import Model, Samples, Written
from services.voxtral.on_transformers import OnTransformers
from services.voxtral.request import Wanted
from services.voxtral.settings import Settings
from tests.services.sounds import SAMPLE_RATE, encode
from tests.speech.voxtral_maker import ANSWERED, HEARD

WORDS = "".join(HEARD).strip()
ANSWER = "".join(ANSWERED)
OPINION = Sentiment(
    sentiment="positif", score=0.5, emotions=["joie"], satisfaction_client="satisfait"
)
SPEAKERS = SpeakerTuning()


def wav(samples: Samples) -> bytes:
    return encode(samples, "wav", "pcm_s16le")


def silence(seconds: float) -> bytes:
    return wav(np.zeros(round(seconds * SAMPLE_RATE), np.int16))


@dataclass
class Listening:
    """A model that keeps what it is given; `model` does the work."""

    model: OnTransformers
    pieces: list[Samples] = field(default_factory=list)
    prompts: list[str] = field(default_factory=list)
    tokens_max: list[int] = field(default_factory=list)
    alive: bool = True
    device: str = "cpu"
    closed: int = 0

    def transcribe(self, pieces: Any, **options: Any) -> None:
        self.pieces += pieces
        self.tokens_max.append(options["tokens_max"])
        self.model.transcribe(pieces, **options)

    def chat(self, prompt: str, **options: Any) -> Written:
        self.prompts.append(prompt)
        self.tokens_max.append(options["tokens_max"])
        return self.model.chat(prompt, **options)

    def close(self) -> None:
        self.closed += 1


@dataclass
class Bench:
    """An engine, and all that it did."""

    engine: VoxtralEngine
    model: Listening
    reported: list[Progress | SpokenSegment] = field(default_factory=list)
    loads: list[tuple[str, Exception | None]] = field(default_factory=list)

    def work(
        self, recording: bytes, cancellation: Cancellation | None = None, **wanted: Any
    ) -> Answer:
        return self.engine.work(
            Recording(io.BytesIO(recording)),
            Wanted(**wanted),
            cancellation or Cancellation(),
            self.reported.append,
        )

    @property
    def segments(self) -> list[SpokenSegment]:
        return [told for told in self.reported if isinstance(told, SpokenSegment)]

    @property
    def progress(self) -> list[Progress]:
        return [told for told in self.reported if isinstance(told, Progress)]


def bench_of(
    model: Listening,
    make_model: Callable[[Callable[[], None]], Model] | None = None,
    **settings: Any,
) -> Bench:
    own = Settings(voxtral_model="ada/tiny", voxtral_device="cpu", **settings)
    downloads = Downloads()
    bench: Bench
    engine = VoxtralEngine(
        own,
        Provision(own, downloads, may_fetch=False),
        make_model or (lambda _check: model),
        on_load=lambda name, seconds, error: bench.loads.append((name, error)),
    )
    bench = Bench(engine, model)
    return bench


def caveats(answer: Answer) -> list[str]:
    return [told.code for told in answer.warnings]


def refused(bench: Bench, recording: bytes, **wanted: Any) -> ApiError:
    with pytest.raises(ApiError) as caught:
        bench.work(recording, **wanted)
    return caught.value
