"""services/whisperx as the tests run it: digits, a trained aligner for them, a real diarizer."""

from dataclasses import replace
from pathlib import Path

from tests.services.speech_server import DIGITS, ROOT, SpeechService

ALIGNERS = ROOT / "tests/speech/aligners"

# Without a pipeline: what it does there is part of what it owes.
WHISPERX = SpeechService(
    name="whisperx",
    app="services.whisperx.main:app",
    environment={
        "WHISPERX_DEFAULT_MODEL": str(DIGITS / "model"),
        "WHISPER__ALIAS": "base",
        "WHISPER__INFERENCE_DEVICE": "cpu",
        "WHISPER__COMPUTE_TYPE": "int8",
        # Half of a small machine is left to the test itself.
        "WHISPER__CPU_THREADS": "1",
        "OMP_NUM_THREADS": "1",
        "ALIGN_FOLDER": str(ALIGNERS),
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
    },
    # In windows of half a minute, which whisperX fills, the tiny model repeats itself: it has never
    # heard so long a number.
    long_fields={"vad_max_speech_duration_s": "4"},
    long_seconds=210.0,
    shorter_seconds=60.0,
)


def with_diarizer(folder: Path) -> SpeechService:
    """The service with a pipeline of tests/speech/makers.py."""
    return replace(WHISPERX, environment=WHISPERX.environment | {"DIAR_MODEL": str(folder)})
