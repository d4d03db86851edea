"""`python -m bench.transcription`: services/faster_whisper beside the library that it runs.

Both are processes of their own, with the same tiny model, threads and options, and are given the
same files in turn, so that what the machine does meanwhile hurts both. The tiny model makes the
service's own work look large: with a real one, the model takes a hundred times as long. One
temperature is asked for, because ten words over and over look "too repetitive" to the library,
which then climbs its ladder by chance, and takes up to three times as long.
"""

import io
import statistics
import subprocess
import sys
import tempfile
import time
import wave
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import numpy as np
import psutil

from bench.accuracy import MODEL
from services.faster_whisper.digits import measure
from services.transcription.audio import SAMPLE_RATE
from tests.services.speech_server import FASTER_WHISPER, run_server

THREADS = 2
ROUNDS = 15
SHORT_FILES = 60
CLIENTS = 4
TEMPERATURE = 0.1

# Reads "FILE" lines, answers each with the number of segments: one call of the library a line.
LIBRARY = f"""
import sys
from faster_whisper import WhisperModel
model = WhisperModel({MODEL!r}, device="cpu", cpu_threads={THREADS})
for line in sys.stdin:
    segments, _ = model.transcribe(line.strip(), vad_filter=True, temperature={TEMPERATURE})
    print(len(list(segments)), flush=True)
"""


class Library:
    """A process that calls a library directly: it reads files' names, and tells of each."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    def transcribe(self, file: Path) -> None:
        """Wait until a file has been transcribed."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print(file, file=self.process.stdin, flush=True)
        assert int(self.process.stdout.readline()) > 0


class Service:
    """A client of the service."""

    def __init__(self, url: str, fields: dict[str, str]) -> None:
        self.url = url
        self.fields = fields
        self.client = httpx.Client(timeout=600)

    def transcribe(self, file: Path) -> None:
        """Wait until a file has been transcribed."""
        answer = self.client.post(self.url, files={"file": file.read_bytes()}, data=self.fields)
        assert answer.is_success, answer.text
        assert answer.json()["segments"], answer.text


@contextmanager
def run_library(script: str) -> Iterator[Library]:
    """Run a script until the block ends."""
    with subprocess.Popen(
        [sys.executable, "-c", script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        try:
            yield Library(process)
        finally:
            process.kill()


def write_speech(folder: Path, seconds: float) -> Path:
    """Write digits with pauses, of exactly that length."""
    clip = measure.make_paused_clip(7, "en", seconds, seconds)
    samples = (np.clip(clip.samples, -1, 1) * 32767).astype(np.int16)
    target = io.BytesIO()
    with wave.open(target, "wb") as file:
        file.setparams((1, 2, SAMPLE_RATE, 0, "NONE", ""))
        file.writeframes(samples.tobytes())
    path = folder / f"{seconds:g}.wav"
    path.write_bytes(target.getvalue())
    return path


def seconds_of(work: Callable[[], object]) -> float:
    """Give how long it takes, in seconds."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def compare(name: str, file: Path, service: Service, library: Library, rounds: int) -> None:
    """Print both, and how much longer the service takes."""
    pairs = []
    for number in range(rounds):
        ways = [service.transcribe, library.transcribe]
        # Who goes first changes, for the second may find a warmer processor.
        taken = [seconds_of(lambda way=way: way(file)) for way in ways[:: 1 - 2 * (number % 2)]]
        pairs.append(taken[:: 1 - 2 * (number % 2)])
    ours, theirs = (statistics.median(column) for column in zip(*pairs, strict=True))
    ratios = sorted(mine / its for mine, its in pairs)
    print(
        f"{name}, medians of {rounds}: service {ours * 1000:.0f} ms, library {theirs * 1000:.0f} ms"
        f"; ratio {statistics.median(ratios):.3f} ({ratios[0]:.3f} to {ratios[-1]:.3f})"
    )


def rates(file: Path, service: Service, library: Library) -> None:
    """Print how many short files a second each does."""
    one = seconds_of(lambda: [service.transcribe(file) for _ in range(SHORT_FILES)])
    with ThreadPoolExecutor(CLIENTS) as pool:
        several = seconds_of(lambda: list(pool.map(service.transcribe, [file] * SHORT_FILES)))
    direct = seconds_of(lambda: [library.transcribe(file) for _ in range(SHORT_FILES)])
    print(
        f"2 s files, one client: {SHORT_FILES / one:.1f}/s; {CLIENTS} clients:"
        f" {SHORT_FILES / several:.1f}/s; library: {SHORT_FILES / direct:.1f}/s"
    )


def resident_megabytes(pid: int) -> float:
    """Give the memory of a process, in MB."""
    return psutil.Process(pid).memory_info().rss / 1e6


def report() -> None:
    """Run everything, and print it."""
    environment = {"WHISPER__CPU_THREADS": str(THREADS), "MAX_WAITING": str(CLIENTS)}
    with (
        tempfile.TemporaryDirectory() as name,
        run_server(FASTER_WHISPER, Path(name), environment) as server,
        run_library(LIBRARY) as library,
    ):
        fields = {
            "model": "whisper-1",
            "temperature": str(TEMPERATURE),
            "response_format": "verbose_json",
        }
        service = Service(server.transcriptions, fields)
        long, short = write_speech(Path(name), 300), write_speech(Path(name), 2)
        started = resident_megabytes(server.process.pid)
        service.transcribe(short)
        library.transcribe(short)
        first = resident_megabytes(server.process.pid)
        print(f"services/faster_whisper beside faster-whisper, digits model, {THREADS} threads")
        rates(short, service, library)
        compare("2 s file", short, service, library, 4 * ROUNDS)
        compare("5 min file", long, service, library, ROUNDS)
        print(
            f"resident memory: service {started:.0f} MB ready, {first:.0f} MB after 2 s,"
            f" {resident_megabytes(server.process.pid):.0f} MB after 5 min;"
            f" library {resident_megabytes(library.process.pid):.0f} MB after 5 min"
        )


if __name__ == "__main__":
    report()
