"""What is watched but not optimised: whether answers still differ from picture to picture, and attention's entropy.

In: predictions of a batch, attention weights. Out: numbers for the log; Collapsed when a run is lost. Called by
trainer.py. As losses both would reward error: the spread of wrong answers has no upper end, and there is no entropy
that attention should have.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from train_jobs.manipulation.errors import Collapsed

# Of the labels' own spread: below this share the answers are one answer.
LEAST_SPREAD = 0.05


def spread_m(joints_m: Tensor) -> float:
    """Root mean square over (B, 21, 3) of the distance from the batch's mean, seen from the wrist, in metres."""
    relative = joints_m - joints_m[:, :1]
    return float((relative - relative.mean(0)).pow(2).sum(-1).mean().sqrt())


def attention_entropy(weights: Tensor) -> float:
    """Mean entropy of attention rows (..., K), as a share of the largest possible: 0 one place, 1 all alike."""
    entropy = -(weights * weights.clamp(min=1e-12).log()).sum(-1)
    return float(entropy.mean() / math.log(weights.shape[-1]))


@dataclass(slots=True)
class CollapseDetector:
    """Stops a run whose answers have not differed for `patience` looks in a row, once `grace` looks are over."""

    grace: int = 3
    patience: int = 3
    looks: int = 0
    flat: int = 0

    def look(self, predicted_m: Tensor, true_m: Tensor) -> float:
        """The answers' spread as a share of the labels'. Raises Collapsed."""
        labels = spread_m(true_m)
        share = spread_m(predicted_m) / labels if labels > 0 else 1.0
        self.looks += 1
        self.flat = self.flat + 1 if share < LEAST_SPREAD or not math.isfinite(share) else 0
        if self.looks > self.grace and self.flat >= self.patience:
            raise Collapsed(
                f"the answers' spread is {100 * share:.1f} % of the labels' ({1000 * labels:.1f} mm) for the "
                f"{self.flat}. time: the network gives one pose for every picture; lower the learning rate or look at "
                "the data"
            )
        return share


def finite(parts: dict[str, Tensor]) -> None:
    """Raises Collapsed naming the losses that are not numbers any more."""
    wrong = [name for name, value in parts.items() if not bool(torch.isfinite(value))]
    if wrong:
        raise Collapsed(f"not finite any more: {', '.join(wrong)}; lower the learning rate")
