"""Makes the aligner: records voices with espeak-ng, trains the network, writes the folder.

    OMP_NUM_THREADS=1 python -m tests.speech.aligner.train --out tests/speech/aligners/en

whisperx.load_align_model loads the folder. Needs espeak-ng, torch, transformers and pyannote.audio.
"""

import argparse
import logging
import time
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional
from transformers import Wav2Vec2ForCTC

from tests.speech.aligner.lessons import Lesson, Teacher, record_english_speakers
from tests.speech.aligner.network import make_network
from tests.speech.makers import save_aligner

log = logging.getLogger("aligner")

BATCH_SECONDS = 80.0  # of sound, in rows of one of these lengths
ROW_SECONDS = (2.0, 4.0, 4.0, 8.0, 8.0, 16.0)
RATE = 2e-3
WARM_UP_SHARE = 0.05
LETTER_WEIGHT = 3.0  # a frame in ten names a letter; as many frames are right without any
NEIGHBOUR = 0.25  # how right it is to name a letter one frame early or late
REPORT_STEPS = 50
CHECKPOINT_STEPS = 250


def compute_loss(network: Wav2Vec2ForCTC, lesson: Lesson) -> tuple[Tensor, float]:
    """The loss of one lesson, and the share of letters that are named in their frame."""
    scores = network(torch.from_numpy(lesson.samples)).logits
    labels = torch.from_numpy(lesson.labels)[:, : scores.shape[1]]
    target = _soften(functional.one_hot(labels, scores.shape[-1]).float())
    weight = 1 + (LETTER_WEIGHT - 1) * (1 - target[..., 0])
    loss = -(target * scores.log_softmax(-1)).sum(-1)
    spoken = labels > 0
    right = (scores[..., 1:].argmax(-1) + 1 == labels)[spoken].float().mean()
    return (loss * weight).sum() / weight.sum(), float(right)


def _soften(target: Tensor) -> Tensor:
    """Let the letters reach into the blank frames beside them."""
    letters = target.clone()
    letters[..., 0] = 0
    reach = torch.zeros_like(target)
    reach[:, 1:] += NEIGHBOUR * letters[:, :-1]
    reach[:, :-1] += NEIGHBOUR * letters[:, 1:]
    blank = target[..., :1]
    softened = letters + reach * blank
    softened[..., 0] = 1 - softened[..., 1:].sum(-1)
    return softened


def train(out: Path, speaker_count: int, phrases_each: int, steps: int, seed: int) -> None:
    """Record, train and save; the folder is written anew at each checkpoint."""
    started = time.monotonic()
    speakers = record_english_speakers(speaker_count, phrases_each, seed + 1)
    log.info("recorded speakers=%d seconds=%.0f", len(speakers), time.monotonic() - started)
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    teacher, network = Teacher(rng, speakers), make_network().train()
    log.info("network parameters=%d", sum(weight.numel() for weight in network.parameters()))
    optimiser = torch.optim.AdamW(network.parameters(), lr=RATE, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, max_lr=RATE, total_steps=steps, pct_start=WARM_UP_SHARE
    )
    reported = []
    for step in range(1, steps + 1):
        seconds = float(rng.choice(ROW_SECONDS))
        loss, right = compute_loss(network, teacher.teach(int(BATCH_SECONDS / seconds), seconds))
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        reported.append((float(loss.detach()), right))
        if step % REPORT_STEPS == 0:
            means = np.mean(reported, axis=0).tolist()
            taken = time.monotonic() - started
            log.info("step=%d/%d seconds=%.0f loss=%.3f right=%.3f", step, steps, taken, *means)
            reported.clear()
        if step % CHECKPOINT_STEPS == 0 or step == steps:
            save_aligner(network, out)
            _halve(out / "model.safetensors")


def _halve(weights: Path) -> None:
    """Keep half of each number's digits; the config still says float32, so that is loaded."""
    halves = {name: weight.half() for name, weight in load_file(weights).items()}
    save_file(halves, weights, metadata={"format": "pt"})
    weights.chmod(0o644)  # transformers lets nobody else read what it writes


def main() -> None:
    """Make the aligner that the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    parser.add_argument("--speakers", type=int, default=900)
    parser.add_argument("--phrases", type=int, default=16, help="of each speaker")
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(1)
    train(options.out, options.speakers, options.phrases, options.steps, options.seed)


if __name__ == "__main__":
    main()
