"""Pictures per second of the transformer `tiny`, trained and run, beside a ResNet-50 that gives 63 numbers.

    python -m benchmarks.manipulation_speed

Both see the same 128 px pictures in the same batches, in this process, on one thread, and take turns. The peer is the
published ResNet-50 of the transformers library, RANDOM weights, with one linear layer to 21 joints and a mean joint
error as its loss: what a plain regressor costs. Ours is trained as it is trained: every loss, AdamW, averaged weights.
Medians of processor time, which a busy machine distorts less than the clock.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn
from transformers import ResNetConfig, ResNetModel

from models.manipulation.network import build
from models.manipulation.size import SIZES
from train_jobs.manipulation.config import StageConfig
from train_jobs.manipulation.samples import Samples
from train_jobs.manipulation.synthetic import generate
from train_jobs.manipulation.trainer import Trainer

BATCH, TURNS = 16, 5


class Regressor(nn.Module):
    """ResNet-50 and one linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.joints = ResNetModel(ResNetConfig()), nn.Linear(2048, 63)

    def forward(self, pictures: Tensor) -> Tensor:
        """(B, 3, S, S) bytes → (B, 21, 3)."""
        return self.joints(self.body(pictures / 255).pooler_output.flatten(1)).unflatten(1, (21, 3))


def seconds(work: Callable[[], object]) -> float:
    """Of the processor."""
    began = time.process_time()
    work()
    return time.process_time() - began


def compare(ours: Callable[[], object], theirs: Callable[[], object]) -> tuple[float, float]:
    """Pictures per second of both, taking turns after one turn to warm up."""
    times = [(seconds(ours), seconds(theirs)) for _ in range(TURNS + 1)][1:]
    rates = [BATCH / statistics.median(row) for row in zip(*times, strict=True)]
    return rates[0], rates[1]


def main() -> int:
    """Print both rows."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    samples = generate("train", 0, BATCH, SIZES["tiny"].image_px)
    for bf16 in (False, True):
        training, inference = rates(samples, bf16)
        kind = "bf16" if bf16 else "float32"
        for what, (ours, theirs) in (("training", training), ("inference", inference)):
            sys.stdout.write(
                f"{what}, {kind}: tiny {ours:.1f} pictures/s, ResNet-50 {theirs:.1f}, {ours / theirs:.1f} times\n"
            )
    return 0


def rates(samples: Samples, bf16: bool) -> tuple[tuple[float, float], tuple[float, float]]:
    """(ours, theirs) in pictures per second, of training and of inference."""
    trainer = Trainer(build(SIZES["tiny"]), StageConfig(batch_size=BATCH, epochs=1000, bf16=bf16), samples)
    peer = Regressor()
    optimiser = torch.optim.AdamW(peer.parameters())

    def step() -> None:
        peer.train()
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            told = peer(samples.pictures)
        loss = (told.float() - samples.joints_m).norm(dim=-1).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()

    @torch.no_grad()
    def run(network: nn.Module, *inputs: Tensor) -> None:
        network.eval()
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            network(*inputs)

    training = compare(trainer.step, step)
    given = samples.pictures, samples.intrinsics
    return training, compare(lambda: run(trainer.network, *given), lambda: run(peer, given[0]))


if __name__ == "__main__":
    sys.exit(main())
