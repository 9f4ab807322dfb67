"""A running average of a network's weights: what is measured and shipped, whenever training is stopped.

In: the network after every step. Out: `network`, the average. Used by both trainers.
Polyak and Juditsky 1992; the share of the old grows to its final value, so that early averages forget the random start.
"""

from __future__ import annotations

from copy import deepcopy

import torch
from torch import nn


class Average:
    """Owns the averaged copy."""

    def __init__(self, network: nn.Module, share: float) -> None:
        self.network = deepcopy(network).requires_grad_(False)
        self._share = share

    @torch.no_grad()
    def update(self, network: nn.Module, step: int) -> None:
        """After optimiser step number `step` (from 1 on)."""
        keep = min(self._share, step / (step + 10))
        own, other = self.network.state_dict(), network.state_dict()
        for name, value in own.items():
            if value.is_floating_point():
                value.lerp_(other[name], 1 - keep)
            else:
                value.copy_(other[name])
