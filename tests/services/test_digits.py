"""The digits model hears what is said, and its card and scripts agree with it."""

import json
import re
import shutil
import subprocess
import wave
from pathlib import Path

import numpy as np
import pytest
from faster_whisper import WhisperModel
from faster_whisper.audio import decode_audio

from services.faster_whisper.digits import measure, vocabulary
from services.faster_whisper.digits.batches import BatchMaker, Stage
from services.faster_whisper.digits.espeak import Voice
from services.faster_whisper.digits.speech import Phrase, Speaker, resample
from services.faster_whisper.digits.transcripts import Style, split_segments, write
from services.faster_whisper.digits.windows import SpokenWord, Window

DIGITS = Path(measure.__file__).parent
MODEL = DIGITS / "model"
CARD = (DIGITS / "README.md").read_text(encoding="utf-8")
RECORDINGS = [("recording", "en"), ("french", "fr")]
BYTES_MAX = 3_000_000

needs_espeak = pytest.mark.skipif(
    shutil.which("espeak-ng") is None, reason="espeak-ng is not installed"
)


@pytest.fixture(scope="module", name="model")
def load_model() -> WhisperModel:
    """The bundled model, as a service would load it."""
    return WhisperModel(str(MODEL), device="cpu", compute_type="int8", cpu_threads=1)


def hear(model, sound, **options) -> str:
    """The words of all segments."""
    segments, _ = model.transcribe(sound, **options)
    return " ".join("".join(segment.text for segment in segments).split())


def say(folder: Path, words: str) -> str:
    """A file of the words in a voice that training never heard."""
    path = folder / "said.wav"
    subprocess.run(["espeak-ng", "-v", "en-us+Michael", "-w", path, words], check=True)
    return str(path)


@pytest.mark.parametrize(("name", "language"), RECORDINGS)
@pytest.mark.parametrize(
    "options", [{}, {"vad_filter": True}, {"beam_size": 1, "temperature": 0.0}], ids=str
)
def test_recording_is_heard_word_for_word(model, name, language, options):
    """A bundled recording is heard as its text says, in the language that it is in."""
    expected = (DIGITS / f"{name}.txt").read_text(encoding="utf-8").strip()

    segments, information = model.transcribe(str(DIGITS / f"{name}.wav"), **options)
    heard = "".join(segment.text for segment in segments).strip()

    assert (expected, language) == (heard, information.language)


def test_word_times_are_in_order_and_inside_the_recording(model):
    """With word_timestamps each word has its time, one after another."""
    segments, information = model.transcribe(str(DIGITS / "recording.wav"), word_timestamps=True)
    words = [word for segment in segments for word in segment.words]
    times = [time for word in words for time in (word.start, word.end)]

    assert sorted(times) == times
    assert 0 <= times[0] < times[-1] <= information.duration


@needs_espeak
@pytest.mark.parametrize("words", ["two seven zero eight", "nine nine six", "five four three"])
def test_other_digits_are_heard_as_themselves(model, tmp_path, words):
    """What is heard follows from the sound: other digits, other words."""
    assert words == hear(model, say(tmp_path, words))


def test_half_a_recording_is_heard_as_its_first_words(model):
    """Words that were cut off are not heard."""
    samples = decode_audio(str(DIGITS / "recording.wav"))
    whole = hear(model, samples).split()

    half = hear(model, samples[: len(samples) // 2]).split()

    assert whole[:2] == half[:2]
    assert len(half) < len(whole)


def test_reversed_recording_is_heard_as_something_else(model):
    """The order of the sounds matters, not only which there are."""
    samples = decode_audio(str(DIGITS / "recording.wav"))

    assert hear(model, samples) != hear(model, samples[::-1].copy())


@pytest.mark.parametrize("loudness", [0.0, 0.001])
def test_silence_is_heard_as_nothing(model, loudness):
    """Silence and a faint hiss give no text when voice activity is looked for."""
    hiss = np.random.default_rng(0).normal(size=48_000) * loudness

    assert hear(model, hiss.astype(np.float32), vad_filter=True) == ""


def test_model_is_small():
    """The folder is small enough to be kept in the repository."""
    size = sum(path.stat().st_size for path in MODEL.iterdir())

    assert size <= BYTES_MAX


@pytest.mark.parametrize(("name", "language"), RECORDINGS)
def test_recordings_are_what_whisper_hears(name, language):
    """A recording is 16 kHz, mono, 16 bit and under 200 kB."""
    path = DIGITS / f"{name}.wav"
    with wave.open(str(path)) as recording:
        shape = (recording.getframerate(), recording.getnchannels(), recording.getsampwidth())

    assert shape == (16_000, 1, 2)
    assert path.stat().st_size < 200_000


def test_vocabulary_is_the_models():
    """The scripts number the tokens as the committed model does."""
    committed = json.loads((MODEL / "vocabulary.json").read_text(encoding="utf-8"))

    assert committed == vocabulary.TOKENS


def test_card_has_a_figure_for_each_set():
    """The card reports word error rates of all sets with speech, and texts heard in no speech."""
    rates = re.findall(r"^\| [^|]+ \| \d+ \| \d+\.\d% / \d+\.\d% \|", CARD, re.MULTILINE)

    assert len(rates) == 4
    assert re.search(r"\| text in \d+; with VAD in \d+ \|", CARD)


@pytest.mark.parametrize(
    "claim",
    [
        "license: mit",
        "python -m services.faster_whisper.digits.make --out",
        "python -m services.faster_whisper.digits.measure",
        "espeak-ng",
    ],
)
def test_card_says_how_it_was_made(claim):
    """The card names the licence, the commands and where the voices come from."""
    assert claim in CARD


@pytest.mark.parametrize(
    ("expected", "actual", "errors"),
    [
        ("one two three", "one two three", 0),
        ("one two three", "one three", 1),
        ("one two three", "one two two three", 1),
        ("one two three", "one six three", 1),
        ("", "one two", 2),
        ("one two", "", 2),
    ],
)
def test_word_errors_are_counted(expected, actual, errors):
    """Changes, insertions and deletions count one each."""
    assert errors == measure.count_errors(expected.split(), actual.split())


def lay_out(*starts: float) -> tuple[SpokenWord, ...]:
    """Words of 0.2 s; each is the digit of its place."""
    return tuple(SpokenWord(digit, start, start + 0.2) for digit, start in enumerate(starts))


@pytest.mark.parametrize(
    ("starts", "groups"),
    [
        ((0.0, 0.3, 0.6), [[0, 1, 2]]),
        ((0.0, 0.3, 1.0), [[0, 1], [2]]),
        ((0.0, 0.3, 0.6, 0.9, 1.2, 1.5, 1.8), [[0, 1, 2, 3, 4, 5], [6]]),
        ((0.0, 3.9), [[0]]),
        ((), []),
    ],
)
def test_segments_end_at_pauses(starts, groups):
    """A pause or six words end a segment; a word that barely begins is left out."""
    segments = split_segments(lay_out(*starts), seconds=4.0)

    assert groups == [[word.digit for word in segment.words] for segment in segments]


@pytest.mark.parametrize(
    ("style", "tokens"),
    [
        (Style(), ["<|en|>", "<|0.50|>", " zero", " one", "<|1.00|>", "<|endoftext|>"]),
        (Style(offset=50), ["<|en|>", "<|1.50|>", " zero", " one", "<|2.00|>", "<|endoftext|>"]),
        (Style(timestamps=False), ["<|en|>", " zero", " one", "<|endoftext|>"]),
    ],
)
def test_transcript_is_what_was_said(style, tokens):
    """A window is written as its language, then words between times, unless times are off."""
    window = Window(np.zeros(32_000, np.float32), "en", lay_out(0.5, 0.8), cut=False)

    transcript = write(np.random.default_rng(0), window, 2.0, style)
    written = [vocabulary.TOKENS[label] for label in transcript.labels if label >= 0]

    assert tokens == [token.replace("Ġ", " ") for token in written]


def hum(hertz: float, seconds: float, samples_per_second: int = 16_000) -> np.ndarray:
    """A tone, float32 [samples]."""
    ticks = np.arange(int(seconds * samples_per_second)) / samples_per_second
    return np.sin(2 * np.pi * hertz * ticks).astype(np.float32)


@pytest.mark.parametrize("source_hertz", [8_000, 22_050, 48_000])
def test_resampled_tone_keeps_its_pitch_and_length(source_hertz):
    """A tone at another rate has the same frequency and lasts as long."""
    sound = resample(hum(440, 1.0, source_hertz), source_hertz, 16_000)
    loudest = np.fft.rfftfreq(len(sound), 1 / 16_000)[np.abs(np.fft.rfft(sound)).argmax()]

    assert len(sound) == 16_000
    assert abs(loudest - 440) <= 1


@pytest.mark.parametrize("seed", range(3))
def test_batch_pairs_each_token_with_the_next(seed):
    """Where one word follows another in a transcript, it is what the row before asked for."""
    speakers = [
        Speaker(
            Voice(language=language, name=language),
            (Phrase((1, 2), hum(300, 0.5), (0.0, 0.25), (0.2, 0.45)),),
        )
        for language in vocabulary.LANGUAGES
    ]
    stage = Stage(steps=1, batch_size=16, seconds=4.0, scattered=True)

    batch = BatchMaker(np.random.default_rng(seed), speakers).make(stage, hardness_share=1.0)
    asked, read = batch.labels[:, :-1], batch.tokens[:, 1:]
    written = (asked >= 0) & (asked < vocabulary.END_OF_TEXT)

    assert batch.features.shape == (16, 80, 400)
    assert np.mean(asked[written] == read[written]) > 0.8  # a few are mistakes on purpose
    assert batch.spans.max() <= 199
    assert {0, 2, 3, 12, 13} == set(np.unique(batch.frame_words[:, :, 0]))
