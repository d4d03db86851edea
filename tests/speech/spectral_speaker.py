"""A voice as a few numbers, without weights: its pitch and the colour of its sound.

It tells espeak-ng's voices apart, and knows nothing of people. It knows pyannote's base class of
models; a checkpoint of it names this module, so whoever loads one needs the repository's root on
sys.path.
"""

import math

import torch
from pyannote.audio.core.model import Model
from torch import Tensor
from torch.nn import functional

FRAME_SAMPLES = 512  # 32 ms at 16 kHz: almost two periods of the lowest pitch
HOP_SAMPLES = 160
SPECTRUM_SAMPLES = 1024  # twice a frame, so that the autocorrelation does not wrap around
BANDS = 24
BAND_HERTZ_MIN, BAND_HERTZ_MAX = 150.0, 6000.0
PITCHES = 40
PITCH_HERTZ_MIN, PITCH_HERTZ_MAX = 60.0, 400.0
AUDIBLE_NEPERS = 5.0  # frames this far below the loudest in power say nothing of the voice
FRAMES_MIN = 10
FLOOR = 1e-10  # of power: silence
FLOOR_NEPERS = math.log(FLOOR)


class SpectralSpeaker(Model):
    """Embeds the masked part of each sound: float32 [batch, 1, samples] to [batch, dimension]."""

    def __init__(self, sample_rate: int = 16_000, num_channels: int = 1, task: None = None) -> None:
        """Take what pyannote passes to every model; there is nothing to choose."""
        super().__init__(sample_rate=sample_rate, num_channels=num_channels, task=task)
        # Buffers, so that they move to a device with the model.
        self.register_buffer("window", torch.hann_window(FRAME_SAMPLES))
        self.register_buffer("filters", _make_filters(sample_rate))
        self.register_buffer("lags", _make_lags(sample_rate))

    @property
    def dimension(self) -> int:
        """Numbers of one embedding."""
        return BANDS - 1 + PITCHES

    def num_frames(self, num_samples: int) -> int:
        """Frames of so many samples."""
        return 1 + (num_samples - FRAME_SAMPLES) // HOP_SAMPLES

    def receptive_field_size(self, num_frames: int = 1) -> int:
        """Samples that so many frames hear."""
        return FRAME_SAMPLES + (num_frames - 1) * HOP_SAMPLES

    def receptive_field_center(self, frame: int = 0) -> int:
        """The sample in the middle of a frame."""
        return FRAME_SAMPLES // 2 + frame * HOP_SAMPLES

    def forward(self, waveforms: Tensor, weights: Tensor | None = None) -> Tensor:
        """Embeddings; NaN where too little is audible, RuntimeError where not a frame fits.

        The weights, [batch, steps] from 0 to 1, say when the speaker speaks; None: always.
        """
        frames = waveforms[:, 0].unfold(-1, FRAME_SAMPLES, HOP_SAMPLES)
        frames = (frames - frames.mean(-1, keepdim=True)) * self.window
        power = torch.fft.rfft(frames, SPECTRUM_SAMPLES).abs() ** 2
        loudness = power.sum(-1).clamp_min(FLOOR).log()
        if weights is not None:
            mask = functional.interpolate(weights[:, None].float(), frames.shape[1], mode="nearest")
            loudness = loudness.masked_fill(mask[:, 0] == 0, FLOOR_NEPERS)
        loudest = loudness.amax(-1, keepdim=True)
        kept = (loudness > (loudest - AUDIBLE_NEPERS).clamp_min(FLOOR_NEPERS)).float()
        count = kept.sum(-1, keepdim=True)
        share = (kept / count.clamp_min(1))[..., None]
        embedding = torch.cat([self._colour(power, share), self._pitch(power, share)], dim=-1)
        return torch.where(count < FRAMES_MIN, torch.nan, embedding)

    def _colour(self, power: Tensor, share: Tensor) -> Tensor:
        """How the mean spectrum rises and falls from band to band: loudness drops out."""
        bands = (power @ self.filters).clamp_min(FLOOR).log()
        return functional.normalize((bands * share).sum(1).diff(dim=-1), dim=-1)

    def _pitch(self, power: Tensor, share: Tensor) -> Tensor:
        """How alike the sound is one period later, for the periods of voices.

        It is squared, so that peaks count, and divided by the window's own, which falls.
        """
        window_power = torch.fft.rfft(self.window, SPECTRUM_SAMPLES).abs() ** 2
        alike = torch.fft.irfft(power) / torch.fft.irfft(window_power)
        relative = alike[..., self.lags] / alike[..., :1].clamp_min(FLOOR)
        return functional.normalize((relative.clamp(0, 1) ** 2 * share).sum(1), dim=-1)


def _make_filters(sample_rate: int) -> Tensor:
    """Triangles, evenly apart in the logarithm of their frequency: [bins, BANDS]."""
    hertz = torch.fft.rfftfreq(SPECTRUM_SAMPLES, 1 / sample_rate).clamp_min(1)
    lowest, highest = math.log(BAND_HERTZ_MIN), math.log(BAND_HERTZ_MAX)
    centres = torch.linspace(lowest, highest, BANDS)
    width = (highest - lowest) / (BANDS - 1)
    return (1 - (hertz.log()[:, None] - centres).abs() / width).clamp_min(0)


def _make_lags(sample_rate: int) -> Tensor:
    """Periods in samples, evenly apart in the logarithm of their pitch: int64 [PITCHES]."""
    lowest, highest = math.log10(PITCH_HERTZ_MIN), math.log10(PITCH_HERTZ_MAX)
    return (sample_rate / torch.logspace(lowest, highest, PITCHES)).round().long()
