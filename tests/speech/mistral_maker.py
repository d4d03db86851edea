"""Makes a folder as Mistral lays it out, which vLLM loads, of one as transformers does.

Mistral's names of the weights are those that vLLM 0.33 translates back.
"""

import json
import re
import shutil
from pathlib import Path

from safetensors.numpy import load_file, save_file

PARAMETERS = {"mlp.gate_proj": "feed_forward.w1", "mlp.down_proj": "feed_forward.w2"}
PARAMETERS |= {"mlp.up_proj": "feed_forward.w3", "fc1": "feed_forward.w1"}
PARAMETERS |= {"fc2": "feed_forward.w2", "self_attn.o_proj": "attention.wo"}
PARAMETERS |= {f"self_attn.{kind}_proj": f"attention.w{kind}" for kind in "qkv"}
PARAMETERS |= {"self_attn.out_proj": "attention.wo", "input_layernorm": "attention_norm"}
PARAMETERS |= {"self_attn_layer_norm": "attention_norm", "final_layer_norm": "ffn_norm"}
PARAMETERS |= {"post_attention_layernorm": "ffn_norm"}
WHOLE = {
    "language_model.model.embed_tokens": "mm_whisper_embeddings.tok_embeddings",
    "language_model.model.norm": "norm",
    "language_model.lm_head": "output",
    "multi_modal_projector.linear_1": "mm_whisper_embeddings.audio_language_projection.0",
    "multi_modal_projector.linear_2": "mm_whisper_embeddings.audio_language_projection.2",
    "audio_tower.conv1": "mm_whisper_embeddings.whisper_encoder.conv_layers.0",
    "audio_tower.conv2": "mm_whisper_embeddings.whisper_encoder.conv_layers.1",
    "audio_tower.layer_norm": "mm_whisper_embeddings.whisper_encoder.transformer.norm",
}
LAYERS = {
    "language_model.model.layers": "layers",
    "audio_tower.layers": "mm_whisper_embeddings.whisper_encoder.transformer.layers",
}
# They are computed, not learned.
POSITIONS = "audio_tower.embed_positions.weight"


def make_mistral(source: Path, folder: Path) -> None:
    """Write params.json, consolidated.safetensors and tekken.json."""
    folder.mkdir(parents=True)
    shutil.copy(source / "tekken.json", folder)
    weights = load_file(source / "model.safetensors")
    renamed = {_rename(name): weights[name] for name in weights if name != POSITIONS}
    save_file(renamed, folder / "consolidated.safetensors")
    config = json.loads((source / "config.json").read_text())
    sound, text = config["audio_config"], config["text_config"]
    encoder = {
        "dim": sound["hidden_size"],
        "n_layers": sound["num_hidden_layers"],
        "n_heads": sound["num_attention_heads"],
        "head_dim": sound["hidden_size"] // sound["num_attention_heads"],
        "hidden_dim": sound["intermediate_size"],
        "vocab_size": 51866,
        "max_source_positions": sound["max_source_positions"],
        "audio_encoding_args": {
            "sampling_rate": 16000,
            "num_mel_bins": sound["num_mel_bins"],
            "hop_length": 160,
            "window_size": 400,
        },
    }
    heard = {"encoder_args": encoder, "downsample_args": {"downsample_factor": 4}}
    parameters = {
        "dim": text["hidden_size"],
        "n_layers": text["num_hidden_layers"],
        "n_heads": text["num_attention_heads"],
        "n_kv_heads": text["num_key_value_heads"],
        "head_dim": text["head_dim"],
        "hidden_dim": text["intermediate_size"],
        "vocab_size": text["vocab_size"],
        "rope_theta": 1e6,
        "norm_eps": 1e-5,
        "max_position_embeddings": 32768,
        "multimodal": {"whisper_model_args": heard},
    }
    (folder / "params.json").write_text(json.dumps(parameters))


def _rename(name: str) -> str:
    rest, _, kind = name.rpartition(".")
    if rest in WHOLE:
        return f"{WHOLE[rest]}.{kind}"
    layer = re.fullmatch(r"(.*\.layers)\.(\d+)\.(.*)", rest)
    assert layer is not None, name
    return f"{LAYERS[layer[1]]}.{layer[2]}.{PARAMETERS[layer[3]]}.{kind}"
