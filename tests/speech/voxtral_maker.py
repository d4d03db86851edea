"""Makes tiny Voxtrals that transformers loads: with random weights, or with words of their own.

    python -m tests.speech.voxtral_maker DIR [WORD]...

It knows how the folders are laid out: config, weights, and Mistral's tokenizer (tekken). Random
weights write what depends on the sound, and means nothing; a script is written whatever is heard.
"""

import argparse
import base64
import json
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import torch
from transformers import (
    VoxtralConfig,
    VoxtralForConditionalGeneration,
    VoxtralProcessor,
    WhisperFeatureExtractor,
)
from transformers.tokenization_mistral_common import MistralCommonBackend
from transformers.utils.logging import disable_progress_bar

disable_progress_bar()

# What the fixture `voxtral_model` writes, token by token.
HEARD = (" bonjour", " ceci", " est", " un", " essai")
ANSWERED = (
    '{"sentiment": "positif",',
    ' "score": 0.5,',
    ' "emotions": ["joie"],',
    ' "satisfaction_client": "satisfait"}',
)

SEED = 0
# The places of Voxtral's own tokenizer; 24 is fixed in transformers' processor.
SPECIAL_TOKENS = {
    0: "<unk>",
    1: "<s>",
    2: "</s>",
    3: "[INST]",
    4: "[/INST]",
    5: "[AVAILABLE_TOOLS]",
    6: "[/AVAILABLE_TOOLS]",
    7: "[TOOL_RESULTS]",
    8: "[/TOOL_RESULTS]",
    9: "[TOOL_CALLS]",
    10: "[IMG]",
    11: "<pad>",
    12: "[IMG_BREAK]",
    13: "[IMG_END]",
    14: "[PREFIX]",
    15: "[MIDDLE]",
    16: "[SUFFIX]",
    17: "[SYSTEM_PROMPT]",
    18: "[/SYSTEM_PROMPT]",
    19: "[TOOL_CONTENT]",
    24: "[AUDIO]",
    25: "[BEGIN_AUDIO]",
    34: "[TRANSCRIBE]",
}
BEGIN, END, PAD = 1, 2, 11
# What a prompt ends with: where the model begins to write.
TRANSCRIBE, ANSWER = 34, 4
SPECIAL_COUNT = 40
BYTES = 256
# How Mistral cuts text into words.
WORDS = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s+"


def make_voxtral(
    folder: Path,
    *,
    heard: Sequence[str] = (),
    answered: Sequence[str] = (),
    endless: bool = False,
) -> None:
    """Write a model: of random weights, or one that writes `heard` for any sound.

    `answered` is what it answers to any prompt of text. Each is a token, and may be there once. An
    `endless` one begins again after the last.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tokens = [*heard, *answered]
    assert len(set(tokens)) == len(tokens), tokens
    _write_tokenizer(folder, tokens)
    torch.manual_seed(SEED)
    model = VoxtralForConditionalGeneration(_config(SPECIAL_COUNT + BYTES + len(tokens)))
    if tokens:
        first = SPECIAL_COUNT + BYTES
        numbers = range(first, first + len(tokens))
        _write_script(
            model,
            [(TRANSCRIBE, list(numbers[: len(heard)])), (ANSWER, list(numbers[len(heard) :]))],
            endless=endless,
        )
    own = model.generation_config
    own.bos_token_id, own.eos_token_id, own.pad_token_id = BEGIN, END, PAD
    model.save_pretrained(folder)
    tokenizer = MistralCommonBackend.from_pretrained(str(folder))
    VoxtralProcessor(WhisperFeatureExtractor(feature_size=128), tokenizer).save_pretrained(folder)


def _write_tokenizer(folder: Path, tokens: Sequence[str]) -> None:
    vocabulary = [(bytes([byte]), None) for byte in range(BYTES)]
    vocabulary += [(token.encode(), token) for token in tokens]
    described = {
        "config": {
            "pattern": WORDS,
            "num_vocab_tokens": len(vocabulary),
            "default_vocab_size": SPECIAL_COUNT + len(vocabulary),
            "default_num_special_tokens": SPECIAL_COUNT,
            "version": "v7",
        },
        "vocab": [
            {"rank": rank, "token_bytes": base64.b64encode(raw).decode(), "token_str": token}
            for rank, (raw, token) in enumerate(vocabulary)
        ],
        "special_tokens": [
            {
                "rank": rank,
                "token_str": SPECIAL_TOKENS.get(rank, f"<SPECIAL_{rank}>"),
                "is_control": True,
            }
            for rank in range(SPECIAL_COUNT)
        ],
        "audio": {
            "sampling_rate": 16_000,
            "frame_rate": 12.5,
            "audio_encoding_config": {"num_mel_bins": 128, "hop_length": 160, "window_size": 400},
            "chunk_length_s": 30.0,
        },
    }
    (folder / "tekken.json").write_text(json.dumps(described))


def _config(vocabulary_size: int) -> VoxtralConfig:
    return VoxtralConfig(
        audio_config={
            "hidden_size": 32,
            "intermediate_size": 128,  # four times the other: four frames become one token
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "num_mel_bins": 128,
            "max_source_positions": 1500,
        },
        text_config={
            "model_type": "llama",
            "vocab_size": vocabulary_size,
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "num_key_value_heads": 2,
            "head_dim": 32,
            "max_position_embeddings": 8192,
            "rope_theta": 1e6,
            "bos_token_id": BEGIN,
            "eos_token_id": END,
            "pad_token_id": PAD,
        },
        audio_token_id=24,
    )


def _write_script(
    model: VoxtralForConditionalGeneration,
    scripts: Sequence[tuple[int, list[int]]],
    *,
    endless: bool,
) -> None:
    """Make a table of it, from each token to the next: every layer adds nothing."""
    follows = {
        before: after
        for begin, tokens in scripts
        for before, after in pairwise([begin, *tokens, tokens[0] if endless and tokens else END])
    }
    size = model.config.text_config.hidden_size
    assert len(follows) < size, "a token that is followed takes a dimension of its own"
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(("o_proj.weight", "down_proj.weight")):
                parameter.zero_()
        embedded, written = model.get_input_embeddings().weight, model.lm_head.weight
        embedded.zero_()
        written.zero_()
        # After all others, the end.
        embedded[:, size - 1] = 1
        written[END, size - 1] = 1
        for place, (before, after) in enumerate(follows.items()):
            embedded[before] = 0
            embedded[before, place] = 1
            written[after, place] = 1


def main() -> None:
    """Make one in the folder that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path, metavar="DIR")
    parser.add_argument("words", nargs="*", metavar="WORD")
    given = parser.parse_args()
    make_voxtral(given.folder, heard=[f" {word}" for word in given.words])


if __name__ == "__main__":
    main()
