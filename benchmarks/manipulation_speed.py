"""Pictures per second of the transformer `tiny`, trained and run, beside a ResNet-50 that gives 63 numbers.

    python -m benchmarks manipulation_speed

Both see the same 128 px pictures in the same batches, in this process, on one thread, and take turns. The peer is the
published ResNet-50 of the transformers library, RANDOM weights, with one linear layer to 21 joints and a mean joint
error as its loss: what a plain regressor costs. Ours is trained as it is trained: every loss, AdamW, averaged weights.
Processor time, which a busy machine distorts less than the clock.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from transformers import ResNetConfig, ResNetModel

from benchmarks.paired import Comparison, in_turns
from models.manipulation.network import build
from models.manipulation.size import SIZES
from train_jobs.manipulation.config import StageConfig
from train_jobs.manipulation.samples import Samples
from train_jobs.manipulation.synthetic import generate
from train_jobs.manipulation.trainer import Trainer

BATCH = 16
PEER, UNIT, COMMAND = "ResNet-50 to 63 numbers", "pictures/s", "python -m benchmarks manipulation_speed"


class Regressor(nn.Module):
    """ResNet-50 and one linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.joints = ResNetModel(ResNetConfig()), nn.Linear(2048, 63)

    def forward(self, pictures: Tensor) -> Tensor:
        """(B, 3, S, S) bytes → (B, 21, 3)."""
        return self.joints(self.body(pictures / 255).pooler_output.flatten(1)).unflatten(1, (21, 3))


def rate(work: Callable[[], object]) -> float:
    """Pictures per second of the processor, of one batch."""
    began = time.process_time()
    work()
    return BATCH / (time.process_time() - began)


def comparisons() -> Iterator[Comparison]:
    """Training, then inference."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    samples = generate("train", 0, BATCH, SIZES["tiny"].image_px)
    trainer = Trainer(build(SIZES["tiny"]), StageConfig(batch_size=BATCH, epochs=1000), samples)
    peer = Regressor()
    train_peer = peer_step(peer, samples)
    pairs = in_turns(lambda: rate(trainer.step), lambda: rate(train_peer))
    yield Comparison("training the manipulation transformer `tiny`, one thread", PEER, UNIT, "more", *pairs, COMMAND)

    trainer.network.eval()
    peer.eval()
    with torch.inference_mode():
        pairs = in_turns(
            lambda: rate(lambda: trainer.network(samples.pictures, samples.intrinsics)),
            lambda: rate(lambda: peer(samples.pictures)),
        )
    yield Comparison("running the manipulation transformer `tiny`, one thread", PEER, UNIT, "more", *pairs, COMMAND)


def peer_step(peer: Regressor, samples: Samples) -> Callable[[], None]:
    """One step of the peer's training."""
    optimiser = torch.optim.AdamW(peer.parameters())

    def step() -> None:
        peer.train()
        loss = (peer(samples.pictures) - samples.joints_m).norm(dim=-1).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()

    return step
