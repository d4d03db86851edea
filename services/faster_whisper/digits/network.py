"""Whisper's network, tiny, in plain PyTorch.

It knows the architecture and how its weights start; it knows neither sound nor files.

Normalised before each block, sinusoids for the encoder's positions, learned ones for the decoder's,
the output tied to the embedding: as in https://github.com/openai/whisper/blob/main/whisper/model.py.
Every weight that is a matrix is stored as one, the convolutions' too, so that Muon can train it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from services.faster_whisper.digits.vocabulary import (
    DIGIT_COUNT,
    LANGUAGES,
    TIMESTAMP_ZERO,
    TOKENS,
)

WIDTH = 96
HEADS = 4
LAYERS = 2  # of the encoder, and of the decoder
MEL_BANDS = 80
FRAMES = 1500  # of 20 ms, after the stride of the second convolution
POSITIONS = 448

# The decoder's last layer learns to look at the word it writes with these heads.
ALIGNMENT_HEADS = (0, 1)

# What a 20 ms frame may hold: nothing, or a digit of a language.
FRAME_CLASSES = 1 + DIGIT_COUNT * len(LANGUAGES)

# How far (in frames) each encoder head looks at first, by layer.
_REACHES = ((-8.0, -2.5, 2.5, 8.0), (-20.0, -6.0, 6.0, 20.0))
_REACH_SHARPNESS = 1.6
_TIMESTAMP_SCALE = 0.3
_POSITION_SCALE = 0.1
_STEM_SCALE = 2.5


def make_sinusoids(count: int, width: int) -> Tensor:
    """Whisper's sines and cosines: float32 [count, width]."""
    step = math.log(10_000) / (width // 2 - 1)
    angles = torch.arange(count)[:, None] * torch.exp(-step * torch.arange(width // 2))[None]
    return torch.cat([angles.sin(), angles.cos()], dim=1)


class Convolution(nn.Module):
    """A convolution over three frames whose weight is a matrix [outputs, 3 * inputs]."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        """Start like torch's own, then scaled up: found to learn sooner."""
        super().__init__()
        bound = 1 / math.sqrt(3 * inputs)
        self.stride = stride
        self.weight = nn.Parameter(torch.empty(outputs, 3 * inputs).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(outputs).uniform_(-bound, bound))
        self.weight.data.mul_(_STEM_SCALE)

    def kernel(self) -> Tensor:
        """The weight as a convolution has it: [outputs, inputs, 3]."""
        return self.weight.view(len(self.weight), -1, 3)

    def forward(self, sound: Tensor) -> Tensor:
        """[batch, inputs, frames] to [batch, outputs, frames / stride]."""
        return functional.gelu(
            functional.conv1d(sound, self.kernel(), self.bias, self.stride, padding=1)
        )


class Attention(nn.Module):
    """Attention of several heads; the four projections are kept apart for the optimiser."""

    def __init__(self) -> None:
        """Start as torch does."""
        super().__init__()
        self.query, self.key, self.value, self.output = (nn.Linear(WIDTH, WIDTH) for _ in range(4))

    def _split(self, states: Tensor) -> Tensor:
        batch, length, width = states.shape
        return states.view(batch, length, HEADS, width // HEADS).transpose(1, 2)

    def _join(self, states: Tensor) -> Tensor:
        return self.output(states.transpose(1, 2).flatten(2))

    def forward(self, states: Tensor, source: Tensor, *, causal: bool = False) -> Tensor:
        """What the states find in the source."""
        query, key = self._split(self.query(states)), self._split(self.key(source))
        value = self._split(self.value(source))
        return self._join(
            functional.scaled_dot_product_attention(query, key, value, is_causal=causal)
        )

    def forward_with_weights(self, states: Tensor, source: Tensor) -> tuple[Tensor, Tensor]:
        """The same, and where they looked: [batch, heads, states, source]."""
        query, key = self._split(self.query(states)), self._split(self.key(source))
        scores = query @ key.transpose(-1, -2) / math.sqrt(WIDTH // HEADS)
        weights = scores.softmax(-1)
        return self._join(weights @ self._split(self.value(source))), weights


class FeedForward(nn.Module):
    """Whisper's two linear layers with their norm."""

    def __init__(self) -> None:
        """Start as torch does."""
        super().__init__()
        self.norm = nn.LayerNorm(WIDTH)
        self.widen = nn.Linear(WIDTH, 4 * WIDTH)
        self.narrow = nn.Linear(4 * WIDTH, WIDTH)

    def forward(self, states: Tensor) -> Tensor:
        """What is to be added to the states."""
        return self.narrow(functional.gelu(self.widen(self.norm(states))))


class EncoderLayer(nn.Module):
    """Sound looks at sound."""

    def __init__(self) -> None:
        """Start as torch does."""
        super().__init__()
        self.norm = nn.LayerNorm(WIDTH)
        self.attention = Attention()
        self.feed_forward = FeedForward()

    def forward(self, states: Tensor) -> Tensor:
        """[batch, frames, width] to the same."""
        normed = self.norm(states)
        states = states + self.attention(normed, normed)
        return states + self.feed_forward(states)


class DecoderLayer(nn.Module):
    """Text looks at the text before it, then at the sound."""

    def __init__(self) -> None:
        """Start as torch does."""
        super().__init__()
        self.norm = nn.LayerNorm(WIDTH)
        self.attention = Attention()
        self.cross_norm = nn.LayerNorm(WIDTH)
        self.cross_attention = Attention()
        self.feed_forward = FeedForward()

    def forward(self, states: Tensor, sound: Tensor) -> tuple[Tensor, Tensor]:
        """[batch, tokens, width] to the same, and where each token looked in the sound."""
        normed = self.norm(states)
        states = states + self.attention(normed, normed, causal=True)
        heard, weights = self.cross_attention.forward_with_weights(self.cross_norm(states), sound)
        states = states + heard
        return states + self.feed_forward(states), weights


@dataclass(frozen=True)
class Reading:
    """What the decoder made of a batch."""

    scores: Tensor  # [kept tokens, vocabulary]
    attention: Tensor  # [batch, alignment heads, tokens, frames]


class DigitsNetwork(nn.Module):
    """The whole network; word_frames is there for training only."""

    def __init__(self) -> None:
        """Start so that training is short: see _prime."""
        super().__init__()
        self.stem = nn.Sequential(
            Convolution(MEL_BANDS, WIDTH, stride=1), Convolution(WIDTH, WIDTH, stride=2)
        )
        self.register_buffer("frame_positions", make_sinusoids(FRAMES, WIDTH))
        self.encoder = nn.ModuleList(EncoderLayer() for _ in range(LAYERS))
        self.encoder_norm = nn.LayerNorm(WIDTH)
        self.text_embedding = nn.Parameter(0.05 * torch.randn(TIMESTAMP_ZERO, WIDTH))
        # A smooth ramp to begin with: neighbouring times are alike from the first step on.
        self.time_embedding = nn.Parameter(
            _TIMESTAMP_SCALE * make_sinusoids(len(TOKENS) - TIMESTAMP_ZERO, WIDTH)
        )
        rotation = torch.linalg.qr(torch.randn(WIDTH, WIDTH))[0]
        self.positions = nn.Parameter(_POSITION_SCALE * make_sinusoids(POSITIONS, WIDTH) @ rotation)
        self.decoder = nn.ModuleList(DecoderLayer() for _ in range(LAYERS))
        self.decoder_norm = nn.LayerNorm(WIDTH)
        self.word_frames = nn.Linear(WIDTH, 2 * FRAME_CLASSES)
        with torch.no_grad():
            self._prime()

    @property
    def embedding(self) -> Tensor:
        """One row per token."""
        return torch.cat([self.text_embedding, self.time_embedding])

    def encode(self, features: Tensor, offsets: Sequence[int]) -> Tensor:
        """Log-mel [batch, 80, frames * 2] that begin at these frames to [batch, frames, width]."""
        states = self.stem(features).transpose(1, 2)
        length = states.shape[1]
        states = states + torch.stack(
            [self.frame_positions[offset : offset + length] for offset in offsets]
        )
        for layer in self.encoder:
            states = layer(states)
        return self.encoder_norm(states)

    def decode(self, tokens: Tensor, sound: Tensor, kept: Tensor, shifts: Tensor) -> Reading:
        """Scores of the tokens that follow those in kept (a mask); shifts move the positions."""
        embedding = self.embedding
        places = shifts[:, None] + torch.arange(tokens.shape[1])
        states = functional.embedding(tokens, embedding)
        states = states + self.positions[places.clamp_max(POSITIONS - 1)]
        weights = torch.empty(0)
        for layer in self.decoder:
            states, weights = layer(states, sound)
        scores = functional.linear(self.decoder_norm(states[kept]), embedding)
        return Reading(scores, weights[:, list(ALIGNMENT_HEADS)])

    def classify_frames(self, sound: Tensor) -> Tensor:
        """Scores [batch, frames, 2, classes] of the word in each frame, and of the one before."""
        return self.word_frames(sound).view(*sound.shape[:2], 2, FRAME_CLASSES)

    def _prime(self) -> None:
        """Start the heads with a sense of place: near sounds first, a time at its own frame."""
        size = WIDTH // HEADS
        for layer, reaches in zip(self.encoder, _REACHES, strict=True):
            for head, reach in enumerate(reaches):
                rows = slice(head * size, (head + 1) * size)
                query, key = _make_reach(reach, highest=round(0.21 * WIDTH))
                for linear, look in ((layer.attention.query, query), (layer.attention.key, key)):
                    noise = 0.02 * torch.randn(size, WIDTH)
                    linear.weight[rows] = _REACH_SHARPNESS * look + noise
        for layer in self.decoder:
            attention = layer.cross_attention
            for head in ALIGNMENT_HEADS:
                rows = slice(head * size, (head + 1) * size)
                query, key = _make_reach(0.0, highest=WIDTH // 2 - 1)
                for linear, look in ((attention.query, query), (attention.key, key)):
                    linear.weight[rows] = look + 0.02 * torch.randn(size, WIDTH)


def _make_reach(reach: float, highest: int) -> tuple[Tensor, Tensor]:
    """Query and key rows of one head that meet where positions differ by reach frames.

    Each pair of rows takes one frequency of the sinusoids; the query turns it by the reach.
    """
    size, half = WIDTH // HEADS, WIDTH // 2
    query, key = torch.zeros(size, WIDTH), torch.zeros(size, WIDTH)
    frequencies = torch.linspace(0, highest, size // 2).round().int().tolist()
    for pair, frequency in enumerate(frequencies):
        angle = reach * math.exp(-math.log(10_000) / (half - 1) * frequency)
        sine, cosine = 2 * pair, 2 * pair + 1
        query[sine, frequency] = query[cosine, half + frequency] = math.cos(angle)
        query[sine, half + frequency] = math.sin(angle)
        query[cosine, frequency] = -math.sin(angle)
        key[sine, frequency] = key[cosine, half + frequency] = 1.0
    return query, key
