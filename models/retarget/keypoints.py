"""21 hand keypoints → points in the wrist's frame, and which of them can be used.

In: keypoints (..., 21, 3) in metres, in MediaPipe's order (wrist, then thumb, index, middle, ring, little, four each).
Out: the same hand seen from its wrist, in the axes of an Allegro's `wrist` link: z from the wrist to the middle
knuckle, x out of the palm, y to the left as seen from the back. Called by hand.py and train_jobs.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

WRIST, INDEX_KNUCKLE, MIDDLE_KNUCKLE, RING_KNUCKLE = 0, 5, 9, 13
# In the order of the robot's fingers.
TIPS = {"index": 8, "middle": 12, "ring": 16, "thumb": 4}
KEYPOINTS = 21

# A palm (wrist to middle knuckle) outside this is no hand: an adult's is 8 to 11 cm long, a child's 5.
PALM_M = (0.03, 0.25)
# Knuckles closer to the palm's axis than this do not say how the hand is turned.
LEAST_KNUCKLE_WIDTH_M = 0.004


@dataclass(frozen=True, slots=True)
class WristView:
    """Hands seen from their wrists."""

    points_m: Tensor  # (..., 21, 3); zeros where unknown
    rotation: Tensor  # (..., 3, 3): keypoint frame from wrist frame
    usable: Tensor  # (...) bool: wrist and knuckles are there and span a palm
    tip_seen: Tensor  # (..., 4) bool, in the order of the robot's fingers


def from_wrist(keypoints_m: Tensor, side: str) -> WristView:
    """See hands (..., 21, 3) from their wrists. NaN or infinite keypoints are missing; `side` is left or right."""
    known = torch.isfinite(keypoints_m).all(-1)
    points = torch.where(known[..., None], keypoints_m, 0.0)
    wrist, index, middle, ring = (points[..., k, :] for k in (WRIST, INDEX_KNUCKLE, MIDDLE_KNUCKLE, RING_KNUCKLE))
    palm, across = middle - wrist, index - ring
    length = palm.norm(dim=-1)
    z = palm / length.clamp(min=1e-9)[..., None]
    # From the back with the fingers up, a right hand's index finger is on the left, a left hand's on the right.
    y = (across - (across * z).sum(-1, keepdim=True) * z) * (1.0 if side == "right" else -1.0)
    width = y.norm(dim=-1)
    y = y / width.clamp(min=1e-9)[..., None]
    rotation = torch.stack([torch.linalg.cross(y, z), y, z], -1)
    needed = known[..., [WRIST, INDEX_KNUCKLE, MIDDLE_KNUCKLE, RING_KNUCKLE]].all(-1)
    usable = needed & (length > PALM_M[0]) & (length < PALM_M[1]) & (width > LEAST_KNUCKLE_WIDTH_M)
    rotation = torch.where(usable[..., None, None], rotation, torch.eye(3, dtype=points.dtype, device=points.device))
    seen = torch.where(usable[..., None, None], (points - wrist[..., None, :]) @ rotation, 0.0)
    tips = known[..., list(TIPS.values())] & usable[..., None]
    return WristView(torch.where(known[..., None], seen, 0.0), rotation, usable, tips)
