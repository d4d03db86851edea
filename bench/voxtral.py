"""`python -m bench.voxtral`: services/voxtral beside transformers, which it runs.

In the environment of `make test-speech`. Both are processes of their own, with the same tiny
model and threads, and are given the same file in turn. The library is called as the model's card
does, half a minute at a time, after faster-whisper has found the speech, as its README does; it is
spared decoding by FFmpeg. The model is tiny, so what the service adds weighs as much as it can.
"""

import tempfile
from pathlib import Path

from bench.transcription import (
    THREADS,
    Service,
    compare,
    resident_megabytes,
    run_library,
    seconds_of,
    write_speech,
)
from tests.services.speech_server import run_server
from tests.speech.voxtral_maker import HEARD, make_voxtral
from tests.speech.voxtral_service import voxtral_service

ROUNDS = 9


def library_script(model: Path) -> str:
    """Give the program that is the library alone."""
    return f"""
import os, sys, wave
os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
real, sys.stdout = sys.stdout, sys.stderr
import numpy as np, torch
from faster_whisper.vad import get_speech_timestamps
from transformers import AutoProcessor, VoxtralForConditionalGeneration
torch.set_num_threads({THREADS})
processor = AutoProcessor.from_pretrained({str(model)!r})
model = VoxtralForConditionalGeneration.from_pretrained({str(model)!r}).eval()
for line in sys.stdin:
    with wave.open(line.strip()) as file:
        samples = np.frombuffer(file.readframes(file.getnframes()), np.int16)
    assert get_speech_timestamps(samples.astype(np.float32) / 32768)
    texts = []
    for start in range(0, len(samples), 30 * 16000):
        inputs = processor.apply_transcription_request(
            audio=[samples[start : start + 30 * 16000]], model_id="voxtral",
            sampling_rate=16000, format=["WAV"],
        )
        with torch.inference_mode():
            output = model.generate(**inputs, max_new_tokens=512, do_sample=False)
        texts += processor.batch_decode(
            output[:, inputs.input_ids.shape[1] :], skip_special_tokens=True
        )
    print(len(texts), file=real, flush=True)
"""


def report() -> None:
    """Run everything, and print it."""
    print(f"services/voxtral beside transformers, tiny model, {THREADS} threads")
    with tempfile.TemporaryDirectory() as name:
        model = Path(name) / "model"
        make_voxtral(model, heard=HEARD)
        file = write_speech(Path(name), 300)
        environment = {"OMP_NUM_THREADS": str(THREADS), "OMP_WAIT_POLICY": "PASSIVE"}
        with (
            run_server(voxtral_service(model, Path("/absent")), Path(name), environment) as server,
            run_library(library_script(model)) as library,
        ):
            service = Service(server.url + "/transcribe", {"language": "en"})
            ready = resident_megabytes(server.process.pid)
            cold = seconds_of(lambda: service.transcribe(file))
            library.transcribe(file)
            compare("5 min file", file, service, library, ROUNDS)
            print(
                f"first file {cold:.1f} s; resident memory: service {ready:.0f} MB ready,"
                f" {resident_megabytes(server.process.pid):.0f} MB after;"
                f" library {resident_megabytes(library.process.pid):.0f} MB"
            )


if __name__ == "__main__":
    report()
