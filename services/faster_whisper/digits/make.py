"""Makes the digits model: records speakers with espeak-ng, trains the network, writes the folder.

    python -m services.faster_whisper.digits.make --out DIR

DIR/model is what faster_whisper.WhisperModel loads. It is written anew every 200 steps, so a run
that is cut short leaves its last. Needs espeak-ng, torch and faster-whisper.
"""

import argparse
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from services.faster_whisper.digits import conversion
from services.faster_whisper.digits.batches import Batch, Stage, stream
from services.faster_whisper.digits.network import POSITIONS, DigitsNetwork
from services.faster_whisper.digits.speech import record_speakers
from services.faster_whisper.digits.transcripts import IGNORED
from services.faster_whisper.digits.vocabulary import (
    END_OF_TEXT,
    START_OF_TRANSCRIPT,
)

log = logging.getLogger("digits")

# Short windows first: what a word sounds like is learned many times faster there.
STAGES = (
    Stage(steps=500, batch_size=32, seconds=4.0, scattered=True),
    Stage(steps=1000, batch_size=24, seconds=8.0, scattered=True),
    Stage(steps=300, batch_size=12, seconds=16.0, scattered=True),
    Stage(steps=1000, batch_size=8, seconds=30.0, scattered=False),
)
WINDOW_SECONDS = 30.0  # Whisper's
EASY_SHARE = 0.15  # of all steps
WARM_UP_STEPS = 30
DECAY_SHARE = 0.6  # of all steps: the rate falls to a fiftieth over the last ones
RATE_LAST = 0.02
FRAMES_SHARE = 0.5  # of all steps: while these last, naming frames weighs as much as writing
SHIFTED_SHARE = 0.4  # of the rows without text before
CHECKPOINT_STEPS = 200
REPORT_STEPS = 50

# Muon for the matrices, AdamW for the rest; the rates were found by trial.
MATRIX_RATE = 0.02
REST_RATE = 5e-3
TIME_RATE = 0.05 * REST_RATE  # slow, or the ramp of times that they start as is torn


@dataclass(frozen=True)
class Losses:
    """What the network is taught at once: to write, where to look, and what each frame is."""

    text: Tensor
    attention: Tensor
    frames: Tensor
    words_right: float = field(repr=False)

    def read(self) -> tuple[float, float, float, float]:
        """The same as numbers, for the log."""
        text, attention, frames = (
            float(loss.detach()) for loss in (self.text, self.attention, self.frames)
        )
        return text, attention, frames, self.words_right

    def total(self, progress: float) -> Tensor:
        """Their sum; frames matter most in the first part."""
        frames_weight = 1.0 if progress < FRAMES_SHARE else 0.3
        return self.text + 0.3 * self.attention + frames_weight * self.frames


def compute_losses(network: DigitsNetwork, batch: Batch) -> Losses:
    """The losses of one batch."""
    tokens, labels = torch.from_numpy(batch.tokens), torch.from_numpy(batch.labels)
    kept = labels != IGNORED
    sound = network.encode(torch.from_numpy(batch.features), batch.offsets)
    reading = network.decode(tokens, sound, kept, _draw_shifts(tokens))
    written = labels[kept]
    frame_scores = network.classify_frames(sound)
    frame_words = torch.from_numpy(batch.frame_words)
    words = written < END_OF_TEXT
    right = (reading.scores.argmax(-1) == written)[words].float()
    return Losses(
        text=functional.cross_entropy(reading.scores, written),
        attention=_guide(reading.attention, torch.from_numpy(batch.spans)),
        frames=functional.cross_entropy(frame_scores.flatten(0, 2), frame_words.flatten()),
        words_right=float(right.mean()) if len(right) else 1.0,
    )


def _draw_shifts(tokens: Tensor) -> Tensor:
    """Positions to begin at: at times as far on as if much had been said before."""
    alone = tokens[:, 0] == START_OF_TRANSCRIPT
    shifted = alone & (torch.rand(len(tokens)) < SHIFTED_SHARE)
    return torch.randint(0, POSITIONS // 2, (len(tokens),)) * shifted


def _guide(attention: Tensor, spans: Tensor) -> Tensor:
    """How far the alignment heads look away from what each token is about."""
    frames = torch.arange(attention.shape[-1])
    inside = (frames >= spans[..., :1].floor()) & (frames <= spans[..., 1:].ceil())
    about = spans[..., 0] >= 0
    looked = (attention * inside[:, None]).sum(-1).clamp_min(1e-6).log()
    heads = attention.shape[1]
    return -(looked * about[:, None]).sum() / (heads * about.sum()).clamp_min(1)


class Trainer:
    """The network with its two optimisers, and the rate at which they learn."""

    def __init__(self, network: DigitsNetwork, steps: int) -> None:
        """Sort the parameters: matrices to Muon, the rest to AdamW."""
        self._network = network
        self._steps = steps
        self._step = 0
        others = ("text_embedding", "time_embedding", "positions", "word_frames")
        named = list(network.named_parameters())
        matrices = [p for name, p in named if p.dim() > 1 and not name.startswith(others)]
        chosen = {id(p) for p in matrices} | {id(network.time_embedding)}
        rest = [p for _, p in named if id(p) not in chosen]
        times = {"params": [network.time_embedding], "lr": TIME_RATE}
        self._optimisers = (
            torch.optim.Muon(matrices, lr=MATRIX_RATE, weight_decay=0.01, momentum=0.95),
            torch.optim.AdamW(
                [{"params": rest}, times], lr=REST_RATE, betas=(0.9, 0.98), weight_decay=0.0
            ),
        )
        self._schedules = [
            torch.optim.lr_scheduler.LambdaLR(optimiser, self._rate)
            for optimiser in self._optimisers
        ]

    def _rate(self, step: int) -> float:
        """The share of the full rate: up at first, then flat, then down."""
        left = (1 - step / self._steps) / DECAY_SHARE
        return min(1.0, (step + 1) / WARM_UP_STEPS) * min(1.0, max(RATE_LAST, left))

    def learn(self, batch: Batch) -> Losses:
        """One step."""
        losses = compute_losses(self._network, batch)
        for optimiser in self._optimisers:
            optimiser.zero_grad()
        losses.total(self._step / self._steps).backward()
        torch.nn.utils.clip_grad_norm_(self._network.parameters(), 1.0)
        for optimiser, schedule in zip(self._optimisers, self._schedules, strict=True):
            optimiser.step()
            schedule.step()
        self._step += 1
        return losses


def train(
    out: Path, stages: Sequence[Stage], speaker_count: int, phrases_each: int, seed: int
) -> None:
    """Record, train and save; out/model is replaced at each checkpoint."""
    started = time.monotonic()
    speakers = record_speakers(speaker_count, phrases_each, seed + 1)
    hours = sum(phrase.seconds for speaker in speakers for phrase in speaker.phrases) / 3600
    seconds = time.monotonic() - started
    log.info("recorded speakers=%d hours=%.2f seconds=%.0f", len(speakers), hours, seconds)
    torch.manual_seed(seed)
    network = DigitsNetwork()
    log.info("network parameters=%d", sum(weight.numel() for weight in network.parameters()))
    steps = sum(stage.steps for stage in stages)
    trainer = Trainer(network, steps)
    reported = []
    for step, batch in enumerate(stream(speakers, stages, EASY_SHARE, seed + 7), start=1):
        losses = trainer.learn(batch)
        reported.append(losses.read())
        if step % REPORT_STEPS == 0:
            means = torch.tensor(reported).mean(0).tolist()
            seconds = time.monotonic() - started
            log.info(
                "step=%d/%d seconds=%.0f text=%.3f attention=%.3f frames=%.3f words_right=%.3f",
                *(step, steps, seconds, *means),
            )
            reported.clear()
        if step % CHECKPOINT_STEPS == 0 or step == steps:
            conversion.save(network, out / "model")
    log.info("finished folder=%s seconds=%.0f", out / "model", time.monotonic() - started)


def parse_stages(text: str) -> tuple[Stage, ...]:
    """Stages from "steps:batch:seconds,…"; windows shorter than 30 s are scattered."""
    stages = []
    for part in text.split(","):
        steps, batch_size, seconds = part.split(":")
        scattered = float(seconds) < WINDOW_SECONDS
        stages.append(Stage(int(steps), int(batch_size), float(seconds), scattered))
    return tuple(stages)


def main() -> None:
    """Make the model that the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="folder to write into")
    parser.add_argument("--speakers", type=int, default=1600)
    parser.add_argument("--phrases", type=int, default=16, help="of each speaker")
    parser.add_argument("--stages", type=parse_stages, default=STAGES, help="steps:batch:seconds,…")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(options.threads)
    train(options.out, options.stages, options.speakers, options.phrases, options.seed)


if __name__ == "__main__":
    main()
