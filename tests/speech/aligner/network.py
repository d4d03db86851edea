"""The aligner's network: a Wav2Vec2ForCTC, small, whose first layer starts as a filter bank.

It knows weights and shapes; sounds and words are lessons.py's concern.
"""

import math

import torch
from torch import Tensor
from transformers import Wav2Vec2Config, Wav2Vec2ForCTC

from tests.speech.makers import LABELS

SAMPLES_PER_SECOND = 16_000
CHANNELS = 48
# One frame each 20 ms, as whisperx expects of wav2vec2, hearing 25 ms: 400 samples, the least that
# whisperx gives it. Wide kernels first, where wav2vec2 has narrow ones, so that a layer can tell
# frequencies apart without the depth.
KERNELS, STRIDES = (50, 8, 4, 2), (10, 4, 4, 2)
SAMPLES_PER_FRAME = math.prod(STRIDES)
FILTER_HERTZ_MIN, FILTER_HERTZ_MAX = 120.0, 6500.0


def make_network() -> Wav2Vec2ForCTC:
    """The network before training."""
    config = Wav2Vec2Config(
        vocab_size=len(LABELS),
        pad_token_id=LABELS.index("<pad>"),
        conv_dim=(CHANNELS,) * len(KERNELS),
        conv_kernel=KERNELS,
        conv_stride=STRIDES,
        num_feat_extract_layers=len(KERNELS),
        hidden_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=256,
        num_conv_pos_embeddings=32,  # frames: a third of a second to either side, most of a word
        num_conv_pos_embedding_groups=4,
        apply_spec_augment=False,
        layerdrop=0.0,
        attention_dropout=0.0,
        hidden_dropout=0.0,
        activation_dropout=0.0,
        feat_proj_dropout=0.0,
        final_dropout=0.0,
    )
    network = Wav2Vec2ForCTC(config)
    with torch.no_grad():
        network.wav2vec2.feature_extractor.conv_layers[0].conv.weight.copy_(
            _make_filters()[:, None]
        )
    return network


def _make_filters() -> Tensor:
    """Short waves of rising frequency, each as sine and cosine: float32 [CHANNELS, samples]."""
    exponents = torch.linspace(0, 1, CHANNELS // 2)[:, None]
    hertz = FILTER_HERTZ_MIN * (FILTER_HERTZ_MAX / FILTER_HERTZ_MIN) ** exponents
    seconds = torch.arange(KERNELS[0]) / SAMPLES_PER_SECOND
    turns = 2 * torch.pi * hertz * seconds
    waves = torch.cat([turns.sin(), turns.cos()]) * torch.hann_window(KERNELS[0])
    return waves / waves.norm(dim=-1, keepdim=True)
