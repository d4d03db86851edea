"""The trained network as a folder that faster_whisper.WhisperModel loads.

It knows CTranslate2's layout of a Whisper model, and the files that faster-whisper looks for.
"""

import json
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from ctranslate2.specs import common_spec, model_spec, transformer_spec, whisper_spec
from torch import Tensor, nn

from services.faster_whisper.digits.network import (
    ALIGNMENT_HEADS,
    HEADS,
    LAYERS,
    MEL_BANDS,
    Attention,
    DigitsNetwork,
    FeedForward,
)
from services.faster_whisper.digits.vocabulary import LANGUAGE_IDS, TOKENS, write_tokenizer

# What faster-whisper's feature extractor is made with; Whisper's own values.
PREPROCESSOR = {
    "feature_extractor_type": "WhisperFeatureExtractor",
    "feature_size": MEL_BANDS,
    "sampling_rate": 16_000,
    "hop_length": 160,
    "chunk_length": 30,
    "n_fft": 400,
    "padding_value": 0.0,
}


def save(network: DigitsNetwork, folder: Path) -> None:
    """Write the model folder; files that are there already are replaced."""
    folder.mkdir(parents=True, exist_ok=True)
    spec = whisper_spec.WhisperSpec(LAYERS, HEADS, LAYERS, HEADS)
    _fill_encoder(spec.encoder, network)
    _fill_decoder(spec.decoder, network)
    spec.config.suppress_ids = []
    spec.config.suppress_ids_begin = []
    spec.config.lang_ids = sorted(LANGUAGE_IDS.values())
    spec.config.alignment_heads = [[LAYERS - 1, head] for head in ALIGNMENT_HEADS]
    spec.register_vocabulary(list(TOKENS))
    spec.validate()
    spec.optimize(quantization="int8_float16")
    spec.save(str(folder))
    write_tokenizer(folder)
    preprocessor = json.dumps(PREPROCESSOR, indent=1) + "\n"
    (folder / "preprocessor_config.json").write_text(preprocessor, encoding="utf-8")


def _fill_encoder(spec: whisper_spec.WhisperEncoderSpec, network: DigitsNetwork) -> None:
    for target, source in zip((spec.conv1, spec.conv2), network.stem, strict=True):
        target.weight, target.bias = _to_array(source.kernel()), _to_array(source.bias)
    spec.position_encodings.encodings = _to_array(network.frame_positions)
    _fill_norm(spec.layer_norm, network.encoder_norm)
    for target, source in zip(spec.layer, network.encoder, strict=True):
        _fill_self_attention(target.self_attention, source.norm, source.attention)
        _fill_feed_forward(target.ffn, source.feed_forward)


def _fill_decoder(spec: transformer_spec.TransformerDecoderSpec, network: DigitsNetwork) -> None:
    spec.embeddings.weight = _to_array(network.embedding)
    spec.projection.weight = _to_array(network.embedding)
    spec.position_encodings.encodings = _to_array(network.positions)
    _fill_norm(spec.layer_norm, network.decoder_norm)
    for target, source in zip(spec.layer, network.decoder, strict=True):
        _fill_self_attention(target.self_attention, source.norm, source.attention)
        cross = source.cross_attention
        _fill_norm(target.attention.layer_norm, source.cross_norm)
        _fill_linear(target.attention.linear[0], cross.query)
        _fill_linear(target.attention.linear[1], cross.key, cross.value)
        _fill_linear(target.attention.linear[2], cross.output)
        _fill_feed_forward(target.ffn, source.feed_forward)


def _fill_self_attention(
    spec: model_spec.LayerSpec, norm: nn.LayerNorm, attention: Attention
) -> None:
    _fill_norm(spec.layer_norm, norm)
    _fill_linear(spec.linear[0], attention.query, attention.key, attention.value)
    _fill_linear(spec.linear[1], attention.output)


def _fill_feed_forward(spec: model_spec.LayerSpec, feed_forward: FeedForward) -> None:
    _fill_norm(spec.layer_norm, feed_forward.norm)
    _fill_linear(spec.linear_0, feed_forward.widen)
    _fill_linear(spec.linear_1, feed_forward.narrow)


def _fill_norm(spec: common_spec.LayerNormSpec, norm: nn.LayerNorm) -> None:
    spec.gamma, spec.beta = _to_array(norm.weight), _to_array(norm.bias)


def _fill_linear(spec: common_spec.LinearSpec, *linears: nn.Linear) -> None:
    """CTranslate2 has the projections of one input fused, one under another."""
    spec.weight = _to_array(torch.cat([linear.weight for linear in linears]))
    spec.bias = _to_array(torch.cat([linear.bias for linear in linears]))


def _to_array(tensor: Tensor) -> npt.NDArray[np.float32]:
    array: npt.NDArray[np.float32] = tensor.detach().float().contiguous().numpy().copy()
    return array
