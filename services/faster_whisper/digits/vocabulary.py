"""The tokens of the digits model: what they spell, which number each has, and the tokenizer file.

It knows text and numbers only: no audio, no network.

The layout is Whisper's, made small: 256 bytes, the digit words, the special tokens and the 1,501
timestamps of a 30 s window. faster-whisper looks the special tokens up by name, so their names are
Whisper's own; and it counts every number above <|notimestamps|> as a time, so timestamps are last.
"""

from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

LANGUAGES = ("en", "fr")
WORDS = {
    "en": ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"),
    "fr": ("zéro", "un", "deux", "trois", "quatre", "cinq", "six", "sept", "huit", "neuf"),
}
DIGIT_COUNT = 10

# Whisper's grid of times: https://github.com/openai/whisper/blob/main/whisper/tokenizer.py
SECONDS_PER_TIMESTAMP = 0.02
TIMESTAMP_LAST = 1500

BYTE_COUNT = 256


def visible_bytes() -> list[str]:
    """The character that byte-level BPE writes for each byte, as GPT-2 defined them."""
    printable = {*range(33, 127), *range(161, 173), *range(174, BYTE_COUNT)}
    hidden = [byte for byte in range(BYTE_COUNT) if byte not in printable]
    return [
        chr(byte) if byte in printable else chr(BYTE_COUNT + hidden.index(byte))
        for byte in range(BYTE_COUNT)
    ]


def spell(word: str) -> str:
    """A word with the space before it, as a byte-level vocabulary writes it."""
    characters = visible_bytes()
    return "".join(characters[byte] for byte in f" {word}".encode())


def _list_text_tokens() -> list[str]:
    """Bytes and words; the empty token last, by which CTranslate2 tells a multilingual model."""
    words = [spell(word) for language in LANGUAGES for word in WORDS[language]]
    return [*visible_bytes(), *dict.fromkeys(words), ""]  # "six" is both English and French


TEXT_TOKENS = _list_text_tokens()
SPECIAL_TOKENS = [
    "<|endoftext|>",
    "<|startoftranscript|>",
    *(f"<|{language}|>" for language in LANGUAGES),
    "<|translate|>",
    "<|transcribe|>",
    "<|startoflm|>",
    "<|startofprev|>",
    "<|nospeech|>",
    "<|notimestamps|>",
]
TIMESTAMP_TOKENS = [
    f"<|{index * SECONDS_PER_TIMESTAMP:.2f}|>" for index in range(TIMESTAMP_LAST + 1)
]
TOKENS = [*TEXT_TOKENS, *SPECIAL_TOKENS, *TIMESTAMP_TOKENS]

_IDS = {token: number for number, token in enumerate(TOKENS)}

END_OF_TEXT = _IDS["<|endoftext|>"]
START_OF_TRANSCRIPT = _IDS["<|startoftranscript|>"]
START_OF_PREVIOUS = _IDS["<|startofprev|>"]
NO_SPEECH = _IDS["<|nospeech|>"]
NO_TIMESTAMPS = _IDS["<|notimestamps|>"]
TIMESTAMP_ZERO = NO_TIMESTAMPS + 1
TASK_IDS = {task: _IDS[f"<|{task}|>"] for task in ("transcribe", "translate")}
LANGUAGE_IDS = {language: _IDS[f"<|{language}|>"] for language in LANGUAGES}
WORD_IDS = {language: [_IDS[spell(word)] for word in WORDS[language]] for language in LANGUAGES}


def write_tokenizer(folder: Path) -> None:
    """Write tokenizer.json, which faster-whisper reads, into an existing folder."""
    words = {token: _IDS[token] for token in TEXT_TOKENS}
    # ignore_merges takes a whole word if the vocabulary has it, else its bytes: no merges needed.
    tokenizer = Tokenizer(models.BPE(vocab=words, merges=[], ignore_merges=True))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(
        [AddedToken(token, special=True, normalized=False) for token in SPECIAL_TOKENS]
    )
    tokenizer.add_tokens(
        [AddedToken(token, special=False, normalized=False) for token in TIMESTAMP_TOKENS]
    )
    for token, number in _IDS.items():
        assert not token or tokenizer.token_to_id(token) == number, (token, number)
    tokenizer.save(str(folder / "tokenizer.json"), pretty=False)
