"""What a retargeted hand should match: vectors between finger tips and wrist, robust, and closed for a pinch.

In: keypoints in the wrist's frame. Out: Targets that solver.py minimises. The two objectives are those of
dex-retargeting (and of DexPilot, Handa et al. 2020, arXiv 1910.03135), so that results can be compared:

`vector`: mean over the four tips of huber(|tip − wrist − scale · human|).
`pinch`: the same plus the six vectors between tips; where the human's thumb and finger are closer than 3 cm (until
they are farther than 5 cm again) the robot's are drawn together, to 0.1 mm, 200 times as strongly.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from models.retarget.keypoints import TIPS

# Between the tips (thumb first, as in DexPilot), and from the wrist: (from, to), 4 is the wrist.
THUMB, WRIST = 3, 4
TIP_PAIRS = ((0, THUMB), (1, THUMB), (2, THUMB), (1, 0), (2, 0), (2, 1))
CLOSE_M, APART_M = 0.03, 0.05
THUMB_CLOSED_M, FINGERS_CLOSED_M = 1e-4, 3e-2
THUMB_WEIGHT, FINGERS_WEIGHT = 200.0, 400.0
WRIST_WEIGHT = 10.0
# In which two thumb pinches (of TIP_PAIRS' first three) a pair of fingers both takes part.
BOTH_PINCH = ((0, 1), (0, 2), (1, 2))


@dataclass(frozen=True, slots=True)
class Objective:
    """A named objective with its constants."""

    name: str
    pairs: tuple[tuple[int, int], ...]  # (from, to) among index, middle, ring, thumb, wrist
    huber_m: float
    stay: float = 4e-3  # per rad²: how much leaving the anchor costs


FROM_WRIST = ((WRIST, 0), (WRIST, 1), (WRIST, 2), (WRIST, THUMB))
VECTOR = Objective("vector", FROM_WRIST, 0.02)
PINCH = Objective("pinch", (*TIP_PAIRS, *FROM_WRIST), 0.03)
OBJECTIVES = {objective.name: objective for objective in (VECTOR, PINCH)}


@dataclass(frozen=True, slots=True)
class Targets:
    """What solver.py needs of B poses."""

    vectors_m: Tensor  # (B, P, 3) wanted
    weights: Tensor  # (B, P) of the huber terms; 0 where a tip is missing


def targets(objective: Objective, points_m: Tensor, tip_seen: Tensor, scaling: float) -> Targets:
    """Targets for hands (T, 21, 3) in the wrist's frame, in time order: a pinch holds until fingers are well apart.

    `scaling` is the robot's size over the human's.
    """
    tips = torch.cat([points_m[:, list(TIPS.values())], torch.zeros_like(points_m[:, :1])], 1)
    start, end = (torch.tensor(ends, device=points_m.device) for ends in zip(*objective.pairs, strict=True))
    human = tips[:, end] - tips[:, start]
    seen = torch.cat([tip_seen, torch.ones_like(tip_seen[:, :1])], 1)
    known = (seen[:, end] & seen[:, start]).to(human.dtype)
    if objective.name == VECTOR.name:
        return Targets(human * scaling, known / len(objective.pairs))
    closed = _pinches(human[:, : len(TIP_PAIRS)].norm(dim=-1), known[:, : len(TIP_PAIRS)] > 0)
    distance = torch.tensor([THUMB_CLOSED_M] * 3 + [FINGERS_CLOSED_M] * 3).to(human)
    strength = torch.tensor([THUMB_WEIGHT] * 3 + [FINGERS_WEIGHT] * 3).to(human)
    between = human[:, : len(TIP_PAIRS)]
    direction = between / (between.norm(dim=-1, keepdim=True) + 1e-6)
    wanted = torch.where(closed[..., None], direction * distance[:, None], between * scaling)
    weights = torch.cat(
        [torch.where(closed, strength, 1.0), torch.full((len(human), 4), WRIST_WEIGHT).to(human)], 1
    )  # fmt: skip
    vectors = torch.cat([wanted, human[:, len(TIP_PAIRS) :] * scaling], 1)
    return Targets(vectors, weights * known / len(objective.pairs))


def _pinches(apart_m: Tensor, known: Tensor) -> Tensor:
    """(T, 6) bool: which pairs are pinched. Thumb pairs have hysteresis over time; finger pairs follow from them."""
    near, far = (apart_m[:, :3] < CLOSE_M) & known[:, :3], apart_m[:, :3] > APART_M
    # The last frame in which the state was set decides; none yet means open.
    index = torch.arange(1, len(apart_m) + 1, device=apart_m.device)[:, None]
    closed_at = torch.where(near, index, 0).cummax(0).values
    opened_at = torch.where(far & known[:, :3], index, 0).cummax(0).values
    thumb = closed_at > opened_at
    fingers = torch.stack([thumb[:, a] & thumb[:, b] for a, b in BOTH_PINCH], 1)
    return torch.cat([thumb, fingers & (apart_m[:, 3:] <= CLOSE_M)], 1)
