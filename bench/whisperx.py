"""`python -m bench.whisperx`: services/whisperx beside the library that it runs.

In the environment of `make test-speech`. Both are processes of their own, with the same tiny
models, threads and batches, and are given the same files in turn. The library is called as its own
README does: transcribe, align, assign speakers. It is spared decoding by FFmpeg.
"""

import tempfile
from pathlib import Path

from bench.transcription import (
    MODEL,
    THREADS,
    Service,
    compare,
    resident_megabytes,
    run_library,
    seconds_of,
    write_speech,
)
from services.whisperx.hearing import CPU_BATCH_SIZE
from tests.services.speech_server import run_server
from tests.speech.makers import make_diarizer
from tests.speech.service import ALIGNERS, with_diarizer

ROUNDS = 9


def library_script(diarizer: Path, *, speakers: bool) -> str:
    """Give the program that is the library alone."""
    return f"""
import os, sys, wave, warnings
os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
warnings.filterwarnings("ignore")
os.environ["PYANNOTE_METRICS_ENABLED"] = "0"
sys.path.insert(0, ".")
real, sys.stdout = sys.stdout, sys.stderr
import numpy as np, torch, whisperx
from whisperx.diarize import DiarizationPipeline, assign_word_speakers
from services.whisperx.sentences import provide_sentences
provide_sentences()
torch.set_num_threads({THREADS})
model = whisperx.load_model(
    {MODEL!r}, "cpu", compute_type="int8", language="en", local_files_only=True, threads={THREADS}
)
aligner, metadata = whisperx.load_align_model(
    "en", "cpu", model_name={str(ALIGNERS / "en")!r}, model_cache_only=True
)
pipeline = DiarizationPipeline({str(diarizer)!r}) if {speakers} else None
for line in sys.stdin:
    with wave.open(line.strip()) as file:
        samples = np.frombuffer(file.readframes(file.getnframes()), np.int16)
    audio = samples.astype(np.float32) / 32768
    result = model.transcribe(audio, batch_size={CPU_BATCH_SIZE})
    result = whisperx.align(result["segments"], aligner, metadata, audio, "cpu")
    if pipeline:
        result = assign_word_speakers(pipeline(audio), result)
    print(len(result["segments"]), file=real, flush=True)
"""


def report() -> None:
    """Run everything, and print it."""
    print(f"services/whisperx beside whisperx, digits models, {THREADS} threads")
    with tempfile.TemporaryDirectory() as name:
        diarizer = Path(name) / "diarizer"
        make_diarizer(diarizer)
        long = write_speech(Path(name), 300)
        for what, speakers in (("words", False), ("words and speakers", True)):
            folder = Path(name) / what
            folder.mkdir()
            _compare(what, folder, diarizer, long, speakers=speakers)


def _compare(what: str, folder: Path, diarizer: Path, file: Path, *, speakers: bool) -> None:
    environment = {
        "WHISPER__CPU_THREADS": str(THREADS),
        "OMP_NUM_THREADS": str(THREADS),
        "OMP_WAIT_POLICY": "PASSIVE",  # as in the image, and in the library's process
    }
    with (
        run_server(with_diarizer(diarizer), folder, environment) as server,
        run_library(library_script(diarizer, speakers=speakers)) as library,
    ):
        fields = {"language": "en", "diarize": str(speakers).lower()}
        service = Service(server.url + "/transcribe", fields)
        ready = resident_megabytes(server.process.pid)
        cold = seconds_of(lambda: service.transcribe(file))
        library.transcribe(file)
        compare(f"5 min file, {what}", file, service, library, ROUNDS)
        print(
            f"first file {cold:.1f} s; resident memory: service {ready:.0f} MB ready,"
            f" {resident_megabytes(server.process.pid):.0f} MB after;"
            f" library {resident_megabytes(library.process.pid):.0f} MB"
        )


if __name__ == "__main__":
    report()
