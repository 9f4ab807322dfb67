"""Automatic masks: everything that a promptable segmenter cuts out of one picture, asked on a grid of points.

In: a decoder that has seen the picture, and a profile. Out: proposals, best first. Called by actors/tracker/search.py.
Serves SAM 2 (models/sam2/automatic.py) and MobileSAM (models/mobile_sam/automatic.py).

The masks are those of SAM 2's `SAM2AutomaticMaskGenerator`; what differs is the order of work. A mask is drawn only
if its predicted IoU passes, judged at low resolution first, judged again at the picture's resolution in small chunks
of which only a box and a number are kept, and drawn in full only if it survives suppression. So the peak of memory
does not grow with the number of points or with the picture.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torchvision.ops import batched_nms

# A mask whose low-resolution stability is this much below the threshold cannot reach it at full resolution: on 20
# real pictures the two differ by at most 0.03.
STABILITY_SLACK = 0.05


@dataclass(frozen=True, slots=True)
class Profile:
    """How dense to ask and what to keep; the thresholds are those of SAM 2's generator."""

    points_per_side: int = 32
    points_per_batch: int = 64  # prompts decoded together
    masks_per_chunk: int = 16  # masks at the picture's resolution at one time
    least_predicted_iou: float = 0.8
    least_stability: float = 0.95
    stability_offset: float = 1.0
    most_box_iou: float = 0.7  # of two masks whose boxes overlap more, the better stays


PROFILES = {
    # One batch of one shape: a large GPU is idle between small ones.
    "gpu": Profile(points_per_side=32, points_per_batch=1024, masks_per_chunk=64),
    # 8 GB of memory shared with everything else (Jetson Orin), or a CPU.
    "edge": Profile(points_per_side=16, points_per_batch=16, masks_per_chunk=16),
}


class PointDecoder(Protocol):
    """A segmenter that has seen one picture. `height` and `width` are the picture's, pixels."""

    height: int
    width: int

    def rate(self, points_01: torch.Tensor) -> tuple[Any, torch.Tensor]:
        """(N, 2) points in 0..1 of the picture → what `draw` needs, and (N, 3) predicted IoU of three masks each."""

    def draw(self, rated: Any, wanted_N3: torch.Tensor) -> torch.Tensor:
        """Low-resolution logits (K, h, w) of the wanted masks, in row-major order of `wanted_N3` bool."""

    def to_picture(self, logits_KHW: torch.Tensor) -> torch.Tensor:
        """(K, h, w) → (K, H, W) logits in the picture's pixels."""


@dataclass(frozen=True, slots=True)
class Proposals:
    """What was cut out of one picture, best predicted IoU first; K may be 0."""

    masks: np.ndarray  # (K, H, W) bool
    boxes_px: np.ndarray  # (K, 4) float32 xyxy, the far edge exclusive
    predicted_iou: np.ndarray  # (K,) float32
    stability: np.ndarray  # (K,) float32
    points_01: np.ndarray  # (K, 2) float32: the grid point that gave it


def grid(per_side: int) -> torch.Tensor:
    """(per_side², 2) x, y in 0..1: the centres of equal cells."""
    ticks = (torch.arange(per_side) + 0.5) / per_side
    y, x = torch.meshgrid(ticks, ticks, indexing="ij")
    return torch.stack([x, y], dim=-1).reshape(-1, 2)


@torch.inference_mode()
def propose(decoder: PointDecoder, profile: Profile, region_01: np.ndarray | None = None) -> Proposals:
    """All masks of the picture, or of those asked for inside `region_01` (xyxy in 0..1 of the picture)."""
    points = grid(profile.points_per_side)
    if region_01 is not None:
        region = torch.tensor(np.asarray(region_01, np.float32))
        points = region[:2] + points * (region[2:] - region[:2])
    logits, ious, sources = [], [], []
    for first in range(0, len(points), profile.points_per_batch):
        batch = points[first : first + profile.points_per_batch]
        rated, iou_N3 = decoder.rate(batch)
        wanted_N3 = iou_N3 > profile.least_predicted_iou
        if not wanted_N3.any():
            continue
        drawn = decoder.draw(rated, wanted_N3)
        stable = stability(drawn, profile.stability_offset) >= profile.least_stability - STABILITY_SLACK
        logits.append(drawn[stable])
        ious.append(iou_N3[wanted_N3][stable])
        sources.append(batch.to(drawn.device)[wanted_N3.nonzero()[:, 0]][stable])
    if not logits:
        return _none(decoder)
    return _survivors(decoder, profile, torch.cat(logits), torch.cat(ious).float(), torch.cat(sources))


def _survivors(
    decoder: PointDecoder, profile: Profile, logits: torch.Tensor, ious: torch.Tensor, sources: torch.Tensor
) -> Proposals:
    """Judge at the picture's resolution, suppress duplicates, and draw what is left."""
    steady, boxes = [torch.zeros(0, device=logits.device)], [torch.zeros(0, 4, device=logits.device)]
    for chunk in logits.split(profile.masks_per_chunk):
        full = decoder.to_picture(chunk)
        steady.append(stability(full, profile.stability_offset))
        boxes.append(boxes_of(full > 0))
    steadiness, boxes_K4 = torch.cat(steady), torch.cat(boxes)
    stable = (steadiness >= profile.least_stability).nonzero()[:, 0]
    # Suppression as in SAM 2's generator: its boxes end at the last pixel, not behind it.
    inclusive = boxes_K4[stable] - torch.tensor([0, 0, 1, 1], device=logits.device)
    kept = stable[batched_nms(inclusive, ious[stable], torch.zeros_like(stable), profile.most_box_iou)]
    masks = np.zeros((len(kept), decoder.height, decoder.width), bool)
    for start in range(0, len(kept), profile.masks_per_chunk):
        rows = kept[start : start + profile.masks_per_chunk]
        masks[start : start + len(rows)] = (decoder.to_picture(logits[rows]) > 0).cpu().numpy()
    return Proposals(
        masks,
        *(each[kept].float().cpu().numpy() for each in (boxes_K4, ious, steadiness, sources)),
    )


def stability(logits: torch.Tensor, offset: float) -> torch.Tensor:
    """(K,) IoU of each (h, w) mask cut at +offset and at −offset (Segment Anything §5); 0 where both are empty."""
    inside = (logits > offset).sum(dim=(-1, -2), dtype=torch.int32)
    outside = (logits > -offset).sum(dim=(-1, -2), dtype=torch.int32)
    return inside / outside.clamp(min=1)


def boxes_of(masks: torch.Tensor) -> torch.Tensor:
    """(K, H, W) bool → (K, 4) float32 xyxy, the far edge exclusive; zeros for an empty mask."""
    edges = []
    for occupied in (masks.any(dim=1), masks.any(dim=2)):  # columns, rows
        length = occupied.shape[1]
        positions = torch.arange(length, device=masks.device)
        first = torch.where(occupied, positions, length).amin(dim=1)
        last = torch.where(occupied, positions, -1).amax(dim=1)
        edges.append((first, last + 1))
    (x0, x1), (y0, y1) = edges
    boxes = torch.stack([x0, y0, x1, y1], dim=1).float()
    return boxes * (x1 > 0)[:, None]


def _none(decoder: PointDecoder) -> Proposals:
    empty = np.zeros((0,), np.float32)
    shape = (0, decoder.height, decoder.width)
    return Proposals(np.zeros(shape, bool), np.zeros((0, 4), np.float32), empty, empty, np.zeros((0, 2), np.float32))
