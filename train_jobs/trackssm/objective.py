"""What is learned: a batch of windows → one loss with its parts, for either form of the network.

In: a PhaseConfig; Batches. Out: samples and losses. Called by trainer.py. `Objective` is a module whose forward is the
loss, so that distributed training wraps it as a whole, and no mode of the network changes what the loss is.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from models.trackssm.losses import giou
from models.trackssm.network import D2MP
from models.trackssm.residual import ResidualTrackSSM, boxes_of
from models.trackssm.size import SIZES
from train_jobs.trackssm.config import PhaseConfig
from train_jobs.trackssm.samples import (
    Detector,
    PublicSamples,
    ResidualSamples,
    public_samples,
    residual_samples,
)
from train_jobs.trackssm.windows import Batch

Samples = PublicSamples | ResidualSamples
# The spread's likelihood is a side result: it may not set the pace.
SPREAD_WEIGHT = 0.2


def fresh_network(config: PhaseConfig) -> D2MP | ResidualTrackSSM:
    """An untrained network of the configured form and size."""
    size = SIZES[config.size]
    return ResidualTrackSSM(size) if config.form == "residual" else D2MP(size, config.sigmoid)


def samples_of(config: PhaseConfig, batch: Batch, rng: np.random.Generator) -> Samples:
    """At most `most_samples` of a batch's samples, drawn at random. Everything else about them is in the batch."""
    make = residual_samples if config.form == "residual" else public_samples
    samples = make(batch, Detector(), rng)
    if len(samples) <= config.most_samples:
        return samples
    rows = torch.as_tensor(np.sort(rng.choice(len(samples), config.most_samples, replace=False)))
    return chosen(samples, rows)


def chosen(samples: Samples, rows: Tensor) -> Samples:
    """These samples."""
    return type(samples)(*(getattr(samples, name)[rows] for name in type(samples).__slots__))


class Objective(nn.Module):
    """A network under its loss."""

    def __init__(self, network: D2MP | ResidualTrackSSM) -> None:
        super().__init__()
        self.network = network

    def forward(self, *samples: Tensor) -> dict[str, Tensor]:
        """The tensors of Samples, in their order → `loss` and its parts."""
        if isinstance(self.network, D2MP):
            smooth, overlap = self.network.loss(*samples)
            return {"loss": smooth + overlap, "smooth_l1": smooth, "giou": overlap}
        smooth, overlap, spread = self.network.loss(*samples)
        total = smooth + overlap + SPREAD_WEIGHT * spread
        return {"loss": total, "smooth_l1": smooth, "giou": overlap, "spread": spread}

    @torch.no_grad()
    def validate(self, samples: Samples) -> dict[str, float]:
        """The loss and the mean GIoU of the predicted boxes, beside that of what was there without the network:
        the last box for the public form, the filter's for the residual variant. Leaves the mode as it is.
        """
        tensors = tensors_of(samples)
        parts = {name: float(value) for name, value in self(*tensors).items()}
        if isinstance(self.network, D2MP):
            condition, target = tensors
            box, before = self.network(condition), condition[:, -1, :4]
        else:
            tokens, before, sigma, target = tensors
            box = boxes_of(self.network(tokens)[0][-1], before, sigma)
        return {**parts, "box_giou": float(giou(box, target).mean()), "plain_giou": float(giou(before, target).mean())}


def tensors_of(samples: Samples) -> list[Tensor]:
    """The tensors in the order that the loss takes them."""
    return [getattr(samples, name) for name in type(samples).__slots__]
