"""The step-by-step linear (S2L) loss of TrackSSM, with generalised IoU computed row by row.

In: boxes (…, 4) as centre x, centre y, width, height. Out: scalars. Used by network.py, residual.py and train_jobs.
The published code builds a B × B table of overlaps and keeps its diagonal; here row b meets only row b.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

# Pixels or shares of the image, whatever the boxes are in: far below any box.
LEAST_SIDE = 1e-6


def giou(first: Tensor, second: Tensor) -> Tensor:
    """Generalised IoU (...) in (−1, 1] of box with box, both (..., 4): IoU minus the empty share of the hull.

    Rezatofighi et al. 2019. A width of zero or less counts as LEAST_SIDE: taken as it is, it would make the value
    unbounded, and a network that begins with such boxes would learn to make more of them.
    """
    half_a, half_b = (boxes[..., 2:].clamp(min=LEAST_SIDE) / 2 for boxes in (first, second))
    low_a, high_a = first[..., :2] - half_a, first[..., :2] + half_a
    low_b, high_b = second[..., :2] - half_b, second[..., :2] + half_b
    inter = (torch.minimum(high_a, high_b) - torch.maximum(low_a, low_b)).clamp(min=0).prod(-1)
    union = (high_a - low_a).prod(-1) + (high_b - low_b).prod(-1) - inter
    hull = (torch.maximum(high_a, high_b) - torch.minimum(low_a, low_b)).clamp(min=0).prod(-1)
    return inter / union - (hull - union) / hull


def step_targets(start: Tensor, target: Tensor, heads: int) -> Tensor:
    """(H, B, 4): head n of H aims at start + n/H · (target − start)."""
    share = torch.arange(1, heads + 1, dtype=start.dtype, device=start.device) / heads
    return start + share[:, None, None] * (target - start)


def s2l_loss(boxes: Tensor, start: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """(smooth L1, 1 − GIoU) of every head's box with its own step on the way: summed over heads, mean over the rest.

    boxes (H, B, 4), start and target (B, 4).
    """
    goals = step_targets(start, target, len(boxes))
    smooth = F.smooth_l1_loss(boxes, goals, reduction="none").mean(dim=(1, 2)).sum()
    return smooth, (1 - giou(boxes, goals)).mean(dim=1).sum()
