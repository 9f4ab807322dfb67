"""Queries that point into the picture: where something is, as the mean place of a softmax over the patches.

In: queries (B, Q, C), the patches' grid (B, C, 16, 16). Out: logits over patches, places from −1 to 1. Called by the
heads of hands and objects. A place that is pointed at is learned from far fewer pictures than one that has to be said
(Sun et al. 2018, arXiv 1711.08229).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.manipulation.size import GRID


class Pointing(nn.Module):
    """Queries against patches."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.ask, self.patch = (nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width)) for _ in range(2))
        self.register_buffer("centres", centres())
        # Sharp enough from the start to single out patches; how sharp is learned.
        self.log_sharpness = nn.Parameter(torch.tensor(1.1))

    def forward(self, queries: Tensor, grid: Tensor) -> Tensor:
        """(B, Q, 256) logits: in which patch."""
        patches = self.patch(grid.flatten(2).mT)
        alike = (self.ask(queries) @ patches.mT).float() / patches.shape[-1] ** 0.5
        return self.log_sharpness.exp() * alike

    def place(self, logits: Tensor) -> Tensor:
        """(B, Q, 2) from −1 to 1 over the picture."""
        # No matrix product: under autocast that would round places to bf16.
        return (logits.softmax(-1)[..., None] * self.centres).sum(-2)


def centres() -> Tensor:
    """(256, 2) of the patches, row by row, from −1 to 1 over the picture."""
    line = (2 * torch.arange(GRID) + 1) / GRID - 1
    y, x = torch.meshgrid(line, line, indexing="ij")
    return torch.stack([x, y], -1).flatten(0, 1)
